//! VACUUM: objects that no version within the retention needs are deleted.
//!
//! ```text
//! needed by the newest version, or removed within the retention   stays
//! removed before it                                               goes
//! never part of any version, and older than it                    goes: what failed writes left behind
//! hidden (the log, whatever begins with _ or .)                   stays
//! quarantined rows, records of refused writes                     go when their own retention is over
//! events that a journal keeps                                     go when no such version lists them
//! ```
//!
//! The log says before the first deletion how far back files are about to go, so that a query of an older version
//! is told why it cannot be read.

use std::collections::{BTreeMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use serde_json::Value;

use super::{Job, kept};
use crate::error::{Error, Result};
use crate::table::actions::Action;
use crate::table::partition::path_segment;
use crate::table::retention::{self, HOUR_MS};
use crate::table::snapshot::{Snapshot, TableRoot};
use crate::table::{log, protocol, records, vacuumed};
use crate::write::commit::Intent;

/// Objects between two looks at whether somebody has brought one of them back.
const BATCH_OBJECTS: usize = 1000;

/// Clocks of a store and of this machine may differ by so much.
pub(super) const CLOCK_SKEW_MS: i64 = 10 * 60 * 1000;

/// What VACUUM is to do.
#[derive(Debug)]
pub(crate) struct Request {
    /// None: as long as the table says.
    pub retain_hours: Option<f64>,
    /// Whether a retention below the safe one is refused.
    pub checked: bool,
    pub dry_run: bool,
}

/// What VACUUM found, and deleted unless it ran dry.
#[derive(Debug, Default)]
pub(crate) struct Vacuumed {
    /// Objects by their path in the table, with their bytes.
    pub files: Vec<(String, u64)>,
    pub bytes: u64,
    /// The version that says so, if anything was deleted.
    pub version: Option<u64>,
}

/// Runs VACUUM.
pub(crate) async fn run(job: &Job, request: &Request) -> Result<Vacuumed> {
    let table = &job.table;
    let _turn = table.past.lock().await;
    let now_ms = table.ambient.now_ms();
    // Asked before the newest version is: a write that ends in between is part of that version.
    let running_ms = table.running.oldest_ms();
    let base = table.pin(&job.name).await?;
    protocol::check_writable(&job.name, &base)?;
    let retention_ms = retention_ms(job, &base, request)?;
    let horizon_ms = now_ms.saturating_sub(retention_ms);
    let unused = Unused {
        needed: needed(job, &base, horizon_ms, retention_ms).await?,
        expired: expired(job, &base)?,
        hidden_unless: visible_folders(&base),
        before_ms: running_ms.map_or(horizon_ms, |since| {
            horizon_ms.min(since.saturating_sub(CLOCK_SKEW_MS))
        }),
    };
    let mut found = unused
        .find("VACUUM", &job.name, &job.table.root, &base)
        .await?;
    let past_ms = retention::quarantine_past_ms(&base, now_ms)?;
    let quarantined = unused.quarantined(job, &base, past_ms).await?;
    // Said before the first of them goes, as with old versions, so that readers do not look for them.
    if !quarantined.is_empty() && !request.dry_run {
        records::purge(&table.root, past_ms).await?;
    }
    found.extend(quarantined);
    found.extend(kept::unused(job, &base, horizon_ms, unused.before_ms).await?);
    let mut vacuumed = Vacuumed {
        bytes: found.iter().map(|object| object.size).sum(),
        ..Vacuumed::default()
    };
    vacuumed.files = found
        .iter()
        .map(|object| (relative(job, &object.location), object.size))
        .collect();
    if found.is_empty() || request.dry_run {
        return Ok(vacuumed);
    }
    job.meter.expect(found.len() as u64, vacuumed.bytes);

    let count = Value::from(found.len());
    let known_ms = vacuumed::horizon_ms(&base).unwrap_or(i64::MIN);
    let start = Intent {
        parameters: BTreeMap::from([
            ("retentionMillis".to_owned(), Value::from(retention_ms)),
            ("horizonMillis".to_owned(), Value::from(horizon_ms)),
            (
                "retentionCheckEnabled".to_owned(),
                Value::from(request.checked),
            ),
            ("numFilesToDelete".to_owned(), count.clone()),
            ("sizeOfDataToDelete".to_owned(), Value::from(vacuumed.bytes)),
        ]),
        transaction: Some(vacuumed::note(horizon_ms.max(known_ms), now_ms)),
        ..job.intent(&base, "VACUUM START")
    };
    vacuumed.version = job.commit(start).await?.version;
    delete(job, found).await?;
    let end = Intent {
        parameters: BTreeMap::from([
            ("status".to_owned(), Value::from("COMPLETED")),
            ("numDeletedFiles".to_owned(), count),
            ("sizeOfDeletedData".to_owned(), Value::from(vacuumed.bytes)),
        ]),
        ..job.intent(&table.pin(&job.name).await?, "VACUUM END")
    };
    vacuumed.version = job.commit(end).await?.version;
    Ok(vacuumed)
}

/// How far back files are kept; refuses less than is safe.
fn retention_ms(job: &Job, base: &Snapshot, request: &Request) -> Result<i64> {
    let safe_ms = retention::deleted_files_ms(base)?;
    let Some(hours) = request.retain_hours else {
        return Ok(safe_ms);
    };
    let asked_ms = (hours * HOUR_MS as f64) as i64;
    if request.checked && asked_ms < safe_ms {
        let safe_hours = safe_ms as f64 / HOUR_MS as f64;
        return Err(Error::invalid(format!(
            "VACUUM of table {} with a retention of {hours} hours could delete files that statements still read \
             or write: at least {safe_hours} hours are safe",
            job.name
        ))
        .with_hint(format!(
            "RETAIN {safe_hours} HOURS or more; SET selvedge.vacuum_retention_check = false takes less, \
             when nothing else uses the table"
        )));
    }
    Ok(asked_ms)
}

/// The objects that versions after the horizon need.
async fn needed(
    job: &Job,
    base: &Snapshot,
    horizon_ms: i64,
    retention_ms: i64,
) -> Result<HashSet<Path>> {
    let root = &job.table.root;
    let mut needed = vacuumed::needed(root, base, horizon_ms)?;
    // Checkpoints forget removals when the table's own retention is over. Whoever asks for a longer one has
    // them read from the commits.
    if retention_ms > retention::deleted_files_ms(base)? {
        let mut newer = log::newer(root, base.version, horizon_ms).await?;
        while let Some(commit) = newer.try_next().await? {
            for action in &commit.actions {
                if let Action::Remove(remove) = action {
                    let vector = remove.deletion_vector.as_ref();
                    needed.extend(vacuumed::objects(root, &remove.path, vector)?);
                }
            }
        }
    }
    Ok(needed)
}

/// Objects of files that were removed, whenever that was.
fn expired(job: &Job, base: &Snapshot) -> Result<HashSet<Path>> {
    let mut expired = HashSet::new();
    for remove in base.tombstones.values() {
        let vector = remove.deletion_vector.as_ref();
        expired.extend(vacuumed::objects(&job.table.root, &remove.path, vector)?);
    }
    Ok(expired)
}

/// How folders begin that are no hidden ones, although a partition column's name makes them look it.
pub(super) fn visible_folders(base: &Snapshot) -> Vec<String> {
    let columns = base.partition_columns().iter();
    let begin = |column: &String| {
        let segment = path_segment(column, None);
        segment.split_once('=').map(|(name, _)| format!("{name}="))
    };
    columns.filter_map(begin).collect()
}

/// Tells what may go.
pub(super) struct Unused {
    pub needed: HashSet<Path>,
    /// Was part of a version once.
    pub expired: HashSet<Path>,
    pub hidden_unless: Vec<String>,
    /// What was never part of any version goes when it is older than this: younger, it may be part of the next.
    pub before_ms: i64,
}

impl Unused {
    pub(super) async fn find(
        &self,
        statement: &str,
        name: &str,
        root: &TableRoot,
        base: &Snapshot,
    ) -> Result<Vec<ObjectMeta>> {
        let failed = |error| Error::storage(format!("cannot list table {name}"), error);
        let mut listing = root.store.list(Some(&root.path));
        let (mut found, mut live) = (Vec::new(), HashSet::new());
        while let Some(object) = listing.try_next().await.map_err(failed)? {
            if self.needed.contains(&object.location) {
                live.insert(object.location);
            } else if self.may_go(&object, root) {
                found.push(object);
            }
        }
        // Whatever the reason may be, a listing without files that must be there is none to delete by.
        for file in base.files.values() {
            let add = &file.add;
            let mut objects = vacuumed::objects(root, &add.path, add.deletion_vector.as_ref())?;
            if let Some(path) = objects.find(|path| !live.contains(path)) {
                return Err(Error::corrupt(format!(
                    "{statement} of table {name} deletes nothing: the store does not list '{path}', which the \
                     newest version needs"
                ))
                .with_hint("restore the object from a copy, or RESTORE the table to a version without it"));
            }
        }
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// Quarantined rows and records of refused writes that are past their retention, and files of quarantine
    /// that no write became part of a version with.
    async fn quarantined(
        &self,
        job: &Job,
        base: &Snapshot,
        past_ms: i64,
    ) -> Result<Vec<ObjectMeta>> {
        let root = &job.table.root;
        let mut found = records::refused_until(root, past_ms).await?;
        let folder = records::quarantine_folder(root);
        let failed = |error| Error::storage(format!("cannot list {folder}"), error);
        let files = root.store.list(Some(&folder));
        let mut files: Vec<ObjectMeta> = files.try_collect().await.map_err(failed)?;
        if files.is_empty() {
            return Ok(found);
        }
        let (past, kept) = records::named(root, base.version, past_ms).await?;
        files.retain(|file| {
            let leftover = || file.last_modified.timestamp_millis() < self.before_ms;
            !kept.contains(&file.location) && (past.contains(&file.location) || leftover())
        });
        files.sort_by(|a, b| a.location.cmp(&b.location));
        found.extend(files);
        Ok(found)
    }

    fn may_go(&self, object: &ObjectMeta, root: &TableRoot) -> bool {
        let Some(mut parts) = object.location.prefix_match(&root.path) else {
            return false;
        };
        let hidden = |part: &str| {
            part.starts_with(['_', '.'])
                && !self
                    .hidden_unless
                    .iter()
                    .any(|begin| part.starts_with(begin))
        };
        if parts.any(|part| hidden(part.as_ref())) {
            return false;
        }
        self.expired.contains(&object.location)
            || object.last_modified.timestamp_millis() < self.before_ms
    }
}

/// Deletes objects, and goes on when one of them cannot be.
async fn delete(job: &Job, objects: Vec<ObjectMeta>) -> Result<()> {
    let store = &job.table.root.store;
    let total = objects.len();
    let sizes: BTreeMap<Path, u64> = objects
        .iter()
        .map(|object| (object.location.clone(), object.size))
        .collect();
    let (mut failures, mut first) = (0, None);
    for batch in objects.chunks(BATCH_OBJECTS) {
        let mut paths: Vec<Path> = batch.iter().map(|o| o.location.clone()).collect();
        // RESTORE of another process may have brought files back since they were found.
        let head = job.table.pin(&job.name).await?;
        let mut live = vacuumed::needed(&job.table.root, &head, i64::MAX)?;
        live.extend(kept::of(&job.table.root, &head)?);
        paths.retain(|path| !live.contains(path));
        let mut outcomes = store.delete_stream(stream::iter(paths).map(Ok).boxed());
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(path) => {
                    let bytes = sizes.get(&path).copied().unwrap_or(0);
                    job.meter.done(1, bytes);
                }
                Err(object_store::Error::NotFound { .. }) => job.meter.done(1, 0),
                Err(error) => {
                    failures += 1;
                    first.get_or_insert(error);
                }
            }
        }
    }
    match first {
        None => Ok(()),
        Some(error) => Err(Error::storage(
            format!(
                "VACUUM of table {}: {failures} of {total} files could not be deleted",
                job.name
            ),
            error,
        )
        .with_hint("run it again")),
    }
}

/// The path of an object in its table.
fn relative(job: &Job, path: &Path) -> String {
    match path.prefix_match(&job.table.root.path) {
        Some(parts) => Path::from_iter(parts).to_string(),
        None => path.to_string(),
    }
}

//! RESTORE: the rows and terms of an old version, as a new one. Files that were removed since come back,
//! with the deletion vectors they had; files that came since go. So do the events that a journal keeps, and the newest
//! snapshot that it was told.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use serde_json::Value;

use super::{Job, bytes, kept};
use crate::cleanse::policy;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::told;
use crate::settings::Settings;
use crate::sql;
use crate::table::actions::{Add, Metadata};
use crate::table::snapshot::{DataFile, Snapshot};
use crate::table::{protocol, schema as delta, vacuumed};
use crate::write::commit::{Intent, Removes};
use crate::write::conflict::Reads;
use crate::write::report::WriteReport;

/// Files asked for at once.
const CONCURRENT_READS: usize = 16;

/// What RESTORE did.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// The new version, if the table was not as it is to be already.
    pub version: Option<u64>,
    pub files_restored: u64,
    pub files_removed: u64,
    /// Rows that are there again, and rows that are there no more, as far as the log counts them.
    pub rows_restored: u64,
    pub rows_removed: u64,
    pub bytes_restored: u64,
    pub bytes_removed: u64,
}

/// Makes the table at `base` what it was at `old`. `parameters` say for the log how that was asked for.
pub(crate) async fn run(
    job: &Job,
    base: &Arc<Snapshot>,
    old: &Snapshot,
    mut parameters: BTreeMap<String, Value>,
) -> Result<Restored> {
    let _turn = job.table.past.lock().await;
    let _running = job.table.running.begin(job.table.ambient.now_ms(), true);
    protocol::check_writable(&job.name, base)?;
    protocol::check_writable(&job.name, old)?;
    let back = missing_from(old, base);
    let out = missing_from(base, old);
    let new_protocol = protocol::at_least(&base.protocol, &old.protocol);
    let metadata = metadata(&job.name, base, old)?;
    let keeping = kept::restored(job, base, old).await?;
    let transaction = told::restored(base, Some(old), job.table.ambient.now_ms());
    let same = back.is_empty() && out.is_empty() && metadata == *base.metadata;
    if same && keeping.is_none() && transaction.is_none() {
        return Ok(Restored::default());
    }
    check_there(job, base, old, &back).await?;

    let (rows_back, rows_out) = (count(old, &back), count(base, &out));
    let mut restored = Restored {
        version: None,
        files_restored: back.len() as u64,
        files_removed: out.len() as u64,
        // A file may only have fewer deleted rows than it had.
        rows_restored: surplus(&rows_back, &rows_out),
        rows_removed: surplus(&rows_out, &rows_back),
        bytes_restored: back.iter().map(|file| bytes(file)).sum(),
        bytes_removed: out.iter().map(|file| bytes(file)).sum(),
    };
    let adds = back.iter().map(|file| Add {
        data_change: true,
        ..file.add.clone()
    });
    let removes = out
        .iter()
        .map(|file| (file.add.path.clone(), Arc::clone(file)));
    // An instant does not say by itself, and later, which version it was.
    parameters
        .entry("version".to_owned())
        .or_insert_with(|| Value::from(old.version));
    let intent = job.intent(base, "RESTORE");
    let intent = Intent {
        parameters,
        protocol: (new_protocol != *base.protocol).then_some(new_protocol),
        metadata: (metadata != *base.metadata).then_some(metadata),
        adds: adds.collect(),
        removes: Removes::Files(removes.collect()),
        reads: Reads::Exclusive,
        rearranges: false,
        transaction,
        keeping,
        report: WriteReport {
            rows_written: rows_back.values().sum(),
            rows_inserted: restored.rows_restored,
            rows_deleted: restored.rows_removed,
            ..intent.report.clone()
        },
        ..intent
    };
    // Any commit in between may be a vacuum's, after which the files have to be looked for again.
    let once = Settings {
        max_commit_retries: 0,
        ..job.settings.clone()
    };
    restored.version = job.commit_with(intent, &once).await?.version;
    Ok(restored)
}

/// Files of `one` that `other` does not have, or has with other deleted rows.
fn missing_from(one: &Snapshot, other: &Snapshot) -> Vec<Arc<DataFile>> {
    let files = one.files.values();
    files
        .filter(|file| other.files.get(&file.add.path) != Some(file))
        .cloned()
        .collect()
}

/// Visible rows by the path of their file.
fn count(snapshot: &Snapshot, files: &[Arc<DataFile>]) -> BTreeMap<String, u64> {
    let rows = |file: &DataFile| file.rows(&snapshot.schema).unwrap_or(0);
    let files = files.iter();
    files
        .map(|file| (file.add.path.clone(), rows(file)))
        .collect()
}

fn surplus(of: &BTreeMap<String, u64>, over: &BTreeMap<String, u64>) -> u64 {
    of.iter()
        .map(|(path, rows)| rows.saturating_sub(over.get(path).copied().unwrap_or(0)))
        .sum()
}

/// The terms of the old version. What tells the table and its log apart from others stays, and so does what must be
/// forgotten: policies, and the tags of columns.
fn metadata(table: &str, base: &Snapshot, old: &Snapshot) -> Result<Metadata> {
    let mut metadata = (*old.metadata).clone();
    metadata.id.clone_from(&base.metadata.id);
    metadata.name.clone_from(&base.metadata.name);
    metadata.created_time = base.metadata.created_time;
    // Commits are timed as they are since then, and ids of columns never come again.
    let of_the_log = |key: &str| {
        key.starts_with(policy::PROPERTY)
            || key.starts_with("delta.enableInCommitTimestamps")
            || key.starts_with("delta.inCommitTimestamp")
            || key == "delta.columnMapping.maxColumnId"
    };
    metadata.configuration.retain(|key, _| !of_the_log(key));
    let kept = base.metadata.configuration.iter();
    metadata.configuration.extend(
        kept.filter(|(key, _)| of_the_log(key))
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    let fields = old.schema.fields().iter();
    let tagged = fields.map(|field| match base.schema.field_with_name(field.name()) {
        Ok(now) => {
            let tags = delta::tags(field).into_iter().chain(delta::tags(now));
            delta::with_tags(field.as_ref().clone(), &tags.collect())
        }
        Err(_) => field.as_ref().clone(),
    });
    let tagged: SchemaRef = Arc::new(Schema::new(tagged.collect::<Vec<_>>()));
    if tagged != old.schema {
        metadata.schema_string = delta::to_delta(&tagged)?;
    }
    // Rows come back that no policy has seen.
    for mut policy in policy::policies(table, &metadata.configuration)? {
        if let Some(column) = policy
            .names()
            .find(|name| old.schema.index_of(name).is_err())
        {
            let (name, version) = (sql::quoted(&policy.name), old.version);
            return Err(Error::invalid(format!(
                "table {table} cannot be restored to version {version}: cleanse policy {} is about column {column}, \
                 which that version does not have",
                policy.name
            ))
            .with_hint(format!("DROP CLEANSE POLICY {name} ON {table} first")));
        }
        policy.since_version = base.version + 1;
        metadata.configuration.extend([policy::property(&policy)?]);
    }
    Ok(metadata)
}

/// Objects that a vacuum has deleted, or is about to: it may have begun in another process and not ended.
fn condemned(job: &Job, base: &Snapshot) -> Result<HashSet<Path>> {
    let mut condemned = HashSet::new();
    let Some(horizon_ms) = vacuumed::horizon_ms(base) else {
        return Ok(condemned);
    };
    let root = &job.table.root;
    for remove in base.tombstones.values() {
        if remove.deletion_timestamp.unwrap_or(0) <= horizon_ms {
            let vector = remove.deletion_vector.as_ref();
            condemned.extend(vacuumed::objects(root, &remove.path, vector)?);
        }
    }
    let needed = vacuumed::needed(root, base, horizon_ms)?;
    condemned.retain(|path| !needed.contains(path));
    Ok(condemned)
}

/// The first object of a file that is gone.
async fn missing_object(
    job: &Job,
    condemned: &HashSet<Path>,
    file: Arc<DataFile>,
) -> Result<Option<String>> {
    let (root, add) = (&job.table.root, &file.add);
    for path in vacuumed::objects(root, &add.path, add.deletion_vector.as_ref())? {
        if condemned.contains(&path) || !vacuumed::exists(root, &path).await? {
            return Ok(Some(path.to_string()));
        }
    }
    job.meter.done(1, bytes(&file));
    Ok(None)
}

/// Refuses to bring back files whose objects are gone.
async fn check_there(
    job: &Job,
    base: &Snapshot,
    old: &Snapshot,
    files: &[Arc<DataFile>],
) -> Result<()> {
    let total = files.iter().map(|file| bytes(file)).sum();
    job.meter.expect(files.len() as u64, total);
    let condemned = condemned(job, base)?;
    let condemned = &condemned;
    let mut missing: Vec<String> = stream::iter(files.to_vec())
        .map(|file| missing_object(job, condemned, file).boxed())
        .buffer_unordered(CONCURRENT_READS)
        .try_filter_map(|missing| std::future::ready(Ok(missing)))
        .try_collect()
        .await?;
    missing.sort_unstable();
    let Some(first) = missing.first() else {
        return Ok(());
    };
    let refused = Error::new(
        ErrorKind::NotFound,
        format!(
            "table {} cannot be restored to version {}: {} of the {} files it takes are gone, first '{first}'",
            job.name,
            old.version,
            missing.len(),
            files.len()
        ),
    );
    Err(match vacuumed::horizon_ms(base) {
        Some(horizon_ms) => {
            refused.with_hint(vacuumed::readable(&job.table.root, base, horizon_ms).await?)
        }
        None => refused.with_hint("they were not deleted by this engine; restore a newer version"),
    })
}

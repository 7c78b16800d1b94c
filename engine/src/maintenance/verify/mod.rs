//! VERIFY ERASURE: every object in the table's folder is read, and each place is told where something is left of what
//! policies take away. No row is proof.
//!
//! - `rows`: files of Parquet, row by row, deleted rows and rows of files that no version has included
//! - `text`: the log, checkpoints and records, in which values stand as bounds, samples and partition values
//! - `sought`: what they are looked through for
//! - `sound`: from which version on bounds and metrics are over rows that were cleansed
//!
//! Where a policy nullifies or sets, its key may stay: what is looked for are the cells. Where it deletes rows, the key
//! itself is what nobody may find. Bounds of a file that is gone belong to rows that nobody can ask any more, and a
//! metric to nobody in particular: where they are not sound, they are reported as they are.
//!
//! What cannot be read, and what nobody knows, is reported too, for it proves nothing. What a listing does not
//! name cannot be: on a local disk, the staging files of writers that died (`part.parquet#1`), which are swept after
//! an ERASE and when an engine meets the table.

mod rows;
mod sought;
mod sound;
mod text;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::de::IgnoredAny;
use serde_json::Value;

use self::text::Texts;
use super::Job;
use super::cleanse::aside;
use crate::cleanse::apply::Running;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::horizon;
use crate::table::records::QUARANTINE;
use crate::table::snapshot::{Snapshot, TableRoot};
use crate::table::vacuumed;
use crate::write::commit::PartitionKey;

/// A place where something is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// The object, by its path in the table.
    pub object: String,
    pub what: &'static str,
    /// The column whose values they are; of rows that should be gone, the columns of the key; empty where nothing
    /// could be read.
    pub column: String,
    pub count: u64,
}

/// What was found in one object, by what it is and column.
type Tally = BTreeMap<(&'static str, String), u64>;

/// Notes that something of an object is not what it should be, so that it may hold anything.
fn unreadable(found: &mut Tally) {
    *found.entry(("not readable", String::new())).or_default() += 1;
}

/// What all objects are read for.
struct Search<'a> {
    job: &'a Job,
    base: &'a Arc<Snapshot>,
    running: &'a Running,
    texts: Texts<'a>,
    /// All objects that are there.
    objects: HashSet<Path>,
}

/// What an object is, by where it lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Log,
    Checkpoint,
    Record,
    Quarantine,
    Events,
    Data,
    /// What holds no values, whatever the table does.
    Bare,
    Unknown,
}

/// Looks for what is left.
pub(crate) async fn run(job: &Job, base: &Arc<Snapshot>, running: &Running) -> Result<Vec<Left>> {
    let root = &job.table.root;
    let failed = |error| Error::storage(format!("cannot list table {}", job.name), error);
    let listed: Vec<ObjectMeta> = root
        .store
        .list(Some(&root.path))
        .try_collect()
        .await
        .map_err(failed)?;
    let total = listed.iter().map(|object| object.size).sum();
    job.meter.expect(listed.len() as u64, total);
    let sound = sound::of(job, base, running).await?;
    let search = Search {
        job,
        base,
        running,
        texts: Texts::new(base, running, sound),
        objects: listed.iter().map(|o| o.location.clone()).collect(),
    };
    let (text, rows): (Vec<_>, Vec<_>) = listed
        .into_iter()
        .map(|object| (kind(root, &object), object))
        .filter(|(kind, _)| *kind != Kind::Bare)
        .partition(|(kind, _)| matches!(kind, Kind::Log | Kind::Checkpoint | Kind::Record));
    let mut left = Vec::new();
    // The log first: it knows the partitions of files.
    let mut partitions = of_snapshot(root, base)?;
    for (kind, object) in text {
        let found = search.text(kind, &object, &mut partitions).await;
        search.note(&object, found, &mut left).await?;
    }
    let partitions = &partitions;
    let search = &search;
    let mut work = stream::iter(rows)
        .map(|(kind, object)| {
            async move {
                let found = search.rows(kind, &object, partitions).await;
                (object, found)
            }
            .boxed()
        })
        .buffer_unordered(job.settings.target_partitions.max(1));
    while let Some((object, found)) = work.next().await {
        search.note(&object, found, &mut left).await?;
    }
    left.sort_by(|a, b| (&a.object, a.what, &a.column).cmp(&(&b.object, b.what, &b.column)));
    Ok(left)
}

fn kind(root: &TableRoot, object: &ObjectMeta) -> Kind {
    let relative = relative(root, &object.location);
    let name = object.location.filename().unwrap_or_default();
    let parquet = relative.ends_with(".parquet");
    // Deletion vectors hold positions, and the checksums that Hadoop puts beside files are of their bytes.
    let bare = name.ends_with(".bin") || name.starts_with('.') && name.ends_with(".crc");
    match relative.as_str() {
        _ if bare => Kind::Bare,
        log if log.starts_with("_delta_log/") && parquet => Kind::Checkpoint,
        log if log.starts_with("_delta_log/") && object.size > 0 => Kind::Log,
        aside if aside.starts_with(QUARANTINE) && parquet => Kind::Quarantine,
        kept if kept.starts_with(horizon::FOLDER) && parquet => Kind::Events,
        own if own.starts_with("_selvedge/") && object.size > 0 => Kind::Record,
        _ if parquet => Kind::Data,
        // Stores have no folders, and some keep an empty object in the place of one.
        _ if object.size == 0 => Kind::Bare,
        _ => Kind::Unknown,
    }
}

fn relative(root: &TableRoot, path: &Path) -> String {
    match path.prefix_match(&root.path) {
        Some(parts) => Path::from_iter(parts).to_string(),
        None => path.to_string(),
    }
}

/// The partitions of the files that a snapshot names.
fn of_snapshot(root: &TableRoot, base: &Snapshot) -> Result<HashMap<Path, PartitionKey>> {
    let mut partitions = HashMap::new();
    for file in base.files.values() {
        let add = &file.add;
        partitions.insert(root.locate(&add.path)?, add.partition_values.clone());
    }
    for remove in base.tombstones.values() {
        if let Some(values) = &remove.partition_values {
            partitions.insert(root.locate(&remove.path)?, values.clone());
        }
    }
    Ok(partitions)
}

/// What a line of the log says of files. A checksum of Delta may name all that a version has.
fn actions(line: &Value) -> Vec<&Value> {
    let all = line.get("allFiles").and_then(Value::as_array);
    let one = ["add", "remove", "cdc"].map(|kind| line.get(kind));
    one.into_iter()
        .flatten()
        .chain(all.into_iter().flatten())
        .collect()
}

impl Search<'_> {
    fn root(&self) -> &TableRoot {
        &self.job.table.root
    }

    /// Adds what was found in an object. One that is not there any more holds nothing.
    async fn note(
        &self,
        object: &ObjectMeta,
        found: Result<Tally>,
        left: &mut Vec<Left>,
    ) -> Result<()> {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                if !vacuumed::exists(self.root(), &object.location).await? {
                    Tally::new()
                } else if error.kind() == ErrorKind::Corrupt {
                    // Unless it is the store that fails.
                    self.bytes(&object.location).await?;
                    let mut found = Tally::new();
                    unreadable(&mut found);
                    found
                } else {
                    return Err(error);
                }
            }
        };
        let name = relative(self.root(), &object.location);
        left.extend(found.into_iter().map(|((what, column), count)| Left {
            object: name.clone(),
            what,
            column,
            count,
        }));
        self.job.meter.done(1, object.size);
        Ok(())
    }

    async fn bytes(&self, path: &Path) -> Result<Bytes> {
        let failed = |error| Error::storage(format!("cannot read {path}"), error);
        let got = self.root().store.get(path).await.map_err(failed)?;
        got.bytes().await.map_err(failed)
    }

    /// An object of the log or of records.
    async fn text(
        &self,
        kind: Kind,
        object: &ObjectMeta,
        partitions: &mut HashMap<Path, PartitionKey>,
    ) -> Result<Tally> {
        let path = &object.location;
        let mut found = Tally::new();
        let version = path
            .filename()
            .and_then(|name| name.get(..20)?.parse().ok());
        match kind {
            Kind::Checkpoint => {
                let (_, mut batches) = aside::open(self.root(), path.clone()).await?;
                while let Some(batch) = batches.try_next().await? {
                    for line in text::lines(&batch)? {
                        self.line("checkpoint", version, &line, partitions, &mut found)?;
                    }
                }
            }
            _ => {
                let bytes = self.bytes(path).await?;
                let what = match kind {
                    Kind::Log => "log",
                    _ => "record",
                };
                // Other engines may write one object over many lines.
                let lines: Vec<&[u8]> = match serde_json::from_slice::<IgnoredAny>(&bytes) {
                    Ok(_) => vec![&bytes[..]],
                    Err(_) => bytes.split(|byte| *byte == b'\n').collect(),
                };
                for line in lines {
                    if line.trim_ascii().is_empty() {
                        continue;
                    }
                    let Ok(line) = serde_json::from_slice::<Value>(line) else {
                        unreadable(&mut found);
                        continue;
                    };
                    // A record says itself which version it is of.
                    let version = match what {
                        "record" => line.get("version").and_then(Value::as_u64),
                        _ => version,
                    };
                    self.line(what, version, &line, partitions, &mut found)?;
                }
            }
        }
        Ok(found)
    }

    fn line(
        &self,
        what: &'static str,
        version: Option<u64>,
        line: &Value,
        partitions: &mut HashMap<Path, PartitionKey>,
        found: &mut Tally,
    ) -> Result<()> {
        for action in actions(line) {
            let Some(path) = action.get("path").and_then(Value::as_str) else {
                continue;
            };
            let path = self.root().locate(path)?;
            if !self.objects.contains(&path) {
                self.texts.bounds(version, action, found);
            }
            if let Some(values) = action.get("partitionValues")
                && let Ok(values) = serde_json::from_value(values.clone())
            {
                partitions.entry(path).or_insert(values);
            }
        }
        self.texts.search(what, version, line, found)
    }

    /// An object of rows, or one that nobody knows.
    async fn rows(
        &self,
        kind: Kind,
        object: &ObjectMeta,
        partitions: &HashMap<Path, PartitionKey>,
    ) -> Result<Tally> {
        let path = &object.location;
        match kind {
            Kind::Quarantine => {
                return rows::aside(self.root(), path, self.running, "quarantined row").await;
            }
            Kind::Events => {
                return rows::aside(self.root(), path, self.running, "kept event").await;
            }
            _ => {}
        }
        let relative = relative(self.root(), path);
        let named = rows::named(&relative);
        let values = partitions.get(path).unwrap_or(&named);
        let mut found = match kind {
            Kind::Unknown => Tally::from([(("unknown object", String::new()), 1)]),
            _ => rows::data(self.root(), path, self.base, self.running, values).await?,
        };
        self.texts.named("path", &named, &mut found)?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::datasource::object_store::ObjectStoreUrl;
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn what_an_object_is_is_told_by_where_it_lies() {
        let root = TableRoot {
            store_url: ObjectStoreUrl::parse("memory://").unwrap(),
            store: Arc::new(InMemory::new()),
            path: Path::from("lake/t"),
        };
        let kind = |path: &str, size: u64| {
            let object = ObjectMeta {
                location: Path::from(format!("lake/t/{path}")),
                last_modified: Default::default(),
                size,
                e_tag: None,
                version: None,
            };
            super::kind(&root, &object)
        };
        for (path, expected) in [
            ("_delta_log/00000000000000000003.json", Kind::Log),
            ("_delta_log/00000000000000000003.crc", Kind::Log),
            ("_delta_log/_last_checkpoint", Kind::Log),
            (
                "_delta_log/00000000000000000003.checkpoint.parquet",
                Kind::Checkpoint,
            ),
            ("_delta_log/.00000000000000000003.json.crc", Kind::Bare),
            ("_selvedge/quarantine/part-1.parquet", Kind::Quarantine),
            ("_selvedge/records/1-2.json", Kind::Record),
            ("day=1/part-1.parquet", Kind::Data),
            ("_change_data/part-1.parquet", Kind::Data),
            ("ab/deletion_vector_1.bin", Kind::Bare),
            ("export.csv", Kind::Unknown),
        ] {
            assert!(kind(path, 1) == expected, "{path}");
        }
        assert!(kind("day=1", 0) == Kind::Bare);
        assert!(kind("_delta_log/_commits", 0) == Kind::Bare);
    }
}

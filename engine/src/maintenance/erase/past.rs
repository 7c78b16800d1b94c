//! What only versions before one had: their files, deletion vectors, change files, kept events, quarantined rows,
//! records of refused writes, checkpoints and commits.
//!
//! Data files are known by the log that names them. What it never named goes when it is older than any write may
//! be, as a vacuum has it: younger, it may be part of the next version.

use std::collections::HashSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::maintenance::kept;
use crate::maintenance::vacuum::{CLOCK_SKEW_MS, Unused, visible_folders};
use crate::progress::Meter;
use crate::table::actions::Action;
use crate::table::handle::Table;
use crate::table::log::{self, LogFile};
use crate::table::retention::HOUR_MS;
use crate::table::snapshot::{Snapshot, TableRoot};
use crate::table::{records, retention, vacuumed};

/// Objects read or written at once.
const CONCURRENT: usize = 16;

/// How long hollow commits keep their place in the log, which is longer than any process trusts a version that it
/// has in memory to find the next by name.
const HOLLOW_MS: i64 = HOUR_MS;

/// What the versions before one say of themselves.
pub(super) struct Past {
    /// Data files and deletion vectors they name, whether the version that stays has them or not.
    files: HashSet<Path>,
    /// Files in which other writers keep what changed.
    changes: HashSet<Path>,
    /// Files of events that a journal kept.
    kept: HashSet<Path>,
    /// What is to be left of their commits.
    hollow: Vec<(u64, Bytes)>,
}

impl Past {
    /// Of the versions before `kept`.
    pub(super) async fn of(root: &TableRoot, kept: &Snapshot) -> Result<Self> {
        let mut past = Self {
            files: HashSet::new(),
            changes: HashSet::new(),
            kept: HashSet::new(),
            hollow: Vec::new(),
        };
        for remove in kept.tombstones.values() {
            let vector = remove.deletion_vector.as_ref();
            let objects = vacuumed::objects(root, &remove.path, vector)?;
            past.files.extend(objects);
        }
        let mut versions = log::list(root, 0).await?.commits;
        versions.retain(|version| *version < kept.version);
        let mut commits = stream::iter(versions)
            .map(|version| log::read(root, version))
            .buffered(CONCURRENT)
            .boxed();
        while let Some(commit) = commits.try_next().await? {
            let Some(commit) = commit.filter(|commit| !commit.is_erased()) else {
                continue;
            };
            for action in &commit.actions {
                past.note(root, action)?;
            }
            past.hollow.push((commit.version, log::hollow(&commit)?));
        }
        Ok(past)
    }

    fn note(&mut self, root: &TableRoot, action: &Action) -> Result<()> {
        let (path, vector) = match action {
            Action::Add(add) => (&add.path, add.deletion_vector.as_ref()),
            Action::Remove(remove) => (&remove.path, remove.deletion_vector.as_ref()),
            Action::Cdc(change) => {
                if let Some(path) = change.get("path").and_then(Value::as_str) {
                    self.changes.insert(root.locate(path)?);
                }
                return Ok(());
            }
            line => {
                self.kept.extend(kept::told(root, line)?);
                return Ok(());
            }
        };
        self.files.extend(vacuumed::objects(root, path, vector)?);
        Ok(())
    }

    /// All objects outside of the log that are to go.
    pub(super) async fn objects(
        &self,
        table: &Table,
        name: &str,
        head: &Snapshot,
        kept: &Snapshot,
        at_ms: i64,
    ) -> Result<Vec<ObjectMeta>> {
        let root = &table.root;
        let retention_ms = retention::deleted_files_ms(head)?;
        let mut before_ms = table.ambient.now_ms().saturating_sub(retention_ms);
        if let Some(since_ms) = table.running.oldest_ms() {
            before_ms = before_ms.min(since_ms.saturating_sub(CLOCK_SKEW_MS));
        }
        let mut needed = vacuumed::needed(root, head, i64::MAX)?;
        needed.extend(vacuumed::needed(root, kept, i64::MAX)?);
        // What versions since have had and lost is for a vacuum to delete.
        for remove in head.tombstones.values() {
            let vector = remove.deletion_vector.as_ref();
            let objects = vacuumed::objects(root, &remove.path, vector)?;
            needed.extend(objects.filter(|path| !self.files.contains(path)));
        }
        let unused = Unused {
            needed,
            expired: self.files.clone(),
            hidden_unless: visible_folders(head),
            before_ms,
        };
        let mut found = unused.find("CLEANSE", name, root, head).await?;
        found.extend(self.quarantined(root, head, kept, before_ms).await?);
        found.extend(records::refused_until(root, at_ms).await?);
        found.extend(self.change_files(root).await?);
        found.extend(self.events(root, head, kept, before_ms).await?);
        Ok(found)
    }

    /// Files of quarantine that have no rows left in the version that stays, and none that came since.
    async fn quarantined(
        &self,
        root: &TableRoot,
        head: &Snapshot,
        kept: &Snapshot,
        before_ms: i64,
    ) -> Result<Vec<ObjectMeta>> {
        let mut found = listed(root, &records::quarantine_folder(root)).await?;
        if found.is_empty() {
            return Ok(found);
        }
        let mut live = HashSet::new();
        for file in records::quarantine(root, kept.version, i64::MIN).await? {
            live.insert(root.locate(&file.file.path)?);
        }
        let older = kept.version.saturating_sub(1);
        let (_, before) = records::named(root, older, i64::MIN).await?;
        let (_, all) = records::named(root, head.version, i64::MIN).await?;
        found.retain(|object| {
            let path = &object.location;
            let ended = before.contains(path) && !live.contains(path);
            let leftover =
                !all.contains(path) && object.last_modified.timestamp_millis() < before_ms;
            ended || leftover
        });
        Ok(found)
    }

    /// Files of kept events that the version that stays does not list, and that did not come since.
    async fn events(
        &self,
        root: &TableRoot,
        head: &Snapshot,
        stays: &Snapshot,
        before_ms: i64,
    ) -> Result<Vec<ObjectMeta>> {
        let mut found = kept::listed(root).await?;
        if found.is_empty() {
            return Ok(found);
        }
        let mut live = kept::of(root, head)?;
        live.extend(kept::of(root, stays)?);
        found.retain(|object| {
            let leftover = || object.last_modified.timestamp_millis() < before_ms;
            !live.contains(&object.location) && (self.kept.contains(&object.location) || leftover())
        });
        Ok(found)
    }

    async fn change_files(&self, root: &TableRoot) -> Result<Vec<ObjectMeta>> {
        if self.changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = listed(root, &root.path.clone().join("_change_data")).await?;
        found.retain(|object| self.changes.contains(&object.location));
        Ok(found)
    }

    /// Takes out of the log what is before version `first`; returns how many objects were deleted.
    ///
    /// Checkpoints go first: a version that can be built from one must not be built from hollow commits. Commits that
    /// have long been hollow go too: nobody has a version before them in memory and takes their place for free.
    pub(super) async fn log(&self, root: &TableRoot, first: u64, now_ms: i64) -> Result<u64> {
        let folder = log::log_folder(root);
        let mut older = listed(root, &folder).await?;
        older.retain(|object| {
            let below = object.location.parts_count() == folder.parts_count() + 1;
            let name = object.location.filename().unwrap_or_default();
            let age_ms = now_ms.saturating_sub(object.last_modified.timestamp_millis());
            let goes = match log::classify(name) {
                LogFile::Commit(version) => {
                    let fresh = self.hollow.iter().any(|(hollow, _)| *hollow == version);
                    !fresh && age_ms > HOLLOW_MS
                }
                LogFile::Checkpoint(_) | LogFile::Other => true,
            };
            below && is_before(name, first) && goes
        });
        let count = older.len() as u64;
        delete(root, older, &Meter::new("CLEANSE", None)).await?;
        stream::iter(self.hollow.iter().cloned())
            .map(|(version, bytes)| async move {
                let path = log::commit_path(root, version);
                let put = root.store.put(&path, bytes.into()).await;
                put.map_err(|error| Error::storage(format!("cannot write {path}"), error))?;
                Ok::<_, Error>(())
            })
            .buffer_unordered(CONCURRENT)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(count)
    }
}

/// Whether an object of the log is about a version before `first`: a checkpoint or a part of one, a checksum, a
/// range of commits in one object.
fn is_before(name: &str, first: u64) -> bool {
    let version = name.split('.').next().filter(|begin| begin.len() == 20);
    version
        .and_then(|version| version.parse::<u64>().ok())
        .is_some_and(|version| version < first)
}

async fn listed(root: &TableRoot, folder: &Path) -> Result<Vec<ObjectMeta>> {
    let objects = root.store.list(Some(folder));
    let objects: Vec<ObjectMeta> = objects
        .try_collect()
        .await
        .map_err(|error| Error::storage(format!("cannot list {folder}"), error))?;
    Ok(objects)
}

/// Deletes objects. One that cannot be deleted ends it: what is left is found again.
pub(super) async fn delete(
    root: &TableRoot,
    objects: Vec<ObjectMeta>,
    meter: &Meter,
) -> Result<()> {
    stream::iter(objects)
        .map(|object| async move {
            let path = &object.location;
            match root.store.delete(path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                    meter.done(1, object.size);
                    Ok(())
                }
                Err(error) => Err(Error::storage(format!("cannot delete {path}"), error)
                    .with_hint("run CLEANSE TABLE .. ERASE again: it goes on where it stopped")),
            }
        })
        .buffer_unordered(CONCURRENT)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_before_a_version_is_told_by_its_names() {
        for older in [
            "00000000000000000006.json",
            "00000000000000000006.crc",
            "00000000000000000006.checkpoint.parquet",
            "00000000000000000006.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000003.00000000000000000009.compacted.json",
        ] {
            assert!(is_before(older, 7), "{older}");
        }
        for kept in [
            "00000000000000000007.json",
            "00000000000000000007.checkpoint.parquet",
            "_last_checkpoint",
            "0.json",
        ] {
            assert!(!is_before(kept, 7), "{kept}");
        }
    }
}

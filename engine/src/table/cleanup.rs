//! Commits and checkpoints that only versions older than the table's log retention need, deleted.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use super::handle::Table;
use super::log::{self, LogFile};
use super::snapshot::{Snapshot, TableRoot};
use super::{records, replay, retention};
use crate::error::{Error, Result};

/// Deletes what lies before the newest checkpoint that is older than the retention; returns how many objects.
///
/// Every version within the retention can be built from that checkpoint, which is read before anything goes.
pub(crate) async fn expired(table: &Table, snapshot: &Snapshot) -> Result<u64> {
    let Some(keep_ms) = retention::log_ms(snapshot)? else {
        return Ok(0);
    };
    // Checkpoints of version 2 share files, which this does not keep account of.
    if snapshot.has_writer_feature("v2Checkpoint") || !table.log_cleanup_due(keep_ms) {
        return Ok(0);
    }
    let root = &table.root;
    let before_ms = table.ambient.now_ms().saturating_sub(keep_ms);
    let listing = log::list(root, 0).await?;
    let Some(base) = newest_before(root, &listing.checkpoints, before_ms).await? else {
        return Ok(0);
    };
    let older = |versions: &[u64]| versions.first().is_some_and(|first| *first < base);
    if !older(&listing.commits) && !older(&listing.checkpoints) {
        return Ok(0);
    }
    let built = replay::load(root, Some(base)).await?;
    if built.is_none_or(|built| built.last_checkpoint != Some(base)) {
        return Err(Error::corrupt(format!(
            "checkpoint {base} of {} cannot be read, so older commits stay",
            root.path
        )));
    }
    // What these commits say of quality outlives them.
    records::secure(table, base).await?;
    delete_before(root, base).await
}

/// The newest checkpoint of a version that was committed before `before_ms`.
async fn newest_before(
    root: &TableRoot,
    checkpoints: &[u64],
    before_ms: i64,
) -> Result<Option<u64>> {
    let (mut low, mut high) = (0, checkpoints.len());
    while low < high {
        let middle = (low + high) / 2;
        // Without its commit, the time of a checkpoint is not known: then it counts as young.
        let commit = log::read(root, checkpoints[middle]).await?;
        match commit.is_some_and(|commit| commit.time_ms() <= before_ms) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    Ok(low.checked_sub(1).map(|index| checkpoints[index]))
}

/// Checkpoints go first and commits follow in their order, so that a version which can no longer be read is
/// never taken for a damaged one.
async fn delete_before(root: &TableRoot, base: u64) -> Result<u64> {
    let folder = log::log_folder(root);
    let failed = |error| Error::storage(format!("cannot clean {folder}"), error);
    let (mut checkpoints, mut commits): (Vec<Path>, Vec<(u64, Path)>) = Default::default();
    let mut names = root.store.list(Some(&folder));
    while let Some(meta) = names.try_next().await.map_err(failed)? {
        if meta.location.parts_count() != folder.parts_count() + 1 {
            continue;
        }
        match meta.location.filename().map(log::classify) {
            Some(LogFile::Checkpoint(version)) if version < base => checkpoints.push(meta.location),
            Some(LogFile::Commit(version)) if version < base => {
                commits.push((version, meta.location));
            }
            _ => {}
        }
    }
    commits.sort_unstable();
    let mut deleted = 0;
    let commits = commits.into_iter().map(|(_, path)| path).collect();
    for paths in [checkpoints, commits] {
        let mut outcomes = root
            .store
            .delete_stream(stream::iter(paths).map(Ok).boxed());
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Ok(_) => deleted += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(deleted)
}

//! What a vacuum has left of a table's past.
//!
//! A vacuum deletes the objects that only versions before its horizon need. It notes the horizon in the log as
//! the last version of an application of ours: that is a line which every writer carries on, checkpoints
//! keep, and no feature of the protocol has to allow.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::actions::{Action, DeletionVector, Txn};
use super::snapshot::{Snapshot, TableRoot};
use super::{erased, log};
use crate::error::{Error, ErrorKind, Result};

/// The application whose version is the horizon of the last vacuum, in milliseconds since the epoch.
const APPLICATION: &str = "selvedge.vacuum";

/// Objects and commits asked for at once.
const CONCURRENT_READS: usize = 16;

/// The line that notes a horizon.
pub(crate) fn note(horizon_ms: i64, now_ms: i64) -> Txn {
    Txn {
        app_id: APPLICATION.to_owned(),
        version: horizon_ms,
        last_updated: Some(now_ms),
    }
}

/// Before when files that were removed may be gone, if the table was ever vacuumed.
pub(crate) fn horizon_ms(newest: &Snapshot) -> Option<i64> {
    newest.transactions.get(APPLICATION).map(|txn| txn.version)
}

/// The objects that hold the rows of a file: its data, and its deletion vector where that is not in the log.
pub(crate) fn objects(
    root: &TableRoot,
    file: &str,
    vector: Option<&DeletionVector>,
) -> Result<impl Iterator<Item = Path>> {
    let data = root.locate(file)?;
    let vector = match vector {
        Some(vector) => vector.object(root, file)?,
        None => None,
    };
    Ok([Some(data), vector].into_iter().flatten())
}

/// The objects that the newest version needs, and those it followed after `horizon_ms`.
///
/// A file that was removed is needed with the deletion vector it had: without it, a version that
/// is still kept would show its deleted rows again, or could not be read.
pub(crate) fn needed(
    root: &TableRoot,
    newest: &Snapshot,
    horizon_ms: i64,
) -> Result<HashSet<Path>> {
    let mut needed = HashSet::with_capacity(newest.files.len());
    for file in newest.files.values() {
        let add = &file.add;
        needed.extend(objects(root, &add.path, add.deletion_vector.as_ref())?);
    }
    for remove in newest.tombstones.values() {
        if remove.deletion_timestamp.unwrap_or(0) > horizon_ms {
            needed.extend(objects(
                root,
                &remove.path,
                remove.deletion_vector.as_ref(),
            )?);
        }
    }
    Ok(needed)
}

/// Refuses an old version of which a vacuum has taken files.
pub(crate) async fn check(
    root: &TableRoot,
    table: &str,
    newest: &Snapshot,
    old: &Snapshot,
) -> Result<()> {
    // What was current after the horizon has lost none of its files.
    let Some(horizon) = horizon_ms(newest).filter(|horizon| old.committed_at_ms <= *horizon) else {
        return Ok(());
    };
    let (mut expired, mut forgotten) = (Vec::new(), Vec::new());
    for file in old.files.values() {
        let add = &file.add;
        let vector = file.dv_id();
        let live = newest.files.get(&add.path);
        if live.is_some_and(|live| live.dv_id() == vector) {
            continue;
        }
        let removed = newest.tombstones.get(&(add.path.clone(), vector));
        let suspects = match removed.and_then(|remove| remove.deletion_timestamp) {
            Some(at_ms) if at_ms > horizon => continue,
            Some(_) => &mut expired,
            // Checkpoints forget removals after a while: the file went before the vacuum, or after it.
            None => &mut forgotten,
        };
        suspects.extend(objects(root, &add.path, add.deletion_vector.as_ref())?);
    }
    let mut gone = stream::iter(expired.into_iter().chain(forgotten))
        .map(|path| async move { Ok::<_, Error>((exists(root, &path).await?, path)) })
        .buffered(CONCURRENT_READS)
        .try_filter(|(there, _)| std::future::ready(!there))
        .boxed();
    match gone.try_next().await? {
        None => Ok(()),
        Some((_, path)) => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "version {} of table {table} was vacuumed: its file '{path}' is gone",
                old.version
            ),
        )
        .with_hint(readable(root, newest, horizon).await?)),
    }
}

/// Whether an object is there.
pub(crate) async fn exists(root: &TableRoot, path: &Path) -> Result<bool> {
    match root.store.head(path).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(Error::storage(format!("cannot look for {path}"), error)),
    }
}

/// Says which versions are whole.
pub(crate) async fn readable(
    root: &TableRoot,
    newest: &Snapshot,
    horizon_ms: i64,
) -> Result<String> {
    let earliest = earliest(root, newest, horizon_ms).await?;
    Ok(match newest.version {
        last if last == earliest => format!("only version {last} can be read"),
        last => format!("versions {earliest} to {last} can be read"),
    })
}

/// The first version of which nothing is missing: the last one before the horizon that took away what is gone.
async fn earliest(root: &TableRoot, newest: &Snapshot, horizon_ms: i64) -> Result<u64> {
    let needed = needed(root, newest, horizon_ms)?;
    let erased = erased::of(newest).map_or(0, |erased| erased.first);
    let mut commits = log::list(root, 0).await?.commits;
    commits.retain(|version| (erased..=newest.version).contains(version));
    let first = commits.first().copied().unwrap_or(newest.version);
    let mut older = stream::iter(commits.into_iter().rev())
        .map(|version| log::read(root, version))
        .buffered(CONCURRENT_READS)
        .boxed();
    while let Some(commit) = older.try_next().await? {
        let Some(commit) = commit else { continue };
        for action in &commit.actions {
            let Action::Remove(remove) = action else {
                continue;
            };
            let mut lost = objects(root, &remove.path, remove.deletion_vector.as_ref())?;
            if lost.any(|path| !needed.contains(&path)) {
                return Ok(commit.version);
            }
        }
    }
    Ok(first)
}

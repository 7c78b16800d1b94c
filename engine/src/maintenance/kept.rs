//! Files of events that journals keep, because a late one may still come between them: which of them versions need.
//!
//! Only the line of the log that lists them knows them, so that they go when no version that can be read lists them.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use serde_json::Value;

use super::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::horizon::{self, Keeping, Kept};
use crate::table::actions::Action;
use crate::table::snapshot::{Snapshot, TableRoot};
use crate::table::{log, vacuumed};

/// Those that a version lists.
pub(super) fn of(root: &TableRoot, snapshot: &Snapshot) -> Result<HashSet<Path>> {
    paths(root, &horizon::of(snapshot)?)
}

fn paths(root: &TableRoot, kept: &Kept) -> Result<HashSet<Path>> {
    let files = kept.files.iter();
    files.map(|file| root.locate(&file.path)).collect()
}

/// Those that a line of a commit lists.
pub(super) fn told(root: &TableRoot, action: &Action) -> Result<HashSet<Path>> {
    let Action::DomainMetadata(line) = action else {
        return Ok(HashSet::new());
    };
    let text = |name: &str| line.get(name).and_then(Value::as_str);
    let removed = line.get("removed").and_then(Value::as_bool) == Some(true);
    let (Some(configuration), false) = (text("configuration"), removed) else {
        return Ok(HashSet::new());
    };
    if text("domain") != Some(horizon::DOMAIN) {
        return Ok(HashSet::new());
    }
    let kept: Kept = serde_json::from_str(configuration).map_err(|error| {
        Error::corrupt(format!(
            "a commit of {} does not say which events are kept: {error}",
            root.path
        ))
        .with_source(error)
    })?;
    paths(root, &kept)
}

/// All that are there.
pub(super) async fn listed(root: &TableRoot) -> Result<Vec<ObjectMeta>> {
    let folder = horizon::folder(root);
    let objects = root.store.list(Some(&folder)).try_collect().await;
    objects.map_err(|error| Error::storage(format!("cannot list {folder}"), error))
}

/// Those that no version after `horizon_ms` needs, and that are no part of a write that is still running.
pub(super) async fn unused(
    job: &Job,
    base: &Arc<Snapshot>,
    horizon_ms: i64,
    before_ms: i64,
) -> Result<Vec<ObjectMeta>> {
    let mut found = listed(&job.table.root).await?;
    if found.is_empty() {
        return Ok(found);
    }
    let needed = needed(job, base, horizon_ms).await?;
    found.retain(|object| {
        let old = object.last_modified.timestamp_millis() < before_ms;
        old && !needed.contains(&object.location)
    });
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}

async fn needed(job: &Job, base: &Arc<Snapshot>, horizon_ms: i64) -> Result<HashSet<Path>> {
    let root = &job.table.root;
    let mut needed = of(root, base)?;
    let mut newer = log::newer(root, base.version, horizon_ms).await?;
    let mut first = base.version;
    while let Some(commit) = newer.try_next().await? {
        for action in &commit.actions {
            needed.extend(told(root, action)?);
        }
        first = commit.version;
    }
    // Up to the first of them, the one before was the newest.
    if let Some(before) = first.checked_sub(1) {
        match job.table.logged(&job.name, base, before).await {
            Ok(before) => needed.extend(of(root, &before)?),
            // A version that the log cannot tell any more cannot be read, so it needs nothing.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(needed)
}

/// What makes the list of `base` that of `old` again; None where it is.
///
/// # Errors
/// When a file is gone that comes back by that.
pub(super) async fn restored(
    job: &Job,
    base: &Snapshot,
    old: &Snapshot,
) -> Result<Option<Keeping>> {
    let (now, then) = (horizon::of(base)?, horizon::of(old)?);
    let lacks = |kept: &Kept, path: &str| !kept.files.iter().any(|file| file.path == path);
    let came = then.files.iter().filter(|file| lacks(&now, &file.path));
    let came: Vec<_> = came.cloned().collect();
    let out = now.files.iter().filter(|file| lacks(&then, &file.path));
    let out: Vec<_> = out.map(|file| file.path.clone()).collect();
    if came.is_empty() && out.is_empty() && now.watermark == then.watermark {
        return Ok(None);
    }
    let root = &job.table.root;
    for file in &came {
        if !vacuumed::exists(root, &root.locate(&file.path)?).await? {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "table {} cannot be restored to version {}: its kept events '{}' are gone",
                    job.name, old.version, file.path
                ),
            )
            .with_hint("restore a newer version"));
        }
    }
    Ok(Some(Keeping {
        watermark: then.watermark,
        restores: true,
        out,
        came,
    }))
}

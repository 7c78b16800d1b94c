//! Records of writes that rules kept from being committed.
//!
//! They made no version, so each is an object of its own, whose name says when it was. Nothing follows from
//! them: they are no part of a baseline, and one that cannot be read is left out.

use std::ops::RangeInclusive;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::{READ_AHEAD, Record, folder};
use crate::error::{Error, Result};
use crate::table::handle::Table;
use crate::table::snapshot::TableRoot;

fn place(root: &TableRoot) -> Path {
    folder(root, "blocked")
}

/// Keeps the record of a write that was refused.
pub(crate) async fn refuse(table: &Table, record: &Record) -> Result<()> {
    let id = table.ambient.id();
    let name = format!("{:015}-{id}.json", record.at_ms.max(0));
    let path = place(&table.root).join(name);
    let bytes = serde_json::to_vec(record)
        .map_err(|error| Error::internal("a record cannot be written").with_source(error))?;
    let put = table.root.store.put(&path, bytes.into()).await;
    put.map_err(|error| Error::storage(format!("cannot write {path}"), error))?;
    Ok(())
}

/// The records of writes that were refused at `times`, milliseconds since the epoch, the newest first.
pub(crate) async fn refused(root: &TableRoot, times: RangeInclusive<i64>) -> Result<Vec<Record>> {
    let mut objects = list(root, &times).await?;
    objects.reverse();
    let records = stream::iter(objects)
        .map(|object| read(root, object.location))
        .buffered(READ_AHEAD)
        .try_filter_map(|record| std::future::ready(Ok(record)))
        .boxed();
    records.try_collect().await
}

/// The objects of writes that were refused until then, the oldest first.
pub(crate) async fn refused_until(root: &TableRoot, until_ms: i64) -> Result<Vec<ObjectMeta>> {
    list(root, &(i64::MIN..=until_ms)).await
}

async fn list(root: &TableRoot, times: &RangeInclusive<i64>) -> Result<Vec<ObjectMeta>> {
    let folder = place(root);
    let failed = |error| Error::storage(format!("cannot list {folder}"), error);
    let mut objects = root.store.list(Some(&folder));
    let mut found = Vec::new();
    while let Some(object) = objects.try_next().await.map_err(failed)? {
        let at_ms = object.location.filename().and_then(time);
        if at_ms.is_some_and(|at_ms| times.contains(&at_ms)) {
            found.push(object);
        }
    }
    found.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(found)
}

/// What the name of an object of ours says; of others, nothing.
fn time(name: &str) -> Option<i64> {
    let (time, id) = name.strip_suffix(".json")?.split_once('-')?;
    uuid::Uuid::try_parse(id).ok()?;
    time.parse().ok()
}

async fn read(root: &TableRoot, path: Path) -> Result<Option<Record>> {
    let failed = |error| Error::storage(format!("cannot read {path}"), error);
    let bytes = match root.store.get(&path).await {
        Ok(got) => got.bytes().await.map_err(failed)?,
        // A vacuum took it since they were listed.
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match serde_json::from_slice(&bytes) {
        Ok(record) => Ok(Some(record)),
        Err(error) => {
            tracing::warn!(%error, %path, "the record of a refused write cannot be read");
            Ok(None)
        }
    }
}

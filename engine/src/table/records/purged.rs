//! How far back quarantined rows have been deleted.
//!
//! Records outlive the files they name. Which of them are gone follows from the retention, until somebody makes
//! that longer; so whoever deletes says first, in an object of its own, how far back. It is not kept in the log:
//! a reader of an old version has to know of a deletion that came later.

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::folder;
use crate::error::{Error, Result};
use crate::table::snapshot::TableRoot;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Purged {
    /// Milliseconds since the epoch: rows quarantined until then are gone.
    until_ms: i64,
}

fn path(root: &TableRoot) -> Path {
    folder(root, "purged.json")
}

/// Until when quarantined rows may be gone; None when none ever went.
pub(super) async fn until_ms(root: &TableRoot) -> Result<Option<i64>> {
    let path = path(root);
    let failed = |error| Error::storage(format!("cannot read {path}"), error);
    let bytes: Bytes = match root.store.get(&path).await {
        Ok(got) => got.bytes().await.map_err(failed)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let purged: Purged = serde_json::from_slice(&bytes).map_err(|error| {
        Error::corrupt(format!(
            "{path} does not say until when quarantined rows were deleted: {error}"
        ))
        .with_hint("remove this object: the next VACUUM writes it again")
        .with_source(error)
    })?;
    Ok(Some(purged.until_ms))
}

/// Says that rows quarantined until then are about to be deleted. An earlier word that went further stays.
pub(crate) async fn purge(root: &TableRoot, until_ms: i64) -> Result<()> {
    if self::until_ms(root)
        .await?
        .is_some_and(|known| known >= until_ms)
    {
        return Ok(());
    }
    let path = path(root);
    let bytes = serde_json::to_vec(&Purged { until_ms })
        .map_err(|error| Error::internal("an instant cannot be written").with_source(error))?;
    let put = root.store.put(&path, bytes.into()).await;
    put.map_err(|error| Error::storage(format!("cannot write {path}"), error))?;
    Ok(())
}

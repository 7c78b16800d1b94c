//! An erasure that has begun: an object beside the table's rows, written before the first step and removed after the
//! last, so that whoever comes next finishes what a crash has cut short.

use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::table::records::Forget;
use crate::table::snapshot::TableRoot;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pending {
    /// The version that was clean. Nothing is erased before the log says that it, and all before it, have ended.
    pub base: u64,
    /// What is to be told no more of the versions that end.
    pub forget: Forget,
}

fn path(root: &TableRoot) -> Path {
    root.path.clone().join("_selvedge").join("erase.json")
}

pub(super) async fn read(root: &TableRoot) -> Result<Option<Pending>> {
    let path = path(root);
    let failed = |error| Error::storage(format!("cannot read {path}"), error);
    let bytes = match root.store.get(&path).await {
        Ok(got) => got.bytes().await.map_err(failed)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let pending = serde_json::from_slice(&bytes).map_err(|error| {
        Error::corrupt(format!("{path} does not say what is to be erased: {error}"))
            .with_hint("remove this object, and run CLEANSE TABLE .. ERASE again")
            .with_source(error)
    })?;
    Ok(Some(pending))
}

pub(super) async fn write(root: &TableRoot, pending: &Pending) -> Result<()> {
    let path = path(root);
    let bytes = serde_json::to_vec(pending)
        .map_err(|error| Error::internal("an erasure cannot be written").with_source(error))?;
    let put = root.store.put(&path, bytes.into()).await;
    put.map_err(|error| Error::storage(format!("cannot write {path}"), error))?;
    Ok(())
}

pub(super) async fn remove(root: &TableRoot) -> Result<()> {
    let path = path(root);
    match root.store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(Error::storage(format!("cannot delete {path}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::datasource::object_store::ObjectStoreUrl;
    use object_store::memory::InMemory;

    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn it_is_there_from_the_first_step_to_the_last() {
        let root = TableRoot {
            store_url: ObjectStoreUrl::parse("memory://").unwrap(),
            store: Arc::new(InMemory::new()),
            path: Path::from("lake/t"),
        };
        assert_eq!(read(&root).await.unwrap(), None);
        let columns = ["email".to_owned()].into();
        let pending = Pending {
            base: 7,
            forget: Forget::Columns(columns),
        };
        write(&root, &pending).await.unwrap();
        assert_eq!(read(&root).await.unwrap(), Some(pending));
        remove(&root).await.unwrap();
        remove(&root).await.unwrap();
        assert_eq!(read(&root).await.unwrap(), None);

        let damaged = bytes::Bytes::from_static(b"{");
        root.store.put(&path(&root), damaged.into()).await.unwrap();
        assert_eq!(read(&root).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

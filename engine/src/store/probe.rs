//! Whether a store refuses to create an object twice.

use object_store::{ObjectStoreExt, PutMode};

use super::Lake;
use crate::error::{Error, Result};

/// Creates one object twice and expects the second try to be refused.
///
/// A commit is a conditional put; a store that accepts the condition and ignores it (some S3 work-alikes
/// do) lets two writers overwrite each other's versions and tells neither. To be run when a lake is
/// created on a [remote](Lake::remote) store. `token` makes the object's name unique.
pub(crate) async fn probe(lake: &Lake, token: &str) -> Result<()> {
    let name = lake.prefix.clone().join(format!("_probe_{token}"));
    let create = || {
        lake.store
            .put_opts(&name, "probe".into(), PutMode::Create.into())
    };
    let second = match create().await {
        Ok(_) => create().await.map(|_| ()),
        // The name is ours alone: a lost answer made the client try again, and that was refused.
        refused => refused.map(|_| ()),
    };
    // Whatever the verdict; an object that stays behind is nobody's table.
    let removed = lake.store.delete(&name).await;
    match second {
        Err(object_store::Error::AlreadyExists { .. }) => removed.map_err(|e| {
            let what = format!("lake {} can be written but not deleted from", lake.url);
            Error::storage(what, e)
        }),
        Ok(()) => Err(Error::unsupported(format!(
            "lake {}: its store ignores conditional put",
            lake.url
        ))
        .with_detail("an object was created twice under one name; two writers would overwrite each other's commits")
        .with_hint("use a store that honours If-None-Match on PUT")),
        Err(e @ object_store::Error::NotImplemented { .. }) => Err(Error::unsupported(format!(
            "lake {}: its store has no conditional put",
            lake.url
        ))
        .with_source(e)),
        Err(e) => Err(Error::storage(format!("lake {} cannot be written", lake.url), e)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use futures::TryStreamExt;
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
        PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    };

    use super::*;
    use crate::error::ErrorKind;

    /// A store that takes every put for an unconditional one.
    #[derive(Debug, Default)]
    struct Careless(InMemory);

    impl std::fmt::Display for Careless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Careless")
        }
    }

    #[async_trait]
    impl ObjectStore for Careless {
        async fn put_opts(
            &self,
            at: &Path,
            payload: PutPayload,
            _: PutOptions,
        ) -> Result<PutResult> {
            self.0.put(at, payload).await
        }
        async fn put_multipart_opts(
            &self,
            at: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(at, options).await
        }
        async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
            self.0.get_opts(at, options).await
        }
        fn delete_stream(
            &self,
            locations: BoxStream<'static, Result<Path>>,
        ) -> BoxStream<'static, Result<Path>> {
            self.0.delete_stream(locations)
        }
        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.0.list(prefix)
        }
        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }
        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    async fn left(lake: &Lake) -> usize {
        lake.store
            .list(None)
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .len()
    }

    #[tokio::test]
    async fn a_careful_store_passes_and_is_left_as_it_was() {
        let lake = Lake::over("memory:///a", Arc::new(InMemory::new())).unwrap();
        probe(&lake, "1").await.unwrap();
        assert_eq!(left(&lake).await, 0);
    }

    #[tokio::test]
    async fn a_careless_store_is_refused_and_left_as_it_was() {
        let lake = Lake::over("s3://b/a", Arc::new(Careless::default())).unwrap();
        let error = probe(&lake, "1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error
                .to_string()
                .contains("lake s3://b/a/: its store ignores conditional put"),
            "{error}"
        );
        assert_eq!(left(&lake).await, 0);
    }
}

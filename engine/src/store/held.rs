//! A store whose writes appear when they are released, all of them or, after a failure, none.
//!
//! DataFusion ends a file whenever its rows end, also where they end by an error. Here the end of a
//! file is only noted: an upload stays open, a small file stays in memory.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use parking_lot::Mutex;

/// Writes that nobody sees yet. Dropped, they are given up.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Vec<Pending>>);

#[derive(Debug)]
enum Pending {
    Small {
        store: Arc<dyn ObjectStore>,
        path: Path,
        payload: PutPayload,
        options: PutOptions,
    },
    Upload(SharedUpload),
}

/// Taken out when it ends.
type SharedUpload = Arc<Mutex<Option<Box<dyn MultipartUpload>>>>;

impl Held {
    /// Lets everything appear.
    ///
    /// # Errors
    /// At the first write that fails; those after it do not appear.
    pub(crate) async fn release(&self) -> Result<()> {
        let pending = std::mem::take(&mut *self.0.lock());
        let mut pending = pending.into_iter();
        while let Some(write) = pending.next() {
            if let Err(error) = write.end().await {
                give_up(pending.collect()).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Leaves no trace of any.
    pub(crate) async fn discard(&self) {
        let pending = std::mem::take(&mut *self.0.lock());
        give_up(pending).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let pending = std::mem::take(self.0.get_mut());
        if pending.is_empty() {
            return;
        }
        // A cancelled statement; without a runtime there is nobody left to clean up.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(give_up(pending));
        }
    }
}

async fn give_up(pending: Vec<Pending>) {
    for write in pending {
        let Pending::Upload(upload) = write else {
            continue;
        };
        let upload = upload.lock().take();
        if let Some(mut upload) = upload
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, "an unfinished upload was left behind");
        }
    }
}

impl Pending {
    async fn end(self) -> Result<()> {
        match self {
            Self::Small {
                store,
                path,
                payload,
                options,
            } => {
                store.put_opts(&path, payload, options).await?;
            }
            Self::Upload(upload) => {
                let upload = upload.lock().take();
                if let Some(mut upload) = upload {
                    upload.complete().await?;
                }
            }
        }
        Ok(())
    }
}

/// `inner`, with its writes held back.
#[derive(Debug)]
pub(crate) struct HoldingStore {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) held: Arc<Held>,
}

impl fmt::Display for HoldingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for HoldingStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.held.0.lock().push(Pending::Small {
            store: Arc::clone(&self.inner),
            path: path.clone(),
            payload,
            options,
        });
        Ok(unseen())
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(path, options).await?;
        let upload = Arc::new(Mutex::new(Some(upload)));
        self.held
            .0
            .lock()
            .push(Pending::Upload(Arc::clone(&upload)));
        Ok(Box::new(HeldUpload(upload)))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// What a write that has not happened yet can say of itself.
fn unseen() -> PutResult {
    PutResult {
        e_tag: None,
        version: None,
    }
}

#[derive(Debug)]
struct HeldUpload(SharedUpload);

#[async_trait]
impl MultipartUpload for HeldUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.0.lock().as_mut() {
            Some(upload) => upload.put_part(data),
            None => Box::pin(std::future::ready(Err(object_store::Error::Generic {
                store: "held",
                source: "the upload has ended".into(),
            }))),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        Ok(unseen())
    }

    async fn abort(&mut self) -> Result<()> {
        let upload = self.0.lock().take();
        match upload {
            Some(mut upload) => upload.abort().await,
            None => Ok(()),
        }
    }
}

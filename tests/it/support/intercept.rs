//! A store that asks before every operation: to count it, to hold it back, or to refuse it with any error.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result, UploadPart,
};

use super::fault::Op;

/// An operation about to reach the store.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) op: Op,
    pub(crate) path: Path,
    /// Of a get that asks for a part.
    pub(crate) range: Option<Range<u64>>,
}

/// Is awaited before the operation; an error is answered in its place.
pub(crate) type Before = Arc<dyn Fn(Request) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// The store. Its ranges of one object are coalesced as remote stores do it.
pub(crate) struct Intercept {
    inner: Arc<dyn ObjectStore>,
    before: Before,
    conditional: bool,
}

impl Intercept {
    /// A store over `inner` that asks `before`.
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        before: impl Fn(Request) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            before: Arc::new(before),
            conditional: true,
        })
    }

    /// A store that answers `refuse` where it is not `None`.
    pub(crate) fn refusing(
        inner: Arc<dyn ObjectStore>,
        refuse: impl Fn(&Request) -> Option<object_store::Error> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::new(inner, move |request| {
            std::future::ready(refuse(&request).map_or(Ok(()), Err)).boxed()
        })
    }

    /// A store that takes every put for an unconditional one, and says nothing of it.
    pub(crate) fn careless(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            before: Arc::new(|_| std::future::ready(Ok(())).boxed()),
            conditional: false,
        })
    }

    async fn ask(&self, op: Op, path: &Path, range: Option<Range<u64>>) -> Result<()> {
        ask(&self.before, op, path, range).await
    }
}

async fn ask(before: &Before, op: Op, path: &Path, range: Option<Range<u64>>) -> Result<()> {
    let path = path.clone();
    before(Request { op, path, range }).await
}

impl fmt::Debug for Intercept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Intercept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intercept({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Intercept {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        let op = match opts.mode {
            PutMode::Create => Op::Create,
            PutMode::Overwrite | PutMode::Update(_) => Op::Put,
        };
        self.ask(op, location, None).await?;
        if !self.conditional {
            opts.mode = PutMode::Overwrite;
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.ask(Op::MultipartStart, location, None).await?;
        Ok(Box::new(Upload {
            inner: self.inner.put_multipart_opts(location, opts).await?,
            path: location.clone(),
            before: Arc::clone(&self.before),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let range = match &options.range {
            Some(GetRange::Bounded(range)) => Some(range.clone()),
            _ => None,
        };
        self.ask(Op::Get, location, range).await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, before) = (Arc::clone(&self.inner), Arc::clone(&self.before));
        locations
            .then(move |location| {
                let (inner, before) = (Arc::clone(&inner), Arc::clone(&before));
                async move {
                    let location = location?;
                    ask(&before, Op::Delete, &location, None).await?;
                    inner.delete(&location).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.ask(Op::List, prefix.unwrap_or(&Path::ROOT), None)
            .await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.ask(Op::Put, to, None).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

impl Intercept {
    fn listing(
        &self,
        prefix: Option<&Path>,
        entries: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let before = Arc::clone(&self.before);
        let prefix = prefix.unwrap_or(&Path::ROOT).clone();
        let entries = async move {
            ask(&before, Op::List, &prefix, None)
                .await
                .map(|()| entries)
        };
        stream::once(entries).try_flatten().boxed()
    }
}

struct Upload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    before: Before,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({})", self.path)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (before, path) = (Arc::clone(&self.before), self.path.clone());
        let part = self.inner.put_part(data);
        async move {
            ask(&before, Op::MultipartPart, &path, None).await?;
            part.await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        ask(&self.before, Op::MultipartComplete, &self.path, None).await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        ask(&self.before, Op::MultipartAbort, &self.path, None).await?;
        self.inner.abort().await
    }
}

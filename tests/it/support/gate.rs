//! A store at which one operation can be made to wait, so that a test decides what happens meanwhile.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What an operation does to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

type Stop = Box<dyn Fn(Access, &Path) -> bool + Send + Sync>;

/// The store.
pub(crate) struct GateStore {
    inner: Arc<dyn ObjectStore>,
    stop: Mutex<Option<Stop>>,
    waits: AtomicBool,
    came: Notify,
    opened: Notify,
}

impl GateStore {
    /// A store over `inner` that nobody waits at yet.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            stop: Mutex::default(),
            waits: AtomicBool::new(false),
            came: Notify::new(),
            opened: Notify::new(),
        })
    }

    /// The next operation that `stop` names will wait before it is done; those after it will not.
    pub(crate) fn close(&self, stop: impl Fn(Access, &Path) -> bool + Send + Sync + 'static) {
        *self.stop.lock() = Some(Box::new(stop));
    }

    /// Whether an operation came to the gate and waits; `false` when someone said that none will.
    pub(crate) async fn came(&self) -> bool {
        self.came.notified().await;
        self.waits.load(Ordering::Acquire)
    }

    /// Says that no operation will come to the gate any more.
    pub(crate) fn none_will_come(&self) {
        *self.stop.lock() = None;
        self.came.notify_one();
    }

    /// Lets the operation that waits go on.
    pub(crate) fn open(&self) {
        self.opened.notify_one();
    }

    async fn pass(&self, access: Access, path: &Path) {
        let waits = {
            let mut stop = self.stop.lock();
            let named = stop.as_ref().is_some_and(|stop| stop(access, path));
            if named {
                *stop = None;
            }
            named
        };
        if waits {
            self.waits.store(true, Ordering::Release);
            self.came.notify_one();
            self.opened.notified().await;
        }
    }
}

impl fmt::Debug for GateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for GateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GateStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for GateStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.pass(Access::Write, location).await;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.pass(Access::Write, location).await;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass(Access::Read, location).await;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.pass(Access::Read, location).await;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
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
        self.pass(Access::Write, to).await;
        self.inner.copy_opts(from, to, options).await
    }
}

//! A store that fails on purpose.
//!
//! Count the operations of a workload in one run, then repeat it with a fault at the first, the
//! second, ... the last: whatever was acknowledged must be there, whatever was refused must not.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, RenameTargetMode, Result, UploadPart,
};
use parking_lot::Mutex;

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing is done, an error is answered.
    FailBefore,
    /// It is done, an error is answered.
    FailAfter,
    /// It is done, the answer is lost, the client's own second try is answered "already exists".
    /// Meets [`Op::Create`] only: nothing else can be answered so.
    AmbiguousExists,
    /// It is done, a timeout is answered.
    TimeoutAfterApply,
}

impl Fault {
    /// Every fault there is.
    pub(crate) const ALL: [Self; 4] = [
        Self::FailBefore,
        Self::FailAfter,
        Self::AmbiguousExists,
        Self::TimeoutAfterApply,
    ];

    fn error(self, op: Op, path: &Path) -> Error {
        let source: Box<dyn std::error::Error + Send + Sync> = match self {
            Self::AmbiguousExists => {
                return Error::AlreadyExists {
                    path: path.to_string(),
                    source: "injected: the first answer was lost".into(),
                };
            }
            Self::TimeoutAfterApply => Box::new(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("injected timeout of {op:?} {path}"),
            )),
            Self::FailBefore | Self::FailAfter => {
                format!("injected {self:?} of {op:?} {path}").into()
            }
        };
        Error::Generic {
            store: "FaultStore",
            source,
        }
    }
}

/// An operation on the store, as faults and the history tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// A put, copy or rename that must not find its target.
    Create,
    /// A put, copy or rename over whatever is there, or over a known tag.
    Put,
    MultipartStart,
    MultipartPart,
    MultipartComplete,
    MultipartAbort,
    Get,
    Delete,
    List,
}

impl Op {
    /// Operations that change what is stored.
    pub(crate) const WRITES: [Self; 6] = [
        Self::Create,
        Self::Put,
        Self::MultipartStart,
        Self::MultipartPart,
        Self::MultipartComplete,
        Self::Delete,
    ];
}

/// Whether a fault meets an operation on a path.
type Filter = Arc<dyn Fn(Op, &Path) -> bool + Send + Sync>;

/// Which operations a fault meets.
#[derive(Clone)]
pub(crate) struct Plan {
    fault: Fault,
    /// From the first, counted from 1, of those that match, ...
    first: usize,
    /// ... and every so many after it; 0 is never again.
    every: usize,
    matches: Filter,
}

impl Plan {
    /// The `k`-th operation fails, counted from 1, and no other.
    pub(crate) fn once(k: usize, fault: Fault) -> Self {
        Self {
            fault,
            first: k,
            every: 0,
            matches: Arc::new(|_, _| true),
        }
    }

    /// The `k`-th, the `2k`-th, the `3k`-th, ... operation fails.
    pub(crate) fn every(k: usize, fault: Fault) -> Self {
        Self {
            every: k,
            ..Self::once(k, fault)
        }
    }

    /// The `k`-th operation fails and all after it, as if the store had gone.
    pub(crate) fn from(k: usize, fault: Fault) -> Self {
        Self {
            every: 1,
            ..Self::once(k, fault)
        }
    }

    /// Counts only operations of these kinds.
    #[must_use]
    pub(crate) fn ops(self, ops: &[Op]) -> Self {
        let ops = ops.to_vec();
        self.filter(move |op, _| ops.contains(&op))
    }

    /// Counts only operations on paths that contain `part`.
    #[must_use]
    pub(crate) fn path(self, part: &str) -> Self {
        let part = part.to_owned();
        self.filter(move |_, path| path.as_ref().contains(&part))
    }

    /// Counts only operations that also pass this test.
    #[must_use]
    pub(crate) fn filter(
        mut self,
        test: impl Fn(Op, &Path) -> bool + Send + Sync + 'static,
    ) -> Self {
        let before = self.matches;
        self.matches = Arc::new(move |op, path| before(op, path) && test(op, path));
        self
    }

    fn hits(&self, count: usize) -> bool {
        count == self.first
            || (self.every > 0
                && count > self.first
                && (count - self.first).is_multiple_of(self.every))
    }
}

/// One operation that reached the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) op: Op,
    pub(crate) path: Path,
    /// What was injected into it.
    pub(crate) fault: Option<Fault>,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    /// Operations that matched the plan.
    matched: usize,
    history: Vec<Call>,
}

/// The store. Without a plan it only keeps the history.
pub(crate) struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

impl FaultStore {
    /// A store over `inner` that does not fail yet.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            state: Arc::default(),
        })
    }

    /// Begins to fail as `plan` says, counting from now.
    pub(crate) fn arm(&self, plan: Plan) {
        let mut state = self.state.lock();
        state.plan = Some(plan);
        state.matched = 0;
    }

    /// Stops to fail.
    pub(crate) fn disarm(&self) {
        self.state.lock().plan = None;
    }

    /// All operations so far, in the order in which they began.
    pub(crate) fn history(&self) -> Vec<Call> {
        self.state.lock().history.clone()
    }

    /// Operations since the plan was armed that it counts; a workload whose `k` exceeds it met no fault.
    pub(crate) fn matched(&self) -> usize {
        self.state.lock().matched
    }

    fn enter(&self, op: Op, path: &Path) -> Turn {
        enter(&self.state, op, path)
    }
}

fn enter(state: &Mutex<State>, op: Op, path: &Path) -> Turn {
    let mut state = state.lock();
    let mut fault = None;
    if let Some(plan) = state.plan.clone()
        && (plan.matches)(op, path)
        && (plan.fault != Fault::AmbiguousExists || op == Op::Create)
    {
        state.matched += 1;
        fault = plan.hits(state.matched).then_some(plan.fault);
    }
    let path = path.clone();
    state.history.push(Call {
        op,
        path: path.clone(),
        fault,
    });
    Turn { op, path, fault }
}

/// One operation under way.
struct Turn {
    op: Op,
    path: Path,
    fault: Option<Fault>,
}

impl Turn {
    fn before(&self) -> Result<()> {
        match self.fault {
            Some(fault @ Fault::FailBefore) => Err(fault.error(self.op, &self.path)),
            _ => Ok(()),
        }
    }

    /// An operation that failed by itself keeps its own error.
    fn after<T>(&self, result: Result<T>) -> Result<T> {
        let value = result?;
        match self.fault {
            Some(fault) => Err(fault.error(self.op, &self.path)),
            None => Ok(value),
        }
    }

    async fn run<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.before()?;
        self.after(work.await)
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let op = match opts.mode {
            PutMode::Create => Op::Create,
            PutMode::Overwrite | PutMode::Update(_) => Op::Put,
        };
        self.enter(op, location)
            .run(self.inner.put_opts(location, payload, opts))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self
            .enter(Op::MultipartStart, location)
            .run(self.inner.put_multipart_opts(location, opts))
            .await?;
        Ok(Box::new(FaultUpload {
            inner,
            path: location.clone(),
            state: Arc::clone(&self.state),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.enter(Op::Get, location)
            .run(self.inner.get_opts(location, options))
            .await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.enter(Op::Get, location)
            .run(self.inner.get_ranges(location, ranges))
            .await
    }

    /// Each object is an operation of its own, so that the k-th of many can fail.
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        locations
            .then(move |location| {
                let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
                async move {
                    let location = location?;
                    enter(&state, Op::Delete, &location)
                        .run(inner.delete(&location))
                        .await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let turn = self.enter(Op::List, prefix.unwrap_or(&Path::ROOT));
        faulty_list(turn, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let turn = self.enter(Op::List, prefix.unwrap_or(&Path::ROOT));
        faulty_list(turn, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.enter(Op::List, prefix.unwrap_or(&Path::ROOT))
            .run(self.inner.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let op = match options.mode {
            CopyMode::Create => Op::Create,
            CopyMode::Overwrite => Op::Put,
        };
        self.enter(op, to)
            .run(self.inner.copy_opts(from, to, options))
            .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let op = match options.target_mode {
            RenameTargetMode::Create => Op::Create,
            RenameTargetMode::Overwrite => Op::Put,
        };
        self.enter(op, to)
            .run(self.inner.rename_opts(from, to, options))
            .await
    }
}

/// "Done, then an error" is for a listing: all entries, then an error.
fn faulty_list(
    turn: Turn,
    listing: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    if let Err(error) = turn.before() {
        return stream::iter([Err(error)]).boxed();
    }
    let end = stream::iter(turn.after(Ok(())).err().map(Err));
    listing.chain(end).boxed()
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls", self.history.len())
    }
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let turn = enter(&self.state, Op::MultipartPart, &self.path);
        turn.run(self.inner.put_part(data)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let turn = enter(&self.state, Op::MultipartComplete, &self.path);
        turn.run(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let turn = enter(&self.state, Op::MultipartAbort, &self.path);
        turn.run(self.inner.abort()).await
    }
}

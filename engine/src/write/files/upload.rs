//! Bytes of one data file on their way to the store, and the list of what has landed there.
//!
//! A file that stays below one part goes up as a single put; a longer one in parts of equal size,
//! few at a time. Whatever was begun is undone when the write fails or is dropped.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, PutPayloadMut};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::error::{Error, ErrorKind, Result};

/// Bytes of a part: above the least that S3 takes, and equal, as some stores demand.
pub(super) const PART_BYTES: usize = 8 << 20;
/// Parts of one file that travel at once.
const PARTS_IN_FLIGHT: usize = 4;
/// How long a failed write waits for its files to be deleted before it reports the failure.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

/// The files of one write, until the write is kept.
pub(super) struct Ledger {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    abandoned: bool,
    landed: Vec<Path>,
}

impl Ledger {
    /// Notes that an object may exist now. False if nobody wants it any more.
    fn land(&self, path: &Path) -> bool {
        let mut state = self.state.lock();
        if !state.abandoned {
            state.landed.push(path.clone());
        }
        !state.abandoned
    }
}

/// Deletes the files of a write when dropped, unless the write was kept.
pub(super) struct Undo {
    ledger: Arc<Ledger>,
}

impl Undo {
    /// Must be called inside a runtime, which later does the deleting.
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            ledger: Arc::new(Ledger {
                store,
                runtime: Handle::current(),
                state: Mutex::default(),
            }),
        }
    }

    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Leaves the files to the caller.
    pub(super) fn keep(self) {
        self.ledger.state.lock().landed.clear();
    }

    /// Deletes the files, and waits for it for a while, so that a program that ends right after
    /// the error leaves none.
    pub(super) async fn run(self) {
        let deletion = self.abandon();
        if let Some(deletion) = deletion
            && tokio::time::timeout(UNDO_TIMEOUT, deletion).await.is_err()
        {
            tracing::warn!("files of a failed write are still being deleted");
        }
    }

    /// Starts deleting in a task of its own, which survives the write's future.
    fn abandon(&self) -> Option<tokio::task::JoinHandle<()>> {
        let landed = {
            let mut state = self.ledger.state.lock();
            state.abandoned = true;
            std::mem::take(&mut state.landed)
        };
        if landed.is_empty() {
            return None;
        }
        let store = Arc::clone(&self.ledger.store);
        Some(self.ledger.runtime.spawn(async move {
            delete_all(&*store, landed).await;
        }))
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Deletes objects that no commit refers to. Best effort: what stays costs space, not truth.
pub(super) async fn delete_all(store: &dyn ObjectStore, paths: Vec<Path>) {
    let paths = futures::stream::iter(paths).map(Ok).boxed();
    let mut outcomes = store.delete_stream(paths);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%error, "a file of a failed write was not deleted"),
        }
    }
}

/// One object being written.
pub(super) struct Upload {
    ledger: Arc<Ledger>,
    path: Path,
    /// Bytes that have not left yet, less than a part between calls.
    waiting: PutPayloadMut,
    parts: Option<Parts>,
    bytes: u64,
}

/// A multipart upload; aborted when dropped before it was completed.
struct Parts {
    upload: Option<Box<dyn MultipartUpload>>,
    in_flight: JoinSet<object_store::Result<()>>,
    runtime: Handle,
}

impl Upload {
    pub(super) fn new(ledger: Arc<Ledger>, path: Path) -> Self {
        Self {
            ledger,
            path,
            waiting: PutPayloadMut::new(),
            parts: None,
            bytes: 0,
        }
    }

    /// Bytes given so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes held in memory.
    pub(super) fn memory(&self) -> usize {
        let in_flight = self.parts.as_ref().map_or(0, |p| p.in_flight.len());
        self.waiting.content_length() + in_flight * PART_BYTES
    }

    /// Whether bytes leave as they come, instead of waiting for the end of the file.
    pub(super) fn streaming(&self) -> bool {
        self.parts.is_some()
    }

    /// Adds `bytes` at the end; waits while too many parts are on their way.
    pub(super) async fn push(&mut self, mut bytes: Bytes) -> Result<()> {
        self.bytes += bytes.len() as u64;
        while self.waiting.content_length() + bytes.len() >= PART_BYTES {
            let room = PART_BYTES - self.waiting.content_length();
            self.waiting.push(bytes.split_to(room));
            let part = std::mem::take(&mut self.waiting).freeze();
            self.send(part).await?;
        }
        if !bytes.is_empty() {
            self.waiting.push(bytes);
        }
        Ok(())
    }

    /// Waits until no part is on its way.
    pub(super) async fn drain(&mut self) -> Result<()> {
        if let Some(parts) = &mut self.parts {
            parts.drain().await.map_err(|e| storage(&self.path, e))?;
        }
        Ok(())
    }

    async fn send(&mut self, part: PutPayload) -> Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => none.insert(begin(&self.ledger, &self.path).await?),
        };
        parts.send(part).await.map_err(|e| storage(&self.path, e))
    }

    /// Makes the object exist. The last request runs in a task of its own: dropped half way its
    /// outcome would be unknown, and the file would come to be after the clean-up.
    pub(super) async fn finish(mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.waiting).freeze();
        let ledger = Arc::clone(&self.ledger);
        let path = self.path.clone();
        let parts = self.parts.take();
        let task = self.ledger.runtime.spawn(async move {
            let outcome = match parts {
                None => ledger.store.put(&path, rest).await.map(drop),
                Some(parts) => parts.complete(rest).await,
            };
            // An error may be ambiguous and leave the object behind, so it counts as landed too.
            if !ledger.land(&path) {
                delete_all(&*ledger.store, vec![path.clone()]).await;
            }
            outcome.map_err(|e| storage(&path, e))
        });
        task.await.map_err(stopped)?
    }
}

impl Parts {
    async fn send(&mut self, part: PutPayload) -> object_store::Result<()> {
        while self.in_flight.len() >= PARTS_IN_FLIGHT {
            self.join_one().await?;
        }
        if let Some(upload) = &mut self.upload {
            self.in_flight
                .spawn_on(upload.put_part(part), &self.runtime);
        }
        Ok(())
    }

    async fn join_one(&mut self) -> object_store::Result<()> {
        match self.in_flight.join_next().await {
            Some(joined) => joined.map_err(|source| object_store::Error::JoinError { source })?,
            None => Ok(()),
        }
    }

    async fn drain(&mut self) -> object_store::Result<()> {
        while !self.in_flight.is_empty() {
            self.join_one().await?;
        }
        Ok(())
    }

    async fn complete(mut self, rest: PutPayload) -> object_store::Result<()> {
        if rest.content_length() > 0 {
            self.send(rest).await?;
        }
        self.drain().await?;
        if let Some(upload) = &mut self.upload {
            upload.complete().await?;
        }
        self.upload = None;
        Ok(())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            let mut in_flight = std::mem::take(&mut self.in_flight);
            self.runtime.spawn(async move {
                in_flight.shutdown().await;
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "an unfinished upload was not aborted");
                }
            });
        }
    }
}

/// Begins a multipart upload in a task of its own, so that one that nobody waits for is aborted
/// and not forgotten.
async fn begin(ledger: &Arc<Ledger>, path: &Path) -> Result<Parts> {
    let (sender, receiver) = oneshot::channel();
    let (store, runtime) = (Arc::clone(&ledger.store), ledger.runtime.clone());
    let target = path.clone();
    ledger.runtime.spawn(async move {
        let begun = store.put_multipart(&target).await.map(|upload| Parts {
            upload: Some(upload),
            in_flight: JoinSet::new(),
            runtime,
        });
        // Not received means dropped, which aborts.
        drop(sender.send(begun));
    });
    receiver
        .await
        .map_err(|_| Error::internal(format!("the upload of {path} was stopped")))?
        .map_err(|e| storage(path, e))
}

/// Joins a task of ours; only a defect or the end of the runtime makes that fail.
pub(super) async fn join<T: 'static>(task: SpawnedTask<Result<T>>) -> Result<T> {
    task.await.map_err(stopped)?
}

pub(super) fn stopped(error: tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        Error::new(ErrorKind::Cancelled, "writing data files was cancelled")
    } else {
        Error::internal("a task that writes data files ended by a panic").with_source(error)
    }
}

fn storage(path: &Path, error: object_store::Error) -> Error {
    Error::storage(format!("data file {path} cannot be written"), error)
}

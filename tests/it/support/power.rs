//! What a power loss may leave.
//!
//! Real syncing cannot be tested without pulling a plug, so two halves meet here. The engine's durable
//! local store promises that an acknowledged object is whole; its unit tests hold it to the order of
//! its steps. This model supplies the other half: a store that remembers every write, and after a
//! "crash" gives the image of a disk on which any of them is lost, empty, cut or zeroed. On images
//! where only unacknowledged writes are harmed the engine must lose nothing, and on images of a lake
//! that was written without syncing it must say which object is broken, never pass over it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};
use parking_lot::Mutex;

/// One change of what is stored, in the order of the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The object now has these bytes.
    Written(Path, Bytes),
    Deleted(Path),
}

/// What became of a change that had not reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// It did reach the disk.
    Kept,
    /// As if it had never been asked for.
    Lost,
    /// The name is there, the bytes are not. `Kept` for a delete, as are the following.
    Empty,
    /// The length is there, the bytes are zero.
    Zeroed,
    /// Only so many of the first bytes are there.
    CutAt(usize),
    /// Only so many of the first lines are there, whole.
    Lines(usize),
}

impl Damage {
    /// The kinds a test tries on each change of interest; bytes and lines in the middle of `bytes`.
    pub(crate) fn all(bytes: &Bytes) -> Vec<Self> {
        let lines = bytes.split(|b| *b == b'\n').count() - 1;
        let mut all = vec![
            Self::Lost,
            Self::Empty,
            Self::Zeroed,
            Self::CutAt(bytes.len() / 2),
        ];
        all.extend((1..lines).map(Self::Lines));
        all
    }

    fn apply(self, bytes: &Bytes) -> Option<Bytes> {
        Some(match self {
            Self::Kept => bytes.clone(),
            Self::Lost => return None,
            Self::Empty => Bytes::new(),
            Self::Zeroed => vec![0; bytes.len()].into(),
            Self::CutAt(end) => bytes.slice(..end.min(bytes.len())),
            Self::Lines(lines) => {
                let whole = bytes.split_inclusive(|b| *b == b'\n').take(lines);
                bytes.slice(..whole.map(<[u8]>::len).sum::<usize>())
            }
        })
    }
}

/// One object that a power loss harmed, and the disk that has it.
pub(crate) struct Harm {
    /// Of the change that wrote it.
    pub(crate) number: usize,
    pub(crate) path: Path,
    pub(crate) damage: Damage,
    pub(crate) disk: Arc<InMemory>,
}

impl Harm {
    /// What an error must name.
    pub(crate) fn name(&self) -> &str {
        self.path.filename().unwrap()
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.path, self.damage)
    }
}

/// A store in memory that remembers how it came to be.
#[derive(Debug, Default)]
pub(crate) struct PowerLossStore {
    disk: Arc<InMemory>,
    changes: Arc<Mutex<Vec<Change>>>,
}

impl PowerLossStore {
    /// All changes so far.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.lock().clone()
    }

    /// The disk as a power loss now may leave it: each change, by its number from 0, damaged as told.
    pub(crate) async fn crash(
        &self,
        damage: impl Fn(usize, &Change) -> Damage,
    ) -> Result<Arc<InMemory>> {
        let image = InMemory::new();
        for (number, change) in self.changes().iter().enumerate() {
            let damage = damage(number, change);
            match change {
                Change::Written(path, bytes) => {
                    if let Some(left) = damage.apply(bytes) {
                        image.put(path, left.into()).await?;
                    }
                }
                Change::Deleted(path) if damage != Damage::Lost => image.delete(path).await?,
                Change::Deleted(_) => {}
            }
        }
        Ok(Arc::new(image))
    }

    /// The disk that the changes from the `reached`th on have not reached; before it, deletes are as told.
    pub(crate) async fn until(&self, reached: usize, deletes: Damage) -> Result<Arc<InMemory>> {
        let damage = |number: usize, change: &Change| match change {
            _ if number >= reached => Damage::Lost,
            Change::Deleted(_) => deletes,
            Change::Written(..) => Damage::Kept,
        };
        self.crash(damage).await
    }

    /// Disks on which one object is harmed: each that has `part` in its path, in every way.
    pub(crate) async fn harms(&self, part: &str) -> Result<Vec<Harm>> {
        let mut harms = Vec::new();
        for (number, change) in self.changes().into_iter().enumerate() {
            let Change::Written(path, bytes) = change else {
                continue;
            };
            if !path.as_ref().contains(part) {
                continue;
            }
            for damage in Damage::all(&bytes) {
                let harm = |other: usize, _: &Change| match other == number {
                    true => damage,
                    false => Damage::Kept,
                };
                harms.push(Harm {
                    number,
                    path: path.clone(),
                    damage,
                    disk: self.crash(harm).await?,
                });
            }
        }
        Ok(harms)
    }

    async fn record(&self, path: &Path) -> Result<()> {
        record(&self.disk, &self.changes, path).await
    }
}

async fn record(disk: &InMemory, changes: &Mutex<Vec<Change>>, path: &Path) -> Result<()> {
    let bytes = disk.get(path).await?.bytes().await?;
    changes.lock().push(Change::Written(path.clone(), bytes));
    Ok(())
}

impl fmt::Display for PowerLossStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PowerLossStore")
    }
}

#[async_trait]
impl ObjectStore for PowerLossStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let put = self.disk.put_opts(location, payload, opts).await?;
        self.record(location).await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload {
            inner: self.disk.put_multipart_opts(location, opts).await?,
            path: location.clone(),
            disk: Arc::clone(&self.disk),
            changes: Arc::clone(&self.changes),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.disk.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.disk.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let changes = Arc::clone(&self.changes);
        self.disk
            .delete_stream(locations)
            .inspect(move |deleted| {
                if let Ok(path) = deleted {
                    changes.lock().push(Change::Deleted(path.clone()));
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.disk.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.disk.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.disk.copy_opts(from, to, options).await?;
        self.record(to).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.disk.rename_opts(from, to, options).await?;
        self.record(to).await?;
        self.changes.lock().push(Change::Deleted(from.clone()));
        Ok(())
    }
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    disk: Arc<InMemory>,
    changes: Arc<Mutex<Vec<Change>>>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.inner.complete().await?;
        record(&self.disk, &self.changes, &self.path).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

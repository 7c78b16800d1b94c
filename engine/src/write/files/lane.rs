//! The rows of one input partition on their way into files, within a bound of memory.
//!
//! Rows wait, apart by partition of the table, until they are worth an encoder's while. Under
//! pressure the largest of what is open gives way first: a file already travelling in parts sends
//! its row group, any other is closed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::memory_pool::MemoryReservation;

use super::Target;
use super::encode::{Encoder, batch_bytes};
use super::partition::{Place, Splitter};
use super::upload::{Ledger, PART_BYTES, Upload, join};
use crate::error::Result;
use crate::table::actions::Add;

/// Rows that are encoded at a time.
pub(super) const STEP_ROWS: usize = 64 << 10;
/// Bytes that are encoded at a time.
const STEP_BYTES: usize = 8 << 20;
/// Files a lane ends at the same time: enough to hide the latency of a store.
const CLOSING_FILES: usize = 8;
/// Memory a lane takes even when the pool has none left: to give way below it would help nobody
/// and leave the table in crumbs.
const FLOOR_BYTES: usize = 2 * PART_BYTES;

/// Rows of one input partition, becoming files.
pub(super) struct Lane {
    /// Goes into the names of the files.
    number: usize,
    target: Arc<Target>,
    ledger: Arc<Ledger>,
    splitter: Splitter,
    reservation: MemoryReservation,
    /// By key of the table's partition, so that files come in the order of their values.
    groups: BTreeMap<Box<[u8]>, Group>,
    closing: VecDeque<Closing>,
    adds: Vec<Add>,
    rows: u64,
}

/// What became of a lane's rows.
pub(super) struct Outcome {
    pub(super) adds: Vec<Add>,
    /// Rows in `adds`.
    pub(super) rows: u64,
    /// Rows too few for files of their own, to be joined with those of other lanes.
    pub(super) tail: Vec<RecordBatch>,
}

/// Open rows of one partition of the table.
struct Group {
    place: Arc<Place>,
    waiting: Waiting,
    file: Option<DataFile>,
}

/// Rows no encoder has seen yet.
#[derive(Default)]
struct Waiting {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

/// A file being written.
struct DataFile {
    /// Path below the table's folder.
    name: String,
    encoder: Encoder,
    upload: Upload,
}

/// A file whose end is being written.
struct Closing {
    bytes: usize,
    task: SpawnedTask<Result<(Add, u64)>>,
}

impl Lane {
    pub(super) fn new(
        number: usize,
        target: &Arc<Target>,
        ledger: &Arc<Ledger>,
        reservation: MemoryReservation,
    ) -> Result<Self> {
        Ok(Self {
            number,
            target: Arc::clone(target),
            ledger: Arc::clone(ledger),
            splitter: target.layout.splitter()?,
            reservation,
            groups: BTreeMap::new(),
            closing: VecDeque::new(),
            adds: Vec::new(),
            rows: 0,
        })
    }

    /// Takes rows of the table's schema.
    pub(super) async fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let target = Arc::clone(&self.target);
        let step = STEP_BYTES.min(target.file_bytes);
        for piece in self.splitter.split(&target.layout, batch)? {
            let mut group = match self.groups.remove(&piece.key) {
                Some(group) => group,
                None => Group::new(target.layout.place(batch, piece.row)?),
            };
            for part in slices(&piece.rows, step) {
                group.waiting.push(part);
                if group.waiting.rows >= STEP_ROWS || group.waiting.bytes >= step {
                    self.encode(&mut group).await?;
                }
            }
            if !group.spent() {
                self.groups.insert(piece.key, group);
            }
        }
        self.settle().await
    }

    /// Ends all files.
    pub(super) async fn finish(mut self) -> Result<Outcome> {
        for group in std::mem::take(&mut self.groups).into_values() {
            self.close(group).await?;
        }
        self.outcome(Vec::new()).await
    }

    /// Ends all files, but of a table without partitions hands back what has no file yet: many
    /// lanes with few rows each shall not leave a small file each.
    pub(super) async fn finish_but_tail(mut self) -> Result<Outcome> {
        let tail = match self.groups.first_entry() {
            Some(entry) if !self.target.layout.partitioned() && entry.get().file.is_none() => {
                entry.remove().waiting.batches
            }
            _ => return self.finish().await,
        };
        self.outcome(tail).await
    }

    async fn outcome(mut self, tail: Vec<RecordBatch>) -> Result<Outcome> {
        while self.end_oldest().await? {}
        Ok(Outcome {
            adds: self.adds,
            rows: self.rows,
            tail,
        })
    }

    /// Encodes what waits, and closes the file when it is large enough.
    async fn encode(&mut self, group: &mut Group) -> Result<()> {
        let waiting = std::mem::take(&mut group.waiting).batches;
        let file = match &mut group.file {
            Some(file) => file,
            none => {
                // The sizes that tasks report lag some steps behind: small files do without.
                let parallel = self.target.parallel && self.target.file_bytes >= 4 * STEP_BYTES;
                none.insert(DataFile::open(
                    &self.target,
                    &self.ledger,
                    self.number,
                    &group.place,
                    &waiting,
                    parallel,
                )?)
            }
        };
        file.encoder.write(&waiting, &mut file.upload).await?;
        let (bytes, rows) = (file.encoder.bytes(), file.encoder.rows());
        if self.target.is_full(&group.place, bytes, rows) {
            let full = Group {
                place: Arc::clone(&group.place),
                waiting: Waiting::default(),
                file: group.file.take(),
            };
            self.close(full).await?;
        }
        Ok(())
    }

    /// Ends the file of a group in a task, while the lane goes on.
    async fn close(&mut self, group: Group) -> Result<()> {
        while self.closing.len() >= CLOSING_FILES {
            self.end_oldest().await?;
        }
        let bytes = group.memory();
        let (target, ledger) = (Arc::clone(&self.target), Arc::clone(&self.ledger));
        let number = self.number;
        let task = SpawnedTask::spawn(async move {
            let waiting = group.waiting.batches;
            let mut file = match group.file {
                Some(file) => file,
                None => DataFile::open(&target, &ledger, number, &group.place, &waiting, false)?,
            };
            file.encoder.write(&waiting, &mut file.upload).await?;
            drop(waiting);
            file.finish(&target, &group.place).await
        });
        self.closing.push_back(Closing { bytes, task });
        Ok(())
    }

    /// Waits for the file that was closed first. False if there is none.
    async fn end_oldest(&mut self) -> Result<bool> {
        let Some(oldest) = self.closing.pop_front() else {
            return Ok(false);
        };
        let (add, rows) = join(oldest.task).await?;
        self.adds.push(add);
        self.rows += rows;
        Ok(true)
    }

    /// Brings the memory in use below what the lane and the pool allow.
    async fn settle(&mut self) -> Result<()> {
        loop {
            let open: usize = self.groups.values().map(Group::memory).sum();
            let closing: usize = self.closing.iter().map(|c| c.bytes).sum();
            let bytes = open + closing;
            if bytes <= FLOOR_BYTES {
                self.reservation.resize(bytes);
                return Ok(());
            }
            if bytes <= self.target.lane_bytes && self.reservation.try_resize(bytes).is_ok() {
                return Ok(());
            }
            // What is on its way out anyway is waited for first.
            if !self.end_oldest().await? {
                self.relieve().await?;
            }
        }
    }

    /// Frees the memory of the largest group.
    async fn relieve(&mut self) -> Result<()> {
        let largest = self.groups.iter().max_by_key(|(_, group)| group.memory());
        let Some(key) = largest.map(|(key, _)| key.clone()) else {
            return Ok(());
        };
        let Some(mut group) = self.groups.remove(&key) else {
            return Ok(());
        };
        match &mut group.file {
            Some(file) if file.upload.streaming() && !file.idle() => {
                let waiting = std::mem::take(&mut group.waiting).batches;
                file.encoder.write(&waiting, &mut file.upload).await?;
                file.encoder.flush_row_group(&mut file.upload).await?;
                file.upload.drain().await?;
                self.groups.insert(key, group);
                Ok(())
            }
            _ => self.close(group).await,
        }
    }
}

impl Group {
    fn new(place: Place) -> Self {
        Self {
            place: Arc::new(place),
            waiting: Waiting::default(),
            file: None,
        }
    }

    fn memory(&self) -> usize {
        self.waiting.bytes + self.file.as_ref().map_or(0, DataFile::memory)
    }

    /// Whether nothing is open.
    fn spent(&self) -> bool {
        self.waiting.batches.is_empty() && self.file.is_none()
    }
}

impl Waiting {
    fn push(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += batch_bytes(&batch);
        self.batches.push(batch);
    }
}

impl DataFile {
    fn open(
        target: &Target,
        ledger: &Arc<Ledger>,
        lane: usize,
        place: &Place,
        sample: &[RecordBatch],
        parallel: bool,
    ) -> Result<Self> {
        let name = format!("{}part-{lane:05}-{}.parquet", place.folders, (target.ids)());
        let upload = Upload::new(Arc::clone(ledger), target.object_path(&name)?);
        Ok(Self {
            encoder: Encoder::new(&target.format, sample, parallel)?,
            name,
            upload,
        })
    }

    fn memory(&self) -> usize {
        self.encoder.memory() + self.upload.memory()
    }

    /// Whether only the rest of a part is held in memory.
    fn idle(&self) -> bool {
        self.encoder.memory() == 0 && self.upload.memory() < PART_BYTES
    }

    async fn finish(mut self, target: &Target, place: &Place) -> Result<(Add, u64)> {
        let encoded = self.encoder.finish(&mut self.upload).await?;
        let bytes = self.upload.bytes();
        self.upload.finish().await?;
        let add = target.add(&self.name, place, bytes, encoded.stats);
        Ok((add, encoded.rows))
    }
}

/// `batch` in slices of about `step` bytes: one batch of long texts must not overshoot a file.
fn slices(batch: &RecordBatch, step: usize) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    let parts = (batch_bytes(batch) / step.max(1)).clamp(1, rows.max(1));
    let length = rows.div_ceil(parts).max(1);
    (0..rows)
        .step_by(length)
        .map(move |start| batch.slice(start, length.min(rows - start)))
}

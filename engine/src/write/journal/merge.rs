//! Events beside what is stored and kept of their keys, in chunks of whole keys, each folded as it comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::row::{OwnedRow, Row, Rows};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{TryStreamExt, stream};
use parking_lot::Mutex;
use roaring::RoaringTreemap;

use super::super::quality::unexpected;
use super::refusal::Tally;
use super::snapshots::Snapshots;
use super::spool::Spool;
use crate::error::{Error, Result};
use crate::journal::event::{event_schema, kept_schema};
use crate::journal::fold::{Chunk, Counts, Folded, Terms, fold};
use crate::journal::key::KeyOrder;
use crate::journal::shape::Shape;

/// Rows of each input that are folded at a time, and more where a single key has more.
const CHUNK_ROWS: usize = 64 << 10;

/// Rows of one input, in the order of their keys.
struct Cursor {
    rows: SendableRecordBatchStream,
    held: VecDeque<Part>,
    count: usize,
    ended: bool,
}

struct Part {
    batch: RecordBatch,
    keys: Rows,
    /// Rows before are gone already.
    begin: usize,
}

impl Part {
    /// The first row whose key is not below the limit.
    fn below(&self, limit: Option<Row<'_>>) -> usize {
        let (mut low, mut high) = (self.begin, self.batch.num_rows());
        let Some(limit) = limit else {
            return high;
        };
        while low < high {
            let middle = low + (high - low) / 2;
            match self.keys.row(middle) < limit {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

impl Cursor {
    fn new(rows: SendableRecordBatchStream) -> Self {
        Self {
            rows,
            held: VecDeque::new(),
            count: 0,
            ended: false,
        }
    }

    /// Has at least so many rows at hand, unless there are no more.
    async fn fill(&mut self, order: &KeyOrder, least: usize) -> Result<()> {
        while !self.ended && self.count < least {
            match self.rows.try_next().await? {
                None => self.ended = true,
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => {
                    self.count += batch.num_rows();
                    let keys = order.rows(&batch)?;
                    self.held.push_back(Part {
                        batch,
                        keys,
                        begin: 0,
                    });
                }
            }
        }
        Ok(())
    }

    /// The last key at hand, of which more rows may come.
    fn open_key(&self) -> Option<Row<'_>> {
        if self.ended {
            return None;
        }
        let part = self.held.back()?;
        let last = part.batch.num_rows().checked_sub(1)?;
        Some(part.keys.row(last))
    }

    /// Takes all rows at hand whose key is below the limit.
    fn take(&mut self, limit: Option<&OwnedRow>) -> Result<RecordBatch> {
        let mut taken = Vec::new();
        while let Some(mut part) = self.held.pop_front() {
            let end = part.below(limit.map(OwnedRow::row));
            if end > part.begin {
                taken.push(part.batch.slice(part.begin, end - part.begin));
                self.count -= end - part.begin;
            }
            if end < part.batch.num_rows() {
                part.begin = end;
                self.held.push_front(part);
                break;
            }
        }
        match taken.as_slice() {
            [one] => Ok(one.clone()),
            many => concat_batches(&self.rows.schema(), many).map_err(unexpected),
        }
    }
}

/// What came out besides the rows.
pub(super) struct Gathered {
    /// Places of stored intervals that are no more, by the number of their file.
    pub removed: BTreeMap<u32, RoaringTreemap>,
    pub counts: Counts,
    /// Events to keep, and anchors.
    pub keep: Spool,
    /// Events for which the table has a policy, and those that differ from what is stored.
    pub late: Spool,
    pub clash: Spool,
    pub late_told: Tally,
    pub clash_told: Tally,
    pub snapshots: Option<Snapshots>,
}

/// The rows that come in order.
pub(super) struct Inputs {
    pub events: SendableRecordBatchStream,
    pub stored: SendableRecordBatchStream,
    pub kept: SendableRecordBatchStream,
}

/// The merge of one try.
pub(super) struct Merge {
    terms: Terms,
    order: KeyOrder,
    events: Cursor,
    stored: Cursor,
    kept: Cursor,
    gathered: Gathered,
    ready: VecDeque<RecordBatch>,
}

/// Where [`Gathered`] is once the rows have ended.
pub(super) type Outcome = Arc<Mutex<Option<Gathered>>>;

impl Merge {
    pub(super) fn new(
        terms: Terms,
        inputs: Inputs,
        snapshots: Option<Snapshots>,
        context: &TaskContext,
    ) -> Result<Self> {
        let shape = &terms.shape;
        let events = event_schema(shape);
        Ok(Self {
            order: KeyOrder::new(shape)?,
            events: Cursor::new(inputs.events),
            stored: Cursor::new(inputs.stored),
            kept: Cursor::new(inputs.kept),
            gathered: Gathered {
                removed: BTreeMap::new(),
                counts: Counts::default(),
                keep: Spool::new(kept_schema(shape), context),
                late: Spool::new(Arc::clone(&events), context),
                clash: Spool::new(events, context),
                late_told: Tally::default(),
                clash_told: Tally::default(),
                snapshots,
            },
            ready: VecDeque::new(),
            terms,
        })
    }

    /// The rows of the table that come, in the order of their keys. What else there is to know is in the outcome
    /// after the last.
    pub(super) fn run(self) -> (SendableRecordBatchStream, Outcome) {
        let outcome = Outcome::default();
        let slot = Arc::clone(&outcome);
        let schema = Arc::clone(&self.terms.shape.stored);
        let rows = stream::try_unfold((self, slot), |(mut merge, slot)| async move {
            let next = merge.next().await.map_err(DataFusionError::from)?;
            Ok::<_, DataFusionError>(match next {
                Some(rows) => Some((rows, (merge, slot))),
                None => {
                    *slot.lock() = Some(merge.gathered);
                    None
                }
            })
        });
        let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
        (rows, outcome)
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = self.ready.pop_front() {
                return Ok(Some(rows));
            }
            let Some(chunk) = self.chunk().await? else {
                return Ok(None);
            };
            if chunk.new.num_rows() > 0 {
                let folded = fold(&self.terms, &chunk)?;
                self.gather(folded)?;
            }
        }
    }

    /// The next keys: all rows of each.
    async fn chunk(&mut self) -> Result<Option<Chunk>> {
        let mut want = CHUNK_ROWS;
        loop {
            let mut left = 0;
            for input in [&mut self.events, &mut self.stored, &mut self.kept] {
                input.fill(&self.order, want).await?;
                left += input.count;
            }
            if left == 0 {
                return Ok(None);
            }
            let open = [&self.events, &self.stored, &self.kept];
            let limit = open.into_iter().filter_map(Cursor::open_key).min();
            let limit = limit.map(|key| key.owned());
            let mut chunk = Chunk {
                new: self.events.take(limit.as_ref())?,
                stored: self.stored.take(limit.as_ref())?,
                kept: self.kept.take(limit.as_ref())?,
            };
            let rows = chunk.new.num_rows() + chunk.stored.num_rows() + chunk.kept.num_rows();
            if rows == 0 {
                // One key fills all that is at hand.
                want *= 2;
                continue;
            }
            if let Some(snapshots) = &mut self.gathered.snapshots {
                let shape = &self.terms.shape;
                chunk.new = snapshots.complete(shape, &self.order, &chunk.new, &chunk.stored)?;
            }
            return Ok(Some(chunk));
        }
    }

    fn gather(&mut self, folded: Folded) -> Result<()> {
        let gathered = &mut self.gathered;
        for (file, row) in folded.remove {
            let row = u64::try_from(row)
                .map_err(|_| Error::internal("a row lies before its file begins"))?;
            if !gathered.removed.entry(file).or_default().insert(row) {
                return Err(Error::internal("an interval of a journal was taken twice"));
            }
        }
        let (all, more) = (&mut gathered.counts, folded.counts);
        all.unchanged += more.unchanged;
        all.opened += more.opened;
        all.closed += more.closed;
        all.updated += more.updated;
        all.late += more.late;
        for batch in folded.keep {
            gathered.keep.push(batch)?;
        }
        let shape = &self.terms.shape;
        for batch in folded.late {
            tell(shape, &self.order, &batch, &mut gathered.late_told)?;
            gathered.late.push(batch)?;
        }
        for batch in folded.clash {
            tell(shape, &self.order, &batch, &mut gathered.clash_told)?;
            gathered.clash.push(batch)?;
        }
        self.ready
            .extend(folded.rows.into_iter().filter(|rows| rows.num_rows() > 0));
        Ok(())
    }
}

/// Adds the rows of a batch to what is told of their kind.
fn tell(shape: &Shape, order: &KeyOrder, events: &RecordBatch, tally: &mut Tally) -> Result<()> {
    if events.num_rows() == 0 {
        return Ok(());
    }
    let keys = order.rows(events)?;
    tally.note(shape, events, 0)?;
    tally.rows += events.num_rows() as u64;
    let others = (1..events.num_rows()).filter(|row| keys.row(*row) != keys.row(row - 1));
    tally.keys += 1 + others.count() as u64;
    Ok(())
}

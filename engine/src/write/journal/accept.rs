//! The events of one write, each once: sorted, told apart from their twins, kept to be read for every try.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::Int64Type;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use futures::TryStreamExt;
use tokio::sync::mpsc::Sender;

use super::super::quality::unexpected;
use super::refusal::{Tally, quarantined};
use super::riders::deletes;
use super::spool::Spool;
use super::stage::ordering;
use crate::error::{Error, Result};
use crate::journal::event::{SEQUENCE, event_schema};
use crate::journal::fold::settle_equals;
use crate::journal::key::{self, KeyOrder, KeySet};
use crate::journal::shape::Shape;

/// The events of one write.
pub(super) struct Accepted {
    shape: Arc<Shape>,
    spool: Spool,
    /// Rows that came, the twins counted.
    pub arrived: u64,
    /// Of these, those that are events: the others differ from another one at their instant.
    pub rows: u64,
    /// Events that end their key.
    pub deletes: u64,
    /// The least and the greatest instant.
    pub bounds: Option<(i64, i64)>,
    /// All instants, where they are asked for.
    pub instants: Option<BTreeSet<i64>>,
    /// The first and the last key, as two rows.
    pub range: Option<RecordBatch>,
    /// None where nobody looks for them, or they are too many to be looked for one by one.
    pub keys: Option<Arc<KeySet>>,
    /// Of these keys, as long as somebody may ask for them.
    memory: Option<MemoryReservation>,
    /// Rows that differ at one key and instant.
    pub differing: Tally,
    /// Of these, the ones that went to quarantine.
    pub aside: u64,
}

/// What is asked for of the events besides themselves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    /// All of their instants.
    pub instants: bool,
    /// Their keys, of so many events at most.
    pub keys: u64,
}

/// Runs `plan`, whose rows are events, and takes them all. Those that differ at one instant go `aside`, where the
/// table has them there.
pub(super) async fn accept(
    plan: &Arc<dyn ExecutionPlan>,
    shape: &Arc<Shape>,
    wants: Wants,
    aside: Option<Arc<Sender<RecordBatch>>>,
    context: &Arc<TaskContext>,
) -> Result<Accepted> {
    let mut plan = Arc::clone(plan);
    if plan.output_partitioning().partition_count() != 1 {
        let order = ordering(shape, &plan.schema())?;
        plan = Arc::new(SortPreservingMergeExec::new(order, plan));
    }
    let mut accepting = Accepting {
        order: KeyOrder::new(shape)?,
        last: None,
        keys: KeySet::default(),
        memory: MemoryConsumer::new("JournalKeys").register(context.memory_pool()),
        most_keys: wants.keys,
        hashes: Vec::new(),
        aside,
        accepted: Accepted {
            shape: Arc::clone(shape),
            spool: Spool::new(event_schema(shape), context),
            arrived: 0,
            rows: 0,
            deletes: 0,
            bounds: None,
            instants: wants.instants.then(BTreeSet::new),
            range: None,
            keys: None,
            memory: None,
            differing: Tally::default(),
            aside: 0,
        },
    };
    let mut rows = execute_stream(plan, Arc::clone(context))?;
    // More rows of its last key and instant may come.
    let mut open: Option<RecordBatch> = None;
    while let Some(batch) = rows.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        open = Some(match open.take() {
            None => batch,
            Some(before) if accepting.goes_on(&before, &batch)? => {
                let both = [&before, &batch];
                let both = concat_batches(&batch.schema(), both).map_err(unexpected)?;
                let cut = accepting.last_group(&both)?;
                if cut > 0 {
                    accepting.take(&both.slice(0, cut)).await?;
                }
                both.slice(cut, both.num_rows() - cut)
            }
            Some(before) => {
                accepting.take(&before).await?;
                batch
            }
        });
    }
    if let Some(rest) = open {
        accepting.take(&rest).await?;
    }
    accepting.finish()
}

struct Accepting {
    order: KeyOrder,
    /// The last event that was taken.
    last: Option<RecordBatch>,
    keys: KeySet,
    /// Of the keys.
    memory: MemoryReservation,
    /// Events of which keys are held.
    most_keys: u64,
    hashes: Vec<u64>,
    aside: Option<Arc<Sender<RecordBatch>>>,
    accepted: Accepted,
}

impl Accepting {
    /// Whether a batch begins with the key and the instant with which the one before ended.
    fn goes_on(&self, before: &RecordBatch, batch: &RecordBatch) -> Result<bool> {
        let Some(last) = before.num_rows().checked_sub(1) else {
            return Ok(false);
        };
        let (last, first) = (before.slice(last, 1), batch.slice(0, 1));
        if sequences(&last)?.values() != sequences(&first)?.values() {
            return Ok(false);
        }
        let (last, first) = (self.order.rows(&last)?, self.order.rows(&first)?);
        Ok(last.row(0) == first.row(0))
    }

    /// Where the rows of the last key and instant begin.
    fn last_group(&self, batch: &RecordBatch) -> Result<usize> {
        let rows = batch.num_rows();
        // Such groups are small as a rule, and keys are costly to compare.
        for tail in [16, 1024, rows] {
            let tail = tail.min(rows);
            let begin = rows - tail;
            let part = batch.slice(begin, tail);
            let keys = self.order.rows(&part)?;
            let instants = sequences(&part)?;
            let Some(last) = tail.checked_sub(1) else {
                return Ok(0);
            };
            let same = |row: usize| {
                keys.row(row) == keys.row(last) && instants.value(row) == instants.value(last)
            };
            let group = (0..tail).rev().take_while(|row| same(*row)).count();
            if group < tail || begin == 0 {
                return Ok(rows - group);
            }
        }
        Ok(0)
    }

    /// Takes events, among them all of each key and instant that they have.
    async fn take(&mut self, events: &RecordBatch) -> Result<()> {
        let shape = Arc::clone(&self.accepted.shape);
        let rows = events.num_rows() as u64;
        self.accepted.arrived += rows;
        let equals = settle_equals(&shape, events)?;
        let mut on: Vec<bool> = (0..events.num_rows())
            .map(|row| equals.on.is_valid(row) && equals.on.value(row))
            .collect();
        let mut differ = vec![false; events.num_rows()];
        for group in &equals.differing {
            self.accepted.differing.keys += 1;
            self.accepted.differing.rows += group.len() as u64;
            self.accepted.differing.note(&shape, events, group.start)?;
            for row in group.clone() {
                if let (Some(on), Some(differ)) = (on.get_mut(row), differ.get_mut(row)) {
                    (*on, *differ) = (false, true);
                }
            }
        }
        let out: u64 = equals
            .differing
            .iter()
            .map(|group| group.len() as u64)
            .sum();
        self.accepted.rows += rows - out;
        if out > 0
            && let Some(aside) = &self.aside
        {
            let which = BooleanArray::from(differ);
            let which = filter_record_batch(events, &which).map_err(unexpected)?;
            let message = "another row has the same key and sequence, and other values";
            let which = quarantined(&shape, &which, message)?;
            self.accepted.aside += which.num_rows() as u64;
            aside.send(which).await.map_err(|_| {
                Error::internal("rows left the path of a write, and nobody took them")
            })?;
        }
        let events = match on.iter().all(|on| *on) {
            true => events.clone(),
            false => filter_record_batch(events, &BooleanArray::from(on)).map_err(unexpected)?,
        };
        self.note(&shape, &events)?;
        self.accepted.spool.push(events)
    }

    /// What the step must know of all events before it begins.
    fn note(&mut self, shape: &Shape, events: &RecordBatch) -> Result<()> {
        let rows = events.num_rows();
        let Some(last) = rows.checked_sub(1) else {
            return Ok(());
        };
        self.accepted.deletes += deletes(events).map_or(0, BooleanArray::true_count) as u64;
        let instants = sequences(events)?;
        for at in instants.values() {
            self.accepted.bounds = Some(match self.accepted.bounds {
                Some((least, greatest)) => (least.min(*at), greatest.max(*at)),
                None => (*at, *at),
            });
            if let Some(all) = &mut self.accepted.instants {
                all.insert(*at);
            }
        }
        if self.accepted.range.is_none() {
            self.accepted.range = Some(one(events, 0)?);
        }
        self.last = Some(one(events, last)?);
        // Events stand for keys: more events than that may still be of few keys, which is not worth counting.
        if self.accepted.rows <= self.most_keys {
            key::hashes(shape, events, &mut self.hashes)?;
            for hash in &self.hashes {
                self.keys.add(*hash);
            }
            self.memory.try_resize(self.keys.bytes())?;
        } else if self.keys.len() > 0 {
            self.keys = KeySet::default();
            self.memory.free();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Accepted> {
        if let (Some(first), Some(last)) = (&self.accepted.range, &self.last) {
            let both = concat_batches(&first.schema(), [first, last]).map_err(unexpected)?;
            self.accepted.range = Some(both);
        }
        if self.accepted.rows <= self.most_keys {
            self.accepted.keys = Some(Arc::new(self.keys));
            self.accepted.memory = Some(self.memory);
        }
        Ok(self.accepted)
    }
}

impl Accepted {
    /// The events, in the order of their keys. Where rows say no instant themselves, theirs is this one.
    pub(super) fn read(&self, instant: i64) -> Result<SendableRecordBatchStream> {
        let events = self.spool.read()?;
        if self.shape.sequence.is_some() {
            return Ok(events);
        }
        let schema = events.schema();
        let at = schema.index_of(SEQUENCE).map_err(unexpected)?;
        let stamped = events.and_then(move |batch| {
            let mut columns = batch.columns().to_vec();
            if let Some(column) = columns.get_mut(at) {
                *column = Arc::new(Int64Array::from_value(instant, batch.num_rows()));
            }
            let stamped = RecordBatch::try_new(batch.schema(), columns);
            let stamped = stamped.map_err(DataFusionError::from);
            async move { stamped }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stamped)))
    }
}

/// The instants of events.
pub(super) fn sequences(events: &RecordBatch) -> Result<&Int64Array> {
    events
        .column_by_name(SEQUENCE)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| Error::internal("events of a journal have no instants"))
}

/// One row, by itself: a slice would hold on to all the others.
fn one(batch: &RecordBatch, row: usize) -> Result<RecordBatch> {
    let which = arrow::array::UInt32Array::from(vec![row as u32]);
    take_record_batch(batch, &which).map_err(unexpected)
}

//! Few facts, held in order; the journal passes by in any order, and each of its rows finds its facts by search. So a
//! large journal is not sorted for a handful of facts, and a key with many intervals costs a search for each of them.
//!
//! Rows of a journal's files are in the order of keys and instants. A search begins where the one before it ended, so
//! for these it costs as much as the distance between both.
//!
//! The journal is run once the facts are there, and its scan has been told what they look for: see `wanted`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::{BatchCoalescer, concat_batches};
use arrow::datatypes::SchemaRef;
use arrow::row::Row;
use datafusion::common::instant::Instant;
use datafusion::common::{DataFusionError, JoinType, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, RecordOutput};
use futures::StreamExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use super::rows::{Encoder, Facts, Spans, Terms, assembled, passing, size};

/// The facts, once they are there, for every part of the journal.
pub(super) type Holding = Shared<BoxFuture<'static, Result<Arc<Held>, Arc<DataFusionError>>>>;

/// All facts, in the order of their keys and instants.
pub(super) struct Held {
    pub facts: Facts,
    /// Whether any of them can find an interval.
    seeking: bool,
    /// Of LEFT joins: which facts have found their interval.
    found: Mutex<Vec<bool>>,
    /// Parts of the journal that have not passed by yet.
    parts: AtomicUsize,
    _memory: MemoryReservation,
}

impl Held {
    /// Takes the facts of one sorted stream.
    pub(super) async fn collect(
        mut rows: SendableRecordBatchStream,
        encoder: Arc<Encoder>,
        parts: usize,
        memory: MemoryReservation,
    ) -> Result<Arc<Self>> {
        let mut batches = Vec::new();
        while let Some(batch) = rows.next().await.transpose()? {
            memory.try_grow(size(&batch))?;
            batches.push(batch);
        }
        // For a moment they are there twice.
        memory.try_grow(memory.size())?;
        let batch = concat_batches(&rows.schema(), &batches)?;
        drop(batches);
        let facts = encoder.facts(batch)?;
        memory.try_resize(facts.size() + facts.len())?;
        Ok(Arc::new(Self {
            seeking: (0..facts.len()).any(|fact| facts.sought(fact).is_some()),
            found: Mutex::new(vec![false; facts.len()]),
            parts: AtomicUsize::new(parts),
            facts,
            _memory: memory,
        }))
    }

    /// The first fact of `key` at `from` or later, or what comes after them, sought from `hint` on to either side.
    fn seek(&self, hint: usize, key: Row<'_>, from: i64) -> usize {
        let facts = &self.facts;
        // NULL is before every instant, as it is sorted.
        let before = |fact: usize| {
            let instants = facts.at(fact).cmp(&Some(from));
            facts.key(fact).cmp(&key).then(instants).is_lt()
        };
        let mut step = 1;
        let (mut low, mut high) = if hint < facts.len() && before(hint) {
            while hint + step < facts.len() && before(hint + step) {
                step *= 2;
            }
            (hint + step / 2 + 1, (hint + step).min(facts.len()))
        } else {
            while step <= hint && !before(hint - step) {
                step *= 2;
            }
            ((hint + 1).saturating_sub(step), hint - step / 2)
        };
        while low < high {
            let middle = low + (high - low) / 2;
            match before(middle) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

/// One part of the journal that passes by.
pub(super) struct Passing {
    pub terms: Arc<Terms>,
    pub encoder: Arc<Encoder>,
    pub holding: Holding,
    pub held: Option<Arc<Held>>,
    /// The rows of this part, which is run when the first one is asked for.
    pub spans: SendableRecordBatchStream,
    /// Without rows, and with the columns of the journal.
    pub none: RecordBatch,
    pub schema: SchemaRef,
    pub most: usize,
    pub at: At,
    /// Where the last search ended.
    pub hint: usize,
    pub out: BatchCoalescer,
    pub passed: Count,
    pub memory: MemoryReservation,
    pub metrics: BaselineMetrics,
}

/// How far a part has come.
pub(super) enum At {
    /// The next batch is to be read.
    Between,
    /// At a row of a batch, and where one was begun, at a fact that it may hold.
    Row(Box<Spans>, usize, Option<usize>),
    /// All have passed: the facts from here on that have found nothing are to be told.
    Rest(usize),
    End,
}

impl Passing {
    /// The next rows of the join.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.out.next_completed_batch() {
                return Ok(Some(batch.record_output(&self.metrics)));
            }
            let held = match &self.held {
                Some(held) => Arc::clone(held),
                None => {
                    let held = self.holding.clone().await;
                    let held = held.map_err(DataFusionError::Shared)?;
                    self.held = Some(Arc::clone(&held));
                    held
                }
            };
            let begun = Instant::now();
            let mut waited = Duration::ZERO;
            self.at = match std::mem::replace(&mut self.at, At::End) {
                At::Between => {
                    let batch = match held.seeking {
                        true => self.spans.next().await.transpose()?,
                        // Nothing could be found, so nothing is read.
                        false => None,
                    };
                    waited = begun.elapsed();
                    match batch {
                        Some(batch) => self.begin(batch)?,
                        None => self.pass_by(&held)?,
                    }
                }
                At::Row(spans, row, fact) => self.probe(&held, spans, row, fact)?,
                At::Rest(first) => self.rest(&held, first)?,
                At::End => return Ok(None),
            };
            let worked = begun.elapsed().saturating_sub(waited);
            self.metrics.elapsed_compute().add_duration(worked);
        }
    }

    fn begin(&mut self, batch: RecordBatch) -> Result<At> {
        let spans = self.encoder.spans(batch)?;
        self.memory.try_resize(spans.size())?;
        self.passed.add(spans.len());
        Ok(At::Row(Box::new(spans), 0, None))
    }

    /// This part is through. Only the last one knows which facts have found nothing.
    fn pass_by(&mut self, held: &Held) -> Result<At> {
        self.memory.free();
        let last = held.parts.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && self.terms.join_type == JoinType::Left {
            return Ok(At::Rest(0));
        }
        self.out.finish_buffered_batch()?;
        Ok(At::End)
    }

    /// Joins facts to rows of the journal from `row` on, until there are enough to be put together.
    fn probe(
        &mut self,
        held: &Held,
        spans: Box<Spans>,
        mut row: usize,
        mut fact: Option<usize>,
    ) -> Result<At> {
        let facts = &held.facts;
        let mut pairs = Vec::new();
        while row < spans.len() && pairs.len() < self.most {
            // A journal that others broke may lack a begin: it holds nothing.
            let Some(from) = spans.intervals.begin(row) else {
                row += 1;
                continue;
            };
            let key = spans.key(row);
            let first = match fact.take() {
                Some(fact) => fact,
                None => held.seek(self.hint, key, from),
            };
            let mut next = first;
            while next < facts.len() && pairs.len() < self.most && facts.key(next) == key {
                // Keys that are NULL look alike, and are not equal.
                let Some(at) = facts.sought(next) else { break };
                if !spans.intervals.hold(row, at) {
                    break;
                }
                pairs.push((next as u64, row as u64));
                next += 1;
            }
            if pairs.len() >= self.most {
                fact = Some(next);
                break;
            }
            self.hint = next;
            row += 1;
        }
        self.put_together(held, &spans, &pairs)?;
        Ok(match row < spans.len() {
            true => At::Row(spans, row, fact),
            false => At::Between,
        })
    }

    fn put_together(&mut self, held: &Held, spans: &Spans, pairs: &[(u64, u64)]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let both = [&held.facts.batch, &spans.batch];
        let all = pairs.iter().map(|(fact, span)| (*fact, Some(*span)));
        let kept: Vec<(u64, Option<u64>)> = match &self.terms.filter {
            None => all.collect(),
            Some(filter) => {
                let passed = passing(filter, both, pairs)?;
                let kept = all.zip(passed.values()).filter(|(_, passed)| *passed);
                kept.map(|(pair, _)| pair).collect()
            }
        };
        if kept.is_empty() {
            return Ok(());
        }
        if self.terms.join_type == JoinType::Left {
            let mut found = held.found.lock();
            for (fact, _) in &kept {
                if let Some(found) = found.get_mut(*fact as usize) {
                    *found = true;
                }
            }
        }
        self.out.push_batch(assembled(&self.schema, both, &kept)?)?;
        Ok(())
    }

    /// Facts from `first` on that have found nothing.
    fn rest(&mut self, held: &Held, first: usize) -> Result<At> {
        let rest: Vec<(u64, Option<u64>)> = {
            let found = held.found.lock();
            let rest = found.iter().enumerate().skip(first);
            let rest = rest.filter(|(_, found)| !**found);
            rest.take(self.most)
                .map(|(fact, _)| (fact as u64, None))
                .collect()
        };
        let Some((last, _)) = rest.last() else {
            self.out.finish_buffered_batch()?;
            return Ok(At::End);
        };
        let next = *last as usize + 1;
        let both = [&held.facts.batch, &self.none];
        self.out.push_batch(assembled(&self.schema, both, &rest)?)?;
        Ok(At::Rest(next))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
    use datafusion::physical_expr::PhysicalExprRef;
    use datafusion::physical_expr::expressions::Column;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::stream;

    use super::*;

    fn terms() -> Arc<Terms> {
        let key: PhysicalExprRef = Arc::new(Column::new("k", 0));
        Arc::new(Terms {
            join_type: JoinType::Inner,
            on: vec![(Arc::clone(&key), key)],
            at: Arc::new(Column::new("at", 1)),
            from: 1,
            to: 1,
            far_future: false,
            filter: None,
        })
    }

    fn batch(rows: &[(i64, Option<i64>)]) -> RecordBatch {
        let (keys, at): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
        let keys: ArrayRef = Arc::new(Int64Array::from(keys));
        let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(at));
        RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("at", at, true)]).unwrap()
    }

    #[tokio::test]
    async fn a_search_finds_the_same_place_from_wherever_it_begins() {
        let mut rows = Vec::new();
        for key in [1, 2, 2, 5, 9] {
            rows.extend([None, Some(10), Some(10), Some(11), Some(30)].map(|at| (key, at)));
        }
        rows.sort_unstable();
        let facts = batch(&rows);
        let schema = facts.schema();
        let encoder = Arc::new(Encoder::new(&terms(), &schema).unwrap());
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let memory = MemoryConsumer::new("facts").register(&pool);
        let all = RecordBatchStreamAdapter::new(schema, stream::iter([Ok(facts)]));
        let held = Held::collect(Box::pin(all), Arc::clone(&encoder), 1, memory).await;
        let held = held.unwrap();
        for key in 0..11 {
            for from in [i64::MIN, 9, 10, 11, 12, 30, 31] {
                let expected = rows.partition_point(|row| *row < (key, Some(from)));
                let spans = encoder.spans(batch(&[(key, Some(from))])).unwrap();
                for hint in 0..=rows.len() {
                    assert_eq!(held.seek(hint, spans.key(0), from), expected);
                }
            }
        }
    }
}

//! Both sides in the order of keys and instants, passed once. What is held is one batch of facts, the batch of the
//! journal that comes next, and the one with the last row that began: however many facts or intervals a key has.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::row::Row;
use datafusion::common::instant::Instant;
use datafusion::common::{JoinType, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, RecordOutput};
use futures::StreamExt;

use super::rows::{Encoder, Facts, Spans, Terms, assembled, passing};

/// A row of the journal.
type Place = (Arc<Spans>, usize);

pub(super) struct Merge {
    pub terms: Arc<Terms>,
    pub encoder: Arc<Encoder>,
    pub facts: SendableRecordBatchStream,
    pub spans: Spanning,
    pub schema: SchemaRef,
    /// Rows that wait to be put together: of the facts at hand and the last batch of the journal.
    pub pairs: Vec<(u64, Option<u64>)>,
    pub out: BatchCoalescer,
    pub memory: MemoryReservation,
    pub metrics: BaselineMetrics,
    pub ended: bool,
}

/// The journal, as far as it was passed.
pub(super) struct Spanning {
    pub rows: SendableRecordBatchStream,
    /// Without rows, and with the columns of the journal.
    pub none: RecordBatch,
    /// The first row that was not passed, if the batch that has it was read.
    pub next: Option<Place>,
    /// The last one that was passed.
    pub last: Option<Place>,
    pub passed: Count,
    /// Whether all was read.
    pub ended: bool,
    /// How long both sides were waited for.
    pub waited: Duration,
}

impl Merge {
    /// The next rows of the join.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.out.next_completed_batch() {
                return Ok(Some(batch.record_output(&self.metrics)));
            }
            if self.ended {
                return Ok(None);
            }
            let begun = Instant::now();
            self.spans.waited = Duration::ZERO;
            self.advance().await?;
            let worked = begun.elapsed().saturating_sub(self.spans.waited);
            self.metrics.elapsed_compute().add_duration(worked);
        }
    }

    /// Joins the next batch of facts.
    async fn advance(&mut self) -> Result<()> {
        let begun = Instant::now();
        let batch = self.facts.next().await.transpose()?;
        self.spans.waited += begun.elapsed();
        let Some(batch) = batch else {
            self.out.finish_buffered_batch()?;
            self.memory.free();
            self.ended = true;
            return Ok(());
        };
        let facts = self.encoder.facts(batch)?;
        self.account(&facts)?;
        for fact in 0..facts.len() {
            let mut found = None;
            if let Some(at) = facts.sought(fact) {
                self.pass(&facts, facts.key(fact), at).await?;
                found = self.spans.holding(facts.key(fact), at);
            }
            if found.is_some() || self.terms.join_type == JoinType::Left {
                self.pairs.push((fact as u64, found));
            }
        }
        self.put_together(&facts)
    }

    /// Passes all intervals of smaller keys, and those of `key` that begin at `at` or before it.
    async fn pass(&mut self, facts: &Facts, key: Row<'_>, at: i64) -> Result<()> {
        loop {
            let Some((spans, first)) = self.spans.next.take() else {
                if self.spans.ended {
                    return Ok(());
                }
                self.read().await?;
                self.account(facts)?;
                continue;
            };
            let mut next = first;
            while next < spans.len() {
                // A journal that others broke may lack a begin. It is sorted before all others, and holds nothing.
                let begin = spans.intervals.begin(next).unwrap_or(i64::MIN);
                if spans.key(next).cmp(&key).then(begin.cmp(&at)).is_gt() {
                    break;
                }
                next += 1;
            }
            if next > first {
                let last = self.spans.last.as_ref();
                if last.is_some_and(|(last, _)| !Arc::ptr_eq(last, &spans)) {
                    // What waits is of the batch that is about to be left behind.
                    self.put_together(facts)?;
                }
                self.spans.passed.add(next - first);
                self.spans.last = Some((Arc::clone(&spans), next - 1));
            }
            if next < spans.len() {
                self.spans.next = Some((spans, next));
                return Ok(());
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        let begun = Instant::now();
        let batch = self.spans.rows.next().await.transpose()?;
        self.spans.waited += begun.elapsed();
        match batch {
            None => self.spans.ended = true,
            Some(batch) => self.spans.next = Some((Arc::new(self.encoder.spans(batch)?), 0)),
        }
        Ok(())
    }

    /// What is held: at most three batches.
    fn account(&mut self, facts: &Facts) -> Result<()> {
        let held = [&self.spans.next, &self.spans.last];
        let held = held.into_iter().flatten().map(|(spans, _)| spans.size());
        self.memory.try_resize(facts.size() + held.sum::<usize>())
    }

    /// The rows that wait.
    fn put_together(&mut self, facts: &Facts) -> Result<()> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let mut pairs = std::mem::take(&mut self.pairs);
        let spans = match &self.spans.last {
            Some((spans, _)) => &spans.batch,
            None => &self.spans.none,
        };
        let both = [&facts.batch, spans];
        if let Some(filter) = &self.terms.filter {
            let found: Vec<(u64, u64)> = pairs
                .iter()
                .filter_map(|(fact, span)| Some((*fact, (*span)?)))
                .collect();
            let passed = passing(filter, both, &found)?;
            unmatch(&mut pairs, &passed);
            if self.terms.join_type == JoinType::Inner {
                pairs.retain(|(_, span)| span.is_some());
            }
            if pairs.is_empty() {
                return Ok(());
            }
        }
        self.out
            .push_batch(assembled(&self.schema, both, &pairs)?)?;
        Ok(())
    }
}

/// Takes the interval from each fact that has one which the further conditions refuse. `passed` is about the facts that
/// have one, in their order.
fn unmatch(pairs: &mut [(u64, Option<u64>)], passed: &BooleanArray) {
    let found = pairs.iter_mut().filter(|(_, span)| span.is_some());
    for ((_, span), passed) in found.zip(passed.values()) {
        if !passed {
            *span = None;
        }
    }
}

impl Spanning {
    /// The row that holds an instant of a key, in the batch of the last one that was passed. It is that one or none:
    /// see the module.
    fn holding(&self, key: Row<'_>, at: i64) -> Option<u64> {
        let (spans, row) = self.last.as_ref()?;
        let holds = spans.key(*row) == key && spans.intervals.hold(*row, at);
        holds.then_some(*row as u64)
    }
}

//! One file of the table without what its policies take away: its visible rows in their order, in a new file.

use std::sync::Arc;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::kernels::cmp::distinct;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::find::{Found, Wide};
use crate::cleanse::apply::{Applied, Counts, Running};
use crate::error::{Error, Result};
use crate::maintenance::{Job, bytes};
use crate::quality::check::CompiledCheck;
use crate::table::actions::Add;
use crate::table::snapshot::Snapshot;
use crate::write::files::FileSink;

/// A file that was written anew, which nobody sees yet.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub found: Found,
    pub adds: Vec<Add>,
    pub rows: u64,
    pub tally: Tally,
}

/// What the policies did to rows, one entry for each.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub counts: Counts,
    /// Rows some cells of which have another content now.
    pub changed: Vec<u64>,
}

impl Tally {
    pub(super) fn of(running: &Running) -> Self {
        let compiled = running.compiled();
        Self {
            counts: Counts::of(compiled),
            changed: vec![0; compiled.policies().len()],
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        for (own, other) in self.changed.iter_mut().zip(&other.changed) {
            *own += other;
        }
    }

    /// Counts what became of `given`, rows of the table.
    pub(super) fn note(
        &mut self,
        running: &Running,
        given: &RecordBatch,
        applied: &Applied,
    ) -> Result<()> {
        self.counts.merge(&applied.counts);
        if applied.counts.cells_changed() == 0 {
            return Ok(());
        }
        let before = applied.left_of(given)?;
        for (at, policy) in running.compiled().policies().iter().enumerate() {
            if applied.counts.policy(at).cells_changed == 0 {
                continue;
            }
            let mut rows = match (policy.key(), running.keys(at)) {
                (Some(query), Some(keys)) => {
                    let columns = query.columns().iter();
                    let columns: Vec<_> =
                        columns.map(|at| Arc::clone(before.column(*at))).collect();
                    keys.ask(&columns)?
                }
                _ => BooleanBuffer::new_set(before.num_rows()),
            };
            let none = BooleanBuffer::new_unset(before.num_rows());
            let others = policy.columns().iter().fold(none, |others, column| {
                &others | &differ(&before, &applied.batch, *column)
            });
            rows = &rows & &others;
            self.changed[at] += rows.count_set_bits() as u64;
        }
        Ok(())
    }
}

/// The rows whose cell in a column is another one.
pub(crate) fn differ(before: &RecordBatch, after: &RecordBatch, column: usize) -> BooleanBuffer {
    let (before, after) = (before.column(column), after.column(column));
    match distinct(before, after) {
        Ok(other) => other.values().clone(),
        // Of what does not compare, a list or a struct, it is told whether it is there.
        Err(_) => BooleanBuffer::collect_bool(before.len(), |row| {
            before.is_null(row) != after.is_null(row)
        }),
    }
}

/// Counts what would become of the visible rows of a file.
pub(super) async fn rehearse(
    job: &Job,
    base: &Arc<Snapshot>,
    running: &Running,
    found: &Found,
) -> Result<Tally> {
    let state = job.state(1);
    let wide = Wide::new(running);
    let table = job.only(base, &[Arc::clone(&found.file)]);
    let plan = table.scan(&state, Some(&wide.columns), &[], None).await?;
    let mut batches = execute_stream(plan, state.task_ctx())?;
    let mut tally = Tally::of(running);
    while let Some(batch) = batches.try_next().await? {
        let rows = wide.of(&batch)?;
        tally.note(running, &rows, &running.apply(&rows)?)?;
    }
    Ok(tally)
}

/// Writes a file anew.
pub(super) async fn rewrite(
    job: &Job,
    base: &Arc<Snapshot>,
    sink: &FileSink,
    running: &Arc<Running>,
    checks: &Arc<[CompiledCheck]>,
    found: Found,
) -> Result<Rewritten> {
    let state = job.state(1);
    let context = state.task_ctx();
    let table = job.only(base, &[Arc::clone(&found.file)]);
    let plan = table.scan(&state, None, &[], None).await?;
    let rows = execute_stream(plan, Arc::clone(&context))?;
    let tally = Arc::new(Mutex::new(Tally::of(running)));
    let rows = cleansed(job, (running, checks), rows, &tally);
    let mut written = sink.write_rows(rows, &context).await?;
    let tally = std::mem::take(&mut *tally.lock());
    let expected = found.file.rows(&base.schema);
    let came = written.rows + tally.counts.rows_erased();
    if expected.is_some_and(|expected| expected != came) {
        sink.discard(&written.adds).await;
        return Err(Error::internal(format!(
            "file '{}' of table {} holds {} rows, but {came} came out of it",
            found.file.add.path,
            job.name,
            expected.unwrap_or_default()
        )));
    }
    let old = &found.file.add;
    for add in &mut written.adds {
        add.data_change = false;
        // The rows keep their age, by which files are brought in order, and how they are arranged.
        add.modification_time = old.modification_time;
        add.tags.clone_from(&old.tags);
    }
    job.meter.done(1, bytes(&found.file));
    Ok(Rewritten {
        found,
        adds: written.adds,
        rows: written.rows,
        tally,
    })
}

fn cleansed(
    job: &Job,
    (running, checks): (&Arc<Running>, &Arc<[CompiledCheck]>),
    rows: SendableRecordBatchStream,
    tally: &Arc<Mutex<Tally>>,
) -> SendableRecordBatchStream {
    let (schema, meter) = (rows.schema(), job.meter.clone());
    let (running, tally) = (Arc::clone(running), Arc::clone(tally));
    let checks = Arc::clone(checks);
    let rows = rows.map(move |batch| -> datafusion::common::Result<RecordBatch> {
        let batch = batch?;
        let applied = running.apply(&batch)?;
        if applied.counts.cells_changed() > 0 {
            let (compiled, rows) = (running.compiled(), &applied.batch);
            compiled.hold(&checks, rows, |check| {
                check.broken_by(&compiled.table, rows)
            })?;
        }
        tally.lock().note(&running, &batch, &applied)?;
        meter.rows(batch.num_rows() as u64);
        Ok(applied.batch)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

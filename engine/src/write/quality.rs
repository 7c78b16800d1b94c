//! The third stage: the rules of the table, asked of every row once. Rows that break a rule are dropped, set aside
//! for quarantine, or hold up the whole write; the numbers of the write are taken of those that go on.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, UInt32Type};

use super::change::{ChangeAccount, Changes};
use super::stage::{Part, Slot, Stage, Step, Work};
use crate::error::{Error, Result};
use crate::quality::compile::Compiled;
use crate::quality::evaluate::{Evaluation, Worker};
use crate::quality::failure::{self, Failure, quarantine_schema};

/// The rules as a stage of the plan.
#[derive(Debug)]
pub(super) struct Checking {
    /// Columns of the table: what else came with the rows ends here.
    schema: SchemaRef,
    aside: SchemaRef,
    compiled: Arc<Compiled>,
    evaluation: Arc<Slot<Evaluation>>,
    changes: Option<ChangeAccount>,
}

impl Checking {
    pub(super) fn new(
        schema: SchemaRef,
        compiled: Arc<Compiled>,
        evaluation: Arc<Slot<Evaluation>>,
        changes: Option<ChangeAccount>,
    ) -> Self {
        Self {
            aside: quarantine_schema(&schema),
            schema,
            compiled,
            evaluation,
            changes,
        }
    }
}

impl Stage for Checking {
    const NAME: &'static str = "QualityExec";
    type Work = Asking;

    fn describe(&self) -> String {
        format!(
            "table={}, rules=[{}]",
            self.compiled.table,
            self.compiled.names().join(", ")
        )
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin(&self, part: Part) -> Result<Asking> {
        let evaluation = self.evaluation.current()?;
        let changes = self.changes.as_ref();
        Ok(Asking {
            worker: evaluation.worker(part.number)?,
            evaluation,
            schema: Arc::clone(&self.schema),
            aside: Arc::clone(&self.aside),
            changes: changes.map(|changes| changes.noted.current()).transpose()?,
        })
    }
}

/// The work of one partition.
pub(super) struct Asking {
    worker: Worker,
    evaluation: Arc<Evaluation>,
    schema: SchemaRef,
    aside: SchemaRef,
    changes: Option<Arc<Changes>>,
}

impl Work for Asking {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        let rows = narrow(&batch, &self.schema)?;
        let sorted = self.worker.sort(&rows)?;
        if self.evaluation.fails() {
            // Nothing will be visible; the rest is asked so that the error is exact.
            return Ok(Step::default());
        }
        let Some(kept) = sorted.kept else {
            let on = (rows.num_rows() > 0).then_some(rows);
            return Ok(Step { on, aside: None });
        };
        if let Some(changes) = &self.changes {
            let out = arrow::compute::not(&kept).map_err(unexpected)?;
            spare(changes, &batch, &self.schema, &out)?;
        }
        let on = filter_record_batch(&rows, &kept).map_err(unexpected)?;
        Ok(Step {
            on: (on.num_rows() > 0).then_some(on),
            aside: match sorted.quarantined.is_empty() {
                true => None,
                false => Some(self.set_aside(&rows, &sorted.quarantined)?),
            },
        })
    }

    fn end(self) -> Result<()> {
        self.worker.finish()
    }
}

impl Asking {
    fn set_aside(
        &self,
        rows: &RecordBatch,
        quarantined: &[(usize, Vec<Failure>)],
    ) -> Result<RecordBatch> {
        let places: UInt32Array = quarantined.iter().map(|(row, _)| *row as u32).collect();
        let taken = take_record_batch(rows, &places).map_err(unexpected)?;
        let failures = quarantined.iter().map(|(_, failures)| failures.as_slice());
        set_aside(&self.aside, failures, None, taken.columns())
    }
}

/// Rows as quarantine keeps them: what is wrong with each, how it came if that is not how it is, and its columns.
pub(super) fn set_aside<'a>(
    schema: &SchemaRef,
    failures: impl Iterator<Item = &'a [Failure]>,
    came: Option<StringArray>,
    columns: &[ArrayRef],
) -> Result<RecordBatch> {
    let failures = failure::column(failures);
    let came: ArrayRef = match came {
        Some(came) => Arc::new(came),
        None => new_null_array(&DataType::Utf8, failures.len()),
    };
    let columns = [failures, came].into_iter().chain(columns.iter().cloned());
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).map_err(unexpected)
}

/// The rows that `out` names do not replace anything: the old ones stay as they are.
pub(super) fn spare(
    changes: &Changes,
    batch: &RecordBatch,
    table: &SchemaRef,
    out: &arrow::array::BooleanArray,
) -> Result<()> {
    let width = table.fields().len();
    let [file, row] = batch.columns().get(width..).unwrap_or_default() else {
        return Err(Error::internal("a changed row came without its place"));
    };
    let (file, row) = (
        file.as_primitive::<UInt32Type>(),
        row.as_primitive::<Int64Type>(),
    );
    changes.spare(out.values().set_indices().map(|at| {
        let known = file.is_valid(at) && row.is_valid(at);
        known.then(|| (file.value(at), row.value(at)))
    }))
}

/// The columns of the table alone.
pub(super) fn narrow(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() == schema.fields().len() {
        return Ok(batch.clone());
    }
    let columns = batch.columns()[..schema.fields().len()].to_vec();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(unexpected)
}

pub(super) fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("rows told apart: {error}")).with_source(error)
}

//! The last stage: the rules of the table, asked of every row once. Rows that break a rule are dropped, set aside
//! for quarantine, or hold up the whole write; the numbers of the write are taken of those that go on.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StringArray, UInt32Array,
    new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, UInt32Type};

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
    /// Columns that rules are asked of: those of the table, and which of their cells were cleansed.
    asked: SchemaRef,
    /// Where these are among the columns that come.
    from: Vec<usize>,
    aside: SchemaRef,
    compiled: Arc<Compiled>,
    evaluation: Arc<Slot<Evaluation>>,
    changes: Option<ChangeAccount>,
}

impl Checking {
    pub(super) fn new(
        schema: SchemaRef,
        input: &SchemaRef,
        compiled: Arc<Compiled>,
        evaluation: Arc<Slot<Evaluation>>,
        changes: Option<ChangeAccount>,
    ) -> Self {
        let (width, all) = (schema.fields().len(), input.fields().len());
        // The masks came last, behind the places of old rows.
        let masks = all.saturating_sub(compiled.masks().about().len())..all;
        let from: Vec<usize> = (0..width).chain(masks).collect();
        let asked = from.iter().map(|at| Arc::clone(&input.fields()[*at]));
        Self {
            asked: Arc::new(Schema::new(asked.collect::<Vec<_>>())),
            from,
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
            asked: Arc::clone(&self.asked),
            from: self.from.clone(),
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
    asked: SchemaRef,
    from: Vec<usize>,
    aside: SchemaRef,
    changes: Option<Arc<Changes>>,
}

impl Work for Asking {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        let rows = narrow(&batch, &self.schema)?;
        let sorted = match self.asked.fields().len() == self.schema.fields().len() {
            true => self.worker.sort(&rows)?,
            false => self.worker.sort(&self.marked(&batch)?)?,
        };
        if self.evaluation.fails() {
            // Nothing will be visible; the rest is asked so that the error is exact.
            return Ok(Step::default());
        }
        let Some((on, out)) = sorted.left else {
            let on = (rows.num_rows() > 0).then_some(rows);
            return Ok(Step { on, aside: None });
        };
        if let Some(changes) = &self.changes {
            spare(changes, &batch, &self.schema, &out)?;
        }
        let on = narrow(&on, &self.schema)?;
        Ok(Step {
            on: (on.num_rows() > 0).then_some(on),
            aside: match sorted.quarantined.is_empty() {
                true => None,
                false => Some(self.set_aside(&batch, &sorted.quarantined)?),
            },
        })
    }

    fn end(self) -> Result<()> {
        self.worker.finish()
    }
}

impl Asking {
    /// The columns of the table, and which of their cells were cleansed.
    fn marked(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.from.iter().map(|at| Arc::clone(batch.column(*at)));
        RecordBatch::try_new(Arc::clone(&self.asked), columns.collect()).map_err(unexpected)
    }

    /// `batch`: as it came, with the places of the rows that are replaced.
    fn set_aside(
        &self,
        batch: &RecordBatch,
        quarantined: &[(usize, Vec<Failure>)],
    ) -> Result<RecordBatch> {
        let places: UInt32Array = quarantined.iter().map(|(row, _)| *row as u32).collect();
        let taken = take_record_batch(batch, &places).map_err(unexpected)?;
        let failures = quarantined.iter().map(|(_, failures)| failures.as_slice());
        let width = self.schema.fields().len();
        let replaces = replaces(&taken, width);
        set_aside(
            &self.aside,
            failures,
            None,
            replaces,
            &taken.columns()[..width],
        )
    }
}

/// What is to be known of rows that did not fit the table.
pub(super) struct Misfits {
    /// The rows as they came.
    pub came: StringArray,
    /// The columns in which each lacks its value.
    pub columns: ListArray,
}

/// Rows as quarantine keeps them: what is wrong with each, how it came if that is not how it is, and its columns.
pub(super) fn set_aside<'a>(
    schema: &SchemaRef,
    failures: impl Iterator<Item = &'a [Failure]>,
    misfits: Option<Misfits>,
    replaces: BooleanArray,
    columns: &[ArrayRef],
) -> Result<RecordBatch> {
    let failures = failure::column(failures);
    let rows = failures.len();
    let (came, unfit): (ArrayRef, ArrayRef) = match misfits {
        Some(misfits) => (Arc::new(misfits.came), Arc::new(misfits.columns)),
        None => (
            new_null_array(&DataType::Utf8, rows),
            new_null_array(&failure::unfit_type(), rows),
        ),
    };
    let own: [ArrayRef; 4] = [failures, came, Arc::new(replaces), unfit];
    let columns = own.into_iter().chain(columns.iter().cloned());
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).map_err(unexpected)
}

/// Which rows were to take the place of one of the table: those that come with its place behind their `width`
/// columns.
pub(super) fn replaces(batch: &RecordBatch, width: usize) -> BooleanArray {
    let places = match batch.columns().get(width..).unwrap_or_default() {
        [file, row] => Some((file, row)),
        _ => None,
    };
    let replaces = |at| places.is_some_and(|(file, row)| file.is_valid(at) && row.is_valid(at));
    (0..batch.num_rows()).map(|at| Some(replaces(at))).collect()
}

/// The rows that `out` names do not replace anything: the old ones stay as they are.
pub(super) fn spare(
    changes: &Changes,
    batch: &RecordBatch,
    table: &SchemaRef,
    out: &BooleanArray,
) -> Result<()> {
    changes.spare(places(batch, table, out.values())?)
}

/// Where the old rows are in whose places these `rows` of a batch come; None for those that are new.
pub(super) fn places(
    batch: &RecordBatch,
    table: &SchemaRef,
    rows: &BooleanBuffer,
) -> Result<impl Iterator<Item = Option<(u32, i64)>>> {
    let width = table.fields().len();
    let [file, row, ..] = batch.columns().get(width..).unwrap_or_default() else {
        return Err(Error::internal("a changed row came without its place"));
    };
    let (file, row) = (
        file.as_primitive::<UInt32Type>(),
        row.as_primitive::<Int64Type>(),
    );
    Ok(rows.set_indices().map(move |at| {
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

//! The last stage: the rules of the table, asked of every row once. Rows that break a rule are dropped, set aside
//! for quarantine, or hold up the whole write; the numbers of the write are taken of those that go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StringArray, UInt32Array,
    new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat_batches, filter_record_batch, not, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, UInt32Type};

use super::change::{ChangeAccount, Changes};
use super::journal::riders::apart;
use super::stage::{Part, Slot, Stage, Step, Work};
use super::validate::TableRules;
use crate::error::{Error, Result};
use crate::quality::compile::Compiled;
use crate::quality::evaluate::{Evaluation, Worker};
use crate::quality::failure::{self, Failure, quarantine_schema};
use crate::table::located;

/// The rules as a stage of the plan.
#[derive(Debug)]
pub(super) struct Checking {
    /// Columns of the table.
    table: SchemaRef,
    /// Columns of the rows that go on: but for what a journal must know of them, what came beside ends here.
    schema: SchemaRef,
    /// Columns that rules are asked of: those of the table, and which of their cells were cleansed.
    asked: SchemaRef,
    /// Where these are among the columns that come.
    from: Vec<usize>,
    aside: SchemaRef,
    compiled: Arc<Compiled>,
    evaluation: Arc<Slot<Evaluation>>,
    changes: Option<ChangeAccount>,
    /// Rows that no rule is asked of, as they only end a key.
    unasked: Arc<AtomicU64>,
}

impl Checking {
    pub(super) fn new(
        rules: &TableRules,
        input: &SchemaRef,
        compiled: Arc<Compiled>,
        evaluation: Arc<Slot<Evaluation>>,
        changes: Option<ChangeAccount>,
        unasked: Arc<AtomicU64>,
    ) -> Self {
        let table = Arc::clone(&rules.schema);
        let (width, all) = (table.fields().len(), input.fields().len());
        let on = input.fields().iter().take(width + rules.beside()).cloned();
        let schema = match rules.beside() {
            0 => Arc::clone(&table),
            _ => Arc::new(Schema::new(on.collect::<Vec<_>>())),
        };
        // The masks came last, behind the places of old rows.
        let masks = all.saturating_sub(compiled.masks().about().len())..all;
        let from: Vec<usize> = (0..width).chain(masks).collect();
        let asked = from.iter().map(|at| Arc::clone(&input.fields()[*at]));
        Self {
            asked: Arc::new(Schema::new(asked.collect::<Vec<_>>())),
            from,
            aside: quarantine_schema(&table),
            table,
            schema,
            compiled,
            evaluation,
            changes,
            unasked,
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
            table: Arc::clone(&self.table),
            schema: Arc::clone(&self.schema),
            unasked: Arc::clone(&self.unasked),
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
    table: SchemaRef,
    schema: SchemaRef,
    unasked: Arc<AtomicU64>,
    asked: SchemaRef,
    from: Vec<usize>,
    aside: SchemaRef,
    changes: Option<Arc<Changes>>,
}

impl Work for Asking {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        let (asked, ended) = apart(&batch)?;
        let mut step = match asked {
            Some(asked) => self.ask(asked)?,
            None => Step::default(),
        };
        let Some(ended) = ended else {
            return Ok(step);
        };
        let count = ended.num_rows() as u64;
        self.unasked.fetch_add(count, Relaxed);
        if self.evaluation.fails() {
            return Ok(step);
        }
        let ended = narrow(&ended, &self.schema)?;
        step.on = Some(match step.on {
            Some(on) => concat_batches(&self.schema, [&on, &ended]).map_err(unexpected)?,
            None => ended,
        });
        Ok(step)
    }

    fn end(self) -> Result<()> {
        self.worker.finish()
    }
}

impl Asking {
    /// Asks the rules of rows that say what is true.
    fn ask(&mut self, batch: RecordBatch) -> Result<Step> {
        let rows = narrow(&batch, &self.table)?;
        let sorted = match self.asked.fields().len() == self.table.fields().len() {
            true => self.worker.sort(&rows)?,
            false => self.worker.sort(&self.marked(&batch)?)?,
        };
        if self.evaluation.fails() {
            // Nothing will be visible; the rest is asked so that the error is exact.
            return Ok(Step::default());
        }
        let Some((on, out)) = sorted.left else {
            let on = match self.schema.fields().len() == self.table.fields().len() {
                true => rows,
                false => narrow(&batch, &self.schema)?,
            };
            let on = (on.num_rows() > 0).then_some(on);
            return Ok(Step { on, aside: None });
        };
        if let Some(changes) = &self.changes {
            spare(changes, &batch, &self.table, &out)?;
        }
        let on = match self.schema.fields().len() == self.table.fields().len() {
            true => narrow(&on, &self.schema)?,
            false => {
                let kept = not(&out).map_err(unexpected)?;
                let on = filter_record_batch(&batch, &kept).map_err(unexpected)?;
                narrow(&on, &self.schema)?
            }
        };
        Ok(Step {
            on: (on.num_rows() > 0).then_some(on),
            aside: match sorted.quarantined.is_empty() {
                true => None,
                false => Some(self.set_aside(&batch, &sorted.quarantined)?),
            },
        })
    }

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
        let width = self.table.fields().len();
        let replaces = replaces(&taken);
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

/// Which rows were to take the place of one of the table: those that come with its place.
pub(super) fn replaces(batch: &RecordBatch) -> BooleanArray {
    let file = batch.column_by_name(located::FILE);
    let places = file.zip(batch.column_by_name(located::ROW));
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

//! What comes beside the columns of a row for a journal: whether its key ends, and which columns it says nothing of.
//! The first stage of a write to a journal gives every row both; the stages behind it carry them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch, RecordBatchOptions,
    new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options, filter_record_batch, not};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::super::quality::unexpected;
use super::super::stage::{Part, Stage, Step, Work};
use crate::error::{Error, Result};
use crate::journal::event::{DELETE, KEEP};
use crate::quality::check::CompiledCheck;

/// How many columns they are.
pub(in crate::write) const RIDERS: usize = 2;

/// Rows that end their key; None for rows of a table that is no journal.
pub(in crate::write) fn deletes(batch: &RecordBatch) -> Option<&BooleanArray> {
    batch.column_by_name(DELETE)?.as_boolean_opt()
}

/// Whether a row ends its key.
pub(in crate::write) fn is_delete(deletes: Option<&BooleanArray>, row: usize) -> bool {
    deletes.is_some_and(|deletes| deletes.is_valid(row) && deletes.value(row))
}

/// The rows that say what is true, and those that only say that something ended, if there are any of the kind.
pub(in crate::write) fn apart(
    batch: &RecordBatch,
) -> Result<(Option<RecordBatch>, Option<RecordBatch>)> {
    let ended = deletes(batch).map_or(0, BooleanArray::true_count);
    let Some(deletes) = deletes(batch).filter(|_| ended > 0) else {
        return Ok((Some(batch.clone()), None));
    };
    if ended == batch.num_rows() {
        return Ok((None, Some(batch.clone())));
    }
    let stays = not(deletes).map_err(unexpected)?;
    let on = filter_record_batch(batch, &stays).map_err(unexpected)?;
    let off = filter_record_batch(batch, deletes).map_err(unexpected)?;
    Ok((Some(on), Some(off)))
}

/// The stage: gives each row its riders.
#[derive(Debug)]
pub(in crate::write) struct Riding {
    table: String,
    /// Columns of the table, as rows on their way have them.
    flow: SchemaRef,
    delete_when: Option<CompiledCheck>,
    schema: SchemaRef,
}

impl Riding {
    /// `given`: as many columns as the table has, and riders behind them where the statement gives some.
    pub(in crate::write) fn new(
        table: &str,
        flow: &SchemaRef,
        delete_when: Option<CompiledCheck>,
        given: &SchemaRef,
    ) -> Result<Self> {
        let own = given.fields().iter().filter(|field| !is_rider(field));
        let own: Vec<FieldRef> = own.cloned().collect();
        if own.len() != flow.fields().len() {
            return Err(Error::invalid(format!(
                "table {table} has {} columns, but {} were given",
                flow.fields().len(),
                own.len()
            )));
        }
        let riders = [
            Field::new(DELETE, DataType::Boolean, false),
            Field::new(KEEP, DataType::Binary, true),
        ];
        let all: Vec<FieldRef> = own
            .into_iter()
            .chain(riders.into_iter().map(Arc::new))
            .collect();
        Ok(Self {
            table: table.to_owned(),
            flow: Arc::clone(flow),
            delete_when,
            schema: Arc::new(Schema::new(all)),
        })
    }
}

fn is_rider(field: &FieldRef) -> bool {
    field.name() == DELETE || field.name() == KEEP
}

impl Stage for Riding {
    const NAME: &'static str = "ChangeRowsExec";
    type Work = Mounting;

    fn describe(&self) -> String {
        match &self.delete_when {
            Some(check) => format!("table={}, delete_when={}", self.table, check.predicate()),
            None => format!("table={}", self.table),
        }
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn over(self: &Arc<Self>, input: &SchemaRef) -> Result<Arc<Self>> {
        Self::new(&self.table, &self.flow, self.delete_when.clone(), input).map(Arc::new)
    }

    fn begin(&self, _: Part) -> Result<Mounting> {
        let fields = self.flow.fields().iter();
        let fields: Vec<_> = fields
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        Ok(Mounting {
            table: self.table.clone(),
            typed: Arc::new(Schema::new(fields)),
            delete_when: self.delete_when.clone(),
            schema: Arc::clone(&self.schema),
        })
    }
}

/// The work of one partition.
pub(in crate::write) struct Mounting {
    table: String,
    /// Columns of the table, each of which may lack its value.
    typed: SchemaRef,
    delete_when: Option<CompiledCheck>,
    schema: SchemaRef,
}

impl Work for Mounting {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        let rows = batch.num_rows();
        let given = batch.schema();
        let own = given.fields().iter().zip(batch.columns());
        let own = own.filter(|(field, _)| !is_rider(field));
        let mut columns: Vec<ArrayRef> = own.map(|(_, column)| Arc::clone(column)).collect();
        let delete = self.deletes(&batch, &columns)?;
        let keep: ArrayRef = match batch.column_by_name(KEEP) {
            Some(keep) => cast(keep, &DataType::Binary).map_err(unexpected)?,
            None => Arc::new(BinaryArray::new_null(rows)),
        };
        columns.push(Arc::new(delete));
        columns.push(keep);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = as_given(&self.schema, &columns);
        let on =
            RecordBatch::try_new_with_options(schema, columns, &options).map_err(unexpected)?;
        Ok(Step {
            on: (rows > 0).then_some(on),
            aside: None,
        })
    }

    fn end(self) -> Result<()> {
        Ok(())
    }
}

impl Mounting {
    /// Whether each row ends its key: as the statement says, or the table of what it holds.
    fn deletes(&self, batch: &RecordBatch, own: &[ArrayRef]) -> Result<BooleanArray> {
        let rows = batch.num_rows();
        let said = match batch.column_by_name(DELETE) {
            Some(said) => cast(said, &DataType::Boolean).map_err(unexpected)?,
            None => new_null_array(&DataType::Boolean, rows),
        };
        let said = said.as_boolean();
        let mut ends: Vec<bool> = (0..rows).map(|row| is_delete(Some(said), row)).collect();
        if let Some(check) = &self.delete_when {
            let mut columns = Vec::with_capacity(own.len());
            for (at, (field, given)) in self.typed.fields().iter().zip(own).enumerate() {
                columns.push(match check.reads(at) {
                    true => tried(given, field.data_type()),
                    false => new_null_array(field.data_type(), rows),
                });
            }
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            let typed =
                RecordBatch::try_new_with_options(Arc::clone(&self.typed), columns, &options)
                    .map_err(unexpected)?;
            // What is not true of a row does not end it.
            let mut stays = vec![false; rows];
            for row in check.broken_by(&self.table, &typed)? {
                if let Some(stays) = stays.get_mut(row) {
                    *stays = true;
                }
            }
            for (ends, stays) in ends.iter_mut().zip(stays) {
                *ends |= !stays;
            }
        }
        Ok(BooleanArray::new(BooleanBuffer::from(ends), None))
    }
}

/// The values that fit; what does not fit is told by the stage that casts for good.
fn tried(given: &ArrayRef, to: &DataType) -> ArrayRef {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    cast_with_options(given, to, &options).unwrap_or_else(|_| new_null_array(to, given.len()))
}

/// A source may send another layout than it announced.
fn as_given(schema: &SchemaRef, columns: &[ArrayRef]) -> SchemaRef {
    let fits = schema
        .fields()
        .iter()
        .zip(columns)
        .all(|(field, column)| field.data_type() == column.data_type());
    if fits {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().zip(columns).map(|(field, column)| {
        let field = field.as_ref().clone();
        Arc::new(field.with_data_type(column.data_type().clone()))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

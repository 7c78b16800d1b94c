//! The same for rows in quarantine, or on their way there. Such a row holds its values in more places than its
//! columns: as it came, and in what is said to be wrong with it. A part of a key that did not fit its column is only
//! in the row as it came, and the row is found by it there.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};

use super::apply::{Applied, Running};
use super::cast::fit;
use super::compile::Compiled;
use crate::error::{Error, Result};
use crate::quality::failure::{self, FAILURES, Failure, ROW};
use crate::shown::HIDDEN;
use crate::table::mapping::physical_name;

/// What becomes of rows as quarantine keeps them: the columns of quarantine, those of the table behind them.
/// `erased` and `counts` are as those of [`Running::apply`]; so is `cleansed`.
pub(crate) fn apply(running: &Running, batch: &RecordBatch) -> Result<Applied> {
    let table = &running.compiled().schema;
    let places = table.fields().iter().map(|field| {
        batch
            .schema_ref()
            .index_of(field.name())
            .map_err(unexpected)
    });
    let places: Vec<usize> = places.collect::<Result<_>>()?;
    // The rest stays with its row: what is said of it, and how it came.
    let rest = (0..batch.num_columns()).filter(|at| !places.contains(at));
    let order: Vec<usize> = places.iter().copied().chain(rest).collect();
    let rows = batch.project(&order).map_err(unexpected)?;
    let mut applied = match found_by(running.compiled(), &rows)? {
        None => running.apply(&rows)?,
        Some(filled) => {
            let mut applied = running.apply(&filled)?;
            applied.batch = as_it_was(running.compiled(), &rows, &applied)?;
            applied
        }
    };
    let touched = running.compiled().touched();
    let any = applied.cleansed.iter().flatten().fold(None, union);
    let mut columns = applied.batch.columns().to_vec();
    if let Some(any) = any {
        let schema = applied.batch.schema();
        let redact = Redact {
            table,
            rows: &applied.batch,
            touched,
            cleansed: &applied.cleansed,
        };
        for (at, field) in schema.fields().iter().enumerate().skip(places.len()) {
            match field.name().as_str() {
                FAILURES => columns[at] = redact.failures(&columns[at], &any)?,
                ROW => columns[at] = redact.came(&columns[at], &any)?,
                _ => {}
            }
        }
    }
    let mut back = vec![0; order.len()];
    for (at, from) in order.iter().enumerate() {
        back[*from] = at;
    }
    let columns = back.iter().map(|at| Arc::clone(&columns[*at])).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(applied.batch.num_rows()));
    applied.batch =
        RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(unexpected)?;
    Ok(applied)
}

/// The columns that are part of some key.
fn keys(compiled: &Compiled) -> BTreeSet<usize> {
    let keys = compiled.policies().iter().filter_map(|of| of.key());
    keys.flat_map(|key| key.columns().iter().copied()).collect()
}

/// The rows with those parts of their keys that did not fit, as far as they can be read from the rows as they came;
/// None where there is nothing of the kind. `rows` begin with the columns of the table.
fn found_by(compiled: &Compiled, rows: &RecordBatch) -> Result<Option<RecordBatch>> {
    let table = &compiled.schema;
    let mut missing = keys(compiled);
    missing.retain(|at| rows.column(*at).null_count() > 0);
    let Some(came) = rows.column_by_name(ROW).filter(|_| !missing.is_empty()) else {
        return Ok(None);
    };
    let came = texts(came)?;
    if came.null_count() == came.len() {
        return Ok(None);
    }
    let came: Vec<Option<Map<String, Value>>> = came
        .iter()
        .map(|text| serde_json::from_str(text?).ok())
        .collect();
    let mut columns = rows.columns().to_vec();
    let mut any = false;
    for at in missing {
        if let Some(filled) = filled(&columns[at], table, table.field(at), &came)? {
            columns[at] = filled;
            any = true;
        }
    }
    if !any {
        return Ok(None);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(rows.schema(), columns, &options)
        .map(Some)
        .map_err(unexpected)
}

/// A column with what its rows came with where they have no value in it; None where there is nothing to fill in.
fn filled(
    column: &ArrayRef,
    table: &Schema,
    field: &Field,
    came: &[Option<Map<String, Value>>],
) -> Result<Option<ArrayRef>> {
    let text = |row: usize| {
        if column.is_valid(row) {
            return None;
        }
        match cell(came.get(row)?.as_ref()?, table, field)? {
            Value::String(text) => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    };
    let texts: StringArray = (0..column.len()).map(text).collect();
    let texts: ArrayRef = Arc::new(texts);
    let values = fit(&texts, column.data_type());
    if values.null_count() == values.len() {
        return Ok(None);
    }
    let missing = BooleanBuffer::collect_bool(column.len(), |row| column.is_null(row));
    let both = zip(&BooleanArray::new(missing, None), &values, column);
    both.map(Some).map_err(unexpected)
}

/// What a row as it came says of a column. Before that was renamed, it had the name that files have for it.
fn cell<'a>(came: &'a Map<String, Value>, table: &Schema, field: &Field) -> Option<&'a Value> {
    let in_files = physical_name(field);
    came.get(field.name())
        .or_else(|| match table.field_with_name(in_files) {
            // By now it is another one's.
            Ok(_) => None,
            Err(_) => came.get(in_files),
        })
}

/// The rows after the policies without what they were only found by: it is no value of its column.
fn as_it_was(compiled: &Compiled, rows: &RecordBatch, applied: &Applied) -> Result<RecordBatch> {
    let kept = applied
        .erased
        .as_ref()
        .map(|erased| BooleanArray::new(!erased, None));
    let mut columns = applied.batch.columns().to_vec();
    for at in keys(compiled) {
        let before = match &kept {
            Some(kept) => filter(rows.column(at), kept).map_err(unexpected)?,
            None => Arc::clone(rows.column(at)),
        };
        let place = compiled.touched().iter().position(|of| *of == at);
        let cleansed = place.and_then(|place| applied.cleansed.get(place)?.clone());
        columns[at] = match cleansed {
            Some(cells) => {
                zip(&BooleanArray::new(cells, None), &columns[at], &before).map_err(unexpected)?
            }
            None => before,
        };
    }
    let options = RecordBatchOptions::new().with_row_count(Some(applied.batch.num_rows()));
    RecordBatch::try_new_with_options(applied.batch.schema(), columns, &options).map_err(unexpected)
}

fn union(all: Option<BooleanBuffer>, of: &BooleanBuffer) -> Option<BooleanBuffer> {
    Some(match all {
        Some(all) => &all | of,
        None => of.clone(),
    })
}

/// Rows whose cells were cleansed.
struct Redact<'a> {
    table: &'a Schema,
    /// Columns of the table first.
    rows: &'a RecordBatch,
    touched: &'a [usize],
    cleansed: &'a [Option<BooleanBuffer>],
}

impl Redact<'_> {
    /// The columns of which a policy is about the cell of that row.
    fn columns(&self, row: usize) -> impl Iterator<Item = usize> {
        let both = self.touched.iter().zip(self.cleansed);
        let of_row = both.filter(move |(_, of)| of.as_ref().is_some_and(|of| of.value(row)));
        of_row.map(|(at, _)| *at)
    }

    /// The column of that name. A row that came before a column was renamed has the name that files have for it.
    fn place(&self, name: &str) -> Option<usize> {
        let fields = self.table.fields();
        let named = fields.iter().position(|field| field.name() == name);
        named.or_else(|| fields.iter().position(|field| physical_name(field) == name))
    }

    fn name(&self, at: usize) -> &str {
        self.rows.schema_ref().field(at).name()
    }

    /// What is wrong with each row, without the values that were cleansed.
    fn failures(&self, given: &ArrayRef, any: &BooleanBuffer) -> Result<ArrayRef> {
        let mut all = Vec::with_capacity(given.len());
        for row in 0..given.len() {
            let mut failures = failures(given, row)?;
            if any.value(row) {
                let names: BTreeSet<&str> = self.columns(row).map(|at| self.name(at)).collect();
                for failure in &mut failures {
                    let mut read = failure.columns.iter().map(String::as_str);
                    // Under a name of former times it may be one of those.
                    if read.any(|name| names.contains(name) || self.place(name).is_none()) {
                        failure.message = HIDDEN.to_owned();
                        failure.value = HIDDEN.to_owned();
                    }
                }
            }
            all.push(failures);
        }
        Ok(failure::column(all.iter().map(Vec::as_slice)))
    }

    /// The rows as they came, with what their cells hold now in the place of what was cleansed.
    fn came(&self, given: &ArrayRef, any: &BooleanBuffer) -> Result<ArrayRef> {
        let texts = texts(given)?;
        let came = (0..texts.len()).map(|row| {
            let text = texts.is_valid(row).then(|| texts.value(row));
            match (text, any.value(row)) {
                (Some(text), true) => self.rewritten(text, row).map(Some),
                (text, _) => Ok(text.map(str::to_owned)),
            }
        });
        Ok(Arc::new(came.collect::<Result<StringArray>>()?))
    }

    fn rewritten(&self, text: &str, row: usize) -> Result<String> {
        let Ok(mut came) = serde_json::from_str::<Map<String, Value>>(text) else {
            // Whatever it is, it may hold what was cleansed.
            return Ok(HIDDEN.to_owned());
        };
        let touched: BTreeSet<usize> = self.columns(row).collect();
        for (name, cell) in &mut came {
            let now = match self.place(name) {
                Some(at) if !touched.contains(&at) => continue,
                Some(at) => Some(self.rows.column(at)),
                // Under a name of former times it may be one of those.
                None => None,
            };
            *cell = match now {
                Some(now) if now.is_valid(row) => {
                    Value::String(array_value_to_string(now, row).map_err(unexpected)?)
                }
                _ => Value::Null,
            };
        }
        serde_json::to_string(&came)
            .map_err(|error| Error::internal(format!("a quarantined row: {error}")))
    }
}

/// What is wrong with one row, as it was kept.
fn failures(given: &ArrayRef, row: usize) -> Result<Vec<Failure>> {
    let odd = || {
        Error::corrupt(format!(
            "column {FAILURES} of a quarantined row is {}",
            given.data_type()
        ))
    };
    let list = given.as_list_opt::<i32>().ok_or_else(odd)?;
    if list.is_null(row) {
        return Ok(Vec::new());
    }
    let all = list.value(row);
    let all = all.as_struct_opt().ok_or_else(odd)?;
    let text = |name: &str| texts(all.column_by_name(name).ok_or_else(odd)?);
    let (rule, print) = (text("rule")?, text("fingerprint")?);
    let (message, value) = (text("message")?, text("value")?);
    let columns = all.column_by_name("columns").ok_or_else(odd)?;
    let columns = columns.as_list_opt::<i32>().ok_or_else(odd)?;
    let one = |at: usize| {
        let of = |texts: &StringArray| texts.is_valid(at).then(|| texts.value(at).to_owned());
        let names = texts(&columns.value(at))?;
        Ok(Failure {
            rule: of(&rule).unwrap_or_default(),
            fingerprint: of(&print),
            message: of(&message).unwrap_or_default(),
            value: of(&value).unwrap_or_default(),
            columns: names.iter().flatten().map(str::to_owned).collect(),
        })
    };
    (0..all.len()).map(one).collect()
}

/// Texts, whichever way a reader laid them out.
fn texts(given: &ArrayRef) -> Result<StringArray> {
    let texts = arrow::compute::cast(given, &DataType::Utf8).map_err(unexpected)?;
    Ok(texts.as_string::<i32>().clone())
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("a quarantined row: {error}")).with_source(error)
}

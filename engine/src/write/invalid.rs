//! Rows that are none of the table's, as quarantine keeps them: every value that fits its column in it, and the row
//! as it came as JSON.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ListArray, ListBuilder, RecordBatch, StringArray, StringBuilder, UInt32Array,
    make_array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{or_kleene, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::json::writer::LineDelimited;
use arrow::json::writer::{LineDelimitedWriter, WriterBuilder};

use super::cast::Cast;
use super::journal::riders::deletes;
use super::quality::{Misfits, replaces, set_aside, unexpected};
use super::validate::{Place, TableRules, cast_column};
use crate::error::{Error, Result};
use crate::quality::failure::Failure;
use crate::shown::{shown_of, sql_name};

/// What is wrong with values, by row and column.
type Unfit = HashMap<(usize, usize), String>;

/// A row that does not go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    /// Its place in the batch as it came.
    pub row: usize,
    pub place: Place,
}

/// The invalid rows of one batch.
pub(super) struct Invalid<'a> {
    pub rules: &'a TableRules,
    pub casts: &'a [Cast],
    pub refusals: &'a [Refusal],
}

/// The same rows in columns that may lack values: those that do not fit are taken out of them.
fn nullable(batch: &RecordBatch) -> Result<RecordBatch> {
    let fields = batch.schema_ref().fields().iter();
    let fields: Vec<_> = fields
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    RecordBatch::try_new(schema, batch.columns().to_vec()).map_err(unexpected)
}

/// Adds the values that do not fit to what is wrong with each row. One that lacks a value is refused before its
/// others are looked at, and quarantine could say nothing of them otherwise.
fn complete(places: &mut [Vec<Place>], unfit: &Unfit) {
    for (row, at) in unfit.keys() {
        let place = Place::Type(*at);
        if let Some(places) = places.get_mut(*row)
            && !places.contains(&place)
        {
            places.push(place);
            places.sort_unstable();
        }
    }
}

impl Invalid<'_> {
    pub(super) fn set_aside(&self, schema: &SchemaRef, given: &RecordBatch) -> Result<RecordBatch> {
        let mut places: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
        for refusal in self.refusals {
            places.entry(refusal.row).or_default().push(refusal.place);
        }
        let rows: UInt32Array = places.keys().map(|row| *row as u32).collect();
        let came = nullable(&take_record_batch(given, &rows).map_err(unexpected)?)?;
        let mut columns = Vec::with_capacity(self.rules.schema.fields().len());
        let mut unfit = Unfit::new();
        for at in 0..self.rules.schema.fields().len() {
            columns.push(self.fitting(&came, at, &mut unfit)?);
        }
        let mut places: Vec<Vec<Place>> = places.into_values().collect();
        complete(&mut places, &unfit);
        let failures: Vec<Vec<Failure>> = places
            .iter()
            .enumerate()
            .map(|(row, places)| {
                let failure = |place: &Place| self.failure(*place, &came, row, &unfit);
                places.iter().map(failure).collect()
            })
            .collect();
        let failures = failures.iter().map(Vec::as_slice);
        let misfits = Misfits {
            came: self.json(&came)?,
            columns: self.unfit_columns(&places),
        };
        let mut replaces = replaces(&came);
        // Nothing else keeps such a row from coming back as one that says what is true.
        if let Some(journal) = &self.rules.journal
            && !journal.ends_told
            && let Some(ends) = deletes(&came)
        {
            replaces = or_kleene(&replaces, ends).map_err(unexpected)?;
        }
        set_aside(schema, failures, Some(misfits), replaces, &columns)
    }

    /// For each row the columns that a value of it does not fit.
    fn unfit_columns(&self, places: &[Vec<Place>]) -> ListArray {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for places in places {
            for place in places {
                if let Place::Type(at) = place {
                    let name = self.rules.schema.field(*at).name();
                    lists.values().append_value(name);
                }
            }
            lists.append(true);
        }
        lists.finish()
    }

    /// The values of a column that fit it; what is wrong with the others is noted, row by row.
    fn fitting(&self, came: &RecordBatch, at: usize, unfit: &mut Unfit) -> Result<ArrayRef> {
        let failure = match cast_column(self.rules, self.casts, came, at) {
            Ok(column) => return Ok(column),
            Err(failure) => failure,
        };
        for row in &failure.rows {
            unfit.insert((*row, at), failure.reason.clone());
        }
        let bad = |row: usize| failure.rows.binary_search(&row).is_ok();
        let column = came.column(at);
        let good = BooleanBuffer::collect_bool(column.len(), |row| !bad(row));
        let nulls = NullBuffer::union(
            column.logical_nulls().as_ref(),
            Some(&NullBuffer::new(good)),
        );
        let field = self.rules.schema.field(at);
        // What has no place for NULLs of its own (a dictionary, a run) is left to the row as it came.
        let Ok(data) = column.to_data().into_builder().nulls(nulls).build() else {
            return Ok(new_null_array(field.data_type(), column.len()));
        };
        let mut columns = came.columns().to_vec();
        columns[at] = make_array(data);
        let rest = RecordBatch::try_new(came.schema(), columns).map_err(unexpected)?;
        Ok(cast_column(self.rules, self.casts, &rest, at)
            .unwrap_or_else(|_| new_null_array(field.data_type(), came.num_rows())))
    }

    fn failure(&self, place: Place, came: &RecordBatch, row: usize, unfit: &Unfit) -> Failure {
        let value = |at: usize| {
            let field = self.rules.schema.field(at);
            let value = shown_of(field, came.column(at), &[row]);
            let value = value.into_iter().next().unwrap_or_default();
            format!("{} = {value}", field.name())
        };
        let (message, value, columns) = match place {
            Place::Null(at) => ("it has no value".to_owned(), value(at), vec![at]),
            Place::Type(at) => {
                let to = sql_name(self.rules.schema.field(at).data_type());
                let reason = unfit
                    .get(&(row, at))
                    .map_or("it does not fit", String::as_str);
                (format!("no {to}: {reason}"), value(at), vec![at])
            }
            Place::Check(at) => {
                let columns = 0..self.rules.schema.fields().len();
                let check = self.rules.checks.get(at);
                let read = columns.filter(|at| check.is_some_and(|check| check.reads(*at)));
                let read: Vec<usize> = read.collect();
                let values: Vec<String> = read.iter().map(|at| value(*at)).collect();
                ("it is not true".to_owned(), values.join(", "), read)
            }
        };
        let name = |at: &usize| self.rules.schema.field(*at).name().clone();
        Failure {
            rule: place.rule(self.rules),
            fingerprint: None,
            message,
            value,
            columns: columns.iter().map(name).collect(),
        }
    }

    /// The rows as they came, in the names of the table.
    fn json(&self, came: &RecordBatch) -> Result<StringArray> {
        let failed = |error: arrow::error::ArrowError| {
            Error::internal(format!(
                "table {}: an invalid row cannot be kept: {error}",
                self.rules.table
            ))
            .with_source(error)
        };
        let width = self.rules.schema.fields().len();
        let fields = came
            .schema_ref()
            .fields()
            .iter()
            .zip(self.rules.schema.fields());
        let fields: Vec<_> = fields
            .map(|(came, own)| {
                came.as_ref()
                    .clone()
                    .with_name(own.name())
                    .with_nullable(true)
            })
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let came = RecordBatch::try_new(schema, came.columns()[..width].to_vec());
        let came = came.map_err(failed)?;
        let mut writer: LineDelimitedWriter<Vec<u8>> = WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, LineDelimited>(Vec::new());
        writer.write(&came).map_err(failed)?;
        writer.finish().map_err(failed)?;
        let text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
        Ok(text.lines().map(Some).collect())
    }
}

//! Whether two answers hold the same rows, in any order: small ones row by row with floats to nine digits, whole
//! tables by what their rows add up to.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::hash_utils::{RandomState, with_hashes};
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;

use crate::Result;

/// Sums of floats depend on the order in which threads finish; this is far above that and far below a wrong row.
const TOLERANCE: f64 = 1e-9;

#[derive(Debug)]
enum Cell {
    Text(String),
    Float(f64),
}

/// An error that shows the first row that differs.
pub(crate) fn same_rows(what: &str, ours: &[RecordBatch], expected: &[RecordBatch]) -> Result<()> {
    let (ours, expected) = (sorted(ours)?, sorted(expected)?);
    if ours.len() != expected.len() {
        return Err(format!(
            "{what}: wrong rows: {} instead of {}",
            ours.len(),
            expected.len()
        )
        .into());
    }
    for (ours, expected) in ours.iter().zip(&expected) {
        let equal =
            ours.len() == expected.len() && ours.iter().zip(expected).all(|(a, b)| same_cell(a, b));
        if !equal {
            return Err(format!("{what}: wrong row: {ours:?} instead of {expected:?}").into());
        }
    }
    Ok(())
}

/// What many rows add up to, in whatever order they come: equal for equal rows, and for others by no chance that
/// anyone will see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    pub rows: u64,
    sum: u64,
}

impl Digest {
    /// Of rows read as those of `schema`: each system has types of its own for the same values.
    pub(crate) async fn of(mut rows: SendableRecordBatchStream, schema: &Schema) -> Result<Self> {
        let mut digest = Self { rows: 0, sum: 0 };
        while let Some(batch) = rows.try_next().await? {
            let columns = schema
                .fields()
                .iter()
                .map(|field| {
                    let column = batch
                        .column_by_name(field.name())
                        .ok_or_else(|| format!("no column {} in the answer", field.name()))?;
                    Ok(cast(column, field.data_type())?)
                })
                .collect::<Result<Vec<_>>>()?;
            digest.rows += batch.num_rows() as u64;
            let sum = with_hashes(&columns, &RandomState::default(), |hashes| {
                Ok(hashes
                    .iter()
                    .fold(0_u64, |sum, hash| sum.wrapping_add(*hash)))
            })?;
            digest.sum = digest.sum.wrapping_add(sum);
        }
        Ok(digest)
    }
}

fn same_cell(a: &Cell, b: &Cell) -> bool {
    match (a, b) {
        (Cell::Text(a), Cell::Text(b)) => a == b,
        (Cell::Float(a), Cell::Float(b)) => {
            a.total_cmp(b).is_eq() || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
        }
        _ => false,
    }
}

fn sorted(batches: &[RecordBatch]) -> Result<Vec<Vec<Cell>>> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| cells(column))
            .collect::<Result<Vec<_>>>()?;
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        for _ in 0..batch.num_rows() {
            rows.push(
                columns
                    .iter_mut()
                    .filter_map(Iterator::next)
                    .collect::<Vec<_>>(),
            );
        }
    }
    // Floats sort by their leading digits only, so that a last digit does not change the order.
    rows.sort_by_cached_key(|row| {
        row.iter()
            .map(|cell| match cell {
                Cell::Text(text) => text.clone(),
                Cell::Float(number) => format!("{number:.6e}"),
            })
            .collect::<Vec<_>>()
    });
    Ok(rows)
}

fn cells(column: &dyn Array) -> Result<Vec<Cell>> {
    let text = ArrayFormatter::try_new(column, &FormatOptions::new().with_null("NULL"))?;
    let cell = |row| match column.data_type() {
        _ if column.is_null(row) => Cell::Text("NULL".into()),
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => Cell::Float(column.as_primitive::<Float32Type>().value(row).into()),
        _ => Cell::Text(text.value(row).to_string()),
    };
    Ok((0..column.len()).map(cell).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Float64Array, Int64Array};
    use std::sync::Arc;

    fn batch(ids: &[i64], numbers: &[f64]) -> RecordBatch {
        let ids: Arc<dyn Array> = Arc::new(Int64Array::from(ids.to_vec()));
        let numbers: Arc<dyn Array> = Arc::new(Float64Array::from(numbers.to_vec()));
        RecordBatch::try_from_iter([("id", ids), ("number", numbers)]).unwrap()
    }

    #[test]
    fn order_and_last_digits_do_not_matter() {
        let ours = [batch(&[2], &[0.1 + 0.2]), batch(&[1], &[f64::NAN])];
        same_rows("q", &ours, &[batch(&[1, 2], &[f64::NAN, 0.3])]).unwrap();
    }

    #[test]
    fn a_missing_or_another_row_is_named() {
        let two = [batch(&[1, 2], &[1.0, 2.0])];
        let missing = same_rows("q", &[batch(&[1], &[1.0])], &two).unwrap_err();
        assert_eq!(missing.to_string(), "q: wrong rows: 1 instead of 2");
        let other = same_rows("q", &[batch(&[1, 2], &[1.0, 2.001])], &two).unwrap_err();
        assert!(other.to_string().starts_with("q: wrong row: "), "{other}");
    }
}

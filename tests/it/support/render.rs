//! Rows to the text that `.slt` files hold, as DataFusion's own files have it.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use sqllogictest::ColumnType;

/// The letter of a column in a `query` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Boolean,
    Date,
    Integer,
    Timestamp,
    /// Floats and decimals.
    Number,
    Text,
    Other,
}

impl ColumnType for Column {
    fn from_char(value: char) -> Option<Self> {
        Some(match value {
            'B' => Self::Boolean,
            'D' => Self::Date,
            'I' => Self::Integer,
            'P' => Self::Timestamp,
            'R' => Self::Number,
            'T' => Self::Text,
            '?' => Self::Other,
            _ => return None,
        })
    }

    fn to_char(&self) -> char {
        match self {
            Self::Boolean => 'B',
            Self::Date => 'D',
            Self::Integer => 'I',
            Self::Timestamp => 'P',
            Self::Number => 'R',
            Self::Text => 'T',
            Self::Other => '?',
        }
    }
}

/// The letters of a schema.
pub(crate) fn columns(schema: &SchemaRef) -> Vec<Column> {
    schema
        .fields()
        .iter()
        .map(|field| column(field.data_type()))
        .collect()
}

fn column(data_type: &DataType) -> Column {
    match data_type {
        DataType::Boolean => Column::Boolean,
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
            Column::Date
        }
        DataType::Timestamp(_, _) => Column::Timestamp,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Column::Text,
        DataType::Dictionary(_, values) => column(values),
        number if number.is_integer() => Column::Integer,
        number if number.is_floating() || number.is_decimal() => Column::Number,
        _ => Column::Other,
    }
}

/// The cells of all rows.
pub(crate) fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, ArrowError> {
    let mut rows = vec![];
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| cell(column, row));
            push(cells.collect::<Result<_, _>>()?, &mut rows);
        }
    }
    Ok(rows)
}

/// A cell of several lines (a plan) takes several rows, because a row is a line of the file.
fn push(cells: Vec<String>, rows: &mut Vec<Vec<String>>) {
    if cells.iter().all(|cell| !cell.contains('\n')) {
        rows.push(cells);
        return;
    }
    for cell in &cells {
        for line in cell.lines().filter(|line| !line.trim().is_empty()) {
            rows.push(vec![line.trim_end().to_owned()]);
        }
    }
}

fn cell(column: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    if column.is_null(row) {
        return Ok("NULL".into());
    }
    Ok(match column.data_type() {
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            float(f64::from(value), value.to_string())
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            float(value, value.to_string())
        }
        decimal if decimal.is_decimal() => without_zeros(display(column, row)?),
        _ => match display(column, row)? {
            text if text.is_empty() => "(empty)".into(),
            text => text,
        },
    })
}

fn display(column: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default()
        .with_null("NULL")
        .with_duration_format(DurationFormat::Pretty);
    Ok(ArrayFormatter::try_new(column, &options)?
        .value(row)
        .to_string())
}

/// Twelve digits after the point: sums of floats differ in the last ones with the order of rows.
fn float(value: f64, shortest: String) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.into()
    } else if shortest
        .split_once('.')
        .is_some_and(|(_, digits)| digits.len() > 12)
    {
        without_zeros(format!("{value:.12}"))
    } else {
        without_zeros(shortest)
    }
}

fn without_zeros(number: String) -> String {
    let trimmed = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => &number,
    };
    match trimmed {
        "-0" => "0".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        Decimal128Array, Float32Array, Float64Array, Int32Array, StringViewArray,
        TimestampMicrosecondArray,
    };
    use datafusion::arrow::datatypes::{Field, Schema, TimeUnit};

    use super::*;

    #[test]
    fn cells_as_datafusions_files_write_them() {
        let time = TimestampMicrosecondArray::from(vec![1_500_000, 0, 0]);
        let batch = RecordBatch::try_from_iter([
            (
                "i",
                Arc::new(Int32Array::from(vec![Some(1), None, Some(-3)])) as ArrayRef,
            ),
            (
                "t",
                Arc::new(StringViewArray::from(vec!["x", "", "two words"])),
            ),
            (
                "f",
                Arc::new(Float64Array::from(vec![2.0, 0.1 + 0.2, f64::NAN])),
            ),
            (
                "g",
                Arc::new(Float32Array::from(vec![0.1, f32::NEG_INFINITY, -0.0])),
            ),
            (
                "d",
                Arc::new(
                    Decimal128Array::from(vec![150, 7, 100_000])
                        .with_precision_and_scale(10, 2)
                        .unwrap(),
                ),
            ),
            ("z", Arc::new(time.clone().with_timezone("UTC"))),
            ("p", Arc::new(time)),
        ])
        .unwrap();
        assert_eq!(
            rows(std::slice::from_ref(&batch)).unwrap(),
            [
                [
                    "1",
                    "x",
                    "2",
                    "0.1",
                    "1.5",
                    "1970-01-01T00:00:01.500Z",
                    "1970-01-01T00:00:01.500"
                ],
                [
                    "NULL",
                    "(empty)",
                    "0.3",
                    "-Infinity",
                    "0.07",
                    "1970-01-01T00:00:00Z",
                    "1970-01-01T00:00:00"
                ],
                [
                    "-3",
                    "two words",
                    "NaN",
                    "0",
                    "1000",
                    "1970-01-01T00:00:00Z",
                    "1970-01-01T00:00:00"
                ],
            ]
        );
        let letters: String = columns(&batch.schema())
            .iter()
            .map(Column::to_char)
            .collect();
        assert_eq!(letters, "ITRRRPP");
    }

    #[test]
    fn a_cell_of_lines_takes_lines() {
        let mut all = vec![];
        push(vec!["plan".into(), "a\n  b\n\n".into()], &mut all);
        assert_eq!(all, [["plan"], ["a"], ["  b"]]);
    }

    #[test]
    fn dictionaries_are_what_they_hold() {
        let held = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let stamp = DataType::Timestamp(TimeUnit::Microsecond, None);
        let list = DataType::new_list(DataType::Int8, true);
        let fields = [held, stamp, list, DataType::Date32, DataType::Boolean]
            .map(|data_type| Field::new("c", data_type, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let letters: String = columns(&schema).iter().map(Column::to_char).collect();
        assert_eq!(letters, "TP?DB");
    }
}

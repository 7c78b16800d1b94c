//! Rows to text. Knows no session and no terminal: batches go in, bytes come out.
//!
//! `csv`, `tsv`, `json`, `jsonl` and `markdown` write each row as it comes; `table` and `box` hold back a bounded
//! number of rows to learn how wide the columns are.

mod csv;
mod json;
mod layout;
mod markdown;
mod table;
mod value;

use std::fmt;
use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use clap::ValueEnum;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns between ASCII lines
    Table,
    /// RFC 4180; NULL is an empty field, an empty text is ""
    Csv,
    /// PostgreSQL's COPY text: tabs, NULL is \N, backslash escapes
    Tsv,
    /// One array of objects per result
    Json,
    /// One object per row
    Jsonl,
    /// A table as GitHub renders it
    Markdown,
    /// Columns between drawn lines
    Box,
}

/// How much of a result is shown; the default is all of it. Only for formats that a person reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Rows shown of a longer result: the first and the last ones.
    pub(crate) max_rows: Option<usize>,
    /// Columns of the terminal that the result has to fit in.
    pub(crate) max_width: Option<usize>,
}

/// Writes one result: every batch, then the end.
pub(crate) trait Renderer {
    /// Takes rows; may hold some of them back.
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<(), RenderError>;
    /// Writes what was held back, closes the result and tells what of it was not written.
    fn finish(&mut self, out: &mut dyn Write) -> Result<LeftOut, RenderError>;
}

/// What a person was not shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) rows: u64,
    pub(crate) columns: usize,
}

impl Format {
    /// Whether a person reads it: then a count of rows follows the result and empty lines part the results.
    pub(crate) fn for_people(self) -> bool {
        matches!(self, Self::Table | Self::Box | Self::Markdown)
    }

    /// A renderer for one result with these columns.
    pub(crate) fn renderer(self, schema: &SchemaRef, shape: Shape) -> Box<dyn Renderer> {
        match self {
            Self::Table => Box::new(table::Table::new(schema, &table::ASCII, shape)),
            Self::Box => Box::new(table::Table::new(schema, &table::DRAWN, shape)),
            Self::Csv => Box::new(csv::Delimited::csv(schema)),
            Self::Tsv => Box::new(csv::Delimited::tsv(schema)),
            Self::Json => Box::new(json::Json::array(schema)),
            Self::Jsonl => Box::new(json::Json::lines(schema)),
            Self::Markdown => Box::new(markdown::Markdown::new(schema)),
        }
    }
}

/// Why a result could not be written.
#[derive(Debug)]
pub(crate) enum RenderError {
    /// The output is closed or full.
    Output(io::Error),
    /// A value has no text in this format.
    Value(ArrowError),
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(error) => error.fmt(f),
            Self::Value(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for RenderError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<ArrowError> for RenderError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, error) => Self::Output(error),
            other => Self::Value(other),
        }
    }
}

/// Numbers stand at the right of their column, so that digits of one weight stand below each other.
fn right_aligned(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => right_aligned(values),
        other => other.is_numeric(),
    }
}

#[cfg(test)]
mod tests {
    //! Every format over the same rows.

    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
        Int32Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Int32Type, Schema};

    use super::*;

    pub(crate) fn render(format: Format, shape: Shape, batches: &[RecordBatch]) -> String {
        let mut out = Vec::new();
        let mut renderer = format.renderer(&batches[0].schema(), shape);
        for batch in batches {
            renderer.batch(&mut out, batch).unwrap();
        }
        renderer.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    pub(crate) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let columns = columns.into_iter().map(|(name, array)| (name, array, true));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    pub(crate) fn people() -> RecordBatch {
        batch(vec![
            ("id", Arc::new(Int32Array::from(vec![1, 20, 300]))),
            (
                "name",
                Arc::new(StringArray::from(vec![Some("Zoë, \"Z\""), None, Some("")])),
            ),
            (
                "paid",
                Arc::new(
                    Decimal128Array::from(vec![Some(1250), Some(-5), None])
                        .with_precision_and_scale(12, 2)
                        .unwrap(),
                ),
            ),
        ])
    }

    pub(crate) fn all_types() -> RecordBatch {
        let tags = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
        ]);
        let place = StructArray::from(vec![(
            Arc::new(Field::new("city", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec![Some("Rhône|\"x\""), None])) as ArrayRef,
        )]);
        let colour: DictionaryArray<Int32Type> = vec![Some("red"), None].into_iter().collect();
        let instant = TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_000), None]);
        batch(vec![
            ("ok", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("ratio", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
            ("day", Arc::new(Date32Array::from(vec![Some(19_000), None]))),
            ("at", Arc::new(instant.clone())),
            ("at_zone", Arc::new(instant.with_timezone("+00:00"))),
            ("tags", Arc::new(tags)),
            ("place", Arc::new(place)),
            ("colour", Arc::new(colour)),
        ])
    }

    #[test]
    fn csv_tells_null_from_empty_text() {
        assert_eq!(
            render(Format::Csv, Shape::default(), &[people()]),
            "id,name,paid\n1,\"Zoë, \"\"Z\"\"\",12.50\n20,,-0.05\n300,\"\",\n"
        );
        assert_eq!(
            render(Format::Csv, Shape::default(), &[all_types()]),
            "ok,ratio,day,at,at_zone,tags,place,colour\n\
             true,0.5,2022-01-08,2023-11-14 22:13:20.123,2023-11-14 22:13:20.123+00:00,\"[1,null]\",\
             \"{\"\"city\"\":\"\"Rhône|\\\"\"x\\\"\"\"\"}\",red\n\
             ,,,,,,\"{\"\"city\"\":null}\",\n"
        );
    }

    #[test]
    fn tsv_escapes_like_copy() {
        let odd = batch(vec![(
            "a\tb",
            Arc::new(StringArray::from(vec![Some("x\ty\\\n"), Some(""), None])),
        )]);
        assert_eq!(
            render(Format::Tsv, Shape::default(), &[odd]),
            "a\\tb\nx\\ty\\\\\\n\n\n\\N\n"
        );
    }

    #[test]
    fn json_keeps_nulls_nesting_and_decimal_digits() {
        assert_eq!(
            render(Format::Jsonl, Shape::default(), &[people()]),
            "{\"id\":1,\"name\":\"Zoë, \\\"Z\\\"\",\"paid\":12.50}\n\
             {\"id\":20,\"name\":null,\"paid\":-0.05}\n\
             {\"id\":300,\"name\":\"\",\"paid\":null}\n"
        );
        assert_eq!(
            render(Format::Json, Shape::default(), &[all_types()]),
            "[{\"ok\":true,\"ratio\":0.5,\"day\":\"2022-01-08\",\"at\":\"2023-11-14T22:13:20.123\",\
             \"at_zone\":\"2023-11-14T22:13:20.123Z\",\"tags\":[1,null],\"place\":{\"city\":\"Rhône|\\\"x\\\"\"},\
             \"colour\":\"red\"},\n\
             {\"ok\":null,\"ratio\":null,\"day\":null,\"at\":null,\"at_zone\":null,\"tags\":null,\
             \"place\":{\"city\":null},\"colour\":null}]\n"
        );
    }

    #[test]
    fn json_streams_batches_into_one_array() {
        let one = batch(vec![("n", Arc::new(Int32Array::from(vec![1])))]);
        let none = one.slice(0, 0);
        assert_eq!(
            render(
                Format::Json,
                Shape::default(),
                &[none.clone(), one.clone(), one]
            ),
            "[{\"n\":1},\n{\"n\":1}]\n"
        );
        assert_eq!(
            render(Format::Json, Shape::default(), std::slice::from_ref(&none)),
            "[]\n"
        );
        assert_eq!(render(Format::Jsonl, Shape::default(), &[none]), "");
    }

    #[test]
    fn json_keys_are_unique() {
        let one: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let fields = ["id", "id", "id_2", "id"].map(|name| Field::new(name, DataType::Int32, true));
        let columns = vec![Arc::clone(&one), Arc::clone(&one), Arc::clone(&one), one];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).unwrap();
        assert_eq!(
            render(Format::Jsonl, Shape::default(), &[batch]),
            "{\"id\":1,\"id_3\":1,\"id_2\":1,\"id_4\":1}\n"
        );
    }

    #[test]
    fn markdown_escapes_bars_and_line_ends() {
        let odd = batch(vec![
            (
                "a|b",
                Arc::new(StringArray::from(vec![Some("x|y\nz"), None])),
            ),
            ("n", Arc::new(Int32Array::from(vec![Some(1), None]))),
        ]);
        assert_eq!(
            render(Format::Markdown, Shape::default(), &[odd]),
            "| a\\|b | n |\n| --- | ---: |\n| x\\|y<br>z | 1 |\n| NULL | NULL |\n"
        );
    }

    #[test]
    fn an_empty_result_keeps_its_columns() {
        let none = people().slice(0, 0);
        let empty = |format| render(format, Shape::default(), std::slice::from_ref(&none));
        assert_eq!(empty(Format::Csv), "id,name,paid\n");
        assert_eq!(empty(Format::Tsv), "id\tname\tpaid\n");
        assert_eq!(
            empty(Format::Markdown),
            "| id | name | paid |\n| ---: | --- | ---: |\n"
        );
        assert_eq!(
            empty(Format::Table),
            "+----+------+------+\n| id | name | paid |\n+----+------+------+\n+----+------+------+\n"
        );
    }

    #[test]
    fn a_closed_output_is_told_apart() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for format in Format::value_variants() {
            let mut renderer = format.renderer(&people().schema(), Shape::default());
            let written = renderer.batch(&mut Closed, &people());
            let error = written
                .and_then(|()| renderer.finish(&mut Closed).map(drop))
                .unwrap_err();
            assert!(
                matches!(error, RenderError::Output(_)),
                "{format:?}: {error:?}"
            );
        }
    }
}

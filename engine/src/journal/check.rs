//! What is wrong with the intervals of a journal. No row is proof: every interval was looked at.
//!
//! Intervals come in the order of keys and begins, so that one look at each and at the one before it tells all. A gap
//! is no fault: the key was deleted in between.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};

use super::definition::FAR_FUTURE_MICROS;
use super::key::{self, KeyOrder};
use super::shape::Shape;
use crate::error::{Error, Result};

/// A key has no value in one of its columns.
const NULL_KEY: &str = "null_key";
/// An interval does not say when it begins.
const NULL_FROM: &str = "null_from";
/// An interval ends before it begins, or where it begins.
const EMPTY: &str = "empty";
/// Two intervals of a key have an instant in common.
const OVERLAP: &str = "overlap";
/// Two intervals of a key are marked as current.
const TWO_CURRENT: &str = "two_current";
/// An interval is marked as current and has an end, or has none and is not.
const FLAG: &str = "flag";

/// Columns of what is told of each fault.
pub(crate) fn schema() -> SchemaRef {
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let times = ["valid_from", "valid_to", "other_from", "other_to"];
    let texts = ["kind", "key"].map(|name| Field::new(name, DataType::Utf8, false));
    let times = times.map(|name| Field::new(name, instant.clone(), true));
    Arc::new(Schema::new(
        texts.into_iter().chain(times).collect::<Vec<_>>(),
    ))
}

/// The faults of intervals, which come with all columns of the table in its order, sorted by key and begin. That two
/// say the same is none: intervals stay when the values that told them apart go.
pub(crate) fn violations(
    shape: &Arc<Shape>,
    sorted: SendableRecordBatchStream,
) -> Result<SendableRecordBatchStream> {
    let mut check = Check::new(shape)?;
    let found = sorted
        .map(move |batch| check.next(&batch?).map_err(DataFusionError::from))
        .try_filter(|faults| std::future::ready(faults.num_rows() > 0));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema(), found)))
}

/// From and to; no end where it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval {
    from: Option<i64>,
    to: Option<i64>,
}

impl Interval {
    fn ends_after(self, at: i64) -> bool {
        self.to.is_none_or(|to| to > at)
    }
}

/// What is known of the key whose intervals come.
#[derive(Debug, Default)]
struct Seen {
    /// The interval that ends last.
    reach: Option<Interval>,
    current: Option<Interval>,
}

struct Check {
    shape: Arc<Shape>,
    order: KeyOrder,
    seen: Seen,
    /// The last row of the batch before.
    last: Option<RecordBatch>,
}

/// A batch, and the row before it.
struct Rows<'a> {
    declared: &'a RecordBatch,
    from: TimestampMicrosecondArray,
    to: TimestampMicrosecondArray,
    current: &'a BooleanArray,
    far_future: bool,
}

impl Rows<'_> {
    fn interval(&self, row: usize) -> Interval {
        let from = self.from.is_valid(row).then(|| self.from.value(row));
        let to = self.to.is_valid(row).then(|| self.to.value(row));
        Interval {
            from,
            to: to.filter(|to| !self.far_future || *to != FAR_FUTURE_MICROS),
        }
    }

    fn is_current(&self, row: usize) -> bool {
        self.current.is_valid(row) && self.current.value(row)
    }
}

impl Check {
    fn new(shape: &Arc<Shape>) -> Result<Self> {
        Ok(Self {
            order: KeyOrder::new(shape)?,
            shape: Arc::clone(shape),
            seen: Seen::default(),
            last: None,
        })
    }

    /// The faults that a batch shows.
    fn next(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut faults = Faults::default();
        if batch.num_rows() == 0 {
            return faults.finish();
        }
        let (rows, first) = match self.last.take() {
            Some(last) => (
                concat_batches(batch.schema_ref(), [&last, batch]).map_err(unexpected)?,
                1,
            ),
            None => (batch.clone(), 0),
        };
        self.last = Some(batch.slice(batch.num_rows() - 1, 1));

        let declared = rows.project(&self.shape.places).map_err(unexpected)?;
        let keys = self.order.rows(&declared)?;
        let view = Rows {
            declared: &declared,
            from: self.instants(&rows, self.shape.from)?,
            to: self.instants(&rows, self.shape.to)?,
            current: self.flags(&rows)?,
            far_future: self.shape.far_future(),
        };
        for row in first..rows.num_rows() {
            let known = row > 0 && keys.row(row) == keys.row(row - 1);
            if !known {
                self.seen = Seen::default();
            }
            self.ask(&view, row, &mut faults)?;
        }
        faults.finish()
    }

    fn ask(&mut self, rows: &Rows<'_>, row: usize, faults: &mut Faults) -> Result<()> {
        let (own, current) = (rows.interval(row), rows.is_current(row));
        let key = || key::shown(&self.shape, rows.declared, row);
        let mut keys = self.shape.keys.iter();
        if keys.any(|at| rows.declared.column(*at).is_null(row)) {
            // Of what the others are intervals nobody knows.
            faults.add(NULL_KEY, key()?, own, None);
            return Ok(());
        }
        let Some(from) = own.from else {
            faults.add(NULL_FROM, key()?, own, None);
            return Ok(());
        };
        if current != own.to.is_none() {
            faults.add(FLAG, key()?, own, None);
        }
        if !own.ends_after(from) {
            faults.add(EMPTY, key()?, own, None);
            return Ok(());
        }
        if let Some(other) = self.seen.current.filter(|_| current) {
            faults.add(TWO_CURRENT, key()?, own, Some(other));
        }
        let reach = self.seen.reach;
        if let Some(other) = reach.filter(|reach| reach.ends_after(from)) {
            faults.add(OVERLAP, key()?, own, Some(other));
        }
        if current {
            self.seen.current = Some(own);
        }
        let further = match (reach, own.to) {
            (None, _) | (Some(Interval { to: Some(_), .. }), None) => true,
            (Some(reach), Some(to)) => !reach.ends_after(to),
            (Some(_), None) => false,
        };
        if further {
            self.seen.reach = Some(own);
        }
        Ok(())
    }

    fn instants(&self, rows: &RecordBatch, at: usize) -> Result<TimestampMicrosecondArray> {
        let column = self.column(rows, at)?;
        let instants = column.as_primitive_opt::<TimestampMicrosecondType>();
        instants
            .cloned()
            .ok_or_else(|| self.corrupt(at, column.data_type()))
    }

    fn flags<'a>(&self, rows: &'a RecordBatch) -> Result<&'a BooleanArray> {
        let at = self.shape.current;
        let column = self.column(rows, at)?;
        column
            .as_boolean_opt()
            .ok_or_else(|| self.corrupt(at, column.data_type()))
    }

    fn column<'a>(&self, rows: &'a RecordBatch, at: usize) -> Result<&'a ArrayRef> {
        rows.columns().get(at).ok_or_else(|| {
            Error::internal(format!(
                "intervals of table {} came without their column {at}",
                self.shape.table
            ))
        })
    }

    fn corrupt(&self, at: usize, found: &DataType) -> Error {
        let name = self.shape.stored.fields().get(at);
        Error::corrupt(format!(
            "period column {} of table {} is {found}",
            name.map_or("?", |field| field.name()),
            self.shape.table
        ))
    }
}

/// Faults, column by column.
#[derive(Default)]
struct Faults {
    kinds: Vec<&'static str>,
    keys: Vec<String>,
    times: [Vec<Option<i64>>; 4],
}

impl Faults {
    fn add(&mut self, kind: &'static str, key: String, own: Interval, other: Option<Interval>) {
        self.kinds.push(kind);
        self.keys.push(key);
        let (other_from, other_to) = other.map_or((None, None), |other| (other.from, other.to));
        let values = [own.from, own.to, other_from, other_to];
        for (times, value) in self.times.iter_mut().zip(values) {
            times.push(value);
        }
    }

    fn finish(self) -> Result<RecordBatch> {
        let kinds: ArrayRef = Arc::new(StringArray::from(self.kinds));
        let keys: ArrayRef = Arc::new(StringArray::from(self.keys));
        let times = self.times.into_iter().map(|times| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        });
        let columns = [kinds, keys].into_iter().chain(times).collect();
        RecordBatch::try_new(schema(), columns).map_err(unexpected)
    }
}

fn unexpected(error: ArrowError) -> Error {
    Error::internal(format!("intervals that are checked: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use futures::stream;

    use super::*;
    use crate::journal::definition::Definition;

    fn shape() -> Arc<Shape> {
        let definition = Definition::plain(&["k"], None);
        let declared = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("v", DataType::Int64, true),
        ]));
        let stored = Shape::with_period(&declared, &definition.columns).unwrap();
        Arc::new(Shape::new("s.t", definition, &stored).unwrap())
    }

    /// Key, value, from, to, current.
    type Row = (Option<i64>, i64, Option<i64>, Option<i64>, bool);

    fn batch(shape: &Shape, rows: &[Row]) -> RecordBatch {
        let of = |get: fn(&Row) -> Option<i64>| -> ArrayRef {
            Arc::new(rows.iter().map(get).collect::<Int64Array>())
        };
        let instants = |get: fn(&Row) -> Option<i64>| -> ArrayRef {
            let values: TimestampMicrosecondArray = rows.iter().map(get).collect();
            Arc::new(values.with_timezone("UTC"))
        };
        let current: BooleanArray = rows.iter().map(|row| Some(row.4)).collect();
        let columns: Vec<ArrayRef> = vec![
            of(|row| row.0),
            of(|row| Some(row.1)),
            instants(|row| row.2),
            instants(|row| row.3),
            Arc::new(current),
        ];
        let fields = shape.stored.fields().iter();
        let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, columns).unwrap()
    }

    /// Kind, key, begin of the interval and of the other one.
    async fn found(rows: &[Row], batch_rows: usize) -> Vec<(String, String, i64, i64)> {
        let shape = shape();
        let batches: Vec<_> = rows
            .chunks(batch_rows)
            .map(|rows| Ok(batch(&shape, rows)))
            .collect();
        let schema = batch(&shape, &[]).schema();
        let sorted = RecordBatchStreamAdapter::new(schema, stream::iter(batches));
        let faults = violations(&shape, Box::pin(sorted)).unwrap();
        let faults: Vec<RecordBatch> = faults.try_collect().await.unwrap();
        let mut all = Vec::new();
        for batch in faults {
            for row in 0..batch.num_rows() {
                let text = |at: usize| batch.column(at).as_string::<i32>().value(row).to_owned();
                let time = |at: usize| {
                    let times = batch.column(at).as_primitive::<TimestampMicrosecondType>();
                    if times.is_null(row) {
                        -1
                    } else {
                        times.value(row)
                    }
                };
                all.push((text(0), text(1), time(2), time(4)));
            }
        }
        all
    }

    #[tokio::test]
    async fn intervals_as_they_should_be_have_no_fault() {
        let rows = [
            (Some(1), 1, Some(1), Some(5), false),
            (Some(1), 2, Some(5), Some(7), false),
            // It was deleted, and came back as it was.
            (Some(1), 2, Some(9), None, true),
            (Some(2), 2, Some(1), Some(2), false),
            (Some(3), 2, Some(2), None, true),
        ];
        for size in 1..=rows.len() {
            assert!(found(&rows, size).await.is_empty());
        }
    }

    #[tokio::test]
    async fn each_fault_is_told_wherever_batches_end() {
        let rows = [
            (Some(1), 1, Some(1), Some(9), false),
            // Within the first, and the next one as well, though this one has ended.
            (Some(1), 2, Some(2), Some(3), false),
            (Some(1), 3, Some(4), Some(6), false),
            (Some(2), 1, Some(3), Some(3), false),
            (Some(3), 1, Some(1), None, true),
            (Some(3), 2, Some(2), None, true),
            (Some(4), 1, Some(1), None, false),
            (Some(5), 1, Some(1), Some(2), false),
            (Some(5), 1, Some(2), Some(4), true),
            (Some(6), 1, None, None, true),
            (None, 1, Some(1), None, true),
        ];
        let expected = [
            ("overlap", "k = 1", 2, 1),
            ("overlap", "k = 1", 4, 1),
            ("empty", "k = 2", 3, -1),
            ("two_current", "k = 3", 2, 1),
            ("overlap", "k = 3", 2, 1),
            ("flag", "k = 4", 1, -1),
            ("flag", "k = 5", 2, -1),
            ("null_from", "k = 6", -1, -1),
            ("null_key", "k = NULL", 1, -1),
        ];
        let expected =
            expected.map(|(kind, key, from, other)| (kind.to_owned(), key.to_owned(), from, other));
        for size in 1..=rows.len() {
            assert_eq!(found(&rows, size).await, expected, "{size}");
        }
    }
}

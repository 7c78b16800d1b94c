//! What happens to the rows of a journal: events, and the intervals that they make.
//!
//! An event is a whole row with three riders: when, whether its key ends, and which columns it says nothing of. An
//! interval is a row with the two instants between which it is true. Both begin with the declared columns in their
//! order, so that whoever has either finds keys and values in the same places.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use super::definition::FAR_FUTURE_MICROS;
use super::key;
use super::shape::Shape;
use crate::error::{Error, Result};
use crate::table::located;

/// When the event is true from: microseconds, never NULL.
pub(crate) const SEQUENCE: &str = "__selvedge_sequence";
/// Whether the key ends there. A statement may leave it NULL, which is no.
pub(crate) const DELETE: &str = "__selvedge_delete";
/// Columns that keep their value. NULL: those of the NULLs that the table says are none (`keeps_null`). Else exactly
/// the columns whose bit is set, the lowest first, so that an empty one is a whole row, in which NULL means NULL.
pub(crate) const KEEP: &str = "__selvedge_keep";
/// Marks what is no event but the state of a key before its first kept one.
pub(crate) const ANCHOR: &str = "__selvedge_anchor";
/// Begin of an interval, microseconds.
pub(crate) const FROM: &str = "__selvedge_from";
/// End of an interval, microseconds; NULL where it is open.
pub(crate) const TO: &str = "__selvedge_to";

const MICROS_OF_DAY: i64 = 86_400_000_000;

/// Columns of events.
pub(crate) fn event_schema(shape: &Shape) -> SchemaRef {
    with(shape.flow.fields().iter().cloned(), riders())
}

/// Columns of events that wait, and of anchors. Older files may lack a column, so all may be NULL.
pub(crate) fn kept_schema(shape: &Shape) -> SchemaRef {
    let declared = shape.flow.fields().iter();
    let declared = declared.map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    let anchor = Field::new(ANCHOR, DataType::Boolean, false);
    with(declared, riders().into_iter().chain([anchor]))
}

/// Columns of intervals, with the place of each.
pub(crate) fn stored_schema(shape: &Shape) -> SchemaRef {
    let places = [
        Field::new(FROM, DataType::Int64, false),
        Field::new(TO, DataType::Int64, true),
        Field::new(located::FILE, DataType::UInt32, false),
        Field::new(located::ROW, DataType::Int64, false),
    ];
    with(shape.flow.fields().iter().cloned(), places)
}

fn riders() -> [Field; 3] {
    [
        Field::new(SEQUENCE, DataType::Int64, false),
        Field::new(DELETE, DataType::Boolean, false),
        Field::new(KEEP, DataType::Binary, true),
    ]
}

fn with(
    declared: impl Iterator<Item = FieldRef>,
    more: impl IntoIterator<Item = Field>,
) -> SchemaRef {
    let fields = declared.chain(more.into_iter().map(Arc::new));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Intervals as the table holds them, to intervals as they are folded.
pub(crate) fn from_stored(shape: &Shape, physical: &RecordBatch) -> Result<RecordBatch> {
    let named = |name: &str| {
        physical.column_by_name(name).cloned().ok_or_else(|| {
            Error::internal(format!(
                "intervals of {} have no column {name}",
                shape.table
            ))
        })
    };
    let mut columns = Vec::with_capacity(shape.flow.fields().len() + 4);
    for field in shape.flow.fields() {
        columns.push(fitting(named(field.name())?, field.data_type())?);
    }
    let from = instants(&named(&shape.definition.columns.from)?)?;
    let mut to = instants(&named(&shape.definition.columns.to)?)?;
    if shape.far_future() {
        to = to
            .iter()
            .map(|to| to.filter(|to| *to != FAR_FUTURE_MICROS))
            .collect();
    }
    columns.push(Arc::new(from));
    columns.push(Arc::new(to));
    columns.push(named(located::FILE)?);
    columns.push(named(located::ROW)?);
    RecordBatch::try_new(stored_schema(shape), columns).map_err(|error| {
        // A key without a value or an interval without a begin is nothing that was ever written here.
        Error::corrupt(format!("table {} has intervals that are none", shape.table))
            .with_detail(error.to_string())
            .with_source(error)
    })
}

/// Intervals as the table holds them, of the declared columns in their order and the instants, NULL for an open end.
///
/// # Errors
/// When a column that takes no NULL has none to take: an event kept its old value, and there is none.
pub(crate) fn to_stored(
    shape: &Shape,
    declared: &[ArrayRef],
    from: &Int64Array,
    to: &Int64Array,
) -> Result<RecordBatch> {
    whole(shape, declared)?;
    let mut columns: Vec<Option<ArrayRef>> = vec![None; shape.stored.fields().len()];
    let mut place = |at: usize, values: ArrayRef| match columns.get_mut(at) {
        Some(column) => {
            *column = Some(values);
            Ok(())
        }
        None => Err(Error::internal(format!(
            "table {} has no column {at}",
            shape.table
        ))),
    };
    for (at, values) in shape.places.iter().zip(declared) {
        place(*at, Arc::clone(values))?;
    }
    let current = BooleanArray::from_iter((0..to.len()).map(|row| Some(to.is_null(row))));
    let ends = match shape.far_future() {
        true => to
            .iter()
            .map(|to| Some(to.unwrap_or(FAR_FUTURE_MICROS)))
            .collect(),
        false => to.clone(),
    };
    place(shape.from, stamps(shape, shape.from, from)?)?;
    place(shape.to, stamps(shape, shape.to, &ends)?)?;
    place(shape.current, Arc::new(current))?;
    let columns: Option<Vec<ArrayRef>> = columns.into_iter().collect();
    let columns = columns.ok_or_else(|| {
        Error::internal(format!(
            "an interval of table {} lacks a column",
            shape.table
        ))
    })?;
    RecordBatch::try_new(Arc::clone(&shape.stored), columns).map_err(broken)
}

/// Sees that every column has its values.
fn whole(shape: &Shape, declared: &[ArrayRef]) -> Result<()> {
    for (field, values) in shape.declared.fields().iter().zip(declared) {
        let Some(nulls) = values.logical_nulls() else {
            continue;
        };
        if field.is_nullable() || nulls.null_count() == 0 {
            continue;
        }
        let first = (0..values.len()).find(|row| nulls.is_null(*row));
        let rows = RecordBatch::try_new(Arc::clone(&shape.flow), declared.to_vec());
        let key = match (rows, first) {
            (Ok(rows), Some(first)) => key::shown(shape, &rows, first)?,
            _ => String::from("unknown"),
        };
        return Err(Error::rejected(format!(
            "table {}: {} rows have no value in column {}, which is NOT NULL, first {key}",
            shape.table,
            nulls.null_count(),
            field.name()
        ))
        .with_detail(
            "the change says nothing of the column, and there is no earlier value to keep",
        ));
    }
    Ok(())
}

/// Values of a sequence column as microseconds: instants as they are, a timestamp without a zone as one of UTC, a
/// date as its beginning in UTC.
///
/// # Errors
/// When one is before or after what microseconds tell, or is the instant that stands for the open end.
pub(crate) fn micros(shape: &Shape, column: &ArrayRef) -> Result<Int64Array> {
    let far = |days: i32| {
        Error::rejected(format!(
            "table {}: the day {days} after 1970-01-01 of its sequence is no instant in microseconds",
            shape.table
        ))
    };
    let micros: Int64Array = match column.data_type() {
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>();
            days.try_unary::<_, Int64Type, _>(|days| {
                i64::from(days)
                    .checked_mul(MICROS_OF_DAY)
                    .ok_or_else(|| far(days))
            })?
        }
        DataType::Timestamp(..) => instants(column)?,
        other => {
            return Err(Error::internal(format!(
                "the sequence of table {} is {other}, no point in time",
                shape.table
            )));
        }
    };
    let at_end = |micros: &i64| *micros >= FAR_FUTURE_MICROS;
    if shape.far_future() && micros.iter().flatten().any(|micros| at_end(&micros)) {
        return Err(Error::rejected(format!(
            "table {}: 9999-12-31 stands for the open end there, and a sequence reaches it",
            shape.table
        )));
    }
    Ok(micros)
}

/// Sets the bit of a column in [`KEEP`].
pub(crate) fn set_keep(bits: &mut Vec<u8>, column: usize) {
    let byte = column / 8;
    if bits.len() <= byte {
        bits.resize(byte + 1, 0);
    }
    if let Some(byte) = bits.get_mut(byte) {
        *byte |= 1 << (column % 8);
    }
}

/// Whether [`KEEP`] names the column. Where it is NULL it names none: the table's own terms hold.
pub(crate) fn keeps(bits: Option<&[u8]>, column: usize) -> bool {
    let byte = bits.and_then(|bits| bits.get(column / 8));
    byte.is_some_and(|byte| byte & (1 << (column % 8)) != 0)
}

/// Timestamps of any unit as microseconds.
fn instants(column: &ArrayRef) -> Result<Int64Array> {
    let unit = match column.data_type() {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => return Err(Error::internal(format!("an instant is a {other}"))),
    };
    let column = fitting(Arc::clone(column), &unit)?;
    let stamps = column.as_primitive::<TimestampMicrosecondType>();
    Ok(stamps.reinterpret_cast::<Int64Type>())
}

/// Microseconds as the timestamps of a column of the table.
fn stamps(shape: &Shape, at: usize, micros: &Int64Array) -> Result<ArrayRef> {
    let stamps = micros.reinterpret_cast::<TimestampMicrosecondType>();
    let field =
        shape.stored.fields().get(at).ok_or_else(|| {
            Error::internal(format!("table {} has no period columns", shape.table))
        })?;
    match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Ok(Arc::new(stamps.with_timezone_opt(zone.clone())))
        }
        other => Err(Error::corrupt(format!(
            "period column {} of table {} is {other}",
            field.name(),
            shape.table
        ))),
    }
}

fn fitting(column: ArrayRef, to: &DataType) -> Result<ArrayRef> {
    match column.data_type() == to {
        true => Ok(column),
        false => cast(&column, to).map_err(broken),
    }
}

fn broken(error: ArrowError) -> Error {
    Error::internal(format!("rows of a journal: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Date32Array, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt32Array,
    };

    use super::super::definition::{Definition, OpenEnd, PeriodColumns};
    use super::*;

    fn shape(open_end: OpenEnd) -> Shape {
        let definition = Definition {
            columns: PeriodColumns::named("dbt").unwrap(),
            open_end,
            ..Definition::plain(&["k"], Some("day"))
        };
        let declared: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, false),
            Field::new("day", DataType::Date32, true),
            Field::new("city", DataType::Utf8, false),
        ]));
        let stored = Shape::with_period(&declared, &definition.columns).unwrap();
        Shape::new("s.t", definition, &stored).unwrap()
    }

    fn declared(city: Option<&str>) -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(vec![7, 8])),
            Arc::new(Date32Array::from(vec![1, 2])),
            Arc::new(StringArray::from(vec![Some("x"), city])),
        ]
    }

    #[test]
    fn intervals_are_stored_and_come_back() {
        for open_end in [OpenEnd::Null, OpenEnd::FarFuture] {
            let far = open_end == OpenEnd::FarFuture;
            let shape = shape(open_end);
            let (from, to) = (
                Int64Array::from(vec![1, 5]),
                Int64Array::from(vec![Some(5), None]),
            );
            let batch = to_stored(&shape, &declared(Some("y")), &from, &to).unwrap();
            let ends = batch
                .column(shape.to)
                .as_primitive::<TimestampMicrosecondType>();
            let end = far.then_some(FAR_FUTURE_MICROS);
            assert_eq!(ends.iter().collect::<Vec<_>>(), [Some(5), end]);
            let current = batch.column(shape.current).as_boolean().iter();
            assert_eq!(current.collect::<Vec<_>>(), [Some(false), Some(true)]);

            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(UInt32Array::from(vec![0, 0])));
            columns.push(Arc::new(Int64Array::from(vec![0, 1])));
            let places = [
                Field::new(located::FILE, DataType::UInt32, false),
                Field::new(located::ROW, DataType::Int64, false),
            ];
            let schema = with(batch.schema().fields().iter().cloned(), places);
            let located = RecordBatch::try_new(schema, columns).unwrap();
            let back = from_stored(&shape, &located).unwrap();
            assert_eq!(back.schema(), stored_schema(&shape));
            let back = |name: &str| {
                back.column_by_name(name)
                    .unwrap()
                    .as_primitive::<Int64Type>()
            };
            assert_eq!((back(FROM), back(TO)), (&from, &to));
        }
    }

    #[test]
    fn a_value_that_must_be_there_is_missed() {
        let (from, to) = (Int64Array::from(vec![1, 5]), Int64Array::from(vec![2, 6]));
        let error = to_stored(&shape(OpenEnd::Null), &declared(None), &from, &to).unwrap_err();
        assert_eq!(
            error.message(),
            "table s.t: 1 rows have no value in column city, which is NOT NULL, first k = 8"
        );
    }

    #[test]
    fn sequences_are_microseconds() {
        let plain = shape(OpenEnd::Null);
        let read = |column: ArrayRef| micros(&plain, &column).map(|at| at.value(0));
        assert_eq!(
            read(Arc::new(Date32Array::from(vec![-1]))).unwrap(),
            -MICROS_OF_DAY
        );
        assert!(read(Arc::new(Date32Array::from(vec![i32::MAX]))).is_err());
        let nanos = TimestampNanosecondArray::from(vec![5_000]);
        assert_eq!(read(Arc::new(nanos)).unwrap(), 5);
        let end = || -> ArrayRef {
            let end = TimestampMicrosecondArray::from(vec![FAR_FUTURE_MICROS]);
            Arc::new(end.with_timezone("UTC"))
        };
        assert_eq!(read(end()).unwrap(), FAR_FUTURE_MICROS);
        assert!(micros(&shape(OpenEnd::FarFuture), &end()).is_err());
    }

    #[test]
    fn columns_that_are_kept_are_bits() {
        let mut bits = Vec::new();
        set_keep(&mut bits, 9);
        set_keep(&mut bits, 0);
        assert_eq!(bits, [1, 2]);
        let kept = (0..20).filter(|column| keeps(Some(&bits), *column));
        assert_eq!(kept.collect::<Vec<_>>(), [0, 9]);
        assert!(!keeps(None, 0));
    }
}

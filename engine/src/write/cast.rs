//! Values into the type of a table's column, unchanged or not at all.
//!
//! Nothing wraps, is cut, is rounded or turns into NULL. What a type can never hold is refused when the
//! write is planned ([`Cast::plan`]); what a single value cannot is counted row by row ([`CastFailure`]).
//! Where every value of the source fits, no value is looked at.

mod nested;
mod number;
mod time;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayAccessor, ArrayRef, AsArray, BooleanArray, PrimitiveArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
    Decimal128Type, Decimal256Type, Field, Float16Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use number::Number;

use crate::shown::{HIDDEN, shown, sql_name};
use crate::table::schema::personal;

/// Why one value does not fit, as a phrase that follows the value.
type Flaw = &'static str;

/// The rows of one array that do not fit their new type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CastFailure {
    /// All of them, ascending.
    pub rows: Vec<usize>,
    /// The first few offending values as text.
    pub first: Vec<String>,
    /// What is wrong with the first one.
    pub reason: String,
    /// Where below the column the values are (`.city`, `[]`); empty for the column itself.
    pub path: String,
    /// SQL name of the type they do not fit.
    pub to: String,
}

impl CastFailure {
    /// The first few offending values, for a message about `column`: not of one that tells something of a person.
    pub(crate) fn shown(&self, column: &Field) -> String {
        match personal(column) {
            true => HIDDEN.to_owned(),
            false => self.first.join(", "),
        }
    }
}

/// A conversion from one type to another, chosen once and run on every batch.
#[derive(Debug, Clone)]
pub(crate) enum Cast {
    /// The array as it is.
    Same,
    /// An array without values.
    Nulls(DataType),
    /// Every value of the source fits: no check.
    Widen(DataType),
    /// Dictionaries and runs: first their plain values.
    Unpack(DataType, Box<Cast>),
    /// A check for each value.
    Values(Convert, DataType),
    /// Structs, lists and maps, part by part.
    Nested(nested::Nested),
}

/// `array` as `to`, value by value the same, or the rows of which that is not true.
pub(crate) fn lossless(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, CastFailure> {
    match Cast::plan(array.data_type(), to) {
        Ok(cast) => cast.run(array),
        Err(reason) => Err(CastFailure::of_all(array, to, reason)),
    }
}

impl Cast {
    /// How `from` becomes `to`, or why it never can.
    pub(crate) fn plan(from: &DataType, to: &DataType) -> Result<Self, String> {
        use DataType::*;
        if from == to {
            return Ok(Self::Same);
        }
        Ok(match (from, to) {
            (Null, _) => Self::Nulls(to.clone()),
            (Dictionary(_, values), _) => Self::unpack(values, to)?,
            (RunEndEncoded(_, values), _) => Self::unpack(values.data_type(), to)?,
            (_, Struct(_) | List(_) | Map(..)) => Self::Nested(nested::plan(from, to)?),
            _ if every_value_fits(from, to) => Self::Widen(to.clone()),
            _ => Self::Values(checked(from, to)?, to.clone()),
        })
    }

    fn unpack(values: &DataType, to: &DataType) -> Result<Self, String> {
        let rest = Self::plan(values, to)?;
        // Arrow goes from a dictionary straight to the wider type, sharing the buffers of texts.
        Ok(match rest {
            Self::Same | Self::Widen(_) => Self::Widen(to.clone()),
            rest => Self::Unpack(values.clone(), Box::new(rest)),
        })
    }

    /// The array converted, or the rows that do not fit.
    pub(crate) fn run(&self, array: &ArrayRef) -> Result<ArrayRef, CastFailure> {
        match self {
            Self::Same => Ok(Arc::clone(array)),
            Self::Nulls(to) => Ok(new_null_array(to, array.len())),
            Self::Widen(to) => by_arrow(array, to),
            Self::Unpack(values, rest) => rest.run(&by_arrow(array, values)?),
            Self::Values(convert, to) => convert(array, to),
            Self::Nested(nested) => nested.run(array),
        }
    }
}

impl CastFailure {
    fn of_all(array: &ArrayRef, to: &DataType, reason: impl Into<String>) -> Self {
        let rows: Vec<usize> = (0..array.len())
            .filter(|row| array.is_valid(*row))
            .collect();
        Self {
            first: shown(array, &rows),
            rows,
            reason: reason.into(),
            path: String::new(),
            to: sql_name(to),
        }
    }

    /// Adds the rows of `other`; the values shown stay those of the first failure.
    fn join(mut self, other: Self) -> Self {
        self.rows.extend(other.rows);
        self.rows.sort_unstable();
        self.rows.dedup();
        self
    }
}

/// Kinds of conversion that cannot fail on any value.
fn every_value_fits(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    match (from, to) {
        (Int8, Int16 | Int32 | Int64 | Float32 | Float64)
        | (Int16, Int32 | Int64 | Float32 | Float64)
        | (Int32, Int64 | Float64)
        | (UInt8, Int16 | Int32 | Int64 | Float32 | Float64)
        | (UInt16, Int32 | Int64 | Float32 | Float64)
        | (UInt32, Int64 | Float64)
        | (Float16, Float32 | Float64)
        | (Float32, Float64)
        | (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View)
        | (Utf8 | LargeUtf8 | Utf8View, Binary | LargeBinary | BinaryView)
        | (
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_),
            Binary | LargeBinary | BinaryView,
        ) => true,
        (_, Decimal128(precision, scale)) => digits(from).is_some_and(|(whole, after)| {
            i32::from(*scale) >= after && i32::from(*precision) - i32::from(*scale) >= whole
        }),
        _ => false,
    }
}

/// Most digits before and after the point that a value of an exact number type has.
fn digits(from: &DataType) -> Option<(i32, i32)> {
    use DataType::*;
    Some(match from {
        Int8 | UInt8 => (3, 0),
        Int16 | UInt16 => (5, 0),
        Int32 | UInt32 => (10, 0),
        Int64 => (19, 0),
        UInt64 => (20, 0),
        Decimal32(precision, scale)
        | Decimal64(precision, scale)
        | Decimal128(precision, scale)
        | Decimal256(precision, scale) => {
            (i32::from(*precision) - i32::from(*scale), i32::from(*scale))
        }
        _ => return None,
    })
}

type Convert = fn(&ArrayRef, &DataType) -> Result<ArrayRef, CastFailure>;

/// The conversion that looks at each value, or why there is none.
fn checked(from: &DataType, to: &DataType) -> Result<Convert, String> {
    use DataType::*;
    use TimeUnit::Microsecond;
    let text = matches!(from, Utf8 | LargeUtf8 | Utf8View);
    let number = text || from.is_integer() || from.is_floating() || from.is_decimal();
    let zoned = matches!(from, Timestamp(_, Some(_)));
    let local = matches!(from, Timestamp(_, None));
    let date = matches!(from, Date32 | Date64);
    Ok(match to {
        Int8 if number => to_integer::<Int8Type>,
        Int16 if number => to_integer::<Int16Type>,
        Int32 if number => to_integer::<Int32Type>,
        Int64 if number => to_integer::<Int64Type>,
        Float32 if number => |array, to| numbers::<Float32Type>(array, to, number::single),
        Float64 if number => |array, to| numbers::<Float64Type>(array, to, number::double),
        Decimal128(..) if number => to_decimal,
        Boolean if text => to_boolean,
        Date32 if text || date || local => to_date,
        Timestamp(Microsecond, None) if text || date || local => to_timestamp,
        Timestamp(Microsecond, Some(_)) if text || zoned => to_timestamp,
        Timestamp(Microsecond, Some(_)) if date || local => {
            return Err(format!(
                "{} has no time zone; say which one it is in with AT TIME ZONE",
                sql_name(from)
            ));
        }
        Timestamp(Microsecond, None) | Date32 if zoned => {
            return Err(format!(
                "{} would lose its time zone; say in which one to read it with AT TIME ZONE",
                sql_name(from)
            ));
        }
        Utf8 | LargeUtf8 | Utf8View if has_text(from) => by_arrow,
        _ => {
            return Err(format!(
                "{} does not convert to {} without loss; CAST it in the query",
                sql_name(from),
                sql_name(to)
            ));
        }
    })
}

/// Types whose text says everything about the value.
fn has_text(from: &DataType) -> bool {
    use DataType::*;
    from.is_integer()
        || from.is_floating()
        || from.is_decimal()
        || matches!(
            from,
            Boolean
                | Date32
                | Date64
                | Time32(_)
                | Time64(_)
                | Timestamp(..)
                | Binary
                | LargeBinary
                | BinaryView
        )
}

/// Arrow's own conversion, which marks a value it cannot convert by NULL.
fn by_arrow(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, CastFailure> {
    let options = CastOptions::default();
    let cast = cast_with_options(array, to, &options)
        .map_err(|error| CastFailure::of_all(array, to, error.to_string()))?;
    if cast.logical_null_count() == array.logical_null_count() {
        return Ok(cast);
    }
    let (before, after) = (array.logical_nulls(), cast.logical_nulls());
    let null = |nulls: &Option<arrow::buffer::NullBuffer>, row| {
        nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    };
    Err(failure(array, to, |row| {
        (null(&after, row) && !null(&before, row)).then_some(match to {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "not valid text in UTF-8",
            _ => "out of range",
        })
    }))
}

fn to_integer<O: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
) -> Result<ArrayRef, CastFailure>
where
    O::Native: TryFrom<i128>,
{
    numbers::<O>(array, to, number::integer)
}

fn to_decimal(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, CastFailure> {
    let DataType::Decimal128(precision, scale) = *to else {
        return Err(CastFailure::of_all(array, to, "not a decimal type"));
    };
    numbers::<Decimal128Type>(array, to, |number| {
        number::decimal(number, precision, scale)
    })
}

fn numbers<O: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    convert: impl Fn(Number<'_>) -> Result<O::Native, Flaw>,
) -> Result<ArrayRef, CastFailure> {
    macro_rules! exact {
        ($source:ty, $scale:expr) => {
            each::<$source, O>(array, to, |value| {
                convert(Number::Exact(value.into(), $scale))
            })
        };
    }
    match array.data_type() {
        DataType::Int8 => exact!(Int8Type, 0),
        DataType::Int16 => exact!(Int16Type, 0),
        DataType::Int32 => exact!(Int32Type, 0),
        DataType::Int64 => exact!(Int64Type, 0),
        DataType::UInt8 => exact!(UInt8Type, 0),
        DataType::UInt16 => exact!(UInt16Type, 0),
        DataType::UInt32 => exact!(UInt32Type, 0),
        DataType::UInt64 => exact!(UInt64Type, 0),
        DataType::Decimal32(_, scale) => exact!(Decimal32Type, i32::from(*scale)),
        DataType::Decimal64(_, scale) => exact!(Decimal64Type, i32::from(*scale)),
        DataType::Decimal128(_, scale) => exact!(Decimal128Type, i32::from(*scale)),
        DataType::Decimal256(_, scale) => each::<Decimal256Type, O>(array, to, |value| {
            let (digits, scale) = number::narrow(value, i32::from(*scale))?;
            convert(Number::Exact(digits, scale))
        }),
        DataType::Float16 => {
            each::<Float16Type, O>(array, to, |value| convert(Number::Single(value.to_f32())))
        }
        DataType::Float32 => {
            each::<Float32Type, O>(array, to, |value| convert(Number::Single(value)))
        }
        DataType::Float64 => {
            each::<Float64Type, O>(array, to, |value| convert(Number::Double(value)))
        }
        _ => each_text(
            array,
            to,
            |text| convert(Number::Text(text)),
            primitive::<O>,
        ),
    }
}

fn to_date(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, CastFailure> {
    match array.data_type() {
        DataType::Date64 => each::<Date64Type, Date32Type>(array, to, |millis| {
            time::day(millis, time::MICROS_PER_DAY / 1_000)
        }),
        DataType::Timestamp(unit, _) => each_instant::<Date32Type>(array, *unit, to, |micros| {
            time::day(micros, time::MICROS_PER_DAY)
        }),
        _ => each_text(array, to, time::parse_day, primitive::<Date32Type>),
    }
}

fn to_timestamp(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, CastFailure> {
    type Micros = TimestampMicrosecondType;
    let zoned = matches!(to, DataType::Timestamp(_, Some(_)));
    match array.data_type() {
        DataType::Date32 => each::<Date32Type, Micros>(array, to, time::midnight),
        DataType::Date64 => each::<Date64Type, Micros>(array, to, |millis| {
            time::micros(millis, TimeUnit::Millisecond)
        }),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = array.as_primitive::<Micros>().clone();
            Ok(Arc::new(values.with_data_type(to.clone())))
        }
        DataType::Timestamp(unit, _) => each_instant::<Micros>(array, *unit, to, Ok),
        _ if zoned => {
            let zone = time::utc();
            let parse = |text: &str| time::parse_instant(text, zone);
            each_text(array, to, parse, primitive::<Micros>)
        }
        _ => each_text(array, to, time::parse_local, primitive::<Micros>),
    }
}

fn to_boolean(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, CastFailure> {
    let parse = |text: &str| match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("not a truth value"),
    };
    each_text(array, to, parse, |values, _| {
        Arc::new(BooleanArray::from(values))
    })
}

/// Converts the microseconds of a timestamp of any unit.
fn each_instant<O: ArrowPrimitiveType>(
    array: &ArrayRef,
    unit: TimeUnit,
    to: &DataType,
    convert: impl Fn(i64) -> Result<O::Native, Flaw>,
) -> Result<ArrayRef, CastFailure> {
    let convert = |value| convert(time::micros(value, unit)?);
    match unit {
        TimeUnit::Second => each::<TimestampSecondType, O>(array, to, convert),
        TimeUnit::Millisecond => each::<TimestampMillisecondType, O>(array, to, convert),
        TimeUnit::Microsecond => each::<TimestampMicrosecondType, O>(array, to, convert),
        TimeUnit::Nanosecond => each::<TimestampNanosecondType, O>(array, to, convert),
    }
}

/// Converts value by value, stopping at the first flaw; only then are all rows looked at.
fn each<I: ArrowPrimitiveType, O: ArrowPrimitiveType>(
    array: &ArrayRef,
    to: &DataType,
    convert: impl Fn(I::Native) -> Result<O::Native, Flaw>,
) -> Result<ArrayRef, CastFailure> {
    let values = array.as_primitive::<I>();
    match values.try_unary::<_, O, Flaw>(&convert) {
        Ok(converted) => Ok(Arc::new(converted.with_data_type(to.clone()))),
        Err(_) => Err(failure(array, to, |row| convert(values.value(row)).err())),
    }
}

fn each_text<T>(
    array: &ArrayRef,
    to: &DataType,
    convert: impl Fn(&str) -> Result<T, Flaw>,
    build: fn(Vec<Option<T>>, &DataType) -> ArrayRef,
) -> Result<ArrayRef, CastFailure> {
    fn inner<'a, T>(
        texts: impl ArrayAccessor<Item = &'a str>,
        convert: &impl Fn(&str) -> Result<T, Flaw>,
    ) -> Result<Vec<Option<T>>, Flaw> {
        arrow::array::ArrayIter::new(texts)
            .map(|text| text.map(convert).transpose())
            .collect()
    }
    macro_rules! texts {
        ($texts:expr) => {{
            let texts = $texts;
            match inner(texts, &convert) {
                Ok(values) => Ok(build(values, to)),
                Err(_) => Err(failure(array, to, |row| convert(texts.value(row)).err())),
            }
        }};
    }
    match array.data_type() {
        DataType::Utf8 => texts!(array.as_string::<i32>()),
        DataType::LargeUtf8 => texts!(array.as_string::<i64>()),
        DataType::Utf8View => texts!(array.as_string_view()),
        _ => Err(CastFailure::of_all(array, to, "not a text")),
    }
}

fn primitive<O: ArrowPrimitiveType>(values: Vec<Option<O::Native>>, to: &DataType) -> ArrayRef {
    let values: PrimitiveArray<O> = values.into_iter().collect();
    Arc::new(values.with_data_type(to.clone()))
}

/// All rows with a value that `flaw` finds fault with; at least one is expected.
fn failure(array: &ArrayRef, to: &DataType, flaw: impl Fn(usize) -> Option<Flaw>) -> CastFailure {
    let mut reason = None;
    let rows: Vec<usize> = (0..array.len())
        .filter(|row| array.is_valid(*row))
        .filter(|row| match flaw(*row) {
            Some(flaw) => {
                reason.get_or_insert(flaw);
                true
            }
            None => false,
        })
        .collect();
    CastFailure {
        first: shown(array, &rows),
        rows,
        reason: reason.unwrap_or("out of range").to_string(),
        path: String::new(),
        to: sql_name(to),
    }
}

#[cfg(test)]
mod tests;

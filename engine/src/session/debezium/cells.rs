//! Values of one column as changes give them. What a text or a number can say stays text, which the write path
//! turns into the column's type without loss; here is only what JSON and Debezium write in a way of their own.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use datafusion::arrow::array::{ArrayRef, BinaryBuilder, StringBuilder, new_empty_array};
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::arrow::json::ReaderBuilder;
use selvedge_udfs::debezium::json;

use super::decimal;
use super::schema::Hint;
use crate::error::{Error, Result};
use crate::shown::sql_name;

pub(super) const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What numbers count that stand for an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Days,
    Millis,
    Micros,
    Nanos,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bytes {
    Base64,
    Hex,
}

/// What a value of a column may look like.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text,
    Boolean,
    Number,
    /// A day or an instant: a text, or a number that counts from the epoch.
    Time {
        days: bool,
        zoned: bool,
    },
    Bytes,
    /// Parts of parts, each as text.
    Nested(FieldRef),
}

impl Kind {
    /// What is read for a column of the table.
    pub(super) fn of(table: &str, column: &Field) -> Result<Self> {
        use DataType::*;
        Ok(match column.data_type() {
            Boolean => Self::Boolean,
            Date32 | Date64 => Self::Time {
                days: true,
                zoned: false,
            },
            Timestamp(_, zone) => Self::Time {
                days: false,
                zoned: zone.is_some(),
            },
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Self::Bytes,
            Utf8 | LargeUtf8 | Utf8View => Self::Text,
            List(_) | LargeList(_) | Struct(_) | Map(..) => match in_texts(column) {
                Some(field) => Self::Nested(field),
                None => {
                    return Err(Error::unsupported(format!(
                        "FORMAT DEBEZIUM does not read bytes inside column {} of table {table}, which is {}",
                        column.name(),
                        sql_name(column.data_type())
                    )));
                }
            },
            _ => Self::Number,
        })
    }

    /// The type of the column as it is read.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Bytes => DataType::Binary,
            Self::Nested(field) => field.data_type().clone(),
            _ => DataType::Utf8,
        }
    }
}

/// The same nesting of texts; None where bytes are in it, which JSON has no one way to write.
fn in_texts(field: &Field) -> Option<FieldRef> {
    use DataType::*;
    let data_type = match field.data_type() {
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => return None,
        List(item) | LargeList(item) => List(in_texts(item)?),
        Struct(fields) => {
            let fields: Option<Vec<FieldRef>> =
                fields.iter().map(|field| in_texts(field)).collect();
            Struct(Fields::from(fields?))
        }
        Map(entries, _) => match entries.data_type() {
            Struct(parts) => {
                let [key, value] = &parts[..] else {
                    return None;
                };
                let key = in_texts(key)?.as_ref().clone().with_nullable(false);
                let entry = Struct(Fields::from(vec![Arc::new(key), in_texts(value)?]));
                Map(Arc::new(Field::new(entries.name(), entry, false)), false)
            }
            _ => return None,
        },
        _ => Utf8,
    };
    Some(Arc::new(Field::new(field.name(), data_type, true)))
}

/// How values are read, as the statement says.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub unavailable: String,
    /// Of numbers that stand for instants, where no schema tells.
    pub unit: Option<Unit>,
    pub bytes: Bytes,
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Value,
    Null,
    /// The database did not say; the value is what it was.
    Unavailable,
}

/// A column while it is read.
pub(super) enum Cells {
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Nested {
        field: FieldRef,
        json: Vec<u8>,
        rows: usize,
    },
}

impl Cells {
    pub(super) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Bytes => Self::Bytes(BinaryBuilder::new()),
            Kind::Nested(field) => Self::Nested {
                field: Arc::clone(field),
                json: Vec::new(),
                rows: 0,
            },
            _ => Self::Text(StringBuilder::new()),
        }
    }

    pub(super) fn push_null(&mut self) {
        match self {
            Self::Text(texts) => texts.append_null(),
            Self::Bytes(bytes) => bytes.append_null(),
            Self::Nested { json, rows, .. } => {
                json.extend_from_slice(b"null\n");
                *rows += 1;
            }
        }
    }

    /// A text that is ready.
    pub(super) fn push_text(&mut self, text: &str) {
        match self {
            Self::Text(texts) => texts.append_value(text),
            Self::Bytes(bytes) => bytes.append_value(text),
            Self::Nested { .. } => self.push_null(),
        }
    }

    /// A value as it is written.
    pub(super) fn push(
        &mut self,
        kind: &Kind,
        hint: Option<Hint>,
        value: &str,
        reading: &Reading,
    ) -> Result<Given> {
        if unavailable(value, reading)? {
            self.push_null();
            return Ok(Given::Unavailable);
        }
        let Some(value) = json::present(value) else {
            self.push_null();
            return Ok(Given::Null);
        };
        match self {
            Self::Text(texts) => match written(kind, hint, value, reading)? {
                Some(text) => texts.append_value(text),
                None => {
                    texts.append_null();
                    return Ok(Given::Unavailable);
                }
            },
            Self::Bytes(_) | Self::Nested { .. }
                if matches!(
                    hint,
                    Some(Hint::Decimal(_) | Hint::ScaledDecimal | Hint::DecimalParts)
                ) =>
            {
                return Err(precise("is, or holds, a decimal in bytes"));
            }
            Self::Bytes(bytes) => {
                let decoded = decoded(value, reading)?;
                // The marker of a column of bytes is written as bytes too.
                if decoded == reading.unavailable.as_bytes() {
                    bytes.append_null();
                    return Ok(Given::Unavailable);
                }
                bytes.append_value(decoded);
            }
            Self::Nested {
                json: text, rows, ..
            } => {
                if !value.starts_with(['{', '[']) {
                    return Err(Error::rejected(format!(
                        "is {}, not an array or object",
                        json::kind(value)
                    )));
                }
                text.extend_from_slice(value.as_bytes());
                text.push(b'\n');
                *rows += 1;
            }
        }
        Ok(Given::Value)
    }

    /// The column so far.
    pub(super) fn finish(self) -> Result<ArrayRef> {
        let (field, json, rows) = match self {
            Self::Text(mut texts) => return Ok(Arc::new(texts.finish())),
            Self::Bytes(mut bytes) => return Ok(Arc::new(bytes.finish())),
            Self::Nested { field, json, rows } => (field, json, rows),
        };
        if rows == 0 {
            return Ok(new_empty_array(field.data_type()));
        }
        let name = field.name().clone();
        let read = || {
            let mut decoder = ReaderBuilder::new_with_field(field)
                .with_batch_size(rows)
                .with_coerce_primitive(true)
                .with_strict_mode(true)
                .build_decoder()?;
            decoder.decode(&json)?;
            decoder.flush()
        };
        let batch = read().map_err(|error| {
            Error::rejected(format!("field {name}: {error}")).with_source(error)
        })?;
        match batch.and_then(|batch| batch.columns().first().cloned()) {
            Some(column) if column.len() == rows => Ok(column),
            _ => Err(Error::internal(format!(
                "field {name}: {rows} values were written, and others read"
            ))),
        }
    }
}

/// Whether a value is the marker of one that was not in the log: by itself, or as all there is in an array or map.
fn unavailable(value: &str, reading: &Reading) -> Result<bool> {
    let is_marker = |value: &str| match json::text(value) {
        Ok(text) => Ok(text.is_some_and(|text| text == reading.unavailable)),
        Err(flaw) => Err(Error::rejected(flaw)),
    };
    match value.as_bytes().first() {
        Some(b'"') => is_marker(value),
        Some(b'[') => match json::elements(value).as_deref() {
            Some([only]) if only.starts_with('"') => is_marker(only),
            // Arrays of whole numbers have one for each byte of the marker.
            Some(all) => {
                let bytes = reading.unavailable.as_bytes();
                let same = |(number, byte): (&&str, &u8)| {
                    number.parse::<u8>().is_ok_and(|number| number == *byte)
                };
                let whole = all.len() == bytes.len() && !bytes.is_empty();
                Ok(whole && all.iter().zip(bytes).all(same))
            }
            None => Ok(false),
        },
        Some(b'{') => match json::members(value).map_err(Error::rejected)?.as_deref() {
            Some([(name, only)]) if *name == reading.unavailable => is_marker(only),
            _ => Ok(false),
        },
        _ => Ok(false),
    }
}

/// The text of a value that is neither bytes nor nested; None for the marker as bytes.
fn written<'a>(
    kind: &Kind,
    hint: Option<Hint>,
    value: &'a str,
    reading: &Reading,
) -> Result<Option<Cow<'a, str>>> {
    if let Some((bytes, scale)) = decimal::in_bytes(kind, hint, value)? {
        if bytes == reading.unavailable.as_bytes() {
            return Ok(None);
        }
        return decimal::spelled(&bytes, scale).map(|text| Some(Cow::Owned(text)));
    }
    if value.starts_with(['{', '[']) {
        let error = format!("is {}", json::kind(value));
        return Err(match kind {
            // A decimal of no fixed scale says its scale beside its digits.
            Kind::Number => precise(&error),
            _ => {
                Error::rejected(error).with_hint("only columns of arrays, structs and maps take it")
            }
        });
    }
    let text = json::text(value).map_err(Error::rejected)?;
    match (kind, text) {
        (Kind::Time { days, zoned }, None) => {
            let micros = instant(value, hint, *days, reading)?;
            // A day is told by its number alone only where nothing finer can be in it.
            let whole = *days && micros % MICROS_PER_DAY == 0;
            spelled(micros, whole, *zoned).map(|text| Some(Cow::Owned(text)))
        }
        (Kind::Number, Some(text))
            if !number(&text) && STANDARD.decode(text.as_bytes()).is_ok() =>
        {
            Err(precise("is a text, not a number"))
        }
        (_, Some(text)) => Ok(Some(text)),
        (_, None) => Ok(Some(Cow::Borrowed(value))),
    }
}

fn precise(what: &str) -> Error {
    Error::rejected(what.to_owned()).with_hint(
        "decimals in bytes are read where the converter writes schemas, in columns of their own; with decimal.handling.mode = string they are numbers in text",
    )
}

/// Whether a text may be a number: what is not, the write path says.
fn number(text: &str) -> bool {
    let text = text.trim();
    let named = ["nan", "inf", "infinity"];
    let unsigned = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    named.contains(&unsigned.as_str())
        || text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
}

/// A number as the instant it stands for, in microseconds.
fn instant(value: &str, hint: Option<Hint>, days: bool, reading: &Reading) -> Result<i64> {
    let number = json::integer(value).map_err(Error::rejected)?;
    let number = number.ok_or_else(|| Error::internal("null as an instant"))?;
    let unit = match (hint, days) {
        (Some(Hint::Time(unit)), _) => Some(unit),
        // Days are counted in days whatever the precision of instants is.
        (_, true) => Some(Unit::Days),
        (_, false) => reading.unit,
    };
    let unit = unit.ok_or_else(|| {
        Error::rejected("is a number, and nothing says what it counts").with_hint(
            "OPTIONS (timestamp_unit 'us') says it: ms, us or ns; or let the converter write schemas",
        )
    })?;
    let micros = match unit {
        Unit::Days => number.checked_mul(MICROS_PER_DAY),
        Unit::Millis => number.checked_mul(1_000),
        Unit::Micros => Some(number),
        Unit::Nanos if number % 1_000 == 0 => Some(number / 1_000),
        Unit::Nanos => return Err(Error::rejected("is finer than a microsecond")),
    };
    micros.ok_or_else(|| Error::rejected("is out of range"))
}

/// An instant as text: a day, or date and time, with a zone where the column has one.
pub(super) fn spelled(micros: i64, day: bool, zoned: bool) -> Result<String> {
    let instant = chrono::DateTime::from_timestamp_micros(micros)
        .ok_or_else(|| Error::rejected("is out of range"))?;
    let form = match (day, zoned) {
        (true, _) => "%Y-%m-%d",
        (false, true) => "%Y-%m-%dT%H:%M:%S%.6fZ",
        (false, false) => "%Y-%m-%dT%H:%M:%S%.6f",
    };
    Ok(instant.format(form).to_string())
}

/// The instant that a value of a sequence is; None for null. Texts without a zone are in UTC.
pub(super) fn sequence(
    value: &str,
    hint: Option<Hint>,
    days: bool,
    reading: &Reading,
) -> Result<Option<i64>> {
    let Some(value) = json::present(value) else {
        return Ok(None);
    };
    let Some(text) = json::text(value).map_err(Error::rejected)? else {
        return instant(value, hint, days, reading).map(Some);
    };
    let instant = string_to_datetime(&chrono::Utc, text.trim())
        .map_err(|_| Error::rejected("is a text that is no instant"))?;
    if instant.timestamp_subsec_nanos() % 1_000 != 0 {
        return Err(Error::rejected("is finer than a microsecond"));
    }
    Ok(Some(instant.timestamp_micros()))
}

fn decoded(value: &str, reading: &Reading) -> Result<Vec<u8>> {
    let Some(text) = json::text(value).map_err(Error::rejected)? else {
        let kind = json::kind(value);
        return Err(Error::rejected(format!("is {kind}, not bytes in a text")));
    };
    let (bytes, form) = match reading.bytes {
        Bytes::Base64 => {
            let bytes = STANDARD.decode(text.as_bytes());
            (
                bytes.or_else(|_| URL_SAFE.decode(text.as_bytes())).ok(),
                "base64",
            )
        }
        Bytes::Hex => (hex(&text), "hex"),
    };
    bytes.ok_or_else(|| {
        Error::rejected(format!("is a text that is not {form}"))
            .with_hint("OPTIONS (binary 'base64') or (binary 'hex') says how bytes are written")
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(
        pairs
            .map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit))
            .collect(),
    )
}

#[cfg(test)]
mod tests;

//! Partition values: the text the log keeps, the typed value a query sees, the folder of the file.
//!
//! The text follows the Delta protocol, section "Partition Value Serialization", in the spelling
//! of the kernel and Spark: UTC timestamps as ISO 8601, timestamps without zone with a space.

use std::fmt::Write;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, DecimalType, Field, TimeUnit};
use datafusion::common::ScalarValue;

use super::mapping::physical_name;
use super::snapshot::DataFile;
use crate::error::{Error, Result};

/// Folder name of a null partition value.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";
const EPOCH_FROM_CE_DAYS: i32 = 719_163;

/// The log's text of a partition value; `None` is null, and so is the empty string.
pub(crate) fn encode(value: &ScalarValue) -> Result<Option<String>> {
    use ScalarValue as S;
    if value.is_null() {
        return Ok(None);
    }
    let refuse = |why: &str| Error::invalid(format!("partition value {value}: {why}"));
    let text = match value {
        S::Utf8(Some(s)) | S::LargeUtf8(Some(s)) | S::Utf8View(Some(s)) => s.clone(),
        S::Binary(Some(b)) | S::LargeBinary(Some(b)) | S::BinaryView(Some(b)) => {
            String::from_utf8(b.clone())
                .map_err(|_| refuse("binary partition values must be valid UTF-8"))?
        }
        S::Boolean(Some(v)) => v.to_string(),
        S::Int8(Some(v)) => v.to_string(),
        S::Int16(Some(v)) => v.to_string(),
        S::Int32(Some(v)) => v.to_string(),
        S::Int64(Some(v)) => v.to_string(),
        S::Float32(Some(v)) => float_text(f64::from(*v), || format!("{v:?}")),
        S::Float64(Some(v)) => float_text(*v, || format!("{v:?}")),
        S::Decimal128(Some(v), precision, scale) => {
            Decimal128Type::format_decimal(*v, *precision, *scale)
        }
        S::Date32(Some(days)) => days
            .checked_add(EPOCH_FROM_CE_DAYS)
            .and_then(NaiveDate::from_num_days_from_ce_opt)
            .ok_or_else(|| refuse("the date is out of range"))?
            .to_string(),
        S::TimestampMicrosecond(Some(micros), zone) => {
            let at = DateTime::<Utc>::from_timestamp_micros(*micros)
                .ok_or_else(|| refuse("the timestamp is out of range"))?;
            let format = match zone {
                Some(_) => "%Y-%m-%dT%H:%M:%S%.6fZ",
                None => "%Y-%m-%d %H:%M:%S%.6f",
            };
            at.format(format).to_string()
        }
        S::Dictionary(_, value) => return encode(value),
        _ => {
            return Err(refuse(&format!(
                "type {} cannot partition a table",
                value.data_type()
            )));
        }
    };
    Ok((!text.is_empty()).then_some(text))
}

/// The value of the log's text, of exactly the type `data_type`; null for `None` and the empty string.
pub(crate) fn decode(text: Option<&str>, data_type: &DataType) -> Result<ScalarValue> {
    let refuse = |why: &str| {
        Error::corrupt(match text {
            Some(text) => format!("partition value '{text}' is not a {data_type}{why}"),
            None => format!("partition type {data_type}{why}"),
        })
    };
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return ScalarValue::try_new_null(data_type).map_err(|e| refuse("").with_source(e));
    };
    parse(text, data_type).ok_or_else(|| refuse(""))
}

/// The value that `file` has in the partition column `field`, a field of the snapshot's schema.
///
/// A column the `add` line does not mention is null, as other readers have it.
pub(crate) fn value_of(file: &DataFile, field: &Field) -> Result<ScalarValue> {
    let text = file.add.partition_values.get(physical_name(field));
    decode(text.and_then(|text| text.as_deref()), field.data_type()).map_err(|e| {
        Error::corrupt(format!(
            "data file '{}', partition column '{}': {}",
            file.add.path,
            field.name(),
            e.message()
        ))
    })
}

/// The folder of a partition, `column=value`, escaped as Hive and Spark do.
///
/// This is the literal name in the store; the log holds it URL-encoded once more.
pub(crate) fn path_segment(column: &str, value: Option<&str>) -> String {
    let mut segment = escape(column);
    segment.push('=');
    match value.filter(|value| !value.is_empty()) {
        Some(value) => segment.push_str(&escape(value)),
        None => segment.push_str(HIVE_NULL),
    }
    segment
}

/// `text` as a value of `data_type`, or `None` where it is not one. The empty string is a string.
pub(super) fn parse(text: &str, data_type: &DataType) -> Option<ScalarValue> {
    use ScalarValue as S;
    Some(match data_type {
        DataType::Utf8 => S::Utf8(Some(text.to_owned())),
        DataType::LargeUtf8 => S::LargeUtf8(Some(text.to_owned())),
        DataType::Utf8View => S::Utf8View(Some(text.to_owned())),
        DataType::Binary => S::Binary(Some(text.into())),
        DataType::LargeBinary => S::LargeBinary(Some(text.into())),
        DataType::BinaryView => S::BinaryView(Some(text.into())),
        DataType::Boolean if text.eq_ignore_ascii_case("true") => S::Boolean(Some(true)),
        DataType::Boolean if text.eq_ignore_ascii_case("false") => S::Boolean(Some(false)),
        DataType::Int8 => S::Int8(Some(text.parse().ok()?)),
        DataType::Int16 => S::Int16(Some(text.parse().ok()?)),
        DataType::Int32 => S::Int32(Some(text.parse().ok()?)),
        DataType::Int64 => S::Int64(Some(text.parse().ok()?)),
        DataType::Float32 => S::Float32(Some(text.parse().ok()?)),
        DataType::Float64 => S::Float64(Some(text.parse().ok()?)),
        DataType::Decimal128(precision, scale) => S::Decimal128(
            Some(parse_decimal(text, *precision, *scale)?),
            *precision,
            *scale,
        ),
        DataType::Date32 => {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            S::Date32(Some(date.num_days_from_ce() - EPOCH_FROM_CE_DAYS))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            // A text without zone is meant in UTC, the only zone all writers agree on.
            let at = string_to_datetime(&Utc, text).ok()?;
            S::TimestampMicrosecond(Some(at.timestamp_micros()), zone.clone())
        }
        _ => return None,
    })
}

/// The unscaled value of a decimal text, exponent allowed; `None` where it does not fit without loss.
fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut value: i128 = 0;
    let mut seen = false;
    for digit in whole.bytes().chain(fraction.bytes()) {
        seen = true;
        let digit = char::from(digit).to_digit(10)?;
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    let shift = i32::from(scale)
        .checked_add(exponent)?
        .checked_sub(i32::try_from(fraction.len()).ok()?)?;
    for _ in 0..shift.unsigned_abs().min(40) {
        if value == 0 {
            break;
        }
        if shift > 0 {
            value = value.checked_mul(10)?;
        } else if value % 10 == 0 {
            value /= 10;
        } else {
            return None;
        }
    }
    let fits = value < 10_i128.checked_pow(u32::from(precision))?;
    (seen && fits).then_some(if negative { -value } else { value })
}

fn float_text(value: f64, finite: impl FnOnce() -> String) -> String {
    if value.is_infinite() {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}Infinity");
    }
    finite()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(c) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "%{:02X}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }

    #[test]
    fn values_survive_the_log() {
        let micros = 1_704_164_645_123_456;
        for (value, text) in [
            (ScalarValue::Utf8View(Some("a/b=c é".into())), "a/b=c é"),
            (ScalarValue::BinaryView(Some(b"\x01x".to_vec())), "\u{1}x"),
            (ScalarValue::Boolean(Some(true)), "true"),
            (ScalarValue::Int8(Some(-128)), "-128"),
            (ScalarValue::Int64(Some(i64::MIN)), "-9223372036854775808"),
            (ScalarValue::Float32(Some(0.1)), "0.1"),
            (ScalarValue::Float64(Some(1e300)), "1e300"),
            (ScalarValue::Float64(Some(-0.0)), "-0.0"),
            (ScalarValue::Float64(Some(f64::NEG_INFINITY)), "-Infinity"),
            (ScalarValue::Decimal128(Some(-5), 10, 2), "-0.05"),
            (
                ScalarValue::Decimal128(Some(10_i128.pow(37)), 38, 0),
                "10000000000000000000000000000000000000",
            ),
            (ScalarValue::Date32(Some(0)), "1970-01-01"),
            (ScalarValue::Date32(Some(-719_162)), "0001-01-01"),
            (
                ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())),
                "2024-01-02T03:04:05.123456Z",
            ),
            (
                ScalarValue::TimestampMicrosecond(Some(micros), None),
                "2024-01-02 03:04:05.123456",
            ),
            (
                ScalarValue::TimestampMicrosecond(Some(253_402_300_799_999_999), None),
                "9999-12-31 23:59:59.999999",
            ),
        ] {
            assert_eq!(encode(&value).unwrap().as_deref(), Some(text));
            assert_eq!(decode(Some(text), &value.data_type()).unwrap(), value);
        }
        let nan = encode(&ScalarValue::Float64(Some(f64::NAN))).unwrap();
        assert_eq!(nan.as_deref(), Some("NaN"));
        let nan = decode(Some("NaN"), &DataType::Float64).unwrap();
        assert!(matches!(nan, ScalarValue::Float64(Some(v)) if v.is_nan()));
    }

    #[test]
    fn null_and_empty_are_null() {
        for value in [
            ScalarValue::Int32(None),
            ScalarValue::Utf8View(Some(String::new())),
            ScalarValue::Binary(Some(vec![])),
        ] {
            assert_eq!(encode(&value).unwrap(), None);
        }
        for text in [None, Some("")] {
            for data_type in [DataType::Utf8View, DataType::Date32, utc()] {
                let value = decode(text, &data_type).unwrap();
                assert!(value.is_null());
                assert_eq!(value.data_type(), data_type);
            }
        }
    }

    #[test]
    fn timestamps_of_other_writers() {
        let expected =
            ScalarValue::TimestampMicrosecond(Some(1_704_164_645_000_000), Some("UTC".into()));
        for text in [
            "2024-01-02 03:04:05",
            "2024-01-02 03:04:05.000000",
            "2024-01-02T03:04:05Z",
            "2024-01-02T03:04:05.000Z",
            "2024-01-02T05:04:05.000+02:00",
        ] {
            assert_eq!(decode(Some(text), &utc()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn decimals_of_other_writers() {
        let decimal = DataType::Decimal128(10, 2);
        for (text, unscaled) in [
            ("1", 100),
            ("1.5", 150),
            ("1.500", 150),
            ("1E+2", 10_000),
            ("-15e-1", -150),
            ("0e99", 0),
        ] {
            assert_eq!(
                decode(Some(text), &decimal).unwrap(),
                ScalarValue::Decimal128(Some(unscaled), 10, 2),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_text_is_an_error_that_names_it() {
        for (text, data_type) in [
            ("x", DataType::Int32),
            ("300", DataType::Int8),
            ("1.005", DataType::Decimal128(10, 2)),
            ("123456789.00", DataType::Decimal128(10, 2)),
            ("-", DataType::Decimal128(10, 2)),
            ("é", DataType::Decimal128(10, 2)),
            ("1e999999999999", DataType::Decimal128(10, 2)),
            ("1e2147483647", DataType::Decimal128(10, 2)),
            ("2024-13-01", DataType::Date32),
            ("yes", DataType::Boolean),
            ("yesterday", utc()),
        ] {
            let error = decode(Some(text), &data_type).unwrap_err();
            assert!(error.message().contains(text), "{error}");
        }
        assert!(encode(&ScalarValue::Binary(Some(vec![0xff]))).is_err());
        assert!(encode(&ScalarValue::UInt64(Some(1))).is_err());
    }

    #[test]
    fn folders_are_escaped_as_hive_does() {
        assert_eq!(path_segment("p", Some("US/East")), "p=US%2FEast");
        assert_eq!(path_segment("a=b", Some("x y%é")), "a%3Db=x y%25é");
        assert_eq!(path_segment("p", Some("\u{1}}")), "p=%01}");
        assert_eq!(path_segment("p", None), "p=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(path_segment("p", Some("")), "p=__HIVE_DEFAULT_PARTITION__");
    }
}

//! Type widening: a column takes a wider type, and the values in older files become values of it as they
//! are read. The changes a column went through are noted with it, because they are not seen in its type.

use datafusion::arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};

use super::schema::{JSON_PREFIX, primitive_name};
use crate::error::{Error, Result};

/// The feature of the protocol, for readers too.
pub(crate) const FEATURE: &str = "typeWidening";
/// Table property: whether types may be widened.
pub(crate) const ENABLED: &str = "delta.enableTypeWidening";

const CHANGES: &str = "delta.typeChanges";

/// Whether the protocol lets a column of type `from` become one of type `to`.
pub(crate) fn allowed(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    // A decimal takes all whole numbers of so many digits.
    let holds = |digits: u8, to: &DataType| match to {
        Decimal128(precision, scale) => {
            *scale >= 0 && i16::from(*precision) - i16::from(*scale) >= i16::from(digits)
        }
        _ => false,
    };
    match (from, to) {
        (Int8, Int16 | Int32 | Int64)
        | (Int16, Int32 | Int64)
        | (Int32, Int64)
        | (Int8 | Int16 | Int32 | Float32, Float64)
        | (Date32, Timestamp(_, None)) => true,
        (Int8 | Int16 | Int32, to) if holds(10, to) => true,
        (Int64, to) if holds(20, to) => true,
        (Decimal128(precision, scale), Decimal128(to_precision, to_scale)) => {
            let whole = i16::from(*precision) - i16::from(*scale);
            to_scale >= scale && i16::from(*to_precision) - i16::from(*to_scale) >= whole
        }
        _ => false,
    }
}

/// The types a column of type `from` may become, in words; nothing where there is none.
pub(crate) fn wider(from: &DataType) -> &'static str {
    match from {
        DataType::Int8 => {
            "SMALLINT, INT, BIGINT, DOUBLE or a DECIMAL with at least 10 digits before the point"
        }
        DataType::Int16 => {
            "INT, BIGINT, DOUBLE or a DECIMAL with at least 10 digits before the point"
        }
        DataType::Int32 => "BIGINT, DOUBLE or a DECIMAL with at least 10 digits before the point",
        DataType::Int64 => "a DECIMAL with at least 20 digits before the point",
        DataType::Float32 => "DOUBLE",
        DataType::Date32 => "TIMESTAMP",
        DataType::Decimal128(..) => "a DECIMAL with no fewer digits before and after the point",
        _ => "",
    }
}

/// `field` with the wider type `to`, and the change noted.
pub(crate) fn widen(field: &Field, to: &DataType) -> Result<Field> {
    let mut changes = changes(field);
    changes.push(json!({
        "fromType": primitive_name(field.data_type(), field.name())?,
        "toType": primitive_name(to, field.name())?,
    }));
    let text = serde_json::to_string(&changes)
        .map_err(|e| Error::internal("type changes cannot be written as JSON").with_source(e))?;
    let mut metadata = field.metadata().clone();
    metadata.insert(key(), text);
    Ok(field
        .clone()
        .with_data_type(to.clone())
        .with_metadata(metadata))
}

/// Whether older files may hold floats in this column of doubles.
pub(super) fn was_float(field: &Field) -> bool {
    field.data_type() == &DataType::Float64
        && changes(field)
            .iter()
            .any(|change| change.get("fromType").and_then(Value::as_str) == Some("float"))
}

fn changes(field: &Field) -> Vec<Value> {
    let noted = field.metadata().get(&key());
    noted
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Changes are a list in the log's JSON, and so text under another key in Arrow's metadata.
fn key() -> String {
    format!("{JSON_PREFIX}{CHANGES}")
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn only_what_holds_every_value_is_wider() {
        use DataType::*;
        let ntz = || Timestamp(TimeUnit::Microsecond, None);
        for (from, to) in [
            (Int8, Int16),
            (Int32, Int64),
            (Int16, Float64),
            (Float32, Float64),
            (Date32, ntz()),
            (Int32, Decimal128(12, 2)),
            (Int64, Decimal128(20, 0)),
            (Decimal128(10, 2), Decimal128(12, 4)),
            (Decimal128(10, 2), Decimal128(11, 2)),
        ] {
            assert!(allowed(&from, &to), "{from} to {to}");
        }
        for (from, to) in [
            (Int64, Int32),
            (Int64, Float64),
            (Int32, Float32),
            (Float64, Float32),
            (Int32, Utf8View),
            (Int32, Decimal128(10, 1)),
            (Int64, Decimal128(19, 0)),
            (Decimal128(10, 2), Decimal128(11, 4)),
            (Decimal128(10, 2), Decimal128(10, 1)),
            (Date32, Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            (ntz(), Date32),
        ] {
            assert!(!allowed(&from, &to), "{from} to {to}");
        }
    }

    #[test]
    fn changes_are_noted_one_after_the_other() {
        let field = Field::new("a", DataType::Int8, true);
        let field = widen(&field, &DataType::Int16).unwrap();
        assert!(!was_float(&field));
        let field = widen(&field, &DataType::Float64).unwrap();
        assert!(!was_float(&field));
        let noted =
            r#"[{"fromType":"byte","toType":"short"},{"fromType":"short","toType":"double"}]"#;
        assert_eq!(field.metadata()[&key()], noted);
        let field = Field::new("f", DataType::Float32, true);
        assert!(was_float(&widen(&field, &DataType::Float64).unwrap()));
    }
}

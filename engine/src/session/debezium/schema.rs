//! What the schema of an envelope says of its values, where the converter writes one.

use std::collections::HashMap;

use selvedge_udfs::debezium::json;
use serde_json::Value;

use super::cells::Unit;
use crate::error::{Error, Result};

/// What a field's values are, where the type of its column does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// Numbers that count from the epoch.
    Time(Unit),
    /// A decimal in bytes, so many digits of which stand behind the point.
    Decimal(i32),
    /// A decimal in bytes beside its scale.
    ScaledDecimal,
    /// Parts that are decimals in bytes.
    DecimalParts,
}

const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
const SCALED_DECIMAL: &str = "io.debezium.data.VariableScaleDecimal";

impl Hint {
    /// What the schema of a field says of its values.
    fn of(field: &Value) -> Result<Option<Self>> {
        let name = field.get("name").and_then(Value::as_str);
        Ok(Some(match name.unwrap_or_default() {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => {
                Self::Time(Unit::Days)
            }
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
                Self::Time(Unit::Millis)
            }
            "io.debezium.time.MicroTimestamp" => Self::Time(Unit::Micros),
            "io.debezium.time.NanoTimestamp" => Self::Time(Unit::Nanos),
            DECIMAL => Self::Decimal(scale(field)?),
            SCALED_DECIMAL => Self::ScaledDecimal,
            _ if parts(field).any(has_decimals) => Self::DecimalParts,
            _ => return Ok(None),
        }))
    }
}

/// The scale of a decimal, which schemas write as a text.
fn scale(field: &Value) -> Result<i32> {
    let scale = field.get("parameters").and_then(|all| all.get("scale"));
    let number = scale.and_then(|scale| match scale {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64().and_then(|scale| i32::try_from(scale).ok()),
    });
    number.ok_or_else(|| {
        let name = field.get("field").and_then(Value::as_str);
        Error::rejected(format!(
            "has a schema that does not say the scale of the decimal {}",
            name.unwrap_or_default()
        ))
    })
}

/// The schemas of the parts of an array, map or struct.
fn parts(schema: &Value) -> impl Iterator<Item = &Value> {
    let single = ["items", "keys", "values"].into_iter();
    let single = single.filter_map(|name| schema.get(name));
    let fields = schema.get("fields").and_then(Value::as_array);
    single.chain(fields.into_iter().flatten())
}

fn has_decimals(schema: &Value) -> bool {
    let name = schema.get("name").and_then(Value::as_str);
    matches!(name, Some(DECIMAL | SCALED_DECIMAL)) || parts(schema).any(has_decimals)
}

/// The hints of the envelopes of one file, read once for as long as their schema stays the same.
#[derive(Debug, Default)]
pub(super) struct Hints {
    schema: String,
    fields: HashMap<String, Hint>,
}

impl Hints {
    /// Takes the schema of the next envelope.
    pub(super) fn take(&mut self, schema: Option<&str>) -> Result<()> {
        self.read(schema, fields)
    }

    /// Takes the schema of the next key: of a row, or of the one value of the field `only`.
    pub(super) fn take_key(&mut self, schema: Option<&str>, only: &str) -> Result<()> {
        self.read(schema, |schema| key_fields(schema, only))
    }

    fn read(
        &mut self,
        schema: Option<&str>,
        fields: impl FnOnce(&str) -> Result<HashMap<String, Hint>>,
    ) -> Result<()> {
        let schema = schema.unwrap_or_default();
        if self.schema == schema {
            return Ok(());
        }
        self.fields = match schema {
            "" => HashMap::new(),
            schema => fields(schema)?,
        };
        schema.clone_into(&mut self.schema);
        Ok(())
    }

    /// Fields are found as columns are: whatever their case is.
    pub(super) fn of(&self, field: &str) -> Option<Hint> {
        let found = self.fields.get(field).copied();
        found.or_else(|| {
            let upper = field.bytes().any(|byte| byte.is_ascii_uppercase());
            let lower = upper.then(|| field.to_ascii_lowercase())?;
            self.fields.get(&lower).copied()
        })
    }
}

/// Row images have one schema, under `before` and `after` alike.
fn fields(schema: &str) -> Result<HashMap<String, Hint>> {
    let value = parsed(schema)?;
    let listed = |value: &Value| value.get("fields").and_then(Value::as_array).cloned();
    let named =
        |field: &Value, name: &str| field.get("field").and_then(Value::as_str) == Some(name);
    let image = listed(&value).and_then(|parts| {
        let after = parts.iter().find(|part| named(part, "after"));
        after
            .or(parts.iter().find(|part| named(part, "before")))
            .and_then(listed)
    });
    let Some(columns) = image else {
        return Err(Error::rejected(
            "has a schema that does not say what its rows are",
        ));
    };
    hints_of(&columns)
}

/// Keys have no images: the schema is that of the row itself, or of a value.
fn key_fields(schema: &str, only: &str) -> Result<HashMap<String, Hint>> {
    let value = parsed(schema)?;
    match value.get("fields").and_then(Value::as_array) {
        Some(columns) => hints_of(columns),
        None => {
            let hint = Hint::of(&value)?.map(|hint| (only.to_ascii_lowercase(), hint));
            Ok(hint.into_iter().collect())
        }
    }
}

fn parsed(schema: &str) -> Result<Value> {
    serde_json::from_str(schema).map_err(|error| {
        Error::rejected(format!("has a schema that is {}", json::kind(schema))).with_source(error)
    })
}

fn hints_of(columns: &[Value]) -> Result<HashMap<String, Hint>> {
    let mut hints = HashMap::new();
    for column in columns {
        let field = column.get("field").and_then(Value::as_str);
        if let (Some(field), Some(hint)) = (field, Hint::of(column)?) {
            hints.insert(field.to_ascii_lowercase(), hint);
        }
    }
    Ok(hints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_say_what_numbers_count() {
        let schema = r#"{"type": "struct", "fields": [
            {"field": "before", "type": "struct", "fields": []},
            {"field": "after", "type": "struct", "fields": [
                {"field": "id", "type": "int64"},
                {"field": "ds", "type": "int32", "name": "io.debezium.time.Date"},
                {"field": "at", "type": "int64", "name": "io.debezium.time.MicroTimestamp"},
                {"field": "Price", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
                    "parameters": {"scale": "2", "connect.decimal.precision": "5"}},
                {"field": "any", "type": "struct", "name": "io.debezium.data.VariableScaleDecimal", "fields": [
                    {"type": "int32", "field": "scale"}, {"type": "bytes", "field": "value"}]},
                {"field": "all", "type": "array", "items": {"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"}},
                {"field": "note", "type": "string", "name": "io.debezium.data.Json"}]}]}"#;
        let mut hints = Hints::default();
        hints.take(Some(schema)).unwrap();
        assert_eq!(hints.of("ds"), Some(Hint::Time(Unit::Days)));
        assert_eq!(hints.of("at"), Some(Hint::Time(Unit::Micros)));
        assert_eq!(hints.of("price"), Some(Hint::Decimal(2)));
        assert_eq!(hints.of("any"), Some(Hint::ScaledDecimal));
        assert_eq!(hints.of("all"), Some(Hint::DecimalParts));
        assert_eq!((hints.of("id"), hints.of("note")), (None, None));
        hints.take(None).unwrap();
        assert_eq!(hints.of("ds"), None);
        // Keys are rows, or values by themselves.
        let decimal =
            r#""name": "org.apache.kafka.connect.data.Decimal", "parameters": {"scale": "2"}"#;
        let row = format!(r#"{{"fields": [{{"field": "Price", {decimal}}}]}}"#);
        for schema in [row, format!("{{{decimal}}}")] {
            let mut keys = Hints::default();
            keys.take_key(Some(&schema), "Price").unwrap();
            assert_eq!(keys.of("price"), Some(Hint::Decimal(2)), "{schema}");
        }
        hints.take_key(Some(r#"{"type": "string"}"#), "id").unwrap();
        assert_eq!(hints.of("id"), None);
        hints.take(None).unwrap();
        let error = hints.take(Some(r#"{"type": "string"}"#)).unwrap_err();
        assert!(error.message().contains("what its rows are"), "{error}");
        let schema = r#"{"fields": [{"field": "after", "fields": [
            {"field": "price", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"}]}]}"#;
        let error = hints.take(Some(schema)).unwrap_err();
        let told = "does not say the scale of the decimal price";
        assert!(error.message().contains(told), "{error}");
    }
}

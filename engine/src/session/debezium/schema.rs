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
    /// A decimal in bytes.
    Decimal,
}

impl Hint {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => {
                Self::Time(Unit::Days)
            }
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
                Self::Time(Unit::Millis)
            }
            "io.debezium.time.MicroTimestamp" => Self::Time(Unit::Micros),
            "io.debezium.time.NanoTimestamp" => Self::Time(Unit::Nanos),
            "org.apache.kafka.connect.data.Decimal" | "io.debezium.data.VariableScaleDecimal" => {
                Self::Decimal
            }
            _ => return None,
        })
    }
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

    pub(super) fn of(&self, field: &str) -> Option<Hint> {
        self.fields.get(field).copied()
    }
}

/// Row images have one schema, under `before` and `after` alike.
fn fields(schema: &str) -> Result<HashMap<String, Hint>> {
    let value: Value = serde_json::from_str(schema).map_err(|error| {
        Error::rejected(format!("has a schema that is {}", json::kind(schema))).with_source(error)
    })?;
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
    let hint = |column: &Value| {
        let field = column.get("field")?.as_str()?;
        let hint = Hint::named(column.get("name")?.as_str()?)?;
        Some((field.to_owned(), hint))
    };
    Ok(columns.iter().filter_map(hint).collect())
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
                {"field": "price", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal"},
                {"field": "note", "type": "string", "name": "io.debezium.data.Json"}]}]}"#;
        let mut hints = Hints::default();
        hints.take(Some(schema)).unwrap();
        assert_eq!(hints.of("ds"), Some(Hint::Time(Unit::Days)));
        assert_eq!(hints.of("at"), Some(Hint::Time(Unit::Micros)));
        assert_eq!(hints.of("price"), Some(Hint::Decimal));
        assert_eq!((hints.of("id"), hints.of("note")), (None, None));
        hints.take(None).unwrap();
        assert_eq!(hints.of("ds"), None);
        let error = hints.take(Some(r#"{"type": "string"}"#)).unwrap_err();
        assert!(error.message().contains("what its rows are"), "{error}");
    }
}

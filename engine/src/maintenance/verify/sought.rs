//! What a policy is looked for by in texts: the columns of its key, and those it takes something away from.

use datafusion::arrow::datatypes::DataType;
use serde_json::Value;

use super::sound::Sound;
use crate::table::records::Forget;

/// What stands for a value that was left out.
pub(super) const REDACTED: [&str; 2] = ["NULL", "***"];

/// A column, by the names it has in queries and in files.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub name: String,
    pub physical: String,
    pub data_type: DataType,
    /// What a policy puts in its place, which is nobody's.
    pub set: Option<String>,
}

/// What one policy is looked for by.
#[derive(Debug)]
pub(super) struct Sought {
    /// Its place among the policies.
    pub policy: usize,
    pub deletes: bool,
    pub key: Vec<Column>,
    pub touched: Vec<Column>,
    /// What metrics may tell of it.
    pub forget: Forget,
    pub sound: Sound,
}

/// A key that was found, and the columns whose values stand beside it.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub keys: Vec<Vec<String>>,
    pub beside: Vec<Vec<String>>,
}

impl Sought {
    /// Whether a bound of a column, by the name that files have for it, may be of what it takes away.
    pub(super) fn bounded(&self, name: &str, bound: &Value) -> bool {
        let changed = |column: &Column| {
            let nobodys = column.set.is_some() && column.set == scalar(bound);
            column.physical == name && !nobodys
        };
        holds(bound) && (self.deletes || self.touched.iter().any(changed))
    }

    /// What the table calls a column; one that it has no more is called as files do.
    pub(super) fn called(&self, name: &str) -> String {
        let mut columns = self.touched.iter().chain(&self.key);
        let column = columns.find(|column| column.physical == name);
        column
            .map_or(name, |column| column.name.as_str())
            .to_owned()
    }
}

impl Candidates {
    /// Notes the key that `of` tells the values of, if it does, and what stands beside it.
    pub(super) fn add(&mut self, sought: &Sought, of: impl Fn(&Column) -> Option<String>) {
        let key: Option<Vec<String>> = sought.key.iter().map(&of).collect();
        let Some(key) = key else {
            return;
        };
        let beside: Vec<String> = match sought.deletes {
            true => {
                let names: Vec<&str> = sought.key.iter().map(|c| c.name.as_str()).collect();
                vec![names.join(", ")]
            }
            false => {
                let there = |column: &&Column| {
                    let text = of(column).filter(|text| !REDACTED.contains(&text.as_str()));
                    text.is_some() && text != column.set
                };
                let columns = sought.touched.iter().filter(there);
                columns.map(|column| column.name.clone()).collect()
            }
        };
        if !beside.is_empty() {
            self.keys.push(key);
            self.beside.push(beside);
        }
    }
}

/// A single value as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether there is any value in it.
fn holds(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => values.iter().any(holds),
        Value::Object(members) => members.values().any(holds),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => true,
    }
}

/// A literal as it stands in texts.
pub(super) fn plain(literal: &str) -> String {
    let within = literal.strip_prefix('\'');
    match within.and_then(|text| text.strip_suffix('\'')) {
        Some(text) => text.replace("''", "'"),
        None => literal.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> Column {
        Column {
            name: name.to_owned(),
            physical: format!("col-{name}"),
            data_type: DataType::Int64,
            set: None,
        }
    }

    fn noted(deletes: bool, of: impl Fn(&Column) -> Option<String>) -> Candidates {
        let sought = Sought {
            policy: 0,
            deletes,
            key: vec![column("id")],
            touched: vec![column("email")],
            forget: Forget::Everything,
            sound: Sound::default(),
        };
        let mut candidates = Candidates::default();
        candidates.add(&sought, of);
        candidates
    }

    #[test]
    fn a_key_alone_is_left_only_where_its_rows_should_be_gone() {
        let key = |column: &Column| (column.name == "id").then(|| "42".to_owned());
        assert_eq!(noted(true, key).beside, [["id"]]);
        assert!(noted(false, key).keys.is_empty());
        let both = |column: &Column| Some(format!("{} of 42", column.name));
        assert_eq!(noted(false, both).beside, [["email"]]);
        let redacted = |column: &Column| match column.name.as_str() {
            "id" => Some("42".to_owned()),
            _ => Some("***".to_owned()),
        };
        assert!(noted(false, redacted).keys.is_empty());
    }

    #[test]
    fn what_was_set_is_nobodys() {
        let sought = Sought {
            policy: 0,
            deletes: false,
            key: vec![column("id")],
            touched: vec![Column {
                set: Some(plain("'it''s gone'")),
                ..column("email")
            }],
            forget: Forget::Everything,
            sound: Sound::default(),
        };
        let mut candidates = Candidates::default();
        candidates.add(&sought, |column| {
            Some(match column.name.as_str() {
                "id" => "42".to_owned(),
                _ => "it's gone".to_owned(),
            })
        });
        assert!(candidates.keys.is_empty());
        let bounded = |name: &str, bound: Value| sought.bounded(name, &bound);
        assert!(bounded("col-email", "a@b".into()));
        assert!(!bounded("col-email", "it's gone".into()));
        assert!(!bounded("col-email", Value::Null));
        assert!(!bounded("col-n", 7.into()));
        assert_eq!(sought.called("col-email"), "email");
    }

    #[test]
    fn of_rows_that_should_be_gone_any_bound_is_one_too_many() {
        let sought = Sought {
            policy: 0,
            deletes: true,
            key: vec![column("id")],
            touched: Vec::new(),
            forget: Forget::Everything,
            sound: Sound::default(),
        };
        assert!(sought.bounded("col-other", &7.into()));
        assert!(!sought.bounded("col-place", &serde_json::json!({ "city": null })));
        assert!(sought.bounded("col-place", &serde_json::json!({ "city": "Basel" })));
    }
}

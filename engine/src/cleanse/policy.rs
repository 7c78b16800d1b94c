//! What a table must forget, as it is kept: one JSON object in the table's own properties, so that a policy is
//! versioned with the table, and the very types a program or a REST service exchanges.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Begins the property that holds a policy; its name follows.
pub(crate) const PROPERTY: &str = "selvedge.policies.";

/// One `CLEANSE POLICY` of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// Name, the only one of it in its table.
    pub name: String,
    /// Which rows it is about.
    pub scope: PolicyScope,
    /// What happens to them.
    pub action: PolicyAction,
    /// Whether writes and `CLEANSE TABLE` are held to it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The version from which on every written row was cleansed, while the policy was enabled.
    #[serde(default)]
    pub since_version: u64,
    /// Who added it, where sessions have users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

fn yes() -> bool {
    true
}

/// Which rows a policy is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PolicyScope {
    /// All of them.
    Every,
    /// Those whose key a query over tables of the lake answers.
    Keys {
        /// The columns that are the key, in the order in which the query answers them.
        columns: Vec<String>,
        /// The query, with the full name of each table.
        query: String,
    },
}

/// What a policy does to the rows it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PolicyAction {
    /// Their cells in these columns become NULL.
    Nullify {
        /// The columns.
        columns: Columns,
    },
    /// Their cells in these columns become the literal of each.
    Set {
        /// The literal of each column, as SQL.
        values: BTreeMap<String, String>,
    },
    /// They are left out.
    DeleteRows,
}

/// Columns of the table of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Columns {
    /// These.
    Named(Vec<String>),
    /// Those that carry this tag when the policy runs.
    Tagged(String),
}

impl Policy {
    /// An enabled policy with this name.
    pub fn new(name: impl Into<String>, scope: PolicyScope, action: PolicyAction) -> Self {
        Self {
            name: name.into(),
            scope,
            action,
            enabled: true,
            since_version: 0,
            author: None,
        }
    }

    /// The columns it names: of its key, and those it changes.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let key = match &self.scope {
            PolicyScope::Every => [].iter(),
            PolicyScope::Keys { columns, .. } => columns.iter(),
        };
        let nullified = match &self.action {
            PolicyAction::Nullify {
                columns: Columns::Named(names),
            } => names.iter(),
            _ => [].iter(),
        };
        let set = match &self.action {
            PolicyAction::Set { values } => Some(values.keys()),
            _ => None,
        };
        let names = key.chain(nullified).chain(set.into_iter().flatten());
        names.map(String::as_str)
    }
}

/// The policies among the properties of `table`, by name.
///
/// # Errors
/// When another program wrote something else there.
pub(crate) fn policies(table: &str, properties: &BTreeMap<String, String>) -> Result<Vec<Policy>> {
    let kept = properties.range(PROPERTY.to_owned()..);
    kept.map_while(|(key, json)| Some((key.strip_prefix(PROPERTY)?, json)))
        .map(|(name, json)| {
            let wrong = |what: String| {
                Error::corrupt(format!(
                    "table {table}: property {PROPERTY}{name} is not a cleanse policy: {what}"
                ))
            };
            let policy: Policy =
                serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
            match policy.name == name {
                true => Ok(policy),
                false => Err(wrong(format!("it is named {}", policy.name))),
            }
        })
        .collect()
}

/// The property that keeps `policy`.
pub(crate) fn property(policy: &Policy) -> Result<(String, String)> {
    let json = serde_json::to_string(policy)
        .map_err(|error| Error::internal("a policy cannot be written").with_source(error))?;
    Ok((format!("{PROPERTY}{}", policy.name), json))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forget() -> Policy {
        Policy::new(
            "forget",
            PolicyScope::Keys {
                columns: vec!["client_id".into()],
                query: "SELECT client_id FROM privacy.requests".into(),
            },
            PolicyAction::Nullify {
                columns: Columns::Tagged("pii".into()),
            },
        )
    }

    #[test]
    fn a_policy_is_kept_as_json_under_its_name() {
        let (key, json) = property(&forget()).unwrap();
        assert_eq!(key, "selvedge.policies.forget");
        assert_eq!(
            json,
            r#"{"name":"forget","scope":{"keys":{"columns":["client_id"],"query":"SELECT client_id FROM privacy.requests"}},"action":{"nullify":{"columns":{"tagged":"pii"}}},"enabled":true,"since_version":0}"#
        );
        let properties = BTreeMap::from([
            ("selvedge.policy".into(), "x".into()),
            (key, json),
            ("selvedge.profile".into(), "true".into()),
        ]);
        assert_eq!(policies("s.t", &properties).unwrap(), [forget()]);
    }

    #[test]
    fn what_is_not_a_policy_is_told() {
        let read = |name: &str, json: &str| {
            let properties = BTreeMap::from([(format!("{PROPERTY}{name}"), json.to_owned())]);
            policies("s.t", &properties).unwrap_err().to_string()
        };
        let error = read("p", r#"{"name":"p","scope":"every","action":"forget"}"#);
        assert!(
            error.contains("table s.t: property selvedge.policies.p is not a cleanse policy"),
            "{error}"
        );
        let error = read(
            "p",
            r#"{"name":"q","scope":"every","action":"delete_rows"}"#,
        );
        assert!(error.contains("it is named q"), "{error}");
        let error = read(
            "p",
            r#"{"name":"p","scope":"every","action":"delete_rows","extra":1}"#,
        );
        assert!(error.contains("extra"), "{error}");
    }
}

//! What a table expects of its rows, as it is kept: one JSON object in the table's own properties, so that a rule
//! is versioned with the table, and the very types a program or a REST service exchanges.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Begins the property that holds a rule; its name follows.
pub(crate) const PROPERTY: &str = "selvedge.constraints.";

/// Whether rows that do not fit the table go to its quarantine, and the others on.
pub(crate) const QUARANTINE_INVALID: &str = "selvedge.quarantineInvalid";

/// Whether every write takes the metrics of all columns.
pub(crate) const PROFILE: &str = "selvedge.profile";

/// One `CONSTRAINT name EXPECT (..)` of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub struct Rule {
    /// Name, the only one of it in its table, CHECK constraints included.
    pub name: String,
    /// The condition, as SQL.
    pub expect: String,
    /// What the condition is about; follows from its text.
    pub kind: RuleKind,
    /// Whether a metric rule is asked of the rows of each partition of the table by themselves.
    #[serde(default)]
    pub per_partition: bool,
    /// Which rows a metric rule is about.
    #[serde(default)]
    pub over: Over,
    /// What an unknown condition counts as.
    #[serde(default)]
    pub on_null: OnNull,
    /// What happens to rows, or to the write, that break it.
    #[serde(default)]
    pub on_violation: OnViolation,
    /// Whether writes are held to it.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether every row that was in the table when the rule came has been asked too.
    #[serde(default)]
    pub validated: bool,
    /// The version from which on every written row was asked, while the rule was enabled.
    #[serde(default)]
    pub since_version: u64,
    /// Who added it, where sessions have users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Names what is asked: the same for the same condition over the same rows, whatever the rule is called and
    /// does. 16 hexadecimal digits.
    pub fingerprint: String,
}

fn yes() -> bool {
    true
}

/// What the condition of a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    /// Each row by itself.
    Row,
    /// Each row, and the rows of another table: `c REFERENCES t (k)`.
    Reference,
    /// All rows of a write: the condition holds aggregates.
    Metric,
}

/// Which rows a metric rule is about.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Those the write adds to the table.
    #[default]
    Written,
    /// Those that came, also if they are dropped or quarantined.
    Input,
}

/// What an unknown condition counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNull {
    /// As held.
    #[default]
    Pass,
    /// As broken.
    Violate,
}

/// What happens to rows, or to a write, that break a rule; the later is the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnViolation {
    /// The write goes on; the violation is recorded.
    Warn,
    /// The row is left out, and counted.
    DropRow,
    /// The row goes to the table's quarantine.
    QuarantineRow,
    /// Nothing of the write becomes visible.
    #[default]
    Fail,
}

impl RuleKind {
    /// The word for it in relations and messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Reference => "reference",
            Self::Metric => "metric",
        }
    }
}

impl OnViolation {
    /// As SQL spells it.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Warn => "WARN",
            Self::DropRow => "DROP ROW",
            Self::QuarantineRow => "QUARANTINE ROW",
            Self::Fail => "FAIL",
        }
    }
}

impl OnNull {
    /// As SQL spells it.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Violate => "VIOLATE",
        }
    }
}

impl Rule {
    /// A rule with this name and condition, and defaults for the rest. Kind and fingerprint are found when it is
    /// added to a table.
    pub fn new(name: impl Into<String>, expect: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            expect: expect.into(),
            kind: RuleKind::Row,
            per_partition: false,
            over: Over::default(),
            on_null: OnNull::default(),
            on_violation: OnViolation::default(),
            enabled: true,
            validated: false,
            since_version: 0,
            author: None,
            fingerprint: String::new(),
        }
    }

    /// As messages tell it: `positive EXPECT (amount >= 0)`.
    pub(crate) fn told(&self) -> String {
        format!("{} EXPECT ({})", self.name, self.expect)
    }

    /// What is asked, by the condition and the rows it is asked of.
    pub(crate) fn fingerprint_of(&self) -> String {
        let asked = (
            &self.expect,
            self.kind.word(),
            self.per_partition,
            self.over,
            self.on_null,
        );
        let digest = Sha256::digest(format!("{asked:?}"));
        digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The rules among the properties of `table`, by name.
///
/// # Errors
/// When another program wrote something else there.
pub(crate) fn rules(table: &str, properties: &BTreeMap<String, String>) -> Result<Vec<Rule>> {
    let kept = properties.range(PROPERTY.to_owned()..);
    kept.map_while(|(key, json)| Some((key.strip_prefix(PROPERTY)?, json)))
        .map(|(name, json)| {
            serde_json::from_str(json).map_err(|error| {
                Error::corrupt(format!(
                    "table {table}: property {PROPERTY}{name} is not a rule: {error}"
                ))
                .with_source(error)
            })
        })
        .collect()
}

/// The property that keeps `rule`.
pub(crate) fn property(rule: &Rule) -> Result<(String, String)> {
    let json = serde_json::to_string(rule)
        .map_err(|error| Error::internal("a rule cannot be written").with_source(error))?;
    Ok((format!("{PROPERTY}{}", rule.name), json))
}

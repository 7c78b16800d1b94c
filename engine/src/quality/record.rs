//! What a write says of the rules it was held to: in its report, and in the commit that shows its rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rule::{OnViolation, Over, RuleKind};

/// Values of a table's partition columns, by column, as the log writes them.
pub type PartitionValues = BTreeMap<String, Option<String>>;

/// What one write says of one rule, or of one partition where the rule is asked PER PARTITION.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RuleResult {
    /// Name of the rule.
    pub rule: String,
    /// Which rule this was, should another one take its name; see [`super::Rule::fingerprint`].
    pub fingerprint: String,
    /// What it is about.
    pub kind: RuleKind,
    /// What it does with violations.
    pub action: OnViolation,
    /// Of rules asked PER PARTITION: the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionValues>,
    /// What came out.
    pub outcome: RuleOutcome,
    /// Rows that were asked, or that the metrics are over.
    pub rows_checked: u64,
    /// Rows that break it; 1 for a metric rule that does not hold.
    pub violations: u64,
    /// Rows for which the condition is NULL, whatever that counts as.
    pub nulls: u64,
    /// Of metric rules: each metric with its value, `count(*) = 12`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed: Vec<String>,
    /// Of metric rules: what the past gave them, `previous(count(*)) = 10`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threshold: Vec<String>,
    /// A few of the rows that break it, by the values the rule reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<String>,
}

impl RuleResult {
    /// What the table itself demands of rows, where those that do not meet it go to quarantine.
    pub(crate) fn of_table(rule: String, rows: u64, violations: u64, sample: String) -> Self {
        Self {
            rule,
            fingerprint: String::new(),
            kind: RuleKind::Row,
            action: OnViolation::QuarantineRow,
            partition: None,
            outcome: RuleOutcome::Violated,
            rows_checked: rows,
            violations,
            nulls: 0,
            observed: Vec::new(),
            threshold: Vec::new(),
            sample: vec![sample],
        }
    }
}

/// What came out of asking a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleOutcome {
    /// It holds.
    Passed,
    /// It cannot be told: no rows, or too few writes before this one.
    Unknown,
    /// It does not hold.
    Violated,
}

impl RuleOutcome {
    /// The word for it in relations and messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Unknown => "unknown",
            Self::Violated => "violated",
        }
    }
}

/// One number about the rows of one write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MetricValue {
    /// The metric as SQL, `avg(amount)`: with it, `previous` and `baseline` find it again.
    pub metric: String,
    /// The column it is about, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The partition whose rows it is over; otherwise all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionValues>,
    /// Which rows of the write.
    #[serde(default)]
    pub over: Over,
    /// The value as text; None is NULL.
    pub value: Option<String>,
    /// Whether it is exact, and not an estimate from a sketch.
    pub exact: bool,
}

/// A file of quarantined rows beside a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SideFile {
    /// Relative to the table's folder, as the log writes paths.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    /// The write that quarantined the rows, where they were only put into another file since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A write, by its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Origin {
    pub version: u64,
    /// When it was committed: milliseconds since the epoch.
    pub at_ms: i64,
}

/// Rows of a file of quarantine that have been put through the write path again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replayed {
    /// As in [`SideFile::path`].
    pub path: String,
    /// Positions of the rows: a serialized `RoaringTreemap`, in base 64.
    pub rows: String,
}

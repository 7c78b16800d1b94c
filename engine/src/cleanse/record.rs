//! What a write, or `CLEANSE TABLE`, says of the policies its rows were put through.

use serde::{Deserialize, Serialize};

/// What one policy did to the rows of one write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct PolicyResult {
    /// Name of the policy.
    pub policy: String,
    /// Keys it listed, each once; zero for one that is about every row.
    pub keys: u64,
    /// Rows it is about.
    pub rows_matched: u64,
    /// Cells whose content it changed. A cell is counted for one policy.
    pub cells_changed: u64,
    /// Rows it left out. A row is counted for one policy.
    pub rows_erased: u64,
    /// What people should know: keys that can match nothing, policies that a stricter one overruled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

//! What a write did, row by row count: returned to the caller and kept in the commit itself.

use serde::{Deserialize, Serialize};

use crate::cleanse::record::PolicyResult;
use crate::quality::record::{MetricValue, RuleResult};

/// The account of one write. `received = written + dropped + quarantined + erased` for a plain table, but for rows
/// that hooks left out; for a journal `accepted` stands in the place of `written`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct WriteReport {
    /// Table as `schema.name`.
    pub table: String,
    /// Name of the operation, as in the Delta log: `WRITE`, `CREATE TABLE AS SELECT`, ...
    pub operation: String,
    /// Version that holds the rows; `None` when there was nothing to commit.
    pub version: Option<u64>,
    /// Milliseconds since the epoch of the statement, the same in every row and file it wrote.
    pub batch_id: i64,
    /// Rows that reached the write path.
    pub rows_received: u64,
    /// Rows that became events of a journal.
    #[serde(skip_serializing_if = "nothing")]
    pub rows_accepted: u64,
    /// Of these, the ones that told nothing new.
    #[serde(skip_serializing_if = "nothing")]
    pub rows_unchanged: u64,
    /// Of these, the ones that came after events of later instants.
    #[serde(skip_serializing_if = "nothing")]
    pub rows_late: u64,
    /// Intervals of a journal that begin with the write.
    #[serde(skip_serializing_if = "nothing")]
    pub intervals_opened: u64,
    /// Intervals of a journal that end with the write.
    #[serde(skip_serializing_if = "nothing")]
    pub intervals_closed: u64,
    /// Intervals of a journal that were there and have another end, or other values in untracked columns, since.
    #[serde(skip_serializing_if = "nothing")]
    pub intervals_updated: u64,
    /// The statement that put intervals right by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected: Option<String>,
    /// Rows in the new files.
    pub rows_written: u64,
    /// Rows that rules left out.
    #[serde(skip_serializing_if = "nothing")]
    pub rows_dropped: u64,
    /// Rows that went to the quarantine of the table instead.
    #[serde(skip_serializing_if = "nothing")]
    pub rows_quarantined: u64,
    /// Rows that cleanse policies left out.
    #[serde(skip_serializing_if = "nothing")]
    pub rows_erased: u64,
    /// Rows of older versions that are no longer visible (overwrite, delete, update).
    pub rows_removed: u64,
    /// Rows the statement inserted, where it is one that changes rows (MERGE, INSERT .. REPLACE WHERE).
    pub rows_inserted: u64,
    /// Rows the statement updated.
    pub rows_updated: u64,
    /// Rows the statement deleted.
    pub rows_deleted: u64,
    /// Data files added.
    pub files_added: u64,
    /// Data files removed from the table.
    pub files_removed: u64,
    /// Data files of which rows were marked as deleted.
    pub files_marked: u64,
    /// Bytes of the data files added.
    pub bytes_written: u64,
    /// Milliseconds from the first row to the commit.
    pub duration_ms: u64,
    /// What each hook counted, in the order the rows met them.
    pub hooks: Vec<HookReport>,
    /// What each cleanse policy of the table did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<PolicyResult>,
    /// What each rule of the table says of the write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleResult>,
    /// The metrics that its rules ask for, and those of its profile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricValue>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn nothing(count: &u64) -> bool {
    *count == 0
}

impl WriteReport {
    /// Rows the statement inserted, updated or deleted: what SQL clients call the affected rows.
    pub fn rows_affected(&self) -> u64 {
        match self.rows_inserted + self.rows_updated + self.rows_deleted {
            0 if self.rows_accepted > 0 => self.rows_accepted,
            0 => self.rows_written,
            changed => changed,
        }
    }
}

/// What one hook counted in one write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HookReport {
    /// Name of the hook.
    pub hook: String,
    /// Rows that went in.
    pub rows_in: u64,
    /// Rows that came out.
    pub rows_out: u64,
    /// Counters of the hook's own, in the order it gave them.
    pub counters: Vec<(String, u64)>,
}

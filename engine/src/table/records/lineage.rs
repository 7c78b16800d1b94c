//! Which of the writes made the table what it is: a RESTORE takes back those since the version it goes to, and a
//! table that was made anew has nothing of those before.

use super::Record;
use crate::table::actions::CommitInfo;

/// What is known of older records, from the newer ones.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Versions after this one have been taken back.
    back_to: Option<u64>,
    ended: bool,
}

impl Lineage {
    /// Takes note of a record, after all newer ones. Whether what its version did has been taken back since.
    pub(super) fn meets(&mut self, record: &Record) -> bool {
        let Some(version) = record.version else {
            return false;
        };
        if self.back_to.is_some_and(|to| version > to) {
            return true;
        }
        // Of a RESTORE that was taken back itself nothing is left, so this one counts.
        self.back_to = record.restored.or(self.back_to);
        self.ended |= record.begins();
        false
    }

    /// Whether the records that come are of the table before this one.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }
}

/// The version that a RESTORE went back to, which other engines write as text.
pub(super) fn target(info: &CommitInfo) -> Option<u64> {
    let version = info.operation_parameters.as_ref()?.get("version")?;
    match version.as_u64() {
        Some(version) => Some(version),
        None => version.as_str()?.parse().ok(),
    }
}

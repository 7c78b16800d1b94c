//! The newest snapshot that a journal was told. All that is current since before it was there at its instant, so an
//! older one that comes later must not end it for lacking it, even where the newer one changed nothing.
//!
//! It is noted in the log as the last version of an application of ours, as vacuums are: a line which every writer
//! carries on, checkpoints keep, and no feature of the protocol has to allow.

use crate::table::actions::Txn;
use crate::table::snapshot::Snapshot;

/// The application whose version is the instant of the newest snapshot, in microseconds since the epoch.
const APPLICATION: &str = "selvedge.journal.snapshot";

/// Its version where no snapshot is known any more: the log has no line that takes one back.
const NONE: i64 = i64::MIN;

/// The line that notes a snapshot.
pub(crate) fn note(instant: i64, now_ms: i64) -> Txn {
    Txn {
        app_id: APPLICATION.to_owned(),
        version: instant,
        last_updated: Some(now_ms),
    }
}

/// The instant of the newest snapshot that a version knows of.
pub(crate) fn newest(table: &Snapshot) -> Option<i64> {
    let noted = table.transactions.get(APPLICATION)?.version;
    (noted != NONE).then_some(noted)
}

/// The line that makes `base` know what `old` knows; None where it does.
pub(crate) fn restored(base: &Snapshot, old: Option<&Snapshot>, now_ms: i64) -> Option<Txn> {
    let then = old.and_then(newest);
    (newest(base) != then).then(|| note(then.unwrap_or(NONE), now_ms))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::Schema;

    use super::*;
    use crate::table::actions::{Metadata, Protocol};

    fn table(note: Option<Txn>) -> Snapshot {
        let protocol = Protocol::plain(1, 2);
        let metadata = Metadata::of_files([]);
        let mut table = Snapshot::draft(&protocol, &metadata, Arc::new(Schema::empty()));
        if let Some(note) = note {
            table
                .transactions
                .insert(note.app_id.clone(), Arc::new(note));
        }
        table
    }

    #[test]
    fn a_note_is_taken_back_by_another() {
        let (never, first, second) = (
            table(None),
            table(Some(note(-7, 1))),
            table(Some(note(9, 2))),
        );
        assert_eq!(newest(&never), None);
        assert_eq!(newest(&first), Some(-7));
        assert_eq!(restored(&second, Some(&second), 3), None);
        assert_eq!(restored(&never, None, 3), None);
        let back = table(restored(&second, Some(&first), 3));
        assert_eq!(newest(&back), Some(-7));
        let none = table(restored(&second, Some(&never), 3));
        assert_eq!(newest(&none), None);
        assert_eq!(restored(&none, None, 4), None);
    }
}

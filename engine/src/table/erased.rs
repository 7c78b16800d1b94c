//! Versions that were ended for what they held.
//!
//! `CLEANSE .. ERASE` notes in the log, as the last version of an application of ours, the first version that
//! stays. What the versions before it had is deleted, and of their commits only the place is left:
//!
//! ```text
//! commit -> hollow commit (who, when, in which attempt)
//! ```
//!
//! A commit that is gone altogether would be a free place in the log: a writer that has not looked since could
//! put its own there, be told that it succeeded, and nobody would ever see its rows.

use super::actions::Txn;
use super::handle::instant;
use super::snapshot::{Snapshot, TableRoot};
use super::vacuumed;
use crate::error::{Error, ErrorKind, Result};

/// The application whose version is the first one that was not erased.
const APPLICATION: &str = "selvedge.erase";

/// The end of a table's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Erased {
    /// The first version that stays.
    pub first: u64,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
}

/// The line that ends all versions before `first`.
pub(crate) fn note(first: u64, now_ms: i64) -> Result<Txn> {
    let version = i64::try_from(first)
        .map_err(|_| Error::internal(format!("version {first} is more than the log can say")))?;
    Ok(Txn {
        app_id: APPLICATION.to_owned(),
        version,
        last_updated: Some(now_ms),
    })
}

/// What was erased of a table, if anything ever was.
pub(crate) fn of(newest: &Snapshot) -> Option<Erased> {
    let txn = newest.transactions.get(APPLICATION)?;
    Some(Erased {
        first: u64::try_from(txn.version).ok()?,
        at_ms: txn.last_updated.unwrap_or_default(),
    })
}

impl Erased {
    /// What ended them, for messages.
    pub(crate) fn by(&self) -> String {
        format!(
            "what was before version {} was erased by CLEANSE TABLE .. ERASE at {}",
            self.first,
            instant(self.at_ms)
        )
    }
}

/// Refuses a version that was erased.
pub(crate) async fn check(
    root: &TableRoot,
    table: &str,
    newest: &Snapshot,
    version: u64,
) -> Result<()> {
    let Some(erased) = of(newest).filter(|erased| version < erased.first) else {
        return Ok(());
    };
    let horizon_ms = vacuumed::horizon_ms(newest).unwrap_or(i64::MIN);
    Err(Error::new(
        ErrorKind::NotFound,
        format!(
            "version {version} of table {table} was erased by CLEANSE TABLE .. ERASE at {}",
            instant(erased.at_ms)
        ),
    )
    .with_hint(vacuumed::readable(root, newest, horizon_ms).await?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::Schema;
    use datafusion::datasource::object_store::ObjectStoreUrl;
    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;
    use crate::table::actions::{Metadata, Protocol};

    fn snapshot(version: u64, note: Option<Txn>) -> Snapshot {
        let protocol = Protocol::plain(1, 2);
        let metadata = Metadata::of_files([]);
        let mut snapshot = Snapshot {
            version,
            ..Snapshot::draft(&protocol, &metadata, Arc::new(Schema::empty()))
        };
        if let Some(note) = note {
            let id = note.app_id.clone();
            snapshot.transactions.insert(id, Arc::new(note));
        }
        snapshot
    }

    #[tokio::test]
    async fn versions_before_the_note_are_refused_with_the_reason() {
        let root = TableRoot {
            store_url: ObjectStoreUrl::parse("memory://").unwrap(),
            store: Arc::new(InMemory::new()),
            path: Path::from("lake/t"),
        };
        let never = snapshot(7, None);
        assert_eq!(of(&never), None);
        assert!(check(&root, "s.t", &never, 0).await.is_ok());

        let newest = snapshot(7, Some(note(7, 0).unwrap()));
        assert_eq!(of(&newest), Some(Erased { first: 7, at_ms: 0 }));
        assert!(check(&root, "s.t", &newest, 7).await.is_ok());
        let error = check(&root, "s.t", &newest, 6).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.message(),
            "version 6 of table s.t was erased by CLEANSE TABLE .. ERASE at 1970-01-01 00:00:00.000 UTC"
        );
        assert_eq!(error.hint(), Some("only version 7 can be read"));
    }
}

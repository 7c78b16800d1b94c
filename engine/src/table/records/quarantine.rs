//! From records to the files that hold quarantined rows.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::lineage::Lineage;
use super::{every, folder, purged};
use crate::error::{Error, Result};
use crate::quality::record::{Origin, Replayed, SideFile};
use crate::table::snapshot::TableRoot;

/// A file of quarantined rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quarantined {
    pub file: SideFile,
    /// The version whose write they were part of.
    pub version: u64,
    /// When that was committed: milliseconds since the epoch.
    pub at_ms: i64,
    /// Positions of rows that have been taken up again since.
    pub gone: RoaringTreemap,
}

/// The folder of these files, as the log would write it.
pub(crate) const QUARANTINE: &str = "_selvedge/quarantine";

/// The folder of these files.
pub(crate) fn quarantine_folder(root: &TableRoot) -> Path {
    folder(root, "quarantine")
}

/// The files that versions up to `newest` quarantined after `past_ms`, and have rows left in that version; the
/// oldest first. Rows of a REPLAY that a RESTORE took back are there again, and what it had put aside once more is
/// not; what other writes put aside stays, although they were taken back.
pub(crate) async fn quarantine(
    root: &TableRoot,
    newest: u64,
    past_ms: i64,
) -> Result<Vec<Quarantined>> {
    let past_ms = purged::until_ms(root)
        .await?
        .unwrap_or(i64::MIN)
        .max(past_ms);
    let mut files = Vec::new();
    let mut gone: HashMap<String, RoaringTreemap> = HashMap::new();
    let mut lineage = Lineage::default();
    let mut records = every(root, newest, 0);
    while !lineage.ended()
        && let Some(record) = records.try_next().await?
    {
        // Rows are taken up again later than they came, so what is older than this file need not be read.
        if record.at_ms <= past_ms {
            break;
        }
        let taken_back = lineage.meets(&record);
        if taken_back && !record.replayed.is_empty() {
            continue;
        }
        for replayed in &record.replayed {
            *gone.entry(replayed.path.clone()).or_default() |= rows_of(replayed)?;
        }
        let Some(version) = record.version else {
            continue;
        };
        let write = Origin {
            version,
            at_ms: record.at_ms,
        };
        for file in record.quarantine.into_iter().rev() {
            let Origin { version, at_ms } = file.origin.unwrap_or(write);
            let gone = gone.remove(&file.path).unwrap_or_default();
            if at_ms > past_ms {
                files.push(Quarantined {
                    file,
                    version,
                    at_ms,
                    gone,
                });
            }
        }
    }
    files.reverse();
    for found in &files {
        if let Some(last) = found.gone.max().filter(|last| *last >= found.file.rows) {
            return Err(Error::corrupt(format!(
                "table {}: row {last} of '{}' was replayed, which has {} rows",
                root.url(),
                found.file.path,
                found.file.rows
            )));
        }
    }
    files.retain(|found| found.gone.len() < found.file.rows);
    Ok(files)
}

/// The objects that versions up to `newest` quarantined rows in: those past their retention, and the others.
pub(crate) async fn named(
    root: &TableRoot,
    newest: u64,
    past_ms: i64,
) -> Result<(HashSet<Path>, HashSet<Path>)> {
    let (mut past, mut kept) = (HashSet::new(), HashSet::new());
    // Old versions have their quarantine, also of a table that was replaced since.
    let mut records = every(root, newest, 0);
    while let Some(record) = records.try_next().await? {
        for file in &record.quarantine {
            let at_ms = file.origin.map_or(record.at_ms, |origin| origin.at_ms);
            let which = match at_ms <= past_ms {
                true => &mut past,
                false => &mut kept,
            };
            which.insert(root.locate(&file.path)?);
        }
    }
    Ok((past, kept))
}

/// Says which rows of a file of quarantine have been taken up again.
pub(crate) fn replayed(path: &str, rows: &RoaringTreemap) -> Result<Replayed> {
    let mut bytes = Vec::with_capacity(rows.serialized_size());
    rows.serialize_into(&mut bytes)
        .map_err(|error| Error::internal("rows cannot be serialised").with_source(error))?;
    Ok(Replayed {
        path: path.to_owned(),
        rows: STANDARD.encode(bytes),
    })
}

/// The rows that are meant.
///
/// # Errors
/// `Corrupt` when another program wrote something else there.
pub(super) fn rows_of(replayed: &Replayed) -> Result<RoaringTreemap> {
    let wrong = |why: String| {
        Error::corrupt(format!(
            "which rows of '{}' were replayed cannot be read: {why}",
            replayed.path
        ))
    };
    let bytes = STANDARD
        .decode(&replayed.rows)
        .map_err(|error| wrong(error.to_string()))?;
    RoaringTreemap::deserialize_from(bytes.as_slice()).map_err(|error| wrong(error.to_string()))
}

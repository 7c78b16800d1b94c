//! Whether an intent still means the same on a version that others have written meanwhile.
//!
//! Every pair of commits must have a serial order that explains it. A commit either comes after the winners
//! (then it must not have read or removed what they changed), or before blind appends, which read nothing.
//! What has no such order is a conflict, returned as a value: the statement is run again on the new version.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use roaring::RoaringTreemap;

use super::commit::{Intent, Removes};
use crate::error::{Error, ErrorKind, Result};
use crate::table::actions::{Action, Add};
use crate::table::erased;
use crate::table::handle::Table;
use crate::table::located::Asked;
use crate::table::log::{self, Commit};
use crate::table::snapshot::{DataFile, Snapshot};

/// What a write looked at in the table it writes to.
#[derive(Debug, Clone)]
pub(crate) enum Reads {
    /// Nothing: its rows came from elsewhere.
    Nothing,
    /// Rows that pass filters, each for itself.
    Rows(Asked),
    /// Rows that pass filters, and that there are no others (MERGE inserts what it did not find).
    Matches(Asked),
    /// Any row.
    Table,
    /// All rows, and it says something of those that come later too (a constraint).
    Exclusive,
}

/// Why `intent`, made for its base, does not fit `head`; `None` when it does.
pub(super) async fn reason(
    table: &Table,
    intent: &Intent,
    head: Option<&Snapshot>,
) -> Result<Option<String>> {
    let (Some(head), Some(base)) = (head, intent.base.as_deref()) else {
        return Ok(None);
    };
    if head.version == base.version {
        return Ok(None);
    }
    let name = &intent.name;
    if head.metadata.id != base.metadata.id {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("table {name} was replaced while it was written"),
        ));
    }
    if head.metadata != base.metadata || head.protocol != base.protocol {
        return Ok(Some(format!(
            "table {name} was altered by version {}",
            head.version
        )));
    }
    if let Some(path) = moved(table, intent, head).await? {
        return Ok(Some(format!(
            "file '{path}' of table {name} was changed by version {} or one before",
            head.version
        )));
    }
    let looked = !matches!(intent.reads, Reads::Nothing) || !intent.replayed.is_empty();
    if !looked && !intent.compares && !intent.forgets {
        return Ok(None);
    }
    // What erased versions brought and took is not told any more, so it may have been anything.
    if let Some(erased) = erased::of(head).filter(|erased| base.version + 1 < erased.first) {
        return Ok(Some(format!(
            "the versions of table {name} before {} were erased meanwhile",
            erased.first
        )));
    }
    for version in base.version + 1..=head.version {
        let commit = log::read(&table.root, version).await?.ok_or_else(|| {
            Error::corrupt(format!(
                "commit {version} of table {name} vanished while it was read"
            ))
        })?;
        if let Some(path) = replayed_too(intent, &commit) {
            return Ok(Some(format!(
                "version {version} of table {name} has replayed rows of '{path}'"
            )));
        }
        // More keys may have been asked for by then, and it is not to be undone by rows that came before it.
        if intent.forgets && cleansed(&commit) {
            return Ok(Some(format!(
                "version {version} of table {name} was cleansed while rows were on their way"
            )));
        }
        if intent.compares && measured(&commit) {
            return Ok(Some(format!(
                "version {version} of table {name} is one that rules compare the {} with",
                intent.operation
            )));
        }
        if overlooked(intent, base, &commit)? {
            return Ok(Some(format!(
                "version {version} of table {name} changed rows that the {} depends on",
                intent.operation
            )));
        }
    }
    Ok(None)
}

/// The first file the intent takes rows from that is not what it was.
async fn moved(table: &Table, intent: &Intent, head: &Snapshot) -> Result<Option<String>> {
    match &intent.removes {
        Removes::None | Removes::All | Removes::Partitions(_) => {}
        Removes::Files(files) => {
            for (path, file) in files {
                let same = head
                    .files
                    .get(path)
                    .is_some_and(|live| live.dv_id() == file.dv_id());
                if !same {
                    return Ok(Some(path.clone()));
                }
            }
        }
        Removes::Rows(rows) => {
            for (path, taken) in rows.iter() {
                if !still_there(table, head, path, taken).await? {
                    return Ok(Some(path.clone()));
                }
            }
        }
    }
    Ok(None)
}

/// Whether all the rows are still in the table. A file never changes its rows, so that two statements may take
/// different rows out of it, one after the other.
async fn still_there(
    table: &Table,
    head: &Snapshot,
    path: &str,
    taken: &TakenRows,
) -> Result<bool> {
    let Some(live) = head.files.get(path) else {
        return Ok(false);
    };
    if live.dv_id() == taken.file.dv_id() {
        return Ok(true);
    }
    Ok(match live.deleted(&table.root).await? {
        Some(deleted) => deleted.is_disjoint(&taken.rows),
        None => true,
    })
}

/// Rows that a statement takes out of one file.
#[derive(Debug, Clone)]
pub(crate) struct TakenRows {
    /// The file as the statement found it.
    pub file: Arc<DataFile>,
    pub rows: RoaringTreemap,
}

/// Whether the commit recorded metrics.
fn measured(commit: &Commit) -> bool {
    let marker = commit.info().and_then(|info| info.selvedge.as_ref());
    let report = marker.and_then(|marker| marker.report.as_ref());
    report.is_some_and(|report| !report.metrics.is_empty())
}

fn cleansed(commit: &Commit) -> bool {
    let operation = commit.info().and_then(|info| info.operation.as_deref());
    operation == Some("CLEANSE")
}

/// The file of quarantine from which both take rows up again, if there is one.
fn replayed_too<'a>(intent: &'a Intent, commit: &Commit) -> Option<&'a str> {
    let info = commit.info()?;
    let mut own = intent.replayed.iter();
    // It may bring back what was replayed, and take away what was put aside.
    if info.operation.as_deref() == Some("RESTORE") {
        return own.next().map(|own| own.path.as_str());
    }
    let theirs = &info.selvedge.as_ref()?.replayed;
    own.find(|own| theirs.iter().any(|their| their.path == own.path))
        .map(|own| own.path.as_str())
}

/// Whether the commit brought or took rows the intent should have seen.
fn overlooked(intent: &Intent, base: &Snapshot, commit: &Commit) -> Result<bool> {
    let mut added: Vec<&Add> = Vec::new();
    let mut removed: BTreeMap<&str, i64> = BTreeMap::new();
    for action in &commit.actions {
        match action {
            Action::Add(add) if add.data_change => added.push(add),
            Action::Remove(remove) if remove.data_change => {
                let deleted = remove
                    .deletion_vector
                    .as_ref()
                    .map_or(0, |dv| dv.cardinality);
                removed.insert(&remove.path, deleted);
            }
            _ => {}
        }
    }
    if added.is_empty() && removed.is_empty() {
        return Ok(false);
    }
    let blind = removed.is_empty()
        && commit
            .info()
            .is_some_and(|info| info.is_blind_append == Some(true));
    // A blind append may come after this commit, unless this commit takes out what it brought.
    let may_go_first = matches!(
        intent.removes,
        Removes::None | Removes::Rows(_) | Removes::Files(_)
    );
    let asked = match &intent.reads {
        Reads::Nothing => return Ok(false),
        Reads::Exclusive => return Ok(true),
        _ if blind && may_go_first => return Ok(false),
        Reads::Table => return Ok(true),
        Reads::Rows(asked) | Reads::Matches(asked) => asked,
    };
    // Rows that came, with a file or out of a deletion vector, it would have had to see. Rows that went are
    // seen by `moved` if this intent takes them too; the others matter only to who counts on them.
    let came = added.iter().filter(|add| {
        let deleted = add.deletion_vector.as_ref().map_or(0, |dv| dv.cardinality);
        removed
            .get(add.path.as_str())
            .is_none_or(|before| deleted < *before)
    });
    let mut changed: OrdMap<String, Arc<DataFile>> = came
        .map(|add| (add.path.clone(), Arc::new(DataFile::new((*add).clone()))))
        .collect();
    if matches!(intent.reads, Reads::Matches(_)) {
        for path in removed.keys() {
            match base.files.get(*path) {
                Some(file) => changed.insert((*path).to_owned(), Arc::clone(file)),
                // It came and went since: what it held is not known any more.
                None => return Ok(true),
            };
        }
    }
    if changed.is_empty() {
        return Ok(false);
    }
    asked.touches(&Snapshot {
        files: changed,
        ..base.clone()
    })
}

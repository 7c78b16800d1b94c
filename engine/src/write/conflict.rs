//! Whether an intent still means the same on a version that others have written meanwhile.
//!
//! Every pair of commits must have a serial order that explains it. A commit either comes after the winners
//! (then it must not have read or removed what they changed), or before blind appends, which read nothing.
//! What has no such order is a conflict, returned as a value: the statement is run again on the new version.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::SessionState;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;
use imbl::OrdMap;
use roaring::RoaringTreemap;

use super::commit::{Intent, Removes};
use super::journal::keys_in_place;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::horizon::{self, Kept, Since};
use crate::journal::key::{self, KeySet};
use crate::journal::shape::Shape;
use crate::journal::told;
use crate::table::actions::{Action, Add};
use crate::table::erased;
use crate::table::handle::Table;
use crate::table::located::Asked;
use crate::table::log::{self, Commit};
use crate::table::snapshot::{DataFile, Snapshot};
use crate::table::versioned::VersionedTable;

/// What a write looked at in the table it writes to.
#[derive(Debug, Clone)]
pub(crate) enum Reads {
    /// Nothing: its rows came from elsewhere.
    Nothing,
    /// Rows that pass filters, each for itself.
    Rows(Asked),
    /// Rows that pass filters, and that there are no others (MERGE inserts what it did not find).
    Matches(Asked),
    /// Rows of a journal with these keys, and that there are no others of them.
    Keys(Arc<TouchedKeys>),
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
    // A snapshot that changed no row changes what an older one may close.
    let whole = matches!(intent.reads, Reads::Table | Reads::Exclusive);
    if whole && told::newest(head) != told::newest(base) {
        return Ok(Some(format!(
            "version {} of table {name}, or one before, has another newest snapshot",
            head.version
        )));
    }
    // Events that are kept may have changed no row, and put what was written in another place all the same.
    if whole && head.domains.get(horizon::DOMAIN) != base.domains.get(horizon::DOMAIN) {
        return Ok(Some(format!(
            "version {} of table {name}, or one before, keeps other events",
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
    let mut came = OrdMap::new();
    let mut kept = match &intent.reads {
        Reads::Keys(keys) => Some(Since::new(&keys.shape, base)?),
        _ => None,
    };
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
        // It brings nothing, and takes rows away that the events of this write were held against.
        if kept.is_some() && restored(&commit) {
            return Ok(Some(format!(
                "version {version} of table {name} restored an older one"
            )));
        }
        if let Some(kept) = &mut kept {
            came.extend(Touched::of(&commit).came());
            kept.take(version, &commit.actions)?;
        } else if overlooked(intent, base, &commit)? {
            return Ok(Some(format!(
                "version {version} of table {name} changed rows that the {} depends on",
                intent.operation
            )));
        }
    }
    if let Reads::Keys(keys) = &intent.reads
        && keys.met(table, base, head, came, kept).await?
    {
        return Ok(Some(format!(
            "version {} of table {name}, or one before, changed keys that the {} changes too",
            head.version, intent.operation
        )));
    }
    Ok(None)
}

fn restored(commit: &Commit) -> bool {
    let operation = commit.info().and_then(|info| info.operation.as_deref());
    operation == Some("RESTORE")
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

/// Keys of a journal whose rows a write has looked at.
#[derive(Debug)]
pub(crate) struct TouchedKeys {
    pub shape: Arc<Shape>,
    /// A key is in one of them.
    pub keys: Vec<Arc<KeySet>>,
    pub state: SessionState,
}

/// Rows that may be read to see whether two writes meet. Where more came, doing the step again costs less.
const MOST_ROWS: u64 = 64 << 20;

impl TouchedKeys {
    fn has(&self, hash: u64) -> bool {
        self.keys.iter().any(|keys| keys.has(hash))
    }

    /// Whether one of the files, or of the events that the journal has kept since `base`, is of one of the keys.
    async fn met(
        &self,
        table: &Table,
        base: &Snapshot,
        head: &Snapshot,
        came: OrdMap<String, Arc<DataFile>>,
        kept: Option<Since>,
    ) -> Result<bool> {
        let rows = came.values().map(|file| file.rows(&base.schema));
        let rows = rows.sum::<Option<u64>>();
        if rows.is_none_or(|rows| rows > MOST_ROWS) {
            return Ok(true);
        }
        if !came.is_empty() {
            let files = Arc::new(Snapshot {
                files: came,
                ..head.clone()
            });
            let places = self
                .shape
                .keys
                .iter()
                .map(|key| self.shape.places.get(*key));
            let places: Option<Vec<usize>> = places.map(|place| place.copied()).collect();
            let places =
                places.ok_or_else(|| Error::internal("a key of a journal is no column of it"))?;
            let rows = VersionedTable::new(self.shape.table.clone(), files, table.root.clone());
            let rows = rows.scan(&self.state, Some(&places), &[], None).await?;
            if self.found_in(rows, true).await? {
                return Ok(true);
            }
        }
        let kept = Kept {
            files: kept.map(Since::files).unwrap_or_default(),
            ..Kept::default()
        };
        if kept.files.is_empty() {
            return Ok(false);
        }
        let (root, metadata) = (&table.root, &head.metadata);
        let events = horizon::scan(&self.state, &self.shape, root, metadata, &kept, &[]);
        self.found_in(events.await?, false).await
    }

    async fn found_in(&self, rows: Arc<dyn ExecutionPlan>, only_keys: bool) -> Result<bool> {
        let mut rows = execute_stream(rows, self.state.task_ctx())?;
        let mut hashes = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            let batch = match only_keys {
                true => keys_in_place(&self.shape, &batch)?,
                false => batch,
            };
            key::hashes(&self.shape, &batch, &mut hashes)?;
            if hashes.iter().any(|hash| self.has(*hash)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
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

/// The files whose rows a commit changed.
struct Touched<'c> {
    added: Vec<&'c Add>,
    /// With the count of their deleted rows.
    removed: BTreeMap<&'c str, i64>,
}

impl<'c> Touched<'c> {
    fn of(commit: &'c Commit) -> Self {
        let (mut added, mut removed) = (Vec::new(), BTreeMap::new());
        for action in &commit.actions {
            match action {
                Action::Add(add) if add.data_change => added.push(add),
                Action::Remove(remove) if remove.data_change => {
                    let deleted = remove
                        .deletion_vector
                        .as_ref()
                        .map_or(0, |dv| dv.cardinality);
                    removed.insert(remove.path.as_str(), deleted);
                }
                _ => {}
            }
        }
        Self { added, removed }
    }

    /// Files that came, or of which rows came back out of a deletion vector.
    fn came(&self) -> OrdMap<String, Arc<DataFile>> {
        let came = self.added.iter().filter(|add| {
            let deleted = add.deletion_vector.as_ref().map_or(0, |dv| dv.cardinality);
            self.removed
                .get(add.path.as_str())
                .is_none_or(|before| deleted < *before)
        });
        came.map(|add| (add.path.clone(), Arc::new(DataFile::new((*add).clone()))))
            .collect()
    }
}

/// Whether the commit brought or took rows the intent should have seen.
fn overlooked(intent: &Intent, base: &Snapshot, commit: &Commit) -> Result<bool> {
    let touched = Touched::of(commit);
    let Touched { added, removed } = &touched;
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
        Reads::Nothing | Reads::Keys(_) => return Ok(false),
        Reads::Exclusive => return Ok(true),
        _ if blind && may_go_first => return Ok(false),
        Reads::Table => return Ok(true),
        Reads::Rows(asked) | Reads::Matches(asked) => asked,
    };
    // Rows that came, with a file or out of a deletion vector, it would have had to see. Rows that went are
    // seen by `moved` if this intent takes them too; the others matter only to who counts on them.
    let mut changed = touched.came();
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

//! The commit: the only place that makes rows visible.
//!
//! Optimistic: the next version is written with a conditional put. When another writer took it, the intent
//! is applied again to the version that won, as long as both orders mean the same; a conflict that
//! needs the rows themselves to be made anew is returned as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use object_store::{PutMode, PutOptions};
use serde_json::Value;

use super::conflict::{self, Reads, TakenRows};
use super::removal::{self, Removal};
use super::report::WriteReport;
use super::target::NewTable;
use crate::error::{Error, ErrorKind, Result, took_nothing};
use crate::journal::horizon::{self, Keeping, Kept};
use crate::journal::told;
use crate::quality::record::{Replayed, RuleOutcome, RuleResult, SideFile};
use crate::settings::Settings;
use crate::table::actions::{Action, Add, CommitInfo, Marker, Metadata, Protocol, Txn};
use crate::table::handle::Table;
use crate::table::log::{self, Commit};
use crate::table::snapshot::{DataFile, Snapshot};
use crate::table::{checkpoint, cleanup, records, replay};

/// Values of the partition columns of a file, as the log writes them.
pub(crate) type PartitionKey = BTreeMap<String, Option<String>>;

/// What a write wants to become true, independent of the version it lands on.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    /// Table as `schema.name`, for messages.
    pub name: String,
    /// The version the rows were made against; `None` creates the table.
    pub base: Option<Arc<Snapshot>>,
    pub operation: &'static str,
    pub parameters: BTreeMap<String, Value>,
    pub protocol: Option<Protocol>,
    pub metadata: Option<Metadata>,
    pub adds: Vec<Add>,
    pub removes: Removes,
    pub user: Option<String>,
    /// What the write looked at in this table, so that it is run again when that changed.
    pub reads: Reads,
    /// What the table becomes if rows are marked as deleted and it has no deletion vectors yet.
    pub vectors: Option<NewTable>,
    /// Whether the rows stay what they are, and only lie in other files.
    pub rearranges: bool,
    /// The version of an application that the log is to remember.
    pub transaction: Option<Txn>,
    /// Files of quarantined rows that become visible with it.
    pub quarantine: Vec<SideFile>,
    /// Quarantined rows that it takes up again.
    pub replayed: Vec<Replayed>,
    /// What becomes of the events that a journal keeps.
    pub keeping: Option<Keeping>,
    /// Whether its rules compared it with the writes before it.
    pub compares: bool,
    /// Whether policies took out of its rows what was asked for by then.
    pub forgets: bool,
    pub report: WriteReport,
}

impl Intent {
    /// One that changes nothing yet.
    pub(crate) fn new(
        name: String,
        base: Option<Arc<Snapshot>>,
        operation: &'static str,
        user: Option<String>,
        batch_id: i64,
    ) -> Self {
        Self {
            name,
            base,
            operation,
            parameters: BTreeMap::new(),
            protocol: None,
            metadata: None,
            adds: Vec::new(),
            removes: Removes::None,
            user,
            reads: Reads::Nothing,
            vectors: None,
            rearranges: false,
            transaction: None,
            quarantine: Vec::new(),
            replayed: Vec::new(),
            keeping: None,
            compares: false,
            forgets: false,
            report: WriteReport {
                batch_id,
                ..WriteReport::default()
            },
        }
    }

    /// Whether the table would be the same with it as without, and nobody would learn anything of it.
    pub(super) fn says_nothing(&self) -> bool {
        let broken = |result: &RuleResult| result.outcome == RuleOutcome::Violated;
        self.report.rows_dropped == 0
            && !self.report.rules.iter().any(broken)
            && self.adds.is_empty()
            && matches!(self.removes, Removes::None)
            && self.metadata.is_none()
            && self.quarantine.is_empty()
            && self.replayed.is_empty()
            && self.keeping.is_none()
            && self.transaction.is_none()
    }
}

/// Which live files a write takes out, resolved on the version it lands on.
#[derive(Debug, Clone)]
pub(crate) enum Removes {
    None,
    /// Whatever files are there.
    All,
    /// Whatever files these partitions have.
    Partitions(BTreeSet<PartitionKey>),
    /// These files as they were, by path.
    Files(BTreeMap<String, Arc<DataFile>>),
    /// These rows, by the path of their file.
    Rows(Arc<BTreeMap<String, TakenRows>>),
}

/// How a commit ended.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a commit has one outcome, which is taken apart at once"
)]
pub(crate) enum Outcome {
    Committed(WriteReport),
    /// Another writer changed what the rows were made for; they must be made again.
    Conflict(String),
    /// The store neither acknowledged nor refused: the commit may be there, so its files must stay.
    Unknown(Error),
}

/// Commits `intent`. The work goes on when the caller is dropped: a commit is never abandoned half-way.
pub(crate) async fn commit(
    table: Arc<Table>,
    intent: Intent,
    settings: &Settings,
) -> Result<Outcome> {
    let settings = settings.clone();
    let work = tokio::spawn(async move {
        Attempt {
            table,
            intent,
            settings,
        }
        .run()
        .await
    });
    // A task that stopped may have stopped after the commit was there.
    work.await.unwrap_or_else(|error| {
        let stopped = Error::internal("a commit stopped half-way").with_source(error);
        Ok(Outcome::Unknown(stopped))
    })
}

struct Attempt {
    table: Arc<Table>,
    intent: Intent,
    settings: Settings,
}

/// What a conditional put of the next version came to.
enum Landed {
    Ours,
    Theirs,
    Unknown(Error),
}

impl Attempt {
    async fn run(self) -> Result<Outcome> {
        let _queue = self.table.commits.lock().await;
        let mut head = match (&self.intent.base, self.table.cached()) {
            (Some(base), Some(cached)) if cached.version > base.version => Some(cached),
            (base, _) => base.clone(),
        };
        for attempt in 0..=self.settings.max_commit_retries {
            if let Some(reason) =
                conflict::reason(&self.table, &self.intent, head.as_deref()).await?
            {
                return Ok(Outcome::Conflict(reason));
            }
            let version = head.as_ref().map_or(0, |head| head.version + 1);
            let kept = match self.kept(head.as_deref()) {
                Ok(kept) => kept,
                // Somebody else has folded events that this write folds too.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    return Ok(Outcome::Conflict(error.message().to_owned()));
                }
                Err(error) => return Err(error),
            };
            let removal = removal::of(&self.table, &self.intent, head.as_deref()).await?;
            let (actions, info, marker) = self.lines(head.as_deref(), version, &removal, kept);
            let token = marker.token.clone();
            let report = marker.report.clone().unwrap_or_default();
            let bytes = log::encode(info, marker, &actions)?;
            let landed = match self.put(version, &token, bytes.clone()).await {
                Ok(landed) => landed,
                Err(error) => {
                    removal.discard(&self.table).await;
                    return Err(error);
                }
            };
            match landed {
                Landed::Ours => {
                    if let Err(error) = self.landed(head.as_deref(), version, &bytes, &removal) {
                        // It is there; only this engine has to read it again.
                        tracing::warn!(%error, version, "a commit was not understood by its writer");
                        self.table.forget();
                    }
                    return Ok(Outcome::Committed(report));
                }
                Landed::Unknown(error) => return Ok(Outcome::Unknown(error)),
                Landed::Theirs => {
                    removal.discard(&self.table).await;
                    if head.is_none() {
                        return Err(Error::new(
                            ErrorKind::AlreadyExists,
                            format!("a table already exists at {}", self.table.root.path),
                        ));
                    }
                    self.table
                        .ambient
                        .pause(attempt, self.settings.max_backoff)
                        .await;
                    head = self.table.latest().await?;
                }
            }
        }
        Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{} of table {} gave up after {} tries: other writers were faster",
                self.intent.operation,
                self.intent.name,
                self.settings.max_commit_retries + 1
            ),
        )
        .with_hint("run the statement again, or raise max_commit_retries"))
    }

    /// Whether the table is made anew in the place of another.
    fn replaces(&self) -> bool {
        self.intent.protocol.is_some() && matches!(self.intent.removes, Removes::All)
    }

    /// The version of an application that the log is to remember. A table that is made anew was told no snapshot.
    fn transaction(&self, head: Option<&Snapshot>, now_ms: i64) -> Option<Txn> {
        let own = self.intent.transaction.clone();
        own.or_else(|| told::restored(head.filter(|_| self.replaces())?, None, now_ms))
    }

    /// The line that says which events the journal keeps from this version on; None where it is as it was.
    fn kept(&self, head: Option<&Snapshot>) -> Result<Option<Value>> {
        let intent = &self.intent;
        match (head.filter(|_| !self.replaces()), &intent.keeping) {
            (Some(head), Some(keeping)) => horizon::over(head, keeping)?
                .map(|kept| horizon::line(&kept))
                .transpose(),
            (Some(_), None) => Ok(None),
            // A table that is made anew keeps nothing of the one before.
            (None, Some(keeping)) => horizon::line(&Kept {
                watermark: keeping.watermark,
                files: keeping.came.clone(),
            })
            .map(Some),
            (None, None) => {
                let domains = head.map(|head| &head.domains);
                let had = domains.is_some_and(|domains| domains.contains_key(horizon::DOMAIN));
                let gone = serde_json::json!({
                    "domain": horizon::DOMAIN,
                    "configuration": "",
                    "removed": true,
                });
                Ok(had.then_some(gone))
            }
        }
    }

    fn lines(
        &self,
        head: Option<&Snapshot>,
        version: u64,
        removal: &Removal,
        kept: Option<Value>,
    ) -> (Vec<Action>, CommitInfo, Marker) {
        let intent = &self.intent;
        let now = self.table.ambient.now_ms();
        let committed_at = head.map_or(now, |head| now.max(head.committed_at_ms + 1));
        let mut report = intent.report.clone();
        report.table.clone_from(&intent.name);
        intent.operation.clone_into(&mut report.operation);
        report.version = Some(version);
        report.files_added = intent.adds.len() as u64;
        report.files_removed = (removal.out.len() - removal.back.len()) as u64;
        report.files_marked = removal.back.len() as u64;
        report.bytes_written = intent.adds.iter().map(|add| add.size.max(0) as u64).sum();
        report.rows_removed = if intent.rearranges { 0 } else { removal.rows };
        // A statement that empties the table looked at no row, so nobody has counted them before.
        if matches!(intent.removes, Removes::All)
            && matches!(intent.operation, "DELETE" | "TRUNCATE")
        {
            report.rows_deleted = removal.rows;
        }

        let mut actions = Vec::with_capacity(2 + intent.adds.len() + 2 * removal.out.len());
        let upgrade = removal.upgrade.as_ref();
        let protocol = upgrade
            .map(|new| &new.protocol)
            .or(intent.protocol.as_ref());
        let metadata = upgrade
            .map(|new| &new.metadata)
            .or(intent.metadata.as_ref());
        actions.extend(protocol.cloned().map(Action::Protocol));
        actions.extend(metadata.cloned().map(Action::Metadata));
        actions.extend(self.transaction(head, now).map(Action::Txn));
        actions.extend(kept.map(Action::DomainMetadata));
        let out = removal.out.iter();
        actions.extend(
            out.map(|file| Action::Remove(removal::line(file, committed_at, !intent.rearranges))),
        );
        actions.extend(removal.back.iter().cloned().map(Action::Add));
        actions.extend(intent.adds.iter().cloned().map(Action::Add));
        let blind = matches!(intent.removes, Removes::None)
            && matches!(intent.reads, Reads::Nothing)
            && intent.metadata.is_none();

        let metric = |value: u64| Value::String(value.to_string());
        let info = CommitInfo {
            in_commit_timestamp: Some(committed_at),
            timestamp: Some(now),
            operation: Some(intent.operation.to_owned()),
            operation_parameters: Some(intent.parameters.clone()),
            user_name: intent.user.clone(),
            read_version: head.map(|head| head.version as i64),
            isolation_level: Some("Serializable".to_owned()),
            is_blind_append: Some(blind),
            operation_metrics: Some(BTreeMap::from([
                ("numFiles".to_owned(), metric(report.files_added)),
                ("numOutputRows".to_owned(), metric(report.rows_written)),
                ("numOutputBytes".to_owned(), metric(report.bytes_written)),
                ("numRemovedFiles".to_owned(), metric(report.files_removed)),
                ("numDeletedRows".to_owned(), metric(report.rows_deleted)),
                ("numUpdatedRows".to_owned(), metric(report.rows_updated)),
                ("numInsertedRows".to_owned(), metric(report.rows_inserted)),
                (
                    "numDeletionVectorsUpdated".to_owned(),
                    metric(report.files_marked),
                ),
            ])),
            engine_info: Some(concat!("Selvedge/", env!("CARGO_PKG_VERSION")).to_owned()),
            txn_id: None,
            selvedge: None,
        };
        let marker = Marker {
            token: self.table.ambient.id().to_string(),
            report: Some(report),
            quarantine: intent.quarantine.clone(),
            replayed: intent.replayed.clone(),
            ..Marker::default()
        };
        (actions, info, marker)
    }

    /// Puts one version and finds out whose commit it holds in the end. A store may answer with an error, or
    /// with "exists", although our own put was applied (a retried request, a lost answer), so the token of the
    /// commit that is there decides.
    async fn put(&self, version: u64, token: &str, bytes: Bytes) -> Result<Landed> {
        const TRIES: u32 = 5;
        let path = log::commit_path(&self.table.root, version);
        let mut failure = None;
        for attempt in 0..TRIES {
            let options = PutOptions::from(PutMode::Create);
            match self
                .table
                .root
                .store
                .put_opts(&path, bytes.clone().into(), options)
                .await
            {
                Ok(_) => return Ok(Landed::Ours),
                Err(
                    error @ (object_store::Error::PermissionDenied { .. }
                    | object_store::Error::Unauthenticated { .. }
                    | object_store::Error::NotImplemented { .. }),
                ) => return Err(Error::storage(format!("cannot commit {path}"), error)),
                Err(error) => {
                    tracing::debug!(%error, %path, "a commit was not acknowledged, looking whose it is");
                    failure = Some(error);
                }
            }
            match log::read(&self.table.root, version).await {
                Ok(Some(found)) if found.token() == Some(token) => return Ok(Landed::Ours),
                Ok(Some(_)) => return Ok(Landed::Theirs),
                // Not there, or not readable just now: the same bytes are put again, which is harmless
                // because the token makes both puts one.
                Ok(None) => {
                    // A full disk took nothing, and says so: the outcome is known, and the files may go.
                    if let Some(error) = failure.take_if(|error| took_nothing(error)) {
                        return Err(Error::storage(format!("cannot commit {path}"), error));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => return Err(error),
                Err(error) => tracing::debug!(%error, %path, "the commit could not be read back"),
            }
            self.table
                .ambient
                .pause(attempt + 3, self.settings.max_backoff)
                .await;
        }
        let error = failure.map_or_else(
            || Error::internal(format!("cannot commit {path}")),
            |error| Error::storage(format!("cannot commit {path}"), error),
        );
        Ok(Landed::Unknown(
            Error::new(
                ErrorKind::Storage,
                format!(
                    "{} of table {} was not acknowledged by the store",
                    self.intent.operation, self.intent.name
                ),
            )
            .with_hint(format!(
                "its outcome is unknown: version {version} will hold it if it was applied"
            ))
            .with_source(error),
        ))
    }

    /// The snapshot after our commit, from memory; a due checkpoint is written in the background.
    fn landed(
        &self,
        head: Option<&Snapshot>,
        version: u64,
        bytes: &Bytes,
        removal: &Removal,
    ) -> Result<()> {
        let commit = Commit {
            version,
            actions: log::decode("of this engine", bytes)?,
            modified_ms: self.table.ambient.now_ms(),
        };
        let mut snapshot = match head {
            Some(head) => replay::advance(&self.table.root, head, commit)?,
            None => replay::begin(&self.table.root, commit)?,
        };
        removal.prime(&mut snapshot);
        let snapshot = Arc::new(snapshot);
        self.table.remember(&snapshot);
        if checkpoint::due(&snapshot, self.settings.checkpoint_interval) {
            self.table.in_background({
                let (table, snapshot) = (Arc::clone(&self.table), Arc::clone(&snapshot));
                async move {
                    // The commit is durable; a checkpoint only saves later readers time.
                    if let Err(error) = checkpoint::write(&table, &snapshot).await {
                        tracing::warn!(%error, version, "a checkpoint was not written");
                    } else if let Err(error) = records::condense(&table, &snapshot).await {
                        tracing::warn!(%error, version, "records of writes were not condensed");
                    } else if let Err(error) = cleanup::expired(&table, &snapshot).await {
                        tracing::warn!(%error, version, "old commits were not deleted");
                    }
                }
            });
        }
        self.table.committed(&self.intent.name);
        Ok(())
    }
}

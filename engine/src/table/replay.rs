//! From log to snapshot: checkpoint first, then commit after commit.
//!
//! Checkpoints of every kind (classic, in parts, v2 with sidecars) are read by the Delta kernel;
//! commits are read here, because the committer and the snapshot cache need their lines anyway.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use delta_kernel::Snapshot as KernelSnapshot;
use delta_kernel::arrow::json::LineDelimitedWriter;
use delta_kernel::engine::arrow_data::EngineDataArrowExt;
use delta_kernel_default_engine::DefaultEngineBuilder;
use futures::{StreamExt, TryStreamExt, stream};
use imbl::OrdMap;
use url::Url;

use super::actions::{Action, Metadata, Protocol, Remove, Txn};
use super::log::{self, Commit, Listing};
use super::snapshot::{DataFile, Snapshot, TableRoot};
use super::{mapping, protocol, schema};
use crate::error::{Error, ErrorKind, Result};

/// Commits fetched at once while replaying.
const READ_AHEAD: usize = 16;

/// A snapshot being built: metadata and protocol may still be missing.
struct Replay {
    version: u64,
    protocol: Option<Arc<Protocol>>,
    metadata: Option<Arc<Metadata>>,
    /// That of the version before, as long as nothing was said of it since.
    schema: Option<SchemaRef>,
    files: OrdMap<String, Arc<DataFile>>,
    tombstones: OrdMap<(String, Option<String>), Arc<Remove>>,
    transactions: OrdMap<String, Arc<Txn>>,
    domains: OrdMap<String, Arc<serde_json::Value>>,
    committed_at_ms: i64,
    last_checkpoint: Option<u64>,
    token: Option<String>,
}

impl Replay {
    fn new(version: u64) -> Self {
        Self {
            version,
            protocol: None,
            metadata: None,
            schema: None,
            files: OrdMap::new(),
            tombstones: OrdMap::new(),
            transactions: OrdMap::new(),
            domains: OrdMap::new(),
            committed_at_ms: i64::MIN,
            last_checkpoint: None,
            token: None,
        }
    }

    fn from_snapshot(base: &Snapshot) -> Self {
        Self {
            version: base.version,
            protocol: Some(Arc::clone(&base.protocol)),
            metadata: Some(Arc::clone(&base.metadata)),
            schema: Some(Arc::clone(&base.schema)),
            files: base.files.clone(),
            tombstones: base.tombstones.clone(),
            transactions: base.transactions.clone(),
            domains: base.domains.clone(),
            committed_at_ms: base.committed_at_ms,
            last_checkpoint: base.last_checkpoint,
            token: base.token.clone(),
        }
    }

    fn commit(&mut self, commit: Commit) {
        self.version = commit.version;
        // Time never goes back, whatever the writers' clocks said.
        self.committed_at_ms = commit.time_ms().max(self.committed_at_ms.saturating_add(1));
        self.token = commit.token().map(str::to_owned);
        // Removes first: within one commit a file may get a new deletion vector (remove and add of one path).
        let (removes, others): (Vec<_>, Vec<_>) = commit
            .actions
            .into_iter()
            .partition(|action| matches!(action, Action::Remove(_)));
        for action in removes.into_iter().chain(others) {
            self.apply(action);
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Protocol(protocol) => {
                self.schema = None;
                self.protocol = Some(Arc::new(protocol));
            }
            Action::Metadata(metadata) => {
                self.schema = None;
                // Parsed statistics depend on the schema, so files are parsed anew under a new one.
                if self.metadata.as_ref().is_some_and(|old| {
                    old.schema_string != metadata.schema_string
                        || old.configuration.get(mapping::MODE)
                            != metadata.configuration.get(mapping::MODE)
                }) {
                    self.files = self
                        .files
                        .iter()
                        .map(|(path, file)| {
                            (path.clone(), Arc::new(DataFile::new(file.add.clone())))
                        })
                        .collect();
                }
                self.metadata = Some(Arc::new(metadata));
            }
            Action::Txn(txn) => {
                self.transactions.insert(txn.app_id.clone(), Arc::new(txn));
            }
            Action::Add(add) => {
                self.tombstones.remove(&(
                    add.path.clone(),
                    add.deletion_vector.as_ref().map(|dv| dv.unique_id()),
                ));
                self.files
                    .insert(add.path.clone(), Arc::new(DataFile::new(add)));
            }
            Action::Remove(remove) => {
                let id = remove.deletion_vector.as_ref().map(|dv| dv.unique_id());
                let live = self
                    .files
                    .get(&remove.path)
                    .is_some_and(|file| file.dv_id() == id);
                if live {
                    self.files.remove(&remove.path);
                }
                self.tombstones
                    .insert((remove.path.clone(), id), Arc::new(remove));
            }
            Action::DomainMetadata(value) => {
                if let Some(domain) = value.get("domain").and_then(|d| d.as_str()) {
                    self.domains.insert(domain.to_owned(), Arc::new(value));
                }
            }
            Action::CommitInfo(_)
            | Action::Cdc(_)
            | Action::CheckpointMetadata(_)
            | Action::Sidecar(_) => {}
        }
    }

    fn finish(self, root: &TableRoot) -> Result<Snapshot> {
        let missing = |what: &str| {
            Error::corrupt(format!(
                "the log of {} has no {what} up to version {}",
                root.path, self.version
            ))
        };
        let protocol = self.protocol.ok_or_else(|| missing("protocol"))?;
        let metadata = self.metadata.ok_or_else(|| missing("metadata"))?;
        let schema = match self.schema {
            Some(schema) => schema,
            None => resolved(root, &protocol, &metadata)?,
        };
        Ok(Snapshot {
            version: self.version,
            protocol,
            metadata,
            schema,
            files: self.files,
            tombstones: self.tombstones,
            transactions: self.transactions,
            domains: self.domains,
            committed_at_ms: self.committed_at_ms,
            last_checkpoint: self.last_checkpoint,
            token: self.token,
        })
    }
}

/// The columns that protocol and metadata say, if this engine can read them.
fn resolved(root: &TableRoot, protocol: &Protocol, metadata: &Metadata) -> Result<SchemaRef> {
    let mapping = protocol::check_readable(root, protocol, metadata)?;
    let schema = schema::to_arrow(&metadata.schema_string)?;
    let schema = mapping::resolve(schema, mapping)?;
    if let Some(unknown) = metadata
        .partition_columns
        .iter()
        .find(|column| schema.index_of(column).is_err())
    {
        return Err(Error::corrupt(format!(
            "table at {} is partitioned by {unknown}, which is not a column of it",
            root.path
        )));
    }
    Ok(schema)
}

/// The newest snapshot, or that of `at`; `None` when there is no table.
pub(crate) async fn load(root: &TableRoot, at: Option<u64>) -> Result<Option<Snapshot>> {
    // A hint only: the listing decides, so a torn or stale hint costs a longer listing, not the table.
    let from = match at {
        None => last_checkpoint_hint(root).await.unwrap_or(0),
        Some(_) => 0,
    };
    let mut listing = log::list(root, from).await?;
    if from > 0 && !listing.checkpoints.contains(&from) {
        listing = log::list(root, 0).await?;
    }
    let newest = match (listing.commits.last(), listing.checkpoints.last()) {
        (None, None) => return Ok(None),
        (commit, checkpoint) => *commit.max(checkpoint).unwrap_or(&0),
    };
    let target = at.unwrap_or(newest);
    if target > newest {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("version {target} does not exist; the newest version is {newest}"),
        ));
    }
    let mut damaged = Vec::new();
    for &checkpoint in listing
        .checkpoints
        .iter()
        .rev()
        .filter(|version| **version <= target)
    {
        match from_checkpoint(root, checkpoint).await {
            Ok(replay) => return roll_forward(root, replay, &listing, target).await.map(Some),
            // An unreadable checkpoint is only a loss of speed while older commits are there.
            Err(error) => {
                tracing::warn!(%error, checkpoint, table = %root.path, "checkpoint cannot be read, trying an older state");
                damaged.push(error);
            }
        }
    }
    if from > 0 {
        listing = log::list(root, 0).await?;
    }
    match listing.commits.first() {
        Some(0) => {}
        earliest => {
            return Err(damaged.pop().unwrap_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    match earliest {
                        Some(earliest) => format!(
                            "version {target} can no longer be read; the log of {} begins at commit {earliest}",
                            root.path
                        ),
                        None => format!("the log of {} has no commits", root.path),
                    },
                )
            }));
        }
    }
    let mut replay = Replay::new(0);
    let first = log::read(root, 0)
        .await?
        .ok_or_else(|| missing_commit(root, 0))?;
    if first.is_erased() {
        return Err(damaged
            .pop()
            .unwrap_or_else(|| erased_meanwhile(root, first.version)));
    }
    replay.commit(first);
    roll_forward(root, replay, &listing, target).await.map(Some)
}

/// Brings a cached snapshot up to the newest version; the same snapshot when nothing is new.
pub(crate) async fn refresh(root: &TableRoot, base: &Arc<Snapshot>) -> Result<Arc<Snapshot>> {
    let Some(next) = log::read(root, base.version + 1).await? else {
        return Ok(Arc::clone(base));
    };
    let (mut replay, mut next) = (Replay::from_snapshot(base), Some(next));
    while let Some(commit) = next {
        // What it brought and took is not told any more: only the checkpoint after it knows.
        if commit.is_erased() {
            let newest = load(root, None).await?;
            return newest
                .map(Arc::new)
                .ok_or_else(|| missing_commit(root, base.version));
        }
        replay.commit(commit);
        next = log::read(root, replay.version + 1).await?;
    }
    Ok(Arc::new(replay.finish(root)?))
}

/// The snapshot after `commit`, which must be the successor of `base`.
pub(crate) fn advance(root: &TableRoot, base: &Snapshot, commit: Commit) -> Result<Snapshot> {
    let mut replay = Replay::from_snapshot(base);
    replay.commit(commit);
    replay.finish(root)
}

/// The first snapshot of a table, from its commit 0.
pub(crate) fn begin(root: &TableRoot, commit: Commit) -> Result<Snapshot> {
    let mut replay = Replay::new(0);
    replay.commit(commit);
    replay.finish(root)
}

async fn roll_forward(
    root: &TableRoot,
    mut replay: Replay,
    listing: &Listing,
    target: u64,
) -> Result<Snapshot> {
    let first = replay.version + 1;
    if first <= target {
        // A hole between checkpoint and newest commit means lost versions, not an older table.
        if let Some(hole) = (first..=target).find(|v| listing.commits.binary_search(v).is_err()) {
            return Err(missing_commit(root, hole));
        }
        let mut commits = stream::iter(first..=target)
            .map(|version| log::read(root, version))
            .buffered(READ_AHEAD);
        while let Some(commit) = commits.try_next().await? {
            let version = replay.version + 1;
            let commit = commit.ok_or_else(|| missing_commit(root, version))?;
            if commit.is_erased() {
                return Err(erased_meanwhile(root, version));
            }
            replay.commit(commit);
        }
    }
    replay.finish(root)
}

/// The log was listed before an erasure, and is read after it.
fn erased_meanwhile(root: &TableRoot, version: u64) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "version {version} of the table at {} was erased while it was read",
            root.path
        ),
    )
    .with_hint("run the statement again")
}

fn missing_commit(root: &TableRoot, version: u64) -> Error {
    Error::corrupt(format!(
        "commit {} is missing: the log has newer versions",
        log::commit_path(root, version)
    ))
    .with_hint("restore this object from a copy")
}

async fn last_checkpoint_hint(root: &TableRoot) -> Option<u64> {
    use object_store::ObjectStoreExt;
    let path = log::log_folder(root).join("_last_checkpoint");
    let bytes = root.store.get(&path).await.ok()?.bytes().await.ok()?;
    let hint: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    hint.get("version")?.as_u64()
}

/// The state a checkpoint holds, read by the Delta kernel as action lines.
async fn from_checkpoint(root: &TableRoot, version: u64) -> Result<Replay> {
    let reader = root.clone();
    let read = tokio::task::spawn_blocking(move || checkpoint_actions(&reader, version));
    let (actions, committed_at_ms) = read
        .await
        .map_err(|error| Error::internal("reading a checkpoint stopped").with_source(error))??;
    let mut replay = Replay::new(version);
    for action in actions {
        replay.apply(action);
    }
    replay.committed_at_ms = committed_at_ms;
    replay.last_checkpoint = Some(version);
    Ok(replay)
}

fn checkpoint_actions(root: &TableRoot, version: u64) -> Result<(Vec<Action>, i64)> {
    let fail = |error: delta_kernel::KernelError| {
        Error::corrupt(format!("cannot read checkpoint {version} of {}", root.path))
            .with_detail(kernel_message(&error))
    };
    let engine = DefaultEngineBuilder::new(Arc::clone(&root.store)).build();
    let snapshot = KernelSnapshot::builder_for(kernel_url(root))
        .at_version(version)
        .build(&engine)
        .map_err(fail)?;
    if snapshot.log_segment().checkpoint_version != Some(version) {
        return Err(Error::corrupt(format!(
            "checkpoint {version} of {} is not complete",
            root.path
        )));
    }
    let committed_at_ms = snapshot.get_timestamp(&engine).unwrap_or(i64::MIN);
    let schema = Arc::clone(delta_kernel::actions::get_all_actions_schema());
    let mut actions = Vec::new();
    for batch in snapshot
        .log_segment()
        .read_actions(&engine, schema)
        .map_err(fail)?
    {
        let batch = batch.map_err(fail)?;
        let batch = batch.actions.try_into_record_batch().map_err(fail)?;
        let mut lines = Vec::new();
        let mut writer = LineDelimitedWriter::new(&mut lines);
        let broken = |error: delta_kernel::arrow::error::ArrowError| {
            Error::corrupt(format!(
                "checkpoint {version} of {} holds unreadable actions",
                root.path
            ))
            .with_source(error)
        };
        writer.write(&batch).map_err(broken)?;
        writer.finish().map_err(broken)?;
        drop(writer);
        for line in lines
            .split(|byte| *byte == b'\n')
            .filter(|line| line.len() > 2)
        {
            actions.push(serde_json::from_slice(line).map_err(|error| {
                Error::corrupt(format!(
                    "checkpoint {version} of {} holds an unreadable action",
                    root.path
                ))
                .with_source(error)
            })?);
        }
    }
    Ok((actions, committed_at_ms))
}

/// The table's URL as the kernel wants it: encoded, ending in a slash.
fn kernel_url(root: &TableRoot) -> Url {
    let base: &Url = root.store_url.as_ref();
    let mut url = base.clone();
    url.set_path(&format!("/{}/", root.path));
    url
}

/// The kernel's text without the backtrace it may carry.
pub(crate) fn kernel_message(error: &delta_kernel::KernelError) -> String {
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

//! The transaction log of a table: names, lines and checksums of its commits.
//!
//! A commit of ours begins with a `commitInfo` line that counts and checksums the lines after it, so
//! a commit cut off by a power loss is told from a whole one. Commits of other writers carry no such
//! mark; they are read as they are.

use bytes::Bytes;
use futures::future::ready;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::actions::{Action, CommitInfo, Marker};
use super::snapshot::TableRoot;
use crate::error::{Error, Result};

/// Commits fetched at once.
const READ_AHEAD: usize = 16;

/// One commit as read from the log.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub version: u64,
    pub actions: Vec<Action>,
    /// When the object was written, for commits that do not say themselves.
    pub modified_ms: i64,
}

impl Commit {
    pub(crate) fn info(&self) -> Option<&CommitInfo> {
        self.actions.iter().find_map(|action| match action {
            Action::CommitInfo(info) => Some(info.as_ref()),
            _ => None,
        })
    }

    /// The random name of the attempt that wrote it, if a writer of ours did.
    pub(crate) fn token(&self) -> Option<&str> {
        Some(&self.info()?.selvedge.as_ref()?.token)
    }

    /// Whether its version was erased, so that it says nothing of the table any more.
    pub(crate) fn is_erased(&self) -> bool {
        let marker = self.info().and_then(|info| info.selvedge.as_ref());
        marker.is_some_and(|marker| marker.erased)
    }

    /// When the commit says it was made: its in-commit timestamp, else the writer's clock, else the object's.
    pub(crate) fn time_ms(&self) -> i64 {
        let info = self.info();
        info.and_then(|info| info.in_commit_timestamp.or(info.timestamp))
            .unwrap_or(self.modified_ms)
    }
}

/// The folder that holds the log.
pub(crate) fn log_folder(root: &TableRoot) -> Path {
    root.path.clone().join("_delta_log")
}

pub(crate) fn commit_path(root: &TableRoot, version: u64) -> Path {
    log_folder(root).join(format!("{version:020}.json"))
}

/// What a name in the log folder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogFile {
    Commit(u64),
    /// Any part of a checkpoint of this version.
    Checkpoint(u64),
    Other,
}

pub(crate) fn classify(name: &str) -> LogFile {
    let Some((version, rest)) = name.split_once('.') else {
        return LogFile::Other;
    };
    if version.len() != 20 {
        return LogFile::Other;
    }
    let Ok(version) = version.parse() else {
        return LogFile::Other;
    };
    match rest {
        "json" => LogFile::Commit(version),
        rest if rest.starts_with("checkpoint.") => LogFile::Checkpoint(version),
        _ => LogFile::Other,
    }
}

/// The bytes of a commit: the `commitInfo` line, marked, then one line per action.
pub(crate) fn encode(
    mut info: CommitInfo,
    mut marker: Marker,
    actions: &[Action],
) -> Result<Bytes> {
    let mut body = Vec::with_capacity(512 * actions.len());
    for action in actions {
        serde_json::to_writer(&mut body, action).map_err(not_json)?;
        body.push(b'\n');
    }
    marker.lines = actions.len() as u64;
    marker.crc32c = crc32c::crc32c(&body);
    info.selvedge = Some(marker);
    let mut bytes = serde_json::to_vec(&Action::CommitInfo(Box::new(info))).map_err(not_json)?;
    bytes.push(b'\n');
    bytes.append(&mut body);
    Ok(bytes.into())
}

/// What is left of a commit when its version is erased: who made it and when, and the name of the attempt, by
/// which a writer that has not heard of its success yet still knows it.
pub(crate) fn hollow(commit: &Commit) -> Result<Bytes> {
    let made = commit.info().cloned().unwrap_or_default();
    let info = CommitInfo {
        in_commit_timestamp: made.in_commit_timestamp,
        // Without one, the object's own time counts, which is about to change.
        timestamp: made.timestamp.or(Some(commit.modified_ms)),
        operation: made.operation,
        user_name: made.user_name,
        read_version: made.read_version,
        isolation_level: made.isolation_level,
        engine_info: made.engine_info,
        ..CommitInfo::default()
    };
    let marker = Marker {
        token: commit.token().unwrap_or_default().to_owned(),
        erased: true,
        ..Marker::default()
    };
    encode(info, marker, &[])
}

fn not_json(error: serde_json::Error) -> Error {
    Error::internal("a commit could not be written as JSON").with_source(error)
}

/// Parses and verifies the bytes of a commit.
///
/// # Errors
/// `Corrupt`, naming `name`, when a line is not an action or a commit of ours is cut off or altered.
pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<Vec<Action>> {
    let torn = |why: String| {
        Error::corrupt(format!("commit {name} is damaged: {why}")).with_hint(
            "restore this object from a copy, or remove it if it is the newest commit and its rows may be lost",
        )
    };
    let mut actions = Vec::new();
    let mut rest = bytes;
    let mut line_number = 0u64;
    let mut marker: Option<(Marker, &[u8])> = None;
    while !rest.is_empty() {
        let (line, tail) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = tail;
        line_number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Action>(line) {
            Ok(action) => {
                if let Action::CommitInfo(info) = &action
                    && let Some(mark) = &info.selvedge
                {
                    marker = Some((mark.clone(), rest));
                }
                actions.push(action);
            }
            // Unknown kinds of action are part of features; the protocol line decides about those.
            Err(_) if is_object(line) && !is_known(line) => {}
            Err(error) => return Err(torn(format!("line {line_number}: {error}"))),
        }
    }
    if actions.is_empty() {
        return Err(torn("it holds no action".to_owned()));
    }
    if let Some((mark, body)) = marker {
        let lines = body.iter().filter(|byte| **byte == b'\n').count() as u64;
        if lines != mark.lines || crc32c::crc32c(body) != mark.crc32c {
            return Err(torn(format!(
                "it promises {} lines and holds {lines}, or its checksum differs",
                mark.lines
            )));
        }
    }
    Ok(actions)
}

fn is_object(line: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok()
}

fn is_known(line: &[u8]) -> bool {
    const KNOWN: [&str; 10] = [
        "commitInfo",
        "protocol",
        "metaData",
        "txn",
        "add",
        "remove",
        "cdc",
        "domainMetadata",
        "checkpointMetadata",
        "sidecar",
    ];
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line)
        .is_ok_and(|object| object.keys().any(|key| KNOWN.contains(&key.as_str())))
}

/// Reads one commit; `None` when the version does not exist.
pub(crate) async fn read(root: &TableRoot, version: u64) -> Result<Option<Commit>> {
    let path = commit_path(root, version);
    let got = match root.store.get(&path).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(Error::storage(format!("cannot read {path}"), error)),
    };
    let modified_ms = got.meta.last_modified.timestamp_millis();
    let bytes = got
        .bytes()
        .await
        .map_err(|error| Error::storage(format!("cannot read {path}"), error))?;
    Ok(Some(Commit {
        version,
        actions: decode(path.as_ref(), &bytes)?,
        modified_ms,
    }))
}

/// The commits up to `last` that were made after `since_ms`, the newest first. A version that is missing ends them.
pub(crate) async fn newer(
    root: &TableRoot,
    last: u64,
    since_ms: i64,
) -> Result<BoxStream<'_, Result<Commit>>> {
    let mut versions = list(root, 0).await?.commits;
    versions.retain(|version| *version <= last);
    let newer = stream::iter(versions.into_iter().rev())
        .map(move |version| read(root, version))
        .buffered(READ_AHEAD)
        .map_ok(move |commit| commit.filter(|commit| commit.time_ms() > since_ms))
        .try_take_while(|commit| ready(Ok(commit.is_some())))
        .try_filter_map(|commit| ready(Ok(commit)));
    Ok(newer.boxed())
}

/// What the log folder holds from `from` on.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Versions of commits, ascending.
    pub commits: Vec<u64>,
    /// Versions that have a checkpoint, ascending, whole or not.
    pub checkpoints: Vec<u64>,
}

/// Lists the log in one pass, from version `from` on.
pub(crate) async fn list(root: &TableRoot, from: u64) -> Result<Listing> {
    let folder = log_folder(root);
    // Names sort by version; the offset is exclusive, and `.` sorts before every suffix.
    let offset = folder.clone().join(format!("{from:020}"));
    let mut names = root.store.list_with_offset(Some(&folder), &offset);
    let mut listing = Listing::default();
    while let Some(meta) = names
        .try_next()
        .await
        .map_err(|error| Error::storage(format!("cannot list {folder}"), error))?
    {
        // Sidecars live one folder deeper.
        if meta.location.parts_count() != folder.parts_count() + 1 {
            continue;
        }
        match meta.location.filename().map_or(LogFile::Other, classify) {
            LogFile::Commit(version) => listing.commits.push(version),
            LogFile::Checkpoint(version) => listing.checkpoints.push(version),
            LogFile::Other => {}
        }
    }
    listing.commits.sort_unstable();
    listing.checkpoints.sort_unstable();
    listing.checkpoints.dedup();
    Ok(listing)
}

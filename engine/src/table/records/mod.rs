//! What the writes to a table said of their rules: the past that baselines, `"t$quality"`, `"t$metrics"` and
//! `"t$quarantine"` are read from.
//!
//! ```text
//! commit -> record                         while the log has the commit
//! commits -> segment -> longer segment     before the log forgets them (condense)
//! refused write -> object of its own       it has no commit (refused)
//! ```
//!
//! - `segments`: objects that hold the records of a range of versions
//! - `condense`: from commits to segments
//! - `refused`: records of writes that rules kept from being committed
//! - `quarantine`: from records to the files that hold quarantined rows, and the rows taken out of them again
//! - `redact`: records without what they say of values
//! - `purged`: how far back quarantined rows have been deleted
//! - `lineage`: which of the writes made the table what it is
//!
//! Commits that made the table anew, or what it was before, have records too, although nothing was asked of rows:
//! what others say ends with them, or is taken back by them.
//!
//! What a commit says is true because the commit is there. So nothing here is believed before its commit is: a
//! file of quarantined rows is found through the record of its write, never by looking into its folder.

mod condense;
mod lineage;
mod purged;
mod quarantine;
mod redact;
mod refused;
mod segments;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

pub(crate) use self::condense::{condense, secure};
use self::lineage::Lineage;
pub(crate) use self::purged::purge;
pub(crate) use self::quarantine::{
    QUARANTINE, Quarantined, named, quarantine, quarantine_folder, replayed,
};
pub(crate) use self::redact::{Forget, redact};
pub(crate) use self::refused::{refuse, refused, refused_until};
use self::segments::Segment;
use super::log::{self, Commit};
use super::snapshot::TableRoot;
use crate::error::{Error, ErrorKind, Result};
use crate::quality::record::{Replayed, SideFile};
use crate::write::report::WriteReport;

/// Objects fetched at once.
const READ_AHEAD: usize = 16;

/// What one write said of its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The version that the write made; None where rules kept it from making one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// When it was committed, or refused: milliseconds since the epoch.
    pub at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    pub report: WriteReport,
    /// Why it was refused, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Files of rows that it quarantined.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<SideFile>,
    /// Quarantined rows that it took up again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replayed: Vec<Replayed>,
    /// The version that the table was restored to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<u64>,
}

impl Record {
    /// Whether anything was asked of rows.
    fn speaks(&self) -> bool {
        !(self.report.rules.is_empty()
            && self.report.metrics.is_empty()
            && self.report.policies.is_empty()
            && self.quarantine.is_empty()
            && self.replayed.is_empty())
    }

    /// Whether the table was made anew: what was before it was another table.
    fn begins(&self) -> bool {
        let made = ["CREATE OR REPLACE TABLE", "REPLACE TABLE"];
        made.iter()
            .any(|made| self.report.operation.starts_with(made))
    }
}

/// The record of a commit: None where nothing was asked of its rows, or another writer made it, and it neither
/// made the table anew nor what it was.
pub(crate) fn of(commit: &Commit) -> Option<Record> {
    let info = commit.info()?;
    let operation = info.operation.as_deref().unwrap_or_default();
    let marker = info.selvedge.clone().unwrap_or_default();
    let record = Record {
        version: Some(commit.version),
        at_ms: commit.time_ms(),
        user: info.user_name.clone(),
        report: marker.report.unwrap_or_else(|| WriteReport {
            operation: operation.to_owned(),
            ..WriteReport::default()
        }),
        refused: None,
        quarantine: marker.quarantine,
        replayed: marker.replayed,
        restored: match operation {
            "RESTORE" => lineage::target(info),
            _ => None,
        },
    };
    (record.speaks() || record.begins() || record.restored.is_some()).then_some(record)
}

/// What the writes up to version `newest` said, which comes as it is asked for, back to the one that made the
/// table anew.
pub(crate) fn newest_first(root: &TableRoot, newest: u64) -> BoxStream<'static, Result<Record>> {
    back_to(root, newest, 0)
}

/// What the writes from version `oldest` to `newest` said; as [`newest_first`].
pub(crate) fn back_to(
    root: &TableRoot,
    newest: u64,
    oldest: u64,
) -> BoxStream<'static, Result<Record>> {
    let walk = (every(root, newest, oldest), Lineage::default());
    let records = stream::try_unfold(walk, |(mut records, mut lineage)| async move {
        if lineage.ended() {
            return Ok(None);
        }
        let Some(record) = records.try_next().await? else {
            return Ok(None);
        };
        lineage.meets(&record);
        Ok::<_, Error>(Some((record, (records, lineage))))
    });
    let speaks = |record: &Record| std::future::ready(record.speaks());
    records.try_filter(speaks).boxed()
}

/// The records of all versions from `oldest` to `newest`, whatever table they were of.
fn every(root: &TableRoot, newest: u64, oldest: u64) -> BoxStream<'static, Result<Record>> {
    let (root, of_pieces) = (root.clone(), root.clone());
    let pieces = async move {
        let mut pieces = lay_out(&root, newest).await?;
        pieces.retain_mut(|piece| piece.reaches(oldest));
        Ok::<_, Error>(stream::iter(pieces.into_iter().map(Ok::<_, Error>)))
    };
    stream::once(pieces)
        .try_flatten()
        .map_ok(move |piece| piece.records(of_pieces.clone()))
        .try_flatten()
        .boxed()
}

/// Where the records of some versions are.
enum Piece {
    /// In these commits, the newest first.
    Commits(Vec<u64>),
    /// In a segment, which may hold others too.
    Segment(Segment, RangeInclusive<u64>),
}

impl Piece {
    /// Whether anything is left of it without what is older.
    fn reaches(&mut self, oldest: u64) -> bool {
        match self {
            Self::Commits(versions) => {
                versions.retain(|version| *version >= oldest);
                !versions.is_empty()
            }
            Self::Segment(_, versions) => {
                *versions = (*versions.start()).max(oldest)..=*versions.end();
                !versions.is_empty()
            }
        }
    }

    /// The newest first.
    fn records(self, root: TableRoot) -> BoxStream<'static, Result<Record>> {
        match self {
            Self::Commits(versions) => stream::iter(versions)
                .map(move |version| of_version(root.clone(), version))
                .buffered(READ_AHEAD)
                .try_filter_map(|record| std::future::ready(Ok(record)))
                .boxed(),
            Self::Segment(segment, versions) => {
                let records = async move {
                    let mut records = of_segment(&root, &segment, &versions).await?;
                    records.reverse();
                    Ok::<_, Error>(stream::iter(records.into_iter().map(Ok::<_, Error>)))
                };
                stream::once(records).try_flatten().boxed()
            }
        }
    }
}

/// Where the records of all versions up to `newest` are, the newest first.
async fn lay_out(root: &TableRoot, newest: u64) -> Result<Vec<Piece>> {
    let mut segments = segments::list(root).await?;
    let gaps = segments::gaps(&segments, newest);
    let mut commits = Vec::new();
    if let Some(first) = gaps.first() {
        commits = log::list(root, *first.start()).await?.commits;
        let between = |version: &&u64| gaps.iter().any(|gap| gap.contains(*version));
        let there = commits.iter().filter(between).count() as u64;
        let all: u64 = gaps.iter().map(|gap| gap.end() - gap.start() + 1).sum();
        // What is missing may have been condensed, and deleted, since the segments were listed.
        if there != all {
            segments = segments::list(root).await?;
        }
    }
    Ok(pieces(&segments, &commits, newest))
}

/// Of segments and commits, both ascending: segments first, for they take fewer requests.
fn pieces(segments: &[Segment], commits: &[u64], newest: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut end = newest.saturating_add(1);
    for segment in segments::cover(segments).into_iter().rev() {
        if segment.from >= end {
            continue;
        }
        let last = segment.to.min(end - 1);
        pieces.extend(of_commits(commits, last + 1, end));
        end = segment.from;
        pieces.push(Piece::Segment(segment, end..=last));
    }
    pieces.extend(of_commits(commits, 0, end));
    pieces
}

/// Those of `commits` from `first` on and before `end`.
fn of_commits(commits: &[u64], first: u64, end: u64) -> Option<Piece> {
    let versions = commits.iter().rev().copied();
    let versions: Vec<u64> = versions
        .filter(|version| (first..end).contains(version))
        .collect();
    (!versions.is_empty()).then_some(Piece::Commits(versions))
}

/// The record of a version that had a commit when the log was listed.
async fn of_version(root: TableRoot, version: u64) -> Result<Option<Record>> {
    if let Some(commit) = log::read(&root, version).await? {
        return Ok(of(&commit));
    }
    // Condensed and deleted since; or deleted by another writer, who keeps no records.
    let records = segments::around(&root, &(version..=version)).await?;
    let mut records = records.unwrap_or_default();
    records.retain(|record| record.version == Some(version));
    Ok(records.pop())
}

/// The records of `versions`, ascending, from a segment that was there when segments were listed.
async fn of_segment(
    root: &TableRoot,
    segment: &Segment,
    versions: &RangeInclusive<u64>,
) -> Result<Vec<Record>> {
    let mut records = match segments::read(root, segment).await {
        Ok(Some(records)) => records,
        // Part of a longer one since.
        Ok(None) => segments::around(root, versions)
            .await?
            .ok_or_else(|| vanished(root, versions))?,
        Err(damage) if damage.kind() == ErrorKind::Corrupt => {
            of_log(root, versions.clone(), damage).await?
        }
        Err(error) => return Err(error),
    };
    records.retain(|record| {
        record
            .version
            .is_some_and(|version| versions.contains(&version))
    });
    Ok(records)
}

/// The records of a damaged segment from the commits themselves, as long as the log has all of them.
///
/// Without them the damage is told: metrics that are silently gone would move baselines, and rows that were
/// replayed would be in quarantine again.
async fn of_log(
    root: &TableRoot,
    versions: RangeInclusive<u64>,
    damage: Error,
) -> Result<Vec<Record>> {
    let mut commits = stream::iter(versions)
        .map(|version| log::read(root, version))
        .buffered(READ_AHEAD)
        .boxed();
    let mut records = Vec::new();
    while let Some(commit) = commits.try_next().await? {
        match commit {
            Some(commit) if !commit.is_erased() => records.extend(of(&commit)),
            _ => return Err(damage),
        }
    }
    Ok(records)
}

fn vanished(root: &TableRoot, versions: &RangeInclusive<u64>) -> Error {
    Error::corrupt(format!(
        "table {}: the records of versions {} to {} vanished while they were read",
        root.url(),
        versions.start(),
        versions.end()
    ))
}

/// A folder of ours beside the table's rows, which other writers pass over.
fn folder(root: &TableRoot, name: &str) -> Path {
    root.path.clone().join("_selvedge").join(name)
}

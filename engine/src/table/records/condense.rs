//! From commits to segments, before the log forgets the commits.
//!
//! A new segment takes in the segments before it that are not much longer than it: lengths then more than halve
//! from each to the next, so there are few of them however long the table lives, and each record is copied a
//! few times only.

use std::ops::RangeInclusive;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;

use super::segments::{self, Segment};
use super::{READ_AHEAD, Record, of};
use crate::cleanse::policy;
use crate::error::{Error, ErrorKind, Result};
use crate::quality::rule;
use crate::table::handle::Table;
use crate::table::log;
use crate::table::snapshot::{Snapshot, TableRoot};

/// How the properties begin through which a table asks something of its rows.
const ASKS: [&str; 4] = [
    rule::PROPERTY,
    rule::PROFILE,
    rule::QUARANTINE_INVALID,
    policy::PROPERTY,
];

/// Segments grow by merging up to this many bytes, which are in memory when they are read.
const LARGEST_BYTES: u64 = 16 << 20;

/// Condenses the records up to this version, which has a checkpoint now: from here on readers need not open
/// the commits before it. A table that asks nothing of its rows, and never did, gets no objects.
pub(crate) async fn condense(table: &Table, snapshot: &Snapshot) -> Result<()> {
    let root = &table.root;
    let _one_at_a_time = table.checkpointing.lock().await;
    let keys = || snapshot.metadata.configuration.keys();
    let asks = keys().any(|key| ASKS.iter().any(|begin| key.starts_with(begin)));
    let known = segments::list(root).await?;
    if !asks && known.is_empty() {
        return Ok(());
    }
    let gaps = segments::gaps(&known, snapshot.version);
    let Some(first) = gaps.first() else {
        return Ok(());
    };
    let commits = log::list(root, *first.start()).await?.commits;
    // Once more, after the log: a commit that another engine has deleted was in a segment before.
    let known = segments::list(root).await?;
    fill(root, &commits, known, snapshot.version, true).await
}

/// Has the records of all versions before `end` in segments that can be read, so that the commits may go.
///
/// Rules that were dropped may have left records, so the commits themselves are asked whether there are any.
pub(crate) async fn secure(table: &Table, end: u64) -> Result<()> {
    let root = &table.root;
    let Some(last) = end.checked_sub(1) else {
        return Ok(());
    };
    let _one_at_a_time = table.checkpointing.lock().await;
    let commits = log::list(root, 0).await?.commits;
    let logged = |segment: &Segment| {
        let mut versions = segment.from..=segment.to;
        versions.all(|version| commits.binary_search(&version).is_ok())
    };
    let mut sound = Vec::new();
    for segment in segments::list(root).await? {
        match segments::read(root, &segment).await {
            Ok(Some(_)) => sound.push(segment),
            Ok(None) => {}
            // As long as its commits are there, it is written anew. Otherwise no more of them may go.
            Err(error) if error.kind() == ErrorKind::Corrupt && logged(&segment) => {
                tracing::warn!(%error, "a segment of records is damaged");
            }
            Err(error) => return Err(error),
        }
    }
    fill(root, &commits, sound, last, false).await
}

/// Writes segments for the versions up to `last` that the `known` ones do not speak of.
async fn fill(
    root: &TableRoot,
    commits: &[u64],
    known: Vec<Segment>,
    last: u64,
    asks: bool,
) -> Result<()> {
    for gap in segments::gaps(&known, last) {
        let records = of_commits(root, commits, &gap).await?;
        // Where nothing was ever said, nothing ends or is taken back.
        if asks || !known.is_empty() || records.iter().any(Record::speaks) {
            write(root, &known, gap, records).await?;
        }
    }
    Ok(())
}

async fn of_commits(
    root: &TableRoot,
    commits: &[u64],
    versions: &RangeInclusive<u64>,
) -> Result<Vec<Record>> {
    let commits = commits.iter().copied();
    let commits: Vec<u64> = commits.filter(|one| versions.contains(one)).collect();
    let mut commits = stream::iter(commits)
        .map(|version| async move { Ok::<_, Error>((version, log::read(root, version).await?)) })
        .buffered(READ_AHEAD)
        .boxed();
    let (mut records, mut erased) = (Vec::new(), None);
    while let Some((version, commit)) = commits.try_next().await? {
        // A segment without it would hide the one that whoever deleted it has written.
        let commit = commit.ok_or_else(|| {
            Error::new(
                ErrorKind::Conflict,
                format!(
                    "table {}: commit {version} was deleted while its record was read",
                    root.url()
                ),
            )
        })?;
        erased = erased.or(commit.is_erased().then_some(version));
        records.extend(of(&commit));
    }
    // Whoever erased it has put its record into a segment before, unless it had none.
    if let Some(version) = erased
        && segments::around(root, &(version..=version))
            .await?
            .is_some()
    {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "table {}: commit {version} was erased while its record was read",
                root.url()
            ),
        ));
    }
    Ok(records)
}

/// Writes the segment of `versions`, which takes in those before it that are not much longer.
async fn write(
    root: &TableRoot,
    known: &[Segment],
    versions: RangeInclusive<u64>,
    records: Vec<Record>,
) -> Result<()> {
    let (mut from, to) = versions.into_inner();
    let mut lines = segments::lines(&records)?;
    for before in segments::cover(known).iter().rev() {
        let bytes = lines.len() as u64;
        let beside = before.from < from && before.to < to && before.to + 1 >= from;
        // A header's worth more, so that segments without records do not stay by themselves.
        let small = before.bytes <= 2 * bytes + 256 && before.bytes + bytes <= LARGEST_BYTES;
        if !beside {
            continue;
        }
        if !small {
            break;
        }
        let older = match segments::read(root, before).await {
            Ok(Some(older)) => older,
            Ok(None) => break,
            // It stays as it is, for readers to tell of.
            Err(error) if error.kind() == ErrorKind::Corrupt => break,
            Err(error) => return Err(error),
        };
        let older = older.into_iter();
        let older: Vec<Record> = older
            .filter(|record| record.version.is_some_and(|version| version < from))
            .collect();
        let mut longer = segments::lines(&older)?;
        longer.append(&mut lines);
        (from, lines) = (before.from, longer);
    }
    segments::put(root, from, to, &lines).await?;
    for merged in known {
        let within = from <= merged.from && merged.to <= to;
        if !within || (merged.from, merged.to) == (from, to) {
            continue;
        }
        let path = merged.path(root);
        match root.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(Error::storage(format!("cannot delete {path}"), error)),
        }
    }
    Ok(())
}

//! Objects that hold the records of a range of versions, for when the log has forgotten the commits.
//!
//! A segment is written once, under a name that says its range, and never changed. Its first line counts and
//! checksums the others, so that one which was cut off by a power loss is told from a whole one. Segments may
//! overlap when two engines condense at once: both hold the same records then.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::{Record, folder};
use crate::error::{Error, Result};
use crate::table::snapshot::TableRoot;

/// A segment, by its name and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// First version it speaks of.
    pub from: u64,
    /// Last version it speaks of.
    pub to: u64,
    pub bytes: u64,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    from: u64,
    to: u64,
    /// Lines that follow.
    records: u64,
    /// CRC-32C of their bytes, newlines included.
    crc32c: u32,
}

impl Segment {
    fn named(name: &str, bytes: u64) -> Option<Self> {
        let number = |text: &str| match text.len() {
            20 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        let (from, to) = name.strip_suffix(".json")?.split_once('-')?;
        let (from, to) = (number(from)?, number(to)?);
        (from <= to).then_some(Self { from, to, bytes })
    }

    pub(super) fn path(&self, root: &TableRoot) -> Path {
        place(root).join(format!("{:020}-{:020}.json", self.from, self.to))
    }

    fn holds(&self, versions: &RangeInclusive<u64>) -> bool {
        self.from <= *versions.start() && *versions.end() <= self.to
    }
}

fn place(root: &TableRoot) -> Path {
    folder(root, "records")
}

/// All segments of a table, by their first version; of those with the same, the longest first.
pub(super) async fn list(root: &TableRoot) -> Result<Vec<Segment>> {
    let folder = place(root);
    let failed = |error| Error::storage(format!("cannot list {folder}"), error);
    let mut objects = root.store.list(Some(&folder));
    let mut segments = Vec::new();
    while let Some(object) = objects.try_next().await.map_err(failed)? {
        let name = object.location.filename();
        segments.extend(name.and_then(|name| Segment::named(name, object.size)));
    }
    segments.sort_by_key(|segment| (segment.from, Reverse(segment.to)));
    Ok(segments)
}

/// Those of `segments` that speak of versions which the ones before them do not.
pub(super) fn cover(segments: &[Segment]) -> Vec<Segment> {
    let mut cover: Vec<Segment> = Vec::new();
    for segment in segments {
        if cover.last().is_none_or(|last| last.to < segment.to) {
            cover.push(segment.clone());
        }
    }
    cover
}

/// The versions up to `last` that no segment speaks of.
pub(super) fn gaps(segments: &[Segment], last: u64) -> Vec<RangeInclusive<u64>> {
    let mut gaps = Vec::new();
    let mut next = 0;
    for segment in segments {
        if next > last {
            break;
        }
        if segment.from > next {
            gaps.push(next..=last.min(segment.from - 1));
        }
        next = next.max(segment.to.saturating_add(1));
    }
    if next <= last {
        gaps.push(next..=last);
    }
    gaps
}

/// The records of a segment, ascending; None when it is not there any more.
///
/// # Errors
/// `Corrupt` when it is not what its name says, or not whole.
pub(super) async fn read(root: &TableRoot, segment: &Segment) -> Result<Option<Vec<Record>>> {
    let path = segment.path(root);
    let failed = |error| Error::storage(format!("cannot read {path}"), error);
    let bytes = match root.store.get(&path).await {
        Ok(got) => got.bytes().await.map_err(failed)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let records = decode(segment, &bytes).map_err(|why| {
        Error::corrupt(format!(
            "{path}, which holds what writes said of their rules, is damaged: {why}"
        ))
        .with_hint("restore this object from a copy, or remove it if these records may be lost")
    })?;
    Ok(Some(records))
}

/// The records of some segment that speaks of all these versions, and maybe of others.
pub(super) async fn around(
    root: &TableRoot,
    versions: &RangeInclusive<u64>,
) -> Result<Option<Vec<Record>>> {
    for segment in list(root).await? {
        if segment.holds(versions)
            && let Some(records) = read(root, &segment).await?
        {
            return Ok(Some(records));
        }
    }
    Ok(None)
}

/// Writes the segment of these versions, over a damaged one if there is one; `lines` are those of [`lines`].
pub(super) async fn put(root: &TableRoot, from: u64, to: u64, lines: &[u8]) -> Result<()> {
    let bytes = encode(from, to, lines)?;
    let segment = Segment { from, to, bytes: 0 };
    let path = segment.path(root);
    let put = root.store.put(&path, bytes.into()).await;
    put.map_err(|error| Error::storage(format!("cannot write {path}"), error))?;
    Ok(())
}

/// A line for each record.
pub(super) fn lines(records: &[Record]) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record).map_err(not_json)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

fn encode(from: u64, to: u64, lines: &[u8]) -> Result<Bytes> {
    let header = Header {
        from,
        to,
        records: count(lines),
        crc32c: crc32c::crc32c(lines),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(not_json)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(lines);
    Ok(bytes.into())
}

fn decode(segment: &Segment, bytes: &[u8]) -> Result<Vec<Record>, String> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (header, lines) = bytes.split_at(end.ok_or("it has no whole line")? + 1);
    let header: Header =
        serde_json::from_slice(header).map_err(|error| format!("line 1: {error}"))?;
    if (header.from, header.to) != (segment.from, segment.to) {
        return Err(format!(
            "it speaks of versions {} to {}",
            header.from, header.to
        ));
    }
    let found = count(lines);
    if found != header.records || crc32c::crc32c(lines) != header.crc32c {
        return Err(format!(
            "it promises {} records and holds {found}, or its checksum differs",
            header.records
        ));
    }
    let lines = lines.split(|byte| *byte == b'\n');
    lines
        .filter(|line| !line.is_empty())
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_slice(line).map_err(|error| format!("line {}: {error}", at + 2))
        })
        .collect()
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn not_json(error: serde_json::Error) -> Error {
    Error::internal("records could not be written as JSON").with_source(error)
}

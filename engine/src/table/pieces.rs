//! Data files in pieces, for partitions to share, and what deletion vectors leave of them.
//!
//! ```text
//! deletion vector -> a mask of the file, and which row groups and long runs need no reading -> pieces
//! ```
//!
//! DataFusion's own split gives each partition few large ranges, and whoever is done sooner waits. Of pieces, partitions
//! take one after another. Their access plans leave out what is hidden for long; [`Visible`](super::visible::Visible)
//! drops the rest by the mask.

use std::ops::Range;

use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::common::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use datafusion::parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;

use super::deletion;
use super::mask::Mask;

/// Pieces that a partition takes of a large scan: so much of it may be left when the first is done.
const PER_PARTITION: u64 = 8;

/// Bytes of a piece, of `all` bytes that a scan reads. Each is opened, and its filters are prepared, for itself: there is a
/// least.
pub(super) fn bytes(all: u64, options: &ConfigOptions) -> u64 {
    let least = options.optimizer.repartition_file_min_size.max(1);
    match options.execution.target_partitions {
        0 | 1 => u64::MAX,
        many => (all / (PER_PARTITION * many as u64)).max(least as u64),
    }
}

/// `file` in pieces of so many `bytes`. Row groups belong to the piece they begin in.
pub(super) fn cut(file: PartitionedFile, bytes: u64) -> Vec<PartitionedFile> {
    let size = file.object_meta.size;
    let pieces = size / bytes;
    let (Ok(step), Ok(end)) = (i64::try_from(bytes), i64::try_from(size)) else {
        return vec![file];
    };
    if pieces < 2 {
        return vec![file];
    }
    let begin = |piece: u64| piece as i64 * step;
    let range = |piece: u64| match piece + 1 == pieces {
        true => begin(piece)..end,
        false => begin(piece)..begin(piece + 1),
    };
    let ranges = (0..pieces).map(range);
    ranges
        .map(|range| file.clone().with_range(range.start, range.end))
        .collect()
}

/// Hidden rows on end that are skipped, times 64: a run costs the reader as much as some hundred rows.
const SKIPPED_WORDS: usize = 16;

/// A file, as its deletion vector leaves it.
#[derive(Debug)]
pub(crate) struct Remains {
    groups: Vec<Group>,
    mask: Mask,
}

#[derive(Debug)]
struct Group {
    access: RowGroupAccess,
    /// Where its first page is: what DataFusion asks when it reads a range of a file.
    start: i64,
}

impl Remains {
    /// A file without the rows that are `deleted`.
    ///
    /// # Errors
    /// When these are none of the file.
    pub(super) fn new(footer: &ParquetMetaData, deleted: &RoaringTreemap) -> Result<Self, String> {
        let sizes = footer.row_groups().iter().map(|group| {
            let rows = group.num_rows();
            usize::try_from(rows).map_err(|_| format!("a row group has {rows} rows"))
        });
        let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
        let rows: usize = sizes.iter().sum();
        if let Some(last) = deleted.max().filter(|last| *last >= rows as u64) {
            return Err(format!(
                "the deletion vector names row {last}, the file has {rows} rows"
            ));
        }
        let mask = deletion::visible_rows(deleted, rows);
        let mut begin = 0;
        let groups = footer.row_groups().iter().zip(sizes).map(|(group, rows)| {
            let visible = mask.slice(begin, rows);
            begin += rows;
            let access = match visible.count_set_bits() {
                0 => RowGroupAccess::Skip,
                _ => match without_long_runs(&visible) {
                    Some(selection) => RowGroupAccess::Selection(selection),
                    None => RowGroupAccess::Scan,
                },
            };
            let start = group.columns().first().map_or(0, |column| {
                let dictionary = column.dictionary_page_offset();
                dictionary.unwrap_or_else(|| column.data_page_offset())
            });
            Group { access, start }
        });
        let groups = groups.collect();
        Ok(Self {
            groups,
            mask: Mask(mask),
        })
    }

    /// `file` in pieces of so many `bytes`, without those of which no row is visible.
    pub(super) fn of(&self, file: &PartitionedFile, bytes: u64) -> Vec<PartitionedFile> {
        let groups = &self.groups;
        // Some writers may put row groups in another order than their footer does: no ranges tell them apart.
        let in_order = groups.is_sorted_by(|a, b| a.start < b.start);
        let mut pieces = vec![];
        let mut first = 0;
        while first < groups.len() {
            let begin = groups[first].start;
            let within = |group: &Group| {
                let ahead = u64::try_from(group.start.saturating_sub(begin)).unwrap_or(0);
                !in_order || ahead < bytes
            };
            let next = first
                + groups[first..]
                    .iter()
                    .take_while(|g| within(g))
                    .count()
                    .max(1);
            pieces.extend(self.piece(file, first..next, in_order));
            first = next;
        }
        pieces
    }

    /// The row groups `range` of `file`, if a row of them is visible.
    fn piece(
        &self,
        file: &PartitionedFile,
        range: Range<usize>,
        in_order: bool,
    ) -> Option<PartitionedFile> {
        let groups = &self.groups;
        let mut plan = ParquetAccessPlan::new_none(groups.len());
        let mut any = false;
        for (at, group) in groups.iter().enumerate().take(range.end).skip(range.start) {
            any |= group.access.should_scan();
            plan.set(at, group.access.clone());
        }
        if !any {
            return None;
        }
        let mut piece = file.clone();
        piece.extensions.insert(plan);
        piece.extensions.insert(self.mask.clone());
        if in_order {
            let begin = groups.get(range.start).filter(|_| range.start > 0);
            let end = groups.get(range.end);
            let size = i64::try_from(file.object_meta.size).unwrap_or(i64::MAX);
            piece = piece.with_range(
                begin.map_or(0, |group| group.start),
                end.map_or(size, |group| group.start),
            );
        }
        Some(piece)
    }
}

/// All rows of a row group but those within long runs of hidden ones; `None` where there are no such runs.
fn without_long_runs(visible: &BooleanBuffer) -> Option<RowSelection> {
    let mut selectors: Vec<RowSelector> = vec![];
    let (mut read, mut hidden) = (0, 0);
    let words = visible.bit_chunks();
    // The last word may have fewer rows: it is read.
    for word in words.iter().map(Some).chain([None]) {
        if word == Some(0) {
            hidden += 64;
            continue;
        }
        if hidden >= SKIPPED_WORDS * 64 {
            selectors.push(RowSelector::select(read));
            selectors.push(RowSelector::skip(hidden));
            read = 0;
        } else {
            read += hidden;
        }
        hidden = 0;
        read += word.map_or(words.remainder_len(), |_| 64);
    }
    if selectors.is_empty() {
        return None;
    }
    selectors.push(RowSelector::select(read));
    Some(selectors.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_without_a_gap() {
        let file = |size| PartitionedFile::new("a.parquet", size);
        for (size, each, pieces) in [(0, 10, 1), (19, 10, 1), (20, 10, 2), (99, 10, 9)] {
            let cut = cut(file(size), each);
            assert_eq!(cut.len(), pieces, "{size}");
            let ranges: Vec<_> = cut.iter().filter_map(|piece| piece.range.clone()).collect();
            assert!(pieces == 1 || ranges.len() == pieces);
            let (first, last) = (ranges.first(), ranges.last());
            assert!(first.is_none_or(|range| range.start == 0));
            assert!(last.is_none_or(|range| range.end == size as i64));
            assert!(ranges.windows(2).all(|two| two[0].end == two[1].start));
        }
        for (size, partitions, pieces) in [(1 << 40, 1, 1), (1 << 40, 4, 32), (3 << 20, 4, 3)] {
            let mut options = ConfigOptions::default();
            options.execution.target_partitions = partitions;
            options.optimizer.repartition_file_min_size = 1 << 20;
            assert_eq!(cut(file(size), bytes(size, &options)).len(), pieces);
        }
    }

    #[test]
    fn long_runs_are_skipped_and_nothing_else() {
        let long = SKIPPED_WORDS * 64;
        for (rows, hidden, skipped) in [
            (5000, 0..0, 0),
            (5000, 0..long - 1, 0),
            (5000, 0..long, long),
            (5000, 1..long, 0),
            // Whole words within.
            (5000, 1..long + 64, long),
            (5000, 5000 - long - 8..5000, long),
            (long + 64, 0..long + 64 - 1, long),
            (4 * long, long..3 * long, 2 * long),
        ] {
            let visible: BooleanBuffer = (0..rows).map(|row| !hidden.contains(&row)).collect();
            let selection = without_long_runs(&visible);
            let found = selection
                .as_ref()
                .map_or(0, RowSelection::skipped_row_count);
            assert_eq!(found, skipped, "{rows} {hidden:?}");
            let Some(selection) = selection else { continue };
            assert_eq!(selection.row_count() + found, rows);
            let mut at = 0;
            for selector in selection.iter() {
                let all = at..at + selector.row_count;
                at = all.end;
                assert!(!selector.skip || all.clone().all(|row| hidden.contains(&row)));
            }
        }
    }
}

//! A data file of which rows are deleted, in pieces of a few row groups.
//!
//! ```text
//! deletion vector -> a mask for each row group (kept with the file) -> pieces with access plans
//! ```
//!
//! One selection over a whole file would do as well, but the reader copies what is left of it at each row group, and
//! scattered rows make millions of entries. Within a piece there is little to copy, masks are shared between scans, and
//! pieces are shared out to partitions where no optimizer splits files.

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;

use super::deletion;

/// Row groups of a piece.
const GROUPS: usize = 4;

/// Pieces of a file at most: each has a plan for all of its row groups.
const PIECES: usize = 64;

/// A row group, as a deletion vector leaves it.
#[derive(Debug)]
pub(crate) struct Group {
    access: RowGroupAccess,
    /// Where its first page is: what DataFusion asks when it reads a range of a file.
    start: i64,
}

/// The row groups of a file without the rows that are `deleted`.
///
/// # Errors
/// When these are none of the file.
pub(super) fn groups(
    footer: &ParquetMetaData,
    deleted: &RoaringTreemap,
) -> Result<Vec<Group>, String> {
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
    let visible = deletion::visible_rows(deleted, rows);
    let mut begin = 0;
    let groups = footer.row_groups().iter().zip(sizes).map(|(group, rows)| {
        let mask = visible.slice(begin, rows);
        begin += rows;
        let access = match mask.count_set_bits() {
            0 => RowGroupAccess::Skip,
            all if all == rows => RowGroupAccess::Scan,
            _ => RowGroupAccess::Selection(RowSelection::from_boolean_buffer(mask)),
        };
        let start = group.columns().first().map_or(0, |column| {
            let dictionary = column.dictionary_page_offset();
            dictionary.unwrap_or_else(|| column.data_page_offset())
        });
        Group { access, start }
    });
    Ok(groups.collect())
}

/// `file` in pieces, without those of which no row is visible.
pub(super) fn cut(file: &PartitionedFile, groups: &[Group]) -> Vec<PartitionedFile> {
    // Some writers may put row groups in another order than their footer does: no ranges tell them apart.
    let in_order = groups.is_sorted_by(|a, b| a.start < b.start);
    let size = match in_order {
        true => GROUPS.max(groups.len().div_ceil(PIECES)),
        false => groups.len().max(1),
    };
    let pieces = groups.chunks(size).enumerate().filter_map(|(at, piece)| {
        if piece.iter().all(|group| !group.access.should_scan()) {
            return None;
        }
        let first = at * size;
        let mut plan = ParquetAccessPlan::new_none(groups.len());
        for (at, group) in piece.iter().enumerate() {
            plan.set(first + at, group.access.clone());
        }
        let mut described = file.clone();
        described.extensions.insert(plan);
        if in_order {
            let begin = piece.first().filter(|_| first > 0);
            let end = groups.get(first + piece.len());
            let length = i64::try_from(file.object_meta.size).unwrap_or(i64::MAX);
            described = described.with_range(
                begin.map_or(0, |group| group.start),
                end.map_or(length, |group| group.start),
            );
        }
        Some(described)
    });
    pieces.collect()
}

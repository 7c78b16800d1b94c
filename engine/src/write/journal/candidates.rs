//! Which rows of a file may have keys of a write, so that no other page of it is read.
//!
//! ```text
//! events -> ranges of their first key column -> pages whose bounds meet one -> the file, showing these alone
//! ```
//!
//! Knows bounds and no values: whoever reads the rows asks each for its key, and whether it is deleted. A page without
//! bounds may hold any.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::Field;
use arrow::row::{Row, RowConverter, Rows, SortField};
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{Expr, ident};
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema_by_columns};
use parquet::basic::{ColumnOrder, SortOrder};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::schema::types::{SchemaDescriptor, TypePtr};
use roaring::RoaringTreemap;

use super::super::quality::unexpected;
use super::accept::Accepted;
use crate::error::{Error, Result};
use crate::journal::shape::Shape;
use crate::table::located::indexed_footer;
use crate::table::mapping::{self, Mode};
use crate::table::snapshot::{DataFile, Snapshot, TableRoot};

/// Ranges that are held of a write. Of more events, some beside each other share one.
const MOST_RANGES: u64 = 64 << 10;

/// So few keys are told one by one.
const LISTED_KEYS: usize = 20;

/// Between which values of the first key column the events of a write are.
pub(super) struct Ranges {
    /// As the table declares it.
    column: Field,
    order: RowConverter,
    /// Events of a range.
    each: u64,
    /// Events so far.
    seen: u64,
    /// The first value of each range, and the last.
    first: Rows,
    last: Rows,
    /// The last value so far, which may not have ended its range.
    open: Option<ArrayRef>,
    memory: MemoryReservation,
}

impl Ranges {
    /// Those of all events, which come in the order of their keys.
    pub(super) async fn of(
        accepted: &Accepted,
        shape: &Shape,
        pool: &Arc<dyn MemoryPool>,
    ) -> Result<Self> {
        let at = shape.keys.first().ok_or_else(|| {
            Error::internal(format!("the journal {} has no key columns", shape.table))
        })?;
        let column = shape.declared.field(*at);
        let mut ranges = Self::new(column, accepted.rows.div_ceil(MOST_RANGES), pool)?;
        let mut events = accepted.read(0)?;
        while let Some(batch) = events.try_next().await? {
            ranges.add(batch.column(*at))?;
        }
        ranges.end()?;
        Ok(ranges)
    }

    /// Of values of a column, so many of `each` range.
    fn new(column: &Field, each: u64, pool: &Arc<dyn MemoryPool>) -> Result<Self> {
        let field = SortField::new(column.data_type().clone());
        let order = RowConverter::new(vec![field]).map_err(unexpected)?;
        Ok(Self {
            column: column.clone(),
            each: each.max(1),
            seen: 0,
            first: order.empty_rows(0, 0),
            last: order.empty_rows(0, 0),
            open: None,
            memory: MemoryConsumer::new("JournalRanges").register(pool),
            order,
        })
    }

    /// Adds values, in order, none of them before those that were added earlier.
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        let (seen, each) = (self.seen, self.each);
        let every = |offset: u64| {
            let rows = 0..values.len() as u64;
            let rows = rows.filter(|row| (seen + row + offset).is_multiple_of(each));
            take(values, &UInt64Array::from_iter_values(rows), None).map_err(unexpected)
        };
        let (first, last) = (every(0)?, every(1)?);
        let order = &self.order;
        order
            .append(&mut self.first, &[first])
            .map_err(unexpected)?;
        order.append(&mut self.last, &[last]).map_err(unexpected)?;
        if let Some(last) = values.len().checked_sub(1) {
            self.open = Some(values.slice(last, 1));
        }
        self.seen += values.len() as u64;
        let bytes = self.first.size() + self.last.size();
        Ok(self.memory.try_resize(bytes)?)
    }

    /// Ends the last range.
    fn end(&mut self) -> Result<()> {
        if let Some(last) = self.open.take()
            && self.last.num_rows() < self.first.num_rows()
        {
            let order = &self.order;
            order.append(&mut self.last, &[last]).map_err(unexpected)?;
        }
        Ok(())
    }

    /// That a row has one of the values, where they are few: bloom filters know of values, and not of ranges.
    pub(super) fn listed(&self) -> Result<Option<Expr>> {
        // Each key may have many events.
        if self.each > 1 || self.first.num_rows() > 64 * LISTED_KEYS {
            return Ok(None);
        }
        let columns = self.order.convert_rows(&self.first).map_err(unexpected)?;
        let mut listed: Vec<ScalarValue> = Vec::new();
        for values in &columns {
            for row in 0..values.len() {
                let value = ScalarValue::try_from_array(values, row)?;
                if listed.last() != Some(&value) {
                    listed.push(value);
                }
            }
        }
        if listed.len() > LISTED_KEYS {
            return Ok(None);
        }
        let listed = listed.into_iter().map(|value| Expr::Literal(value, None));
        let column = ident(self.column.name().as_str());
        Ok(Some(column.in_list(listed.collect(), false)))
    }

    /// `file` with none but the pages that may have a value in a range; `None` where it has no such page. Rows that its
    /// deletion vector hides are among the others.
    pub(super) async fn showing(
        &self,
        state: &SessionState,
        root: &TableRoot,
        base: &Snapshot,
        file: &Arc<DataFile>,
    ) -> Result<Option<Arc<DataFile>>> {
        // With what the version notes of its name in files.
        let column = base.schema.field_with_name(self.column.name());
        let column = column.map_err(unexpected)?;
        let footer = indexed_footer(state, root, file).await?;
        let (shown, rows) = self.candidates(&footer, column, base.mapping());
        if shown.is_empty() {
            return Ok(None);
        }
        let deleted = file.deleted(root).await?;
        // Its scan tells what is wrong with the file.
        if deleted.is_some_and(|deleted| deleted.max().is_some_and(|last| last >= rows)) {
            return Ok(Some(Arc::clone(file)));
        }
        let mut hidden = RoaringTreemap::new();
        // To leave out few pages costs more than to read them.
        if rows - shown.len() > rows / 8 {
            hidden.insert_range(0..rows);
            hidden -= &shown;
            // Pages are runs of rows.
            hidden.optimize();
        }
        Ok(Some(Arc::new(DataFile::showing(&file.add, hidden))))
    }

    /// The rows of a file whose `column` may be in a range, and how many rows there are.
    fn candidates(
        &self,
        footer: &ParquetMetaData,
        column: &Field,
        mode: Mode,
    ) -> (RoaringTreemap, u64) {
        let bounds = Bounds::of(footer, column, mode);
        let bounds = bounds.as_ref();
        let mut shown = RoaringTreemap::new();
        let mut begin = 0;
        for (at, group) in footer.row_groups().iter().enumerate() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            let chunk = bounds.and_then(|bounds| bounds.of_chunk(at, rows));
            if chunk.is_none_or(|chunk| self.met(&chunk).next().is_some()) {
                let pages = bounds.and_then(|bounds| bounds.of_pages(at, rows));
                let pages: Vec<(u64, u64)> = match &pages {
                    Some(pages) => self.met(pages).collect(),
                    None => vec![(0, rows)],
                };
                for (first, end) in pages {
                    shown.insert_range(begin + first..begin + end);
                }
            }
            begin += rows;
        }
        (shown, begin)
    }

    /// The first row and the end of each span that may have a value in a range.
    fn met<'a>(&'a self, spans: &'a Spans) -> impl Iterator<Item = (u64, u64)> + 'a {
        let known = self
            .comparable(&spans.least)
            .zip(self.comparable(&spans.greatest));
        let begins = [0].into_iter().chain(spans.ends.iter().copied());
        let rows = begins.zip(&spans.ends).enumerate();
        rows.filter_map(move |(at, (begin, end))| {
            let meets = known
                .as_ref()
                .is_none_or(|((least, low), (greatest, high))| {
                    low.is_null(at)
                        || high.is_null(at)
                        || self.meets(least.row(at), greatest.row(at))
                });
            meets.then_some((begin, *end))
        })
    }

    /// Bounds in the type of the table; `None` where they have none of it.
    ///
    /// A column that was widened has another type in older files. What widens values keeps their order, and what it has
    /// no value for becomes NULL, which is no bound.
    fn comparable(&self, bounds: &ArrayRef) -> Option<(Rows, ArrayRef)> {
        let of = self.column.data_type();
        let bounds = match bounds.data_type() == of {
            true => Arc::clone(bounds),
            false => cast(bounds, of).ok()?,
        };
        let rows = self.order.convert_columns(&[Arc::clone(&bounds)]).ok()?;
        Some((rows, bounds))
    }

    /// Whether a range has values from `least` to `greatest`.
    fn meets(&self, least: Row<'_>, greatest: Row<'_>) -> bool {
        // The first range that does not end before.
        let (mut low, mut high) = (0, self.last.num_rows());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.last.row(middle) < least {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low < self.first.num_rows() && self.first.row(low) <= greatest
    }
}

/// Rows beside each other, and between which values a column is in them: NULL where nothing tells.
struct Spans {
    /// Where each ends, in the row group.
    ends: Vec<u64>,
    least: ArrayRef,
    greatest: ArrayRef,
}

impl Spans {
    /// None where bounds and rows are not of the same pages.
    fn new(ends: Vec<u64>, least: ArrayRef, greatest: ArrayRef) -> Option<Self> {
        let fits = least.len() == ends.len() && greatest.len() == ends.len();
        fits.then_some(Self {
            ends,
            least,
            greatest,
        })
    }
}

/// What a file says of the values of one column.
struct Bounds<'a> {
    footer: &'a ParquetMetaData,
    leaf: usize,
    /// The column as the file has it.
    field: Field,
}

impl<'a> Bounds<'a> {
    /// None where the file has no such column, or its bounds are not in the order of values.
    fn of(footer: &'a ParquetMetaData, column: &Field, mode: Mode) -> Option<Self> {
        let file = footer.file_metadata();
        let schema = file.schema_descr();
        let leaf = leaf(schema, column, mode)?;
        match file.column_orders()?.get(leaf)? {
            ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::SIGNED | SortOrder::UNSIGNED) => {}
            _ => return None,
        }
        let mask = ProjectionMask::leaves(schema, [leaf]);
        let of_file = parquet_to_arrow_schema_by_columns(schema, mask, None).ok()?;
        let field = of_file.fields().first()?.as_ref().clone();
        Some(Self {
            footer,
            leaf,
            field,
        })
    }

    fn converter(&self) -> Option<StatisticsConverter<'_>> {
        let schema = self.footer.file_metadata().schema_descr();
        StatisticsConverter::from_column_index(self.leaf, &self.field, schema).ok()
    }

    /// Those of a row group as a whole.
    fn of_chunk(&self, group: usize, rows: u64) -> Option<Spans> {
        let chunk = self.footer.row_groups().get(group)?;
        let statistics = chunk.columns().get(self.leaf)?.statistics()?;
        // Old writers compared texts there as if bytes had signs.
        if statistics.is_min_max_deprecated() {
            return None;
        }
        let converter = self.converter()?;
        Spans::new(
            vec![rows],
            converter.row_group_mins([chunk]).ok()?,
            converter.row_group_maxes([chunk]).ok()?,
        )
    }

    /// Those of its pages.
    fn of_pages(&self, group: usize, rows: u64) -> Option<Spans> {
        let (columns, offsets) = (self.footer.column_index()?, self.footer.offset_index()?);
        if let ColumnIndexMetaData::NONE = columns.get(group)?.get(self.leaf)? {
            return None;
        }
        let pages = offsets.get(group)?.get(self.leaf)?.page_locations();
        let begins = pages.iter().map(|page| u64::try_from(page.first_row_index));
        let begins: Vec<u64> = begins.collect::<Result<_, _>>().ok()?;
        let ends: Vec<u64> = begins.iter().skip(1).copied().chain([rows]).collect();
        // A page that is told wrongly would hide rows.
        if begins.first() != Some(&0) || !ends.is_sorted() {
            return None;
        }
        let converter = self.converter()?;
        let least = converter.data_page_mins(columns, offsets, [&group]);
        let greatest = converter.data_page_maxes(columns, offsets, [&group]);
        Spans::new(ends, least.ok()?, greatest.ok()?)
    }
}

/// Which leaf of a file holds a column of the table.
fn leaf(schema: &SchemaDescriptor, column: &Field, mode: Mode) -> Option<usize> {
    let holds = |of_file: &TypePtr| {
        let info = of_file.get_basic_info();
        // As scans find it: files of mode `id` have ids, and by name is how a file without is read.
        match mode == Mode::Id && info.has_id() {
            true => mapping::id(column) == Some(info.id()),
            false => of_file.name() == mapping::physical_name(column),
        }
    };
    let columns = schema.root_schema().get_fields();
    let at = columns.iter().position(holds)?;
    let leaf = (0..schema.num_columns()).find(|leaf| schema.get_column_root_idx(*leaf) == at)?;
    let single = columns.get(at)?.is_primitive() && schema.column(leaf).max_rep_level() == 0;
    single.then_some(leaf)
}

#[cfg(test)]
mod tests;

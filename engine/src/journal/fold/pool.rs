//! All rows of a chunk as one, so that a value is a number, and what is made of them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, DynComparator, Int64Array, RecordBatch,
    UInt32Array, make_comparator, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{SortOptions, concat, take};
use arrow::error::ArrowError;

use super::super::columnar::{canonical, differ};
use super::super::event::{kept_schema, to_stored};
use super::super::shape::Shape;
use super::timeline::State;
use crate::error::{Error, Result};

/// The declared columns of all rows, one batch behind the other, and of one row of NULLs behind them.
pub(super) struct Pool<'a> {
    pub shape: &'a Shape,
    pub columns: Vec<ArrayRef>,
    /// The row of NULLs.
    pub null: u32,
}

impl<'a> Pool<'a> {
    pub(super) fn new(shape: &'a Shape, batches: &[&RecordBatch]) -> Result<Self> {
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        let null = u32::try_from(rows)
            .map_err(|_| Error::internal(format!("{rows} rows are too many for one chunk")))?;
        let fields = shape.flow.fields().iter().enumerate();
        let columns = fields.map(|(at, field)| {
            let empty = new_null_array(field.data_type(), 1);
            let parts = batches.iter().map(|batch| batch.column(at).as_ref());
            let parts: Vec<&dyn Array> = parts.chain([empty.as_ref()]).collect();
            concat(&parts).map_err(unexpected)
        });
        Ok(Self {
            shape,
            columns: columns.collect::<Result<_>>()?,
            null,
        })
    }

    /// Whether a column says something of a key at an instant: neither a key nor the sequence.
    pub(super) fn attribute(&self, column: usize) -> bool {
        !self.shape.keys.contains(&column) && self.shape.sequence != Some(column)
    }

    /// Columns that say something of a key.
    pub(super) fn attributes(&self) -> Vec<usize> {
        let columns = 0..self.columns.len();
        columns.filter(|column| self.attribute(*column)).collect()
    }

    /// Whether the value of a row is NULL.
    pub(super) fn is_null(&self, column: usize, row: u32) -> bool {
        let values = self.columns.get(column);
        values.is_none_or(|values| values.is_null(row as usize))
    }

    /// Whether the rows `a[i]` and `b[i]` differ in a column, for each i.
    pub(super) fn differ(
        &self,
        column: usize,
        a: &UInt32Array,
        b: &UInt32Array,
    ) -> Result<BooleanBuffer> {
        let values = self
            .columns
            .get(column)
            .ok_or_else(|| Error::internal(format!("a row has no column {column}")))?;
        let a = take(values, a, None).map_err(unexpected)?;
        let b = take(values, b, None).map_err(unexpected)?;
        differ(&a, &b)
    }

    /// Compares single values of the attributes.
    pub(super) fn comparators(&self) -> Result<Comparators> {
        let columns = self.columns.iter().enumerate();
        let columns = columns.map(|(at, values)| {
            if self.shape.keys.contains(&at) {
                return Ok(None);
            }
            let values = canonical(values)?;
            make_comparator(&values, &values, SortOptions::default())
                .map(Some)
                .map_err(unexpected)
        });
        Ok(Comparators(columns.collect::<Result<_>>()?))
    }

    /// The cell of a column in the anchor of a state; `row` is that of the last event in it.
    ///
    /// Its sequence is that of this event, whatever opened the interval: should a late event end it earlier, the anchor
    /// is where the next one begins.
    pub(super) fn anchored(&self, column: usize, state: Option<&State>, row: u32) -> u32 {
        match state {
            Some(_) if self.shape.sequence == Some(column) => row,
            Some(state) => state.cells.get(column).copied().unwrap_or(self.null),
            None if self.shape.keys.contains(&column) => row,
            None => self.null,
        }
    }

    /// For each column the values at its `cells`.
    fn taken(&self, cells: Vec<Vec<u32>>) -> Result<Vec<ArrayRef>> {
        let columns = self.columns.iter().zip(cells);
        columns
            .map(|(values, cells)| {
                take(values, &UInt32Array::from(cells), None).map_err(unexpected)
            })
            .collect()
    }
}

/// Compares values of single rows. Keys have none: who asks has one key.
pub(super) struct Comparators(Vec<Option<DynComparator>>);

impl Comparators {
    pub(super) fn differ(&self, column: usize, a: u32, b: u32) -> bool {
        a != b
            && self
                .0
                .get(column)
                .and_then(Option::as_ref)
                .is_some_and(|compare| compare(a as usize, b as usize).is_ne())
    }
}

/// Intervals to be written, in the order in which they come.
pub(super) struct Intervals {
    cells: Vec<Vec<u32>>,
    from: Vec<i64>,
    to: Vec<Option<i64>>,
}

impl Intervals {
    pub(super) fn new(columns: usize) -> Self {
        Self {
            cells: vec![Vec::new(); columns],
            from: Vec::new(),
            to: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, from: i64, to: Option<i64>, cell: impl Fn(usize) -> u32) {
        self.from.push(from);
        self.to.push(to);
        push(&mut self.cells, cell);
    }

    pub(super) fn finish(self, pool: &Pool<'_>) -> Result<Vec<RecordBatch>> {
        if self.from.is_empty() {
            return Ok(Vec::new());
        }
        let declared = pool.taken(self.cells)?;
        let (from, to) = (Int64Array::from(self.from), Int64Array::from(self.to));
        Ok(vec![to_stored(pool.shape, &declared, &from, &to)?])
    }
}

/// Events and anchors to be kept, in the order in which they come.
pub(super) struct Notes {
    cells: Vec<Vec<u32>>,
    sequence: Vec<i64>,
    delete: Vec<bool>,
    keep: Vec<Option<Vec<u8>>>,
    anchor: Vec<bool>,
}

impl Notes {
    pub(super) fn new(columns: usize) -> Self {
        Self {
            cells: vec![Vec::new(); columns],
            sequence: Vec::new(),
            delete: Vec::new(),
            keep: Vec::new(),
            anchor: Vec::new(),
        }
    }

    pub(super) fn event(&mut self, sequence: i64, delete: bool, keep: Option<&[u8]>, row: u32) {
        self.sequence.push(sequence);
        self.delete.push(delete);
        self.keep.push(keep.map(<[u8]>::to_vec));
        self.anchor.push(false);
        push(&mut self.cells, |_| row);
    }

    /// The state of a key, `delete` where it has none; a whole row, so it keeps nothing.
    pub(super) fn anchor(&mut self, sequence: i64, delete: bool, cell: impl Fn(usize) -> u32) {
        self.sequence.push(sequence);
        self.delete.push(delete);
        self.keep.push(Some(Vec::new()));
        self.anchor.push(true);
        push(&mut self.cells, cell);
    }

    pub(super) fn finish(self, pool: &Pool<'_>) -> Result<Vec<RecordBatch>> {
        if self.sequence.is_empty() {
            return Ok(Vec::new());
        }
        let keep: BinaryArray = self.keep.iter().map(Option::as_deref).collect();
        let mut columns = pool.taken(self.cells)?;
        columns.push(Arc::new(Int64Array::from(self.sequence)));
        columns.push(Arc::new(BooleanArray::from(self.delete)));
        columns.push(Arc::new(keep));
        columns.push(Arc::new(BooleanArray::from(self.anchor)));
        let batch = RecordBatch::try_new(kept_schema(pool.shape), columns);
        Ok(vec![batch.map_err(unexpected)?])
    }
}

fn push(cells: &mut [Vec<u32>], cell: impl Fn(usize) -> u32) {
    for (column, cells) in cells.iter_mut().enumerate() {
        cells.push(cell(column));
    }
}

pub(super) fn unexpected(error: ArrowError) -> Error {
    Error::internal(format!("intervals of a journal: {error}")).with_source(error)
}

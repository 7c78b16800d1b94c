//! What a chunk says, by row: events that came, events that were kept, intervals that are stored.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch, UInt32Array,
};
use arrow::datatypes::{Int64Type, UInt32Type};

use super::super::event::{ANCHOR, DELETE, FROM, KEEP, SEQUENCE, TO};
use crate::error::{Error, Result};
use crate::table::located::{FILE, ROW};

/// The riders of events. `first` is the number of the first of them in the pool.
pub(super) struct Events<'a> {
    sequence: &'a Int64Array,
    delete: &'a BooleanArray,
    keep: &'a BinaryArray,
    anchor: Option<&'a BooleanArray>,
    first: usize,
}

impl<'a> Events<'a> {
    pub(super) fn new(batch: &'a RecordBatch, first: usize) -> Result<Self> {
        let keep = found(batch, KEEP)?.as_binary_opt::<i32>();
        Ok(Self {
            sequence: integers(batch, SEQUENCE)?,
            delete: flags(batch, DELETE)?,
            keep: keep.ok_or_else(|| mistyped(KEEP))?,
            anchor: match batch.column_by_name(ANCHOR) {
                Some(_) => Some(flags(batch, ANCHOR)?),
                None => None,
            },
            first,
        })
    }

    pub(super) fn at(&self, row: usize) -> i64 {
        self.sequence.value(row)
    }

    pub(super) fn delete(&self, row: usize) -> bool {
        self.delete.is_valid(row) && self.delete.value(row)
    }

    pub(super) fn anchor(&self, row: usize) -> bool {
        let anchor = self.anchor.filter(|anchor| anchor.is_valid(row));
        anchor.is_some_and(|anchor| anchor.value(row))
    }

    pub(super) fn keep(&self, row: usize) -> Option<&'a [u8]> {
        self.keep.is_valid(row).then(|| self.keep.value(row))
    }

    /// The row in the pool, which has been seen to be no longer than its numbers.
    pub(super) fn row(&self, row: usize) -> u32 {
        (self.first + row) as u32
    }
}

/// Begins, ends and places of stored intervals, which are the first rows of the pool.
pub(super) struct Stored<'a> {
    from: &'a Int64Array,
    to: &'a Int64Array,
    file: &'a UInt32Array,
    row: &'a Int64Array,
}

impl<'a> Stored<'a> {
    pub(super) fn new(batch: &'a RecordBatch) -> Result<Self> {
        let file = found(batch, FILE)?.as_primitive_opt::<UInt32Type>();
        Ok(Self {
            from: integers(batch, FROM)?,
            to: integers(batch, TO)?,
            file: file.ok_or_else(|| mistyped(FILE))?,
            row: integers(batch, ROW)?,
        })
    }

    pub(super) fn from(&self, row: usize) -> i64 {
        self.from.value(row)
    }

    pub(super) fn to(&self, row: usize) -> Option<i64> {
        self.to.is_valid(row).then(|| self.to.value(row))
    }

    pub(super) fn place(&self, row: usize) -> (u32, i64) {
        (self.file.value(row), self.row.value(row))
    }

    /// The row in the pool.
    pub(super) fn row(&self, row: usize) -> u32 {
        row as u32
    }
}

fn found<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    let column = batch.column_by_name(name);
    column.ok_or_else(|| Error::internal(format!("rows of a journal have no column {name}")))
}

fn integers<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Int64Array> {
    let column = found(batch, name)?.as_primitive_opt::<Int64Type>();
    column.ok_or_else(|| mistyped(name))
}

fn flags<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a BooleanArray> {
    let column = found(batch, name)?.as_boolean_opt();
    column.ok_or_else(|| mistyped(name))
}

fn mistyped(name: &str) -> Error {
    Error::internal(format!("column {name} of a journal has another type"))
}

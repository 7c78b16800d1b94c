//! NaN among rows on their way into a file. The bounds of Parquet leave it out and SQL does not, so
//! a chunk that holds it shall have none: see [`crate::table::footer`].

use std::collections::HashSet;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};

/// Leaves of the Parquet schema that hold NaN.
pub(super) type NanLeaves = HashSet<usize>;

/// Adds the leaves of `batch` that hold NaN to `found`.
pub(super) fn find(batch: &RecordBatch, found: &mut NanLeaves) {
    let mut leaf = 0;
    for column in batch.columns() {
        visit(column, &mut leaf, found);
    }
}

/// Slots of nulls are looked at too: a NaN there only costs the bounds.
fn visit(array: &dyn Array, leaf: &mut usize, found: &mut NanLeaves) {
    match array.data_type() {
        DataType::Struct(_) => {
            for child in array.as_struct().columns() {
                visit(child, leaf, found);
            }
            return;
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            return visit(&within(list.offsets(), list.values()), leaf, found);
        }
        DataType::Map(..) => {
            let map = array.as_map();
            return visit(&within(map.offsets(), map.entries()), leaf, found);
        }
        // Folding without an early end lets the compiler use vector instructions.
        DataType::Float32 if !found.contains(leaf) => {
            let values = array.as_primitive::<Float32Type>().values();
            if values.iter().fold(false, |any, v| any | v.is_nan()) {
                found.insert(*leaf);
            }
        }
        DataType::Float64 if !found.contains(leaf) => {
            let values = array.as_primitive::<Float64Type>().values();
            if values.iter().fold(false, |any, v| any | v.is_nan()) {
                found.insert(*leaf);
            }
        }
        _ => {}
    }
    *leaf += 1;
}

/// The elements of a list, which may be a slice of another whose elements it shares.
fn within(offsets: &OffsetBuffer<i32>, elements: &dyn Array) -> ArrayRef {
    let first = offsets.first().map_or(0, |first| *first as usize);
    let end = offsets.last().map_or(first, |end| *end as usize);
    elements.slice(first, end - first)
}

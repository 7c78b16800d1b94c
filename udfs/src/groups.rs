//! What accumulators read from the arguments that DataFusion hands them.

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::common::{Result, internal_err};

/// The one argument, or state, of an aggregate that has one.
pub(crate) fn only(values: &[ArrayRef]) -> Result<&ArrayRef> {
    match values {
        [values] => Ok(values),
        _ => internal_err!("an aggregate of one column got {}", values.len()),
    }
}

/// The rows that a FILTER lets through; NULL does not.
pub(crate) fn passed(filter: &BooleanArray) -> BooleanBuffer {
    match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    }
}

//! Whether rows differ, many at once.
//!
//! Values are the same when they are NOT DISTINCT: NULL is NULL, every NaN is every other, 0.0 is -0.0, nested values
//! are compared in depth, and a map is its entries in any order.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, StructArray, UInt64Array,
    make_comparator,
};
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use arrow::compute::kernels::cmp;
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type};
use arrow::error::ArrowError;

use crate::error::{Error, Result};

/// For each row of both whether it differs in one of `columns`.
pub(crate) fn distinct(
    a: &RecordBatch,
    b: &RecordBatch,
    columns: &[usize],
) -> Result<BooleanBuffer> {
    let mut any = BooleanBuffer::new_unset(a.num_rows());
    for column in columns {
        any = &any | &differ(a.column(*column), b.column(*column))?;
    }
    Ok(any)
}

/// For each place whether the values there differ.
pub(super) fn differ(a: &ArrayRef, b: &ArrayRef) -> Result<BooleanBuffer> {
    if a.len() != b.len() {
        return Err(Error::internal(format!(
            "{} values were compared with {}",
            a.len(),
            b.len()
        )));
    }
    let (a, b) = (canonical(a)?, canonical(b)?);
    if !a.data_type().is_nested() {
        let differ = cmp::distinct(&a, &b).map_err(unexpected)?;
        return Ok(differ.values().clone());
    }
    let compare = make_comparator(&a, &b, SortOptions::default()).map_err(unexpected)?;
    Ok(BooleanBuffer::collect_bool(a.len(), |row| {
        compare(row, row).is_ne()
    }))
}

/// The same values in a form in which those that are the same are equal: one NaN, one zero, entries of maps as lists
/// in the order of their keys.
pub(super) fn canonical(array: &ArrayRef) -> Result<ArrayRef> {
    if is_canonical(array.data_type()) {
        return Ok(Arc::clone(array));
    }
    Ok(match array.data_type() {
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            Arc::new(
                values.unary::<_, Float32Type>(|value| match value.is_nan() {
                    true => f32::NAN,
                    false => value + 0.0,
                }),
            )
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            Arc::new(
                values.unary::<_, Float64Type>(|value| match value.is_nan() {
                    true => f64::NAN,
                    false => value + 0.0,
                }),
            )
        }
        DataType::Struct(_) => Arc::new(of_struct(array.as_struct())?),
        DataType::List(element) => {
            let list: &ListArray = array.as_list();
            let values = canonical(list.values())?;
            let element = retyped(element, &values);
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            let list = ListArray::try_new(Arc::new(element), offsets, values, nulls);
            Arc::new(list.map_err(unexpected)?)
        }
        DataType::Map(entries, _) => Arc::new(of_map(array.as_map(), entries)?),
        other => {
            return Err(Error::internal(format!(
                "values of {other} are not compared: no column has that type"
            )));
        }
    })
}

fn is_canonical(of: &DataType) -> bool {
    match of {
        DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Map(..) => false,
        DataType::Struct(fields) => fields.iter().all(|field| is_canonical(field.data_type())),
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::FixedSizeList(element, _) => is_canonical(element.data_type()),
        _ => true,
    }
}

fn of_struct(array: &StructArray) -> Result<StructArray> {
    let columns = array.columns().iter().map(canonical);
    let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
    let fields: Fields = array
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, values)| retyped(field, values))
        .collect();
    StructArray::try_new(fields, columns, array.nulls().cloned()).map_err(unexpected)
}

fn of_map(map: &MapArray, entries: &Field) -> Result<ListArray> {
    let keys = canonical(map.keys())?;
    let compare = make_comparator(&keys, &keys, SortOptions::default()).map_err(unexpected)?;
    let mut order: Vec<u64> = Vec::with_capacity(keys.len());
    let mut lengths = Vec::with_capacity(map.len());
    let offsets = map.value_offsets();
    for (row, ends) in offsets.windows(2).enumerate() {
        let before = order.len();
        // What lies behind a NULL is no entry.
        if let ([from, to], true) = (ends, map.is_valid(row)) {
            order.extend(u64::from(from.unsigned_abs())..u64::from(to.unsigned_abs()));
            if let Some(own) = order.get_mut(before..) {
                own.sort_by(|a, b| compare(*a as usize, *b as usize));
            }
        }
        lengths.push(order.len() - before);
    }
    let sorted = take(map.entries(), &UInt64Array::from(order), None).map_err(unexpected)?;
    let sorted: ArrayRef = Arc::new(of_struct(sorted.as_struct())?);
    let element = Arc::new(retyped(entries, &sorted));
    let offsets = OffsetBuffer::from_lengths(lengths);
    ListArray::try_new(element, offsets, sorted, map.nulls().cloned()).map_err(unexpected)
}

fn retyped(field: &Field, values: &ArrayRef) -> Field {
    field.clone().with_data_type(values.data_type().clone())
}

fn unexpected(error: ArrowError) -> Error {
    Error::internal(format!("values of a journal: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Float64Array, Int32Array, Int32Builder, ListBuilder, MapBuilder, StringBuilder,
        StringViewArray,
    };

    use super::*;

    fn differing(a: ArrayRef, b: ArrayRef) -> Vec<bool> {
        differ(&a, &b).unwrap().iter().collect()
    }

    #[test]
    fn null_differs_from_values_only() {
        let a = StringViewArray::from(vec![None, Some("a"), None, Some("a"), Some("a")]);
        let b = StringViewArray::from(vec![None, None, Some("a"), Some("a"), Some("b")]);
        assert_eq!(
            differing(Arc::new(a), Arc::new(b)),
            [false, true, true, false, true]
        );
    }

    #[test]
    fn every_nan_is_one_and_so_is_zero() {
        let odd = f64::from_bits(f64::NAN.to_bits() | 1);
        let a = Float64Array::from(vec![f64::NAN, -0.0, 1.0, f64::NAN]);
        let b = Float64Array::from(vec![-odd, 0.0, 1.5, 0.0]);
        assert_eq!(
            differing(Arc::new(a), Arc::new(b)),
            [false, false, true, true]
        );
    }

    #[test]
    fn lists_are_compared_in_depth_and_in_order() {
        let lists = |rows: &[Option<&[Option<i32>]>]| -> ArrayRef {
            let mut lists = ListBuilder::new(Int32Builder::new());
            for row in rows {
                match row {
                    Some(values) => {
                        values
                            .iter()
                            .for_each(|value| lists.values().append_option(*value));
                        lists.append(true);
                    }
                    None => lists.append(false),
                }
            }
            Arc::new(lists.finish())
        };
        let a = lists(&[Some(&[Some(1), None]), Some(&[]), None, Some(&[Some(1)])]);
        let b = lists(&[Some(&[Some(1), None]), None, None, Some(&[Some(2)])]);
        assert_eq!(differing(a, b), [false, true, false, true]);
    }

    #[test]
    fn entries_of_maps_have_no_order() {
        let map = |rows: &[Option<&[(&str, i32)]>]| -> ArrayRef {
            let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
            for row in rows {
                for (key, value) in row.iter().copied().flatten() {
                    map.keys().append_value(key);
                    map.values().append_value(*value);
                }
                map.append(row.is_some()).unwrap();
            }
            Arc::new(map.finish())
        };
        let a = map(&[
            Some(&[("a", 1), ("b", 2)]),
            Some(&[]),
            Some(&[("a", 1)]),
            None,
        ]);
        let b = map(&[Some(&[("b", 2), ("a", 1)]), None, Some(&[("a", 2)]), None]);
        assert_eq!(differing(a, b), [false, true, true, false]);
    }

    #[test]
    fn a_row_differs_when_one_of_the_columns_does() {
        let batch = |x: Vec<i32>, y: Vec<i32>| {
            let (x, y): (ArrayRef, ArrayRef) =
                (Arc::new(Int32Array::from(x)), Arc::new(Int32Array::from(y)));
            RecordBatch::try_from_iter([("x", x), ("y", y)]).unwrap()
        };
        let (a, b) = (
            batch(vec![1, 1, 1], vec![1, 1, 1]),
            batch(vec![1, 2, 1], vec![1, 1, 2]),
        );
        let bits = |columns: &[usize]| -> Vec<bool> {
            distinct(&a, &b, columns).unwrap().iter().collect()
        };
        assert_eq!(bits(&[0, 1]), [false, true, true]);
        assert_eq!(bits(&[0]), [false, true, false]);
        assert_eq!(bits(&[]), [false, false, false]);
    }
}

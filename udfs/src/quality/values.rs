//! From the values of a batch to one key for each row. Equal values have equal keys: 0.0 and -0.0 are one value, and
//! so are all NaN.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayData, ArrayRef, AsArray, make_array};
use datafusion::arrow::buffer::{Buffer, NullBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, IntervalUnit};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, internal_err};

use super::key::{Key, joined};

/// Bits that hold a value of the type as it is; none for those that have no such size. Intervals of several parts
/// are not laid out as one number.
pub(super) fn bits(data_type: &DataType) -> Option<u32> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano)
        | DataType::Decimal256(..) => None,
        DataType::Dictionary(_, values) => bits(values),
        DataType::RunEndEncoded(_, values) => bits(values.data_type()),
        other => other.primitive_width().map(|bytes| 8 * bytes as u32),
    }
}

/// The values themselves, out of an encoding that shares them.
pub(super) fn plain(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Dictionary(_, values) => cast(array, values)?,
        DataType::RunEndEncoded(_, values) => cast(array, values.data_type())?,
        _ => Arc::clone(array),
    })
}

/// Rows in which some value is NULL.
pub(super) fn nulls(arrays: &[ArrayRef]) -> Option<NullBuffer> {
    let nulls = arrays.iter().map(Array::logical_nulls);
    nulls.fold(None, |all, nulls| {
        NullBuffer::union(all.as_ref(), nulls.as_ref())
    })
}

/// The values of a row one behind the other: for types that [`bits`] knows, and a key that is wide enough. Rows with
/// NULL get any key.
pub(super) fn packed<K: Key>(arrays: &[ArrayRef]) -> Result<Vec<K>> {
    let rows = arrays.first().map_or(0, |array| array.len());
    let mut keys = vec![K::default(); rows];
    for array in arrays {
        let (data_type, data) = (array.data_type(), array.to_data());
        match (data_type, bits(data_type)) {
            (DataType::Boolean, _) => append(&mut keys, 1, array.as_boolean().values().iter()),
            (DataType::Float16, _) => append(&mut keys, 16, halves(data.buffer(0))),
            (DataType::Float32, _) => append(&mut keys, 32, singles(data.buffer(0))),
            (DataType::Float64, _) => append(&mut keys, 64, doubles(data.buffer(0))),
            (_, Some(8)) => append(&mut keys, 8, data.buffer::<u8>(0).iter().copied()),
            (_, Some(16)) => append(&mut keys, 16, data.buffer::<u16>(0).iter().copied()),
            (_, Some(32)) => append(&mut keys, 32, data.buffer::<u32>(0).iter().copied()),
            (_, Some(64)) => append(&mut keys, 64, data.buffer::<u64>(0).iter().copied()),
            (_, Some(128)) => append(&mut keys, 128, data.buffer::<u128>(0).iter().copied()),
            (other, _) => return internal_err!("values of type {other} have no fixed size"),
        }
    }
    for key in &mut keys {
        *key = key.mixed();
    }
    Ok(keys)
}

fn append<K: Key>(keys: &mut [K], bits: u32, values: impl Iterator<Item = impl Into<u128>>) {
    for (key, value) in keys.iter_mut().zip(values) {
        *key = key.append(bits, value.into());
    }
}

/// 128 bits of SipHash of the values of a row. The odds that any two of n different rows share theirs are n² / 2^129:
/// one in 10^21 for a thousand million rows.
pub(super) fn hashed(arrays: &[ArrayRef]) -> Result<Vec<u128>> {
    if let [array] = arrays
        && let Some(keys) = hashed_in_place(array)
    {
        return Ok(keys);
    }
    let arrays: Vec<ArrayRef> = arrays.iter().map(normal).collect::<Result<_>>()?;
    let fields = arrays.iter().map(|array| array.data_type().clone());
    let fields: Vec<SortField> = fields.map(SortField::new).collect();
    let rows = RowConverter::new(fields)?.convert_columns(&arrays)?;
    Ok(rows.iter().map(|row| hash(Some(row.data()))).collect())
}

/// Text and bytes need no copy in rows.
fn hashed_in_place(array: &ArrayRef) -> Option<Vec<u128>> {
    Some(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(hash).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(hash).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(hash).collect(),
        DataType::Binary => array.as_binary::<i32>().iter().map(hash).collect(),
        DataType::LargeBinary => array.as_binary::<i64>().iter().map(hash).collect(),
        DataType::BinaryView => array.as_binary_view().iter().map(hash).collect(),
        _ => return None,
    })
}

fn hash<B: AsRef<[u8]> + ?Sized>(value: Option<&B>) -> u128 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value.map(AsRef::as_ref).unwrap_or_default());
    let high = hasher.finish();
    // Its state is wider than what it answers: one more byte brings out another 64 bits.
    hasher.write_u8(0xff);
    joined(high, hasher.finish())
}

/// Floats at any depth written as one pattern of bits for each value. Rows compare bits.
fn normal(array: &ArrayRef) -> Result<ArrayRef> {
    if array.data_type().is_nested() || array.data_type().is_floating() {
        return Ok(make_array(normal_data(array.to_data())?));
    }
    Ok(Arc::clone(array))
}

fn normal_data(data: ArrayData) -> Result<ArrayData> {
    let buffers = match (data.data_type(), data.buffers()) {
        (DataType::Float16, [values]) => {
            let values = halves(values.typed_data());
            vec![Buffer::from_vec(values.collect::<Vec<_>>())]
        }
        (DataType::Float32, [values]) => {
            let values = singles(values.typed_data());
            vec![Buffer::from_vec(values.collect::<Vec<_>>())]
        }
        (DataType::Float64, [values]) => {
            let values = doubles(values.typed_data());
            vec![Buffer::from_vec(values.collect::<Vec<_>>())]
        }
        (_, buffers) => buffers.to_vec(),
    };
    let children = data.child_data().iter().cloned();
    let children = children.map(normal_data).collect::<Result<Vec<_>>>()?;
    let builder = data.into_builder().buffers(buffers);
    Ok(builder.child_data(children).build()?)
}

fn halves(bits: &[u16]) -> impl Iterator<Item = u16> {
    bits.iter().map(|bits| match bits & 0x7fff {
        0 => 0,
        size if size > 0x7c00 => 0x7e00,
        _ => *bits,
    })
}

fn singles(bits: &[u32]) -> impl Iterator<Item = u32> {
    bits.iter().map(|bits| match f32::from_bits(*bits) {
        0.0 => 0,
        value if value.is_nan() => f32::NAN.to_bits(),
        _ => *bits,
    })
}

fn doubles(bits: &[u64]) -> impl Iterator<Item = u64> {
    bits.iter().map(|bits| match f64::from_bits(*bits) {
        0.0 => 0,
        value if value.is_nan() => f64::NAN.to_bits(),
        _ => *bits,
    })
}

//! A set of keys, filled by many at once and then asked by many.
//!
//! A key whose values fit into 128 bits is kept as these bits, so the answers are exact; 64 bits where that is
//! enough. Any other is kept as 128 bits of a hash. The odds that a value which is no key is taken for one of n keys
//! are n / 2^128: with a thousand million keys and as many questions, one in 10^20. The hash has a secret made anew
//! for each set, so nobody can choose values that share theirs.
//!
//! A key takes its bytes and one more, over the share of a hash table that is filled (between 7/16 and 7/8).

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::{BitOr, Shl};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, IntervalUnit};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use datafusion::common::HashSet;
use datafusion::execution::memory_pool::MemoryReservation;
use parking_lot::RwLock;

use crate::error::{Error, ErrorKind, Result};

/// Tables a set is split into. A table that grows is there twice for a while: many small ones keep that small, and
/// let many workers add at once.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 6;
/// At least what the smallest table takes.
const FIRST_BYTES: usize = 128;
/// 2^64 over the golden ratio, odd: a product with it carries every bit of a word into the highest ones.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Digits of a decimal that fit into 64 bits whatever they are.
const WORD_DIGITS: u8 = 18;

/// The keys, ready to be asked. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The types in which keys are kept.
    types: Vec<DataType>,
    known: Known,
    /// What the tables of `known` take, to the byte. Held as long as they are.
    memory: MemoryReservation,
}

#[derive(Debug)]
enum Known {
    /// Values of 64 bits together, as they are.
    Word(Shards<u64>),
    /// Values of 128 bits together, as they are.
    Words(Shards<u128>),
    Hashed(Shards<u128>, Hashing),
}

type Shards<K> = Vec<RwLock<HashSet<K>>>;

#[derive(Debug)]
struct Hashing {
    converter: RowConverter,
    secret: RandomState,
}

/// What stands for the values of one row.
trait Key: Copy + Eq + Hash {
    /// A word that differs between most keys.
    fn word(self) -> u64;

    /// The table it belongs to. Tables hash it again with their own seed, so that neighbours here are none there.
    fn shard(self) -> usize {
        (self.word().wrapping_mul(SPREAD) >> (u64::BITS - SHARD_BITS)) as usize
    }
}

impl Key for u64 {
    fn word(self) -> u64 {
        self
    }
}

impl Key for u128 {
    fn word(self) -> u64 {
        // The halves may be equal in every key.
        ((self >> 64) as u64).wrapping_mul(SPREAD) ^ self as u64
    }
}

impl Keys {
    /// An empty set of keys that are compared as `types`.
    pub(super) fn new(types: &[DataType], memory: MemoryReservation) -> Result<Self> {
        let types: Vec<DataType> = types.iter().map(kept).collect();
        let known = match types.iter().map(bits).sum::<Option<u32>>() {
            Some(..=64) => Known::Word(shards()),
            Some(..=128) => Known::Words(shards()),
            _ => Known::Hashed(shards(), Hashing::new(&types)?),
        };
        Ok(Self(Arc::new(Inner {
            types,
            known,
            memory,
        })))
    }

    /// Adds the rows of `columns`, except those with a NULL, which are equal to nothing.
    ///
    /// # Errors
    /// When they are more than memory allows.
    pub(super) fn add(&self, columns: &[ArrayRef]) -> Result<()> {
        let Inner { known, memory, .. } = &*self.0;
        let values = self.values(columns)?;
        let nulls = nulls(&values);
        let nulls = nulls.as_ref();
        match known {
            Known::Word(shards) => add(shards, &packed(&values)?, nulls, memory),
            Known::Words(shards) => add(shards, &packed(&values)?, nulls, memory),
            Known::Hashed(shards, hashing) => add(shards, &hashing.keys(&values)?, nulls, memory),
        }
    }

    /// Which rows of `columns` are among the keys; unknown where one of the values is NULL.
    pub(super) fn find(&self, columns: &[ArrayRef]) -> Result<BooleanArray> {
        let values = self.values(columns)?;
        let mut found = match &self.0.known {
            Known::Word(shards) => find(shards, &packed(&values)?),
            Known::Words(shards) => find(shards, &packed(&values)?),
            Known::Hashed(shards, hashing) => find(shards, &hashing.keys(&values)?),
        };
        if let Some(fit) = nulls(&values) {
            found = &found & fit.inner();
        }
        Ok(BooleanArray::new(found, nulls(columns)))
    }

    /// `columns` in the types of the keys. A value that does not fit is NULL: it equals none of the other side.
    fn values(&self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let options = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        let columns = columns.iter().zip(&self.0.types);
        let values =
            columns.map(|(column, to)| cast_with_options(column, to, &options).map(normal));
        values.collect::<Result<_, ArrowError>>().map_err(broken)
    }
}

fn broken(error: ArrowError) -> Error {
    Error::internal(error.to_string()).with_source(error)
}

/// The type in which values of another are kept: out of an encoding that shares them, and as small as is exact.
fn kept(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => kept(values),
        DataType::RunEndEncoded(_, values) => kept(values.data_type()),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal128(digits @ ..=WORD_DIGITS, scale) => {
            DataType::Decimal64(*digits, *scale)
        }
        other => other.clone(),
    }
}

/// Bits that hold a value of the type as it is, where that is one word. Intervals of several parts are not laid out
/// as one number.
fn bits(data_type: &DataType) -> Option<u32> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::Interval(IntervalUnit::DayTime) => None,
        other => match other.primitive_width()? {
            bytes @ ..=8 => Some(8 * bytes as u32),
            _ => None,
        },
    }
}

/// Floats with one pattern of bits for each value: 0.0 and -0.0 are one, and so are all NaN.
fn normal(values: ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>();
            Arc::new(
                values.unary::<_, Float32Type>(|value| match value.is_nan() {
                    true => f32::NAN,
                    false => value + 0.0,
                }),
            )
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            Arc::new(
                values.unary::<_, Float64Type>(|value| match value.is_nan() {
                    true => f64::NAN,
                    false => value + 0.0,
                }),
            )
        }
        _ => values,
    }
}

/// Rows in which some value is NULL.
fn nulls(columns: &[ArrayRef]) -> Option<NullBuffer> {
    let nulls = columns.iter().map(Array::logical_nulls);
    nulls.fold(None, |all, nulls| {
        NullBuffer::union(all.as_ref(), nulls.as_ref())
    })
}

/// The values of each row one behind the other, for types that [`bits`] knows and keys that are wide enough. Rows
/// with NULL get any key.
fn packed<K>(columns: &[ArrayRef]) -> Result<Vec<K>>
where
    K: Copy + From<u64> + Shl<u32, Output = K> + BitOr<Output = K>,
{
    let Some((first, rest)) = columns.split_first() else {
        return Err(Error::internal("a key without columns"));
    };
    let mut keys: Vec<K> = words(first)?.1.into_iter().map(K::from).collect();
    for column in rest {
        let (bits, words) = words(column)?;
        for (key, word) in keys.iter_mut().zip(words) {
            *key = (*key << bits) | K::from(word);
        }
    }
    Ok(keys)
}

/// The bits of each value, and how many they are.
fn words(column: &ArrayRef) -> Result<(u32, Vec<u64>)> {
    let (data, rows) = (column.to_data(), column.len());
    let (data_type, bits) = (column.data_type(), bits(column.data_type()));
    let words = match bits {
        Some(1) => column.as_boolean().values().iter().map(u64::from).collect(),
        Some(8) => widened(&data.buffer::<u8>(0)[..rows]),
        Some(16) => widened(&data.buffer::<u16>(0)[..rows]),
        Some(32) => widened(&data.buffer::<u32>(0)[..rows]),
        Some(64) => data.buffer::<u64>(0)[..rows].to_vec(),
        _ => {
            let message = format!("values of type {data_type} do not fit into a word");
            return Err(Error::internal(message));
        }
    };
    Ok((bits.unwrap_or_default(), words))
}

fn widened<T: Copy + Into<u64>>(values: &[T]) -> Vec<u64> {
    values.iter().map(|value| (*value).into()).collect()
}

impl Hashing {
    fn new(types: &[DataType]) -> Result<Self> {
        let fields = types.iter().cloned().map(SortField::new);
        Ok(Self {
            converter: RowConverter::new(fields.collect()).map_err(broken)?,
            secret: RandomState::new(),
        })
    }

    fn keys(&self, columns: &[ArrayRef]) -> Result<Vec<u128>> {
        // Text and bytes need no copy in rows.
        if let [column] = columns {
            match column.data_type() {
                DataType::Utf8 => return Ok(self.each(column.as_string::<i32>().iter())),
                DataType::LargeUtf8 => return Ok(self.each(column.as_string::<i64>().iter())),
                DataType::Utf8View => return Ok(self.each(column.as_string_view().iter())),
                DataType::Binary => return Ok(self.each(column.as_binary::<i32>().iter())),
                DataType::LargeBinary => return Ok(self.each(column.as_binary::<i64>().iter())),
                DataType::BinaryView => return Ok(self.each(column.as_binary_view().iter())),
                _ => {}
            }
        }
        let rows = self.converter.convert_columns(columns).map_err(broken)?;
        Ok(rows.iter().map(|row| self.hash(row.data())).collect())
    }

    fn each<'a, B: AsRef<[u8]> + ?Sized + 'a>(
        &self,
        values: impl Iterator<Item = Option<&'a B>>,
    ) -> Vec<u128> {
        values
            .map(|value| self.hash(value.map(B::as_ref).unwrap_or_default()))
            .collect()
    }

    /// SipHash, which is made to be as good as chance for those who do not know the secret.
    fn hash(&self, bytes: &[u8]) -> u128 {
        let mut hasher = self.secret.build_hasher();
        hasher.write(bytes);
        let high = hasher.finish();
        // Its state is wider than what it answers: one more byte brings out another 64 bits.
        hasher.write_u8(0xff);
        (u128::from(high) << 64) | u128::from(hasher.finish())
    }
}

fn shards<K>() -> Shards<K> {
    std::iter::repeat_with(RwLock::default)
        .take(SHARDS)
        .collect()
}

fn add<K: Key>(
    shards: &Shards<K>,
    keys: &[K],
    nulls: Option<&NullBuffer>,
    memory: &MemoryReservation,
) -> Result<()> {
    // Sorted out first: a table is locked once for a batch, and stays in the cache for all keys that go there.
    let mut parts = vec![Vec::new(); SHARDS];
    match nulls {
        Some(nulls) => {
            let keys = nulls.valid_indices().map(|row| keys[row]);
            keys.for_each(|key| parts[key.shard()].push(key));
        }
        None => keys.iter().for_each(|key| parts[key.shard()].push(*key)),
    }
    for (part, shard) in parts.into_iter().zip(shards) {
        let mut known = shard.write();
        for key in part {
            if known.len() == known.capacity() {
                // A full table would grow before it finds that it has the key.
                if known.contains(&key) {
                    continue;
                }
                grow(&mut known, memory)?;
            }
            known.insert(key);
        }
    }
    Ok(())
}

/// Makes room for more keys in a table that is full, when memory allows it.
fn grow<K: Key>(known: &mut HashSet<K>, memory: &MemoryReservation) -> Result<()> {
    let held = known.allocation_size();
    let wanted = (2 * held).max(FIRST_BYTES);
    let bytes = memory.size() + wanted;
    let full = |source: Error| {
        let message = format!("{bytes} bytes do not fit into memory");
        Error::new(ErrorKind::Exhausted, message)
            .with_detail(source.message())
            .with_source(source)
    };
    // Both tables are there while the keys move.
    memory
        .try_grow(wanted)
        .map_err(|error| full(Error::from(error)))?;
    if known.try_reserve(1).is_err() {
        let message = format!("the system has no {wanted} bytes for a table");
        return Err(full(Error::new(ErrorKind::Exhausted, message)));
    }
    let (reserved, taken) = (held + wanted, known.allocation_size());
    match taken.checked_sub(reserved) {
        Some(more) => memory
            .try_grow(more)
            .map_err(|error| full(Error::from(error))),
        None => {
            memory.shrink(reserved - taken);
            Ok(())
        }
    }
}

fn find<K: Key>(shards: &Shards<K>, keys: &[K]) -> BooleanBuffer {
    // Nobody adds any more, so these wait for nothing; and they are taken once for all rows.
    let shards: Vec<_> = shards.iter().map(|shard| shard.read()).collect();
    BooleanBuffer::collect_bool(keys.len(), |row| {
        let key = keys[row];
        shards[key.shard()].contains(&key)
    })
}

#[cfg(test)]
mod tests;

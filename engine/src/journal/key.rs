//! Keys of a journal: their order, their hashes, how messages show them.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};

use super::event::DELETE;
use super::shape::Shape;
use crate::error::{Error, Result};
use crate::shown::shown_of;

/// Hashes are only compared with others of the same process, but of every part of it.
const SEED: u64 = 0x6a6f_7572_6e61_6c21;

const ASCENDING: SortOptions = SortOptions {
    descending: false,
    nulls_first: false,
};
const DESCENDING: SortOptions = SortOptions {
    descending: true,
    nulls_first: false,
};

/// Tells the order of keys: ascending, NULL last, as [`ordering`] sorts them.
pub(crate) struct KeyOrder {
    converter: RowConverter,
    keys: Vec<usize>,
}

impl KeyOrder {
    pub(crate) fn new(shape: &Shape) -> Result<Self> {
        let fields = shape.keys.iter().map(|at| {
            let field = shape.declared.field(*at);
            SortField::new_with_options(field.data_type().clone(), ASCENDING)
        });
        Ok(Self {
            converter: RowConverter::new(fields.collect()).map_err(unexpected)?,
            keys: shape.keys.clone(),
        })
    }

    /// The keys of rows that begin with the declared columns, ready to be compared. Rows of all batches that one
    /// order made compare with each other.
    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<Rows> {
        let columns = self.keys.iter().map(|at| Arc::clone(batch.column(*at)));
        let columns: Vec<ArrayRef> = columns.collect();
        self.converter.convert_columns(&columns).map_err(unexpected)
    }
}

/// The order of rows of `schema` by their keys, then by the columns `then`: ascending, but for [`DELETE`], so that of
/// events at one instant those that end a key come first.
pub(crate) fn ordering(shape: &Shape, schema: &SchemaRef, then: &[&str]) -> Result<LexOrdering> {
    let mut order = Vec::with_capacity(shape.keys.len() + then.len());
    for name in shape.key_names().chain(then.iter().copied()) {
        let at = schema.index_of(name).map_err(unexpected)?;
        let options = match name {
            DELETE => DESCENDING,
            _ => ASCENDING,
        };
        order.push(PhysicalSortExpr::new(
            Arc::new(Column::new(name, at)),
            options,
        ));
    }
    LexOrdering::new(order)
        .ok_or_else(|| Error::internal(format!("the journal {} has no keys", shape.table)))
}

/// A hash of each key of rows that begin with the declared columns. `out` holds just these afterwards.
pub(crate) fn hashes(shape: &Shape, batch: &RecordBatch, out: &mut Vec<u64>) -> Result<()> {
    let mut columns = Vec::with_capacity(shape.keys.len());
    for at in &shape.keys {
        let column = batch.column(*at);
        // A text in a view is hashed otherwise than the same text in an array.
        columns.push(match column.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => {
                cast(column, &DataType::Utf8View).map_err(unexpected)?
            }
            DataType::Binary | DataType::LargeBinary => {
                cast(column, &DataType::BinaryView).map_err(unexpected)?
            }
            _ => Arc::clone(column),
        });
    }
    out.clear();
    out.resize(batch.num_rows(), 0);
    create_hashes(&columns, &RandomState::with_seed(SEED), out)?;
    Ok(())
}

/// The key of a row that begins with the declared columns, for messages.
pub(crate) fn shown(shape: &Shape, batch: &RecordBatch, row: usize) -> Result<String> {
    if row >= batch.num_rows() {
        return Err(Error::internal(format!(
            "row {row} of {} was to be shown",
            batch.num_rows()
        )));
    }
    let parts = shape.keys.iter().map(|at| {
        let field = shape.declared.field(*at);
        let value = shown_of(field, batch.column(*at), &[row]);
        let value = value.first().map_or("?", String::as_str);
        format!("{} = {value}", field.name())
    });
    Ok(parts.collect::<Vec<_>>().join(", "))
}

/// Keys of a write as hashes of 64 bits: who asks gets yes for each of them, and by chance for one of 2^64 / n others.
#[derive(Debug, Default, Clone)]
pub(crate) struct KeySet {
    hashes: HashSet<u64, BuildHasherDefault<Same>>,
    bits: Option<Bits>,
}

impl KeySet {
    pub(crate) fn add(&mut self, hash: u64) {
        if !self.hashes.insert(hash) {
            return;
        }
        let keys = self.hashes.len();
        if keys > Bits::MOST_KEYS {
            self.bits = None;
        } else if let Some(bits) = &mut self.bits {
            bits.set(hash);
        } else if keys == Bits::LEAST_KEYS {
            let mut bits = Bits::default();
            self.hashes.iter().for_each(|hash| bits.set(*hash));
            self.bits = Some(bits);
        }
    }

    pub(crate) fn has(&self, hash: u64) -> bool {
        self.bits.as_ref().is_none_or(|bits| bits.may_have(hash)) && self.hashes.contains(&hash)
    }

    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// What it takes of memory.
    pub(crate) fn bytes(&self) -> usize {
        // A place for each key and a byte beside it; seven of eight places may be taken, and there is a power of two.
        let hashes = match self.hashes.capacity() {
            0 => 0,
            keys => (keys * 8 / 7 + 1).next_power_of_two() * (size_of::<u64>() + 1),
        };
        hashes + self.bits.as_ref().map_or(0, |_| Bits::BYTES)
    }
}

/// A bit for all hashes with the same first bits: a small write in a large table asks for millions of keys that it has
/// not, and this table fits into a cache where that of the hashes does not.
#[derive(Debug, Clone)]
struct Bits(Vec<u64>);

impl Bits {
    /// 2^15 words of 2^6 bits.
    const WORDS: usize = 1 << 15;
    const BYTES: usize = Self::WORDS * size_of::<u64>();
    /// So few hashes fit into a cache themselves.
    const LEAST_KEYS: usize = 4 << 10;
    /// With more, too many bits are set to tell anything.
    const MOST_KEYS: usize = 1 << 20;

    /// The word and the bit of a hash.
    fn place(hash: u64) -> (usize, u64) {
        let bit = hash >> 43;
        ((bit >> 6) as usize, 1 << (bit & 63))
    }

    fn set(&mut self, hash: u64) {
        let (word, bit) = Self::place(hash);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn may_have(&self, hash: u64) -> bool {
        let (word, bit) = Self::place(hash);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl Default for Bits {
    fn default() -> Self {
        Self(vec![0; Self::WORDS])
    }
}

/// What is hashed already is not hashed again.
#[derive(Debug, Default, Clone, Copy)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

fn unexpected(error: ArrowError) -> Error {
    Error::internal(format!("keys of a journal: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::{Field, Schema};

    use super::super::definition::Definition;
    use super::*;

    fn shape() -> Shape {
        let definition = Definition::plain(&["name", "k"], None);
        let declared: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, false),
            Field::new("name", DataType::Utf8View, false),
        ]));
        let stored = Shape::with_period(&declared, &definition.columns).unwrap();
        Shape::new("s.t", definition, &stored).unwrap()
    }

    fn batch(k: Vec<i64>, name: ArrayRef) -> RecordBatch {
        let k: ArrayRef = Arc::new(Int64Array::from(k));
        RecordBatch::try_from_iter([("k", k), ("name", name)]).unwrap()
    }

    #[test]
    fn a_key_has_one_hash_however_it_is_laid_out() {
        let shape = shape();
        let names = ["a", "a text that is longer than a view", "b"];
        let views = batch(
            vec![1, 2, 3],
            Arc::new(StringViewArray::from_iter_values(names)),
        );
        let texts = batch(
            vec![1, 2, 3],
            Arc::new(StringArray::from_iter_values(names)),
        );
        let (mut a, mut b) = (vec![9; 7], Vec::new());
        hashes(&shape, &views, &mut a).unwrap();
        hashes(&shape, &texts, &mut b).unwrap();
        assert_eq!(a, b);
        let mut keys = KeySet::default();
        keys.add(a[0]);
        keys.add(a[0]);
        assert_eq!(keys.len(), 1);
        assert!(keys.has(b[0]) && !keys.has(b[1]));
    }

    #[test]
    fn a_set_has_just_what_was_added_however_many_they_are() {
        // Odd, so that the product takes each value once, and spread over all bits as hashes are.
        let hash = |key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (least, most) = (Bits::LEAST_KEYS as u64, Bits::MOST_KEYS as u64);
        let mut keys = KeySet::default();
        assert_eq!(keys.bytes(), 0);
        let mut count = 0;
        for until in [1, least - 1, least, 3 * least, most, most + 1, most + least] {
            while count < until {
                keys.add(hash(count));
                count += 1;
            }
            // Once more is no other key.
            keys.add(hash(0));
            assert_eq!(keys.len() as u64, until);
            assert_eq!(keys.bits.is_some(), (least..=most).contains(&until));
            assert!((0..until).all(|key| keys.has(hash(key))), "of {until}");
            let mut others = 2 * most..2 * most + 50_000;
            assert!(!others.any(|key| keys.has(hash(key))), "of {until}");
            assert!(keys.bytes() as u64 >= 9 * until);
        }
        assert!(keys.clone().has(hash(7)));
        // Bits that two hashes share do not make them one.
        let mut keys = KeySet::default();
        (0..least).for_each(|key| keys.add(key << 20));
        assert!(keys.bits.is_some() && keys.has(5 << 20) && !keys.has((5 << 20) + 1));
    }

    #[test]
    fn keys_are_in_the_order_of_the_definition() {
        let shape = shape();
        let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(["x", "y", "x"]));
        let rows = batch(vec![2, 1, 1], names);
        let order = KeyOrder::new(&shape).unwrap().rows(&rows).unwrap();
        assert!(order.row(0) < order.row(1) && order.row(2) < order.row(0));
        let order = ordering(&shape, &rows.schema(), &["k"]).unwrap();
        assert_eq!(
            order.to_string(),
            "name@1 ASC NULLS LAST, k@0 ASC NULLS LAST"
        );
        assert_eq!(shown(&shape, &rows, 1).unwrap(), "name = 'y', k = 1");
        assert!(shown(&shape, &rows, 3).is_err());
    }
}

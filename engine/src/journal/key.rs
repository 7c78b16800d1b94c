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
pub(crate) struct KeySet(HashSet<u64, BuildHasherDefault<Same>>);

impl KeySet {
    pub(crate) fn add(&mut self, hash: u64) {
        self.0.insert(hash);
    }

    pub(crate) fn has(&self, hash: u64) -> bool {
        self.0.contains(&hash)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What it takes of memory.
    pub(crate) fn bytes(&self) -> usize {
        // A place for each key and a byte beside it; seven of eight places may be taken, and there is a power of two.
        match self.0.capacity() {
            0 => 0,
            keys => (keys * 8 / 7 + 1).next_power_of_two() * (size_of::<u64>() + 1),
        }
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

    use super::super::definition::{Definition, IgnoreNulls, Late, OpenEnd, PeriodColumns, Track};
    use super::*;

    fn shape() -> Shape {
        let definition = Definition {
            keys: vec!["name".into(), "k".into()],
            sequence: None,
            delete_when: None,
            track: Track::All,
            ignore_nulls: IgnoreNulls::No,
            late: Late::default(),
            columns: PeriodColumns::named("selvedge").unwrap(),
            open_end: OpenEnd::Null,
        };
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

//! The keys whose rows a policy is about: a query over other tables of the lake, and the set of what it answered.
//!
//! A list of ten million keys takes 150 MB where a key is one integer, date, timestamp or boolean, which is kept as
//! its 64 bits, and 300 MB otherwise, whatever the keys look like: then 128 bits of two hashes are kept, with seeds
//! that are new for each load. Another key has the same bits with odds of 10^7 / 2^128, one in 10^31, so that of all
//! rows ever written none is taken for another. All of it is held against the memory of the engine.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef, TimeUnit};
use datafusion::common::hash_utils::{QualityRandomState, RandomState, create_hashes};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use futures::TryStreamExt;

use super::compile::{Owner, place};
use crate::error::{Error, Result};
use crate::shown::sql_name;
use crate::{expr, sql};

/// The most digits of a decimal.
const DIGITS: u8 = 38;

/// The query of a policy for its keys, planned.
#[derive(Debug, Clone)]
pub(crate) struct KeyQuery {
    /// What messages call the policy.
    label: String,
    columns: Vec<usize>,
    types: Vec<DataType>,
    plan: Arc<dyn ExecutionPlan>,
}

impl KeyQuery {
    /// Plans the query, and sees that what it answers compares with the columns. Nothing is read.
    pub(super) async fn compile(
        state: &SessionState,
        owner: Owner<'_>,
        names: &[String],
        query: &str,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let at = place(owner, schema, name)?;
            if columns.contains(&at) {
                return Err(owner.wrong(format!("column {name} is in its key twice")));
            }
            columns.push(at);
        }
        let plan = planned(state, owner, query).await?;
        let theirs = expr::columns(state, &plan);
        let answered: Vec<&str> = theirs.fields().iter().map(|f| f.name().as_str()).collect();
        if columns.is_empty() || answered.len() != columns.len() {
            return Err(owner.wrong(format!(
                "its key is ({}), but its query answers ({})",
                names.join(", "),
                answered.join(", ")
            )));
        }
        let mut types = Vec::with_capacity(columns.len());
        for (at, their) in columns.iter().zip(theirs.fields()) {
            let own = schema.field(*at);
            types.push(common(own.data_type(), their.data_type()).ok_or_else(|| {
                owner
                    .wrong(format!(
                        "key column {} is {}, which does not compare with {} of its query, a {}",
                        own.name(),
                        sql_name(own.data_type()),
                        their.name(),
                        sql_name(their.data_type())
                    ))
                    .with_hint(format!(
                        "CAST({} AS {}) in the query",
                        sql::quoted(their.name()),
                        sql_name(own.data_type())
                    ))
            })?);
        }
        let plan = Box::pin(state.create_physical_plan(&plan)).await;
        let plan = plan.map_err(|error| owner.failed(error))?;
        Ok(Self {
            label: owner.label.to_owned(),
            columns,
            types,
            plan,
        })
    }

    /// Positions of the key's columns in the table.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The types in which keys are compared, one a column.
    pub(crate) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The keys as the query answers them now, in the order of [`Self::columns`].
    pub(crate) fn read(&self, context: &Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        // A plan remembers that it ran.
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        Ok(execute_stream(plan, Arc::clone(context))?)
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// When they cannot be read, or are more than memory allows.
    pub(super) async fn load(&self, context: &Arc<TaskContext>) -> Result<Keys> {
        let consumer = MemoryConsumer::new(format!("Keys[{}]", self.label));
        let mut keys = Keys::none(&self.types, consumer.register(context.memory_pool()))?;
        let mut batches = self.read(context)?;
        while let Some(batch) = batches.try_next().await? {
            keys.insert(batch.columns())?;
        }
        Ok(keys)
    }
}

async fn planned(
    state: &SessionState,
    owner: Owner<'_>,
    query: &str,
) -> Result<datafusion::logical_expr::LogicalPlan> {
    let query = sql::parse_keys(query).map_err(|error| error.ending(&owner.to_string()))?;
    let statement = Statement::Statement(Box::new(ast::Statement::Query(query)));
    let plan = Box::pin(state.statement_to_plan(statement)).await;
    let plan = plan.and_then(expr::planned);
    let plan = plan.map_err(|error| owner.failed(error))?;
    let mut volatile = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            if expr.is_volatile() {
                volatile.get_or_insert_with(|| expr.to_string());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .map_err(|error| owner.failed(error))?;
    match volatile {
        // Who is to be forgotten would change from write to write.
        Some(expr) => Err(owner.wrong(format!("its query answers another list each time: {expr}"))),
        None => Ok(plan),
    }
}

/// The type in which values of both are equal exactly where they are the same value; None where there is no such.
/// Types that only look alike (a text of digits and a number) are not made to agree: what is erased, or is not, must
/// not hang on how a number is spelled.
fn common(own: &DataType, their: &DataType) -> Option<DataType> {
    use DataType::*;
    let texts = |of: &DataType| matches!(of, Utf8 | LargeUtf8 | Utf8View);
    let bytes = |of: &DataType| {
        matches!(
            of,
            Binary | LargeBinary | BinaryView | DataType::FixedSizeBinary(_)
        )
    };
    let dates = |of: &DataType| matches!(of, Date32 | Date64);
    Some(match (plain(own), plain(their)) {
        (Boolean, Boolean) => Boolean,
        (own, their) if own.is_integer() && their.is_integer() => Int64,
        (own, their) if own.is_floating() && their.is_floating() => Float64,
        (own, their) if texts(own) && texts(their) => Utf8View,
        (own, their) if bytes(own) && bytes(their) => BinaryView,
        (own, their) if dates(own) && dates(their) => Date32,
        (Timestamp(own, zone), Timestamp(their, other)) if zone.is_some() == other.is_some() => {
            let unit = match (own, their) {
                (TimeUnit::Nanosecond, _) | (_, TimeUnit::Nanosecond) => TimeUnit::Nanosecond,
                _ => TimeUnit::Microsecond,
            };
            Timestamp(unit, zone.clone())
        }
        (own, their) => {
            // With the longer scale nothing is rounded, and what then has too many digits has no equal.
            let scale = scale(own)?.max(scale(their)?);
            Decimal128(DIGITS, i8::try_from(scale).ok()?)
        }
    })
}

/// The type of the values.
fn plain(of: &DataType) -> &DataType {
    match of {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        other => other,
    }
}

/// Digits after the point of exact numbers, as many as a common decimal has room for.
fn scale(of: &DataType) -> Option<u8> {
    use DataType::*;
    let scale = match of {
        other if other.is_integer() => 0,
        Decimal32(_, scale) | Decimal64(_, scale) | Decimal128(_, scale) | Decimal256(_, scale) => {
            u8::try_from((*scale).max(0)).ok()?
        }
        _ => return None,
    };
    (scale <= DIGITS).then_some(scale)
}

/// A set of keys, ready to be asked.
#[derive(Debug)]
pub(crate) struct Keys {
    types: Vec<DataType>,
    known: Known,
    rows: u64,
    nulls: u64,
    unfit: u64,
    memory: MemoryReservation,
}

#[derive(Debug)]
enum Known {
    /// Keys of one column of at most 64 bits, themselves.
    Bits {
        set: HashSet<i64, RandomState>,
        least: i64,
        greatest: i64,
    },
    /// Two hashes of each other key.
    Hashes {
        set: HashSet<u128, RandomState>,
        seeds: [QualityRandomState; 2],
    },
}

impl Keys {
    fn none(types: &[DataType], memory: MemoryReservation) -> Result<Self> {
        use DataType::{Boolean, Date32, Int64, Timestamp};
        // Who knows the seeds could make keys that are taken for others.
        let random = std::hash::RandomState::new();
        let seed = |number: u8| random.hash_one(number);
        let hasher = RandomState::with_seed(seed(0));
        let known = match types {
            [Boolean | Date32 | Int64 | Timestamp(..)] => Known::Bits {
                set: HashSet::with_hasher(hasher),
                least: i64::MAX,
                greatest: i64::MIN,
            },
            _ => Known::Hashes {
                set: HashSet::with_hasher(hasher),
                seeds: [1, 2].map(|number| QualityRandomState::with_seed(seed(number))),
            },
        };
        Ok(Self {
            types: types.to_vec(),
            known,
            rows: 0,
            nulls: 0,
            unfit: 0,
            memory,
        })
    }

    /// Keys that are not NULL, each once.
    pub(crate) fn distinct(&self) -> u64 {
        match &self.known {
            Known::Bits { set, .. } => set.len() as u64,
            Known::Hashes { set, .. } => set.len() as u64,
        }
    }

    /// How often a key came that was known already.
    pub(crate) fn duplicates(&self) -> u64 {
        self.rows - self.nulls - self.unfit - self.distinct()
    }

    /// Keys without a value in some part: they match nothing.
    pub(crate) fn nulls(&self) -> u64 {
        self.nulls
    }

    /// Keys that no value of the table's columns can equal, as one with more digits than they have.
    pub(crate) fn unfit(&self) -> u64 {
        self.unfit
    }

    fn insert(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let (values, nulls) = self.common(columns)?;
        let rows = values.first().map_or(0, |values| values.len());
        self.rows += rows as u64;
        let missing = columns.iter().fold(None, |missing, column| {
            NullBuffer::union(missing.as_ref(), column.logical_nulls().as_ref())
        });
        let missing = missing.map_or(0, |missing| missing.null_count() as u64);
        self.nulls += missing;
        self.unfit += nulls.as_ref().map_or(0, |nulls| nulls.null_count() as u64) - missing;
        let valid = |row: &usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row));
        let rows = (0..rows).filter(valid);
        match &mut self.known {
            Known::Bits {
                set,
                least,
                greatest,
            } => {
                let bits = bits(&values)?;
                room(set, bits.len(), &self.memory)?;
                for row in rows {
                    let key = bits.value(row);
                    *least = key.min(*least);
                    *greatest = key.max(*greatest);
                    set.insert(key);
                }
            }
            Known::Hashes { set, seeds } => {
                let hashes = hashes(&values, seeds)?;
                room(set, hashes.len(), &self.memory)?;
                set.extend(rows.filter_map(|row| hashes.get(row)));
            }
        }
        Ok(())
    }

    /// Which rows of these columns, of types that compare with the key's, are listed. One with a NULL never is.
    pub(crate) fn ask(&self, columns: &[ArrayRef]) -> Result<BooleanBuffer> {
        let rows = columns.first().map_or(0, |column| column.len());
        if self.distinct() == 0 {
            return Ok(BooleanBuffer::new_unset(rows));
        }
        let (values, nulls) = self.common(columns)?;
        let listed = match &self.known {
            Known::Bits {
                set,
                least,
                greatest,
            } => {
                let bits = bits(&values)?;
                let bits = bits.values();
                let range = *least..=*greatest;
                BooleanBuffer::collect_bool(rows, |row| {
                    let key = &bits[row];
                    range.contains(key) && set.contains(key)
                })
            }
            Known::Hashes { set, seeds } => {
                let hashes = hashes(&values, seeds)?;
                BooleanBuffer::collect_bool(rows, |row| set.contains(&hashes[row]))
            }
        };
        Ok(match nulls {
            Some(nulls) => &listed & nulls.inner(),
            None => listed,
        })
    }

    /// The columns in the types in which keys are compared, and which rows lack a value in one of them.
    fn common(&self, columns: &[ArrayRef]) -> Result<(Vec<ArrayRef>, Option<NullBuffer>)> {
        // A value that does not fit the common type equals none of the other side.
        let safe = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        if columns.len() != self.types.len() {
            return Err(Error::internal(format!(
                "a key of {} columns was asked for {}",
                self.types.len(),
                columns.len()
            )));
        }
        let mut nulls = None;
        let mut common = Vec::with_capacity(columns.len());
        for (column, to) in columns.iter().zip(&self.types) {
            let mut values = match column.data_type() == to {
                true => Arc::clone(column),
                false => cast_with_options(column, to, &safe).map_err(unexpected)?,
            };
            if *to == DataType::Float64 {
                values = Arc::new(one_form(values.as_primitive::<Float64Type>()));
            }
            nulls = NullBuffer::union(nulls.as_ref(), values.logical_nulls().as_ref());
            common.push(values);
        }
        Ok((common, nulls))
    }
}

/// Makes room for more keys, and holds it against memory before it is taken.
fn room<T: Eq + Hash>(
    set: &mut HashSet<T, RandomState>,
    more: usize,
    memory: &MemoryReservation,
) -> Result<()> {
    // A place for each key and a byte beside it; seven of eight places may be taken, and there is a power of two.
    let bytes = |keys: usize| (keys * 8 / 7 + 1).next_power_of_two() * (size_of::<T>() + 1);
    let needed = set.len() + more;
    if needed > set.capacity() {
        let grown = needed.max(set.capacity() + 1);
        // While keys move, both places are there.
        memory.try_resize(bytes(set.capacity()) + bytes(grown))?;
        set.reserve(more);
        memory.try_resize(bytes(set.capacity()))?;
    }
    Ok(())
}

/// Keys of one column as 64 bits.
fn bits(values: &[ArrayRef]) -> Result<Int64Array> {
    let [values] = values else {
        return Err(Error::internal("a key of many columns is no single number"));
    };
    let options = CastOptions::default();
    let bits = cast_with_options(values, &DataType::Int64, &options).map_err(unexpected)?;
    Ok(bits.as_primitive::<Int64Type>().clone())
}

/// Keys as two hashes of 64 bits each.
fn hashes(values: &[ArrayRef], seeds: &[QualityRandomState; 2]) -> Result<Vec<u128>> {
    let rows = values.first().map_or(0, |values| values.len());
    let (mut high, mut low) = (vec![0_u64; rows], vec![0_u64; rows]);
    create_hashes(values, &seeds[0], &mut high)?;
    create_hashes(values, &seeds[1], &mut low)?;
    let both = high.iter().zip(&low);
    Ok(both
        .map(|(high, low)| u128::from(*high) << 64 | u128::from(*low))
        .collect())
}

/// All NaN alike, and zero without a sign.
fn one_form(values: &PrimitiveArray<Float64Type>) -> PrimitiveArray<Float64Type> {
    values.unary(|value| match value.is_nan() {
        true => f64::NAN,
        false => value + 0.0,
    })
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("keys of a cleanse policy: {error}")).with_source(error)
}

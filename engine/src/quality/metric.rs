//! Numbers about many rows: aggregates over the batches of a write, as states that can be merged.
//!
//! Each is a call of an aggregate function of SQL, over all rows of a write or, beside that, over the rows of each
//! partition of the table as it will be written. States, not values, are put together, so that any split of the
//! rows into batches and partitions of the plan gives the same number.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, make_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{and, filter, take};
use arrow::datatypes::{DataType, FieldRef, Float16Type, Float32Type, Float64Type, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Accumulator, Expr, cast};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::{
    AggregateFunctionExpr, LoweredAggregate, LoweredAggregateBuilder,
};
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::sql::sqlparser::ast;

use super::condition::{self, Owner};
use super::record::PartitionValues;
use crate::cleanse::mask::Masks;
use crate::error::{Error, Result};
use crate::expr;
use crate::table::schema::personal;

/// Functions that would take NaN for a number. Here they are over the numbers.
const OF_NUMBERS: [&str; 16] = [
    "min",
    "max",
    "sum",
    "avg",
    "mean",
    "median",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "var",
    "var_samp",
    "var_pop",
    "approx_median",
    "approx_percentile",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
];

/// Functions that estimate from a sketch.
const ESTIMATES: &str = "approx_";

/// Which rows of a write a metric is over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// All that are written.
    pub written: bool,
    /// All that came.
    pub input: bool,
    /// Those of each partition.
    pub partitions: bool,
}

/// One aggregate.
#[derive(Debug, Clone)]
pub(super) struct Metric {
    /// As SQL: the same text is the same metric.
    pub text: String,
    /// The column it is about, if it is one.
    pub column: Option<String>,
    pub exact: bool,
    /// Which rows it is asked of.
    pub asked: Asked,
    aggregate: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    numbers_only: bool,
    /// Positions of the columns it reads, each once.
    reads: Vec<usize>,
    /// Whether its value is that of some person.
    secret: bool,
}

impl Metric {
    /// Compiles a call of an aggregate function.
    pub(super) fn compile(
        state: &SessionState,
        owner: Owner<'_>,
        call: &ast::Expr,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let text = call.to_string();
        let failed = |error| owner.failed(error, schema);
        let names = condition::names(schema)?;
        let mut spelled = call.clone();
        condition::spell_columns(&mut spelled, schema);
        let resolved = condition::resolve(state, owner, spelled, schema)?;
        let Expr::AggregateFunction(mut call) = resolved.unalias() else {
            return Err(owner.wrong(format!("{text} is no aggregate")));
        };
        let params = &call.params;
        let parts = params.args.iter().chain(params.filter.as_deref());
        for part in parts {
            condition::sees_one_row(part, true).map_err(|what| owner.wrong(what))?;
        }
        if !params.order_by.is_empty() || order_matters(call.func.name()) {
            return Err(owner.wrong(format!(
                "{text} depends on the order of rows, and those of a write have none"
            )));
        }
        widen(&mut call, &names).map_err(failed)?;
        let simplifier = condition::simplifier(state, &names);
        let typed =
            expr::value(&simplifier, Expr::AggregateFunction(call), &names).map_err(failed)?;
        let planning = PhysicalPlanningContext::default();
        let lowered = LoweredAggregateBuilder::new(
            &typed,
            &names,
            schema,
            state.execution_props(),
            &planning,
        );
        let LoweredAggregate {
            aggregate, filter, ..
        } = lowered.build().map_err(failed)?;
        let arguments = aggregate.expressions();
        let column = match arguments.as_slice() {
            [argument, ..] => plain_column(argument).map(|column| column.name().to_owned()),
            [] => None,
        };
        let name = aggregate.fun().name();
        let read = arguments.iter().chain(&filter).flat_map(collect_columns);
        let mut reads: Vec<usize> = read.map(|column| column.index()).collect();
        reads.sort_unstable();
        reads.dedup();
        let metric = Self {
            secret: tells_a_value(name) && reads.iter().any(|at| personal(schema.field(*at))),
            reads,
            exact: !name.starts_with(ESTIMATES),
            numbers_only: OF_NUMBERS.contains(&name),
            text,
            column,
            asked: Asked::default(),
            aggregate,
            arguments,
            filter,
        };
        // What cannot even begin would fail every write.
        metric
            .begin()
            .map_err(|error| owner.wrong(error.message()))?;
        Ok(metric)
    }

    /// Positions of the columns it reads.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> {
        self.reads.iter().copied()
    }

    /// Whether its value is one of a column that tells something of a person, and so nothing to record.
    pub(super) fn is_secret(&self) -> bool {
        self.secret
    }

    /// Its value as a column: no name, its type.
    pub(super) fn field(&self) -> FieldRef {
        self.aggregate.field()
    }

    /// Whether it is over all rows, of whichever.
    fn whole(&self) -> bool {
        self.asked.written || self.asked.input
    }

    fn begin(&self) -> Result<Box<dyn Accumulator>> {
        Ok(self.aggregate.create_accumulator()?)
    }

    /// Its arguments for the rows of a batch: it is not over those of which it would read a cell that was cleansed.
    fn arguments(&self, batch: &RecordBatch, masks: &Masks) -> Result<Arguments> {
        let rows = batch.num_rows();
        let over = match &self.filter {
            Some(filter) => {
                let over = filter.evaluate(batch)?.into_array(rows)?;
                Some(over.as_boolean().clone())
            }
            None => None,
        };
        let over = match (masks.over(batch, &self.reads), over) {
            (None, over) => over,
            (Some(cleansed), None) => Some(BooleanArray::new(!&cleansed, None)),
            (Some(cleansed), Some(over)) => {
                let left = BooleanArray::new(!&cleansed, None);
                Some(and(&left, &over).map_err(unexpected)?)
            }
        };
        let mut values = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            let mut array = argument.evaluate(batch)?.into_array(rows)?;
            if self.numbers_only
                && let Some(nan) = nans(&array)
            {
                array = nulled(&array, &NullBuffer::new(!&nan))?;
            }
            values.push(array);
        }
        Ok(Arguments { values, over })
    }
}

/// What an aggregate is given, row by row.
struct Arguments {
    values: Vec<ArrayRef>,
    /// Which rows it is over, if not all.
    over: Option<BooleanArray>,
}

impl Arguments {
    /// Those of the rows it is over.
    fn all(self) -> Result<Vec<ArrayRef>> {
        let Some(over) = self.over else {
            return Ok(self.values);
        };
        let values = self.values.iter();
        let values = values.map(|array| filter(array, &over).map_err(unexpected));
        values.collect()
    }

    /// Those of some rows.
    fn of(&self, rows: &UInt32Array) -> Result<Self> {
        let taken = |array: &ArrayRef| take(array, rows, None).map_err(unexpected);
        Ok(Self {
            values: self.values.iter().map(taken).collect::<Result<_>>()?,
            over: match &self.over {
                Some(over) => Some(
                    take(over, rows, None)
                        .map_err(unexpected)?
                        .as_boolean()
                        .clone(),
                ),
                None => None,
            },
        })
    }
}

fn plain_column(argument: &Arc<dyn PhysicalExpr>) -> Option<&Column> {
    if let Some(column) = argument.downcast_ref::<Column>() {
        return Some(column);
    }
    // Types are made to agree by casts.
    match argument.children().as_slice() {
        [inner] if argument.downcast_ref::<CastExpr>().is_some() => inner.downcast_ref::<Column>(),
        _ => None,
    }
}

/// Whether the value of the function is one that some row has.
fn tells_a_value(function: &str) -> bool {
    matches!(function, "min" | "max")
        || function.contains("median")
        || function.contains("percentile")
}

fn order_matters(function: &str) -> bool {
    const ORDERED: [&str; 5] = [
        "first_value",
        "last_value",
        "nth_value",
        "array_agg",
        "string_agg",
    ];
    ORDERED.contains(&function)
}

/// A sum of 64-bit integers may be wider than they are, and DataFusion's wraps around.
fn widen(
    call: &mut AggregateFunction,
    names: &datafusion::common::DFSchema,
) -> datafusion::common::Result<()> {
    use datafusion::logical_expr::ExprSchemable;
    if call.func.name() != "sum" {
        return Ok(());
    }
    for argument in &mut call.params.args {
        if matches!(
            argument.get_type(names)?,
            DataType::Int64 | DataType::UInt64
        ) {
            *argument = cast(argument.clone(), DataType::Decimal128(20, 0));
        }
    }
    Ok(())
}

fn unexpected(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("a metric: {error}")).with_source(error)
}

/// Which rows are NaN, if any is.
fn nans(column: &ArrayRef) -> Option<BooleanBuffer> {
    let nan = match column.data_type() {
        DataType::Float16 => {
            let values = column.as_primitive::<Float16Type>().values();
            BooleanBuffer::collect_bool(values.len(), |row| values[row].is_nan())
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().values();
            BooleanBuffer::collect_bool(values.len(), |row| values[row].is_nan())
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().values();
            BooleanBuffer::collect_bool(values.len(), |row| values[row].is_nan())
        }
        _ => return None,
    };
    let nan = match column.nulls() {
        Some(nulls) => &nan & nulls.inner(),
        None => nan,
    };
    (nan.count_set_bits() > 0).then_some(nan)
}

/// `values` without those that are not `valid`.
fn nulled(values: &ArrayRef, valid: &NullBuffer) -> Result<ArrayRef> {
    let nulls = NullBuffer::union(values.nulls(), Some(valid));
    let data = values.to_data().into_builder().nulls(nulls);
    data.build().map(make_array).map_err(unexpected)
}

/// Writes the value of a partition column as the log does.
pub(crate) type Spell = fn(&ScalarValue) -> Result<Option<String>>;

/// The partition columns of a table.
#[derive(Debug, Clone)]
pub(crate) struct Partitioning {
    /// Positions in the schema.
    pub columns: Vec<usize>,
    pub spell: Spell,
}

/// The numbers of one worker, or of all together.
#[derive(Debug)]
pub(super) struct Measures {
    metrics: Arc<[Metric]>,
    masks: Masks,
    /// Rows that were measured.
    pub rows: u64,
    /// Cells that were cleansed, by the columns of the masks.
    pub cleansed: Vec<u64>,
    whole: Vec<Box<dyn Accumulator>>,
    groups: Option<Groups>,
}

/// The numbers of each partition of the table.
#[derive(Debug)]
struct Groups {
    partitioning: Partitioning,
    converter: RowConverter,
    by_key: HashMap<OwnedRow, Group>,
}

#[derive(Debug)]
struct Group {
    values: PartitionValues,
    rows: u64,
    /// Of the grouped metrics, in their order.
    states: Vec<Box<dyn Accumulator>>,
}

/// The values of all metrics over some rows.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub partition: Option<PartitionValues>,
    pub rows: u64,
    /// One a metric; None for those that are not asked of these rows.
    pub values: Vec<Option<ScalarValue>>,
}

impl Measures {
    pub(super) fn new(
        metrics: &Arc<[Metric]>,
        schema: &SchemaRef,
        partitioning: &Partitioning,
        masks: &Masks,
    ) -> Result<Self> {
        let grouped = metrics.iter().any(|metric| metric.asked.partitions);
        let groups = match grouped {
            true => {
                let columns = partitioning.columns.iter();
                let fields =
                    columns.map(|at| SortField::new(schema.field(*at).data_type().clone()));
                Some(Groups {
                    partitioning: partitioning.clone(),
                    converter: RowConverter::new(fields.collect()).map_err(unexpected)?,
                    by_key: HashMap::new(),
                })
            }
            false => None,
        };
        Ok(Self {
            whole: metrics.iter().map(Metric::begin).collect::<Result<_>>()?,
            metrics: Arc::clone(metrics),
            cleansed: vec![0; masks.about().len()],
            masks: masks.clone(),
            rows: 0,
            groups,
        })
    }

    pub(super) fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows() as u64;
        self.masks.count(batch, &mut self.cleansed);
        for (metric, state) in self.metrics.iter().zip(&mut self.whole) {
            if !metric.whole() {
                continue;
            }
            state.update_batch(&metric.arguments(batch, &self.masks)?.all()?)?;
        }
        match &mut self.groups {
            Some(groups) => groups.update(&self.metrics, &self.masks, batch),
            None => Ok(()),
        }
    }

    /// Takes in what another worker has measured.
    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        if self.rows == 0 {
            *self = other;
            return Ok(());
        }
        self.rows += other.rows;
        for (own, other) in self.cleansed.iter_mut().zip(&other.cleansed) {
            *own += other;
        }
        merge(&mut self.whole, other.whole)?;
        if let (Some(own), Some(others)) = (&mut self.groups, other.groups) {
            for (key, group) in others.by_key {
                match own.by_key.get_mut(&key) {
                    Some(known) => {
                        known.rows += group.rows;
                        merge(&mut known.states, group.states)?;
                    }
                    None => {
                        own.by_key.insert(key, group);
                    }
                }
            }
        }
        Ok(())
    }

    /// The numbers over all rows once more. Telling a state takes it, so both are made anew from one.
    pub(super) fn copied(&mut self) -> Result<Self> {
        let mut copy = Vec::with_capacity(self.whole.len());
        for (metric, own) in self.metrics.iter().zip(&mut self.whole) {
            let state = state_of(own)?;
            let mut fresh = [metric.begin()?, metric.begin()?];
            for one in &mut fresh {
                one.merge_batch(&state)?;
            }
            let [again, other] = fresh;
            *own = again;
            copy.push(other);
        }
        Ok(Self {
            metrics: Arc::clone(&self.metrics),
            masks: self.masks.clone(),
            rows: self.rows,
            cleansed: self.cleansed.clone(),
            whole: copy,
            groups: None,
        })
    }

    /// The partitions that rows were in, in no order.
    pub(super) fn partitions(&self) -> impl Iterator<Item = &PartitionValues> {
        let groups = self.groups.iter().flat_map(|groups| groups.by_key.values());
        groups.map(|group| &group.values)
    }

    /// Bytes of all states.
    pub(super) fn size(&self) -> usize {
        let whole: usize = self.whole.iter().map(|state| state.size()).sum();
        let groups = self.groups.as_ref().map_or(0, |groups| {
            let groups = groups.by_key.values().flat_map(|group| &group.states);
            groups.map(|state| state.size()).sum()
        });
        whole + groups
    }

    /// What came out, told once: over all rows first, then by partition in the order of their values.
    pub(super) fn finish(&mut self) -> Result<Vec<Measured>> {
        let whole = self.metrics.iter().zip(&mut self.whole);
        let values = whole
            .map(|(metric, state)| match metric.whole() {
                true => Ok(Some(state.evaluate()?)),
                false => Ok(None),
            })
            .collect::<Result<_>>()?;
        let mut measured = vec![Measured {
            partition: None,
            rows: self.rows,
            values,
        }];
        if let Some(groups) = &mut self.groups {
            let mut by_key: Vec<_> = groups.by_key.iter_mut().collect();
            by_key.sort_unstable_by(|one, other| one.0.cmp(other.0));
            for (_, group) in by_key {
                let mut states = group.states.iter_mut();
                let mut values = Vec::with_capacity(self.metrics.len());
                for metric in self.metrics.iter() {
                    values.push(match metric.asked.partitions {
                        true => states.next().map(|state| state.evaluate()).transpose()?,
                        false => None,
                    });
                }
                measured.push(Measured {
                    partition: Some(group.values.clone()),
                    rows: group.rows,
                    values,
                });
            }
        }
        Ok(measured)
    }
}

fn merge(own: &mut [Box<dyn Accumulator>], others: Vec<Box<dyn Accumulator>>) -> Result<()> {
    for (own, mut other) in own.iter_mut().zip(others) {
        own.merge_batch(&state_of(&mut other)?)?;
    }
    Ok(())
}

fn state_of(accumulator: &mut Box<dyn Accumulator>) -> Result<Vec<ArrayRef>> {
    let state = accumulator.state()?;
    let parts = state.iter().map(ScalarValue::to_array);
    Ok(parts.collect::<datafusion::common::Result<_>>()?)
}

impl Groups {
    fn update(&mut self, metrics: &[Metric], masks: &Masks, batch: &RecordBatch) -> Result<()> {
        let columns = self.partitioning.columns.iter();
        let columns: Vec<ArrayRef> = columns.map(|at| Arc::clone(batch.column(*at))).collect();
        let keys = self
            .converter
            .convert_columns(&columns)
            .map_err(unexpected)?;
        let mut by_key: HashMap<_, Vec<u32>> = HashMap::new();
        for (row, key) in keys.iter().enumerate() {
            by_key.entry(key).or_default().push(row as u32);
        }
        let grouped = metrics.iter().filter(|metric| metric.asked.partitions);
        let arguments = grouped
            .map(|metric| metric.arguments(batch, masks))
            .collect::<Result<Vec<_>>>()?;
        for (key, rows) in by_key {
            let Some(first) = rows.first() else { continue };
            let key = key.owned();
            if !self.by_key.contains_key(&key) {
                let group = self.begin(metrics, batch, *first as usize)?;
                self.by_key.insert(key.clone(), group);
            }
            let Some(group) = self.by_key.get_mut(&key) else {
                continue;
            };
            group.rows += rows.len() as u64;
            let rows = UInt32Array::from(rows);
            for (arguments, state) in arguments.iter().zip(&mut group.states) {
                state.update_batch(&arguments.of(&rows)?.all()?)?;
            }
        }
        Ok(())
    }

    fn begin(&self, metrics: &[Metric], batch: &RecordBatch, row: usize) -> Result<Group> {
        let mut values = PartitionValues::new();
        for at in &self.partitioning.columns {
            let value = ScalarValue::try_from_array(batch.column(*at), row)?;
            let name = batch.schema_ref().field(*at).name().clone();
            values.insert(name, (self.partitioning.spell)(&value)?);
        }
        let grouped = metrics.iter().filter(|metric| metric.asked.partitions);
        Ok(Group {
            values,
            rows: 0,
            states: grouped.map(Metric::begin).collect::<Result<_>>()?,
        })
    }
}

//! Rows along a Z-order curve: those that are near in several columns share files, so that a filter on any of
//! the columns leaves most files out.
//!
//! ```text
//! sample of each column -> rank of a value (16 bits) -> ranks, bit by bit in turn -> sort
//! ```
//!
//! Ranks and not values are interleaved, so that every type that has an order will do, and values that crowd
//! together do not share one place of the curve.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, FixedSizeBinaryBuilder, RecordBatch};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;

use super::Job;
use super::compact::Group;
use crate::error::{Error, ErrorKind, Result};
use crate::sql;
use crate::table::snapshot::Snapshot;
use crate::table::versioned::VersionedTable;

/// Tag of files whose rows were arranged, with the columns they were arranged by.
pub(super) const TAG: &str = "selvedge.zorder";

/// Rows of a sample: one for every rank there is.
const SAMPLE_ROWS: u64 = 1 << 16;
/// Bytes of a sampled value that are compared: long texts differ early, or share a place.
const PREFIX_BYTES: usize = 64;
/// Bytes a rank takes in a place of the curve.
const RANK_BYTES: usize = 2;

/// The column that holds the place of a row while rows are sorted.
const PLACE: &str = "__selvedge_place";

/// Refuses columns by which the rows of a table cannot be arranged.
pub(crate) fn check(table: &str, snapshot: &Snapshot, columns: &[String]) -> Result<()> {
    for name in columns {
        let Ok(field) = snapshot.schema.field_with_name(name) else {
            let missing = Error::new(
                ErrorKind::NotFound,
                format!("table {table} has no column {name}"),
            );
            let names = snapshot.schema.fields().iter().map(|field| field.name());
            return Err(match sql::nearest(name, names.map(String::as_str)) {
                Some(near) => missing.with_hint(format!("did you mean {}?", sql::quoted(&near))),
                None => missing,
            });
        };
        if snapshot.partition_columns().contains(name) {
            return Err(Error::invalid(format!(
                "table {table} cannot be arranged by its partition column {name}: all rows of a file have one value"
            )));
        }
        if field.data_type().is_nested() {
            return Err(Error::invalid(format!(
                "table {table} cannot be arranged by column {name}: its type has no order"
            ))
            .with_hint("name columns of single values"));
        }
    }
    Ok(())
}

/// The rows of a group along the curve through `columns`, as one stream.
pub(super) async fn plan(
    job: &Job,
    base: &Snapshot,
    group: &Group,
    columns: &[String],
) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>)> {
    let state = job.state(job.settings.target_partitions);
    let table = job.only(base, &group.files);
    let rows = group.rows(&base.schema);
    let curve = Curve::sample(&state, &table, columns, rows).await?;
    let schema = table.schema();
    let all: Vec<Expr> = schema
        .fields()
        .iter()
        .map(|field| Expr::Column(Column::new(Some("t"), field.name())))
        .collect();
    let place = ScalarUDF::from(Place(Arc::new(curve))).call(
        columns
            .iter()
            .map(|name| Expr::Column(Column::new(Some("t"), name)))
            .collect(),
    );
    let with_place = all.iter().cloned().chain([place.alias(PLACE)]);
    let order = Expr::Column(Column::new_unqualified(PLACE)).sort(true, true);
    let plan = LogicalPlanBuilder::scan("t", provider_as_source(Arc::new(table)), None)?
        .project(with_place)?
        .sort([order])?
        .project(all)?
        .build()?;
    let plan = state.create_physical_plan(&plan).await?;
    Ok((plan, state.task_ctx()))
}

/// The curve through the values of some columns, as far as a sample of them tells.
#[derive(Debug)]
struct Curve {
    /// By column, values in their order; one that is frequent is there often.
    samples: Vec<Vec<Box<[u8]>>>,
}

impl Curve {
    async fn sample(
        state: &SessionState,
        table: &VersionedTable,
        columns: &[String],
        rows: Option<u64>,
    ) -> Result<Self> {
        let schema = table.schema();
        let positions = columns.iter().map(|name| schema.index_of(name));
        let positions: Vec<usize> = positions
            .collect::<Result<_, _>>()
            .map_err(DataFusionError::from)?;
        let plan = table.scan(state, Some(&positions), &[], None).await?;
        let mut batches = execute_stream(plan, state.task_ctx())?;
        let mut choice = Choice::one_in(rows.unwrap_or(0) / SAMPLE_ROWS);
        let mut samples = vec![Vec::new(); columns.len()];
        while let Some(batch) = batches.try_next().await? {
            let chosen = choice.of(batch.num_rows());
            if chosen.is_empty() {
                continue;
            }
            for (sample, column) in samples.iter_mut().zip(comparable(&batch)?) {
                sample.extend(
                    chosen
                        .iter()
                        .map(|row| Box::from(prefix(column.row(*row).data()))),
                );
            }
        }
        for sample in &mut samples {
            sample.sort_unstable();
        }
        Ok(Self { samples })
    }

    /// The places of rows whose values are `columns`.
    fn places(&self, columns: &[ArrayRef]) -> PlanResult<ArrayRef> {
        let length = columns.first().map_or(0, |column| column.len());
        let mut ranks = vec![vec![0; length]; columns.len()];
        for ((ranks, column), sample) in ranks.iter_mut().zip(columns).zip(&self.samples) {
            let values = comparable_column(column)?;
            for (rank, value) in ranks.iter_mut().zip(&values) {
                *rank = rank_of(prefix(value.data()), sample);
            }
        }
        let width = (RANK_BYTES * columns.len()) as i32;
        let mut places = FixedSizeBinaryBuilder::with_capacity(length, width);
        let mut place = vec![0; RANK_BYTES * columns.len()];
        for row in 0..length {
            interleave(ranks.iter().map(|ranks| ranks[row]), &mut place);
            places.append_value(&place)?;
        }
        Ok(Arc::new(places.finish()))
    }
}

/// The share of the sample that lies below `value`, in parts of 65,536.
fn rank_of(value: &[u8], sample: &[Box<[u8]>]) -> u16 {
    let below = sample.partition_point(|other| other.as_ref() < value);
    let rank = (below << 16) / sample.len().max(1);
    u16::try_from(rank).unwrap_or(u16::MAX)
}

/// The bits of the ranks in turn, from the highest on.
fn interleave(ranks: impl ExactSizeIterator<Item = u16> + Clone, place: &mut [u8]) {
    place.fill(0);
    let count = ranks.len();
    for (column, rank) in ranks.enumerate() {
        for bit in 0..u16::BITS as usize {
            if rank & (1 << (15 - bit)) != 0 {
                let at = bit * count + column;
                place[at / 8] |= 0x80 >> (at % 8);
            }
        }
    }
}

fn prefix(value: &[u8]) -> &[u8] {
    &value[..value.len().min(PREFIX_BYTES)]
}

fn comparable(batch: &RecordBatch) -> Result<Vec<datafusion::arrow::row::Rows>> {
    let columns = batch.columns().iter().map(comparable_column);
    Ok(columns.collect::<PlanResult<_>>()?)
}

/// Values as bytes that compare as they do, nulls first.
fn comparable_column(column: &ArrayRef) -> PlanResult<datafusion::arrow::row::Rows> {
    let options = SortOptions {
        descending: false,
        nulls_first: true,
    };
    let field = SortField::new_with_options(column.data_type().clone(), options);
    let converter = RowConverter::new(vec![field])?;
    Ok(converter.convert_columns(std::slice::from_ref(column))?)
}

/// Chooses one row out of each run of rows, anew in each, so that no rhythm of the data is taken for all of it.
struct Choice {
    run: u64,
    /// Rows until the next one is chosen, and after it until its run ends.
    wait: u64,
    rest: u64,
    state: u64,
}

impl Choice {
    fn one_in(run: u64) -> Self {
        let mut choice = Self {
            run: run.max(1),
            wait: 0,
            rest: 0,
            state: 0,
        };
        choice.next_run();
        choice
    }

    fn next_run(&mut self) {
        // The same in each run of the program, so that a table comes out the same.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (self.state >> 33) % self.run;
        self.wait = self.rest + at;
        self.rest = self.run - 1 - at;
    }

    /// The chosen ones of the next `rows` rows.
    fn of(&mut self, rows: usize) -> Vec<usize> {
        let mut chosen = Vec::new();
        let mut next = 0;
        while let Ok(wait) = usize::try_from(self.wait)
            && wait < rows - next
        {
            next += wait;
            chosen.push(next);
            next += 1;
            self.next_run();
        }
        self.wait -= (rows - next) as u64;
        chosen
    }
}

/// The curve as a function of rows.
#[derive(Debug, Clone)]
struct Place(Arc<Curve>);

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl ScalarUDFImpl for Place {
    fn name(&self) -> &str {
        PLACE
    }

    fn signature(&self) -> &Signature {
        static ANY: std::sync::OnceLock<Signature> = std::sync::OnceLock::new();
        ANY.get_or_init(|| Signature::variadic_any(Volatility::Immutable))
    }

    fn return_type(&self, types: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::FixedSizeBinary((RANK_BYTES * types.len()) as i32))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        self.0.places(&columns).map(ColumnarValue::Array)
    }
}

/// Files arranged by these columns carry this value of [`TAG`].
pub(super) fn tag(columns: &[String]) -> String {
    serde_json::Value::from(columns).to_string()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int64Array, StringViewArray};

    use super::*;

    fn curve(columns: &[ArrayRef]) -> Curve {
        let samples = columns.iter().map(|column| {
            let values = comparable_column(column).unwrap();
            let mut sample: Vec<Box<[u8]>> = values
                .iter()
                .map(|value| Box::from(prefix(value.data())))
                .collect();
            sample.sort_unstable();
            sample
        });
        Curve {
            samples: samples.collect(),
        }
    }

    fn places(columns: &[ArrayRef]) -> Vec<Vec<u8>> {
        let places = curve(columns).places(columns).unwrap();
        let places = places.as_fixed_size_binary();
        places.iter().map(|place| place.unwrap().to_vec()).collect()
    }

    #[test]
    fn bits_take_turns_from_the_highest() {
        let mut place = [0; 4];
        interleave([0x8001, 0].into_iter(), &mut place);
        assert_eq!(place, [0b1000_0000, 0, 0, 0b0000_0010]);
        interleave([0, 0xffff].into_iter(), &mut place);
        assert_eq!(place, [0b0101_0101; 4]);
    }

    #[test]
    fn one_column_keeps_its_order_with_nulls_first() {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some("b"),
            None,
            Some(""),
            Some("a"),
            Some("a longer text than fits the view of it"),
        ]));
        let places = places(&[text]);
        let mut order: Vec<usize> = (0..5).collect();
        order.sort_by_key(|row| places[*row].clone());
        assert_eq!(order, [1, 2, 3, 4, 0]);
    }

    #[test]
    fn near_in_both_columns_is_near_on_the_curve() {
        let side = 64;
        let x: ArrayRef = Arc::new((0..side * side).map(|i| i % side).collect::<Int64Array>());
        let y: ArrayRef = Arc::new((0..side * side).map(|i| i / side).collect::<Int64Array>());
        let places = places(&[x, y]);
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|row| places[*row].clone());
        // Any sixteenth of the curve covers a square of a quarter of each side, not a stripe.
        for part in order.chunks(places.len() / 16) {
            for axis in [|i: usize| i % 64, |i: usize| i / 64] {
                let least = part.iter().map(|i| axis(*i)).min().unwrap();
                let most = part.iter().map(|i| axis(*i)).max().unwrap();
                assert!(most - least < 16, "{least}..{most}");
            }
        }
    }

    #[test]
    fn one_row_of_each_run_is_chosen_whatever_the_batches() {
        for run in [1, 2, 7, 1000] {
            let mut whole = Choice::one_in(run);
            let chosen = whole.of(10_000);
            for (at, row) in chosen.iter().enumerate() {
                assert_eq!(*row as u64 / run, at as u64, "{run}");
            }
            assert!(chosen.len() as u64 >= 10_000 / run);
            let mut parts = Choice::one_in(run);
            let mut again = Vec::new();
            let mut begin = 0;
            for length in (0..).take_while(|length| length * (length + 1) / 2 < 10_000) {
                let length = (length as usize).min(10_000 - begin);
                again.extend(parts.of(length).iter().map(|row| begin + row));
                begin += length;
            }
            again.extend(parts.of(10_000 - begin).iter().map(|row| begin + row));
            assert_eq!(again, chosen, "{run}");
        }
    }
}

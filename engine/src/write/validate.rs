//! The first stage: rows become rows of the table, or are counted as refused.
//!
//! NOT NULL is asked, every value takes the exact type of its column ([`super::cast`]), then CHECK is
//! asked, in this order, and a row is counted at the first that refuses it. The stage never fails on a row: it
//! goes on counting, lets nothing further through, and the sink asks [`Violations`] for the verdict
//! before it commits. So the error is exact over all partitions, and nothing of the write is visible.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as PlanResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    ReplaceChildrenOptions,
};
use parking_lot::Mutex;

use super::cast::{Cast, CastFailure, lossless};
use super::check::CompiledCheck;
use super::stages::{Slot, StageStream, one_child, properties};
use crate::error::{Error, Result};

/// What every row of a table must satisfy.
#[derive(Debug, Clone)]
pub(crate) struct TableRules {
    /// Table as `schema.name`.
    pub table: String,
    /// Columns with their exact types; those that are not nullable are NOT NULL.
    pub schema: SchemaRef,
    pub checks: Vec<CompiledCheck>,
}

impl TableRules {
    fn not_null(&self) -> impl Iterator<Item = (usize, &str)> {
        let fields = self.schema.fields().iter().enumerate();
        fields
            .filter(|(_, field)| !field.is_nullable())
            .map(|(at, field)| (at, field.name().as_str()))
    }
}

/// Casts and checks rows whose columns stand in the table's order.
#[derive(Debug)]
pub(crate) struct ValidateExec {
    rules: Arc<TableRules>,
    casts: Arc<[Cast]>,
    input: Arc<dyn ExecutionPlan>,
    violations: Arc<Slot<Violations>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ValidateExec {
    /// Refuses at once what no row can satisfy: a wrong number of columns, types that never fit.
    pub(super) fn try_new(
        rules: Arc<TableRules>,
        input: Arc<dyn ExecutionPlan>,
        violations: Arc<Slot<Violations>>,
    ) -> Result<Self> {
        let given = input.schema();
        let (table, columns) = (&rules.table, rules.schema.fields());
        if given.fields().len() != columns.len() {
            return Err(Error::invalid(format!(
                "table {table} has {} columns, but {} were given",
                columns.len(),
                given.fields().len()
            )));
        }
        let casts = given
            .fields()
            .iter()
            .zip(columns)
            .map(|(given, column)| {
                Cast::plan(given.data_type(), column.data_type()).map_err(|reason| {
                    let name = column.name();
                    let join = if reason.starts_with(['.', '[']) {
                        ""
                    } else {
                        ": "
                    };
                    Error::invalid(format!("table {table}, column {name}{join}{reason}"))
                })
            })
            .collect::<Result<_>>()?;
        let properties = properties(&input, &rules.schema);
        Ok(Self {
            rules,
            casts,
            input,
            violations,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl DisplayAs for ValidateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_null: Vec<&str> = self.rules.not_null().map(|(_, name)| name).collect();
        let checks: Vec<&str> = self.rules.checks.iter().map(|c| c.name.as_str()).collect();
        write!(
            f,
            "ValidateExec: table={}, columns={}, not_null=[{}], checks=[{}]",
            self.rules.table,
            self.rules.schema.fields().len(),
            not_null.join(", "),
            checks.join(", ")
        )
    }
}

impl ExecutionPlan for ValidateExec {
    fn name(&self) -> &str {
        "ValidateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    /// The order of an INSERT .. ORDER BY is the order in the files: no repartitioning for our sake.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        for check in &self.rules.checks {
            if f(check.predicate())? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let (rules, violations) = (Arc::clone(&self.rules), Arc::clone(&self.violations));
        let stage = Self::try_new(rules, one_child(children)?, violations)?;
        Ok(Arc::new(stage))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, super::stages::RECOMPUTE)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> PlanResult<SendableRecordBatchStream> {
        let violations = self.violations.current()?;
        let partitions = self.input.output_partitioning().partition_count();
        violations.partitions.store(partitions, Relaxed);
        let received = MetricBuilder::new(&self.metrics).counter("rows_received", partition);
        let work = Validation {
            rules: Arc::clone(&self.rules),
            casts: Arc::clone(&self.casts),
            violations: Arc::clone(&violations),
            partition,
        };
        Ok(StageStream::boxed(
            self.input.execute(partition, context)?,
            &self.rules.schema,
            (&self.metrics, partition),
            move |batch| {
                received.add(batch.num_rows());
                work.admit(batch)
            },
            move || {
                violations.drained.fetch_add(1, Relaxed);
            },
        ))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The work of one partition.
struct Validation {
    rules: Arc<TableRules>,
    casts: Arc<[Cast]>,
    violations: Arc<Violations>,
    partition: usize,
}

impl Validation {
    /// The batch as rows of the table; nothing once any row of the write was refused.
    fn admit(&self, batch: RecordBatch) -> Result<Option<RecordBatch>> {
        let rows = batch.num_rows() as u64;
        self.violations.received.fetch_add(rows, Relaxed);

        let batch = self.checked(self.cast(self.required(batch)?)?)?;
        let passes = batch.num_rows() > 0 && !self.violations.any.load(Relaxed);
        Ok(passes.then_some(batch))
    }

    /// Rows with a value wherever one must be.
    fn required(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut refused = Refused::none(batch.num_rows());
        for (at, name) in self.rules.not_null() {
            // A cast makes no NULLs, so those of the source are those of the table.
            let nulls = batch.column(at).logical_nulls();
            let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else {
                continue;
            };
            let rows: Vec<usize> = (0..nulls.len()).filter(|row| nulls.is_null(*row)).collect();
            refused.add(&rows);
            self.note(Place::Null(at), &rows, || {
                format!("column {name} is NOT NULL and has no value")
            });
        }
        self.without(refused, batch)
    }

    /// Rows in the types of the table.
    fn cast(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let (mut columns, refused) = self.cast_columns(&batch);
        let mut batch = batch;
        if refused.count > 0 {
            // The rest fits; it is cast again only to count the checks it breaks.
            batch = self.without(refused, batch)?;
            columns = self.cast_columns(&batch).0;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.rules.schema), columns, &options)
            .map_err(|error| self.broken(error))
    }

    fn cast_columns(&self, batch: &RecordBatch) -> (Vec<ArrayRef>, Refused) {
        let mut refused = Refused::none(batch.num_rows());
        let mut columns = Vec::with_capacity(batch.num_columns());
        let schema = batch.schema_ref();
        for (at, (column, cast)) in batch.columns().iter().zip(self.casts.iter()).enumerate() {
            // A source may send another layout than it announced.
            let cast = if column.data_type() == schema.field(at).data_type() {
                cast.run(column)
            } else {
                lossless(column, self.rules.schema.field(at).data_type())
            };
            match cast {
                Ok(column) => columns.push(column),
                Err(failure) => {
                    refused.add(&failure.rows);
                    self.note(Place::Type(at), &failure.rows, || self.unfit(at, &failure));
                }
            }
        }
        (columns, refused)
    }

    /// Rows for which every CHECK is TRUE.
    fn checked(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut refused = Refused::none(batch.num_rows());
        for (at, check) in self.rules.checks.iter().enumerate() {
            let rows = check.broken_by(&self.rules.table, &batch)?;
            if let Some(first) = rows.first() {
                refused.add(&rows);
                self.note(Place::Check(at), &rows, || check.describe(&batch, *first));
            }
        }
        self.without(refused, batch)
    }

    fn without(&self, refused: Refused, batch: RecordBatch) -> Result<RecordBatch> {
        if refused.count == 0 {
            return Ok(batch);
        }
        let refused_rows = refused.count as u64;
        self.violations.refused.fetch_add(refused_rows, Relaxed);
        let kept = BooleanArray::from(refused.kept);
        filter_record_batch(&batch, &kept).map_err(|error| self.broken(error))
    }

    fn note(&self, place: Place, rows: &[usize], what: impl FnOnce() -> String) {
        self.violations
            .note(place, rows.len() as u64, self.partition, what);
    }

    fn unfit(&self, at: usize, failure: &CastFailure) -> String {
        let column = self.rules.schema.field(at).name();
        format!(
            "column {column}{} {} cannot hold {}: {}",
            failure.path,
            failure.to,
            failure.first.join(", "),
            failure.reason
        )
    }

    fn broken(&self, error: arrow::error::ArrowError) -> Error {
        Error::internal(format!("table {}: {error}", self.rules.table)).with_source(error)
    }
}

/// Rows of one batch that do not go on.
struct Refused {
    kept: Vec<bool>,
    count: usize,
}

impl Refused {
    fn none(rows: usize) -> Self {
        Self {
            kept: vec![true; rows],
            count: 0,
        }
    }

    fn add(&mut self, rows: &[usize]) {
        for row in rows {
            self.count += usize::from(std::mem::take(&mut self.kept[*row]));
        }
    }
}

/// Why rows are refused, in the order in which an error tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// No value in this column.
    Null(usize),
    /// A value that does not fit this column.
    Type(usize),
    /// A row that breaks this constraint.
    Check(usize),
}

#[derive(Debug)]
struct Tally {
    rows: u64,
    /// Partition the example is from: the lowest, so that errors do not depend on timing.
    partition: usize,
    what: String,
}

/// What all partitions of one run have seen.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    received: AtomicU64,
    refused: AtomicU64,
    any: AtomicBool,
    tallies: Mutex<BTreeMap<Place, Tally>>,
    partitions: AtomicUsize,
    drained: AtomicUsize,
}

impl Violations {
    fn note(&self, place: Place, rows: u64, partition: usize, what: impl FnOnce() -> String) {
        self.any.store(true, Relaxed);
        let mut tallies = self.tallies.lock();
        match tallies.get_mut(&place) {
            None => {
                let what = what();
                let tally = Tally {
                    rows,
                    partition,
                    what,
                };
                tallies.insert(place, tally);
            }
            Some(tally) => {
                tally.rows += rows;
                if partition < tally.partition {
                    (tally.partition, tally.what) = (partition, what());
                }
            }
        }
    }

    /// How many rows were received, if all of them were seen and none was refused.
    pub(super) fn verdict(&self, table: &str) -> Result<u64> {
        let (drained, partitions) = (self.drained.load(Relaxed), self.partitions.load(Relaxed));
        if drained == 0 || drained != partitions {
            return Err(Error::internal(format!(
                "table {table}: {drained} of {partitions} partitions were read to their end"
            )));
        }
        let received = self.received.load(Relaxed);
        let tallies = self.tallies.lock();
        let mut told = tallies.values().map(|tally| {
            let rows = if tally.rows == 1 { "row" } else { "rows" };
            format!("{} ({} {rows})", tally.what, tally.rows)
        });
        let Some(first) = told.next() else {
            return Ok(received);
        };
        let refused = self.refused.load(Relaxed);
        let error = Error::rejected(format!(
            "table {table} refuses {refused} of {received} rows: {first}"
        ));
        let rest: Vec<String> = told.collect();
        Err(if rest.is_empty() {
            error
        } else {
            error.with_detail(rest.join("; "))
        })
    }
}

#[cfg(test)]
mod tests;

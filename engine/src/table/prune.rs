//! Which files a filter can leave out, by their partition values and by the statistics of the log.
//!
//! Knows no Parquet: what a file holds inside is pruned when it is opened.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

use super::partition;
use super::snapshot::{DataFile, Snapshot};
use super::stats::ColumnStats;

/// Whether `filter` is decided by partition values alone, the same for every row of a file.
pub(crate) fn partition_only(snapshot: &Snapshot, filter: &Expr) -> bool {
    let columns: Vec<&str> = snapshot
        .partition_columns()
        .iter()
        .map(String::as_str)
        .collect();
    decided_by(filter, &columns)
}

/// Whether `filter` is decided by the values of these columns alone.
pub(super) fn decided_by(filter: &Expr, columns: &[&str]) -> bool {
    !columns.is_empty() && expr_applicable_for_cols(columns, filter) && self_contained(filter)
}

/// The files of `snapshot` that may hold a row all `filters` accept.
pub(crate) fn select_files<'a>(
    session: &dyn Session,
    snapshot: &'a Snapshot,
    filters: &[Expr],
) -> Result<Vec<&'a Arc<DataFile>>> {
    let mut files: Vec<_> = snapshot.files.values().collect();
    let (by_partition, by_statistics): (Vec<Expr>, Vec<Expr>) = filters
        .iter()
        .cloned()
        .partition(|filter| partition_only(snapshot, filter));
    if let Some(filter) = conjunction(by_partition) {
        let kept = partition_matches(session, snapshot, &files, filter)?;
        retain(&mut files, &kept);
    }
    if let Some(filter) = conjunction(by_statistics.into_iter().filter(self_contained)) {
        let kept = statistics_match(session, snapshot, &files, filter)?;
        retain(&mut files, &kept);
    }
    Ok(files)
}

/// Subqueries and values of an outer query cannot be evaluated here.
fn self_contained(filter: &Expr) -> bool {
    let mut contained = true;
    // The closure never fails.
    let _ = filter.apply(|expr| {
        let foreign = matches!(
            expr,
            Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::ScalarSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::ScalarVariable(..)
                | Expr::Placeholder(_)
        );
        contained &= !foreign;
        Ok(if contained {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    });
    contained
}

pub(super) fn retain<T>(files: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    files.retain(|_| kept.next().copied().unwrap_or(true));
}

/// For each row of `batch`, whether the filter accepts it.
pub(super) fn accepts(
    session: &dyn Session,
    batch: &RecordBatch,
    filter: Expr,
) -> Result<Vec<bool>> {
    let schema = DFSchema::try_from(batch.schema())?;
    let filter = session.create_physical_expr(filter, &schema)?;
    let matches = filter.evaluate(batch)?.into_array(batch.num_rows())?;
    // An unknown outcome does not accept a row.
    Ok(matches
        .as_boolean()
        .iter()
        .map(|kept| kept == Some(true))
        .collect())
}

/// Evaluates `filter` once per file, on the partition values it names.
fn partition_matches(
    session: &dyn Session,
    snapshot: &Snapshot,
    files: &[&Arc<DataFile>],
    filter: Expr,
) -> Result<Vec<bool>> {
    let named = filter.column_refs();
    let fields: Vec<_> = snapshot
        .schema
        .fields()
        .iter()
        .filter(|field| named.iter().any(|column| column.name == *field.name()))
        // A NOT NULL column of a foreign table may still hold nulls; no reason to fail here.
        .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)))
        .collect();
    let arrays = fields
        .iter()
        .map(|field| partition_array(files, field))
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(files.len()));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new_with_options(schema, arrays, &options)?;
    accepts(session, &batch, filter)
}

fn partition_array(files: &[&Arc<DataFile>], field: &Field) -> Result<ArrayRef> {
    let values = files
        .iter()
        .map(|file| partition::value_of(file, field))
        .collect::<Result<Vec<_>, _>>()?;
    if values.is_empty() {
        return Ok(datafusion::arrow::array::new_empty_array(field.data_type()));
    }
    ScalarValue::iter_to_array(values)
}

fn statistics_match(
    session: &dyn Session,
    snapshot: &Snapshot,
    files: &[&Arc<DataFile>],
    filter: Expr,
) -> Result<Vec<bool>> {
    let df_schema = DFSchema::try_from(Arc::clone(&snapshot.schema))?;
    let filter = session.create_physical_expr(filter, &df_schema)?;
    let predicate = PruningPredicateBuilder::new()
        .with_file_schema(Arc::clone(&snapshot.schema))
        .with_max_in_list_size(session.config_options().execution.parquet.max_in_list_size)
        .try_build(filter)?;
    if predicate.always_true() {
        return Ok(vec![true; files.len()]);
    }
    predicate.prune(&LogStatistics { snapshot, files })
}

/// The statistics of the log as DataFusion's pruning asks for them. All counts are of the rows in
/// the files, deleted ones included, as are the bounds: pruning compares them with one another.
struct LogStatistics<'a> {
    snapshot: &'a Snapshot,
    files: &'a [&'a Arc<DataFile>],
}

impl LogStatistics<'_> {
    fn schema(&self) -> &SchemaRef {
        &self.snapshot.schema
    }

    fn partition_field(&self, column: &Column) -> Option<&Field> {
        let partitioned = self.snapshot.partition_columns().contains(&column.name);
        partitioned.then(|| self.schema().field_with_name(&column.name).ok())?
    }

    fn bounds(
        &self,
        column: &Column,
        bound: impl Fn(&ColumnStats) -> &Option<(ScalarValue, bool)>,
    ) -> Option<ArrayRef> {
        if let Some(field) = self.partition_field(column) {
            return partition_array(self.files, field).ok();
        }
        let data_type = self
            .schema()
            .field_with_name(&column.name)
            .ok()?
            .data_type();
        let unknown = ScalarValue::try_new_null(data_type).ok()?;
        let mut known = false;
        let values: Vec<_> = self
            .files
            .iter()
            .map(|file| {
                let stats = file.stats(self.schema())?.columns.get(&column.name)?;
                // As with footers (`footer`): what a NaN satisfies, the bounds do not tell.
                if stats.nan {
                    return None;
                }
                let (value, _) = bound(stats).as_ref()?;
                // The type differs where the column was widened after the statistics were parsed.
                (value.data_type() == *data_type).then(|| value.clone())
            })
            .map(|value| {
                known |= value.is_some();
                value.unwrap_or_else(|| unknown.clone())
            })
            .collect();
        known.then(|| ScalarValue::iter_to_array(values).ok())?
    }

    fn physical_rows(&self, file: &DataFile) -> Option<u64> {
        file.stats(self.schema())?.num_records
    }
}

impl PruningStatistics for LogStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |stats| &stats.min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |stats| &stats.max)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let partition = self.partition_field(column);
        let counts = self.files.iter().map(|file| match partition {
            Some(field) if partition::value_of(file, field).ok()?.is_null() => {
                self.physical_rows(file)
            }
            Some(_) => Some(0),
            None => {
                file.stats(self.schema())?
                    .columns
                    .get(&column.name)?
                    .null_count
            }
        });
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let counts = self.files.iter().map(|file| self.physical_rows(file));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

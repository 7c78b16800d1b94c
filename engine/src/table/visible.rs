//! A Parquet source without the rows that deletion vectors hide.
//!
//! ```text
//! Parquet source, with the number of each row in its file -> rows that the file's mask shows -> without the number
//! ```
//!
//! Parquet's own way is a row selection. With scattered rows that is a run for each of them, which the reader walks and
//! DataFusion copies several times a scan: half as much again as reading the rows. Row numbers hold whatever prunes or
//! reorders the file in between, and a mask is a slice of bits for each batch.
//!
//! Hidden rows are read, so nothing that can fail may look at them: filters only prune, expressions are left to the plan
//! above, and a column that is NOT NULL may be NULL until they are dropped.

use std::borrow::Cow;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::functions::core::file_row_index::FileRowIndexFunc;
use datafusion::logical_expr::{ExpressionPlacement, ScalarUDF};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_expr::{
    EquivalenceProperties, PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr,
};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::stream::BoxStream;
use futures::{StreamExt, future};
use object_store::ObjectStore;

use super::mask::{Mask, Runs};
use super::schema::nullable;

/// A Parquet source of files some of which have a [`Mask`].
pub(super) struct Visible {
    /// In its schema any column of the files may be NULL.
    inner: Arc<dyn FileSource>,
    table: TableSchema,
}

impl Visible {
    /// The source of `table` that `parquet` makes of a schema.
    pub(super) fn new(
        table: TableSchema,
        parquet: impl FnOnce(TableSchema) -> ParquetSource,
    ) -> Self {
        let nullable = TableSchema::builder(Arc::new(nullable(table.file_schema())))
            .with_table_partition_cols(table.table_partition_cols().clone())
            .with_virtual_columns(table.virtual_columns().clone())
            .build();
        Self {
            inner: Arc::new(parquet(nullable).with_pushdown_filters(false)),
            table,
        }
    }

    fn around(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        let table = self.table.clone();
        Arc::new(Self { inner, table })
    }

    /// The columns that are asked of the source, in a schema of the table.
    fn columns(&self, table: &TableSchema) -> Result<SchemaRef> {
        let table = table.table_schema();
        Ok(match self.inner.projection() {
            Some(projection) => Arc::new(projection.project_schema(table)?),
            None => Arc::clone(table),
        })
    }

    /// The source of `columns`, and of the number of each row in its file as one more.
    fn numbered(&self, columns: &SchemaRef) -> Result<Arc<dyn FileSource>> {
        let mut wanted: Vec<_> = columns
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), at));
                ProjectionExpr::new(column, field.name())
            })
            .collect();
        let number = ScalarFunctionExpr::new(
            ROW,
            Arc::new(ScalarUDF::from(FileRowIndexFunc::new())),
            vec![],
            Arc::new(Field::new(ROW, DataType::Int64, true)),
            Arc::new(ConfigOptions::default()),
        );
        wanted.push(ProjectionExpr::new(Arc::new(number), ROW));
        match self
            .inner
            .try_pushdown_projection(&ProjectionExprs::from(wanted))?
        {
            Some(source) => Ok(source),
            None => internal_err!("the Parquet source does not number its rows"),
        }
    }
}

/// The column of row numbers, between the source and the mask.
const ROW: &str = "__selvedge_row_of_file";

impl FileSource for Visible {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        scan: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        // It has none: an error that says so.
        self.inner.create_file_opener(store, scan, partition)
    }

    fn create_morselizer(
        &self,
        store: Arc<dyn ObjectStore>,
        scan: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let read = self.columns(self.inner.table_schema())?;
        let numbered = self.numbered(&read)?;
        // The source asks for nothing else of a scan, whose files are many. A limit is of visible rows: the stream of
        // all files counts those.
        let unlimited =
            FileScanConfigBuilder::new(scan.object_store_url.clone(), Arc::clone(&numbered))
                .with_preserve_order(scan.preserve_order)
                .with_expr_adapter(scan.expr_adapter_factory.clone())
                .build();
        let inner = &self.inner;
        Ok(Box::new(Masked {
            plain: inner.create_morselizer(Arc::clone(&store), scan, partition)?,
            numbered: numbered.create_morselizer(store, &unlimited, partition)?,
            columns: self.columns(&self.table)?,
        }))
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table
    }

    fn with_batch_size(&self, rows: usize) -> Arc<dyn FileSource> {
        self.around(self.inner.with_batch_size(rows))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(t, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.inner.supports_repartitioning()
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let mut config = Cow::Borrowed(config);
        if config.execution.parquet.pushdown_filters {
            config.to_mut().execution.parquet.pushdown_filters = false;
        }
        let pushed = self.inner.try_pushdown_filters(filters, &config)?;
        Ok(FilterPushdownPropagation {
            filters: pushed.filters,
            updated_node: pushed.updated_node.map(|inner| self.around(inner)),
        })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        let pushed = self.inner.try_pushdown_sort(order, properties)?;
        Ok(pushed.map(|inner| self.around(inner)))
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let fails =
            |column: &ProjectionExpr| column.expr.placement() == ExpressionPlacement::KeepInPlace;
        if projection.iter().any(fails) {
            return Ok(None);
        }
        let pushed = self.inner.try_pushdown_projection(projection)?;
        Ok(pushed.map(|inner| self.around(inner)))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
}

/// Opens files with a mask by the one, and files without by the other.
#[derive(Debug)]
struct Masked {
    plain: Box<dyn Morselizer>,
    numbered: Box<dyn Morselizer>,
    columns: SchemaRef,
}

impl Morselizer for Masked {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let mask = file.extensions.get::<Mask>().cloned();
        let inner = match mask {
            Some(_) => self.numbered.plan_file(file)?,
            None => self.plain.plan_file(file)?,
        };
        let shown = Shown {
            mask,
            columns: Arc::clone(&self.columns),
        };
        Ok(shown.planner(inner))
    }
}

/// The visible rows of one file.
#[derive(Debug, Clone)]
struct Shown {
    /// Rows of a file without one have no numbers.
    mask: Option<Mask>,
    columns: SchemaRef,
}

impl Shown {
    fn planner(&self, inner: Box<dyn MorselPlanner>) -> Box<dyn MorselPlanner> {
        Box::new(ShownPlanner {
            inner,
            shown: self.clone(),
        })
    }

    /// The visible rows of `batch`, whose last column tells where they are in their file.
    fn of(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let Some(mask) = &self.mask else {
            return with_schema(&self.columns, batch.columns().to_vec(), rows);
        };
        let Some((numbers, columns)) = batch.columns().split_last() else {
            return internal_err!("rows without their numbers");
        };
        let Some(numbers) = numbers.as_primitive_opt::<Int64Type>() else {
            return internal_err!("row numbers are of type {}", numbers.data_type());
        };
        let mask = mask.of(numbers.values())?;
        if mask.count_set_bits() == rows {
            return with_schema(&self.columns, columns.to_vec(), rows);
        }
        let runs = Runs::new(mask);
        let visible = columns.iter().map(|column| runs.of(column));
        with_schema(&self.columns, visible.collect::<Result<_>>()?, runs.rows())
    }
}

fn with_schema(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::clone(schema);
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

#[derive(Debug)]
struct ShownPlanner {
    inner: Box<dyn MorselPlanner>,
    shown: Shown,
}

impl MorselPlanner for ShownPlanner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { inner, shown } = *self;
        let Some(mut plan) = inner.plan()? else {
            return Ok(None);
        };
        let morsels = plan.take_morsels().into_iter().map(|inner| {
            let shown = shown.clone();
            Box::new(ShownMorsel { inner, shown }) as _
        });
        let planners = plan.take_ready_planners();
        let planners = planners.into_iter().map(|inner| shown.planner(inner));
        let mut masked = MorselPlan::new()
            .with_morsels(morsels.collect())
            .with_planners(planners.collect());
        if let Some(pending) = plan.take_pending_planner() {
            masked.set_pending_planner(async move { Ok(shown.planner(pending.await?)) });
        }
        Ok(Some(masked))
    }
}

#[derive(Debug)]
struct ShownMorsel {
    inner: Box<dyn Morsel>,
    shown: Shown,
}

impl Morsel for ShownMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { inner, shown } = *self;
        let rows = inner.into_stream();
        let visible = rows.map(move |batch| shown.of(batch?));
        let some = |batch: &Result<RecordBatch>| {
            let empty = batch.as_ref().is_ok_and(|batch| batch.num_rows() == 0);
            future::ready(!empty)
        };
        visible.filter(some).boxed()
    }
}

impl Debug for Visible {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Visible({})", self.inner.file_type())
    }
}

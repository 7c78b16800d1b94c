//! Errors of CSV, JSON and Avro files that say which file is wrong, and where in it.
//!
//! A scan reads many files, and DataFusion's readers know the bytes of one only. Parquet's has no such
//! opener: it names the file whose footer or bytes cannot be read, but not that of a page.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::{
    FileOpenFuture, FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};
use futures::{FutureExt, StreamExt};
use object_store::ObjectStore;
use object_store::path::Path;

use super::types::sql_name;
use crate::error::Error;

/// Makes every scan of text or Avro files name the file it fails in. Comes after all rules that look
/// into sources.
#[derive(Debug)]
pub(super) struct NameCulprits;

impl PhysicalOptimizerRule for NameCulprits {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let scan = plan
                .downcast_ref::<DataSourceExec>()
                .and_then(|exec| exec.data_source().downcast_ref::<FileScanConfig>())
                .filter(|scan| ["csv", "json", "avro"].contains(&scan.file_source().file_type()));
            let Some(scan) = scan else {
                return Ok(Transformed::no(plan));
            };
            let named = Named {
                inner: Arc::clone(scan.file_source()),
                store: scan.object_store_url.clone(),
            };
            let scan = FileScanConfigBuilder::from(scan.clone()).with_source(Arc::new(named));
            let scan = DataSourceExec::from_data_source(scan.build());
            Ok(Transformed::yes(scan as _))
        })
        .data()
    }

    fn name(&self) -> &str {
        "name_culprits"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

struct Named {
    inner: Arc<dyn FileSource>,
    store: ObjectStoreUrl,
}

impl FileSource for Named {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        scan: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        Ok(Arc::new(NamedOpener {
            inner: self
                .inner
                .create_file_opener(object_store, scan, partition)?,
            store: self.store.clone(),
            columns: Arc::clone(self.inner.table_schema().file_schema()),
        }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, rows: usize) -> Arc<dyn FileSource> {
        Arc::new(Self {
            inner: self.inner.with_batch_size(rows),
            store: self.store.clone(),
        })
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

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }
}

struct NamedOpener {
    inner: Arc<dyn FileOpener>,
    store: ObjectStoreUrl,
    /// As the file has them.
    columns: SchemaRef,
}

impl FileOpener for NamedOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let place = Place {
            file: shown(&self.store, &file.object_meta.location),
            from_byte: file.range.as_ref().map_or(0, |range| range.start),
            columns: Arc::clone(&self.columns),
        };
        let opening = self.inner.open(file);
        Ok(async move {
            let opened = match opening {
                Ok(opening) => opening.await,
                Err(error) => Err(error),
            };
            let rows = opened.map_err(|error| place.tell(error, 0))?;
            let mut before = 0;
            let rows = rows.map(move |batch| match batch {
                Ok(batch) => {
                    before += batch.num_rows();
                    Ok(batch)
                }
                Err(error) => Err(place.tell(error, before)),
            });
            Ok(rows.boxed())
        }
        .boxed())
    }
}

/// A file as its user wrote it.
pub(super) fn shown(store: &ObjectStoreUrl, file: &Path) -> String {
    match store.as_str() {
        "file:///" => format!("/{file}"),
        store => format!("{store}{file}"),
    }
}

/// A file, or the part of it that one task reads.
struct Place {
    file: String,
    from_byte: i64,
    columns: SchemaRef,
}

impl Place {
    fn tell(&self, error: DataFusionError, rows_before: usize) -> DataFusionError {
        let error = Error::from(error);
        let mut place = self.file.clone();
        // Lines and rows are counted from where the task began.
        if self.from_byte > 0 {
            place.push_str(&format!(" from byte {} on", self.from_byte));
        }
        let text = match csv_value(error.message()) {
            Some(found) => {
                place.push_str(&format!(", line {}", found.line));
                match self.columns.fields().get(found.column) {
                    Some(field) => format!(
                        "{place}, column {}: '{}' is not {}",
                        field.name(),
                        found.value,
                        sql_name(field.data_type())
                    ),
                    None => format!("{place}: '{}' is not {}", found.value, found.data_type),
                }
            }
            None => {
                if rows_before > 0 {
                    place.push_str(&format!(", after row {rows_before}"));
                }
                format!("{place}: {}", error.message())
            }
        };
        error.reworded(text).into()
    }
}

struct CsvValue<'a> {
    value: &'a str,
    data_type: &'a str,
    column: usize,
    line: usize,
}

/// What Arrow's CSV reader says of a value: the column from zero, the line from zero.
fn csv_value(message: &str) -> Option<CsvValue<'_>> {
    let (_, rest) = message.split_once("rror while parsing value '")?;
    let (value, rest) = rest.split_once("' as type '")?;
    let (data_type, rest) = rest.split_once("' for column ")?;
    let (column, rest) = rest.split_once(" at line ")?;
    let (line, _) = rest.split_once('.')?;
    Some(CsvValue {
        value,
        data_type,
        column: column.parse().ok()?,
        line: line.parse::<usize>().ok()?.checked_add(1)?,
    })
}

//! DataFusion's own Parquet source over files of a table, as every scan of ours uses it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetFileReaderFactory,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectMeta;

use super::snapshot::TableRoot;
use crate::store::Whole;

/// The source of `columns`. `reader` is put around the one that keeps footers for the session.
pub(super) fn source(
    session: &dyn Session,
    root: &TableRoot,
    columns: TableSchema,
    reader: impl FnOnce(CachedParquetFileReaderFactory) -> Arc<dyn ParquetFileReaderFactory>,
) -> ParquetSource {
    let mut options = session.config_options().execution.parquet.clone();
    // Read as nanoseconds, the legacy timestamps of Spark overflow outside 1677 to 2262.
    options.coerce_int96 = Some("us".into());
    options.coerce_int96_tz = Some("UTC".into());
    let footer_hint = options.metadata_size_hint;
    let footers = session
        .runtime_env()
        .cache_manager
        .get_file_metadata_cache();
    let store = Arc::new(Whole(Arc::clone(&root.store)));
    let source = ParquetSource::new(columns)
        .with_table_parquet_options(TableParquetOptions {
            global: options,
            ..TableParquetOptions::default()
        })
        .with_parquet_file_reader_factory(reader(CachedParquetFileReaderFactory::new(
            store, footers,
        )));
    match footer_hint {
        Some(bytes) => source.with_metadata_size_hint(bytes),
        None => source,
    }
}

/// The footer of a file as scans of the session find it: kept for the session, in the names of the file.
pub(super) async fn footer(
    session: &dyn Session,
    root: &TableRoot,
    file: &ObjectMeta,
    pages: PageIndexPolicy,
) -> Result<Arc<ParquetMetaData>> {
    let runtime = session.runtime_env();
    let footers = runtime.cache_manager.get_file_metadata_cache();
    let hint = session
        .config_options()
        .execution
        .parquet
        .metadata_size_hint;
    DFParquetMetadata::new(&Whole(Arc::clone(&root.store)), file)
        .with_metadata_size_hint(hint)
        .with_file_metadata_cache(Some(footers))
        .with_page_index_policy(Some(pages))
        .fetch_metadata()
        .await
}

/// Readers that keep the page index with the footer, where `pages` asks for one.
///
/// DataFusion's own keep the footer alone: a scan that needs the index of pages reads and decodes it each time anew,
/// which for one key of a large table costs more than all else.
#[derive(Debug)]
pub(super) struct Indexed<F> {
    pub inner: F,
    pub pages: PageIndexPolicy,
}

impl<F: ParquetFileReaderFactory> ParquetFileReaderFactory for Indexed<F> {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let inner = self
            .inner
            .create_reader(partition_index, file, metadata_size_hint, metrics)?;
        Ok(match self.pages {
            PageIndexPolicy::Skip => inner,
            _ => Box::new(IndexedReader(inner)),
        })
    }
}

struct IndexedReader(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for IndexedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        let options = options.cloned().unwrap_or_default();
        let options = options.with_page_index_policy(PageIndexPolicy::Optional);
        async move { self.0.get_metadata(Some(&options)).await }.boxed()
    }
}

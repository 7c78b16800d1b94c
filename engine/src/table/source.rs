//! DataFusion's own Parquet source over files of a table, as every scan of ours uses it.

use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use object_store::ObjectMeta;

use super::reader::{FooterChange, Readers};
use super::snapshot::TableRoot;
use crate::error::{Error, Result};
use crate::store::Whole;

/// The source of `columns`. Footers are kept for the session, with the index of `pages` where it is wanted, and
/// changed after that.
pub(super) fn source(
    session: &dyn Session,
    root: &TableRoot,
    columns: TableSchema,
    pages: PageIndexPolicy,
    changes: Vec<Box<dyn FooterChange>>,
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
    let readers = CachedParquetFileReaderFactory::new(store, footers);
    let source = ParquetSource::new(columns)
        .with_table_parquet_options(TableParquetOptions {
            global: options,
            ..TableParquetOptions::default()
        })
        .with_parquet_file_reader_factory(Arc::new(Readers::new(readers, pages, changes)));
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
        .map_err(Error::from)
}

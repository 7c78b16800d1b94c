//! DataFusion's own Parquet source over files of a table, as every scan of ours uses it.

use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::config::TableParquetOptions;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetFileReaderFactory,
};
use datafusion::datasource::table_schema::TableSchema;

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

//! Where the rows of a scan are: the file, and the position in it.
//!
//! UPDATE, DELETE and MERGE are planned as queries over the table with these two columns more; the write path
//! takes them off again and turns them into deletion vectors.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::ScalarValue;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::parquet::arrow::RowNumber;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use object_store::ObjectStoreExt;
use parking_lot::Mutex;

use super::snapshot::{DataFile, Snapshot, TableRoot};
use super::{prune, source};
use crate::error::{Error, Result};

/// Column that holds the number of the row's file in [`Located`].
pub(crate) const FILE: &str = "__selvedge_file";
/// Column that holds the row's position in its file, deleted rows counted.
pub(crate) const ROW: &str = "__selvedge_row";

/// What a located scan was asked for and which files it read, filled while it is planned.
#[derive(Debug, Default)]
pub(crate) struct Located {
    files: Mutex<Vec<Arc<DataFile>>>,
    asked: Mutex<Option<Asked>>,
}

/// The rows a statement looked at: those that pass all of these filters.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    state: SessionState,
    filters: Vec<Expr>,
}

impl Located {
    /// Notes the filters of the scan. A table that is scanned twice was looked at by either.
    pub(super) fn asked(&self, session: &dyn Session, filters: &[Expr]) -> Result<()> {
        let state = session
            .as_any()
            .downcast_ref::<SessionState>()
            .ok_or_else(|| Error::internal("a change needs DataFusion's own session state"))?;
        let mut asked = self.asked.lock();
        let filters = match asked.take() {
            Some(before) if before.filters != filters => Vec::new(),
            _ => filters.to_vec(),
        };
        *asked = Some(Asked {
            state: state.clone(),
            filters,
        });
        Ok(())
    }

    /// The number that stands for `file` in the rows of the scan.
    pub(super) fn number(&self, file: &Arc<DataFile>) -> Result<ScalarValue> {
        let mut files = self.files.lock();
        let number = u32::try_from(files.len())
            .map_err(|_| Error::unsupported("a change of more than 2^32 files"))?;
        files.push(Arc::clone(file));
        Ok(ScalarValue::UInt32(Some(number)))
    }

    /// The files by their numbers. A file may have several.
    pub(crate) fn files(&self) -> Vec<Arc<DataFile>> {
        self.files.lock().clone()
    }

    /// The rows the statement looked at, once its plan is made; `None` when it did not scan the table.
    pub(crate) fn looked_at(&self) -> Option<Asked> {
        self.asked.lock().clone()
    }
}

impl Asked {
    /// Whether a file of `snapshot` may hold a row that the statement would have looked at.
    pub(crate) fn touches(&self, snapshot: &Snapshot) -> Result<bool> {
        let found = prune::select_files(&self.state, snapshot, &self.filters)?;
        Ok(!found.is_empty())
    }
}

/// The columns of a table and the place of each row.
pub(super) fn with_places(schema: &SchemaRef) -> SchemaRef {
    let places = [
        Field::new(FILE, DataType::UInt32, false),
        Field::new(ROW, DataType::Int64, false).with_extension_type(RowNumber),
    ];
    let fields = schema.fields().iter().cloned();
    let fields: Vec<_> = fields.chain(places.map(Arc::new)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Rows of a data file, deleted ones counted: from the log, or from the footer where the writer left no count.
pub(crate) async fn physical_rows(
    root: &TableRoot,
    file: &DataFile,
    schema: &SchemaRef,
) -> Result<u64> {
    if let Some(rows) = file.stats(schema).and_then(|stats| stats.num_records) {
        return Ok(rows);
    }
    let footer = footer(root, file).await?;
    let rows = footer.file_metadata().num_rows();
    u64::try_from(rows)
        .map_err(|_| Error::corrupt(format!("data file '{}' has {rows} rows", file.add.path)))
}

/// The footer of a data file with the index of its pages, where it has one; in the names of the file, and kept for
/// the session.
pub(crate) async fn indexed_footer(
    session: &dyn Session,
    root: &TableRoot,
    file: &DataFile,
) -> Result<Arc<ParquetMetaData>> {
    let meta = file.object_meta(root)?;
    source::footer(session, root, &meta, PageIndexPolicy::Optional).await
}

/// The footer of a data file, in the names of the file.
pub(crate) async fn footer(root: &TableRoot, file: &DataFile) -> Result<Arc<ParquetMetaData>> {
    let path = root.locate(&file.add.path)?;
    let meta = root
        .store
        .head(&path)
        .await
        .map_err(|error| Error::storage(format!("cannot read data file '{path}'"), error))?;
    DFParquetMetadata::new(root.store.as_ref(), &meta)
        .fetch_metadata()
        .await
        .map_err(|error| {
            Error::corrupt(format!("the footer of data file '{path}' cannot be read"))
                .with_source(error)
        })
}

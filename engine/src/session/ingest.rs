//! Rows that come as a stream, not as SQL: written through the same path, in one commit.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use futures::stream;
use parking_lot::Mutex;

use super::insert::{self, Assignment};
use super::site::{self, Spec};
use super::{Session, run_write};
use super::{policy, references};
use crate::catalog::entry::Relation;
use crate::error::{Error, ErrorKind, Result};
use crate::write::report::WriteReport;

/// What [`Session::ingest`] does with a table that exists or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestMode {
    /// The table must not exist; it is created with the schema of the rows.
    Create,
    /// The table must exist; rows are added.
    Append,
    /// The table is created, or replaced with its data if it exists.
    Replace,
    /// Rows are added; the table is created first if it does not exist.
    CreateAppend,
}

impl Session {
    /// Writes a stream of rows into a table in one commit, through the write path. Columns are matched by name;
    /// those the rows lack get their default.
    ///
    /// # Errors
    /// Nothing is written when the stream fails, a row is refused, or the table is not as `mode` says.
    pub async fn ingest(
        &self,
        schema: Option<&str>,
        table: &str,
        mode: IngestMode,
        rows: SendableRecordBatchStream,
    ) -> Result<WriteReport> {
        let scope = self.begin().await?;
        let schema = schema.unwrap_or(scope.search_schema()).to_owned();
        let exists = match scope.pinned.catalog.relation(&schema, table) {
            None => false,
            Some(Relation::Table(_)) => true,
            Some(_) => {
                return Err(Error::invalid(format!(
                    "{schema}.{table} is not a table rows can be written to"
                )));
            }
        };
        let columns = rows.schema();
        let source = source(rows)?;
        match (mode, exists) {
            (IngestMode::Create, true) => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{schema}.{table} already exists"),
            )),
            (IngestMode::Append, false) => Err(scope.no_such_table(&schema, table)),
            (IngestMode::Append | IngestMode::CreateAppend, true) => {
                let name = ObjectName::from(vec![
                    Ident::with_quote('"', schema.as_str()),
                    Ident::with_quote('"', table),
                ]);
                let opened = scope.open(&name).await?;
                let plan = insert::into(
                    &scope,
                    &opened,
                    source,
                    &Assignment::Names,
                    InsertOp::Append,
                )?;
                run_write(&scope, &plan).await
            }
            (IngestMode::Create | IngestMode::CreateAppend, false) | (IngestMode::Replace, _) => {
                if !scope.pinned.catalog.schemas.contains_key(&schema) {
                    return Err(scope.no_such_schema(&schema));
                }
                let columns = super::columns::stored_columns(&columns)?;
                if exists {
                    let name = references::object(&schema, table);
                    if scope.open(&name).await?.shape()?.is_some() {
                        return Err(Error::unsupported(format!(
                            "{schema}.{table} is a journal table, whose history a replacement would end"
                        ))
                        .with_hint("append to it, or DROP TABLE it first"));
                    }
                }
                // A table that is replaced goes on forgetting what it must.
                let place = (schema.as_str(), table);
                let (columns, configuration) = policy::carried(&scope, place, columns, &[]).await?;
                let spec = Spec {
                    schema,
                    table: table.to_owned(),
                    columns,
                    partitioned_by: Vec::new(),
                    configuration,
                    comment: None,
                    or_replace: mode == IngestMode::Replace,
                    snapshots: false,
                };
                site::filled(&scope, &spec, source, &Assignment::Names).await
            }
        }
    }
}

fn source(rows: SendableRecordBatchStream) -> Result<LogicalPlan> {
    let once = Once {
        schema: rows.schema(),
        rows: Mutex::new(Some(rows)),
    };
    let table = StreamingTable::try_new(Arc::clone(&once.schema), vec![Arc::new(once)])?;
    Ok(LogicalPlanBuilder::scan("rows", provider_as_source(Arc::new(table)), None)?.build()?)
}

/// A stream that can be read once: a second reader would get other rows.
struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.rows.lock().take().unwrap_or_else(|| {
            let again = Error::internal("a stream of rows was read twice");
            let rows = stream::iter([Err(again.into())]);
            Box::pin(RecordBatchStreamAdapter::new(
                Arc::clone(&self.schema),
                rows,
            ))
        })
    }
}

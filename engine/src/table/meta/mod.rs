//! What a table says of itself, as relations: read from a snapshot and the log, never from a data file.
//!
//! | file | relation | a row is |
//! | --- | --- | --- |
//! | `history` | `t$history` | a commit that the log still has |
//! | `files` | `t$files` | a live data file |
//! | `partitions` | `t$partitions` | the live files with the same partition values |
//! | `properties` | `t$properties` | a property, or a feature of the protocol |
//! | `constraints` | `t$constraints` | a CHECK or NOT NULL |
//!
//! `column` is what they are written in: a column is a name, a type, and how its value is told from a
//! row. Columns that a query does not name are never made.

mod column;
mod constraints;
mod files;
mod history;
mod partitions;
mod properties;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use self::column::Columns;
use super::snapshot::{Snapshot, TableRoot};

/// The relations that every versioned table has beside its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    History,
    Files,
    Partitions,
    Properties,
    Constraints,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::History,
        Self::Files,
        Self::Partitions,
        Self::Properties,
        Self::Constraints,
    ];

    /// What stands behind the table's name and a `$`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Files => "files",
            Self::Partitions => "partitions",
            Self::Properties => "properties",
            Self::Constraints => "constraints",
        }
    }

    pub(crate) fn named(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix)
    }
}

/// One of these relations, of one version of a table.
#[derive(Debug)]
pub(crate) struct MetadataTable {
    kind: Kind,
    snapshot: Arc<Snapshot>,
    root: TableRoot,
    schema: SchemaRef,
}

impl MetadataTable {
    pub(crate) fn new(kind: Kind, snapshot: Arc<Snapshot>, root: TableRoot) -> Self {
        let fields: Vec<Field> = match kind {
            Kind::History => history::columns().fields(),
            Kind::Files => files::columns(&snapshot).fields(),
            Kind::Partitions => partitions::columns(&snapshot).fields(),
            Kind::Properties => properties::columns().fields(),
            Kind::Constraints => constraints::columns().fields(),
        };
        Self {
            kind,
            snapshot,
            root,
            schema: Arc::new(Schema::new(fields)),
        }
    }
}

#[async_trait]
impl TableProvider for MetadataTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.kind {
            Kind::History if history::of_versions(filter) => TableProviderFilterPushDown::Exact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let snapshot = &self.snapshot;
        match self.kind {
            Kind::History => {
                let (version, root) = (snapshot.version, &self.root);
                history::scan(session, root, version, projection, filters, limit).await
            }
            Kind::Files => {
                let files = snapshot.files.values().cloned();
                of_memory(files::columns(snapshot), files, projection, limit)
            }
            Kind::Partitions => {
                let partitions = partitions::of(snapshot);
                of_memory(partitions::columns(snapshot), partitions, projection, limit)
            }
            Kind::Properties => {
                let properties = properties::of(snapshot);
                of_memory(properties::columns(), properties, projection, limit)
            }
            Kind::Constraints => {
                let constraints = constraints::of(snapshot);
                of_memory(constraints::columns(), constraints, projection, limit)
            }
        }
    }
}

/// A relation whose rows are at hand.
fn of_memory<T: Clone + Send + Sync + 'static>(
    columns: Columns<T>,
    rows: impl IntoIterator<Item = T>,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let rows: Arc<[T]> = rows.into_iter().collect();
    columns.project(projection).plan(limit, move || {
        let rows = Arc::clone(&rows);
        let batches = (0..rows.len())
            .step_by(column::BATCH_ROWS)
            .map(move |from| Ok(rows[from..rows.len().min(from + column::BATCH_ROWS)].to_vec()));
        Box::pin(futures::stream::iter(batches))
    })
}

//! What a table says of itself, as relations: read from a snapshot and the log, never from a data file. Only
//! quarantined rows have files, of their own.
//!
//! | file | relation | a row is |
//! | --- | --- | --- |
//! | `history` | `t$history` | a commit that the log still has |
//! | `files` | `t$files` | a live data file |
//! | `partitions` | `t$partitions` | the live files with the same partition values |
//! | `properties` | `t$properties` | a property, or a feature of the protocol |
//! | `constraints` | `t$constraints` | a CHECK, NOT NULL or rule |
//! | `policies` | `t$policies` | a cleanse policy, and where it last found something |
//! | `quality` | `t$quality` | what a write said of a rule |
//! | `metrics` | `t$metrics` | a number about the rows of a write |
//! | `quarantine` | `t$quarantine` | a row that a rule kept out of the table |
//!
//! `t$journal` is none of them: its rows are those of the table, every interval of a journal.
//!
//! `lenient` reads files of rows that were meant for other columns.
//!
//! `column` is what they are written in: a column is a name, a type, and how its value is told from a
//! row. Columns that a query does not name are never made.

mod column;
mod constraints;
mod files;
mod history;
mod lenient;
mod metrics;
mod partitions;
mod policies;
mod properties;
mod quality;
mod quarantine;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

pub(crate) use self::column::Columns;
pub(crate) use self::quarantine::QuarantineTable;
use super::records::Record;
use super::retention;
use super::snapshot::{Snapshot, TableRoot};

/// The relations that every versioned table has beside its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    History,
    Files,
    Partitions,
    Properties,
    Constraints,
    Quality,
    Metrics,
    Quarantine,
    Policies,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::History,
        Self::Files,
        Self::Partitions,
        Self::Properties,
        Self::Constraints,
        Self::Quality,
        Self::Metrics,
        Self::Quarantine,
        Self::Policies,
    ];

    /// What stands behind the table's name and a `$`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Files => "files",
            Self::Partitions => "partitions",
            Self::Properties => "properties",
            Self::Constraints => "constraints",
            Self::Quality => "quality",
            Self::Metrics => "metrics",
            Self::Quarantine => "quarantine",
            Self::Policies => "policies",
        }
    }

    fn named(suffix: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix)
    }
}

/// What stands behind the name of a table and a `$`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Rows of the table itself: every interval of a journal.
    Journal,
    /// What the table says of itself.
    Metadata(Kind),
}

impl Beside {
    const JOURNAL: &str = "journal";

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Journal => Self::JOURNAL,
            Self::Metadata(kind) => kind.suffix(),
        }
    }

    /// All there are, those of any table first.
    pub(crate) fn suffixes() -> impl Iterator<Item = &'static str> {
        Kind::ALL
            .into_iter()
            .map(Kind::suffix)
            .chain([Self::JOURNAL])
    }

    pub(crate) fn named(suffix: &str) -> Option<Self> {
        match suffix {
            Self::JOURNAL => Some(Self::Journal),
            _ => Kind::named(suffix).map(Self::Metadata),
        }
    }
}

/// One of these relations, of one version of a table.
#[derive(Debug)]
pub(crate) struct MetadataTable {
    kind: Kind,
    snapshot: Arc<Snapshot>,
    root: TableRoot,
    schema: SchemaRef,
    /// Whether a statement chose the version, so that what came after it is not told.
    of_the_past: bool,
}

impl MetadataTable {
    pub(crate) fn new(kind: Kind, snapshot: Arc<Snapshot>, root: TableRoot) -> Self {
        let schema = match kind {
            Kind::History => history::columns().schema(),
            Kind::Files => files::columns(&snapshot).schema(),
            Kind::Partitions => partitions::columns(&snapshot).schema(),
            Kind::Properties => properties::columns().schema(),
            Kind::Constraints => constraints::columns().schema(),
            Kind::Quality => quality::columns().schema(),
            Kind::Metrics => metrics::columns().schema(),
            Kind::Quarantine => quarantine::schema(&snapshot),
            Kind::Policies => policies::columns().schema(),
        };
        Self {
            kind,
            snapshot,
            root,
            schema,
            of_the_past: false,
        }
    }

    /// The same, of a version that a statement chose. What was refused later has no version to tell it by.
    pub(crate) fn of_the_past(mut self) -> Self {
        self.of_the_past = true;
        self
    }

    /// A relation of what writes said of their rules.
    fn of_records<T: Send + Sync + 'static>(
        &self,
        session: &dyn Session,
        columns: Columns<T>,
        split: fn(Record) -> Vec<T>,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let until_ms = match self.of_the_past {
            true => self.snapshot.committed_at_ms,
            false => i64::MAX,
        };
        let past_ms = past_ms(session, &self.snapshot)?;
        let refused = past_ms.saturating_add(1)..=until_ms;
        let (root, newest) = (self.root.clone(), self.snapshot.version);
        columns.project(projection).plan(limit, move || {
            quality::rows(&root, newest, refused.clone(), split)
        })
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
            Kind::Quarantine if quarantine::of_writes(filter) => TableProviderFilterPushDown::Exact,
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
                let root = &self.root;
                history::scan(session, root, snapshot, projection, filters, limit).await
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
                let constraints = constraints::of(snapshot, &self.root)?;
                of_memory(constraints::columns(), constraints, projection, limit)
            }
            Kind::Quality => {
                let columns = quality::columns();
                self.of_records(session, columns, quality::split, projection, limit)
            }
            Kind::Metrics => {
                let columns = metrics::columns();
                self.of_records(session, columns, metrics::split, projection, limit)
            }
            Kind::Quarantine => {
                let rows = QuarantineTable::new(Arc::clone(snapshot), self.root.clone());
                rows.scan(session, projection, filters, limit).await
            }
            Kind::Policies => {
                let policies = policies::of(snapshot, &self.root).await?;
                of_memory(policies::columns(), policies, projection, limit)
            }
        }
    }
}

/// What was quarantined or refused until then is not told any more.
fn past_ms(session: &dyn Session, snapshot: &Snapshot) -> Result<i64> {
    match session.execution_props().query_execution_start_time {
        Some(now) => Ok(retention::quarantine_past_ms(
            snapshot,
            now.timestamp_millis(),
        )?),
        // Where nobody says what time it is, nothing is past.
        None => Ok(i64::MIN),
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

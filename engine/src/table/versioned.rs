//! A versioned table as DataFusion sees it: one version, scanned by DataFusion's own Parquet source.
//!
//! ```text
//! filters -> files (prune) -> enough for the limit -> without deleted rows (pieces) -> FileScanConfig
//! ```
//!
//! What deletion vectors hide is dropped around the source (`visible`), so that row groups, pages and bloom
//! filters are pruned, filters are pushed down and files are split between partitions with them as
//! without. Only the columns a query names reach the source, so that planning never costs
//! files x columns.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue, Statistics, TableReference, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, ident, lit};
use datafusion::parquet::file::metadata::PageIndexPolicy;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::{StreamExt, TryStreamExt, stream};

use super::footer::{self, Sound};
use super::located::{self, Located};
use super::mapped_footer::Names;
use super::mapping::{self, Mode};
use super::reader::FooterChange;
use super::snapshot::{DataFile, Snapshot, TableRoot};
use super::stats::{Summary, VisibleStats};
use super::visible::Visible;
use super::{partition, pieces, prune, source};
use crate::error::Error;
use crate::journal::definition;
use crate::journal::shape::Shape;
use crate::write::target::{JournalMode, JournalTarget, WriteTarget};

/// Deletion vectors that are read at once while a scan is planned.
const CONCURRENT_READS: usize = 16;

/// One version of a versioned table.
#[derive(Debug, Clone)]
pub(crate) struct VersionedTable {
    name: TableReference,
    snapshot: Arc<Snapshot>,
    root: TableRoot,
    /// Columns as queries see them, and the place of each row when the scan is located.
    columns: SchemaRef,
    located: Option<Arc<Located>>,
    /// Of a journal: that only its current rows are seen, in its declared columns.
    current: Option<Arc<Shape>>,
    /// Terms of writes through this table; without them it is read-only.
    target: Option<Arc<WriteTarget>>,
}

impl VersionedTable {
    pub(crate) fn new(
        name: impl Into<TableReference>,
        snapshot: Arc<Snapshot>,
        root: TableRoot,
    ) -> Self {
        Self {
            name: name.into(),
            columns: mapping::logical(&snapshot.schema),
            snapshot,
            root,
            located: None,
            current: None,
            target: None,
        }
    }

    /// A journal's current rows in the columns that were declared; any other table as it is.
    ///
    /// The flag that tells them is the partition of their files, so files are chosen and no row is filtered: counts,
    /// limits and statistics stay those of the log.
    pub(crate) fn current(mut self) -> Result<Self, Error> {
        let Some(shape) = Shape::of(&self.name.to_string(), &self.snapshot)? else {
            return Ok(self);
        };
        let flag = &shape.definition.columns.current;
        if self.snapshot.partition_columns() != std::slice::from_ref(flag) {
            return Err(Error::corrupt(format!(
                "table {}: a journal is partitioned by {flag}, and its metadata says otherwise",
                self.name
            )));
        }
        self.columns = match self.located {
            Some(_) => located::with_places(&shape.declared),
            None => Arc::clone(&shape.declared),
        };
        self.current = Some(shape);
        Ok(self)
    }

    /// The journal whose current rows these are.
    pub(crate) fn shape(&self) -> Option<&Arc<Shape>> {
        self.current.as_ref()
    }

    /// The same table, open for rows that are made from its own.
    pub(crate) fn reading_itself(mut self) -> Self {
        if let Some(target) = &self.target {
            let target = WriteTarget {
                reads_itself: true,
                ..target.as_ref().clone()
            };
            self.target = Some(Arc::new(target));
        }
        self
    }

    /// The same table, where it is a journal, open for rows that are to it what `mode` says. `moves`: current rows may
    /// get another key by them.
    pub(crate) fn journaling(mut self, mode: JournalMode, moves: bool) -> Self {
        if let Some(target) = &self.target
            && let Some(journal) = &target.journal
        {
            let journal = JournalTarget {
                mode,
                moves,
                ..journal.as_ref().clone()
            };
            let target = WriteTarget {
                journal: Some(Arc::new(journal)),
                ..target.as_ref().clone()
            };
            self.target = Some(Arc::new(target));
        }
        self
    }

    /// The same table with the place of each row as two columns more, for statements that change rows.
    pub(crate) fn located(mut self, located: Arc<Located>) -> Self {
        self.columns = located::with_places(&self.columns);
        self.located = Some(located);
        self
    }

    pub(crate) fn name(&self) -> &TableReference {
        &self.name
    }

    /// Whether this is the table at `root`, and not only to say where rows are.
    pub(crate) fn reads(&self, root: &TableRoot) -> bool {
        self.located.is_none()
            && self.root.path == root.path
            && self.root.store_url == root.store_url
    }

    /// The same table, open for writes on these terms.
    pub(crate) fn with_target(mut self, target: Arc<WriteTarget>) -> Self {
        self.target = Some(target);
        self
    }

    /// DataFusion's own DML loses predicates (subqueries, `LIMIT`), so it ends here; the engine
    /// plans these statements itself.
    fn refuse(&self, statement: &str) -> Result<Arc<dyn ExecutionPlan>> {
        Err(Error::unsupported(format!(
            "{statement} on table {} through DataFusion's own planner",
            self.name
        ))
        .with_hint("run the statement in a session of the engine")
        .into())
    }
}

#[async_trait]
impl TableProvider for VersionedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match prune::partition_only(&self.snapshot, filter) {
            true => TableProviderFilterPushDown::Exact,
            // The filter stays in the plan, and DataFusion hands it to the source as well.
            false => TableProviderFilterPushDown::Inexact,
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
        let sought = !filters.is_empty();
        let filters = &self.of_view(filters);
        let mut files = prune::select_files(session, &self.snapshot, filters)?;
        // A file without visible rows may still lack a column that is NOT NULL by now.
        files.retain(|file| file.rows(&self.snapshot.schema) != Some(0));
        if let Some(located) = &self.located {
            located.asked(session, filters)?;
        }
        // A limit counts rows all filters accept, which only exact filters tell beforehand.
        let exact = |filter| prune::partition_only(&self.snapshot, filter);
        let limit = limit.filter(|_| filters.iter().all(exact));
        let all = files.len();
        if let Some(limit) = limit {
            keep_enough(&mut files, &self.snapshot, limit);
        }
        if files.is_empty() {
            let schema = project_schema(&self.columns, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let columns = ScanColumns::new(&self.snapshot, &self.columns, projection)?;
        let cut = files.len() < all;
        // Filters, and places of single rows, lead to few pages of a journal: only there the index of pages is kept.
        let journal = self.snapshot.property(definition::PROPERTY).is_some();
        let pages = match journal && (sought || self.located.is_some()) {
            true => PageIndexPolicy::Optional,
            false => PageIndexPolicy::Skip,
        };
        let hidden = files.iter().any(|file| file.add.deletion_vector.is_some());
        let (files, statistics) = self.open(session, files, &columns, pages).await?;
        let statistics = if cut {
            statistics.to_inexact()
        } else {
            statistics
        };

        if files.is_empty() {
            let schema = project_schema(&self.columns, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let parquet = |schema| self.source(session, schema, pages);
        let schema = columns.table_schema.clone();
        let source: Arc<dyn FileSource> = match hidden {
            true => Arc::new(Visible::new(schema, parquet)),
            false => Arc::new(parquet(schema)),
        };
        let config = FileScanConfigBuilder::new(self.root.store_url.clone(), source)
            .with_file_groups(
                FileGroup::new(files).split_files(session.config().target_partitions()),
            )
            .with_statistics(statistics)
            .with_projection_indices(Some(columns.order))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// The way in for rows, whoever sends them: SQL, a DataFrame, a server.
    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.target {
            Some(target) => Ok(crate::write::plan(state, target, input, op).await?),
            None => Err(Error::unsupported(format!(
                "table {} is read at version {} and cannot be written",
                self.name, self.snapshot.version
            ))
            .with_hint("write to the table without a version clause")
            .into()),
        }
    }

    async fn delete_from(
        &self,
        _session: &dyn Session,
        _filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.refuse("DELETE")
    }

    async fn update(
        &self,
        _session: &dyn Session,
        _assignments: Vec<(String, Expr)>,
        _filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.refuse("UPDATE")
    }

    async fn truncate(&self, _session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        self.refuse("TRUNCATE")
    }
}

impl VersionedTable {
    /// What a row must meet: the filters of the query, and to be current where only such rows are seen.
    fn of_view(&self, filters: &[Expr]) -> Vec<Expr> {
        let current = self.current.iter().map(|shape| {
            let flag = shape.definition.columns.current.as_str();
            ident(flag).eq(lit(true))
        });
        filters.iter().cloned().chain(current).collect()
    }

    fn source(
        &self,
        session: &dyn Session,
        schema: TableSchema,
        pages: PageIndexPolicy,
    ) -> ParquetSource {
        let mut changes: Vec<Box<dyn FooterChange>> = vec![];
        if footer::holds_floats(schema.file_schema()) {
            changes.push(Box::new(Sound));
        }
        let mode = self.snapshot.mapping();
        if mode != Mode::None {
            changes.push(Box::new(Names::new(mode, &self.snapshot.schema)));
        }
        source::source(session, &self.root, schema, pages, changes)
    }

    /// Describes `files` to the source, reading the deletion vectors that are not in memory yet.
    async fn open(
        &self,
        session: &dyn Session,
        files: Vec<&Arc<DataFile>>,
        columns: &ScanColumns,
        pages: PageIndexPolicy,
    ) -> Result<(Vec<PartitionedFile>, Statistics)> {
        let schema = &self.snapshot.schema;
        let file_columns = columns.table_schema.file_schema().fields();
        let partition_columns = &columns.partition;
        let mut summary = Summary::new(columns.table_schema.table_schema().fields().len());
        let mut opened = Vec::with_capacity(files.len());
        let mut all_bytes = 0;
        for file in &files {
            let values = partition_columns
                .iter()
                .map(|field| match &self.located {
                    Some(located) if field.name() == located::FILE => located.number(file),
                    _ => partition::value_of(file, field),
                })
                .collect::<Result<Vec<ScalarValue>, _>>()?;
            let stats = VisibleStats::new(file, schema, file_columns, &values);
            let meta = file.object_meta(&self.root)?;
            summary.add(&stats, meta.size as usize);
            all_bytes += meta.size;
            let mut described = PartitionedFile::new_from_meta(meta);
            described.partition_values = values;
            // Not `with_statistics`, which takes a null partition value for a value.
            described.statistics = Some(Arc::new(stats.into_bounds()));
            opened.push(described);
        }
        let bytes = pieces::bytes(all_bytes, session.config_options());
        let opened: Vec<_> = stream::iter(files.into_iter().cloned().zip(opened))
            .map(|(file, described)| async move {
                self.pieces(session, &file, described, pages, bytes).await
            })
            .buffered(CONCURRENT_READS)
            .try_collect()
            .await?;
        let fields: Vec<FieldRef> = columns.table_schema.table_schema().fields().to_vec();
        Ok((opened.concat(), summary.finish(&fields)))
    }

    /// A file in pieces of so many `bytes`, without the rows its deletion vector names.
    async fn pieces(
        &self,
        session: &dyn Session,
        file: &DataFile,
        described: PartitionedFile,
        pages: PageIndexPolicy,
        bytes: u64,
    ) -> Result<Vec<PartitionedFile>> {
        let meta = &described.object_meta;
        let footer = source::footer(session, &self.root, meta, pages);
        Ok(match file.remains(&self.root, footer).await? {
            Some(remains) => remains.of(&described, bytes),
            None => pieces::cut(described, bytes),
        })
    }
}

/// Drops the files a limit does not need. A file without row count is kept, and counts nothing.
fn keep_enough(files: &mut Vec<&Arc<DataFile>>, snapshot: &Snapshot, limit: usize) {
    let mut rows: u64 = 0;
    let enough = files.iter().position(|file| {
        rows = rows.saturating_add(file.rows(&snapshot.schema).unwrap_or(0));
        rows >= limit as u64
    });
    if let Some(last) = enough {
        files.truncate(last + 1);
    }
}

/// The columns of a scan as the source wants them: of the file first, then of the partition.
struct ScanColumns {
    table_schema: TableSchema,
    /// The columns of the partition as the snapshot has them, with the names the log has for them.
    partition: Vec<FieldRef>,
    /// Positions in `table_schema`, in the order the query wants.
    order: Vec<usize>,
}

impl ScanColumns {
    fn new(
        snapshot: &Snapshot,
        columns: &SchemaRef,
        projection: Option<&Vec<usize>>,
    ) -> Result<Self> {
        let wanted = project_schema(columns, projection)?;
        let (virtual_columns, stored): (Vec<FieldRef>, Vec<FieldRef>) = wanted
            .fields()
            .iter()
            .cloned()
            .partition(|field| field.name() == located::ROW);
        // The file a row is in is the same for all rows of it, as the value of a partition is.
        let (partition, file): (Vec<FieldRef>, Vec<FieldRef>) =
            stored.into_iter().partition(|field| {
                snapshot.partition_columns().contains(field.name()) || field.name() == located::FILE
            });
        let of_snapshot = partition.iter().map(|field| {
            let found = snapshot.schema.fields().find(field.name());
            Arc::clone(found.map_or(field, |(_, field)| field))
        });
        let of_snapshot = of_snapshot.collect();
        let table_schema = TableSchema::builder(Arc::new(Schema::new(file)))
            .with_table_partition_cols(partition)
            .with_virtual_columns(virtual_columns)
            .build();
        let order = wanted
            .fields()
            .iter()
            .map(|field| table_schema.table_schema().index_of(field.name()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            table_schema,
            partition: of_snapshot,
            order,
        })
    }
}

#[cfg(test)]
mod tests;

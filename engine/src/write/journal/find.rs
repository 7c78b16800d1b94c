//! The stored rows that the events of a write are about.
//!
//! ```text
//! files (partition, statistics) -> pages that may have a key (candidates) -> rows that do and are not deleted (picked)
//!     -> in order
//! ```
//!
//! Only candidate pages are read, each once, by all partitions at a time. So a write of few keys costs few pages, and
//! one of keys from everywhere a single pass over the table. What is picked is sorted, on disk where it is too much for
//! memory.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{StreamExt, TryStreamExt, stream};

use super::super::quality::unexpected;
use super::accept::{Accepted, sequences};
use super::candidates::Ranges;
use super::picked::{Deleted, Picked};
use crate::error::{Error, Result};
use crate::journal::event::{self, SEQUENCE};
use crate::journal::horizon::{self, Kept};
use crate::journal::key::{self, KeySet};
use crate::journal::shape::Shape;
use crate::table::handle::Table;
use crate::table::located::Located;
use crate::table::prune::select_files;
use crate::table::schema::nullable;
use crate::table::snapshot::{DataFile, Snapshot};

/// Files that are looked into at once at least: who looks into one waits for its footer as a rule.
const CONCURRENT_READS: usize = 16;

/// Keys whose kept events are held in memory.
const FEW_KEYS: usize = 64 << 10;

/// So few rows are always picked.
const PICKED_ROWS: u64 = 64 << 10;

/// Looks for rows of one version of a journal.
pub(super) struct Finder<'a> {
    pub shape: &'a Arc<Shape>,
    pub table: &'a Arc<Table>,
    pub base: &'a Arc<Snapshot>,
    pub state: &'a SessionState,
    pub context: &'a Arc<TaskContext>,
}

/// Stored intervals in the order of their keys and begins, and which file each number of theirs stands for.
pub(super) struct Stored {
    pub rows: SendableRecordBatchStream,
    pub located: Arc<Located>,
}

/// The keys that rows are looked for by.
struct Sought<'a> {
    keys: &'a Arc<KeySet>,
    ranges: Arc<Ranges>,
    /// That a row has one of the keys, where they are few.
    listed: Option<Expr>,
}

impl Finder<'_> {
    /// The stored rows that matter to the events: what is current of their keys, and what ended at `least` or later.
    pub(super) async fn rows_of(&self, accepted: &Accepted, least: i64) -> Result<Stored> {
        let range = self.range(accepted)?;
        let keys = accepted.keys.as_ref();
        let Some(keys) = keys.filter(|_| !self.is_most(accepted.rows)) else {
            return self.all(range, least).await;
        };
        let ranges = Ranges::of(accepted, self.shape, self.context.memory_pool()).await?;
        let sought = Sought {
            keys,
            listed: ranges.listed()?,
            ranges: Arc::new(ranges),
        };
        self.stored(&range, least, Some(sought)).await
    }

    /// Whether so many events touch so much of the table that reading all of it costs less than picking rows.
    fn is_most(&self, events: u64) -> bool {
        let files = self.base.files.values();
        let rows: u64 = files.filter_map(|file| file.rows(&self.base.schema)).sum();
        events > PICKED_ROWS && events > rows / 5
    }

    /// Everything that is current, and what ended at `least` or later, as far as `filters` go.
    pub(super) async fn all(&self, filters: Vec<Expr>, least: i64) -> Result<Stored> {
        self.stored(&filters, least, None).await
    }

    async fn stored(
        &self,
        filters: &[Expr],
        least: i64,
        sought: Option<Sought<'_>>,
    ) -> Result<Stored> {
        let located = Arc::new(Located::default());
        let mut parts = Vec::with_capacity(2);
        for part in [self.current(), self.closed(least)] {
            let mut filters = [part.as_slice(), filters].concat();
            let files = select_files(self.state, self.base, &filters)?;
            let mut files: Vec<Arc<DataFile>> = files.into_iter().map(Arc::clone).collect();
            if let Some(sought) = &sought {
                files = self.candidates(&sought.ranges, files).await?;
                // Whoever picks by keys needs no range.
                filters = part.into_iter().chain(sought.listed.clone()).collect();
            }
            // What has ended is as a rule older than all that comes: nothing of it is left, and nothing is planned.
            if !files.is_empty() {
                parts.push(self.scan(&located, files, filters).await?);
            }
        }
        if parts.is_empty() {
            let schema = event::stored_schema(self.shape);
            let rows = Box::pin(EmptyRecordBatchStream::new(schema));
            return Ok(Stored { rows, located });
        }
        let mut rows = UnionExec::try_new(parts)?;
        if let Some(sought) = &sought {
            let deleted = Deleted::of(&located, self.base, &self.table.root).await?;
            rows = Picked::plan(self.shape, sought.keys, deleted, rows);
        }
        self.sorted(rows, located)
    }

    fn current(&self) -> Vec<Expr> {
        vec![ident(self.shape.definition.columns.current.as_str())]
    }

    fn closed(&self, least: i64) -> Vec<Expr> {
        let columns = &self.shape.definition.columns;
        let least = ScalarValue::TimestampMicrosecond(Some(least), Some("UTC".into()));
        vec![
            Expr::Not(Box::new(ident(columns.current.as_str()))),
            ident(columns.to.as_str()).gt_eq(Expr::Literal(least, None)),
        ]
    }

    /// These files with none but the rows that may have a key in a range. Each is looked into by a task of its own: a
    /// write of few keys to a table of many files does little else.
    async fn candidates(
        &self,
        ranges: &Arc<Ranges>,
        files: Vec<Arc<DataFile>>,
    ) -> Result<Vec<Arc<DataFile>>> {
        let state = Arc::new(self.state.clone());
        let shown = stream::iter(files).map(|file: Arc<DataFile>| {
            let (ranges, state) = (Arc::clone(ranges), Arc::clone(&state));
            let (table, base) = (Arc::clone(self.table), Arc::clone(self.base));
            // Whoever does not wait for it any more ends it.
            let task = SpawnedTask::spawn(async move {
                ranges.showing(&state, &table.root, &base, &file).await
            });
            async move {
                task.await.map_err(|error| {
                    Error::internal("a task that looks for pages of a journal stopped")
                        .with_source(error)
                })?
            }
        });
        let partitions = self.state.config().target_partitions();
        let shown = shown.buffered(partitions.max(CONCURRENT_READS));
        let shown: Vec<_> = shown.try_collect().await?;
        Ok(shown.into_iter().flatten().collect())
    }

    /// Between which values of the first key column the keys are.
    fn range(&self, accepted: &Accepted) -> Result<Vec<Expr>> {
        let (Some(range), Some(at)) = (&accepted.range, self.shape.keys.first()) else {
            return Ok(Vec::new());
        };
        let name = self.shape.declared.field(*at).name();
        let value = |row: usize| -> Result<Expr> {
            let value = ScalarValue::try_from_array(range.column(*at), row)?;
            Ok(Expr::Literal(value, None))
        };
        let last = range.num_rows().saturating_sub(1);
        Ok(vec![
            ident(name.as_str()).gt_eq(value(0)?),
            ident(name.as_str()).lt_eq(value(last)?),
        ])
    }

    /// The rows of these files that pass the filters, and where they are.
    async fn scan(
        &self,
        located: &Arc<Located>,
        files: Vec<Arc<DataFile>>,
        filters: Vec<Expr>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = files.into_iter();
        let only = Snapshot {
            files: files.map(|file| (file.add.path.clone(), file)).collect(),
            // Deleted rows among them may lack what was declared NOT NULL later.
            schema: Arc::new(nullable(&self.base.schema)),
            ..self.base.as_ref().clone()
        };
        let table = self.table.provider(&self.shape.table, Arc::new(only));
        let table = table.located(Arc::clone(located));
        let mut plan = LogicalPlanBuilder::scan("j", provider_as_source(Arc::new(table)), None)?;
        // One by one, so that each is seen to be decided by partitions or by statistics.
        for filter in filters {
            plan = plan.filter(filter)?;
        }
        let plan = plan.build()?;
        let plan = Box::pin(self.state.create_physical_plan(&plan)).await?;
        // The planner shares a file out where a step above gains by it, and it knows of none.
        let partitions = self.state.config().target_partitions();
        let shared = plan.repartitioned(partitions, self.state.config_options())?;
        Ok(shared.unwrap_or(plan))
    }

    fn sorted(&self, rows: Arc<dyn ExecutionPlan>, located: Arc<Located>) -> Result<Stored> {
        let from = self.shape.definition.columns.from.as_str();
        let rows = self.in_order(rows, &[from])?;
        let shape = Arc::clone(self.shape);
        let rows = rows.and_then(move |batch| {
            let intervals = event::from_stored(&shape, &batch).map_err(DataFusionError::from);
            async move { intervals }
        });
        let schema = event::stored_schema(self.shape);
        Ok(Stored {
            rows: Box::pin(RecordBatchStreamAdapter::new(schema, rows)),
            located,
        })
    }

    fn in_order(
        &self,
        rows: Arc<dyn ExecutionPlan>,
        then: &[&str],
    ) -> Result<SendableRecordBatchStream> {
        let order = key::ordering(self.shape, &rows.schema(), then)?;
        let rows = SortExec::new(order.clone(), rows).with_preserve_partitioning(true);
        let rows = SortPreservingMergeExec::new(order, Arc::new(rows));
        Ok(execute_stream(Arc::new(rows), Arc::clone(self.context))?)
    }

    /// The events that the journal keeps, of the keys of `accepted` at least, and of all keys without it; in the order
    /// of their keys and instants. And the least instant of these keys, anchors among them.
    pub(super) async fn kept(
        &self,
        kept: &Kept,
        accepted: Option<&Accepted>,
    ) -> Result<(SendableRecordBatchStream, Option<i64>)> {
        if kept.files.is_empty() {
            let schema = event::kept_schema(self.shape);
            return Ok((Box::pin(EmptyRecordBatchStream::new(schema)), None));
        }
        let range = accepted.map(|accepted| self.range(accepted)).transpose()?;
        let range = range.unwrap_or_default();
        let plan = self.kept_plan(kept, &range).await?;
        let keys = accepted.and_then(|accepted| accepted.keys.as_deref());
        if let Some(keys) = keys.filter(|keys| keys.len() <= FEW_KEYS) {
            return self.kept_of_few(plan, keys).await;
        }
        let least = self.least_kept(plan, keys).await?;
        // A plan runs once.
        let plan = self.kept_plan(kept, &range).await?;
        Ok((self.in_order(plan, &[SEQUENCE])?, least))
    }

    /// The same without any other keys: who changes little sorts little.
    async fn kept_of_few(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        keys: &KeySet,
    ) -> Result<(SendableRecordBatchStream, Option<i64>)> {
        let schema = plan.schema();
        let mut rows = execute_stream(plan, Arc::clone(self.context))?;
        let (mut least, mut hashes): (Option<i64>, Vec<u64>) = (None, Vec::new());
        let mut found = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            key::hashes(self.shape, &batch, &mut hashes)?;
            let theirs: BooleanArray = hashes.iter().map(|hash| Some(keys.has(*hash))).collect();
            if theirs.true_count() == 0 {
                continue;
            }
            let theirs = filter_record_batch(&batch, &theirs).map_err(unexpected)?;
            let first = sequences(&theirs)?.values().iter().min().copied();
            least = least.into_iter().chain(first).min();
            found.push(theirs);
        }
        let found = MemorySourceConfig::try_new_exec(&[found], schema, None)?;
        Ok((self.in_order(found, &[SEQUENCE])?, least))
    }

    async fn least_kept(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        keys: Option<&KeySet>,
    ) -> Result<Option<i64>> {
        let mut rows = execute_stream(plan, Arc::clone(self.context))?;
        let (mut least, mut hashes): (Option<i64>, Vec<u64>) = (None, Vec::new());
        while let Some(batch) = rows.try_next().await? {
            key::hashes(self.shape, &batch, &mut hashes)?;
            for (hash, at) in hashes.iter().zip(sequences(&batch)?.values()) {
                if keys.is_none_or(|keys| keys.has(*hash)) {
                    least = Some(least.map_or(*at, |least| least.min(*at)));
                }
            }
        }
        Ok(least)
    }

    async fn kept_plan(&self, kept: &Kept, filters: &[Expr]) -> Result<Arc<dyn ExecutionPlan>> {
        let (root, metadata) = (&self.table.root, &self.base.metadata);
        horizon::scan(self.state, self.shape, root, metadata, kept, filters).await
    }

    /// How many keys are current.
    pub(super) async fn current_keys(&self) -> Result<u64> {
        let table = self
            .table
            .provider(&self.shape.table, Arc::clone(self.base));
        let (none, current) = (Vec::new(), self.current());
        let rows = table.scan(self.state, Some(&none), &current, None).await?;
        let rows = execute_stream(rows, Arc::clone(self.context))?;
        let count = rows.try_fold(
            0,
            |sum, batch| async move { Ok(sum + batch.num_rows() as u64) },
        );
        Ok(count.await?)
    }
}

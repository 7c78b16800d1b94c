//! Where the rows are that the events of a write are about.
//!
//! Keys are looked for in the key columns alone; what is found is then read with all of its columns, and nothing
//! else: a snapshot in memory hides the other rows of the same files. So a small write costs the key column, and not
//! the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, NullArray, RecordBatch, RecordBatchOptions,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
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
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::super::quality::unexpected;
use super::accept::{Accepted, sequences};
use crate::error::{Error, Result};
use crate::journal::event::{self, SEQUENCE};
use crate::journal::horizon::{self, Kept};
use crate::journal::key::{self, KeySet};
use crate::journal::shape::Shape;
use crate::table::handle::Table;
use crate::table::located::{self, Located, physical_rows};
use crate::table::snapshot::{DataFile, Snapshot};

/// So few keys are asked for by their values, which bloom filters and statistics of pages answer.
const LISTED_KEYS: usize = 20;

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

/// Places of rows, by the path of their file.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<String, RoaringTreemap>);

/// Stored intervals in the order of their keys and begins, and which file each number of theirs stands for.
pub(super) struct Stored {
    pub rows: SendableRecordBatchStream,
    pub located: Arc<Located>,
}

impl Finder<'_> {
    /// The stored rows that matter to the events: what is current of their keys, and what ended at `least` or later.
    pub(super) async fn rows_of(&self, accepted: &Accepted, least: i64) -> Result<Stored> {
        let keys = accepted
            .keys
            .as_ref()
            .filter(|_| !self.is_most(accepted.rows));
        let Some(keys) = keys else {
            return self.all(self.range(accepted)?, least).await;
        };
        let listed = self.listed(accepted).await?;
        let filters: Vec<Expr> = self.range(accepted)?.into_iter().chain(listed).collect();
        let mut found = Found::default();
        self.find(keys, self.current(&filters), &mut found).await?;
        self.find(keys, self.closed(&filters, least), &mut found)
            .await?;
        self.just(&found).await
    }

    /// Whether so many events touch so much of the table that reading all of it costs less than picking rows.
    fn is_most(&self, events: u64) -> bool {
        let files = self.base.files.values();
        let rows: u64 = files.filter_map(|file| file.rows(&self.base.schema)).sum();
        events > PICKED_ROWS && events > rows / 5
    }

    /// Everything that is current, and what ended at `least` or later, as far as `filters` go.
    pub(super) async fn all(&self, filters: Vec<Expr>, least: i64) -> Result<Stored> {
        let located = Arc::new(Located::default());
        let mut parts: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(2);
        for filters in [self.current(&filters), self.closed(&filters, least)] {
            parts.push(self.scan(&located, filters, None).await?);
        }
        let rows = UnionExec::try_new(parts)?;
        self.sorted(rows, located)
    }

    fn current(&self, filters: &[Expr]) -> Vec<Expr> {
        let current = ident(self.shape.definition.columns.current.as_str());
        filters.iter().cloned().chain([current]).collect()
    }

    fn closed(&self, filters: &[Expr], least: i64) -> Vec<Expr> {
        let columns = &self.shape.definition.columns;
        let least = ScalarValue::TimestampMicrosecond(Some(least), Some("UTC".into()));
        let closed = [
            Expr::Not(Box::new(ident(columns.current.as_str()))),
            ident(columns.to.as_str()).gt_eq(Expr::Literal(least, None)),
        ];
        filters.iter().cloned().chain(closed).collect()
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

    /// The keys one by one, where they are few and of one column.
    async fn listed(&self, accepted: &Accepted) -> Result<Option<Expr>> {
        let [at] = self.shape.keys.as_slice() else {
            return Ok(None);
        };
        let few = accepted
            .keys
            .as_ref()
            .is_some_and(|keys| keys.len() <= LISTED_KEYS);
        // Each key may have many events.
        if !few || accepted.rows > 64 * LISTED_KEYS as u64 {
            return Ok(None);
        }
        let mut values: Vec<ScalarValue> = Vec::new();
        let mut events = accepted.read(0)?;
        while let Some(batch) = events.try_next().await? {
            for row in 0..batch.num_rows() {
                let value = ScalarValue::try_from_array(batch.column(*at), row)?;
                if values.last() != Some(&value) {
                    values.push(value);
                }
            }
        }
        let values = values.into_iter().map(|value| Expr::Literal(value, None));
        let name = self.shape.declared.field(*at).name();
        Ok(Some(ident(name.as_str()).in_list(values.collect(), false)))
    }

    /// A scan that says where rows are; `columns`: of the table, all of them if None is given.
    async fn scan(
        &self,
        located: &Arc<Located>,
        filters: Vec<Expr>,
        columns: Option<Vec<&str>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let name = &self.shape.table;
        let table = self.table.provider(name, Arc::clone(self.base));
        let table = table.located(Arc::clone(located));
        let mut plan = LogicalPlanBuilder::scan("j", provider_as_source(Arc::new(table)), None)?;
        // One by one, so that each is seen to be decided by partitions or by statistics.
        for filter in filters {
            plan = plan.filter(filter)?;
        }
        if let Some(columns) = columns {
            let columns = columns.into_iter().chain([located::FILE, located::ROW]);
            plan = plan.project(columns.map(ident))?;
        }
        let plan = plan.build()?;
        Ok(Box::pin(self.state.create_physical_plan(&plan)).await?)
    }

    /// Adds the places of the rows whose key is among `keys`.
    async fn find(&self, keys: &KeySet, filters: Vec<Expr>, found: &mut Found) -> Result<()> {
        let located = Arc::new(Located::default());
        let columns = self.shape.key_names().collect();
        let plan = self.scan(&located, filters, Some(columns)).await?;
        let mut rows = execute_stream(plan, Arc::clone(self.context))?;
        let mut hashes = Vec::new();
        let mut places: BTreeMap<u32, RoaringTreemap> = BTreeMap::new();
        while let Some(batch) = rows.try_next().await? {
            key::hashes(self.shape, &keys_in_place(self.shape, &batch)?, &mut hashes)?;
            let (file, row) = places_of(&batch)?;
            for (at, hash) in hashes.iter().enumerate() {
                if keys.has(*hash) {
                    let row = u64::try_from(row.value(at))
                        .map_err(|_| Error::internal("a row lies before its file begins"))?;
                    places.entry(file.value(at)).or_default().insert(row);
                }
            }
        }
        let files = located.files();
        for (number, rows) in places {
            let file = files.get(number as usize).ok_or_else(|| {
                Error::internal(format!("a row lies in file {number}, which was not read"))
            })?;
            *found.0.entry(file.add.path.clone()).or_default() |= rows;
        }
        Ok(())
    }

    /// All columns of just these rows.
    async fn just(&self, found: &Found) -> Result<Stored> {
        let located = Arc::new(Located::default());
        if found.0.is_empty() {
            return Ok(self.none(located));
        }
        let mut files = Vec::with_capacity(found.0.len());
        for (path, rows) in &found.0 {
            let file = self.base.files.get(path).ok_or_else(|| {
                Error::internal(format!(
                    "file '{path}' is none of the version it was read from"
                ))
            })?;
            let all = physical_rows(&self.table.root, file, &self.base.schema).await?;
            let mut hidden = RoaringTreemap::new();
            hidden.insert_range(0..all);
            hidden -= rows;
            files.push((path.clone(), Arc::new(DataFile::showing(&file.add, hidden))));
        }
        let only = Snapshot {
            files: files.into_iter().collect(),
            ..self.base.as_ref().clone()
        };
        let table = self.table.provider(&self.shape.table, Arc::new(only));
        let table = table.located(Arc::clone(&located));
        let rows = table.scan(self.state, None, &[], None).await?;
        self.sorted(rows, located)
    }

    /// No rows.
    pub(super) fn none(&self, located: Arc<Located>) -> Stored {
        let schema = event::stored_schema(self.shape);
        Stored {
            rows: Box::pin(EmptyRecordBatchStream::new(schema)),
            located,
        }
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

    /// The events that the journal keeps, of these keys at least, in the order of their keys and instants; and the
    /// least instant of these keys, anchors among them.
    pub(super) async fn kept(
        &self,
        kept: &Kept,
        keys: Option<&KeySet>,
    ) -> Result<(SendableRecordBatchStream, Option<i64>)> {
        if kept.files.is_empty() {
            let schema = event::kept_schema(self.shape);
            return Ok((Box::pin(EmptyRecordBatchStream::new(schema)), None));
        }
        if let Some(keys) = keys.filter(|keys| keys.len() <= FEW_KEYS) {
            return self.kept_of_few(kept, keys).await;
        }
        let least = self.least_kept(kept, keys).await?;
        Ok((self.in_order(self.kept_plan(kept)?, &[SEQUENCE])?, least))
    }

    /// The same without any other keys: who changes little sorts little.
    async fn kept_of_few(
        &self,
        kept: &Kept,
        keys: &KeySet,
    ) -> Result<(SendableRecordBatchStream, Option<i64>)> {
        let plan = self.kept_plan(kept)?;
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

    async fn least_kept(&self, kept: &Kept, keys: Option<&KeySet>) -> Result<Option<i64>> {
        let mut rows = execute_stream(self.kept_plan(kept)?, Arc::clone(self.context))?;
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

    fn kept_plan(&self, kept: &Kept) -> Result<Arc<dyn ExecutionPlan>> {
        horizon::scan(
            self.state,
            self.shape,
            &self.table.root,
            &self.base.metadata,
            kept,
        )
    }

    /// How many keys are current, if the log tells.
    pub(super) async fn current_keys(&self) -> Result<u64> {
        let located = Arc::new(Located::default());
        let plan = self.scan(&located, self.current(&[]), Some(Vec::new()));
        let rows = execute_stream(plan.await?, Arc::clone(self.context))?;
        let count = rows.try_fold(
            0,
            |sum, batch| async move { Ok(sum + batch.num_rows() as u64) },
        );
        Ok(count.await?)
    }
}

/// Rows of which only the key columns were read, in the order of the definition, as rows that begin with the declared
/// columns: the others are there, and empty.
pub(in crate::write) fn keys_in_place(shape: &Shape, keys: &RecordBatch) -> Result<RecordBatch> {
    let rows = keys.num_rows();
    let empty: ArrayRef = Arc::new(NullArray::new(rows));
    let mut columns = vec![empty; shape.declared.fields().len()];
    let mut fields = vec![Field::new("", DataType::Null, true); columns.len()];
    for (at, values) in shape.keys.iter().zip(keys.columns()) {
        if let (Some(column), Some(field)) = (columns.get_mut(*at), fields.get_mut(*at)) {
            let name = shape.declared.field(*at).name();
            *field = Field::new(name, values.data_type().clone(), true);
            *column = Arc::clone(values);
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(unexpected)
}

type Places<'a> = (
    &'a arrow::array::PrimitiveArray<UInt32Type>,
    &'a arrow::array::PrimitiveArray<Int64Type>,
);

/// Where the rows of a located scan are.
fn places_of(batch: &RecordBatch) -> Result<Places<'_>> {
    let lacking = || Error::internal("rows of a journal came without their places");
    let file = batch
        .column_by_name(located::FILE)
        .and_then(|file| file.as_primitive_opt::<UInt32Type>());
    let row = batch
        .column_by_name(located::ROW)
        .and_then(|row| row.as_primitive_opt::<Int64Type>());
    Ok((file.ok_or_else(lacking)?, row.ok_or_else(lacking)?))
}

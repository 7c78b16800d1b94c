//! Of several changes of a key at one instant, as those of one transaction are, what is true behind the last of them:
//! states that were true for no time are none.
//!
//! That is the last row, but for what it keeps: a column of which it says nothing has the value of the change before it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, RecordBatch, UInt32Array,
};
use datafusion::arrow::compute::{SortOptions, concat_batches, partition, take};
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use futures::{TryStreamExt, stream};

use super::terms::Terms;
use crate::error::{Error, Result};
use crate::journal::event::{keeps, set_keep};

/// The rows of `changes`, which are those of `terms`: one of each key and instant, and none of its place.
pub(super) fn settled(
    changes: Arc<dyn ExecutionPlan>,
    terms: &Arc<Terms>,
    partitions: usize,
) -> Result<StreamingTable> {
    let (shape, all) = (&terms.shape, changes.schema());
    let column = |place: usize| -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(all.field(place).name(), place))
    };
    let keys: Vec<_> = shape.keys.iter().map(|place| column(*place)).collect();
    let position = terms.schema.fields().len().saturating_sub(1);
    let then = shape.sequence.into_iter().chain([position]).map(column);
    let order = keys.iter().cloned().chain(then);
    let order = order.map(|expr| PhysicalSortExpr::new(expr, SortOptions::default()));
    let order = LexOrdering::new(order).ok_or_else(|| Error::internal("changes have no keys"))?;
    let spread = RepartitionExec::try_new(changes, Partitioning::Hash(keys, partitions))?;
    let sorted = SortExec::new(order, Arc::new(spread)).with_preserve_partitioning(true);
    let sorted: Arc<dyn ExecutionPlan> = Arc::new(sorted);
    let fields = terms.schema.fields().iter().take(position).cloned();
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let streams = (0..partitions).map(|number| {
        Arc::new(Part {
            sorted: Arc::clone(&sorted),
            number,
            terms: Arc::clone(terms),
            schema: Arc::clone(&schema),
        }) as Arc<dyn PartitionStream>
    });
    let streams = streams.collect();
    Ok(StreamingTable::try_new(Arc::clone(&schema), streams)?)
}

/// One part of the keys.
struct Part {
    sorted: Arc<dyn ExecutionPlan>,
    number: usize,
    terms: Arc<Terms>,
    schema: SchemaRef,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows: SendableRecordBatchStream = match self.sorted.execute(self.number, context) {
            Ok(rows) => rows,
            Err(error) => Box::pin(RecordBatchStreamAdapter::new(
                self.sorted.schema(),
                stream::iter([Err(error)]),
            )),
        };
        let settling = Settling {
            rows,
            terms: Arc::clone(&self.terms),
            schema: Arc::clone(&self.schema),
            rest: None,
            ended: false,
        };
        let batches = stream::try_unfold(settling, |mut settling| async move {
            let batch = settling.next().await.map_err(DataFusionError::from)?;
            Ok::<_, DataFusionError>(batch.map(|batch| (batch, settling)))
        });
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            batches,
        ))
    }
}

/// Sorted rows on their way.
struct Settling {
    rows: SendableRecordBatchStream,
    terms: Arc<Terms>,
    schema: SchemaRef,
    /// Rows of the last key and instant, of which there may be more.
    rest: Option<RecordBatch>,
    ended: bool,
}

/// Where a column of several changes has its value from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// From before all of them.
    Before,
    /// Nowhere: the key ended, and nobody has said more since.
    Nothing,
    /// From this row.
    Row(usize),
}

/// A row that says what several did.
struct Merged {
    /// Columns whose value is that of another row.
    from: Vec<(usize, usize)>,
    keep: Vec<u8>,
}

impl Settling {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while !self.ended {
            let batch = self.rows.try_next().await?;
            self.ended = batch.is_none();
            let rows = match (self.rest.take(), batch) {
                (Some(rest), Some(batch)) => {
                    concat_batches(&batch.schema(), [&rest, &batch]).map_err(broken)?
                }
                (Some(rows), None) | (None, Some(rows)) => rows,
                (None, None) => return Ok(None),
            };
            let groups = self.groups(&rows)?;
            let Some((last, before)) = groups.split_last() else {
                continue;
            };
            if self.ended {
                return self.settle(&rows, &groups).map(Some);
            }
            self.rest = Some(rows.slice(last.start, last.len()));
            if !before.is_empty() {
                return self.settle(&rows, before).map(Some);
            }
        }
        Ok(None)
    }

    /// Rows of one key and instant.
    fn groups(&self, rows: &RecordBatch) -> Result<Vec<Range<usize>>> {
        let shape = &self.terms.shape;
        let same = shape.keys.iter().chain(&shape.sequence);
        let same: Vec<ArrayRef> = same.map(|place| Arc::clone(rows.column(*place))).collect();
        Ok(partition(&same).map_err(broken)?.ranges())
    }

    fn settle(&self, rows: &RecordBatch, groups: &[Range<usize>]) -> Result<RecordBatch> {
        let columns = self.terms.kinds.len();
        let riders = Riders {
            delete: rows.column(columns).as_boolean(),
            keep: rows.column(columns + 1).as_binary::<i32>(),
        };
        self.once(groups)?;
        let last: Vec<u32> = groups.iter().map(|group| group.end as u32 - 1).collect();
        let merged = groups
            .iter()
            .enumerate()
            .filter(|(_, group)| group.len() > 1);
        let merged = merged.filter_map(|(at, group)| {
            let merged = self.merged(rows, &riders, group.clone())?;
            Some((at, merged))
        });
        let merged: Vec<(usize, Merged)> = merged.collect();
        let plain = UInt32Array::from(last.clone());
        let mut settled = Vec::with_capacity(columns + 2);
        for (place, column) in rows.columns().iter().enumerate().take(columns + 2) {
            let mut from: Option<Vec<u32>> = None;
            for (at, merged) in &merged {
                let of_column = merged.from.iter().find(|(column, _)| *column == place);
                if let Some((_, row)) = of_column
                    && let Some(cell) = from.get_or_insert_with(|| last.clone()).get_mut(*at)
                {
                    *cell = *row as u32;
                }
            }
            let from = from.map(UInt32Array::from);
            let from = from.as_ref().unwrap_or(&plain);
            settled.push(take(column, from, None).map_err(broken)?);
        }
        if !merged.is_empty()
            && let Some(keep) = settled.last_mut()
        {
            *keep = told(keep.as_binary::<i32>(), &merged);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), settled).map_err(broken)
    }

    /// Where no instant tells the changes of a key apart, nobody knows what was between them.
    fn once(&self, groups: &[Range<usize>]) -> Result<()> {
        let shape = &self.terms.shape;
        let again = groups.iter().filter(|group| group.len() > 1).count();
        if again == 0 || shape.sequence.is_some() {
            return Ok(());
        }
        let keys: Vec<&str> = shape.key_names().collect();
        Err(Error::rejected(format!(
            "table {}: {again} or more values of its key ({}) have several changes in one load, and it has no SEQUENCE BY to keep their order",
            shape.table,
            keys.join(", ")
        ))
        .with_hint("make the table with SEQUENCE BY, or load the changes of a key one at a time"))
    }

    /// What rows of one key and instant say together; None where the last of them says it.
    fn merged(
        &self,
        rows: &RecordBatch,
        riders: &Riders<'_>,
        group: Range<usize>,
    ) -> Option<Merged> {
        let shape = &self.terms.shape;
        let last = group.end.checked_sub(1)?;
        if riders.delete.value(last) {
            return None;
        }
        let mut cells = vec![Cell::Before; self.terms.kinds.len()];
        for row in group {
            if riders.delete.value(row) {
                cells.fill(Cell::Nothing);
                continue;
            }
            for (column, cell) in cells.iter_mut().enumerate() {
                let keeps_null = shape.keeps_null.get(column) == Some(&true);
                let null = || rows.column(column).is_null(row);
                if !riders.keeps(row, column, || keeps_null && null()) {
                    *cell = Cell::Row(row);
                }
            }
        }
        let by_last = |cell: &Cell| matches!(cell, Cell::Before) || *cell == Cell::Row(last);
        if cells.iter().all(by_last) {
            return None;
        }
        let mut merged = Merged {
            from: Vec::new(),
            keep: Vec::new(),
        };
        for (column, cell) in cells.into_iter().enumerate() {
            match cell {
                Cell::Before => set_keep(&mut merged.keep, column),
                Cell::Row(row) if row != last => merged.from.push((column, row)),
                // What a row keeps is NULL in it.
                Cell::Row(_) | Cell::Nothing => {}
            }
        }
        Some(merged)
    }
}

/// What becomes of rows.
struct Riders<'a> {
    delete: &'a BooleanArray,
    keep: &'a BinaryArray,
}

impl Riders<'_> {
    /// Whether a row says nothing of a column; `null`: as the table says where the row does not.
    fn keeps(&self, row: usize, column: usize, null: impl FnOnce() -> bool) -> bool {
        match self.keep.is_valid(row) {
            true => keeps(Some(self.keep.value(row)), column),
            false => null(),
        }
    }
}

/// The columns that rows keep, those of merged ones anew.
fn told(keep: &BinaryArray, merged: &[(usize, Merged)]) -> ArrayRef {
    let mut anew = merged.iter().peekable();
    let mut told = BinaryBuilder::new();
    for (at, keep) in keep.iter().enumerate() {
        match anew.next_if(|(row, _)| *row == at) {
            Some((_, merged)) => told.append_value(&merged.keep),
            None => told.append_option(keep),
        }
    }
    Arc::new(told.finish())
}

fn broken(error: ArrowError) -> Error {
    Error::internal(format!("changes of one instant: {error}")).with_source(error)
}

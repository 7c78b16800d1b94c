//! One file of events that a journal keeps, without what the policies take away: an event that comes late would bring
//! it back into the intervals that are told from these.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, new_null_array};
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};

use super::find::unexpected;
use crate::cleanse::apply::{Applied, Counts, Running};
use crate::error::{Error, Result};
use crate::journal::event::kept_schema;
use crate::journal::horizon::{self, Keeping, Kept, KeptFile};
use crate::journal::shape::Shape;
use crate::maintenance::Job;
use crate::table::actions::Add;
use crate::table::snapshot::Snapshot;
use crate::write::files::FileSink;

/// A file in which something is to be cleansed, and what the policies would do to its events.
pub(super) struct Found {
    pub file: KeptFile,
    pub counts: Counts,
}

/// A file that was written anew, which nobody sees yet.
pub(super) struct Refolded {
    pub old: KeptFile,
    pub came: Vec<KeptFile>,
    pub counts: Counts,
    pub bytes: u64,
    sink: FileSink,
    adds: Vec<Add>,
}

impl Refolded {
    pub(super) async fn discard(&self) {
        self.sink.discard(&self.adds).await;
    }
}

/// What becomes of the list of kept events; None where nothing does.
pub(super) fn keeping(base: &Snapshot, files: &[Refolded]) -> Result<Option<Keeping>> {
    if files.is_empty() {
        return Ok(None);
    }
    Ok(Some(Keeping {
        watermark: horizon::of(base)?.watermark,
        restores: false,
        came: files.iter().flat_map(|file| file.came.clone()).collect(),
        out: files.iter().map(|file| file.old.path.clone()).collect(),
    }))
}

/// Asks the policies of the events of a file; None where it is clean.
pub(super) async fn ask(
    job: &Job,
    base: &Snapshot,
    shape: &Shape,
    running: &Running,
    file: &KeptFile,
) -> Result<Option<Found>> {
    let wide = Wide::new(shape, running)?;
    let (mut rows, _) = read(job, base, shape, file).await?;
    let mut counts = Counts::of(running.compiled());
    let mut changes = false;
    while let Some(batch) = rows.try_next().await? {
        let applied = wide.apply(&batch, running)?;
        changes |= !applied.is_unchanged();
        counts.merge(&applied.counts);
    }
    Ok(changes.then(|| Found {
        file: file.clone(),
        counts,
    }))
}

/// Writes what is left of a file, in its order.
pub(super) async fn rewrite(
    job: &Job,
    base: &Snapshot,
    shape: &Shape,
    running: &Arc<Running>,
    found: Found,
) -> Result<Refolded> {
    let table = &job.table;
    let (rows, context) = read(job, base, shape, &found.file).await?;
    let (wide, applying) = (Wide::new(shape, running)?, Arc::clone(running));
    let rows = rows.map(move |batch| -> datafusion::common::Result<RecordBatch> {
        let applied = wide.apply(&batch?, &applying)?;
        Ok(wide.narrow(&applied.batch)?)
    });
    let rows = RecordBatchStreamAdapter::new(kept_schema(shape), rows);
    let sink = horizon::sink(
        &table.root,
        shape,
        &base.metadata,
        job.settings.target_file_bytes,
        &table.ambient,
    )?;
    let written = sink.write_rows(Box::pin(rows), &context).await?;
    Ok(Refolded {
        came: horizon::files(&written, found.file.first, found.file.last)?,
        old: found.file,
        counts: found.counts,
        bytes: written.bytes,
        adds: written.adds,
        sink,
    })
}

async fn read(
    job: &Job,
    base: &Snapshot,
    shape: &Shape,
    file: &KeptFile,
) -> Result<(SendableRecordBatchStream, Arc<TaskContext>)> {
    let state = job.state(1);
    let one = Kept {
        watermark: i64::MIN,
        files: vec![file.clone()],
    };
    let plan = horizon::scan(&state, shape, &job.table.root, &base.metadata, &one, &[]);
    let context = state.task_ctx();
    Ok((execute_stream(plan.await?, Arc::clone(&context))?, context))
}

fn nullable(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_nullable(true))
}

/// Events as rows of the table, which policies ask: their intervals are not known, and riders stand behind them.
struct Wide {
    schema: Arc<Schema>,
    kept: Arc<Schema>,
    /// For each column of an event its place among those of the table, and of the riders behind them.
    places: Vec<usize>,
}

impl Wide {
    fn new(shape: &Shape, running: &Running) -> Result<Self> {
        let table = running.compiled().schema.fields();
        if table.len() != shape.stored.fields().len() {
            return Err(Error::internal(format!(
                "policies of table {} are about {} columns of {}",
                shape.table,
                table.len(),
                shape.stored.fields().len()
            )));
        }
        let kept = kept_schema(shape);
        let mut all: Vec<FieldRef> = table.iter().map(nullable).collect();
        let (declared, riders) = kept.fields().split_at(shape.places.len());
        for (place, field) in shape.places.iter().zip(declared) {
            if let Some(of_table) = all.get_mut(*place) {
                *of_table = nullable(field);
            }
        }
        all.extend(riders.iter().map(nullable));
        let places = shape.places.iter().copied();
        Ok(Self {
            places: places.chain(table.len()..all.len()).collect(),
            schema: Arc::new(Schema::new(all)),
            kept,
        })
    }

    fn apply(&self, events: &RecordBatch, running: &Running) -> Result<Applied> {
        let rows = events.num_rows();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (place, column) in self.places.iter().zip(events.columns()) {
            if let Some(of_table) = columns.get_mut(*place) {
                *of_table = Some(Arc::clone(column));
            }
        }
        let fields = self.schema.fields().iter();
        let columns = columns.into_iter().zip(fields).map(|(column, field)| {
            column.unwrap_or_else(|| new_null_array(field.data_type(), rows))
        });
        let wide = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect());
        running.apply(&wide.map_err(unexpected)?)
    }

    fn narrow(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let events = rows.project(&self.places).map_err(unexpected)?;
        RecordBatch::try_new(Arc::clone(&self.kept), events.columns().to_vec()).map_err(unexpected)
    }
}

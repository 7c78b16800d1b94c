//! From many files of kept events to one: what is before the horizon becomes the state it led to.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{TryStreamExt, stream};

use super::{Kept, KeptFile, files, scan};
use crate::error::{Error, Result};
use crate::journal::event::{SEQUENCE, kept_schema};
use crate::journal::fold::{condensed, last_key};
use crate::journal::key;
use crate::journal::shape::Shape;
use crate::table::actions::Metadata;
use crate::table::snapshot::TableRoot;
use crate::write::files::FileSink;

/// So many files are read for every write that a few of them are made one.
const FILES: usize = 16;

/// Makes one file of all, when they are many or one of them lies wholly before `horizon`: what came of it and the
/// paths it stands for. None when nothing is due. What comes is marked, so that a write that knows the old files does not
/// take it for somebody's events.
///
/// The events of a write whose files are not among `kept` yet may lie before a horizon that only this write has moved,
/// and belong between those that are. So nothing is folded away that was within the horizon before it.
pub(crate) async fn condense(
    session: &SessionState,
    shape: &Arc<Shape>,
    root: &TableRoot,
    metadata: &Metadata,
    kept: &Kept,
    horizon: i64,
    sink: &FileSink,
) -> Result<Option<(Vec<KeptFile>, Vec<String>)>> {
    let after = shape.definition.late.after_micros;
    let known = after.map(|after| kept.watermark.saturating_sub(after));
    let horizon = known.map_or(horizon, |known| known.min(horizon));
    let past = kept.files.iter().any(|file| file.last < horizon);
    if !past && kept.files.len() < FILES {
        return Ok(None);
    }
    let rows = scan(session, shape, root, metadata, kept, &[]).await?;
    let order = key::ordering(shape, &rows.schema(), &[SEQUENCE])?;
    let rows = SortExec::new(order.clone(), rows).with_preserve_partitioning(true);
    let rows = SortPreservingMergeExec::new(order, Arc::new(rows));
    let context = session.task_ctx();
    let keys = Keys {
        shape: Arc::clone(shape),
        rows: execute_stream(Arc::new(rows), Arc::clone(&context))?,
        rest: None,
        until: horizon,
        ended: false,
    };
    let batches = stream::try_unfold(keys, |mut keys| async move {
        let batch = keys.next().await.map_err(DataFusionError::from)?;
        Ok::<_, DataFusionError>(batch.map(|batch| (batch, keys)))
    });
    let batches = RecordBatchStreamAdapter::new(kept_schema(shape), batches);
    let written = sink.write_rows(Box::pin(batches), &context).await?;
    let last = kept.files.iter().map(|file| file.last).max();
    let last = last.unwrap_or(i64::MIN);
    let first = kept.files.iter().map(|file| file.first).min();
    let first = first.unwrap_or(i64::MIN).max(horizon).min(last);
    let out = kept.files.iter().map(|file| file.path.clone());
    let mut came = files(&written, first, last)?;
    for file in &mut came {
        file.condensed = Some(horizon);
    }
    Ok(Some((came, out.collect())))
}

/// Condenses sorted rows, whole keys at a time.
struct Keys {
    shape: Arc<Shape>,
    rows: SendableRecordBatchStream,
    /// Rows of the last key, of which there may be more.
    rest: Option<RecordBatch>,
    until: i64,
    ended: bool,
}

impl Keys {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while !self.ended {
            let Some(batch) = self.rows.try_next().await? else {
                self.ended = true;
                let rest = self.rest.take();
                return match rest {
                    Some(rest) => condensed(&self.shape, &rest, self.until),
                    None => Ok(None),
                };
            };
            let batch = match self.rest.take() {
                Some(rest) => {
                    concat_batches(&batch.schema(), [&rest, &batch]).map_err(|error| {
                        Error::internal("kept events of one key").with_source(error)
                    })?
                }
                None => batch,
            };
            let last = last_key(&self.shape, &batch)?;
            self.rest = Some(batch.slice(last, batch.num_rows() - last));
            if let Some(batch) = condensed(&self.shape, &batch.slice(0, last), self.until)? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }
}

//! A step of a plan that tells how many rows have passed, so that whoever waits for a large group sees it grow.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use crate::around::{Around, AroundExec};
use crate::progress::Meter;

/// Passes rows on as they are, and counts them.
#[derive(Debug)]
pub(super) struct Tally(Meter);

impl Tally {
    pub(super) fn plan(rows: Arc<dyn ExecutionPlan>, meter: Meter) -> Arc<dyn ExecutionPlan> {
        AroundExec::plan(Self(meter), rows)
    }
}

impl Around for Tally {
    const NAME: &'static str = "Tally";

    fn execute(
        &self,
        rows: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let meter = self.0.clone();
        let batches = rows.execute(partition, context)?;
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            rows.schema(),
            batches.inspect_ok(move |batch| meter.rows(batch.num_rows() as u64)),
        )))
    }
}

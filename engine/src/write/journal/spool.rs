//! Rows that are read several times: in memory as long as they are few, then in temporary files.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, SpillFile, TaskContext};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::spill::SpillManager;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};

use crate::error::Result;

/// Bytes that stay in memory.
const MEMORY_BYTES: usize = 64 << 20;

/// Rows in the order in which they came.
pub(super) struct Spool {
    manager: SpillManager,
    files: Vec<Arc<dyn SpillFile>>,
    batches: Vec<RecordBatch>,
    /// Of these batches: what merged rows share with each other is there but once.
    counter: RecordBatchMemoryCounter,
    reservation: MemoryReservation,
    rows: u64,
}

impl Spool {
    pub(super) fn new(schema: SchemaRef, context: &TaskContext) -> Self {
        let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        Self {
            manager: SpillManager::new(context.runtime_env(), metrics, schema),
            files: Vec::new(),
            batches: Vec::new(),
            counter: RecordBatchMemoryCounter::new(),
            reservation: MemoryConsumer::new("JournalEvents").register(context.memory_pool()),
            rows: 0,
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows() as u64;
        self.counter.count_batch(&batch);
        let bytes = self.counter.memory_usage();
        self.batches.push(batch);
        if bytes > MEMORY_BYTES || self.reservation.try_resize(bytes).is_err() {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.batches);
        let file = self
            .manager
            .spill_record_batch_and_finish(&batches, "events of a journal")?;
        self.files.extend(file);
        self.counter = RecordBatchMemoryCounter::new();
        self.reservation.free();
        Ok(())
    }

    /// All rows, from the first on.
    pub(super) fn read(&self) -> Result<SendableRecordBatchStream> {
        let files = self.files.iter().map(|file| {
            self.manager
                .read_spill_as_stream_unbuffered(Arc::clone(file), None)
        });
        let files = files.collect::<datafusion::error::Result<Vec<_>>>()?;
        let held = stream::iter(self.batches.clone()).map(Ok::<_, DataFusionError>);
        let rows = stream::iter(files)
            .map(Ok::<_, DataFusionError>)
            .try_flatten()
            .chain(held);
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(self.manager.schema()),
            rows,
        )))
    }
}

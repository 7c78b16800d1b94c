//! A sort that goes to disk long before the memory of the session is used up.
//!
//! A sort takes as much as the session lets it have, and a first load is all the rows there are. Of sorted rows on
//! disk just the heads are in memory while they are merged. A write of a day stays below the bound, and pays nothing.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr};
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties,
};
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use crate::around::within;
use crate::error::Error;

#[cfg(test)]
mod tests;

/// Bytes that the partitions of a sort hold together: half of them rows, for it sorts rows to another place.
pub(super) const SORT_BYTES: usize = 256 << 20;

/// What a partition may hold at least: with less, many of them would fill the disk with crumbs.
const PARTITION_BYTES: usize = 8 << 20;

/// Sorts each partition by itself.
#[derive(Debug)]
pub(super) struct BoundedSortExec {
    order: LexOrdering,
    input: Arc<dyn ExecutionPlan>,
    /// Bytes of all partitions.
    bytes: usize,
    properties: Arc<PlanProperties>,
    /// The sorts that ran: they know what there was to measure.
    ran: Mutex<Vec<Arc<SortExec>>>,
}

impl BoundedSortExec {
    pub(super) fn new(order: LexOrdering, input: Arc<dyn ExecutionPlan>, bytes: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(input.schema(), [order.clone()]),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            input.boundedness(),
        );
        Self {
            order,
            input,
            bytes,
            properties: Arc::new(properties),
            ran: Mutex::default(),
        }
    }
}

impl DisplayAs for BoundedSortExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "BoundedSortExec: expr=[{}], bytes={}, preserve_partitioning=[true]",
            self.order, self.bytes
        )
    }
}

impl ExecutionPlan for BoundedSortExec {
    fn name(&self) -> &str {
        "BoundedSortExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        for expression in &self.order {
            if visit(&expression.expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else {
            return Err(Error::internal("a sort needs rows").into());
        };
        Ok(Arc::new(Self::new(self.order.clone(), input, self.bytes)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> PlanResult<SendableRecordBatchStream> {
        // What makes the rows has the memory of the session, and may hold as much of it as it could before.
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        let partitions = self.input.output_partitioning().partition_count();
        let runtime = context.runtime_env();
        let pool = Arc::new(Bounded {
            inner: Arc::clone(context.memory_pool()),
            most: (self.bytes / partitions.max(1)).max(PARTITION_BYTES),
            // Who cannot go to disk is not sent there.
            spills: runtime.disk_manager.tmp_files_enabled(),
            held: Mutex::default(),
        });
        let schema = self.input.schema();
        let handed: Arc<dyn PartitionStream> = Arc::new(Handed {
            schema: Arc::clone(&schema),
            rows: Mutex::new(Some(rows)),
            pool: Arc::clone(&pool),
        });
        let handed =
            StreamingTableExec::try_new(schema, vec![handed], None, Vec::new(), false, None)?;
        let sort = Arc::new(SortExec::new(self.order.clone(), Arc::new(handed)));
        self.ran.lock().push(Arc::clone(&sort));
        let runtime = RuntimeEnv {
            memory_pool: pool,
            ..runtime.as_ref().clone()
        };
        sort.execute(0, within(&context, runtime))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = MetricsSet::new();
        for sort in self.ran.lock().iter() {
            for metric in sort.metrics().iter().flat_map(MetricsSet::iter) {
                all.push(Arc::clone(metric));
            }
        }
        Some(all)
    }
}

/// The rows of one partition, for the sort that runs there.
struct Handed {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
    pool: Arc<Bounded>,
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed").finish_non_exhaustive()
    }
}

impl PartitionStream for Handed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let taken = self.rows.lock().take();
        let rows = match taken {
            Some(rows) => rows.left_stream(),
            None => {
                let twice = Error::internal("the rows of a sort were asked for twice");
                stream::iter([PlanResult::<RecordBatch>::Err(twice.into())]).right_stream()
            }
        };
        let pool = Arc::clone(&self.pool);
        let rows = rows.inspect_ok(move |batch| pool.comes(batch));
        let schema = Arc::clone(&self.schema);
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

/// The memory of the session, which refuses a sort another batch when it holds its share.
///
/// Just that: a refused batch makes a sort write down what it holds and ask again. Anything else that it is refused,
/// while it sorts what it holds or merges what it wrote, is an error; so all else is up to the session.
#[derive(Debug)]
struct Bounded {
    inner: Arc<dyn MemoryPool>,
    /// Bytes of one partition.
    most: usize,
    spills: bool,
    held: Mutex<Holding>,
}

/// What the sort holds since it wrote something down.
#[derive(Debug, Default)]
struct Holding {
    /// A sort asks anew for what slices of one large batch share, which is there but once, however many come.
    counter: RecordBatchMemoryCounter,
    /// What came after the first batch: that one is there in any case.
    bytes: usize,
    /// The batch on its way into the sort: the next it asks for is to hold it.
    comes: Option<RecordBatch>,
}

impl Bounded {
    /// Notes a batch that the sort is about to get.
    fn comes(&self, batch: &RecordBatch) {
        // Of an empty one it takes no note.
        if self.spills && batch.num_rows() > 0 {
            let mut held = self.held.lock();
            let more = held.counter.count_batch(batch);
            held.bytes = held.bytes.saturating_add(2 * more);
            held.comes = Some(batch.clone());
        }
    }
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {}", self.most, self.inner)
    }
}

impl MemoryPool for Bounded {
    fn name(&self) -> &str {
        "bounded"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> PlanResult<()> {
        let mut held = self.held.lock();
        let comes = match reservation.consumer().can_spill() {
            true => held.comes.take(),
            false => None,
        };
        let Some(batch) = comes else {
            return self.inner.try_grow(reservation, additional);
        };
        // Who holds nothing has nothing to write down: a batch may be larger than all that is allowed.
        if reservation.size() == 0 {
            held.bytes = 0;
        }
        let granted = match held.bytes > self.most {
            true => Err(DataFusionError::ResourcesExhausted(format!(
                "{} holds its {} bytes, and wants {additional} more",
                reservation.consumer().name(),
                self.most
            ))),
            false => self.inner.try_grow(reservation, additional),
        };
        if granted.is_err() {
            // It writes down what it holds, and comes back for this one.
            *held = Holding::default();
            held.counter.count_batch(&batch);
        }
        granted
    }

    fn reserved(&self) -> usize {
        self.inner.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.inner.memory_limit()
    }
}

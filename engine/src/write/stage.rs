//! A stage of the write path as a node of a plan: what all of them have in common.
//!
//! A stage maps batches to batches, partition by partition, and may set rows aside, which then go another way.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::PollSender;

use crate::error::{Error, Result};

/// What a stage does. Shared by all nodes of it that an optimizer makes.
pub(super) trait Stage: fmt::Debug + Send + Sync + Sized + 'static {
    /// Name of its node in plans.
    const NAME: &'static str;
    /// The work on one partition.
    type Work: Work;

    /// Follows the name in plans.
    fn describe(&self) -> String;

    /// Whether a column that goes on stands where it came in, so that an order of what goes on may be made below.
    const IN_PLACE: bool = true;

    /// Columns of the rows that go on.
    fn schema(&self) -> &SchemaRef;

    /// The same stage over rows with other columns, should it depend on them.
    fn over(self: &Arc<Self>, _input: &SchemaRef) -> Result<Arc<Self>> {
        Ok(Arc::clone(self))
    }

    /// Expressions it computes.
    fn expressions(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        Vec::new()
    }

    /// Begins the work on one partition of a run that is open.
    fn begin(&self, part: Part) -> Result<Self::Work>;
}

/// Which partition of a stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

/// The work of a stage on one partition.
pub(super) trait Work: Send + Unpin + 'static {
    /// What becomes of the rows of a batch.
    fn step(&mut self, batch: RecordBatch) -> Result<Step>;

    /// Called once, when the input ended without error.
    fn end(self) -> Result<()>;
}

/// Rows after a stage.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// They go on; none, if there are none.
    pub on: Option<RecordBatch>,
    /// They leave the path: into quarantine.
    pub aside: Option<RecordBatch>,
}

/// Where rows go that leave the path, in the run that is open.
pub(super) type Aside = Arc<Slot<Sender<RecordBatch>>>;

/// A stage in a plan.
#[derive(Debug)]
pub(super) struct StageExec<S> {
    stage: Arc<S>,
    input: Arc<dyn ExecutionPlan>,
    aside: Option<Aside>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl<S: Stage> StageExec<S> {
    /// The stage behind `input`; where it sets rows aside, they go to `aside`.
    pub(super) fn plan(
        stage: Arc<S>,
        input: Arc<dyn ExecutionPlan>,
        aside: Option<Aside>,
    ) -> Arc<dyn ExecutionPlan> {
        // As many partitions as its input, nothing said about values.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(stage.schema())),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Arc::new(Self {
            stage,
            input,
            aside,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl<S: Stage> DisplayAs for StageExec<S> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", S::NAME, self.stage.describe())
    }
}

impl<S: Stage> ExecutionPlan for StageExec<S> {
    fn name(&self) -> &str {
        S::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![S::IN_PLACE]
    }

    /// The order of an INSERT .. ORDER BY is the order in the files: no repartitioning for our sake.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        for expression in self.stage.expressions() {
            if f(expression)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let input = one_child(children)?;
        let stage = self.stage.over(&input.schema())?;
        Ok(Self::plan(stage, input, self.aside.clone()))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, recompute)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> PlanResult<SendableRecordBatchStream> {
        let work = self.stage.begin(Part {
            number: partition,
            of: self.input.output_partitioning().partition_count(),
        })?;
        let aside = match &self.aside {
            Some(aside) => Some(PollSender::new(aside.current()?.as_ref().clone())),
            None => None,
        };
        Ok(Box::pin(StageStream {
            input: self.input.execute(partition, context)?,
            schema: Arc::clone(self.stage.schema()),
            work: Some(work),
            step: Step::default(),
            aside,
            received: MetricBuilder::new(&self.metrics).counter("rows_received", partition),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

fn one_child(children: Vec<Arc<dyn ExecutionPlan>>) -> PlanResult<Arc<dyn ExecutionPlan>> {
    match <[_; 1]>::try_from(children) {
        Ok([child]) => Ok(child),
        Err(children) => Err(Error::internal(format!(
            "a write stage has one input, not {}",
            children.len()
        ))
        .into()),
    }
}

/// The rows of one partition on their way through a stage.
struct StageStream<W> {
    input: SendableRecordBatchStream,
    schema: SchemaRef,
    /// Gone when the input has ended.
    work: Option<W>,
    /// What is still to be handed on.
    step: Step,
    aside: Option<PollSender<RecordBatch>>,
    received: Count,
    metrics: BaselineMetrics,
}

impl<W: Work> StageStream<W> {
    /// Waits until the rows that leave the path are taken: those who take them set the pace.
    fn poll_aside(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.step.aside.is_none() {
            return Poll::Ready(Ok(()));
        }
        let nobody = || Error::internal("rows left the path of a write, and nobody took them");
        let Some(sender) = &mut self.aside else {
            return Poll::Ready(Err(nobody()));
        };
        let ready = ready!(sender.poll_reserve(cx));
        if let (Ok(()), Some(rows)) = (ready, self.step.aside.take()) {
            return Poll::Ready(sender.send_item(rows).map_err(|_| nobody()));
        }
        Poll::Ready(Err(nobody()))
    }
}

impl<W: Work> Stream for StageStream<W> {
    type Item = PlanResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            ready!(self.poll_aside(cx)).map_err(DataFusionError::from)?;
            if let Some(on) = self.step.on.take() {
                return Poll::Ready(Some(Ok(on.record_output(&self.metrics))));
            }
            let Some(batch) = ready!(self.input.poll_next_unpin(cx)?) else {
                self.metrics.done();
                let ended = self.work.take().map_or(Ok(()), Work::end);
                return Poll::Ready(ended.err().map(|error| Err(error.into())));
            };
            self.received.add(batch.num_rows());
            let elapsed = self.metrics.elapsed_compute().clone();
            let timer = elapsed.timer();
            if let Some(work) = &mut self.work {
                let step = work.step(batch).map_err(DataFusionError::from)?;
                self.step = step;
            }
            timer.done();
        }
    }
}

impl<W: Work> RecordBatchStream for StageStream<W> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// The state of the run that is open, shared by all nodes and partitions of a stage.
#[derive(Debug)]
pub(super) struct Slot<T>(Mutex<Option<Arc<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Slot<T> {
    pub(super) fn open(&self, state: impl Into<Arc<T>>) -> Result<()> {
        let mut slot = self.0.lock();
        if slot.is_some() {
            return Err(Error::internal("a write was begun while it was running"));
        }
        *slot = Some(state.into());
        Ok(())
    }

    pub(super) fn current(&self) -> Result<Arc<T>> {
        let slot = self.0.lock();
        slot.clone()
            .ok_or_else(|| Error::internal("a write stage was run outside of a write"))
    }

    pub(super) fn close(&self) {
        *self.0.lock() = None;
    }
}

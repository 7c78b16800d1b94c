//! The stages in the only order there is, and the account that the sink settles before it commits.
//!
//! ```text
//! [Changed ->] Received -> Validated -> Hooked -> (files, commit)
//! ```
//!
//! The first is there for statements that change rows: it keeps the places of the old ones.
//!
//! Plans only: building them runs nothing. What a run counts lives in slots shared by the account and
//! the plan nodes (copies of a node made by the optimizer share them too). [`WriteAccount::begin`]
//! fills the slots afresh, so a plan that is run again counts from zero and gets new hooks; a stage
//! that runs outside of a begun write refuses to, so nothing can be written that nobody settles.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, RecordOutput};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;

use super::change::{Change, ChangeExec, Changed, Changes};
use super::hook::{HookExec, HookStage, WriteContext, WriteHookSupplier};
use super::report::HookReport;
use super::validate::{TableRules, ValidateExec, Violations};
use crate::error::{Error, Result};

/// Rows as the statement gave them, columns in the table's order.
#[derive(Debug)]
pub(crate) struct Received {
    plan: Arc<dyn ExecutionPlan>,
    changes: Option<ChangeAccount>,
}

/// What a statement that changes rows has noted of the old ones.
#[derive(Debug, Clone)]
struct ChangeAccount {
    change: Arc<Change>,
    noted: Arc<Slot<Changes>>,
}

/// Rows of the table's exact schema that satisfy its constraints.
#[derive(Debug)]
pub(crate) struct Validated {
    plan: Arc<dyn ExecutionPlan>,
    rules: Arc<TableRules>,
    violations: Arc<Slot<Violations>>,
    changes: Option<ChangeAccount>,
}

/// Rows as they will be stored: what the sink takes.
#[derive(Debug, Clone)]
pub(crate) struct Hooked {
    pub plan: Arc<dyn ExecutionPlan>,
    pub account: Arc<WriteAccount>,
}

impl Received {
    /// New rows.
    pub(crate) fn rows(plan: Arc<dyn ExecutionPlan>) -> Self {
        Self {
            plan,
            changes: None,
        }
    }

    /// The new rows among those of a statement that changes rows; where the old ones are is noted.
    pub(crate) fn changed(
        plan: Arc<dyn ExecutionPlan>,
        change: &Arc<Change>,
        columns: &SchemaRef,
    ) -> Result<Self> {
        let noted = Arc::new(Slot::default());
        let stage = ChangeExec::try_new(Arc::clone(change), columns, plan, Arc::clone(&noted))?;
        Ok(Self {
            plan: Arc::new(stage),
            changes: Some(ChangeAccount {
                change: Arc::clone(change),
                noted,
            }),
        })
    }

    pub(crate) fn validate(self, rules: Arc<TableRules>) -> Result<Validated> {
        let violations = Arc::new(Slot::default());
        let stage = ValidateExec::try_new(Arc::clone(&rules), self.plan, Arc::clone(&violations))?;
        Ok(Validated {
            plan: Arc::new(stage),
            rules,
            violations,
            changes: self.changes,
        })
    }
}

impl Validated {
    /// Puts every hook that wants this write behind the one before it.
    pub(crate) fn hooks(
        self,
        suppliers: &[Arc<dyn WriteHookSupplier>],
        context: &WriteContext,
    ) -> Result<Hooked> {
        let mut plan = self.plan;
        let mut hooks = Vec::new();
        for supplier in suppliers {
            let stage = HookStage::new(Arc::clone(supplier), context.clone());
            // Asked only whether it wants the write; the instance that works comes with the run.
            if stage.create()?.is_some() {
                let stage = Arc::new(stage);
                let rules = Arc::clone(&self.rules);
                plan = Arc::new(HookExec::new(Arc::clone(&stage), rules, plan));
                hooks.push(stage);
            }
        }
        let account = Arc::new(WriteAccount {
            table: self.rules.table.clone(),
            violations: self.violations,
            changes: self.changes,
            hooks,
        });
        Ok(Hooked { plan, account })
    }
}

/// What the stages of one planned write count.
#[derive(Debug)]
pub(crate) struct WriteAccount {
    table: String,
    violations: Arc<Slot<Violations>>,
    changes: Option<ChangeAccount>,
    hooks: Vec<Arc<HookStage>>,
}

/// One run of a write. Dropping it unsettled closes the account: the rows were not accepted.
#[derive(Debug)]
pub(crate) struct WriteRun(Arc<WriteAccount>);

/// What an accepted run counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settled {
    pub rows_received: u64,
    pub hooks: Vec<HookReport>,
    /// Of a statement that changes rows.
    pub changed: Option<Changed>,
}

impl WriteAccount {
    /// Opens a run: called before any partition of the plan is executed.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<WriteRun> {
        self.violations.open(Violations::default())?;
        // From here on a failure drops the run, which closes what was opened.
        let run = WriteRun(Arc::clone(self));
        if let Some(changes) = &self.changes {
            changes.noted.open(Changes::default())?;
        }
        for hook in &self.hooks {
            hook.open()?;
        }
        Ok(run)
    }
}

impl WriteRun {
    /// The verdict of every stage, in order: called after the last row of every partition and before
    /// the commit. An error means that nothing may become visible.
    pub(crate) fn settle(self) -> Result<Settled> {
        let account = &self.0;
        let rows_received = account.violations.current()?.verdict(&account.table)?;
        let mut expected = rows_received;
        let mut hooks = Vec::with_capacity(account.hooks.len());
        for hook in &account.hooks {
            let report = hook.finish()?;
            // No row may get lost between two stages without being counted by one of them.
            if report.rows_in != expected {
                return Err(Error::internal(format!(
                    "table {}: {expected} rows went to hook {}, {} arrived",
                    account.table, report.hook, report.rows_in
                )));
            }
            expected = report.rows_out;
            hooks.push(report);
        }
        let changed = match &account.changes {
            Some(changes) => {
                let noted = changes.noted.current()?;
                let changed = noted.verdict(&account.table, &changes.change)?;
                if changed.inserted + changed.updated != rows_received {
                    return Err(Error::internal(format!(
                        "table {}: {} rows were changed, {rows_received} arrived",
                        account.table,
                        changed.inserted + changed.updated
                    )));
                }
                Some(changed)
            }
            None => None,
        };
        Ok(Settled {
            rows_received,
            hooks,
            changed,
        })
    }
}

impl Drop for WriteRun {
    fn drop(&mut self) {
        self.0.violations.close();
        if let Some(changes) = &self.0.changes {
            changes.noted.close();
        }
        for hook in &self.0.hooks {
            hook.close();
        }
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
    pub(super) fn open(&self, state: T) -> Result<()> {
        let mut slot = self.0.lock();
        if slot.is_some() {
            return Err(Error::internal("a write was begun while it was running"));
        }
        *slot = Some(Arc::new(state));
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

/// How stages are rebuilt over another input.
pub(super) const RECOMPUTE: ReplaceChildrenOptions =
    ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);

pub(super) fn one_child(
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> PlanResult<Arc<dyn ExecutionPlan>> {
    match <[_; 1]>::try_from(children) {
        Ok([child]) => Ok(child),
        Err(children) => Err(Error::internal(format!(
            "a write stage has one input, not {}",
            children.len()
        ))
        .into()),
    }
}

/// Properties of a stage: as many partitions as its input, nothing said about values.
pub(super) fn properties(
    input: &Arc<dyn ExecutionPlan>,
    schema: &SchemaRef,
) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(Arc::clone(schema)),
        Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
        input.pipeline_behavior(),
        input.boundedness(),
    ))
}

type Step = Box<dyn FnMut(RecordBatch) -> Result<Option<RecordBatch>> + Send>;

/// One partition of a stage: a function from batch to batch, or to nothing.
pub(super) struct StageStream {
    input: SendableRecordBatchStream,
    schema: SchemaRef,
    step: Step,
    /// Called once, when the input ended without error.
    end: Option<Box<dyn FnOnce() + Send>>,
    metrics: BaselineMetrics,
}

impl StageStream {
    pub(super) fn boxed(
        input: SendableRecordBatchStream,
        schema: &SchemaRef,
        metrics: (&ExecutionPlanMetricsSet, usize),
        step: impl FnMut(RecordBatch) -> Result<Option<RecordBatch>> + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> SendableRecordBatchStream {
        Box::pin(Self {
            input,
            schema: Arc::clone(schema),
            step: Box::new(step),
            end: Some(Box::new(end)),
            metrics: BaselineMetrics::new(metrics.0, metrics.1),
        })
    }
}

impl Stream for StageStream {
    type Item = PlanResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(batch) = ready!(self.input.poll_next_unpin(cx)?) else {
                if let Some(end) = self.end.take() {
                    end();
                }
                self.metrics.done();
                return Poll::Ready(None);
            };
            let elapsed = self.metrics.elapsed_compute().clone();
            let timer = elapsed.timer();
            let batch = (self.step)(batch).map_err(DataFusionError::from)?;
            timer.done();
            if let Some(batch) = batch {
                return Poll::Ready(Some(Ok(batch.record_output(&self.metrics))));
            }
        }
    }
}

impl RecordBatchStream for StageStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

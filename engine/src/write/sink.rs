//! The sink of a write plan: the node that runs it, and only when it is executed.

use std::fmt;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_expr::{
    EquivalenceProperties, OrderingRequirements, Partitioning, PhysicalExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties,
};
use futures::stream;

use super::journal;
use super::report::WriteReport;
pub(crate) use super::run::{REPLAY, Rehearsal};
use super::run::{rehearse, run};
use super::stages::Checked;
use super::target::WriteTarget;
use crate::error::{Error, Result};

/// Runs a write when it is executed, and only then. One output row: the number of rows written.
#[derive(Debug)]
pub(crate) struct WriteExec {
    rows: Checked,
    target: Arc<WriteTarget>,
    op: InsertOp,
    properties: Arc<PlanProperties>,
    /// The account of the write, there once the stream has ended.
    report: Arc<OnceLock<WriteReport>>,
}

impl WriteExec {
    pub(crate) fn new(rows: Checked, target: Arc<WriteTarget>, op: InsertOp) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(count_schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            rows,
            target,
            op,
            properties: Arc::new(properties),
            report: Arc::new(OnceLock::new()),
        }
    }

    /// The write that `plan` holds, without files and without a commit.
    ///
    /// # Errors
    /// When the plan is none of a write, or its rows cannot be made.
    pub(crate) async fn rehearse(
        plan: &Arc<dyn ExecutionPlan>,
        context: &Arc<TaskContext>,
    ) -> Result<Rehearsal> {
        let mut node = plan;
        loop {
            if let Some(sink) = node.downcast_ref::<Self>() {
                return rehearse(&sink.rows, &sink.target, context).await;
            }
            node = match node.children().as_slice() {
                [child] => *child,
                _ => return Err(Error::internal("what is no write was to be rehearsed")),
            };
        }
    }

    /// The account of the write that `plan` ran, if it holds one and has ended.
    pub(crate) fn report_of(plan: &Arc<dyn ExecutionPlan>) -> Option<WriteReport> {
        if let Some(sink) = plan.downcast_ref::<Self>() {
            return sink.report.get().cloned();
        }
        plan.children().into_iter().find_map(Self::report_of)
    }
}

/// The schema of the one row a write answers.
pub(crate) fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        "count",
        DataType::UInt64,
        false,
    )]))
}

impl DisplayAs for WriteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "WriteExec: table={}, mode={}",
            self.target.name,
            match &self.target.change {
                Some(change) => change.statement.to_lowercase(),
                None => mode_name(self.op).to_owned(),
            }
        )
    }
}

impl ExecutionPlan for WriteExec {
    fn name(&self) -> &str {
        "WriteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows.plan]
    }

    /// The sink computes nothing itself.
    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![match self.target.journals() {
            Some(_) => Distribution::SinglePartition,
            None => Distribution::UnspecifiedDistribution,
        }]
    }

    /// Events of a journal are taken key by key.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let order = self.target.journals().and_then(|target| {
            // The stage that makes events was put there with this order: it has its columns.
            journal::ordering(&target.shape, &self.rows.plan.schema()).ok()
        });
        vec![order.map(OrderingRequirements::from)]
    }

    /// The files spread the rows themselves; the stages before them are where more partitions help.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(child) = children.pop() else {
            return Err(Error::internal("a write needs rows").into());
        };
        Ok(Arc::new(Self {
            rows: Checked {
                plan: child,
                account: Arc::clone(&self.rows.account),
            },
            target: Arc::clone(&self.target),
            op: self.op,
            properties: Arc::clone(&self.properties),
            report: Arc::clone(&self.report),
        }))
    }

    fn execute(
        &self,
        _partition: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<SendableRecordBatchStream> {
        let (rows, target, op, slot) = (
            self.rows.clone(),
            Arc::clone(&self.target),
            self.op,
            Arc::clone(&self.report),
        );
        let run = async move {
            let report = run(&rows, &target, op, &context).await?;
            let count: UInt64Array = vec![report.rows_affected()].into();
            // Set once: a plan that runs a second time would be a second write, which the slot refuses.
            let _ = slot.set(report);
            Ok(RecordBatch::try_new(count_schema(), vec![Arc::new(count)])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            count_schema(),
            stream::once(run),
        )))
    }
}

fn mode_name(op: InsertOp) -> &'static str {
    match op {
        InsertOp::Append => "append",
        InsertOp::Overwrite => "overwrite",
        InsertOp::Replace => "overwrite partitions",
    }
}

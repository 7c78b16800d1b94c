//! A step of a plan that tells how many rows have passed, so that whoever waits for a large group sees it grow.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

use crate::error::Error;
use crate::progress::Meter;

/// Passes rows on as they are.
#[derive(Debug)]
pub(super) struct Tally {
    rows: Arc<dyn ExecutionPlan>,
    meter: Meter,
}

impl Tally {
    pub(super) fn new(rows: Arc<dyn ExecutionPlan>, meter: Meter) -> Arc<Self> {
        Arc::new(Self { rows, meter })
    }
}

impl DisplayAs for Tally {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tally")
    }
}

impl ExecutionPlan for Tally {
    fn name(&self) -> &str {
        "Tally"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(rows) = children.pop() else {
            return Err(Error::internal("a tally needs rows").into());
        };
        Ok(Self::new(rows, self.meter.clone()))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (rows, meter) = (self.rows.execute(partition, context)?, self.meter.clone());
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            rows.inspect_ok(move |batch| meter.rows(batch.num_rows() as u64)),
        )))
    }
}

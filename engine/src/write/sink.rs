//! The sink of a write plan: runs the stages, writes the files, commits once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties,
};
use futures::stream;
use serde_json::Value;

use super::commit::{self, Intent, Outcome, PartitionKey, Removes};
use super::conflict::Reads;
use super::files::FileSink;
use super::report::WriteReport;
use super::stages::Hooked;
use super::target::WriteTarget;
use crate::error::{Error, ErrorKind, Result};
use crate::table::actions::Add;

/// Runs a write when it is executed, and only then. One output row: the number of rows written.
#[derive(Debug)]
pub(crate) struct WriteExec {
    rows: Hooked,
    target: Arc<WriteTarget>,
    op: InsertOp,
    properties: Arc<PlanProperties>,
    /// The account of the write, there once the stream has ended.
    report: Arc<OnceLock<WriteReport>>,
}

impl WriteExec {
    pub(crate) fn new(rows: Hooked, target: Arc<WriteTarget>, op: InsertOp) -> Self {
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
        vec![Distribution::UnspecifiedDistribution]
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
            rows: Hooked {
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
            let report = run(&rows, &target, op, context).await?;
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

/// The stages after the rows' own: files, verdicts, commit.
async fn run(
    rows: &Hooked,
    target: &WriteTarget,
    op: InsertOp,
    context: Arc<TaskContext>,
) -> Result<WriteReport> {
    let started_ms = target.ambient.now_ms();
    let metadata = target
        .metadata()
        .ok_or_else(|| Error::internal(format!("the write to {} has no table", target.name)))?;
    let sink = FileSink::new(
        &target.table.root,
        &target.schema,
        metadata,
        target.settings.target_file_bytes,
        target.ambient.ids(),
        target.ambient.millis(),
    )?;
    let _running = target
        .table
        .running
        .begin(started_ms, target.change.is_some());
    let run = rows.account.begin()?;
    let written = sink.write(Arc::clone(&rows.plan), context).await?;
    // Verdicts come before the commit: what was refused has no effect but files nobody refers to.
    let settled = match run.settle() {
        Ok(settled) => settled,
        Err(error) => {
            sink.discard(&written.adds).await;
            return Err(error);
        }
    };
    let adds = written.adds;
    let mut report = WriteReport {
        table: target.name.clone(),
        operation: target.operation.to_owned(),
        batch_id: target.batch_id,
        rows_received: settled.rows_received,
        rows_written: written.rows,
        hooks: settled.hooks,
        ..WriteReport::default()
    };
    report.duration_ms = (target.ambient.now_ms() - started_ms).max(0) as u64;
    let removes = match settled.changed {
        Some(changed) => {
            report.rows_inserted = changed.inserted;
            report.rows_updated = changed.updated;
            report.rows_deleted = changed.deleted;
            match changed.rows.is_empty() {
                true => Removes::None,
                false => Removes::Rows(Arc::new(changed.rows)),
            }
        }
        None => removes(op, &adds),
    };
    if adds.is_empty() && matches!(removes, Removes::None) && target.creates.is_none() {
        return Ok(report);
    }
    let intent = Intent {
        name: target.name.clone(),
        base: target.base.clone(),
        operation: target.operation,
        parameters: parameters(target, op),
        protocol: target.creates.as_ref().map(|new| new.protocol.clone()),
        metadata: target.creates.as_ref().map(|new| new.metadata.clone()),
        removes: if target.creates.is_some() && target.base.is_some() {
            Removes::All
        } else {
            removes
        },
        adds,
        user: target.user.clone(),
        reads: reads(target),
        vectors: target.vectors.clone(),
        rearranges: false,
        transaction: None,
        report,
    };
    let adds = intent.adds.clone();
    match commit::commit(Arc::clone(&target.table), intent, &target.settings).await {
        Ok(Outcome::Committed(report)) => Ok(report),
        // The store may still hold the commit, so its files must stay.
        Ok(Outcome::Unknown(error)) => Err(error),
        Ok(Outcome::Conflict(reason)) => {
            sink.discard(&adds).await;
            Err(Error::new(ErrorKind::Conflict, reason).with_hint("run the statement again"))
        }
        Err(error) => {
            sink.discard(&adds).await;
            Err(error)
        }
    }
}

/// What the write depends on in the table it goes to.
fn reads(target: &WriteTarget) -> Reads {
    let Some(change) = &target.change else {
        return match target.reads_itself {
            true => Reads::Table,
            false => Reads::Nothing,
        };
    };
    match change.located.looked_at() {
        _ if change.reads_itself => Reads::Table,
        Some(asked) if change.absence => Reads::Matches(asked),
        Some(asked) => Reads::Rows(asked),
        None => Reads::Nothing,
    }
}

fn removes(op: InsertOp, adds: &[Add]) -> Removes {
    match op {
        InsertOp::Append => Removes::None,
        InsertOp::Overwrite => Removes::All,
        InsertOp::Replace => {
            let present: BTreeSet<PartitionKey> = adds
                .iter()
                .map(|add| add.partition_values.clone())
                .collect();
            if present.is_empty() {
                Removes::None
            } else {
                Removes::Partitions(present)
            }
        }
    }
}

/// What the log says of the write, in the words other Delta writers use.
fn parameters(target: &WriteTarget, op: InsertOp) -> BTreeMap<String, Value> {
    if target.change.is_some() {
        return BTreeMap::new();
    }
    let mode = match op {
        InsertOp::Append => "Append",
        InsertOp::Overwrite | InsertOp::Replace => "Overwrite",
    };
    let columns = Value::from(target.partition_columns().to_vec()).to_string();
    let mut parameters = BTreeMap::from([
        ("mode".to_owned(), Value::from(mode)),
        ("partitionBy".to_owned(), Value::from(columns)),
    ]);
    if op == InsertOp::Replace {
        parameters.insert("partitionOverwriteMode".to_owned(), Value::from("dynamic"));
    }
    parameters
}

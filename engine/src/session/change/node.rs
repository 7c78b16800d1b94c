//! The logical node of a statement that changes rows, and how it becomes a write.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use crate::error::Error;
use crate::table::versioned::VersionedTable;
use crate::write::sink::count_schema;

/// What a write answers: the number of rows it changed.
static COUNT: LazyLock<DFSchemaRef> = LazyLock::new(|| {
    let fields = count_schema().fields().clone();
    Arc::new(
        DFSchema::from_unqualified_fields(fields, Default::default())
            .unwrap_or_else(|_| DFSchema::empty()),
    )
});

/// Changes rows of a table as its input says. DataFusion's own nodes for this keep only a part of the statement.
#[derive(Debug, Clone)]
pub(in crate::session) struct ChangeRows {
    verb: &'static str,
    table: Arc<VersionedTable>,
    op: InsertOp,
    pub(in crate::session) input: Arc<LogicalPlan>,
    schema: DFSchemaRef,
}

impl ChangeRows {
    /// `input`: columns of the table, places, what to do.
    pub(in crate::session) fn plan(
        verb: &'static str,
        table: VersionedTable,
        input: LogicalPlan,
    ) -> LogicalPlan {
        Self::node(verb, table, input, InsertOp::Append)
    }

    /// All rows make place for those of `input`, which has the columns of the table.
    pub(super) fn overwrite(
        verb: &'static str,
        table: VersionedTable,
        input: LogicalPlan,
    ) -> LogicalPlan {
        Self::node(verb, table, input, InsertOp::Overwrite)
    }

    fn node(
        verb: &'static str,
        table: VersionedTable,
        input: LogicalPlan,
        op: InsertOp,
    ) -> LogicalPlan {
        LogicalPlan::Extension(Extension {
            node: Arc::new(Self {
                verb,
                table: Arc::new(table),
                op,
                input: Arc::new(input),
                schema: COUNT.clone(),
            }),
        })
    }

    /// The change that `plan` is, if it is one.
    pub(in crate::session) fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// The same change of what `input` says.
    pub(in crate::session) fn over(&self, input: LogicalPlan) -> LogicalPlan {
        LogicalPlan::Extension(Extension {
            node: Arc::new(Self {
                input: Arc::new(input),
                ..self.clone()
            }),
        })
    }

    fn key(&self) -> (&str, String, &LogicalPlan) {
        (self.verb, format!("{:?}", self.op), &self.input)
    }
}

impl PartialEq for ChangeRows {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key() && Arc::ptr_eq(&self.table, &other.table)
    }
}

impl Eq for ChangeRows {}

impl PartialOrd for ChangeRows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.key().partial_cmp(&other.key())
    }
}

impl Hash for ChangeRows {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl UserDefinedLogicalNodeCore for ChangeRows {
    fn name(&self) -> &str {
        self.verb
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: table={}", self.verb, self.table.name())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs
            .pop()
            .ok_or_else(|| Error::internal("a change has no input"))?;
        Ok(Self {
            input: Arc::new(input),
            ..self.clone()
        })
    }
}

/// DataFusion's planner, which also knows changes.
#[derive(Debug)]
pub(in crate::session) struct ChangePlanner;

#[async_trait]
impl QueryPlanner for ChangePlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Self)])
            .create_physical_plan(plan, session)
            .await
    }
}

#[async_trait]
impl ExtensionPlanner for ChangePlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(change) = node.as_any().downcast_ref::<ChangeRows>() else {
            return Ok(None);
        };
        let [input] = physical_inputs else {
            return Err(Error::internal("a change has one input").into());
        };
        let write = change
            .table
            .insert_into(session, Arc::clone(input), change.op);
        write.await.map(Some)
    }
}

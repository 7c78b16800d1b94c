//! CHECK JOURNAL: proof that the intervals of a journal are what intervals must be. No row is proof.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast::ObjectName;

use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::journal::check;
use crate::journal::shape::Shape;
use crate::session::scope::{Opened, Scope};
use crate::sql::At;

/// The columns of CHECK JOURNAL: a row per fault.
pub(in crate::session) fn checked() -> SchemaRef {
    check::schema()
}

/// `CHECK JOURNAL t ..`
pub(in crate::session) async fn check(
    scope: &Arc<Scope>,
    table: &ObjectName,
    at: Option<At>,
) -> Result<Answer> {
    let opened = scope.open(table).await?;
    let snapshot = match at {
        Some(at) => scope.snapshot_at(&opened.handle, &opened.name, at).await?,
        None => Arc::clone(&opened.snapshot),
    };
    // The version says which columns hold the intervals: they may have been called otherwise then.
    let shape = Shape::of(&opened.name, &snapshot)?.ok_or_else(|| plain(&opened))?;
    let intervals = Arc::new(opened.handle.provider(&opened.name, snapshot));
    let intervals =
        LogicalPlanBuilder::scan("intervals", provider_as_source(intervals), None)?.build()?;
    let faults = faults(scope, &shape, intervals).await?;
    Ok(Answer::Rows(faults))
}

/// What is said of a table that keeps no intervals.
pub(in crate::session) fn plain(opened: &Opened) -> Error {
    Error::invalid(format!("table {} is not a journal table", opened.name)).with_hint(
        "a journal is made by CREATE TABLE .. JOURNAL KEYS (..), and of a table that is there by adding AS SELECT",
    )
}

/// The faults of `intervals`, which have all columns of the table in its order.
pub(in crate::session) async fn faults(
    scope: &Arc<Scope>,
    shape: &Arc<Shape>,
    intervals: LogicalPlan,
) -> Result<SendableRecordBatchStream> {
    let order = shape
        .key_names()
        .chain([shape.definition.columns.from.as_str()])
        .map(|name| Expr::Column(Column::new_unqualified(name)).sort(true, false));
    let order: Vec<_> = order.collect();
    let sorted = LogicalPlanBuilder::from(as_kept(intervals, &shape.stored)?)
        .sort(order)?
        .build()?;
    let state = scope.state();
    let plan = state.create_physical_plan(&sorted).await?;
    let sorted = execute_stream(plan, state.task_ctx())?;
    check::violations(shape, sorted)
}

/// Rows in the types and under the names of `columns`: a session may see instants in its own zone.
pub(in crate::session) fn as_kept(rows: LogicalPlan, columns: &SchemaRef) -> Result<LogicalPlan> {
    let given = rows.schema().iter().zip(columns.fields());
    let columns = given.map(|((qualifier, field), kept)| {
        let value = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let value = match field.data_type() == kept.data_type() {
            true => value,
            false => Expr::Cast(Cast::new(Box::new(value), kept.data_type().clone())),
        };
        value.alias(kept.name())
    });
    let columns: Vec<Expr> = columns.collect();
    Ok(LogicalPlanBuilder::from(rows).project(columns)?.build()?)
}

//! DELETE and TRUNCATE.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::ObjectName;

use super::node::ChangeRows;
use super::{Target, Terms, change, journal, syntax};
use crate::error::Result;
use crate::session::scope::{Opened, Scope};
use crate::sql::Delete;
use crate::write::change::Kind;

/// `DELETE FROM t [AS a] [USING ..] [WHERE p]`
pub(in crate::session) async fn delete(scope: &Arc<Scope>, delete: Delete) -> Result<LogicalPlan> {
    let target = Target::open(scope, &delete.table, delete.alias).await?;
    if target.shape.is_some() {
        return journal::delete(&target, delete.using, delete.predicate, "DELETE").await;
    }
    if delete.predicate.is_none() && delete.using.is_empty() {
        return empty(scope, &target.opened, "DELETE");
    }
    let projection = target.places().into_iter().chain([change(Kind::Delete)]);
    let from = [target.relation()].into_iter().chain(delete.using);
    let query = syntax::select(projection.collect(), from.collect(), delete.predicate)?;
    let input = scope.plan_query(query).await?;
    target.write(
        input,
        Terms {
            node: "Delete",
            statement: "DELETE",
            operation: "DELETE",
            // A row that several rows of USING condemn goes once.
            repeats: true,
            absence: false,
            condition: None,
        },
    )
}

/// `TRUNCATE TABLE t`
pub(in crate::session) async fn truncate(
    scope: &Arc<Scope>,
    table: &ObjectName,
) -> Result<LogicalPlan> {
    let target = Target::open(scope, table, None).await?;
    match target.shape {
        Some(_) => journal::delete(&target, Vec::new(), None, "TRUNCATE").await,
        None => empty(scope, &target.opened, "TRUNCATE"),
    }
}

/// All rows go: the table is overwritten with none, and no file is read.
fn empty(scope: &Arc<Scope>, opened: &Opened, operation: &'static str) -> Result<LogicalPlan> {
    let table = scope.writable(opened, operation)?;
    let columns = opened
        .snapshot
        .schema
        .fields()
        .iter()
        .map(|field| {
            let nothing = ScalarValue::try_from(field.data_type())?;
            Ok(Expr::Literal(nothing, None).alias(field.name()))
        })
        .collect::<Result<Vec<_>>>()?;
    let input = LogicalPlanBuilder::empty(false).project(columns)?.build()?;
    Ok(ChangeRows::overwrite("Truncate", table, input))
}

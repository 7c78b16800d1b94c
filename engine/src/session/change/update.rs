//! UPDATE.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Expr;

use super::{Target, Terms, change, journal, syntax};
use crate::error::Result;
use crate::session::scope::Scope;
use crate::sql::Update;
use crate::write::change::Kind;

/// `UPDATE t [AS a] SET c = e, .. [FROM ..] [WHERE p]`. Values are those of before the statement.
pub(in crate::session) async fn update(scope: &Arc<Scope>, update: Update) -> Result<LogicalPlan> {
    let target = Target::open(scope, &update.table, update.alias).await?;
    let mut values: HashMap<usize, Expr> = HashMap::new();
    for assignment in update.assignments {
        let column = target.find(&assignment.column)?;
        values.insert(column, target.value(column, assignment.value)?);
    }
    if target.shape.is_some() {
        return journal::update(&target, values, update.from, update.predicate).await;
    }
    let fields = target.fields();
    let columns = fields.iter().enumerate().map(|(at, field)| {
        let value = values.remove(&at);
        let value = value.unwrap_or_else(|| target.column(field.name()));
        syntax::named(value, field.name())
    });
    let projection = columns
        .chain(target.places())
        .chain([change(Kind::Update)])
        .collect();
    let from = [target.relation()].into_iter().chain(update.from);
    let query = syntax::select(projection, from.collect(), update.predicate)?;
    let input = scope.plan_query(query).await?;
    target.write(
        input,
        Terms {
            node: "Update",
            statement: "UPDATE",
            operation: "UPDATE",
            repeats: false,
            absence: false,
            condition: None,
        },
    )
}

//! REPLAY QUARANTINE: quarantined rows, repaired or not, through every stage of the write path again.
//!
//! The commit that shows them says which rows of quarantine it took; two replays that took a row of the same file
//! do not both land, so that each row comes back once.
//!
//! Two kinds of rows stay where they are, whatever the statement says, because a write of them would lose something:
//! - Those with a value that did not fit its column, unless SET gives the column another. Only `_row` has that value,
//!   and the column would be NULL.
//! - Those that were to take the place of a row of the table (`_replaces`). That one stayed, and both would be there.
//!   `MERGE INTO t USING "t$quarantine" ..` does by hand what the statement they come from could not.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Expr;

use crate::error::Result;
use crate::quality::failure::{REPLACES, UNFIT};
use crate::session::change::Target;
use crate::session::scope::Scope;
use crate::session::syntax;
use crate::sql::{self, Replay};
use crate::table::mapping;

/// `REPLAY QUARANTINE t [WHERE p] [SET c = e, ..]`
pub(in crate::session) async fn replay(scope: &Arc<Scope>, replay: Replay) -> Result<LogicalPlan> {
    let target = Target::quarantine(scope, &replay.table).await?;
    let mut values: HashMap<usize, Expr> = HashMap::new();
    for assignment in replay.assignments {
        let column = target.find(&assignment.column)?;
        values.insert(column, target.value(column, assignment.value)?);
    }
    let fields = target.fields().iter().enumerate();
    let given = fields.clone().filter(|(at, _)| !values.contains_key(at));
    let given = given.map(|(_, field)| mapping::physical_name(field));
    let mut condition = complete(&target, given)?;
    if let Some(predicate) = replay.predicate {
        condition = syntax::and(condition, predicate);
    }
    let columns = fields.map(|(at, field)| {
        let value = values.remove(&at);
        let value = value.unwrap_or_else(|| target.column(field.name()));
        syntax::named(value, field.name())
    });
    let projection = columns.chain(target.places()).collect();
    let query = syntax::select(projection, vec![target.relation()], Some(condition))?;
    let input = scope.plan_query(query).await?;
    target.replay(input)
}

/// Holds for rows that are new, and have in all of the `given` columns, by the names of files, the value they
/// came with.
fn complete<'a>(target: &Target<'_>, given: impl Iterator<Item = &'a str>) -> Result<Expr> {
    let new = Expr::IsNotTrue(Box::new(target.column(REPLACES)));
    let given: Vec<String> = given.map(literal).collect();
    if given.is_empty() {
        return Ok(new);
    }
    let unfit = target.column(UNFIT);
    let lost = format!("array_has_any({unfit}, make_array({}))", given.join(", "));
    let lost = sql::parse_expr(&lost)?;
    Ok(syntax::and(new, Expr::IsNotTrue(Box::new(lost))))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

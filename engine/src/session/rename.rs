//! New names for the columns of a plan.

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use crate::error::{Error, Result};

/// `plan` with its columns named `names`; no names leave it as it is.
pub(super) fn columns(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan> {
    if names.is_empty() {
        return Ok(plan);
    }
    let schema = plan.schema();
    if schema.fields().len() != names.len() {
        return Err(Error::invalid(format!(
            "{} column names are given, but the query has {} columns",
            names.len(),
            schema.fields().len()
        )));
    }
    let renamed: Vec<Expr> = schema
        .iter()
        .zip(names)
        .map(|((qualifier, field), name)| {
            Expr::Column(Column::new(qualifier.cloned(), field.name())).alias(name)
        })
        .collect();
    Ok(LogicalPlanBuilder::from(plan).project(renamed)?.build()?)
}

//! INSERT .. REPLACE WHERE: rows for which a condition holds make place for those of a source, in one commit.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::sql::sqlparser::ast::{self, ObjectName};

use super::{Target, Terms, change, syntax};
use crate::error::{Error, Result};
use crate::session::scope::Scope;
use crate::table::located;
use crate::write::change::{CHANGE, Kind};

/// `source` has the columns of the table in order. Its rows must satisfy the condition too.
pub(in crate::session) async fn replace(
    scope: &Arc<Scope>,
    table: &ObjectName,
    source: LogicalPlan,
    condition: ast::Expr,
) -> Result<LogicalPlan> {
    let target = Target::open(scope, table, None).await?;
    if target.shape.is_some() {
        return Err(Error::unsupported(format!(
            "INSERT .. REPLACE WHERE of journal table {}",
            target.opened.name
        ))
        .with_hint(
            "INSERT says what is true from now on, INSERT OVERWRITE what is true of all keys",
        ));
    }
    let text = condition.to_string();
    let projection = target.places().into_iter().chain([change(Kind::Delete)]);
    let query = syntax::select(
        projection.collect(),
        vec![target.relation()],
        Some(condition),
    )?;
    let old = scope.plan_query(query).await?;
    let nothing =
        |data_type| -> Result<Expr> { Ok(Expr::Literal(ScalarValue::try_from(data_type)?, None)) };
    let place = |name: &str| Expr::Column(datafusion::common::Column::from_name(name));
    let (mut gone, mut came) = (Vec::new(), Vec::new());
    for (qualifier, field) in source.schema().iter() {
        gone.push(nothing(field.data_type())?.alias(field.name()));
        came.push(Expr::Column((qualifier, field).into()));
    }
    for name in [located::FILE, located::ROW] {
        let field = old.schema().field_with_unqualified_name(name)?;
        came.push(nothing(field.data_type())?.alias(name));
        gone.push(place(name));
    }
    came.push(lit(Kind::Insert as i64).alias(CHANGE));
    gone.push(place(CHANGE));
    let old = LogicalPlanBuilder::from(old).project(gone)?.build()?;
    let input = LogicalPlanBuilder::from(source)
        .project(came)?
        .union(old)?
        .build()?;
    target.write(
        input,
        Terms {
            node: "ReplaceWhere",
            statement: "INSERT .. REPLACE WHERE",
            operation: "WRITE",
            repeats: false,
            absence: false,
            condition: Some(text),
        },
    )
}

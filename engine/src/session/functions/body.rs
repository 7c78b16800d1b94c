//! The text of a function to a plan over its parameters.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::expr::Exists;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    self, Query, SelectItem, TableFactor, TableWithJoins, Visit, Visitor,
};

use super::bind::Bind;
use super::fit::{fitted, unfit};
use super::{Function, Gives};
use crate::catalog::entry::FunctionEntry;
use crate::error::{Error, Result};
use crate::session::dependents::Object;
use crate::session::scope::Scope;
use crate::session::syntax;
use crate::sql::{self, Statement};

/// Name under which a body finds its parameters.
const PARAMETERS: &str = "$function";

/// The value of a function, over columns that are its parameters.
pub(super) async fn value(
    inside: &Arc<Scope>,
    function: &Function,
    body: ast::Expr,
) -> Result<Expr> {
    apart(function, &body)?;
    let (plan, given) = over_parameters(inside, function, body).await?;
    let Gives::Value(wanted) = &function.gives else {
        return Err(Error::internal(
            "a function of rows was planned as one of a value",
        ));
    };
    // An aggregate or a window function would stand between the value and the parameters.
    if !matches!(
        plan,
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::TableScan(_)
    ) {
        let many = format!("function {}: its value is made from one row", function.full);
        return Err(Error::invalid(many)
            .with_hint("functions of many rows stand in a query: RETURN (SELECT .. FROM ..)"));
    }
    let (value, from) = given;
    let what = format!("the value of function {}", function.full);
    fitted(value, &from, wanted).ok_or_else(|| unfit(&what, &from, wanted))
}

/// The rows of a function. Columns of an outer query in it are its parameters.
pub(super) async fn rows(
    inside: &Arc<Scope>,
    function: &Function,
    body: Box<Query>,
) -> Result<LogicalPlan> {
    apart(function, &body)?;
    let exists = ast::Expr::Exists {
        subquery: body,
        negated: false,
    };
    let (_, (expr, _)) = over_parameters(inside, function, exists).await?;
    let Expr::Exists(Exists { subquery, .. }) = expr else {
        return Err(Error::internal(
            "the query of a function was not planned as one",
        ));
    };
    let plan = Arc::unwrap_or_clone(subquery.subquery);
    let Gives::Rows(Some(wanted)) = &function.gives else {
        return Ok(plan);
    };
    let full = &function.full;
    let given = plan.schema();
    if given.fields().len() != wanted.fields().len() {
        return Err(Error::invalid(format!(
            "function {full} gives {} columns, but its query has {}",
            wanted.fields().len(),
            given.fields().len()
        )));
    }
    let columns = given
        .iter()
        .zip(wanted.fields())
        .map(|((table, found), field)| {
            let column = Expr::from((table, found));
            let what = format!("column {} of function {full}", field.name());
            fitted(column, found.data_type(), field.data_type())
                .map(|value| value.alias(field.name()))
                .ok_or_else(|| unfit(&what, found.data_type(), field.data_type()))
        });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}

/// `SELECT body` over one row of parameters: what it stands on, and the value with its type.
async fn over_parameters(
    inside: &Arc<Scope>,
    function: &Function,
    body: ast::Expr,
) -> Result<(LogicalPlan, (Expr, DataType))> {
    let within = |error: Error| match error.detail() {
        None => error.with_detail(format!("in function {}", function.full)),
        Some(_) => error,
    };
    let parameters = EmptyTable::new(Arc::clone(&function.parameters));
    inside.bind(PARAMETERS, Arc::new(parameters));
    let from = TableWithJoins {
        relation: syntax::table(PARAMETERS, syntax::exact(&function.name)),
        joins: vec![],
    };
    let query = syntax::select(vec![SelectItem::UnnamedExpr(body)], vec![from], None)?;
    match inside.plan_query(query).await.map_err(within)? {
        LogicalPlan::Projection(projection) => {
            let data_type = projection.schema.field(0).data_type().clone();
            let value = projection.expr.into_iter().next();
            let value = value.ok_or_else(|| Error::internal("a value was planned as none"))?;
            let input = Arc::unwrap_or_clone(projection.input);
            Ok((input, (value.unalias(), data_type)))
        }
        _ => Err(Error::internal("a value was not planned as one")),
    }
}

/// Plans a function that the lake keeps, to see that it works.
pub(in crate::session) async fn check(
    scope: &Arc<Scope>,
    schema: &str,
    name: &str,
    entry: &FunctionEntry,
) -> Result<()> {
    let function = Function::read(schema, name, entry)?;
    match function.gives {
        Gives::Value(_) => kept_value(scope, &function, schema, entry).await.map(drop),
        Gives::Rows(_) => kept_rows(scope, &function, schema, entry).await.map(drop),
    }
}

/// The value of a function that the lake keeps.
pub(super) async fn kept_value(
    scope: &Arc<Scope>,
    function: &Function,
    schema: &str,
    entry: &FunctionEntry,
) -> Result<Expr> {
    let inside = enter(scope, function, schema, entry)?;
    let expr = sql::parse_value(&entry.body).map_err(|error| damaged(function, error))?;
    value(&inside, function, expr).await
}

/// The rows of a function that the lake keeps.
pub(super) async fn kept_rows(
    scope: &Arc<Scope>,
    function: &Function,
    schema: &str,
    entry: &FunctionEntry,
) -> Result<LogicalPlan> {
    let inside = enter(scope, function, schema, entry)?;
    match sql::parse(&entry.body).map_err(|error| damaged(function, error))? {
        Statement::Query(query) => rows(&inside, function, query).await,
        _ => Err(Error::corrupt(format!(
            "function {} does not hold a query",
            function.full
        ))),
    }
}

fn damaged(function: &Function, error: Error) -> Error {
    error.with_detail(format!("in function {}", function.full))
}

/// The scope of a function's body: other names to search, and the function itself out of bounds.
fn enter(
    scope: &Arc<Scope>,
    function: &Function,
    schema: &str,
    entry: &FunctionEntry,
) -> Result<Arc<Scope>> {
    let here = Object::function(schema, &function.name);
    if scope.path.contains(&here) {
        return Err(
            Error::invalid(format!("function {} leads back to itself", function.full))
                .with_hint("a function cannot call itself; WITH RECURSIVE repeats a query"),
        );
    }
    Ok(scope.within(here, &entry.search_schema))
}

/// A table inside a query of the body that has the name of the function would hide the parameters from `f.x`, and
/// be taken for them further inside.
fn apart(function: &Function, body: &impl Visit) -> Result<()> {
    struct Tables<'a>(&'a Function);
    impl Visitor for Tables<'_> {
        type Break = Error;

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
            let (name, alias) = match factor {
                TableFactor::Table { name, alias, .. }
                | TableFactor::Function { name, alias, .. } => {
                    (name.0.last().and_then(|part| part.as_ident()), alias)
                }
                TableFactor::Derived { alias, .. } => (None, alias),
                _ => return ControlFlow::Continue(()),
            };
            // A call of the function itself is refused for what it is.
            if let TableFactor::Table {
                name,
                args: Some(_),
                alias: None,
                ..
            } = factor
                && name.0.len() == 1
            {
                return ControlFlow::Continue(());
            }
            let Some(name) = alias.as_ref().map(|alias| &alias.name).or(name) else {
                return ControlFlow::Continue(());
            };
            if sql::fold(name) != self.0.name {
                return ControlFlow::Continue(());
            }
            let error = Error::invalid(format!(
                "function {} reads a table under its own name, by which its parameters are known",
                self.0.full
            ))
            .with_hint(format!("give the table an alias: {name} AS t"));
            ControlFlow::Break(match sql::position(name.span.start) {
                Some(position) => error.with_position(position),
                None => error,
            })
        }
    }
    match body.visit(&mut Tables(function)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The rows of one call: the plan of `rows` with values in place of parameters.
pub(super) fn called(
    function: &Function,
    rows: LogicalPlan,
    arguments: Vec<Expr>,
) -> Result<LogicalPlan> {
    let bind = Bind::new(function, arguments, Arc::new(DFSchema::empty()))?;
    Ok(bind.rows(rows)?)
}

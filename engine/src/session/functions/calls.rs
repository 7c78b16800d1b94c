//! The calls of a query: which functions they mean, and which argument is for which parameter.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::datasource::ViewTable;
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    Query, Spanned, TableFactor, VisitMut, VisitorMut,
};
use futures::future::BoxFuture;

use super::bind::Macro;
use super::{Function, Gives, body, flatten, missing};
use crate::catalog::entry::FunctionEntry;
use crate::error::{Error, Result};
use crate::session::scope::Scope;
use crate::session::syntax;
use crate::sql;

/// Makes the functions of the lake that a query calls known to its planner: rows become tables of the scope, and
/// values the functions that are returned, to be registered for this query and expanded after it is planned.
pub(in crate::session) fn prepare<'a>(
    scope: &'a Arc<Scope>,
    query: &'a mut Query,
) -> BoxFuture<'a, Result<Vec<ScalarUDF>>> {
    Box::pin(async move {
        let mut calls = Calls {
            scope,
            values: BTreeMap::new(),
            rows: Vec::new(),
        };
        if let ControlFlow::Break(error) = query.visit(&mut calls) {
            return Err(error);
        }
        let Calls { values, rows, .. } = calls;
        for call in rows {
            let plan = match call.what {
                What::Flatten(arguments) => flatten::plan(scope, arguments).await?,
                What::Function(found, arguments) => {
                    let arguments = constants(scope, &found.function, arguments).await?;
                    let Found {
                        schema,
                        entry,
                        function,
                    } = *found;
                    let rows = body::kept_rows(scope, &function, &schema, &entry).await?;
                    body::called(&function, rows, arguments)?
                }
            };
            scope.bind(&call.internal, Arc::new(ViewTable::new(plan, None)));
        }
        let mut functions = Vec::with_capacity(values.len());
        for (name, found) in values {
            let Found {
                schema,
                entry,
                function,
            } = found;
            let value = body::kept_value(scope, &function, &schema, &entry).await?;
            if let Gives::Value(returns) = function.gives.clone() {
                functions.push(Macro::udf(name, function, returns, value));
            }
        }
        Ok(functions)
    })
}

/// A function of the lake that a name means.
struct Found {
    schema: String,
    entry: FunctionEntry,
    function: Function,
}

/// A table function in FROM, and the name of the table that stands for it.
struct RowsCall {
    internal: String,
    what: What,
}

enum What {
    Function(Box<Found>, Vec<ast::Expr>),
    Flatten(Vec<FunctionArg>),
}

struct Calls<'a> {
    scope: &'a Arc<Scope>,
    /// By the name that the planner is told.
    values: BTreeMap<String, Found>,
    rows: Vec<RowsCall>,
}

impl Calls<'_> {
    fn find(&self, name: &ObjectName) -> Result<Option<Found>> {
        let parts = sql::folded(name);
        let (schema, name) = match parts.as_slice() {
            [name] => (self.scope.search_schema(), name),
            [schema, name] => (schema.as_str(), name),
            [catalog, schema, name] if catalog == crate::catalog::NAME => (schema.as_str(), name),
            _ => return Ok(None),
        };
        let Some(entry) = self.scope.pinned.catalog.function(schema, name) else {
            return Ok(None);
        };
        Ok(Some(Found {
            schema: schema.to_owned(),
            entry: entry.clone(),
            function: Function::read(schema, name, entry)?,
        }))
    }

    fn value(&mut self, call: &mut ast::Function) -> Result<()> {
        let Some(found) = self.find(&call.name)? else {
            // The planner would look for a function whose name has dots.
            return match call.name.0.len() {
                1 => Ok(()),
                _ => Err(missing(self.scope, &call.name)),
            };
        };
        let full = &found.function.full;
        if let Gives::Rows(_) = found.function.gives {
            let error = Error::invalid(format!("function {full} gives rows, not a value"))
                .with_hint(format!("SELECT * FROM {full}(..)"));
            return Err(placed(error, &call.name));
        }
        let no = |what: &str| {
            let error = Error::invalid(format!(
                "{what} is for functions of many rows, and {full} is made from one"
            ));
            Err(placed(error, &call.name))
        };
        if call.over.is_some() {
            return no("OVER");
        }
        if call.filter.is_some() {
            return no("FILTER");
        }
        if call.null_treatment.is_some() || !call.within_group.is_empty() {
            return no("IGNORE NULLS, RESPECT NULLS or WITHIN GROUP");
        }
        let given = match &mut call.args {
            FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args,
                clauses,
            }) if clauses.is_empty() => std::mem::take(args),
            FunctionArguments::List(_) => return no("DISTINCT, ALL or ORDER BY"),
            FunctionArguments::None | FunctionArguments::Subquery(_) => {
                let error = Error::invalid(format!("function {full} is called without arguments"))
                    .with_hint(format!("{full}{}", found.function.parameter_list()));
                return Err(placed(error, &call.name));
            }
        };
        let arguments = arranged(&found.function, given).map_err(|e| placed(e, &call.name))?;
        let arguments = arguments.into_iter();
        call.args = FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments
                .map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)))
                .collect(),
            clauses: vec![],
        });
        // The planner knows names of one part.
        let name = sql::folded(&call.name).join(".");
        call.name = ObjectName::from(vec![syntax::exact(&name)]);
        self.values.insert(name, found);
        Ok(())
    }

    fn table(&mut self, factor: &mut TableFactor) -> Result<()> {
        let (name, alias, arguments) = match factor {
            TableFactor::Table {
                name,
                alias,
                args: args @ Some(_),
                ..
            } => {
                let known = match self.find(name)? {
                    Some(found) => What::Function(Box::new(found), vec![]),
                    None if sql::folded(name) == [flatten::NAME] => What::Flatten(vec![]),
                    None if name.0.len() > 1 => return Err(missing(self.scope, name)),
                    None => return Ok(()),
                };
                let given = args.take().map(|args| args.args).unwrap_or_default();
                let what = match known {
                    What::Flatten(_) => What::Flatten(given),
                    What::Function(found, _) => {
                        let full = &found.function.full;
                        if let Gives::Value(_) = found.function.gives {
                            let error =
                                Error::invalid(format!("function {full} gives a value, not rows"))
                                    .with_hint(format!("SELECT {full}(..)"));
                            return Err(placed(error, name));
                        }
                        let arguments =
                            arranged(&found.function, given).map_err(|e| placed(e, name))?;
                        What::Function(found, arguments)
                    }
                };
                (name, alias, what)
            }
            TableFactor::Function { name, .. } => {
                let known = self.find(name)?.is_some() || sql::folded(name) == [flatten::NAME];
                return match known {
                    true => {
                        let text = format!("LATERAL {name}(..) is not supported");
                        Err(placed(Error::unsupported(text), name)
                            .with_hint("arguments of a table function are values, not columns"))
                    }
                    false => Ok(()),
                };
            }
            _ => return Ok(()),
        };
        let last = sql::folded(name).pop().unwrap_or_default();
        let internal = format!("{last}()#{}", self.rows.len() + 1);
        *name = ObjectName::from(vec![syntax::exact(&internal)]);
        alias.get_or_insert_with(|| syntax::alias(syntax::exact(&last)));
        self.rows.push(RowsCall {
            internal,
            what: arguments,
        });
        Ok(())
    }
}

impl VisitorMut for Calls<'_> {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Error> {
        let ast::Expr::Function(call) = expr else {
            return ControlFlow::Continue(());
        };
        match self.value(call) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match self.table(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn placed(error: Error, name: &ObjectName) -> Error {
    match (error.position(), sql::position(name.span().start)) {
        (None, Some(position)) => error.with_position(position),
        _ => error,
    }
}

/// Arguments in the order of the parameters.
fn arranged(function: &Function, given: Vec<FunctionArg>) -> Result<Vec<ast::Expr>> {
    let fields = function.parameters.fields();
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let what = format!("function {}", function.full);
    let count = given.len();
    let arguments = by_name(&what, &names, given)?;
    if count == names.len()
        && let Some(all) = arguments.into_iter().collect()
    {
        return Ok(all);
    }
    let takes = match names.len() {
        0 => "no arguments".to_owned(),
        1 => format!("1 argument {}", function.parameter_list()),
        n => format!("{n} arguments {}", function.parameter_list()),
    };
    let given = match count {
        1 => "1 is given".to_owned(),
        n => format!("{n} are given"),
    };
    Err(Error::invalid(format!("{what} takes {takes}, but {given}")))
}

/// One place for each of `names`, filled by position and then by name. Too many are left out, to be counted.
pub(super) fn by_name(
    what: &str,
    names: &[&str],
    given: Vec<FunctionArg>,
) -> Result<Vec<Option<ast::Expr>>> {
    let mut places: Vec<Option<ast::Expr>> = vec![None; names.len()];
    let mut named = false;
    for (position, argument) in given.into_iter().enumerate() {
        let (name, value) = match argument {
            FunctionArg::Unnamed(value) => (None, value),
            FunctionArg::Named { name, arg, .. } => (Some(name), arg),
            FunctionArg::ExprNamed {
                name: ast::Expr::Identifier(name),
                arg,
                ..
            } => (Some(name), arg),
            FunctionArg::ExprNamed { name, .. } => {
                return Err(Error::invalid(format!(
                    "{what}: {name} is not a parameter's name"
                )));
            }
        };
        let FunctionArgExpr::Expr(value) = value else {
            return Err(Error::invalid(format!("{what} takes values, not *")));
        };
        let place = match name {
            Some(name) => {
                named = true;
                place_of(what, names, &name)?
            }
            None if named => {
                return Err(Error::invalid(format!(
                    "{what}: the argument {value} has no name, but stands after one that has"
                )));
            }
            None => position,
        };
        match places.get_mut(place) {
            Some(Some(_)) => {
                let twice = format!("{what}: parameter {} is given twice", names[place]);
                return Err(Error::invalid(twice));
            }
            Some(empty) => *empty = Some(value),
            None => {}
        }
    }
    Ok(places)
}

fn place_of(what: &str, names: &[&str], name: &Ident) -> Result<usize> {
    let wanted = sql::fold(name);
    if let Some(place) = names.iter().position(|known| *known == wanted) {
        return Ok(place);
    }
    let error = Error::invalid(format!("{what} has no parameter {wanted}"));
    let error = match sql::position(name.span.start) {
        Some(position) => error.with_position(position),
        None => error,
    };
    Err(match sql::nearest(&wanted, names) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None if names.is_empty() => error,
        None => error.with_hint(format!("its parameters are {}", names.join(", "))),
    })
}

/// Arguments of a table function: values, which may be parameters of the statement or come from a subquery.
async fn constants(
    scope: &Arc<Scope>,
    function: &Function,
    arguments: Vec<ast::Expr>,
) -> Result<Vec<Expr>> {
    if arguments.is_empty() {
        return Ok(vec![]);
    }
    let full = &function.full;
    // Names of their own: two equal arguments would be one column twice.
    let items = arguments.into_iter().enumerate();
    let items = items.map(|(n, expr)| syntax::named(expr, &format!("argument {}", n + 1)));
    let query = syntax::select(items.collect(), vec![], None)?;
    let plan = scope.plan_query(query).await.map_err(|error| {
        let detail = format!("in the arguments of function {full}, which are values");
        match error.detail() {
            None => error.with_detail(detail),
            Some(_) => error,
        }
    })?;
    let values = match plan {
        LogicalPlan::Projection(values)
            if matches!(*values.input, LogicalPlan::EmptyRelation(_)) =>
        {
            values.expr
        }
        _ => {
            let many = format!("an argument of function {full} looks at many rows");
            return Err(Error::invalid(many).with_hint("put it into a query: (SELECT ..)"));
        }
    };
    let values: Vec<Expr> = values.into_iter().map(Expr::unalias).collect();
    match values.iter().find(|value| value.is_volatile()) {
        None => Ok(values),
        // It would be another value in each row that the function reads.
        Some(value) => Err(Error::invalid(format!(
            "function {full} cannot take {value}, which is another value each time"
        ))),
    }
}

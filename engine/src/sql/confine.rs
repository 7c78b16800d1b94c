//! What an expression may hold in the place where it stands.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, Query, Spanned, Value, ValueWithSpan, Visit, Visitor,
};

use super::refuse::{check_expr, query_place};
use super::syntax::at;
use crate::error::{Error, Result};

/// Refuses what cannot be evaluated on one row alone.
pub(super) fn row_expression(expr: &Expr, what: &str) -> Result<()> {
    limited(expr, what, false)
}

/// Refuses what is not a value: columns too.
pub(super) fn constant(expr: &Expr, what: &str) -> Result<()> {
    limited(expr, what, true)
}

fn limited(expr: &Expr, what: &str, constant: bool) -> Result<()> {
    match expr.visit(&mut Limited { what, constant }) {
        ControlFlow::Continue(()) => check_expr(expr),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Limited<'a> {
    what: &'a str,
    constant: bool,
}

impl Visitor for Limited<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let error = Error::invalid(format!("{} cannot hold a subquery", self.what));
        ControlFlow::Break(at(error, query_place(query)))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let held = match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) if self.constant => {
                format!("the column {expr}")
            }
            Expr::Function(function) if function.over.is_some() => "a window function".to_owned(),
            _ => return ControlFlow::Continue(()),
        };
        let error = Error::invalid(format!("{} cannot hold {held}", self.what));
        ControlFlow::Break(at(error, expr.span().start))
    }

    // A value may come from a parameter; an expression that is kept outlives them.
    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Error> {
        if self.constant || !matches!(value.value, Value::Placeholder(_)) {
            return ControlFlow::Continue(());
        }
        let error = Error::invalid(format!("{} cannot hold a parameter", self.what));
        ControlFlow::Break(at(error, value.span.start))
    }
}

/// Refuses what cannot be evaluated for each row by itself. A subquery can, with all that it holds.
pub(super) fn per_row(expr: &Expr, what: &str) -> Result<()> {
    let mut visitor = PerRow { what, queries: 0 };
    match expr.visit(&mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct PerRow<'a> {
    what: &'a str,
    /// Subqueries around the node.
    queries: usize,
}

impl Visitor for PerRow<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let Expr::Function(Function {
            name,
            over: Some(_),
            ..
        }) = expr
        else {
            return ControlFlow::Continue(());
        };
        if self.queries > 0 {
            return ControlFlow::Continue(());
        }
        let error = Error::invalid(format!("{} cannot hold a window function", self.what))
            .with_hint("compute it in a subquery, over the rows that it is to look at");
        ControlFlow::Break(at(error, name.span().start))
    }
}

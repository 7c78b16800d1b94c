//! Which side of a MERGE a name means.
//!
//! A clause for rows of one side alone sees that side alone. The query it becomes sees both, so names without a table
//! get theirs here, and names of the other side, which would silently be NULL, are refused.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Spanned, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::error::{Error, Result};
use crate::sql;

/// One side of a MERGE, as a clause that sees nothing else.
pub(super) struct Side<'a> {
    /// The name of the table it may use.
    pub name: &'a Ident,
    pub columns: &'a [String],
    /// The name of the table it may not use.
    pub other: &'a Ident,
    /// The clause, for messages.
    pub clause: &'a str,
}

impl Side<'_> {
    /// Gives the columns of this side their table.
    pub(super) fn qualify(&self, expr: &mut Expr) -> Result<()> {
        let mut visitor = Qualify {
            side: self,
            depth: 0,
        };
        match expr.visit(&mut visitor) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

/// Refuses an aggregate or window function outside a subquery: a new value is made from one row.
pub(super) fn one_row(value: &Expr, state: &SessionState) -> Result<()> {
    let mut visitor = OneRow { state, depth: 0 };
    match value.visit(&mut visitor) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct OneRow<'a> {
    state: &'a SessionState,
    depth: usize,
}

impl Visitor for OneRow<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let Expr::Function(function) = expr else {
            return ControlFlow::Continue(());
        };
        let name = function.name.to_string().to_ascii_lowercase();
        let many = function.over.is_some() || self.state.aggregate_functions().contains_key(&name);
        if self.depth > 0 || !many {
            return ControlFlow::Continue(());
        }
        let error = Error::invalid(format!(
            "{name} is a function of many rows, and a new value is made from one"
        ))
        .with_hint(format!("use a subquery: (SELECT {function} FROM ..)"));
        ControlFlow::Break(match sql::position(function.span().start) {
            Some(position) => error.with_position(position),
            None => error,
        })
    }
}

struct Qualify<'a> {
    side: &'a Side<'a>,
    /// Names inside a subquery mean its own tables first, so they are left to the planner.
    depth: usize,
}

impl VisitorMut for Qualify<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let side = self.side;
        match expr {
            Expr::Identifier(name)
                if self.depth == 0 && side.columns.contains(&sql::fold(name)) =>
            {
                *expr = Expr::CompoundIdentifier(vec![side.name.clone(), name.clone()]);
            }
            Expr::CompoundIdentifier(parts) => {
                let [.., table, column] = parts.as_slice() else {
                    return ControlFlow::Continue(());
                };
                if self.depth == 0 && sql::fold(table) == sql::fold(side.other) {
                    let error = Error::invalid(format!(
                        "{} has no row of {table}, so it cannot use {table}.{column}",
                        side.clause
                    ));
                    return ControlFlow::Break(match sql::position(table.span.start) {
                        Some(position) => error.with_position(position),
                        None => error,
                    });
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

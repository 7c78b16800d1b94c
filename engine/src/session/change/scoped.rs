//! Which side of a MERGE a name means.
//!
//! A clause for rows of one side alone sees that side alone. The query it becomes sees both, so names without a table
//! get theirs here, and names of the other side, which would silently be NULL, are refused.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Ident, ObjectName, Query, Spanned, Visit, VisitMut, Visitor, VisitorMut,
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
            Expr::CompoundIdentifier(parts) if self.depth == 0 => return side.place(parts),
            // `s.l[1]`: the names before the first bracket are one name.
            Expr::CompoundFieldAccess { root, access_chain } if self.depth == 0 => {
                let Expr::Identifier(first) = root.as_ref() else {
                    return ControlFlow::Continue(());
                };
                let mut parts = vec![first.clone()];
                while let Some(AccessExpr::Dot(Expr::Identifier(name))) = access_chain.first() {
                    parts.push(name.clone());
                    access_chain.remove(0);
                }
                side.place(&mut parts)?;
                // One name alone is looked at when the walk comes to it.
                if parts.len() > 1 {
                    **root = Expr::CompoundIdentifier(parts);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Side<'_> {
    /// Puts this side's table before a column with fields that is named without it, and refuses names of the other
    /// side.
    fn place(&self, parts: &mut Vec<Ident>) -> ControlFlow<Error> {
        let is = |part: &Ident, name: &Ident| sql::fold(part) == sql::fold(name);
        // A table may have its schema before it, a column its fields behind it.
        let named = parts.iter().take(parts.len() - 1);
        if let Some(table) = named.clone().take(2).find(|part| is(part, self.other))
            && !named.take(2).any(|part| is(part, self.name))
            && !self.columns.contains(&sql::fold(&parts[0]))
        {
            let error = Error::invalid(format!(
                "{} has no row of {table}, so it cannot use {}",
                self.clause,
                ObjectName::from(parts.clone())
            ));
            return ControlFlow::Break(match sql::position(table.span.start) {
                Some(position) => error.with_position(position),
                None => error,
            });
        }
        if !is(&parts[0], self.name) && self.columns.contains(&sql::fold(&parts[0])) {
            parts.insert(0, self.name.clone());
        }
        ControlFlow::Continue(())
    }
}

//! Spellings of standard SQL that DataFusion does not plan, in those that it does.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Fetch, LimitClause, Query, Select, SelectFlavor, SelectItem, SetExpr,
    Subscript, Value, VisitMut, VisitorMut, WildcardAdditionalOptions,
};

use super::statement::{Statement, fold};
use super::walk::walk_mut;

pub(super) fn rewrite(statement: &mut Statement) {
    let ControlFlow::Continue(()) = walk_mut(statement, &mut Plain);
}

/// The same for a query that stands in no statement.
pub(super) fn rewrite_query(query: &mut Query) {
    let ControlFlow::Continue(()) = query.visit(&mut Plain);
}

/// The same for an expression that stands in no statement.
pub(super) fn rewrite_expr(expr: &mut Expr) {
    let ControlFlow::Continue(()) = expr.visit(&mut Plain);
}

struct Plain;

impl VisitorMut for Plain {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        limit(query);
        if let SetExpr::Select(select) = query.body.as_mut() {
            from_first(select);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Expr::CompoundFieldAccess { access_chain, .. } = expr {
            // Before the first bracket a dot may follow the name of a table: the planner tells them apart.
            let fields = access_chain
                .iter_mut()
                .skip_while(|access| matches!(access, AccessExpr::Dot(_)));
            fields.for_each(dot);
        }
        ControlFlow::Continue(())
    }
}

/// `items[1].price` is `items[1]['price']`.
fn dot(access: &mut AccessExpr) {
    if let AccessExpr::Dot(Expr::Identifier(name)) = access {
        let name = Value::SingleQuotedString(fold(name));
        *access = AccessExpr::Subscript(Subscript::Index {
            index: Expr::value(name),
        });
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`. Other forms of FETCH stay, to be refused.
fn limit(query: &mut Query) {
    let Some(Fetch {
        with_ties: false,
        percent: false,
        quantity,
    }) = &mut query.fetch
    else {
        return;
    };
    let rows = quantity
        .take()
        .unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), false)));
    match &mut query.limit_clause {
        None => {
            query.limit_clause = Some(LimitClause::LimitOffset {
                limit: Some(rows),
                offset: None,
                limit_by: vec![],
            });
        }
        Some(LimitClause::LimitOffset {
            limit: limit @ None,
            ..
        }) => *limit = Some(rows),
        Some(_) => {
            if let Some(fetch) = &mut query.fetch {
                fetch.quantity = Some(rows);
            }
            return;
        }
    }
    query.fetch = None;
}

/// `FROM t` alone is `SELECT * FROM t`; the planner would give it no column.
fn from_first(select: &mut Select) {
    if select.flavor == SelectFlavor::FromFirstNoSelect {
        select.flavor = SelectFlavor::Standard;
        select.projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    }
}

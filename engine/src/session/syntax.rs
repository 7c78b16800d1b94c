//! Small pieces of syntax that queries of our own are put together from.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, ObjectName, Query, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, Value,
};

use crate::error::{Error, Result};
use crate::sql::{self, Statement};

/// A name that stays as it is.
pub(super) fn exact(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

pub(super) fn column(table: &Ident, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![table.clone(), exact(name)])
}

pub(super) fn named(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias {
        expr,
        alias: exact(name),
    }
}

pub(super) fn number(value: u8) -> Expr {
    Expr::Value(Value::Number(value.to_string(), false).into())
}

pub(super) fn text(value: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(value.to_owned()))
}

pub(super) fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

pub(super) fn is_null(expr: Expr) -> Expr {
    Expr::IsNull(Box::new(expr))
}

pub(super) fn is_not_null(expr: Expr) -> Expr {
    Expr::IsNotNull(Box::new(expr))
}

pub(super) fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op: BinaryOperator::And,
        right: Box::new(Expr::Nested(Box::new(right))),
    }
}

pub(super) fn or(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(Expr::Nested(Box::new(left))),
        op: BinaryOperator::Or,
        right: Box::new(Expr::Nested(Box::new(right))),
    }
}

/// `CASE WHEN c THEN r .. END`
pub(super) fn case(branches: impl IntoIterator<Item = (Expr, Expr)>) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: branches
            .into_iter()
            .map(|(condition, result)| CaseWhen { condition, result })
            .collect(),
        else_result: None,
    }
}

pub(super) fn alias(name: Ident) -> TableAlias {
    TableAlias {
        explicit: true,
        name,
        columns: vec![],
        at: None,
    }
}

/// A table by a name of one part.
pub(super) fn table(name: &str, known_as: Ident) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![exact(name)]),
        alias: Some(alias(known_as)),
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

/// A query as a table.
pub(super) fn derived(query: Query, known_as: Ident) -> TableFactor {
    TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(alias(known_as)),
        sample: None,
    }
}

/// `SELECT projection FROM from [WHERE selection]`
pub(super) fn select(
    projection: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    selection: Option<Expr>,
) -> Result<Query> {
    let Statement::Query(mut query) = sql::parse("SELECT 1")? else {
        return Err(Error::internal("a template is not a query"));
    };
    let SetExpr::Select(body) = query.body.as_mut() else {
        return Err(Error::internal("a template is not a select"));
    };
    body.projection = projection;
    body.from = from;
    body.selection = selection;
    Ok(*query)
}

//! `HISTORY OF (SELECT city, count(*) FROM t GROUP BY city)`: aggregates over a journal through all of valid time.
//!
//! sqlparser does not know it, so it is spelled as a table function whose argument is the query; then it is taken out
//! of the statement with the version clauses, for it reads a table as those do.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, GroupByExpr, ObjectName, Query, SetExpr, Spanned,
    TableFactor, TableFunctionArgs, Value, ValueWithSpan, Visit, Visitor,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::lex::is;
use super::parser::all_of;
use super::reader::Reader;
use super::statement::{Statement, folded};
use super::syntax::at;
use crate::error::{Error, Result};

const NAME: &str = "__selvedge_history";

/// What it is called where it has no alias.
pub(super) const ALIAS: &str = "history";

/// `HISTORY OF ( query )` becomes `__selvedge_history ( ( query ) )`.
pub(super) fn spell(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let begins = |i: usize| {
        let is = |n: usize, word| tokens.get(i + n).is_some_and(|token| is(token, word));
        let open = tokens.get(i + 2);
        is(0, "HISTORY") && is(1, "OF") && open.is_some_and(|token| token.token == Token::LParen)
    };
    let mut out = Vec::with_capacity(tokens.len());
    // Brackets around the token, and around each query that is to have one more.
    let (mut depth, mut queries) = (0_usize, Vec::new());
    for (i, token) in tokens.iter().enumerate() {
        if begins(i) {
            queries.push(depth);
            out.push(TokenWithSpan::new(Token::make_word(NAME, None), token.span));
            out.push(TokenWithSpan::new(Token::LParen, token.span));
            continue;
        }
        if i > 0 && begins(i - 1) {
            continue;
        }
        out.push(token.clone());
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.saturating_sub(1);
                if queries.last() == Some(&depth) {
                    queries.pop();
                    out.push(token.clone());
                }
            }
            _ => {}
        }
    }
    out
}

/// Whether a statement that begins with this word, in capitals, is one.
pub(super) fn begins(verb: &str) -> bool {
    verb.eq_ignore_ascii_case(NAME)
}

/// `HISTORY OF (query)` by itself: all of its columns.
pub(super) fn statement(reader: &mut Reader<'_>) -> Result<Statement> {
    let factor = reader.parse(Parser::parse_table_factor)?;
    match &factor {
        TableFactor::Table {
            args: Some(_),
            alias: None,
            ..
        } => Ok(Statement::Query(all_of(&factor)?)),
        _ => Err(unread(reader)),
    }
}

/// The word stands where a statement begins, and no query follows it.
pub(super) fn unread(reader: &Reader<'_>) -> Error {
    reader
        .expected("HISTORY OF (SELECT ..)")
        .with_hint("DESCRIBE HISTORY t tells the versions of a table")
}

/// Whether a relation with these arguments is one.
pub(super) fn called(name: &ObjectName, args: Option<&TableFunctionArgs>) -> bool {
    args.is_some() && named(name)
}

/// Whether this is what a query's history is spelled as.
pub(super) fn named(name: &ObjectName) -> bool {
    folded(name) == [NAME]
}

/// The one table that the query reads, and the query.
pub(super) fn read(
    name: &ObjectName,
    args: &TableFunctionArgs,
) -> Result<(ObjectName, Box<Query>)> {
    let wrong = |what: &str| {
        let error = Error::invalid(format!("HISTORY OF {what}")).with_hint(
            "HISTORY OF (SELECT city, count(*) FROM t WHERE .. GROUP BY city) follows one journal",
        );
        at(error, name.span().start)
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Subquery(query)))] = args.args.as_slice()
    else {
        return Err(wrong("takes a query in parentheses"));
    };
    if let ControlFlow::Break(held) = query.visit(&mut Held::default()) {
        return Err(wrong(&format!("cannot hold {held}")));
    }
    let cannot = |clauses: &[(bool, &str)]| match clauses.iter().find(|(there, _)| *there) {
        Some((_, clause)) => Err(wrong(&format!("cannot hold {clause}"))),
        None => Ok(()),
    };
    cannot(&[
        (query.with.is_some(), "WITH"),
        (query.order_by.is_some(), "ORDER BY"),
        (
            query.limit_clause.is_some() || query.fetch.is_some(),
            "LIMIT",
        ),
        (!query.pipe_operators.is_empty(), "a pipe operator"),
    ])?;
    let SetExpr::Select(select) = query.body.as_ref() else {
        return Err(wrong("takes a SELECT, and no set operation"));
    };
    cannot(&[
        (select.distinct.is_some(), "DISTINCT"),
        (select.having.is_some(), "HAVING"),
        (select.qualify.is_some(), "QUALIFY"),
        (!select.named_window.is_empty(), "WINDOW"),
        (
            matches!(select.group_by, GroupByExpr::All(_)),
            "GROUP BY ALL",
        ),
    ])?;
    match select.from.as_slice() {
        [from] if from.joins.is_empty() => match &from.relation {
            TableFactor::Table {
                name,
                args: None,
                version: None,
                ..
            } => Ok((name.clone(), query.clone())),
            TableFactor::Table {
                version: Some(_), ..
            } => Err(wrong("cannot hold a version clause")),
            _ => Err(wrong("reads a table by its name")),
        },
        _ => Err(wrong("reads one table, and no join")),
    }
}

/// Finds what no query over the whole of time can have: its rows are counted as they come and go.
#[derive(Default)]
struct Held {
    queries: usize,
}

impl Visitor for Held {
    type Break = &'static str;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Self::Break> {
        self.queries += 1;
        match self.queries {
            1 => ControlFlow::Continue(()),
            _ => ControlFlow::Break("a subquery"),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Function(Function { over: Some(_), .. }) => {
                ControlFlow::Break("a window function")
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Self::Break> {
        match value.value {
            Value::Placeholder(_) => ControlFlow::Break("a parameter"),
            _ => ControlFlow::Continue(()),
        }
    }
}

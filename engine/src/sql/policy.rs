//! What a cleanse policy says: from its definition, and the definition of a policy.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Spanned, TableFactor, UnaryOperator, Value, ValueWithSpan,
    Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::plain;
use super::reader::Reader;
use super::refuse::check_query;
use super::statement::{fold, quoted};
use super::suggest::nearest;
use super::syntax::at;
use super::target::{self, distinct};
use super::versions::Scopes;
use crate::cleanse::policy::{Columns, Policy, PolicyAction, PolicyScope};
use crate::error::{Error, Result};

const FORM: &str = "after the table stands KEY (..) IN (SELECT ..) and what is done to its rows, COLUMNS (..) NULLIFY, or COLUMNS TAGGED tag NULLIFY";
const KEYS: &str = "keys are kept in a table of the lake, where a request can be added and proved: KEY (id) IN (SELECT id FROM requests)";

/// What follows the table: which rows a policy is about, and what it does to them.
pub(super) fn definition(reader: &mut Reader<'_>) -> Result<(PolicyScope, PolicyAction)> {
    if reader.take(&["KEY"]) {
        let columns = columns(reader)?;
        reader.expect(&["IN"])?;
        reader.expect_symbol(&Token::LParen)?;
        let query = keys(reader)?.to_string();
        reader.expect_symbol(&Token::RParen)?;
        return Ok((PolicyScope::Keys { columns, query }, action(reader)?));
    }
    if !reader.take(&["COLUMNS"]) {
        return Err(reader.expected("KEY or COLUMNS").with_hint(FORM));
    }
    let columns = if reader.take(&["TAGGED"]) {
        Columns::Tagged(tag(reader)?)
    } else {
        Columns::Named(columns(reader)?)
    };
    if !reader.take(&["NULLIFY"]) {
        return Err(reader.expected("NULLIFY").with_hint(
            "SET (..) and DELETE ROWS are done to the rows of a KEY (..) IN (SELECT ..)",
        ));
    }
    refuse_another(reader)?;
    Ok((PolicyScope::Every, PolicyAction::Nullify { columns }))
}

/// `NULLIFY (columns)`, `NULLIFY COLUMNS TAGGED tag`, `SET (column = literal, ..)` or `DELETE ROWS`
fn action(reader: &mut Reader<'_>) -> Result<PolicyAction> {
    let action = if reader.take(&["NULLIFY", "COLUMNS"]) {
        if !reader.take(&["TAGGED"]) {
            return Err(reader
                .expected("TAGGED")
                .with_hint("columns are named alone: NULLIFY (a, b)"));
        }
        let columns = Columns::Tagged(tag(reader)?);
        PolicyAction::Nullify { columns }
    } else if reader.take(&["NULLIFY"]) {
        let columns = Columns::Named(columns(reader)?);
        PolicyAction::Nullify { columns }
    } else if reader.take(&["SET"]) {
        let values = values(reader)?;
        PolicyAction::Set { values }
    } else if reader.take(&["DELETE", "ROWS"]) {
        PolicyAction::DeleteRows
    } else {
        return Err(unknown_action(reader));
    };
    refuse_another(reader)?;
    Ok(action)
}

fn unknown_action(reader: &Reader<'_>) -> Error {
    const ACTIONS: [&str; 3] = ["NULLIFY", "SET", "DELETE ROWS"];
    let error = reader.expected("NULLIFY, SET or DELETE ROWS");
    // By the first word alone: all that DELETE ROW lacks is a letter of the second.
    let verb = |action: &'static str| action.split(' ').next().unwrap_or(action);
    let near = reader
        .peek_word(0)
        .and_then(|word| nearest(&word, ACTIONS.map(verb)));
    let near = ACTIONS
        .into_iter()
        .find(|&action| near.as_deref() == Some(verb(action)));
    match near {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error,
    }
}

fn refuse_another(reader: &Reader<'_>) -> Result<()> {
    if ["NULLIFY", "SET", "DELETE"]
        .iter()
        .any(|verb| reader.sees(&[verb]))
    {
        let error = Error::invalid("a policy does one thing to its rows")
            .with_hint("a table may have many policies: create another one for the other thing");
        return Err(error.with_position(reader.position()));
    }
    Ok(())
}

/// `(column, column, ..)`
fn columns(reader: &mut Reader<'_>) -> Result<Vec<String>> {
    let columns = distinct(reader, column)?;
    Ok(columns.iter().map(fold).collect())
}

fn column(reader: &mut Reader<'_>) -> Result<Ident> {
    let column = reader.identifier()?;
    if reader.sees_symbol(0, &Token::Period) {
        return Err(reader
            .unsupported("a field of a column in a policy")
            .with_hint(
                "a policy names whole columns of its table, without the table before them",
            ));
    }
    Ok(column)
}

/// `(column = literal, ..)`
fn values(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>> {
    let mut values = BTreeMap::new();
    let mut seen = target::Columns::default();
    reader.list(|reader| {
        let place = reader.position();
        let column = column(reader)?;
        seen.add(&column, "set", place)?;
        reader.expect_symbol(&Token::Eq)?;
        values.insert(fold(&column), literal(reader, &column)?);
        Ok(())
    })?;
    Ok(values)
}

/// A value that is the same for every row and at any time, as text.
fn literal(reader: &mut Reader<'_>, column: &Ident) -> Result<String> {
    let place = reader.position();
    let expr = reader.expr()?;
    let value = match &expr {
        Expr::UnaryOp {
            op: UnaryOperator::Minus | UnaryOperator::Plus,
            expr: number,
        } => match number.as_ref() {
            Expr::Value(value) if matches!(value.value, Value::Number(..)) => {
                return Ok(expr.to_string());
            }
            _ => None,
        },
        Expr::Value(value) => Some(&value.value),
        Expr::TypedString(_) => return Ok(expr.to_string()),
        _ => None,
    };
    let error = match value {
        Some(Value::Placeholder(_)) => Error::invalid("a policy cannot hold a parameter"),
        Some(Value::Null) => Error::invalid(format!("SET takes no NULL for column {column}"))
            .with_hint(format!("NULLIFY ({column}) makes it NULL")),
        Some(_) => return Ok(expr.to_string()),
        None => Error::invalid(format!("{expr} is not a literal")).with_hint(format!(
            "a policy sets all cells to one value, written out: SET ({column} = '')"
        )),
    };
    Err(error.with_position(place))
}

/// The name of a tag. Capitals do not count: a column that is tagged PII is not less so.
pub(super) fn tag(reader: &mut Reader<'_>) -> Result<String> {
    let place = reader.position();
    let tag = reader.identifier()?.value.to_lowercase();
    // The tags of a column are kept with commas between them.
    let allowed = |c: char| c.is_alphanumeric() || "_-.:".contains(c);
    if tag.is_empty() || !tag.chars().all(allowed) {
        let error = Error::invalid(format!("'{tag}' is not a tag"))
            .with_hint("a tag is made of letters, digits, and _ - . : between them");
        return Err(error.with_position(place));
    }
    Ok(tag)
}

/// Reads the query for the keys of a policy, as it is kept.
pub(crate) fn parse_keys(text: &str) -> Result<Box<Query>> {
    let mut reader = Reader::new(text)?;
    let query = keys(&mut reader)?;
    if !reader.done() {
        return Err(reader.expected("the end of the query"));
    }
    Ok(query)
}

fn keys(reader: &mut Reader<'_>) -> Result<Box<Query>> {
    let begins = ["SELECT", "WITH", "FROM"]
        .iter()
        .any(|word| reader.sees(&[word]));
    if !begins && !reader.sees_symbol(0, &Token::LParen) {
        return Err(reader.expected("SELECT").with_hint(KEYS));
    }
    let place = reader.position();
    let mut query = reader.query()?;
    plain::rewrite_query(&mut query);
    let checked = check_query(&query).and_then(|()| from_tables(&query));
    match checked {
        Ok(()) => Ok(query),
        Err(error) if error.position().is_some() => Err(error),
        Err(error) => Err(error.with_position(place)),
    }
}

/// Refuses keys that come from anywhere but tables as they are when the policy runs.
fn from_tables(query: &Query) -> Result<()> {
    let mut sources = Sources::default();
    match query.visit(&mut sources) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) if sources.tables => Ok(()),
        ControlFlow::Continue(()) => {
            Err(Error::invalid("the keys of a policy come from no table").with_hint(KEYS))
        }
    }
}

#[derive(Default)]
struct Sources {
    scopes: Scopes,
    /// Whether there was one.
    tables: bool,
}

impl Visitor for Sources {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        self.scopes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.scopes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        let (name, error) = match factor {
            TableFactor::Table {
                name,
                args: Some(_),
                ..
            }
            | TableFactor::Function { name, .. } => (
                name,
                Error::unsupported(format!(
                    "the table function {name} in the keys of a policy is not supported"
                ))
                .with_hint(KEYS),
            ),
            TableFactor::Table {
                name,
                version: Some(_),
                ..
            } => (
                name,
                Error::invalid("the keys of a policy cannot have a version")
                    .with_hint("leave the version clause out: the keys of the moment count"),
            ),
            TableFactor::Table { name, .. } if file(name) => (
                name,
                Error::unsupported(format!(
                    "the file {name} in the keys of a policy is not supported"
                ))
                .with_hint(KEYS),
            ),
            TableFactor::Table { name, .. } => {
                self.tables |= !self.scopes.names(name);
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(at(error, name.span().start))
    }

    // A policy outlives the values of the statement that made it.
    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Error> {
        if !matches!(value.value, Value::Placeholder(_)) {
            return ControlFlow::Continue(());
        }
        let error = Error::invalid("a policy cannot hold a parameter");
        ControlFlow::Break(at(error, value.span.start))
    }
}

fn file(name: &ObjectName) -> bool {
    let mut parts = name.0.iter().filter_map(|part| part.as_ident());
    parts.any(|part| part.quote_style == Some('\''))
}

/// Gives each table that the query reads the schema and the name that `find` tells for it, so that the query means
/// the same for every session.
pub(crate) fn name_tables(
    query: &mut Query,
    find: impl FnMut(&ObjectName) -> Result<(String, String)>,
) -> Result<()> {
    let mut names = Names {
        scopes: Scopes::default(),
        find,
    };
    match query.visit(&mut names) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Names<F> {
    scopes: Scopes,
    find: F,
}

impl<F: FnMut(&ObjectName) -> Result<(String, String)>> VisitorMut for Names<F> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.enter(query);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.scopes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::Table { name, .. } = factor else {
            return ControlFlow::Continue(());
        };
        if self.scopes.names(name) {
            return ControlFlow::Continue(());
        }
        match (self.find)(name) {
            Ok((schema, table)) => {
                *name = ObjectName::from(vec![identifier(&schema), identifier(&table)]);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// The identifier that prints as [`quoted`] does.
fn identifier(name: &str) -> Ident {
    match quoted(name) == name {
        true => Ident::new(name),
        false => Ident::with_quote('"', name),
    }
}

/// What makes this policy again, after `CREATE CLEANSE POLICY name ON table`.
pub(crate) fn policy_clause(policy: &Policy) -> String {
    let action = match (&policy.scope, &policy.action) {
        (PolicyScope::Every, PolicyAction::Nullify { columns }) => {
            return match columns {
                Columns::Named(columns) => format!("COLUMNS ({}) NULLIFY", list(columns)),
                Columns::Tagged(tag) => format!("COLUMNS TAGGED {} NULLIFY", quoted(tag)),
            };
        }
        (_, PolicyAction::Nullify { columns }) => match columns {
            Columns::Named(columns) => format!("NULLIFY ({})", list(columns)),
            Columns::Tagged(tag) => format!("NULLIFY COLUMNS TAGGED {}", quoted(tag)),
        },
        (_, PolicyAction::Set { values }) => {
            let values = values
                .iter()
                .map(|(column, value)| format!("{} = {value}", quoted(column)));
            format!("SET ({})", values.collect::<Vec<_>>().join(", "))
        }
        (_, PolicyAction::DeleteRows) => "DELETE ROWS".to_owned(),
    };
    match &policy.scope {
        PolicyScope::Keys { columns, query } => {
            format!("KEY ({}) IN ({query}) {action}", list(columns))
        }
        PolicyScope::Every => action,
    }
}

fn list(columns: &[String]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    columns.join(", ")
}

//! `table_changes('t', from[, to])`: the rows that versions of a table brought and took. And
//! `valid_time_changes('t', from, to)`: what began and ended to be true of a journal.
//!
//! They look like table functions, but what they read is a table as it was like any other, so they are
//! taken out of the statement with the version clauses.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, ObjectName, Spanned, TableFunctionArgs, Value,
    ValueWithSpan,
};

use super::reader::Reader;
use super::statement::folded;
use super::syntax::at;
use super::valid;
use super::versions::{self, At, Reading};
use crate::error::{Error, Result};

const NAME: &str = "table_changes";
const VALID_NAME: &str = "valid_time_changes";

/// Between which versions the rows of a table are compared; both count.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Changes {
    /// The first version, or the first at or after an instant.
    pub(crate) from: At,
    /// The last version, or the last at or before an instant; the newest one without.
    pub(crate) to: Option<At>,
}

/// Whether a relation with these arguments is a call of one of the functions.
pub(super) fn called(name: &ObjectName, args: Option<&TableFunctionArgs>) -> bool {
    args.is_some() && (folded(name) == [NAME] || folded(name) == [VALID_NAME])
}

/// The table that a call names, and what it reads of it.
pub(super) fn read(name: &ObjectName, args: &TableFunctionArgs) -> Result<(ObjectName, Reading)> {
    if folded(name) == [VALID_NAME] {
        return read_valid(name, args);
    }
    let wrong = |what: String| {
        let error = Error::invalid(what).with_hint(format!(
            "write {NAME}('orders', 3) or {NAME}('orders', 3, 5), with versions or instants"
        ));
        at(error, name.span().start)
    };
    let (table, bounds) = table_and_bounds(NAME, args, &wrong)?;
    let (from, to) = match bounds.as_slice() {
        [from] => (from, None),
        [from, to] => (from, Some(to)),
        other => {
            return Err(wrong(format!(
                "{NAME} takes a table, a first version and perhaps a last one, but {} arguments are given",
                other.len() + 1
            )));
        }
    };
    let changes = Changes {
        from: bound(from)?,
        to: to.map(|to| bound(to)).transpose()?,
    };
    Ok((table, Reading::Changes(changes)))
}

fn read_valid(name: &ObjectName, args: &TableFunctionArgs) -> Result<(ObjectName, Reading)> {
    let wrong = |what: String| {
        let error = Error::invalid(what).with_hint(format!(
            "write {VALID_NAME}('prices', '2026-01-01', '2026-02-01'), with instants"
        ));
        at(error, name.span().start)
    };
    let (table, bounds) = table_and_bounds(VALID_NAME, args, &wrong)?;
    let [from, to] = bounds.as_slice() else {
        return Err(wrong(format!(
            "{VALID_NAME} takes a table, a first instant and a last one, but {} arguments are given",
            bounds.len() + 1
        )));
    };
    let reading = Reading::ValidChanges {
        from: valid::instant(from)?,
        to: valid::instant(to)?,
    };
    Ok((table, reading))
}

/// The table, which is named as a text, and the arguments behind it.
fn table_and_bounds<'a>(
    function: &str,
    args: &'a TableFunctionArgs,
    wrong: &dyn Fn(String) -> Error,
) -> Result<(ObjectName, Vec<&'a Expr>)> {
    let mut values: Vec<&Expr> = Vec::with_capacity(3);
    for arg in &args.args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => values.push(value),
            other => {
                return Err(wrong(format!(
                    "{function} does not know the argument {other}"
                )));
            }
        }
    }
    // The number of arguments is counted by the caller, who knows what they are.
    if values.is_empty() {
        return Err(wrong(format!(
            "{function} takes a table, but 0 arguments are given"
        )));
    }
    let table = values.remove(0);
    let Expr::Value(ValueWithSpan {
        value: Value::SingleQuotedString(text),
        ..
    }) = table
    else {
        return Err(wrong(format!(
            "{function} takes the name of a table as a text, not {table}"
        )));
    };
    let table = named(text)
        .ok_or_else(|| wrong(format!("'{text}' in {function} is not the name of a table")))?;
    Ok((table, values))
}

fn named(text: &str) -> Option<ObjectName> {
    let mut reader = Reader::new(text).ok()?;
    let name = reader.object_name().ok()?;
    reader.done().then_some(name)
}

fn bound(value: &Expr) -> Result<At> {
    match value {
        Expr::Value(ValueWithSpan {
            value: Value::Number(..),
            ..
        }) => versions::number(value),
        _ => versions::instant(value),
    }
}

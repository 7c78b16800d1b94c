//! `table_changes('t', from[, to])`: the rows that versions of a table brought and took.
//!
//! It looks like a table function, but what it reads is a version of a table like any other, so it is
//! taken out of the statement with the version clauses.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, ObjectName, Spanned, TableFunctionArgs, Value,
    ValueWithSpan,
};

use super::reader::Reader;
use super::statement::folded;
use super::syntax::at;
use super::versions::{self, At};
use crate::error::{Error, Result};

const NAME: &str = "table_changes";

/// Between which versions the rows of a table are compared; both count.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Changes {
    /// The first version, or the first at or after an instant.
    pub(crate) from: At,
    /// The last version, or the last at or before an instant; the newest one without.
    pub(crate) to: Option<At>,
}

/// Whether a relation with these arguments is a call of the function.
pub(super) fn called(name: &ObjectName, args: Option<&TableFunctionArgs>) -> bool {
    args.is_some() && folded(name) == [NAME]
}

/// The table and the versions that a call names.
pub(super) fn read(name: &ObjectName, args: &TableFunctionArgs) -> Result<(ObjectName, Changes)> {
    let wrong = |what: String| {
        let error = Error::invalid(what).with_hint(format!(
            "write {NAME}('orders', 3) or {NAME}('orders', 3, 5), with versions or instants"
        ));
        at(error, name.span().start)
    };
    let mut values: Vec<&Expr> = Vec::with_capacity(3);
    for arg in &args.args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => values.push(value),
            other => return Err(wrong(format!("{NAME} does not know the argument {other}"))),
        }
    }
    let (table, from, to) = match values.as_slice() {
        [table, from] => (table, from, None),
        [table, from, to] => (table, from, Some(to)),
        other => {
            return Err(wrong(format!(
                "{NAME} takes a table, a first version and perhaps a last one, but {} arguments are given",
                other.len()
            )));
        }
    };
    let Expr::Value(ValueWithSpan {
        value: Value::SingleQuotedString(text),
        ..
    }) = table
    else {
        return Err(wrong(format!(
            "{NAME} takes the name of a table as a text, not {table}"
        )));
    };
    let table = named(text)
        .ok_or_else(|| wrong(format!("'{text}' in {NAME} is not the name of a table")))?;
    let changes = Changes {
        from: bound(from)?,
        to: to.map(|to| bound(to)).transpose()?,
    };
    Ok((table, changes))
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

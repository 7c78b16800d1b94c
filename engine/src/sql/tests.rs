//! The room as a whole: what each statement means, what is refused and where, and that no text breaks it.

mod changes;
mod cleanse;
mod hostile;
mod journal;
mod maintenance;
mod merge;
mod quality;
mod refused;
mod statements;
mod versioned;

use super::{Statement, parse};
use crate::error::{Error, ErrorKind};

fn of(sql: &str) -> Statement {
    parse(sql).unwrap_or_else(|error| panic!("{sql}\n{}", error.render(sql)))
}

/// Reads a statement of this kind.
macro_rules! read {
    ($sql:expr, $variant:ident) => {
        match super::of($sql) {
            Statement::$variant(read) => read,
            other => panic!("{}\n{other:?}", $sql),
        }
    };
}
use read;

fn error(sql: &str) -> Error {
    match parse(sql) {
        Ok(statement) => panic!("accepted: {sql}\n{statement:?}"),
        Err(error) => error,
    }
}

/// The statement is refused as unsupported, by a message that names the clause.
fn unsupported(sql: &str, clause: &str) {
    let error = error(sql);
    assert!(error.message().contains(clause), "{sql}\n{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}\n{error}");
}

/// The statement is refused with exactly this message, at a place.
fn message(sql: &str, words: &str) -> Error {
    let error = error(sql);
    assert_eq!(error.message(), words, "{sql}");
    assert!(error.position().is_some(), "{sql}\n{error}");
    error
}

/// The statement is refused as wrong, by a message that holds these words.
fn invalid(sql: &str, words: &str) {
    let error = error(sql);
    assert!(error.message().contains(words), "{sql}\n{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}\n{error}");
}

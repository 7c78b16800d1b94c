//! Parser errors to ours: a clean sentence, and the place as a position instead of words.

use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, TokenizerError};

use crate::error::{Error, Position};

/// Depth of nesting that the parser follows.
pub(super) const MAX_DEPTH: usize = 50;

/// `end` is the place of errors that the parser reports without one: at the end of the text.
pub(super) fn parser_error(error: ParserError, end: Position) -> Error {
    match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => located(&text, end),
        ParserError::RecursionLimitExceeded => too_deep(MAX_DEPTH),
    }
}

/// A parser's error from inside the planner, where the text is not at hand.
pub(crate) fn syntax_error(error: &ParserError) -> Error {
    match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            located(text, Position { line: 1, column: 1 })
        }
        ParserError::RecursionLimitExceeded => too_deep(MAX_DEPTH),
    }
}

pub(super) fn tokenizer_error(error: TokenizerError) -> Error {
    let message = lower_first(error.message.trim_end_matches('.'));
    at(Error::invalid(message), error.location)
}

pub(super) fn too_deep(limit: usize) -> Error {
    Error::invalid(format!("the statement nests deeper than {limit} levels"))
        .with_hint("move inner parts into common table expressions (WITH) or views")
}

/// Adds the place, unless the parser left it out.
pub(super) fn at(error: Error, location: Location) -> Error {
    match position(location) {
        Some(position) => error.with_position(position),
        None => error,
    }
}

pub(crate) fn position(location: Location) -> Option<Position> {
    (location.line > 0).then_some(Position {
        line: location.line,
        column: location.column,
    })
}

/// Where a version clause stands, for those that stand elsewhere.
pub(super) const VERSION_PLACE: &str =
    "a version clause stands right after a table's name in FROM, before its alias";

/// Cuts ` at Line: 1, Column: 5` off the text and makes it a position.
fn located(text: &str, end: Position) -> Error {
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => (message, numbers(place)),
        None => (text, None),
    };
    let message = message.trim().trim_end_matches('.');
    let message = match message.strip_prefix("Expected: ") {
        Some(rest) => format!("expected {}", rest.replacen(", found: ", ", found ", 1)),
        None => lower_first(message),
    };
    let message = match message.strip_suffix(", found EOF") {
        Some(rest) => format!("{rest}, found the end of the statement"),
        None => message,
    };
    let misplaced = message.ends_with("found SYSTEM_TIME");
    let error = Error::invalid(message).with_position(place.unwrap_or(end));
    if misplaced {
        return error.with_hint(VERSION_PLACE);
    }
    error
}

fn numbers(place: &str) -> Option<Position> {
    let (line, column) = place.split_once(", Column: ")?;
    position(Location {
        line: line.trim().parse().ok()?,
        column: column.trim().parse().ok()?,
    })
}

/// Lower case for the first letter, unless it begins a keyword in capitals.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

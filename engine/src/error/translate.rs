//! DataFusion's errors in our words: the kind, the place in the text, the nearest valid name.

use datafusion::common::{Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use super::{Error, ErrorKind, Position};

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        translate(error)
    }
}

fn translate(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => external(inner),
        DataFusionError::ArrowError(inner, _) => arrow(*inner),
        DataFusionError::Context(_, inner) => translate(*inner),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let error = translate(*inner);
            pointed(error, &diagnostic)
        }
        DataFusionError::Collection(mut errors) if !errors.is_empty() => {
            translate(errors.swap_remove(0))
        }
        DataFusionError::Shared(shared) => match shared.as_ref() {
            // A shared error cannot be taken apart, so ours is told again from its parts.
            DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
                Some(ours) => ours.retold(),
                None => plain(ErrorKind::Internal, inner.to_string()),
            },
            other => plain(kind_of(other), other.strip_backtrace()),
        },
        DataFusionError::SQL(parser, _) => syntax(&parser),
        DataFusionError::SchemaError(schema, _) => named(*schema),
        DataFusionError::ObjectStore(inner) => {
            Error::storage("the object store failed".to_owned(), *inner)
        }
        DataFusionError::IoError(inner) => {
            Error::disk(format!("input or output failed: {inner}"), inner)
        }
        DataFusionError::ParquetError(inner) => parquet(*inner),
        other => plain(kind_of(&other), other.strip_backtrace()),
    }
}

fn kind_of(error: &DataFusionError) -> ErrorKind {
    match error {
        DataFusionError::Plan(message) if message.contains("not found") => ErrorKind::NotFound,
        DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::SQL(..) => ErrorKind::Invalid,
        DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Exhausted,
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => ErrorKind::Storage,
        DataFusionError::ParquetError(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// DataFusion prefixes its messages with their class, which says nothing to a person.
fn plain(kind: ErrorKind, message: String) -> Error {
    const PREFIXES: [&str; 7] = [
        "Error during planning: ",
        "Execution error: ",
        "Schema error: ",
        "SQL error: ",
        "This feature is not implemented: ",
        "Invalid or Unsupported Configuration: ",
        "Resources exhausted: ",
    ];
    let mut text = message.as_str();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    if let Some((first, near)) = text.split_once("\nDid you mean '")
        && let Some((near, _)) = near.split_once('\'')
    {
        return plain(kind, first.to_owned()).with_hint(format!("did you mean {near}?"));
    }
    if let Some(what) = text.strip_prefix("Physical plan does not support logical expression ")
        && (what.starts_with("InSubquery") || what.starts_with("Exists"))
    {
        return Error::unsupported("IN (subquery) and EXISTS cannot stand here, inside another expression")
            .with_hint("use them in WHERE, or compare with a scalar subquery: (SELECT count(*) FROM .. WHERE ..) > 0");
    }
    let text = text
        .split("\n\nbacktrace:")
        .next()
        .unwrap_or(text)
        .trim_end()
        .trim_end_matches('.');
    let mut chars = text.chars();
    let lowered = match (chars.next(), chars.next()) {
        // Keep names and acronyms as they are.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    };
    Error::new(kind, lowered)
}

fn external(inner: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match inner.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(inner) => match inner.downcast::<DataFusionError>() {
            Ok(inner) => translate(*inner),
            Err(inner) => plain(ErrorKind::Internal, inner.to_string()).with_source(inner),
        },
    }
}

fn arrow(error: datafusion::arrow::error::ArrowError) -> Error {
    use datafusion::arrow::error::ArrowError;
    match error {
        ArrowError::ExternalError(inner) => external(inner),
        ArrowError::DivideByZero => Error::invalid("division by zero"),
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::ArithmeticOverflow(message)
        | ArrowError::InvalidArgumentError(message)
        | ArrowError::CsvError(message)
        | ArrowError::JsonError(message) => plain(ErrorKind::Invalid, message),
        ArrowError::ParquetError(message) => plain(ErrorKind::Corrupt, message),
        ArrowError::NotYetImplemented(message) => plain(ErrorKind::Unsupported, message),
        other => plain(ErrorKind::Internal, other.to_string()),
    }
}

fn parquet(error: parquet::errors::ParquetError) -> Error {
    match error {
        parquet::errors::ParquetError::External(inner) => {
            match inner.downcast::<object_store::Error>() {
                Ok(inner) => Error::storage("a data file cannot be read".to_owned(), *inner),
                Err(inner) => external(inner),
            }
        }
        other => {
            let text = other.to_string();
            let what = format!("a Parquet file cannot be read: {text}");
            match text.split_once("Object Store error: ") {
                // DataFusion's reader of footers keeps of a store's failure only its words.
                Some((_, words)) => Error::storage_in_words(what, words),
                None => plain(ErrorKind::Corrupt, what),
            }
        }
    }
}

fn named(error: SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let wanted = field.name.clone();
            let names: Vec<&str> = valid_fields
                .iter()
                .map(|column| column.name.as_str())
                .collect();
            let place = field
                .relation
                .as_ref()
                .map_or(String::new(), |table| format!(" in {}", table.table()));
            let missing = Error::new(
                ErrorKind::NotFound,
                format!("column {wanted} does not exist{place}"),
            );
            let missing = match field.spans.first() {
                Some(span) => missing.with_position(Position {
                    line: span.start.line,
                    column: span.start.column,
                }),
                None => missing,
            };
            match crate::sql::nearest(&wanted, names.iter().copied()) {
                Some(near) => {
                    missing.with_hint(format!("did you mean {}?", crate::sql::quoted(&near)))
                }
                None if names.is_empty() => missing,
                None => {
                    let mut shown: Vec<&str> = names;
                    shown.truncate(20);
                    missing.with_hint(format!("columns here: {}", shown.join(", ")))
                }
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::invalid(format!("column {} is ambiguous", field.name))
                .with_hint("write table.column")
        }
        other => plain(ErrorKind::Invalid, other.to_string()),
    }
}

fn syntax(error: &ParserError) -> Error {
    crate::sql::syntax_error(error)
}

fn pointed(error: Error, diagnostic: &Diagnostic) -> Error {
    let error = match (error.position(), diagnostic.span) {
        (None, Some(span)) => error.with_position(Position {
            line: span.start.line,
            column: span.start.column,
        }),
        _ => error,
    };
    let hint = diagnostic.helps.first().map(|help| help.message.clone());
    match (error.hint(), hint) {
        (None, Some(hint)) => error.with_hint(hint),
        _ => error,
    }
}

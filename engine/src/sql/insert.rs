//! `INSERT`, in its three modes.

use datafusion::sql::sqlparser::ast::{Expr, Ident};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::dml::row_expr;
use super::reader::Reader;
use super::statement::{Insert, InsertMode, InsertSource, Statement};
use super::target::{distinct, refuse_clauses};
use crate::error::{Error, Result};

/// `INSERT {INTO | OVERWRITE [PARTITIONS OF] [TABLE | INTO]} t [(columns)] [BY NAME] [REPLACE WHERE predicate]
/// [AS SNAPSHOTS] source`
pub(super) fn insert(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["INSERT"])?;
    let mode = mode(reader)?;
    let table = reader.object_name()?;
    refuse_target_clauses(reader)?;
    let columns = columns(reader)?;
    let by_name = reader.take(&["BY", "NAME"]);
    if by_name && !columns.is_empty() {
        let error = Error::invalid("BY NAME and a list of columns exclude each other");
        return Err(error.with_position(reader.position()));
    }
    refuse_target_clauses(reader)?;
    let replace = replace(reader, mode)?;
    let snapshots = snapshots(reader, mode, replace.is_some())?;
    let place = reader.position();
    let source = if reader.take(&["DEFAULT", "VALUES"]) {
        if snapshots {
            let error = Error::invalid("DEFAULT VALUES and AS SNAPSHOTS exclude each other");
            return Err(error.with_position(place));
        }
        if by_name || !columns.is_empty() {
            let error = Error::invalid("DEFAULT VALUES takes neither columns nor BY NAME");
            return Err(error.with_position(place));
        }
        InsertSource::DefaultValues
    } else {
        InsertSource::Query(reader.query()?)
    };
    Ok(Statement::Insert(Insert {
        table,
        columns,
        by_name,
        replace,
        source,
        mode,
        snapshots,
    }))
}

/// `AS SNAPSHOTS`: the source is the history of a journal, all that was true at each instant.
fn snapshots(reader: &mut Reader<'_>, mode: InsertMode, replaces: bool) -> Result<bool> {
    if !reader.sees(&SNAPSHOTS) {
        return Ok(false);
    }
    if mode != InsertMode::Append || replaces {
        let what = match replaces {
            true => "REPLACE WHERE",
            false => "INSERT OVERWRITE",
        };
        let error = Error::invalid(format!("{what} and AS SNAPSHOTS exclude each other"))
            .with_hint("INSERT INTO t AS SNAPSHOTS SELECT .. closes what a later snapshot lacks");
        return Err(error.with_position(reader.position()));
    }
    Ok(reader.take(&SNAPSHOTS))
}

const SNAPSHOTS: [&str; 2] = ["AS", "SNAPSHOTS"];

fn mode(reader: &mut Reader<'_>) -> Result<InsertMode> {
    if reader.take(&["INTO"]) {
        take_table_keyword(reader);
        return Ok(InsertMode::Append);
    }
    if reader.take(&["OVERWRITE"]) {
        let mode = if reader.take(&["PARTITIONS", "OF"]) {
            InsertMode::OverwritePartitions
        } else {
            InsertMode::Overwrite
        };
        if !reader.take(&["INTO"]) {
            take_table_keyword(reader);
        }
        return Ok(mode);
    }
    for other in [
        "OR",
        "IGNORE",
        "REPLACE",
        "LOW_PRIORITY",
        "DELAYED",
        "HIGH_PRIORITY",
        "ALL",
        "FIRST",
    ] {
        if reader.sees(&[other]) {
            let what = match reader.peek_word(1) {
                Some(next) if other == "OR" => format!("INSERT OR {next}"),
                _ => format!("INSERT {other}"),
            };
            return Err(reader.unsupported(&what));
        }
    }
    Err(reader.expected("INTO or OVERWRITE"))
}

/// Hive's `INSERT INTO TABLE t`.
fn take_table_keyword(reader: &mut Reader<'_>) {
    reader.take(&["TABLE"]);
}

/// The list of columns; a parenthesis may also begin the query.
fn columns(reader: &mut Reader<'_>) -> Result<Vec<Ident>> {
    let list = [Token::Comma, Token::RParen, Token::Period]
        .iter()
        .any(|after| reader.sees_symbol(2, after));
    if !reader.sees_symbol(0, &Token::LParen) || !list {
        return Ok(vec![]);
    }
    distinct(reader, Reader::identifier)
}

/// `REPLACE WHERE predicate`: which rows of the table make place.
fn replace(reader: &mut Reader<'_>, mode: InsertMode) -> Result<Option<Expr>> {
    if !reader.sees(&["REPLACE"]) {
        return Ok(None);
    }
    if mode == InsertMode::OverwritePartitions {
        let error = Error::invalid("OVERWRITE PARTITIONS OF and REPLACE WHERE exclude each other");
        return Err(error.with_position(reader.position()));
    }
    if !reader.take(&["REPLACE", "WHERE"]) {
        let what = match reader.peek_word(1) {
            Some(next) => format!("INSERT .. REPLACE {next}"),
            None => "INSERT .. REPLACE".to_owned(),
        };
        return Err(reader
            .unsupported(&what)
            .with_hint("REPLACE WHERE predicate says which rows make place"));
    }
    row_expr(reader, "the predicate of REPLACE WHERE").map(Some)
}

fn refuse_target_clauses(reader: &Reader<'_>) -> Result<()> {
    if reader.sees(&["PARTITION"]) {
        return Err(reader.unsupported("INSERT .. PARTITION (..)").with_hint(
            "partition columns are columns of the source; INSERT OVERWRITE PARTITIONS OF t replaces only the partitions that it has rows for",
        ));
    }
    if reader.sees(&["AS"]) && !reader.sees(&SNAPSHOTS) {
        return Err(reader.unsupported("an alias for the table that is written"));
    }
    if reader.sees(&["OVERRIDING"]) {
        return Err(reader.unsupported("OVERRIDING"));
    }
    refuse_clauses(reader)
}

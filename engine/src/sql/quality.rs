//! `CHECK TABLE`, `REPLAY QUARANTINE` and `SUGGEST CONSTRAINTS`: the rules of a table apart from its writes.

use datafusion::sql::sqlparser::parser::Parser;

use super::create::Once;
use super::dml::{assignments, refuse_rest, row_expr};
use super::reader::Reader;
use super::statement::{CheckTable, Replay, Statement};
use super::target::{Target, named_table, refuse_clauses, whole_table};
use super::versions;
use crate::error::Result;

/// `CHECK TABLE t [version clause] [CONSTRAINT name]`
pub(super) fn check(reader: &mut Reader<'_>) -> Result<Statement> {
    const HINT: &str = "CHECK TABLE t asks the rules of t of the rows that it holds";
    reader.expect(&["CHECK"])?;
    if !reader.take(&["TABLE"]) {
        return Err(reader.expected("TABLE").with_hint(HINT));
    }
    let table = named_table(reader)?;
    let place = reader.position();
    let version = reader.parse(Parser::maybe_parse_table_version)?;
    let at = match version.as_ref().map(versions::read).transpose() {
        Ok(at) => at,
        Err(error) if error.position().is_some() => return Err(error),
        Err(error) => return Err(error.with_position(place)),
    };
    let constraint = if reader.take(&["CONSTRAINT"]) {
        Some(reader.identifier()?)
    } else {
        None
    };
    for foreign in ["QUICK", "FAST", "MEDIUM", "EXTENDED", "CHANGED"] {
        if reader.sees(&[foreign]) {
            return Err(reader
                .unsupported(&format!("CHECK TABLE .. {foreign}"))
                .with_hint(HINT));
        }
    }
    Ok(Statement::CheckTable(CheckTable {
        table,
        at,
        constraint,
    }))
}

/// `REPLAY QUARANTINE t [SET column = value, ..] [WHERE predicate]`, the clauses in either order
pub(super) fn replay(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["REPLAY"])?;
    reader.expect(&["QUARANTINE"])?;
    let target = Target {
        table: named_table(reader)?,
        alias: None,
    };
    refuse_clauses(reader)?;
    let mut changes = vec![];
    let mut predicate = None;
    let mut seen = Once::default();
    loop {
        refuse_rest(reader, "REPLAY QUARANTINE")?;
        if reader.sees(&["SET"]) {
            seen.first("SET", reader)?;
            reader.take(&["SET"]);
            changes = assignments(reader, &target)?;
        } else if reader.sees(&["WHERE"]) {
            seen.first("WHERE", reader)?;
            reader.take(&["WHERE"]);
            predicate = Some(row_expr(reader, "the predicate of REPLAY QUARANTINE")?);
        } else {
            break;
        }
    }
    Ok(Statement::Replay(Replay {
        table: target.table,
        predicate,
        assignments: changes,
    }))
}

/// `SUGGEST CONSTRAINTS FOR [TABLE] t`
pub(super) fn suggest(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["SUGGEST"])?;
    reader.expect(&["CONSTRAINTS"])?;
    reader.expect(&["FOR"])?;
    let table = whole_table(reader)?;
    Ok(Statement::SuggestConstraints { table })
}

//! `OPTIMIZE`, `VACUUM`, `RESTORE` and `ANALYZE`: a table's files, and which of its versions is the newest.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::confine::row_expression;
use super::reader::Reader;
use super::statement::{Optimize, Restore, Statement, Vacuum};
use super::target::{distinct, refuse_clauses, whole_table};
use super::versions;
use crate::error::{Error, Result};

/// `OPTIMIZE [TABLE] t [WHERE predicate] [ZORDER BY (columns)]`
pub(super) fn optimize(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["OPTIMIZE"])?;
    let table = whole_table(reader)?;
    refuse_clauses(reader)?;
    for foreign in ["FULL", "FINAL", "DEDUPLICATE", "REWRITE"] {
        if reader.sees(&[foreign]) {
            return Err(reader
                .unsupported(&format!("OPTIMIZE .. {foreign}"))
                .with_hint("OPTIMIZE t WHERE .. ZORDER BY (..) says which files, and how rows are arranged"));
        }
    }
    let predicate = if reader.take(&["WHERE"]) {
        let predicate = reader.expr()?;
        // It chooses files by what is known of their rows, before any row is read.
        row_expression(&predicate, "the predicate of OPTIMIZE")?;
        Some(predicate)
    } else {
        None
    };
    let zorder = if reader.take(&["ZORDER", "BY"]) {
        distinct(reader, Reader::identifier)?
    } else {
        vec![]
    };
    Ok(Statement::Optimize(Optimize {
        table,
        predicate,
        zorder,
    }))
}

/// `VACUUM [TABLE] t [RETAIN n HOURS] [DRY RUN]`
pub(super) fn vacuum(reader: &mut Reader<'_>) -> Result<Statement> {
    const MODES: [&str; 5] = ["FULL", "LITE", "FREEZE", "VERBOSE", "ANALYZE"];
    reader.expect(&["VACUUM"])?;
    if reader.sees_name(1) || reader.sees_symbol(0, &Token::LParen) {
        refuse_modes(reader, &MODES)?;
    }
    let table = whole_table(reader)?;
    refuse_clauses(reader)?;
    refuse_modes(reader, &MODES)?;
    refuse_modes(reader, &["USING"])?;
    let retain_hours = if reader.take(&["RETAIN"]) {
        let hours = hours(reader)?;
        reader.expect(&["HOURS"])?;
        Some(hours)
    } else {
        None
    };
    let dry_run = reader.take(&["DRY", "RUN"]);
    Ok(Statement::Vacuum(Vacuum {
        table,
        retain_hours,
        dry_run,
    }))
}

fn refuse_modes(reader: &Reader<'_>, modes: &[&str]) -> Result<()> {
    let Some(mode) = modes.iter().find(|mode| reader.sees(&[mode])) else {
        return Ok(());
    };
    Err(reader
        .unsupported(&format!("VACUUM {mode}"))
        .with_hint("VACUUM t RETAIN n HOURS deletes every file that no version kept needs"))
}

fn hours(reader: &mut Reader<'_>) -> Result<f64> {
    let place = reader.position();
    let text = reader.value()?;
    match text.parse::<f64>() {
        Ok(hours) if hours.is_finite() && hours >= 0.0 => Ok(hours),
        _ => Err(Error::invalid(format!("{text} is not a number of hours"))
            .with_hint("VACUUM t RETAIN 168 HOURS keeps the versions of the last week")
            .with_position(place)),
    }
}

/// `RESTORE [TABLE] t TO {VERSION AS OF n | TIMESTAMP AS OF instant}`
pub(super) fn restore(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["RESTORE"])?;
    let table = whole_table(reader)?;
    reader.expect(&["TO"])?;
    let to = if reader.take(&["VERSION", "AS", "OF"]) {
        versions::number(&reader.expr()?)?
    } else if reader.take(&["TIMESTAMP", "AS", "OF"]) {
        versions::instant(&reader.expr()?)?
    } else {
        return Err(reader.expected("VERSION AS OF or TIMESTAMP AS OF"));
    };
    Ok(Statement::Restore(Restore { table, to }))
}

/// `ANALYZE TABLE t [COMPUTE STATISTICS [FOR ALL COLUMNS]]`
pub(super) fn analyze(reader: &mut Reader<'_>) -> Result<Statement> {
    const HINT: &str = "ANALYZE TABLE t gathers the statistics of all columns";
    reader.expect(&["ANALYZE"])?;
    if !reader.sees(&["TABLE"]) {
        return Err(reader.expected("TABLE").with_hint(HINT));
    }
    let table = whole_table(reader)?;
    refuse_clauses(reader)?;
    if reader.take(&["COMPUTE"]) {
        if reader.sees(&["DELTA"]) {
            return Err(reader
                .unsupported("COMPUTE DELTA STATISTICS")
                .with_hint(HINT));
        }
        reader.expect(&["STATISTICS"])?;
        if reader.sees(&["NOSCAN"]) {
            return Err(reader.unsupported("ANALYZE .. NOSCAN").with_hint(HINT));
        }
        if reader.sees(&["FOR", "COLUMNS"]) {
            return Err(reader.unsupported("ANALYZE .. FOR COLUMNS").with_hint(HINT));
        }
        if reader.take(&["FOR"]) {
            reader.expect(&["ALL", "COLUMNS"])?;
        }
    }
    Ok(Statement::Analyze { table })
}

//! `JOURNAL KEYS ..`, `CHECK JOURNAL` and `CORRECT JOURNAL`: how a table keeps its history, and how that is proved and
//! put right.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::confine::row_expression;
use super::create::Once;
use super::dml::{assignments, refuse_rest, row_expr};
use super::reader::Reader;
use super::statement::{
    CorrectJournal, Correction, IgnoreNullsClause, JournalClause, Statement, TrackClause, quoted,
};
use super::target::{Target, distinct, named_table, refuse_clauses};
use super::versions;
use crate::error::{Error, Result};
use crate::journal::definition::{Definition, IgnoreNulls, Late, LatePolicy, Track};
use crate::table::retention;

/// `JOURNAL KEYS (columns)`, and behind it in any order `SEQUENCE BY column`, `APPLY AS DELETE WHEN predicate`,
/// `TRACK HISTORY ON {(columns) | * [EXCEPT (columns)]}`, `IGNORE NULL UPDATES [ON (columns)]` and
/// `LATE {APPLY | QUARANTINE | FAIL} [AFTER INTERVAL '..']`
pub(super) fn clause(reader: &mut Reader<'_>) -> Result<JournalClause> {
    reader.expect(&["JOURNAL"])?;
    if !reader.take(&["KEYS"]) {
        return Err(reader
            .expected("KEYS")
            .with_hint("JOURNAL KEYS (client_id) SEQUENCE BY updated_at"));
    }
    let mut clause = JournalClause {
        keys: distinct(reader, Reader::identifier)?,
        sequence: None,
        delete_when: None,
        track: TrackClause::All,
        ignore_nulls: IgnoreNullsClause::No,
        late: Late::default(),
    };
    let mut late_place = None;
    let mut seen = Once::default();
    loop {
        if reader.sees(&["SEQUENCE", "BY"]) {
            seen.first("SEQUENCE BY", reader)?;
            reader.take(&["SEQUENCE", "BY"]);
            clause.sequence = Some(reader.identifier()?);
        } else if reader.sees(&["APPLY", "AS"]) {
            seen.first("APPLY AS DELETE", reader)?;
            clause.delete_when = Some(delete_when(reader)?);
        } else if reader.sees(&["TRACK"]) {
            seen.first("TRACK HISTORY", reader)?;
            clause.track = track(reader)?;
        } else if reader.sees(&["IGNORE", "NULL"]) {
            seen.first("IGNORE NULL UPDATES", reader)?;
            clause.ignore_nulls = ignore_nulls(reader)?;
        } else if reader.sees(&["LATE"]) {
            seen.first("LATE", reader)?;
            late_place = Some(reader.position());
            clause.late = late(reader)?;
        } else {
            break;
        }
    }
    match (late_place, &clause.sequence) {
        (Some(place), None) => Err(Error::invalid("LATE without SEQUENCE BY")
            .with_hint("without a sequence the order of the writes is that of the changes")
            .with_position(place)),
        _ => Ok(clause),
    }
}

fn delete_when(reader: &mut Reader<'_>) -> Result<Expr> {
    reader.take(&["APPLY", "AS"]);
    if reader.sees(&["TRUNCATE"]) {
        return Err(reader
            .unsupported("APPLY AS TRUNCATE")
            .with_hint("TRUNCATE TABLE t closes all that is current"));
    }
    reader.expect(&["DELETE", "WHEN"])?;
    let predicate = reader.expr()?;
    row_expression(&predicate, "APPLY AS DELETE WHEN")?;
    Ok(predicate)
}

fn track(reader: &mut Reader<'_>) -> Result<TrackClause> {
    reader.expect(&["TRACK", "HISTORY", "ON"])?;
    if !reader.take_symbol(&Token::Mul) {
        return distinct(reader, Reader::identifier).map(TrackClause::Only);
    }
    match reader.take(&["EXCEPT"]) {
        true => distinct(reader, Reader::identifier).map(TrackClause::Except),
        false => Ok(TrackClause::All),
    }
}

fn ignore_nulls(reader: &mut Reader<'_>) -> Result<IgnoreNullsClause> {
    reader.expect(&["IGNORE", "NULL", "UPDATES"])?;
    match reader.take(&["ON"]) {
        true => distinct(reader, Reader::identifier).map(IgnoreNullsClause::On),
        false => Ok(IgnoreNullsClause::All),
    }
}

fn late(reader: &mut Reader<'_>) -> Result<Late> {
    reader.expect(&["LATE"])?;
    let policies = [LatePolicy::Apply, LatePolicy::Quarantine, LatePolicy::Fail];
    let Some(policy) = policies.into_iter().find(|p| reader.take(&[p.sql()])) else {
        return Err(reader.expected("APPLY, QUARANTINE or FAIL"));
    };
    let after_micros = match reader.take(&["AFTER"]) {
        true => Some(duration(reader)?),
        false => None,
    };
    Ok(Late {
        policy,
        after_micros,
    })
}

/// `INTERVAL '7 days'` or `INTERVAL 7 DAYS`, in microseconds.
fn duration(reader: &mut Reader<'_>) -> Result<i64> {
    const UNITS: [&str; 6] = ["WEEK", "DAY", "HOUR", "MINUTE", "SECOND", "MILLISECOND"];
    reader.expect(&["INTERVAL"])?;
    let place = reader.position();
    let mut text = reader.value()?;
    let unit = reader.peek_word(0).filter(|word| {
        let one = word.strip_suffix('S').unwrap_or(word);
        UNITS.contains(&one)
    });
    if let Some(unit) = unit {
        reader.identifier()?;
        text = format!("{text} {unit}");
    }
    let ms = retention::parse(&text).filter(|ms| *ms > 0);
    ms.and_then(|ms| ms.checked_mul(1_000)).ok_or_else(|| {
        Error::invalid(format!("'{text}' is not a length of time"))
            .with_hint("LATE APPLY AFTER INTERVAL '7 days': weeks, days, hours, minutes and seconds have one, months do not")
            .with_position(place)
    })
}

/// The clause that says the same, what is not said left out.
pub(crate) fn journal_clause(definition: &Definition) -> String {
    let mut text = format!("JOURNAL KEYS {}", list(&definition.keys));
    if let Some(sequence) = &definition.sequence {
        text.push_str(&format!(" SEQUENCE BY {}", quoted(sequence)));
    }
    if let Some(predicate) = &definition.delete_when {
        text.push_str(&format!(" APPLY AS DELETE WHEN {predicate}"));
    }
    match &definition.track {
        Track::All => {}
        Track::Only(columns) => text.push_str(&format!(" TRACK HISTORY ON {}", list(columns))),
        Track::Except(columns) => {
            text.push_str(&format!(" TRACK HISTORY ON * EXCEPT {}", list(columns)));
        }
    }
    match &definition.ignore_nulls {
        IgnoreNulls::No => {}
        IgnoreNulls::All => text.push_str(" IGNORE NULL UPDATES"),
        IgnoreNulls::On(columns) => {
            text.push_str(&format!(" IGNORE NULL UPDATES ON {}", list(columns)));
        }
    }
    if definition.late != Late::default() {
        text.push_str(&format!(" LATE {}", definition.late.policy.sql()));
    }
    if let Some(micros) = definition.late.after_micros {
        text.push_str(&format!(" AFTER INTERVAL '{}'", length(micros)));
    }
    text
}

fn list(columns: &[String]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    format!("({})", columns.join(", "))
}

/// A length of time in the largest unit that tells it whole.
fn length(micros: i64) -> String {
    const UNITS: [(i64, &str); 5] = [
        (86_400_000, "days"),
        (3_600_000, "hours"),
        (60_000, "minutes"),
        (1_000, "seconds"),
        (1, "milliseconds"),
    ];
    let ms = micros / 1_000;
    let unit = UNITS.into_iter().find(|(unit, _)| ms % unit == 0);
    let (unit, name) = unit.unwrap_or((1, "milliseconds"));
    format!("{} {name}", ms / unit)
}

/// `CHECK JOURNAL t [version clause]`
pub(super) fn check(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["CHECK", "JOURNAL"])?;
    let table = named_table(reader)?;
    let place = reader.position();
    let version = reader.parse(Parser::maybe_parse_table_version)?;
    let at = version.as_ref().map(versions::read).transpose();
    let at = at.map_err(|error| match error.position() {
        Some(_) => error,
        None => error.with_position(place),
    })?;
    Ok(Statement::CheckJournal { table, at })
}

/// `CORRECT JOURNAL t {SET column = value, .. | DELETE} WHERE predicate`
pub(super) fn correct(reader: &mut Reader<'_>) -> Result<Statement> {
    const VERB: &str = "CORRECT JOURNAL";
    reader.expect(&["CORRECT", "JOURNAL"])?;
    let target = Target {
        table: named_table(reader)?,
        alias: None,
    };
    refuse_clauses(reader)?;
    let change = if reader.take(&["SET"]) {
        Correction::Set(assignments(reader, &target)?)
    } else if reader.take(&["DELETE"]) {
        Correction::Delete
    } else {
        return Err(reader.expected("SET or DELETE").with_hint(
            "CORRECT JOURNAL t SET city = 'x' WHERE client_id = 7 AND valid_from = ..",
        ));
    };
    refuse_rest(reader, VERB)?;
    if !reader.take(&["WHERE"]) {
        // All of history at once is rarely what is meant, so it must be said.
        let error = Error::invalid(format!("{VERB} needs WHERE"))
            .with_hint("name the intervals; WHERE true means all of them");
        return Err(error.with_position(reader.position()));
    }
    let predicate = row_expr(reader, &format!("the predicate of {VERB}"))?;
    refuse_rest(reader, VERB)?;
    Ok(Statement::CorrectJournal(CorrectJournal {
        table: target.table,
        change,
        predicate: Some(predicate),
    }))
}

/// `AS SNAPSHOTS` needs to know which rows were true together.
pub(super) fn snapshots_of(journal: Option<&JournalClause>, reader: &Reader<'_>) -> Result<()> {
    let missing = match journal.map(|clause| clause.sequence.as_ref()) {
        Some(Some(_)) => return Ok(()),
        Some(None) => "SEQUENCE BY",
        None => "JOURNAL KEYS",
    };
    let error = Error::invalid(format!("AS SNAPSHOTS without {missing}")).with_hint(
        "JOURNAL KEYS (..) SEQUENCE BY column: rows with the same value there are one snapshot",
    );
    Err(error.with_position(reader.position()))
}

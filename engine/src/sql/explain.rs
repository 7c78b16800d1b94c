//! `EXPLAIN` of a query or a write, and `EXPLAIN QUALITY` of a write.

use std::str::FromStr;

use datafusion::common::format::ExplainFormat;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::parser::{VERBS, statement};
use super::reader::Reader;
use super::statement::{Explain, Statement};
use super::suggest::nearest;
use crate::error::{Error, Result};

/// `EXPLAIN [ANALYZE] [VERBOSE] [FORMAT f] statement` or `EXPLAIN (ANALYZE, VERBOSE, FORMAT f) statement`
pub(super) fn explain(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["EXPLAIN"])?;
    if reader.sees(&["QUALITY"])
        && reader
            .peek_word(1)
            .is_some_and(|word| VERBS.contains(&word.as_str()))
    {
        return quality(reader);
    }
    let mut explain = Options::default();
    if reader.sees_symbol(0, &Token::LParen) && option_follows(reader) {
        reader.list(|reader| {
            if !explain.take(reader)? {
                return Err(reader.expected("ANALYZE, VERBOSE or FORMAT"));
            }
            Ok(())
        })?;
    } else {
        while explain.take(reader)? {}
    }
    let place = reader.position();
    let error = Error::invalid("EXPLAIN takes a query or a write").with_position(place);
    // Looked at before it is read: EXPLAIN EXPLAIN .. would nest as deep as the text is long.
    if ["EXPLAIN", "PREPARE"]
        .iter()
        .any(|verb| reader.sees(&[verb]))
    {
        return Err(error);
    }
    if reader.sees(&["REPLAY"]) {
        return Err(reader
            .unsupported("EXPLAIN REPLAY")
            .with_hint("EXPLAIN QUALITY REPLAY QUARANTINE t tells what would become of the rows"));
    }
    let statement = statement(reader)?;
    let plans = match &statement {
        Statement::Query(_) | Statement::CopyTo(_) | Statement::CopyInto(_) => true,
        Statement::CreateTable(table) => table.query.is_some(),
        other => other.changed_table().is_some(),
    };
    if !plans {
        return Err(error);
    }
    Ok(Statement::Explain(Explain {
        analyze: explain.analyze,
        verbose: explain.verbose,
        format: explain.format,
        statement: Box::new(statement),
    }))
}

/// `EXPLAIN QUALITY write`
fn quality(reader: &mut Reader<'_>) -> Result<Statement> {
    const WRITES: [&str; 8] = [
        "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY", "CREATE", "REPLAY",
    ];
    reader.expect(&["QUALITY"])?;
    let error = Error::invalid("EXPLAIN QUALITY takes a statement that writes rows")
        .with_hint(
            "EXPLAIN QUALITY INSERT INTO t .. tells what the rules of t say, and writes nothing",
        )
        .with_position(reader.position());
    // Looked at before it is read, as by EXPLAIN.
    if !WRITES.iter().any(|verb| reader.sees(&[verb])) {
        return Err(error);
    }
    let statement = statement(reader)?;
    let writes = match &statement {
        Statement::CopyInto(_) => true,
        Statement::CreateTable(table) => table.query.is_some(),
        other => other.changed_table().is_some(),
    };
    if !writes {
        return Err(error);
    }
    Ok(Statement::ExplainQuality(Box::new(statement)))
}

#[derive(Default)]
struct Options {
    analyze: bool,
    verbose: bool,
    format: Option<ExplainFormat>,
}

impl Options {
    /// Takes one option; false if none follows.
    fn take(&mut self, reader: &mut Reader<'_>) -> Result<bool> {
        if reader.take(&["ANALYZE"]) {
            self.analyze = true;
        } else if reader.take(&["VERBOSE"]) {
            self.verbose = true;
        } else if reader.take(&["FORMAT"]) {
            self.format = Some(format(reader)?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

/// A parenthesis may also begin the query.
fn option_follows(reader: &Reader<'_>) -> bool {
    !["SELECT", "WITH", "FROM", "VALUES", "TABLE"]
        .iter()
        .any(|word| reader.peek_word(1).as_deref() == Some(word))
        && !reader.sees_symbol(1, &Token::LParen)
}

fn format(reader: &mut Reader<'_>) -> Result<ExplainFormat> {
    const NAMES: [&str; 4] = ["indent", "tree", "pgjson", "graphviz"];
    let place = reader.position();
    let name = reader.value()?;
    ExplainFormat::from_str(&name).map_err(|_| {
        let error = Error::invalid(format!("unknown format {name} of EXPLAIN"));
        let error = match nearest(&name, NAMES) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error.with_hint(format!("the formats are {}", NAMES.join(", "))),
        };
        error.with_position(place)
    })
}

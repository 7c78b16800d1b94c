//! `CONSTRAINT name EXPECT (..)`: a rule from its clause, and the clause of a rule.

use std::slice;

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::confine::row_expression;
use super::create::Once;
use super::plain;
use super::reader::Reader;
use super::statement::{fold, folded, quoted};
use super::suggest::nearest;
use super::target::{Columns, distinct};
use crate::error::{Error, Position, Result};
use crate::quality::rule::{OnNull, OnViolation, Over, Rule, RuleKind};

const FORM: &str = "CONSTRAINT name EXPECT (..)";
const REFERENCE: &str =
    "c REFERENCES t (k), or (a, b) REFERENCES t (x, y), asks whether t has the key of a row";

const ACTIONS: [OnViolation; 4] = [
    OnViolation::Warn,
    OnViolation::DropRow,
    OnViolation::QuarantineRow,
    OnViolation::Fail,
];

/// What a rule asks.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// Of a row or, with aggregates, of all rows; no subquery, no window, no parameter.
    Expr(Box<Expr>),
    Reference(Reference),
}

/// `columns REFERENCES table (keys)`: a row of the table has the same values.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    /// As many as `keys`; no column twice.
    pub(crate) columns: Vec<Ident>,
    pub(crate) table: ObjectName,
    pub(crate) keys: Vec<Ident>,
}

/// Whether a rule follows, and no constraint of standard SQL.
pub(super) fn sees_rule(reader: &Reader<'_>) -> bool {
    let bare = |n: usize| {
        reader.peek_word(n).as_deref() == Some("EXPECT")
            && reader.sees_symbol(n + 1, &Token::LParen)
    };
    let named = reader.sees_name(1) && reader.peek_word(2).as_deref() == Some("EXPECT");
    bare(0) || reader.sees(&["CONSTRAINT"]) && (named || bare(1))
}

/// `CONSTRAINT name EXPECT (condition)` and its clauses, in any order.
pub(super) fn rule(reader: &mut Reader<'_>) -> Result<Rule> {
    let place = reader.position();
    reader.take(&["CONSTRAINT"]);
    if reader.sees_symbol(1, &Token::LParen) {
        let error = Error::invalid("an EXPECT needs a name").with_hint(FORM);
        return Err(error.with_position(place));
    }
    let name = reader.identifier()?;
    reader.expect(&["EXPECT"])?;
    reader.expect_symbol(&Token::LParen)?;
    let (expect, kind) = match condition(reader)? {
        Condition::Expr(expr) => (expr.to_string(), RuleKind::Row),
        Condition::Reference(reference) => {
            if !reader.sees_symbol(0, &Token::RParen) {
                return Err(reader
                    .expected(")")
                    .with_hint("a reference is a rule by itself; what else is expected of rows goes into rules of its own"));
            }
            (reference_text(&reference), RuleKind::Reference)
        }
    };
    reader.expect_symbol(&Token::RParen)?;
    let mut rule = Rule {
        kind,
        ..Rule::new(fold(&name), expect)
    };
    clauses(reader, &mut rule)?;
    if reader.sees(&["NOT", "ENFORCED"]) {
        return Err(reader.unsupported("EXPECT .. NOT ENFORCED").with_hint(
            "ALTER TABLE t DISABLE CONSTRAINT name keeps a rule that writes are not held to",
        ));
    }
    Ok(rule)
}

fn clauses(reader: &mut Reader<'_>, rule: &mut Rule) -> Result<()> {
    let mut seen = Once::default();
    loop {
        if reader.sees(&["PER"]) {
            seen.first("PER PARTITION", reader)?;
            reader.take(&["PER"]);
            reader.expect(&["PARTITION"])?;
            rule.per_partition = true;
        } else if reader.sees(&["OVER"]) {
            seen.first("OVER", reader)?;
            reader.take(&["OVER"]);
            rule.over = either(reader, [("WRITTEN", Over::Written), ("INPUT", Over::Input)])?;
        } else if reader.sees(&["ON", "NULL"]) {
            seen.first("ON NULL", reader)?;
            reader.take(&["ON", "NULL"]);
            let meanings = [OnNull::Pass, OnNull::Violate];
            rule.on_null = either(reader, meanings.map(|meaning| (meaning.sql(), meaning)))?;
        } else if reader.sees(&["ON", "VIOLATION"]) {
            seen.first("ON VIOLATION", reader)?;
            reader.take(&["ON", "VIOLATION"]);
            rule.on_violation = action(reader)?;
        } else if reader.take(&["ON"]) {
            return Err(reader.expected("NULL or VIOLATION"));
        } else {
            return Ok(());
        }
    }
}

/// One of two words.
fn either<T: Copy>(reader: &mut Reader<'_>, choices: [(&str, T); 2]) -> Result<T> {
    for (word, meaning) in choices {
        if reader.take(&[word]) {
            return Ok(meaning);
        }
    }
    let words = choices.map(|(word, _)| word);
    let error = reader.expected(&words.join(" or "));
    let near = reader.peek_word(0).and_then(|word| nearest(&word, words));
    Err(match near {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error,
    })
}

fn action(reader: &mut Reader<'_>) -> Result<OnViolation> {
    for action in ACTIONS {
        let words: Vec<&str> = action.sql().split(' ').collect();
        if reader.take(&words) {
            return Ok(action);
        }
    }
    let known = ACTIONS.map(OnViolation::sql);
    let Some(first) = reader.peek_word(0) else {
        return Err(reader.expected(&format!("an action ({})", known.join(", "))));
    };
    let typed = match reader.peek_word(1) {
        Some(second) if ["ROW", "ROWS"].contains(&second.as_str()) => format!("{first} {second}"),
        _ => first.clone(),
    };
    let error = Error::invalid(format!("unknown action {typed} of ON VIOLATION"))
        .with_detail(format!("the actions are {}", known.join(", ")))
        .with_position(reader.position());
    // By the first word alone: all that DROP lacks is ROW.
    let near = nearest(&first, known.map(verb));
    let near = known
        .into_iter()
        .find(|action| near.as_deref() == Some(verb(action)));
    Err(match near {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error,
    })
}

fn verb(action: &str) -> &str {
    action.split_once(' ').map_or(action, |(verb, _)| verb)
}

/// Reads what a rule asks, as it is kept or as a program gives it.
pub(crate) fn parse_condition(text: &str) -> Result<Condition> {
    let mut reader = Reader::new(text)?;
    let condition = condition(&mut reader)?;
    if !reader.done() {
        return Err(reader.expected("the end of the condition"));
    }
    Ok(condition)
}

/// Reads the condition of a rule that is kept as a reference.
pub(crate) fn parse_reference(text: &str) -> Result<Reference> {
    match parse_condition(text)? {
        Condition::Reference(reference) => Ok(reference),
        Condition::Expr(expr) => {
            Err(Error::invalid(format!("{expr} is not a reference")).with_hint(REFERENCE))
        }
    }
}

fn condition(reader: &mut Reader<'_>) -> Result<Condition> {
    let place = reader.position();
    let mut expr = reader.expr()?;
    if reader.take(&["REFERENCES"]) {
        let columns = columns(&expr, place)?;
        return reference(reader, columns, place).map(Condition::Reference);
    }
    row_expression(&expr, "an EXPECT").map_err(|error| {
        let error = match error.position() {
            Some(_) => error,
            None => error.with_position(place),
        };
        if error.message().ends_with("a subquery") {
            return error.with_hint(REFERENCE);
        }
        error
    })?;
    plain::rewrite_expr(&mut expr);
    Ok(Condition::Expr(Box::new(expr)))
}

/// What stands before REFERENCES: a column, or a list of columns.
fn columns(expr: &Expr, place: Position) -> Result<Vec<Ident>> {
    let items = match expr {
        Expr::Tuple(items) => items.as_slice(),
        Expr::Nested(item) => slice::from_ref(item.as_ref()),
        item => slice::from_ref(item),
    };
    let mut seen = Columns::default();
    let mut columns = Vec::with_capacity(items.len());
    for item in items {
        let Expr::Identifier(column) = item else {
            let error = Error::invalid(format!("{item} before REFERENCES is not a column"))
                .with_hint(REFERENCE);
            return Err(error.with_position(place));
        };
        seen.add(column, "named", place)?;
        columns.push(column.clone());
    }
    Ok(columns)
}

/// What stands after REFERENCES.
fn reference(reader: &mut Reader<'_>, columns: Vec<Ident>, place: Position) -> Result<Reference> {
    let table = reader.object_name()?;
    if !reader.sees_symbol(0, &Token::LParen) {
        let keys = format!("( and the columns of {table} that hold the key");
        return Err(reader.expected(&keys).with_hint(REFERENCE));
    }
    let keys = distinct(reader, Reader::identifier)?;
    if columns.len() != keys.len() {
        let (before, after) = (columns.len(), keys.len());
        let error = Error::invalid(format!(
            "REFERENCES compares {before} and {after} columns: as many must stand before it as after {table}"
        ));
        return Err(error.with_position(place));
    }
    for foreign in ["MATCH", "ON"] {
        if reader.sees(&[foreign]) {
            return Err(reader
                .unsupported(&format!("REFERENCES .. {foreign}"))
                .with_hint("a reference is asked of rows as they are written; clauses of the rule stand after its )"));
        }
    }
    Ok(Reference {
        columns,
        table,
        keys,
    })
}

/// The one text of a reference, however it was typed.
pub(crate) fn reference_text(reference: &Reference) -> String {
    let list = |names: &[Ident]| {
        let names: Vec<String> = names.iter().map(|name| quoted(&fold(name))).collect();
        names.join(", ")
    };
    let columns = match reference.columns.as_slice() {
        [column] => quoted(&fold(column)),
        columns => format!("({})", list(columns)),
    };
    let table: Vec<String> = folded(&reference.table)
        .iter()
        .map(|part| quoted(part))
        .collect();
    let table = table.join(".");
    format!("{columns} REFERENCES {table} ({})", list(&reference.keys))
}

/// The clause that makes this rule; what is as it would be without saying is not said.
pub(crate) fn rule_clause(rule: &Rule) -> String {
    let mut clause = format!("CONSTRAINT {} EXPECT ({})", quoted(&rule.name), rule.expect);
    if rule.per_partition {
        clause.push_str(" PER PARTITION");
    }
    if rule.over == Over::Input {
        clause.push_str(" OVER INPUT");
    }
    if rule.on_null != OnNull::default() {
        clause.push_str(" ON NULL ");
        clause.push_str(rule.on_null.sql());
    }
    if rule.on_violation != OnViolation::default() {
        clause.push_str(" ON VIOLATION ");
        clause.push_str(rule.on_violation.sql());
    }
    clause
}

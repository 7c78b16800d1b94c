//! Rows that history has no place for: what is said of them, and how quarantine keeps them.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::Int64Type;
use chrono::DateTime;

use super::super::quality::set_aside;
use super::super::target::WriteTarget;
use super::riders::{deletes, is_delete};
use crate::error::{Error, Result};
use crate::journal::event::SEQUENCE;
use crate::journal::key;
use crate::journal::shape::Shape;
use crate::quality::failure::{Failure, quarantine_schema};

/// What quarantine calls the rule that such rows broke.
pub(super) const RULE: &str = "journal";

/// Rows of one kind, told in one error.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub rows: u64,
    pub keys: u64,
    /// The first of them: `client_id = 7 at 2026-01-02 00:00:00.000000 UTC`.
    pub first: Option<String>,
}

impl Tally {
    /// Notes rows of one key.
    pub(super) fn note(&mut self, shape: &Shape, events: &RecordBatch, row: usize) -> Result<()> {
        if self.first.is_none() {
            self.first = Some(told(shape, events, row)?);
        }
        Ok(())
    }

    pub(super) fn first(&self) -> &str {
        self.first.as_deref().unwrap_or("unknown")
    }
}

/// `1 key`, `2 keys`.
pub(super) fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        more => format!("{more} {what}s"),
    }
}

/// An event, by its key and its instant.
pub(super) fn told(shape: &Shape, events: &RecordBatch, row: usize) -> Result<String> {
    let key = key::shown(shape, events, row)?;
    Ok(match shape.sequence {
        Some(_) => format!("{key} at {}", instant(sequence(events, row)?)),
        None => key,
    })
}

/// The instant of an event.
pub(super) fn sequence(events: &RecordBatch, row: usize) -> Result<i64> {
    let column = events.column_by_name(SEQUENCE);
    let column = column.and_then(|column| column.as_primitive_opt::<Int64Type>());
    column
        .filter(|column| row < column.len())
        .map(|column| column.value(row))
        .ok_or_else(|| Error::internal("an event of a journal has no instant"))
}

/// Microseconds as text, in UTC.
pub(super) fn instant(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).map_or_else(
        || format!("{micros} us"),
        |at| at.format("%Y-%m-%d %H:%M:%S%.6f UTC").to_string(),
    )
}

/// The rows as quarantine keeps them.
pub(super) fn quarantined(
    shape: &Shape,
    events: &RecordBatch,
    message: &str,
) -> Result<RecordBatch> {
    let columns: Vec<String> = shape.key_names().map(str::to_owned).collect();
    let mut failures = Vec::with_capacity(events.num_rows());
    for row in 0..events.num_rows() {
        failures.push([Failure {
            rule: RULE.to_owned(),
            fingerprint: None,
            message: message.to_owned(),
            value: told(shape, events, row)?,
            columns: columns.clone(),
        }]);
    }
    let width = shape.flow.fields().len();
    let own = events.columns().get(..width).unwrap_or_default();
    // A row that ends its key, and does not say so itself, must not come back as one that says what is true.
    let ends = deletes(events).filter(|_| shape.definition.delete_when.is_none());
    let replaces = (0..events.num_rows()).map(|row| Some(is_delete(ends, row)));
    let replaces: BooleanArray = replaces.collect();
    set_aside(
        &quarantine_schema(&shape.flow),
        failures.iter().map(<[Failure; 1]>::as_slice),
        None,
        replaces,
        own,
    )
}

/// Rows that did not pass the rules of a statement that gives rows other keys. Their old keys would end, or another row
/// would take the place that they keep.
pub(super) fn unmoved(target: &WriteTarget, left: u64, received: u64) -> Error {
    Error::rejected(format!(
        "{} of table {} gives rows other keys, and {left} of {} did not pass its rules: what they were would end",
        target.operation,
        target.name,
        counted(received, "row")
    ))
    .with_hint("repair these rows, or give other keys only to rows that pass: rows of one statement move together")
}

/// Different rows for one key and one instant.
pub(super) fn differing(shape: &Shape, tally: &Tally) -> Error {
    let (table, keys) = (&shape.table, counted(tally.keys, "key"));
    let have = if tally.keys == 1 { "has" } else { "have" };
    match shape.sequence {
        Some(_) => Error::rejected(format!(
            "table {table}: {keys} {have} different rows for one sequence, first {}",
            tally.first()
        ))
        .with_hint("make the source give one row for each key and sequence"),
        None => Error::rejected(format!(
            "table {table}: {keys} {have} several different rows in one write, first {}",
            tally.first()
        ))
        .with_hint(
            "a journal with SEQUENCE BY orders several changes of a key; without it a write has one row a key",
        ),
    }
}

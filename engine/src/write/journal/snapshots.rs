//! Snapshots: each instant of the rows is one, and says by what it lacks which keys had ended by then.
//!
//! A key that the next snapshot lacks ends there; one that is current in the table ends at the first snapshot after
//! its interval began that lacks it. A snapshot behind the newest one that the table was told knows less than the table
//! does, so that it may only come together with that one, which then tells again what was still there.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, concat_batches, interleave, take_record_batch};
use arrow::datatypes::Int64Type;

use super::super::quality::unexpected;
use super::accept::sequences;
use super::refusal::instant;
use super::riders::{deletes, is_delete};
use crate::error::{Error, Result};
use crate::journal::definition::MAX_DELETE_FRACTION;
use crate::journal::event::{FROM, TO};
use crate::journal::key::KeyOrder;
use crate::journal::shape::Shape;

/// The snapshots of one write, and what they close.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// Ascending.
    instants: Vec<i64>,
    /// By instant: keys that were there before it, and those of them that it lacks.
    before: Vec<u64>,
    closed: Vec<u64>,
}

/// A key that ends, by a row that has it: of the events (0) or of the stored intervals (1).
struct Ending {
    row: (usize, usize),
    at: i64,
}

impl Snapshots {
    pub(super) fn new(instants: impl IntoIterator<Item = i64>) -> Self {
        let instants: Vec<i64> = instants.into_iter().collect();
        Self {
            before: vec![0; instants.len()],
            closed: vec![0; instants.len()],
            instants,
        }
    }

    /// The last of them.
    pub(super) fn newest(&self) -> Option<i64> {
        self.instants.last().copied()
    }

    /// Refuses snapshots behind the newest one that the table was told (`known`), unless that comes again with them:
    /// what one of them lacks may have been there since, and what it has may have ended.
    pub(super) fn follow(&self, known: Option<i64>, shape: &Shape, operation: &str) -> Result<()> {
        let (Some(known), Some(first)) = (known, self.instants.first()) else {
            return Ok(());
        };
        if *first >= known || self.instants.binary_search(&known).is_ok() {
            return Ok(());
        }
        Err(Error::rejected(format!(
            "{operation} of table {}: the snapshot of {} comes behind that of {}, and would close keys that the newer one has",
            shape.table,
            instant(*first),
            instant(known)
        ))
        .with_hint(
            "snapshots come in the order of their instants, or with all newer ones: INSERT INTO .. AS SNAPSHOTS; single changes come by INSERT INTO",
        ))
    }

    /// The events, and those that the snapshots tell by what they lack, in order. Both batches hold all rows of
    /// their keys.
    pub(super) fn complete(
        &mut self,
        shape: &Shape,
        order: &KeyOrder,
        events: &RecordBatch,
        stored: &RecordBatch,
    ) -> Result<RecordBatch> {
        let (event_keys, stored_keys) = (order.rows(events)?, order.rows(stored)?);
        let (events_end, stored_end) = (events.num_rows(), stored.num_rows());
        let (mut event, mut interval) = (0, 0);
        let mut endings = Vec::new();
        while event < events_end || interval < stored_end {
            let key = match (event < events_end, interval < stored_end) {
                (true, true) => event_keys.row(event).min(stored_keys.row(interval)),
                (true, false) => event_keys.row(event),
                _ => stored_keys.row(interval),
            };
            let (first, begin) = (event, interval);
            while event < events_end && event_keys.row(event) == key {
                event += 1;
            }
            while interval < stored_end && stored_keys.row(interval) == key {
                interval += 1;
            }
            self.of_key(events, first..event, &mut endings)?;
            self.of_stored(
                (events, first..event),
                (stored, begin..interval),
                &mut endings,
            )?;
        }
        if endings.is_empty() {
            return Ok(events.clone());
        }
        let endings = rows(shape, events, stored, &endings)?;
        in_order(order, events, &endings)
    }

    fn place(&self, at: i64) -> Result<usize> {
        self.instants
            .binary_search(&at)
            .map_err(|_| Error::internal("an event is of no snapshot of its write"))
    }

    fn note(&mut self, place: usize, closes: bool) {
        if let Some(before) = self.before.get_mut(place) {
            *before += 1;
        }
        if closes && let Some(closed) = self.closed.get_mut(place) {
            *closed += 1;
        }
    }

    /// The ends between the events of a key, and after the last of them.
    fn of_key(
        &mut self,
        events: &RecordBatch,
        rows: std::ops::Range<usize>,
        endings: &mut Vec<Ending>,
    ) -> Result<()> {
        let (at, ends) = (sequences(events)?, deletes(events));
        for row in rows.clone() {
            if is_delete(ends, row) {
                continue;
            }
            let next = self.place(at.value(row))? + 1;
            let Some(instant) = self.instants.get(next).copied() else {
                continue;
            };
            let there = row + 1 < rows.end && at.value(row + 1) == instant;
            self.note(next, !there || is_delete(ends, row + 1));
            if !there {
                endings.push(Ending {
                    row: (0, row),
                    at: instant,
                });
            }
        }
        Ok(())
    }

    /// The end of what is current, where the first snapshot after its begin lacks it.
    fn of_stored(
        &mut self,
        (events, rows): (&RecordBatch, std::ops::Range<usize>),
        (stored, intervals): (&RecordBatch, std::ops::Range<usize>),
        endings: &mut Vec<Ending>,
    ) -> Result<()> {
        let (from, to) = (micros(stored, FROM)?, micros(stored, TO)?);
        let Some(open) = intervals.clone().find(|row| to.is_null(*row)) else {
            return Ok(());
        };
        let began = from.value(open);
        let place = self.instants.partition_point(|at| *at <= began);
        let Some(instant) = self.instants.get(place).copied() else {
            return Ok(());
        };
        let (at, ends) = (sequences(events)?, deletes(events));
        let event_at = |instant: i64| rows.clone().find(|row| at.value(*row) == instant);
        let seen_before = place
            .checked_sub(1)
            .and_then(|before| self.instants.get(before))
            .and_then(|before| event_at(*before));
        if seen_before.is_some_and(|row| !is_delete(ends, row)) {
            // Its end, if it is one, follows from that event.
            return Ok(());
        }
        let event = event_at(instant);
        self.note(place, event.is_none_or(|row| is_delete(ends, row)));
        if event.is_none() {
            endings.push(Ending {
                row: (1, open),
                at: instant,
            });
        }
        Ok(())
    }

    /// Refuses snapshots that close more of the keys than the table allows.
    pub(super) fn guard(&self, shape: &Shape, operation: &str, most: f64) -> Result<()> {
        let told = self
            .instants
            .iter()
            .zip(self.before.iter().zip(&self.closed));
        for (at, (before, closed)) in told {
            let fraction = *closed as f64 / (*before).max(1) as f64;
            if fraction <= most {
                continue;
            }
            let which = match self.instants.len() {
                1 => String::new(),
                _ => format!(" at {}", instant(*at)),
            };
            return Err(Error::rejected(format!(
                "{operation} of table {} would close {closed} of {before} keys{which} ({:.0} %), more than {MAX_DELETE_FRACTION} = {most}",
                shape.table,
                fraction * 100.0
            ))
            .with_hint("a snapshot holds all rows there are; ALTER TABLE .. SET TBLPROPERTIES allows more to close"));
        }
        Ok(())
    }
}

fn micros<'a>(stored: &'a RecordBatch, name: &str) -> Result<&'a Int64Array> {
    stored
        .column_by_name(name)
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| Error::internal(format!("intervals of a journal have no {name}")))
}

/// Events that end keys: a row with the key, its instant, and nothing else.
fn rows(
    shape: &Shape,
    events: &RecordBatch,
    stored: &RecordBatch,
    endings: &[Ending],
) -> Result<RecordBatch> {
    let places: Vec<(usize, usize)> = endings.iter().map(|ending| ending.row).collect();
    let at = Int64Array::from_iter_values(endings.iter().map(|ending| ending.at));
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(events.num_columns());
    for (place, field) in shape.flow.fields().iter().enumerate() {
        columns.push(if shape.keys.contains(&place) {
            let both = [events.column(place).as_ref(), stored.column(place).as_ref()];
            interleave(&both, &places).map_err(unexpected)?
        } else if shape.sequence == Some(place) {
            let stamps: TimestampMicrosecondArray = at.reinterpret_cast();
            let stamps: ArrayRef = Arc::new(stamps);
            cast(&stamps, field.data_type()).map_err(unexpected)?
        } else {
            new_null_array(field.data_type(), endings.len())
        });
    }
    columns.push(Arc::new(at));
    columns.push(Arc::new(BooleanArray::from(vec![true; endings.len()])));
    columns.push(Arc::new(BinaryArray::new_null(endings.len())));
    RecordBatch::try_new(events.schema(), columns).map_err(unexpected)
}

/// Both as one batch, in the order of keys and instants.
fn in_order(order: &KeyOrder, events: &RecordBatch, endings: &RecordBatch) -> Result<RecordBatch> {
    let all = concat_batches(&events.schema(), [events, endings]).map_err(unexpected)?;
    let (keys, at) = (order.rows(&all)?, sequences(&all)?);
    let mut places: Vec<usize> = (0..all.num_rows()).collect();
    // Stable: events that are there keep their order, and no ending stands at the instant of one.
    places.sort_by(|one, other| {
        let keys = keys.row(*one).cmp(&keys.row(*other));
        keys.then_with(|| at.value(*one).cmp(&at.value(*other)))
    });
    let places = UInt32Array::from_iter_values(places.into_iter().map(|place| place as u32));
    take_record_batch(&all, &places).map_err(unexpected)
}

#[cfg(test)]
mod tests;

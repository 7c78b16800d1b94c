//! What is left of kept events when the horizon has passed some of them.

use std::ops::Range;

use arrow::array::RecordBatch;

use super::super::key::KeyOrder;
use super::super::shape::Shape;
use super::pool::{Notes, Pool};
use super::source::Events;
use super::timeline::{Change, Event, Known, Origin, Rules, State};
use crate::error::Result;

/// Kept events of whole keys, sorted by key and sequence: those from `until` on, and before them the state that all
/// others of the key led to, as an anchor. Its SEQUENCE is that of the last event in it, and DELETE says that the key
/// ended there.
///
/// An anchor without events is dropped when it is met the second time: a write that was folded at the same time as it
/// came to be may have counted on it.
pub(crate) fn condensed(
    shape: &Shape,
    kept: &RecordBatch,
    until: i64,
) -> Result<Option<RecordBatch>> {
    let pool = Pool::new(shape, &[kept])?;
    let events = Events::new(kept, 0)?;
    let rules = Rules::new(&pool)?;
    let mut notes = Notes::new(pool.columns.len());
    let rows = KeyOrder::new(shape)?.rows(kept)?;
    let mut first = 0;
    while first < rows.num_rows() {
        let mut end = first + 1;
        while end < rows.num_rows() && rows.row(end) == rows.row(first) {
            end += 1;
        }
        key(&rules, &events, first..end, until, &mut notes);
        first = end;
    }
    Ok(notes.finish(&pool)?.pop())
}

/// Where the rows of the last key begin.
pub(crate) fn last_key(shape: &Shape, sorted: &RecordBatch) -> Result<usize> {
    let rows = KeyOrder::new(shape)?.rows(sorted)?;
    let mut first = rows.num_rows();
    while first > 0 && rows.row(first - 1) == rows.row(rows.num_rows() - 1) {
        first -= 1;
    }
    Ok(first)
}

fn key(rules: &Rules<'_>, events: &Events<'_>, rows: Range<usize>, until: i64, notes: &mut Notes) {
    let known = Known::of_kept(events, rows);
    let past = |origin: Origin, at: i64| origin == Origin::Anchor || at < until;
    let (before, later): (Vec<&Event<'_>>, Vec<&Event<'_>>) = known
        .events
        .iter()
        .partition(|event| past(event.origin, event.at));
    let alone = later.is_empty() && before.iter().all(|event| event.origin == Origin::Anchor);
    if let Some(last) = before.last()
        && (!alone || last.at >= until)
    {
        let mut state: Option<State> = None;
        for event in &before {
            match rules.change(event, state.as_ref()) {
                Change::Nothing => {}
                Change::End => state = None,
                Change::Begin(cells) => {
                    let from = event.at;
                    state = Some(State { from, cells });
                }
                Change::Patch(cells) => {
                    if let Some(state) = &mut state {
                        state.cells = cells;
                    }
                }
            }
        }
        let pool = rules.pool;
        let (state, row) = (state.as_ref(), last.row);
        notes.anchor(last.at, state.is_none(), |column| {
            pool.anchored(column, state, row)
        });
    }
    for event in later {
        // The only rows of the pool are these.
        let keep = events.keep(event.row as usize);
        notes.event(event.at, event.delete, keep, event.row);
    }
}

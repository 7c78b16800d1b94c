//! The general way of folding: the events of one key, one by one.

use std::ops::Range;

use arrow::array::RecordBatch;

use super::super::definition::LatePolicy;
use super::super::key;
use super::group::Group;
use super::pool::{Intervals, Notes};
use super::source::{Events, Stored};
use super::timeline::{self, Change, Event, Known, Rules, State};
use super::{Counts, Terms};
use crate::error::Result;

/// What becomes of the rows of a chunk, as numbers of rows.
pub(super) struct Outcome {
    pub intervals: Intervals,
    pub notes: Notes,
    pub remove: Vec<(u32, i64)>,
    /// Rows of the new events.
    pub late: Vec<u32>,
    pub clash: Vec<u32>,
    pub counts: Counts,
}

/// Replays keys.
pub(super) struct Replay<'a> {
    pub terms: &'a Terms,
    pub rules: Rules<'a>,
    pub intervals: &'a RecordBatch,
    pub stored: &'a Stored<'a>,
    pub kept: &'a Events<'a>,
    pub new: &'a Events<'a>,
}

/// The state of a key after all events up to an instant. `row` is that of the last of them.
struct Mark {
    at: i64,
    state: Option<State>,
    row: u32,
}

/// One key while it is replayed.
struct Run<'a> {
    known: Known<'a>,
    /// The last instant of which anything is known.
    last: Option<i64>,
    state: Option<State>,
    /// Intervals that are at their end.
    ended: Vec<(State, Option<i64>)>,
    /// New events to be kept.
    keep: Vec<usize>,
    mark: Option<Mark>,
    /// Whether a late event was left aside: what comes before the known ones after it might say nothing only because
    /// that one is missing.
    aside: bool,
}

/// What an event of this write is to be.
enum Verdict {
    /// It happens.
    Happens,
    /// It happens, later than it should have come.
    Late,
    /// It is not for us to let it happen.
    Aside,
    /// It says what is so.
    Idle,
}

impl Replay<'_> {
    pub(super) fn key(&self, group: &Group, out: &mut Outcome) -> Result<()> {
        let known = Known::of_kept(self.kept, group.kept.clone());
        let known = known.with_stored(self.stored, group.stored.clone());
        let known = known.map_err(|error| {
            let (shape, row) = (&self.terms.shape, group.stored.start);
            let key = key::shown(shape, self.intervals, row).unwrap_or_default();
            let table = &shape.table;
            error
                .ending(&format!("table {table}, key {key}"))
                .with_hint(format!("CHECK JOURNAL {table} names all of them"))
        })?;
        let events = known.events.clone();
        let mut run = Run {
            last: events.last().map(|event| event.at),
            known,
            state: None,
            ended: Vec::new(),
            keep: Vec::new(),
            mark: None,
            aside: false,
        };
        let mut known = events.into_iter().peekable();
        let mut new = group.new.clone().peekable();
        let mut before = None;
        loop {
            let next = new.peek().map(|row| self.new.at(*row));
            let at = match (known.peek().map(|event| event.at), next) {
                (Some(known), Some(new)) => known.min(new),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => break,
            };
            let mut chosen = known.next_if(|event| event.at == at);
            let mut from = None;
            while let Some(row) = new.next_if(|row| self.new.at(*row) == at) {
                if let Some(late) = self.choose(&mut run, &mut chosen, row, out) {
                    from = Some((row, late));
                }
            }
            if let Some(event) = chosen {
                self.apply(&mut run, &event, from, before, out);
                before = Some((at, event.row));
            }
        }
        if let Some(state) = run.state.take() {
            run.ended.push((state, None));
        }
        self.keep(&run, out);
        self.place(&run.ended, group.stored.clone(), out);
        Ok(())
    }

    /// Sees whether a new event is what happens at its instant; if so, whether it is late.
    fn choose<'e>(
        &'e self,
        run: &mut Run<'_>,
        chosen: &mut Option<Event<'e>>,
        row: usize,
        out: &mut Outcome,
    ) -> Option<bool> {
        let event = timeline::new(self.new, row);
        if self.terms.dml && run.last.is_some_and(|last| event.at <= last) {
            // A statement acts on what is there now, so it cannot come before it.
            out.late.push(row as u32);
            out.counts.late += 1;
            return None;
        }
        let replaces = match chosen {
            // A delete beats whatever else is said of its instant.
            Some(known) if known.delete => {
                out.counts.unchanged += 1;
                return None;
            }
            Some(known) if !event.delete => {
                match self.rules.says(known, &event, run.state.as_ref()) {
                    true => out.counts.unchanged += 1,
                    false => out.clash.push(row as u32),
                }
                return None;
            }
            Some(_) => true,
            None => false,
        };
        match self.verdict(run, &event, replaces) {
            verdict @ (Verdict::Happens | Verdict::Late) => {
                *chosen = Some(event);
                Some(matches!(verdict, Verdict::Late))
            }
            Verdict::Aside => {
                run.aside = true;
                out.late.push(row as u32);
                out.counts.late += 1;
                None
            }
            Verdict::Idle => {
                out.counts.unchanged += 1;
                None
            }
        }
    }

    fn verdict(&self, run: &Run<'_>, event: &Event<'_>, replaces: bool) -> Verdict {
        let late = match self.terms.horizon {
            None => run.last.is_some_and(|last| event.at < last),
            // Sightings of a key before the horizon may have been forgotten, so what its last one was is not known.
            Some(horizon) => event.at < horizon && run.last.is_some(),
        };
        if !late || self.terms.dml {
            return Verdict::Happens;
        }
        if self.terms.shape.definition.late.policy == LatePolicy::Apply {
            return Verdict::Late;
        }
        // What is so already needs no policy: the same rows may come again.
        let idle = !replaces && !run.aside && {
            let change = self.rules.change(event, run.state.as_ref());
            matches!(change, Change::Nothing)
        };
        match idle {
            true => Verdict::Idle,
            false => Verdict::Aside,
        }
    }

    /// Lets an event happen. `from` is there for a new one: its row and whether it is late; `before` is the event
    /// before it: its instant and its row in the pool.
    fn apply(
        &self,
        run: &mut Run<'_>,
        event: &Event<'_>,
        from: Option<(usize, bool)>,
        before: Option<(i64, u32)>,
        out: &mut Outcome,
    ) {
        let within = self
            .terms
            .horizon
            .is_some_and(|horizon| event.at >= horizon);
        if let (Some((row, _)), true) = (from, within) {
            if run.keep.is_empty() && !run.known.kept {
                // From now on the key is replayed from here. An anchor without events may be gone by then, so it is
                // told once more.
                let told = run.state.is_some() || run.known.anchor.is_some();
                run.mark = before.filter(|_| told).map(|(at, row)| Mark {
                    at,
                    state: run.state.clone(),
                    row,
                });
            }
            run.keep.push(row);
        }
        let change = self.rules.change(event, run.state.as_ref());
        let idle = matches!(change, Change::Nothing);
        match change {
            Change::Nothing => {}
            Change::End => {
                let ended = run.state.take().map(|state| (state, Some(event.at)));
                run.ended.extend(ended);
            }
            Change::Begin(cells) => {
                let from = event.at;
                let ended = run.state.replace(State { from, cells });
                run.ended.extend(ended.map(|state| (state, Some(from))));
            }
            Change::Patch(cells) => {
                if let Some(state) = &mut run.state {
                    state.cells = cells;
                }
            }
        }
        let Some((_, late)) = from else {
            return;
        };
        match idle {
            true => out.counts.unchanged += 1,
            false => out.counts.late += u64::from(late),
        }
        if self.terms.horizon.is_some() && !within && !idle {
            // It is not kept, so what follows from it must be.
            run.mark = Some(Mark {
                at: event.at,
                state: run.state.clone(),
                row: event.row,
            });
        }
    }

    /// Notes what is to be kept of a key.
    fn keep(&self, run: &Run<'_>, out: &mut Outcome) {
        let known = &run.known;
        let replayed = known.kept || known.anchor.is_some() || !run.keep.is_empty();
        if let Some(mark) = &run.mark
            && replayed
            && known.anchor.is_none_or(|anchor| mark.at >= anchor)
        {
            let pool = self.rules.pool;
            let (state, row) = (mark.state.as_ref(), mark.row);
            out.notes.anchor(mark.at, state.is_none(), |column| {
                pool.anchored(column, state, row)
            });
        }
        for row in &run.keep {
            let event = timeline::new(self.new, *row);
            let keep = self.new.keep(*row);
            out.notes.event(event.at, event.delete, keep, event.row);
        }
    }

    /// Intervals that stand as they are stay where they are; the others come, or go.
    fn place(&self, now: &[(State, Option<i64>)], stored: Range<usize>, out: &mut Outcome) {
        let counts = &mut out.counts;
        let mut old = stored.peekable();
        for (state, to) in now {
            while let Some(gone) = old.next_if(|row| self.stored.from(*row) < state.from) {
                gone_of(self.stored, gone, &mut out.remove, counts);
            }
            let then = old.next_if(|row| self.stored.from(*row) == state.from);
            if let Some(row) = then {
                let same = self.rules.stands(self.stored.row(row), &state.cells);
                let ended = self.stored.to(row);
                if same && ended == *to {
                    continue;
                }
                out.remove.push(self.stored.place(row));
                counts.closed += u64::from(ended.is_none() && to.is_some());
                counts.updated += u64::from(!same || (ended.is_some() && ended != *to));
            } else {
                counts.opened += 1;
                counts.closed += u64::from(to.is_some());
            }
            out.intervals.push(state.from, *to, |column| {
                let cell = state.cells.get(column).copied();
                cell.unwrap_or(self.rules.pool.null)
            });
        }
        for gone in old {
            gone_of(self.stored, gone, &mut out.remove, counts);
        }
    }
}

/// An interval that nothing is left of: a delete came at its very begin, or the one before it took it in.
fn gone_of(stored: &Stored<'_>, row: usize, remove: &mut Vec<(u32, i64)>, counts: &mut Counts) {
    remove.push(stored.place(row));
    match stored.to(row) {
        None => counts.closed += 1,
        Some(_) => counts.updated += 1,
    }
}

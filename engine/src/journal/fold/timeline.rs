//! All that is known of one key, in the order of its instants, and the state that follows from it.

use std::ops::Range;

use chrono::DateTime;

use super::super::event::keeps;
use super::pool::{Comparators, Pool};
use super::source::{Events, Stored};
use crate::error::{Error, ErrorKind, Result};

/// Where an event is from. Of several at one instant the earlier of these speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The state of the key at an instant, whatever was before.
    Anchor,
    /// An event of an earlier write, as it came.
    Kept,
    /// Begin or end of an interval.
    Stored,
    /// An event of this write.
    New,
}

/// Something that happened to a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event<'a> {
    pub at: i64,
    pub delete: bool,
    /// Its values, in the pool.
    pub row: u32,
    pub keep: Keep<'a>,
    pub origin: Origin,
}

/// Which columns keep the value they have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep<'a> {
    /// None: NULL means NULL.
    Whole,
    /// Those of which the table says that NULL means nothing, where it is NULL.
    Nulls,
    /// Those whose bit is set.
    Columns(&'a [u8]),
}

impl<'a> Keep<'a> {
    fn of(bits: Option<&'a [u8]>) -> Self {
        match bits {
            None => Self::Nulls,
            Some([]) => Self::Whole,
            Some(bits) => Self::Columns(bits),
        }
    }
}

/// An interval that is not at its end yet.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub from: i64,
    /// For each column the row of the pool that has its value.
    pub cells: Vec<u32>,
}

/// What an event does to the state of its key.
#[derive(Debug)]
pub(super) enum Change {
    /// Nothing that was not so.
    Nothing,
    /// The interval ends.
    End,
    /// One begins, and the one before it, if there is one, ends.
    Begin(Vec<u32>),
    /// Columns without history have other values.
    Patch(Vec<u32>),
}

/// The rules by which events follow each other.
pub(super) struct Rules<'a> {
    pub pool: &'a Pool<'a>,
    pub same: Comparators,
    /// Columns that are neither keys nor the sequence, and whether they have a history.
    attributes: Vec<(usize, bool)>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(pool: &'a Pool<'a>) -> Result<Self> {
        let tracked = |column: usize| pool.shape.tracked.get(column).copied() == Some(true);
        let attributes = pool.attributes().into_iter();
        Ok(Self {
            pool,
            same: pool.comparators()?,
            attributes: attributes.map(|column| (column, tracked(column))).collect(),
        })
    }

    fn keeps(&self, event: &Event<'_>, column: usize) -> bool {
        match event.keep {
            Keep::Whole => false,
            Keep::Nulls => {
                let ignored = self.pool.shape.keeps_null.get(column).copied() == Some(true);
                ignored && self.pool.is_null(column, event.row)
            }
            Keep::Columns(bits) => keeps(Some(bits), column),
        }
    }

    /// The row that an upsert makes of what is there. What it keeps of nothing is NULL.
    fn merged(&self, event: &Event<'_>, state: Option<&State>) -> Vec<u32> {
        let mut cells = vec![event.row; self.pool.columns.len()];
        for (column, _) in &self.attributes {
            if self.keeps(event, *column)
                && let Some(cell) = cells.get_mut(*column)
            {
                let before = state.and_then(|state| state.cells.get(*column));
                *cell = before.copied().unwrap_or(self.pool.null);
            }
        }
        cells
    }

    fn differ(&self, column: usize, a: &[u32], b: &[u32]) -> bool {
        match (a.get(column), b.get(column)) {
            (Some(a), Some(b)) => self.same.differ(column, *a, *b),
            _ => true,
        }
    }

    pub(super) fn change(&self, event: &Event<'_>, state: Option<&State>) -> Change {
        let Some(before) = state else {
            return match event.delete {
                true => Change::Nothing,
                false => Change::Begin(self.merged(event, None)),
            };
        };
        if event.delete {
            return Change::End;
        }
        let cells = self.merged(event, state);
        let mut patched = None;
        for (column, tracked) in &self.attributes {
            if !self.differ(*column, &before.cells, &cells) {
                continue;
            }
            if *tracked {
                return Change::Begin(cells);
            }
            // The instant and the values with a history stay those of the event that opened it.
            let patched = patched.get_or_insert_with(|| before.cells.clone());
            if let (Some(cell), Some(new)) = (patched.get_mut(*column), cells.get(*column)) {
                *cell = *new;
            }
        }
        patched.map_or(Change::Nothing, Change::Patch)
    }

    /// Whether an upsert says what is known of its instant. `state` is what was before both.
    ///
    /// Of a stored interval or an anchor only columns with a history tell what was said when it began; the others
    /// have the values of later events.
    pub(super) fn says(&self, known: &Event<'_>, new: &Event<'_>, state: Option<&State>) -> bool {
        match known.origin {
            Origin::Kept | Origin::New => self.attributes.iter().all(|(column, _)| {
                match (self.keeps(known, *column), self.keeps(new, *column)) {
                    (false, false) => !self.same.differ(*column, known.row, new.row),
                    (known, new) => known == new,
                }
            }),
            Origin::Stored | Origin::Anchor => {
                let (then, now) = (self.merged(known, None), self.merged(new, state));
                let mut attributes = self.attributes.iter();
                attributes.all(|(column, tracked)| !tracked || !self.differ(*column, &then, &now))
            }
        }
    }

    /// Whether a stored interval is just this one, but for its end.
    pub(super) fn stands(&self, stored: u32, cells: &[u32]) -> bool {
        let columns = self.attributes.iter().map(|(column, _)| *column);
        let mut columns = columns.chain(self.pool.shape.sequence);
        columns.all(|column| {
            cells
                .get(column)
                .is_some_and(|cell| !self.same.differ(column, stored, *cell))
        })
    }
}

/// An event of this write.
pub(super) fn new<'a>(events: &Events<'a>, row: usize) -> Event<'a> {
    read(events, row, Origin::New)
}

fn read<'a>(events: &Events<'a>, row: usize, origin: Origin) -> Event<'a> {
    Event {
        at: events.at(row),
        delete: events.delete(row),
        row: events.row(row),
        keep: Keep::of(events.keep(row)),
        origin,
    }
}

/// What is known of a key.
pub(super) struct Known<'a> {
    /// One event at each instant, in their order.
    pub events: Vec<Event<'a>>,
    /// The instant of its anchor.
    pub anchor: Option<i64>,
    /// Whether events of it are kept.
    pub kept: bool,
}

impl<'a> Known<'a> {
    /// Events that were kept, from the anchor on, and none before it: it holds them.
    pub(super) fn of_kept(events: &Events<'a>, rows: Range<usize>) -> Self {
        let anchors = rows.clone().filter(|row| events.anchor(*row));
        let anchor = anchors.max_by_key(|row| (events.at(*row), events.delete(*row)));
        let mut known: Vec<Event<'a>> = Vec::with_capacity(rows.len());
        known.extend(anchor.map(|row| Event {
            keep: Keep::Whole,
            ..read(events, row, Origin::Anchor)
        }));
        let anchor = anchor.map(|row| events.at(row));
        let later = rows.filter(|row| !events.anchor(*row));
        let later = later.filter(|row| anchor.is_none_or(|anchor| events.at(*row) > anchor));
        let before = known.len();
        known.extend(later.map(|row| read(events, row, Origin::Kept)));
        let kept = known.len() > before;
        let mut known = Self {
            events: known,
            anchor,
            kept,
        };
        known.settle();
        known
    }

    /// And the stored intervals of the key: each begins as an upsert and ends as a delete, unless the next one begins
    /// there. Where kept events tell more of an instant, they speak.
    ///
    /// # Errors
    /// When two intervals overlap, or one ends before it begins: nothing could follow from these.
    pub(super) fn with_stored(mut self, stored: &Stored<'_>, rows: Range<usize>) -> Result<Self> {
        let begin = |row: usize| rows.contains(&row).then(|| stored.from(row));
        for row in rows.clone() {
            let (from, to, next) = (stored.from(row), stored.to(row), begin(row + 1));
            let broken = to.is_some_and(|to| to <= from)
                || next.is_some_and(|next| next <= from || to.is_none_or(|to| to > next));
            if broken {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "its intervals from {} on overlap or are empty",
                        DateTime::from_timestamp_micros(from).unwrap_or_default()
                    ),
                ));
            }
            let event = |at: i64, delete: bool| Event {
                at,
                delete,
                row: stored.row(row),
                keep: Keep::Whole,
                origin: Origin::Stored,
            };
            self.events.push(event(from, false));
            if let Some(to) = to
                && next != Some(to)
            {
                self.events.push(event(to, true));
            }
        }
        self.settle();
        Ok(self)
    }

    /// In order, and of several at one instant the anchor, a delete, or what is kept.
    fn settle(&mut self) {
        self.events.sort_by_key(|event| {
            let anchor = event.origin == Origin::Anchor;
            (event.at, !anchor, !event.delete, event.origin)
        });
        self.events.dedup_by_key(|event| event.at);
    }
}

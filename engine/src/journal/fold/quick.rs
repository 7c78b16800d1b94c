//! Keys that need no replay: their rows are compared all at once.

use arrow::array::UInt32Array;
use arrow::buffer::BooleanBuffer;

use super::Terms;
use super::group::{Group, Source, Way};
use super::pool::Pool;
use super::replay::Outcome;
use super::source::Events;
use crate::error::Result;

/// Upserts and the rows before them, compared all at once. They are taken in the order of the groups.
pub(super) struct Pairs {
    tracked: BooleanBuffer,
    other: BooleanBuffer,
    next: usize,
}

/// Whether two rows differ: in a column with a history, in one without.
#[derive(Clone, Copy)]
struct Differ {
    tracked: bool,
    other: bool,
}

impl Pairs {
    pub(super) fn new(pool: &Pool<'_>, source: &Source<'_>, groups: &[Group]) -> Result<Self> {
        let new = &source.new;
        let (mut before, mut after, mut nulls_mean) = (Vec::new(), Vec::new(), Vec::new());
        for group in groups {
            match group.way {
                Way::Next if !new.delete(group.new.start) => {
                    before.push(source.stored.row(group.newest()));
                    after.push(new.row(group.new.start));
                    nulls_mean.push(new.keep(group.new.start).is_some());
                }
                Way::Fresh => {
                    for row in follow(new, group) {
                        before.push(new.row(row - 1));
                        after.push(new.row(row));
                        nulls_mean.push(true);
                    }
                }
                Way::Next | Way::Replay => {}
            }
        }
        let rows = after.len();
        let (before, after) = (UInt32Array::from(before), UInt32Array::from(after));
        let mut tracked = BooleanBuffer::new_unset(rows);
        let mut other = BooleanBuffer::new_unset(rows);
        for column in pool.attributes() {
            let mut differ = pool.differ(column, &before, &after)?;
            if pool.shape.keeps_null.get(column) == Some(&true) {
                let after = after.values();
                differ = BooleanBuffer::collect_bool(rows, |row| {
                    let means = nulls_mean.get(row) == Some(&true);
                    let null = || after.get(row).is_some_and(|row| pool.is_null(column, *row));
                    differ.value(row) && (means || !null())
                });
            }
            match pool.shape.tracked.get(column) == Some(&true) {
                true => tracked = &tracked | &differ,
                false => other = &other | &differ,
            }
        }
        Ok(Self {
            tracked,
            other,
            next: 0,
        })
    }

    fn next(&mut self) -> Differ {
        let at = self.next;
        self.next += 1;
        Differ {
            tracked: self.tracked.value(at),
            other: self.other.value(at),
        }
    }
}

/// Upserts of a group that come right behind another.
fn follow(new: &Events<'_>, group: &Group) -> impl Iterator<Item = usize> {
    let rows = group.new.clone().skip(1);
    rows.filter(move |row| !new.delete(*row - 1) && !new.delete(*row))
}

/// Keys that need no replay.
pub(super) struct Quick<'a> {
    pub terms: &'a Terms,
    pub pool: &'a Pool<'a>,
    pub source: &'a Source<'a>,
}

impl Quick<'_> {
    /// One event of a key, later than the begin of its open interval.
    pub(super) fn next(&self, group: &Group, pairs: &mut Pairs, out: &mut Outcome) {
        let (stored, new) = (&self.source.stored, &self.source.new);
        let (row, one) = (group.new.start, group.newest());
        let (at, from) = (new.at(row), stored.from(one));
        let (was, is) = (stored.row(one), new.row(row));
        if self.kept(at) {
            out.notes.anchor(from, false, |_| was);
            out.notes.event(at, new.delete(row), new.keep(row), is);
        }
        let differ = match new.delete(row) {
            true => None,
            false => Some(pairs.next()),
        };
        let shape = self.pool.shape;
        let nulls_mean = new.keep(row).is_some();
        let cell = |column: usize| {
            let ignored = !nulls_mean && shape.keeps_null.get(column) == Some(&true);
            match ignored && self.pool.is_null(column, is) {
                true => was,
                false => is,
            }
        };
        match differ {
            Some(differ) if !differ.tracked && !differ.other => {
                out.counts.unchanged += 1;
                return;
            }
            Some(differ) if !differ.tracked => {
                let patched = |column: usize| {
                    let tracked = shape.tracked.get(column) == Some(&true);
                    match tracked || !self.pool.attribute(column) {
                        true => was,
                        false => cell(column),
                    }
                };
                out.intervals.push(from, None, patched);
                out.counts.updated += 1;
            }
            Some(_) => {
                out.intervals.push(from, Some(at), |_| was);
                out.intervals.push(at, None, cell);
                out.counts.closed += 1;
                out.counts.opened += 1;
            }
            None => {
                out.intervals.push(from, Some(at), |_| was);
                out.counts.closed += 1;
            }
        }
        out.remove.push(stored.place(one));
    }

    /// All events of a key of which nothing is known: an interval is a run of rows with one history.
    pub(super) fn fresh(&self, group: &Group, pairs: &mut Pairs, out: &mut Outcome) {
        let new = &self.source.new;
        // The row that opened it, and the last that changed a column without history.
        let mut run: Option<(usize, usize)> = None;
        for row in group.new.clone() {
            let at = new.at(row);
            if self.kept(at) {
                out.notes
                    .event(at, new.delete(row), new.keep(row), new.row(row));
            }
            let differ = match run {
                Some(_) if !new.delete(row) => pairs.next(),
                _ => Differ {
                    tracked: true,
                    other: true,
                },
            };
            match (&mut run, new.delete(row)) {
                (None, true) => out.counts.unchanged += 1,
                (Some(ended), true) => {
                    self.push(*ended, Some(at), out);
                    run = None;
                }
                (Some(ended), false) if differ.tracked => {
                    self.push(*ended, Some(at), out);
                    run = Some((row, row));
                }
                (Some((_, last)), false) if differ.other => *last = row,
                (Some(_), false) => out.counts.unchanged += 1,
                (None, false) => run = Some((row, row)),
            }
        }
        if let Some(run) = run {
            self.push(run, None, out);
        }
    }

    fn push(&self, (first, last): (usize, usize), to: Option<i64>, out: &mut Outcome) {
        let new = &self.source.new;
        let shape = self.pool.shape;
        out.intervals.push(new.at(first), to, |column| {
            let tracked = shape.tracked.get(column) == Some(&true);
            new.row(match tracked || !self.pool.attribute(column) {
                true => first,
                false => last,
            })
        });
        out.counts.opened += 1;
        out.counts.closed += u64::from(to.is_some());
    }

    fn kept(&self, at: i64) -> bool {
        self.terms.horizon.is_some_and(|horizon| at >= horizon)
    }
}

//! Which rows of a chunk belong to one key, and how they are folded.

use std::ops::Range;

use arrow::row::{Row, Rows};

use super::super::key::KeyOrder;
use super::pool::Pool;
use super::source::{Events, Stored};
use super::{Chunk, Terms};
use crate::error::{Error, Result};

/// Rows of one key, and how they are folded.
pub(super) struct Group {
    pub stored: Range<usize>,
    pub kept: Range<usize>,
    pub new: Range<usize>,
    pub way: Way,
}

impl Group {
    /// The newest of the stored intervals, where there is one.
    pub(super) fn newest(&self) -> usize {
        self.stored.end.saturating_sub(1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// One event of a key, later than the begin of its open interval.
    Next,
    /// Events of a key of which nothing is known.
    Fresh,
    /// Anything else.
    Replay,
}

/// The riders of a chunk.
pub(super) struct Source<'a> {
    pub stored: Stored<'a>,
    pub kept: Events<'a>,
    pub new: Events<'a>,
}

/// Which rows belong to one key, for each key of which something came.
pub(super) fn groups(
    terms: &Terms,
    chunk: &Chunk,
    pool: &Pool<'_>,
    source: &Source<'_>,
) -> Result<Vec<Group>> {
    let order = KeyOrder::new(&terms.shape)?;
    let (stored, kept) = (order.rows(&chunk.stored)?, order.rows(&chunk.kept)?);
    let new = order.rows(&chunk.new)?;
    let partial = Partial::new(pool, source);
    let (mut groups, mut first) = (Vec::new(), 0);
    let (mut of_stored, mut of_kept) = (0..0, 0..0);
    while first < new.num_rows() {
        let key = new.row(first);
        let mut end = first + 1;
        while end < new.num_rows() && new.row(end) == key {
            end += 1;
        }
        if end < new.num_rows() && new.row(end) < key {
            return Err(Error::internal("events of a journal are not in order"));
        }
        of_stored = span(&stored, of_stored.end, key);
        of_kept = span(&kept, of_kept.end, key);
        let mut group = Group {
            stored: of_stored.clone(),
            kept: of_kept.clone(),
            new: first..end,
            way: Way::Replay,
        };
        group.way = way(terms, source, &partial, &group);
        groups.push(group);
        first = end;
    }
    Ok(groups)
}

/// The rows of a key, which are not before `from`.
fn span(rows: &Rows, from: usize, key: Row<'_>) -> Range<usize> {
    let mut start = from;
    while start < rows.num_rows() && rows.row(start) < key {
        start += 1;
    }
    let mut end = start;
    while end < rows.num_rows() && rows.row(end) == key {
        end += 1;
    }
    start..end
}

fn way(terms: &Terms, source: &Source<'_>, partial: &Partial<'_>, group: &Group) -> Way {
    let new = &source.new;
    if !group.kept.is_empty() {
        return Way::Replay;
    }
    if group.stored.is_empty() {
        let rows = || group.new.clone();
        let ascend = rows().skip(1).all(|row| new.at(row - 1) < new.at(row));
        let whole = match group.new.len() {
            // Over nothing what is kept is NULL, as it came.
            1 => !partial.bits(group.new.start),
            _ => rows().all(|row| new.delete(row) || !partial.any(row)),
        };
        // A key that is kept from some instant on needs to know what was before it.
        let aside = match terms.horizon {
            None => true,
            Some(horizon) => {
                let kept = rows().filter(|row| new.at(*row) >= horizon).count();
                kept == 0 || kept == group.new.len()
            }
        };
        return match ascend && whole && aside {
            true => Way::Fresh,
            false => Way::Replay,
        };
    }
    // What was before the open interval has ended before it, so it stays as it is.
    let (one, row) = (group.newest(), group.new.start);
    let single = group.new.len() == 1;
    let follows = source.stored.to(one).is_none() && source.stored.from(one) < new.at(row);
    let sound = group.stored.clone().skip(1).all(|row| {
        let ended = source.stored.to(row - 1);
        ended.is_some_and(|ended| ended <= source.stored.from(row))
    });
    let in_time = terms.horizon.is_none_or(|horizon| new.at(row) >= horizon);
    match single && follows && sound && in_time && !partial.bits(row) {
        true => Way::Next,
        false => Way::Replay,
    }
}

/// Events that say nothing of some columns.
struct Partial<'a> {
    pool: &'a Pool<'a>,
    new: &'a Events<'a>,
    /// Columns whose NULLs may say nothing.
    ignored: Vec<usize>,
}

impl<'a> Partial<'a> {
    fn new(pool: &'a Pool<'a>, source: &'a Source<'a>) -> Self {
        let ignored = pool.attributes().into_iter();
        let ignored = ignored.filter(|column| pool.shape.keeps_null.get(*column) == Some(&true));
        Self {
            pool,
            new: &source.new,
            ignored: ignored.collect(),
        }
    }

    /// Whether the event names columns that it keeps.
    fn bits(&self, row: usize) -> bool {
        let bits = self.new.keep(row);
        bits.is_some_and(|bits| bits.iter().any(|byte| *byte != 0))
    }

    fn any(&self, row: usize) -> bool {
        match self.new.keep(row) {
            Some(_) => self.bits(row),
            None => {
                let mut ignored = self.ignored.iter();
                ignored.any(|column| self.pool.is_null(*column, self.new.row(row)))
            }
        }
    }
}

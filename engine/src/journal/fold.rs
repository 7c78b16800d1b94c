//! Events and the intervals that follow from them, key by key. Nothing is read or written here.
//!
//! - `source`: what a chunk says, by row
//! - `pool`: all its rows as one, and what is made of them
//! - `equals`: rows of one key and instant in a batch
//! - `group`: which rows belong to one key, and how they are folded
//! - `quick`: keys that are compared all at once
//! - `timeline`: what is known of a key, and how one event changes its state
//! - `replay`: a key whose events are taken one by one
//! - `condensed`: what is left of kept events behind the horizon
//!
//! Most keys need no replay: one change of a key that is open, or all events of a key that is new. These are compared
//! all at once; what is left is to write down which rows go and come.

mod condensed;
mod equals;
mod group;
mod pool;
mod quick;
mod replay;
mod source;
#[cfg(test)]
mod tests;
mod timeline;

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

pub(crate) use self::condensed::{condensed, last_key};
pub(crate) use self::equals::settle_equals;
use self::group::{Source, Way, groups};
use self::pool::{Intervals, Notes, Pool, unexpected};
use self::quick::{Pairs, Quick};
use self::replay::{Outcome, Replay};
use self::source::{Events, Stored};
use self::timeline::Rules;
use super::shape::Shape;
use crate::error::{Error, Result};

/// By what rules events become intervals.
pub(crate) struct Terms {
    pub shape: Arc<Shape>,
    /// Events from here on are kept, so that one that comes late finds its place among them. Without AFTER none is.
    pub horizon: Option<i64>,
    /// The events are those of a statement on what is there now: none may come before what is known.
    pub dml: bool,
}

/// Whole keys: what is stored of them, what was kept, what came. Each is sorted by key, then by FROM or SEQUENCE.
///
/// Of a key `stored` holds at least the intervals that are open or end at or after the first instant of the others.
/// Keys of which nothing came stay as they are.
pub(crate) struct Chunk {
    pub stored: RecordBatch,
    pub kept: RecordBatch,
    pub new: RecordBatch,
}

/// What becomes of a chunk.
#[derive(Default)]
pub(crate) struct Folded {
    /// Intervals to be written, in the columns of the table, by key and begin.
    pub rows: Vec<RecordBatch>,
    /// Places of stored intervals that are no more.
    pub remove: Vec<(u32, i64)>,
    /// Events and anchors to be kept, by key and sequence.
    pub keep: Vec<RecordBatch>,
    /// Events that came too late, where the policy does not let them happen.
    pub late: Vec<RecordBatch>,
    /// Events that contradict what is stored at their key and sequence.
    pub clash: Vec<RecordBatch>,
    pub counts: Counts,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Events that changed nothing.
    pub unchanged: u64,
    /// Intervals that were not there.
    pub opened: u64,
    /// Intervals that have an end now, or are gone.
    pub closed: u64,
    /// Intervals with the same begin and other values, or another end.
    pub updated: u64,
    /// Events that came too late, whether they happened or were left.
    pub late: u64,
}

/// Folds the events of whole keys.
pub(crate) fn fold(terms: &Terms, chunk: &Chunk) -> Result<Folded> {
    let shape = &terms.shape;
    let pool = Pool::new(shape, &[&chunk.stored, &chunk.kept, &chunk.new])?;
    let first = chunk.stored.num_rows();
    let source = Source {
        stored: Stored::new(&chunk.stored)?,
        kept: Events::new(&chunk.kept, first)?,
        new: Events::new(&chunk.new, first + chunk.kept.num_rows())?,
    };
    let groups = groups(terms, chunk, &pool, &source)?;
    let columns = pool.columns.len();
    let mut out = Outcome {
        intervals: Intervals::new(columns),
        notes: Notes::new(columns),
        remove: Vec::new(),
        late: Vec::new(),
        clash: Vec::new(),
        counts: Counts::default(),
    };
    let mut pairs = Pairs::new(&pool, &source, &groups)?;
    let replay = match groups.iter().any(|group| group.way == Way::Replay) {
        true => Some(Replay {
            terms,
            rules: Rules::new(&pool)?,
            intervals: &chunk.stored,
            stored: &source.stored,
            kept: &source.kept,
            new: &source.new,
        }),
        false => None,
    };
    let quick = Quick {
        terms,
        pool: &pool,
        source: &source,
    };
    for group in &groups {
        match (group.way, &replay) {
            (Way::Next, _) => quick.next(group, &mut pairs, &mut out),
            (Way::Fresh, _) => quick.fresh(group, &mut pairs, &mut out),
            (Way::Replay, Some(replay)) => replay.key(group, &mut out)?,
            (Way::Replay, None) => return Err(Error::internal("a key was not replayed")),
        }
    }
    let events = |rows: Vec<u32>| -> Result<Vec<RecordBatch>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let rows = take_record_batch(&chunk.new, &UInt32Array::from(rows));
        Ok(vec![rows.map_err(unexpected)?])
    };
    Ok(Folded {
        rows: out.intervals.finish(&pool)?,
        remove: out.remove,
        keep: out.notes.finish(&pool)?,
        late: events(out.late)?,
        clash: events(out.clash)?,
        counts: out.counts,
    })
}

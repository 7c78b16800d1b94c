//! Rows of one key and one sequence in a batch: what goes on, and what contradicts itself.

use std::ops::Range;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;

use super::super::columnar::distinct;
use super::super::event::{KEEP, SEQUENCE};
use super::super::shape::Shape;
use super::source::Events;
use crate::error::{Error, Result};

/// What J4 makes of a batch.
pub(crate) struct Equals {
    /// Rows that go on: of equal ones the first, and the delete of a delete and an upsert.
    pub on: BooleanArray,
    /// Rows of one key and sequence of which nobody knows which is true. None of them goes on.
    pub differing: Vec<Range<usize>>,
}

/// J4 within a batch: `events` are sorted by key and sequence.
///
/// Without a sequence column all rows of a key have the instant of the write, and nothing says whether a delete comes
/// before or after an upsert: then these differ as well.
pub(crate) fn settle_equals(shape: &Shape, events: &RecordBatch) -> Result<Equals> {
    let rows = events.num_rows();
    let mut on = vec![true; rows];
    let mut differing = Vec::new();
    let riders = Events::new(events, 0)?;
    let pairs = Pairs::new(shape, events)?;
    let mut first = 0;
    while first < rows {
        let mut end = first + 1;
        while end < rows && pairs.meet(end) {
            end += 1;
        }
        let group = first..end;
        first = end;
        if group.len() == 1 {
            continue;
        }
        let mut deletes = group.clone().filter(|row| riders.delete(*row));
        let one = deletes.next();
        let deletes = usize::from(one.is_some()) + deletes.count();
        let stays = match one {
            Some(one) if deletes == group.len() || shape.sequence.is_some() => Some(one),
            Some(_) => None,
            None => {
                let mut others = group.start + 1..group.end;
                others.all(|row| pairs.equal(row)).then_some(group.start)
            }
        };
        for row in group.clone() {
            if let Some(on) = on.get_mut(row) {
                *on = stays == Some(row);
            }
        }
        if stays.is_none() {
            differing.push(group);
        }
    }
    Ok(Equals {
        on: BooleanArray::from(on),
        differing,
    })
}

/// Compares each row with the one before it.
struct Pairs {
    /// Another key or sequence, by the number of the earlier row.
    apart: BooleanBuffer,
    /// Other values.
    other: BooleanBuffer,
}

impl Pairs {
    fn new(shape: &Shape, events: &RecordBatch) -> Result<Self> {
        let schema = events.schema_ref();
        let place = |name: &str| {
            let place = schema.index_of(name);
            place.map_err(|_| Error::internal(format!("events have no column {name}")))
        };
        let pairs = events.num_rows().saturating_sub(1);
        let (a, b) = (
            events.slice(0, pairs),
            events.slice(events.num_rows() - pairs, pairs),
        );
        let mut apart = shape.keys.clone();
        apart.push(place(SEQUENCE)?);
        let columns = 0..shape.flow.fields().len();
        let mut other: Vec<usize> = columns
            .filter(|column| !shape.keys.contains(column) && shape.sequence != Some(*column))
            .collect();
        other.push(place(KEEP)?);
        Ok(Self {
            apart: distinct(&a, &b, &apart)?,
            other: distinct(&a, &b, &other)?,
        })
    }

    /// Whether the row has the key and the sequence of the one before it.
    fn meet(&self, row: usize) -> bool {
        !self.apart.value(row - 1)
    }

    /// Whether it has the same values.
    fn equal(&self, row: usize) -> bool {
        !self.other.value(row - 1)
    }
}

//! What each event of a stream does to the rows of the table.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::memory_pool::MemoryPool;
use selvedge_udfs::debezium::envelope::{Event, Message, Op};
use selvedge_udfs::debezium::json;

use super::cells::{self, Given, Kind};
use super::emptied::Emptied;
use super::rows::Rows;
use super::schema::Hints;
use super::terms::{Key, Terms, When, flawed, record};
use super::tombstones::Gone;
use crate::error::{Error, Result};
use crate::journal::event::set_keep;
use crate::journal::shape::Shape;

/// What is wrong with the value of a field.
pub(super) fn of_field(name: &str) -> impl FnOnce(Error) -> Error + '_ {
    move |error| {
        let told = format!("field {name} {}", error.message());
        error.reworded(told)
    }
}

/// The rows of one file, as its events make them.
pub(super) struct Changes {
    terms: Arc<Terms>,
    hints: Hints,
    /// The hints of keys, which have a schema of their own.
    key_hints: Hints,
    rows: Rows,
    /// The events that emptied the table before all others.
    emptied: Vec<Emptied>,
    /// The keys whose rows went: a tombstone follows each.
    gone: Gone,
    /// What the last event was, if there was one.
    last: Option<Op>,
    /// Records that say nothing of a row: markers, messages, tombstones.
    pub skipped: u64,
}

/// A row image: the value of each declared column that it has, and of the field that says when.
struct Image<'a> {
    values: Vec<Option<&'a str>>,
    /// Of [`When::Field`] where it is no column.
    when: Option<&'a str>,
}

impl Changes {
    /// None yet; memory for what must be remembered of them is that of `pool`.
    pub(super) fn new(
        terms: Arc<Terms>,
        emptied: Vec<Emptied>,
        pool: &Arc<dyn MemoryPool>,
    ) -> Self {
        Self {
            rows: Rows::new(&terms),
            terms,
            hints: Hints::default(),
            key_hints: Hints::default(),
            emptied,
            gone: Gone::new(pool),
            last: None,
            skipped: 0,
        }
    }

    /// Takes the record of a line. `position` is its place in the stream, of which the next is used as well.
    pub(super) fn push(&mut self, line: &str, position: i64) -> Result<()> {
        let terms = Arc::clone(&self.terms);
        let (key, message) = record(line, &terms)?;
        let event = match message {
            Message::Tombstone => return self.tombstone(key, position),
            Message::Transaction(..) => {
                self.skipped += 1;
                return Ok(());
            }
            Message::Event(event) => event,
        };
        match event.op {
            Op::Message => {
                self.skipped += 1;
                return Ok(());
            }
            Op::Truncate => {
                let mut leading = self.emptied.iter();
                if leading.any(|emptied| emptied.position == position) {
                    return Ok(());
                }
                return Err(
                    Error::rejected("the table was emptied (op t) behind other changes").with_hint(
                        "load what comes before it by itself; the next load may begin with it",
                    ),
                );
            }
            Op::Create | Op::Read | Op::Update => {
                self.hints.take(event.schema).map_err(of_record)?;
                self.upsert(&event, position)?;
                if let Some(key) = key.filter(|_| event.op != Op::Update) {
                    self.gone.create(key.text);
                }
            }
            Op::Delete => {
                self.hints.take(event.schema).map_err(of_record)?;
                self.delete(&event, key.map(|key| key.text), position)?;
                if let Some(key) = key {
                    self.gone.delete(key.text)?;
                }
            }
        }
        self.last = Some(event.op);
        Ok(())
    }

    /// What follows a delete says nothing new. By itself it would say that a row went, and not when.
    fn tombstone(&mut self, key: Option<Key<'_>>, position: i64) -> Result<()> {
        match key {
            Some(key) if self.gone.is_deleted(key.text) => {}
            Some(Key { text, schema }) => {
                let named = self.key(text)?;
                let shape = Arc::clone(&self.terms.shape);
                let only = shape.key_names().next().unwrap_or_default();
                let taken = self.key_hints.take_key(schema, only);
                taken.map_err(of_record)?;
                let keys = shape.keys.iter().zip(shape.key_names());
                let values = keys.filter_map(|(place, name)| {
                    let value = named.values.get(*place).copied().flatten()?;
                    Some((value.to_owned(), self.key_hints.of(name)))
                });
                let values = values.collect();
                self.gone.wait(text, position, values)?;
            }
            // The delete may be the last line of the file before.
            None if self.last.is_none_or(|last| last == Op::Delete) => {}
            None => {
                return Err(Error::rejected(
                    "a tombstone without a key does not follow the delete of one, so nothing says which row went, and when",
                ));
            }
        }
        self.skipped += 1;
        Ok(())
    }

    fn upsert(&mut self, event: &Event<'_>, position: i64) -> Result<()> {
        let after = self.image(event.after, "after")?;
        let before = match (event.op, event.before) {
            (Op::Update, Some(before)) => Some(self.image(Some(before), "before")?),
            _ => None,
        };
        self.has_one_clock(&after)?;
        let at = self.instant(&after, event, false)?;
        self.is_behind_emptied(at)?;
        // The key of a row changed: of the old key nothing is left.
        if let Some(before) = before
            && self.has_keys(&before)
            && self.terms.shape.keys.iter().any(|key| {
                before.values.get(*key).copied().flatten()
                    != after.values.get(*key).copied().flatten()
            })
        {
            let gone = match at {
                Some(at) => Some(self.floor(&before)?.map_or(at, |floor| at.max(floor))),
                None => None,
            };
            self.ended(&before, gone, position)?;
        }
        self.row(&after, at, position + 1)
    }

    fn delete(&mut self, event: &Event<'_>, key: Option<&str>, position: i64) -> Result<()> {
        let mut image = match event.before {
            Some(before) => self.image(Some(before), "before")?,
            None => self.empty(),
        };
        if !self.has_keys(&image) {
            let Some(key) = key else {
                return Err(Error::rejected(
                    "the change has op d, and neither its before nor a key says which row went",
                )
                .with_hint("lines of key and value have keys: {\"key\": .., \"value\": ..}"));
            };
            let named = self.key(key)?;
            for (value, named) in image.values.iter_mut().zip(named.values) {
                *value = named.or(*value);
            }
        }
        let at = self.instant(&image, event, true)?;
        self.is_behind_emptied(at)?;
        self.ended(&image, at, position)
    }

    /// Whether the row has an instant of its own where that of the event goes.
    fn has_one_clock(&self, after: &Image<'_>) -> Result<()> {
        let terms = &self.terms;
        let Some(sequence) = terms.shape.sequence.filter(|_| terms.when == When::Event) else {
            return Ok(());
        };
        let own = after.values.get(sequence).copied().flatten();
        if own.and_then(json::present).is_none() {
            return Ok(());
        }
        let name = terms.name(sequence);
        Err(Error::rejected(format!(
            "the row has its own {name}, by which table {} orders its changes, and the event says when it was made: these are two clocks",
            terms.shape.table
        ))
        .with_hint(format!(
            "OPTIONS (sequence = 'event') orders by when the database made the change, and {name} holds that; (sequence = '{name}') takes what rows say, and the event's instant for deletes"
        )))
    }

    /// Which rows went when the table was emptied is known of those that are stored, not of others in the load.
    fn is_behind_emptied(&self, at: Option<i64>) -> Result<()> {
        let emptied = self.emptied.iter().filter_map(|emptied| emptied.at).max();
        match (at, emptied) {
            (Some(at), Some(emptied)) if at < emptied => Err(Error::rejected(
                "the change is older than the event that emptied the table (op t), and comes behind it",
            )
            .with_hint(match &self.terms.when {
                When::Field(name) => format!(
                    "rows are dated by their {name}, and that event by its own clock: OPTIONS (sequence = 'event') dates all changes by the clock of events"
                ),
                When::Event | When::Stamp(_) => "load what is older before it".to_owned(),
            })),
            _ => Ok(()),
        }
    }

    fn empty<'a>(&self) -> Image<'a> {
        Image {
            values: vec![None; self.terms.kinds.len()],
            when: None,
        }
    }

    /// The fields of a row image. One that is not known may be a column that the table lacks by now.
    fn image<'a>(&self, object: Option<&'a str>, name: &str) -> Result<Image<'a>> {
        let members = match object {
            Some(object) => json::members(object).map_err(flawed)?,
            None => None,
        };
        let members = members.ok_or_else(|| flawed(format!("has no {name}")))?;
        let mut image = self.empty();
        for (field, value) in members {
            let given = match self.terms.place(&field)? {
                Some(place) => image.values.get_mut(place),
                None => Some(&mut image.when),
            };
            if given.and_then(|given| given.replace(value)).is_some() {
                return Err(flawed(format!("has the field {field} twice in its {name}")));
            }
        }
        Ok(image)
    }

    /// The key of a record: an object of the key columns, or the value of the only one.
    fn key<'a>(&self, key: &'a str) -> Result<Image<'a>> {
        if key.starts_with('{') {
            let image = self.image(Some(key), "key")?;
            if self.has_keys(&image) {
                return Ok(image);
            }
        } else if let [only] = self.terms.shape.keys.as_slice() {
            let mut image = self.empty();
            if let Some(value) = image.values.get_mut(*only) {
                *value = Some(key);
            }
            return Ok(image);
        }
        let keys: Vec<&str> = self.terms.shape.key_names().collect();
        Err(Error::rejected(format!(
            "the key of the change does not hold {}",
            keys.join(", ")
        )))
    }

    /// Whether an image names its row. Keys are never NULL, but databases write nulls where they say nothing.
    fn has_keys(&self, image: &Image<'_>) -> bool {
        let mut keys = self.terms.shape.keys.iter();
        keys.all(|key| {
            let value = image.values.get(*key).copied().flatten();
            value.and_then(json::present).is_some()
        })
    }

    /// The instant that an image gives, where the statement wants it.
    fn told(&self, image: &Image<'_>) -> Result<Option<i64>> {
        let terms = &self.terms;
        let When::Field(name) = &terms.when else {
            return Ok(None);
        };
        let column = terms
            .places
            .get(name)
            .and_then(|place| image.values.get(*place));
        let Some(value) = image.when.or(column.copied().flatten()) else {
            return Ok(None);
        };
        let hint = self.hints.of(name);
        // A column tells days by its type; of a field that is none nothing is known.
        let days = terms
            .places
            .get(name)
            .is_some_and(|place| terms.is_days(*place));
        cells::sequence(value, hint, days, &terms.reading).map_err(of_field(name))
    }

    /// The first instant after the one that an image gives: what ends it comes later.
    fn floor(&self, image: &Image<'_>) -> Result<Option<i64>> {
        Ok(self.told(image)?.map(|instant| instant.saturating_add(1)))
    }

    /// When an event was true; None where the table keeps no sequence.
    fn instant(&self, image: &Image<'_>, event: &Event<'_>, ends: bool) -> Result<Option<i64>> {
        if self.terms.shape.sequence.is_none() {
            return Ok(None);
        }
        // The image of a delete is the row as it was, so its instant is that of the change before.
        match (ends, self.told(image)?) {
            (false, Some(instant)) => Ok(Some(instant)),
            (false, None) | (true, None) => self.terms.instant(&event.times),
            (true, Some(before)) => {
                let made = self.terms.instant(&event.times)?;
                Ok(made.map(|made| made.max(before.saturating_add(1))))
            }
        }
    }

    /// The row of an image.
    fn row(&mut self, image: &Image<'_>, at: Option<i64>, position: i64) -> Result<()> {
        let Self {
            terms, hints, rows, ..
        } = self;
        let shape = &terms.shape;
        let mut keep: Option<Vec<u8>> = None;
        let mut nulls = Vec::new();
        let columns = rows.cells.iter_mut().zip(&terms.kinds).zip(&image.values);
        for (place, ((cells, kind), value)) in columns.enumerate() {
            let name = terms.name(place);
            if shape.sequence == Some(place) {
                cells.push_text(&spelled(kind, at)?);
                continue;
            }
            let key = shape.keys.contains(&place);
            let keeps_null = shape.keeps_null.get(place) == Some(&true);
            let given = match value {
                Some(value) => cells
                    .push(kind, hints.of(name), value, &terms.reading)
                    .map_err(of_field(name))?,
                None if keeps_null => {
                    cells.push_null();
                    Given::Null
                }
                None => return Err(missing(shape, name, key)),
            };
            match given {
                Given::Value => {}
                Given::Null => nulls.push(place),
                Given::Unavailable if key => {
                    return Err(Error::rejected(format!(
                        "key {name} of the change is not available"
                    )));
                }
                Given::Unavailable => set_keep(keep.get_or_insert_default(), place),
            }
        }
        // Once a row says what it keeps, it says it of all its columns.
        if let Some(keep) = &mut keep {
            for place in nulls {
                if shape.keeps_null.get(place) == Some(&true) {
                    set_keep(keep, place);
                }
            }
        }
        rows.end(false, keep.as_deref(), position);
        Ok(())
    }

    /// The row that says that a key ended: nothing but the key is asked of it.
    fn ended(&mut self, image: &Image<'_>, at: Option<i64>, position: i64) -> Result<()> {
        let Self {
            terms, hints, rows, ..
        } = self;
        let columns = rows.cells.iter_mut().zip(&terms.kinds).zip(&image.values);
        for (place, ((cells, kind), value)) in columns.enumerate() {
            if terms.shape.sequence == Some(place) {
                cells.push_text(&spelled(kind, at)?);
                continue;
            }
            match value {
                Some(value) if terms.shape.keys.contains(&place) => {
                    let name = terms.name(place);
                    let given = cells
                        .push(kind, hints.of(name), value, &terms.reading)
                        .map_err(of_field(name))?;
                    if given != Given::Value {
                        return Err(Error::rejected(format!(
                            "key {name} of the change is missing"
                        )));
                    }
                }
                _ => cells.push_null(),
            }
        }
        rows.end(true, None, position);
        Ok(())
    }

    /// The keys that went, when all has been said.
    pub(super) fn gone(self) -> Gone {
        self.gone
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.count
    }

    /// The rows so far, and none from here on.
    pub(super) fn batch(&mut self) -> Result<RecordBatch> {
        let fresh = Rows::new(&self.terms);
        std::mem::replace(&mut self.rows, fresh).finish(&self.terms)
    }
}

fn of_record(error: Error) -> Error {
    let told = format!("the change {}", error.message());
    error.reworded(told)
}

fn missing(shape: &Shape, name: &str, key: bool) -> Error {
    let error = Error::rejected(format!(
        "the change has no field {name}, which table {} has: a change is a whole row",
        shape.table
    ));
    match key {
        true => error,
        false => error.with_hint(format!(
            "JOURNAL .. IGNORE NULL UPDATES ON ({name}) keeps what it was"
        )),
    }
}

/// An instant as the sequence column takes it.
pub(super) fn spelled(kind: &Kind, at: Option<i64>) -> Result<String> {
    let at = at.ok_or_else(|| Error::internal("a change without its instant"))?;
    match kind {
        Kind::Time { days, zoned } => cells::spelled(at, *days, *zoned),
        _ => Err(Error::internal("a sequence that is no point in time")),
    }
}

#[cfg(test)]
pub(super) mod tests;

//! How the lines of a statement are read: what its options and its table say.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use selvedge_udfs::debezium::envelope::{self, Message, Times};
use selvedge_udfs::debezium::json;

use super::cells::{Kind, Reading};
use crate::error::{Error, Result};
use crate::journal::event::{DELETE, KEEP};
use crate::journal::shape::Shape;
use crate::sql;

/// Where in the stream an event came: of several for one key and instant the last one is true.
pub(super) const POSITION: &str = "__selvedge_position";

/// When a change was true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum When {
    /// As the event says, and its row says nothing else.
    Event,
    /// As the event says here, whatever its row says.
    Stamp(Stamp),
    /// As this field of the row says, else as the event does.
    Field(String),
}

impl When {
    /// The instant of an event that counts; None where a field does.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::Event => Some(Stamp::Change),
            Self::Stamp(stamp) => Some(*stamp),
            Self::Field(_) => None,
        }
    }
}

/// An instant that every event has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// When the database made the change, as finely as is told; of the connector where nothing is.
    Change,
    SourceMillis,
    SourceMicros,
    SeenMillis,
    SeenMicros,
}

impl Stamp {
    pub(super) const ALL: [(&'static str, Self); 5] = [
        ("event", Self::Change),
        ("source.ts_ms", Self::SourceMillis),
        ("source.ts_us", Self::SourceMicros),
        ("ts_ms", Self::SeenMillis),
        ("ts_us", Self::SeenMicros),
    ];

    pub(super) fn of(self, times: &Times) -> Result<i64> {
        let instant = match self {
            Self::Change => times.best(),
            Self::SourceMillis => times.source_ms,
            Self::SourceMicros => times.source_us,
            Self::SeenMillis => times.seen_ms,
            Self::SeenMicros => times.seen_us,
        };
        instant.ok_or_else(|| {
            if self == Self::Change {
                return Error::rejected("the change does not say when it was made")
                    .with_hint("neither source.ts_ms nor ts_ms is there");
            }
            let name = Self::ALL.iter().find(|(_, stamp)| *stamp == self);
            let name = name.map_or("instant", |(name, _)| *name);
            Error::rejected(format!("the change has no {name}"))
        })
    }
}

/// How the changes of one statement are read.
#[derive(Debug)]
pub(super) struct Terms {
    pub shape: Arc<Shape>,
    pub reading: Reading,
    /// The member of a line that holds the key of the record.
    pub key_field: String,
    pub when: When,
    /// Of the declared columns, in order.
    pub kinds: Vec<Kind>,
    /// Of the declared columns, by name.
    pub places: HashMap<String, usize>,
    /// Of the rows: the declared columns, what becomes of each row, and its place in the stream.
    pub schema: SchemaRef,
}

impl Terms {
    pub(super) fn new(
        shape: Arc<Shape>,
        reading: Reading,
        key_field: String,
        when: When,
    ) -> Result<Self> {
        let declared = shape.declared.fields();
        let kinds: Vec<Kind> = declared
            .iter()
            .map(|field| Kind::of(&shape.table, field))
            .collect::<Result<_>>()?;
        let places = declared.iter().enumerate();
        let places = places.map(|(place, field)| (field.name().clone(), place));
        let columns = declared.iter().zip(&kinds);
        let mut fields: Vec<Field> = columns
            .map(|(field, kind)| Field::new(field.name(), kind.data_type(), true))
            .collect();
        fields.extend([
            Field::new(DELETE, DataType::Boolean, false),
            Field::new(KEEP, DataType::Binary, true),
            Field::new(POSITION, DataType::Int64, false),
        ]);
        Ok(Self {
            places: places.collect(),
            schema: Arc::new(Schema::new(fields)),
            kinds,
            shape,
            reading,
            key_field,
            when,
        })
    }

    pub(super) fn name(&self, place: usize) -> &str {
        self.shape.declared.field(place).name()
    }

    /// Where a field of a row goes. None: nowhere, it only says when.
    pub(super) fn place(&self, field: &str) -> Result<Option<usize>> {
        if let Some(place) = self.places.get(field) {
            return Ok(Some(*place));
        }
        // Names that differ in case alone cannot both be columns of a table.
        let alike = |name: &&String| name.eq_ignore_ascii_case(field);
        if let Some(name) = self.places.keys().find(alike) {
            return Ok(self.places.get(name).copied());
        }
        if matches!(&self.when, When::Field(name) if name == field) {
            return Ok(None);
        }
        let error = Error::rejected(format!(
            "the change has the field {field}, and table {} no such column",
            self.shape.table
        ));
        Err(match sql::nearest(field, self.places.keys()) {
            Some(near) => error.with_hint(format!("the nearest column is {near}")),
            None => error.with_hint(format!(
                "ALTER TABLE {} ADD COLUMN {field} .. takes it from now on",
                self.shape.table
            )),
        })
    }

    /// The instant of an event that no field of a row may tell; None where the table keeps no sequence.
    pub(super) fn instant(&self, times: &Times) -> Result<Option<i64>> {
        match self.shape.sequence {
            Some(_) => self
                .when
                .stamp()
                .unwrap_or(Stamp::Change)
                .of(times)
                .map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn is_days(&self, place: usize) -> bool {
        matches!(self.kinds.get(place), Some(Kind::Time { days: true, .. }))
    }
}

/// The key of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    pub text: &'a str,
    /// Its schema, where the converter writes it.
    pub schema: Option<&'a str>,
}

/// A record of a line: its key, if the line has one, and what its value says.
pub(super) fn record<'a>(line: &'a str, terms: &Terms) -> Result<(Option<Key<'a>>, Message<'a>)> {
    json::check(line).map_err(flawed)?;
    let members = json::members(line).map_err(flawed)?;
    let is_pair = members.iter().flatten().any(|(name, _)| name == "value");
    let Some(members) = members.filter(|_| is_pair) else {
        return Ok((None, envelope::parse(line).map_err(flawed)?));
    };
    let (mut key, mut value) = (None, None);
    for (name, part) in members {
        let given = match name.as_ref() {
            "value" => value.replace(part),
            name if name == terms.key_field => key.replace(part),
            other => {
                return Err(flawed(format!(
                    "has the unknown member {other} beside {} and value",
                    terms.key_field
                )));
            }
        };
        if given.is_some() {
            return Err(flawed(format!("has the member {name} twice")));
        }
    }
    let key = match key {
        Some(key) => {
            let (text, schema) = envelope::unwrapped(key).map_err(flawed)?;
            json::present(text).map(|text| Key { text, schema })
        }
        None => None,
    };
    let message = envelope::parse(value.unwrap_or("null")).map_err(flawed)?;
    Ok((key, message))
}

/// What is wrong with a record.
pub(super) fn flawed(flaw: String) -> Error {
    Error::rejected(format!("the change {flaw}"))
}

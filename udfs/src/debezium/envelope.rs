//! The envelope of a change, read strictly: a field nobody knows may change what the others mean.

use super::json::{self, Flaw, Member};

/// What an event does to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `c`: a row came.
    Create,
    /// `r`: a row was there when the connector first looked.
    Read,
    /// `u`: a row changed.
    Update,
    /// `d`: a row went.
    Delete,
    /// `t`: all rows went.
    Truncate,
    /// `m`: a message in the log of the database, about no row.
    Message,
}

impl Op {
    const ALL: [(&'static str, Self); 6] = [
        ("c", Self::Create),
        ("r", Self::Read),
        ("u", Self::Update),
        ("d", Self::Delete),
        ("t", Self::Truncate),
        ("m", Self::Message),
    ];

    fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, op)| *op)
    }

    /// Its letter.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, op)| *op == self);
        found.map_or("", |(name, _)| *name)
    }
}

/// What the value of one record says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Message<'a> {
    /// A change, or a message of the database.
    Event(Event<'a>),
    /// `BEGIN` or `END` of a transaction.
    Transaction(&'static str, Times),
    /// Nothing: what follows a delete, for the broker to forget the key.
    Tombstone,
}

/// One event. Parts are JSON as they are written; null is None.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event<'a> {
    /// What it does.
    pub op: Op,
    /// The row as it was.
    pub before: Option<&'a str>,
    /// The row as it is.
    pub after: Option<&'a str>,
    /// Where it comes from.
    pub source: Option<&'a str>,
    /// The schema of the envelope, where the converter writes it.
    pub schema: Option<&'a str>,
    /// When.
    pub times: Times,
    /// Its place in the log of PostgreSQL.
    pub lsn: Option<i64>,
}

/// The instants of an event in microseconds, those in milliseconds widened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// `source.ts_ms`: when the database made the change.
    pub source_ms: Option<i64>,
    /// `source.ts_us`
    pub source_us: Option<i64>,
    /// `ts_ms`: when the connector saw it.
    pub seen_ms: Option<i64>,
    /// `ts_us`
    pub seen_us: Option<i64>,
}

impl Times {
    /// When it was so: as the database says, else as the connector does; the finest there is.
    pub fn best(&self) -> Option<i64> {
        self.source_us
            .or(self.source_ms)
            .or(self.seen_us)
            .or(self.seen_ms)
    }
}

/// The payload of a key or value, and its schema where the converter writes one around it.
///
/// # Errors
/// When something else stands beside them.
pub fn unwrapped(value: &str) -> Result<(&str, Option<&str>), Flaw> {
    let Some(members) = json::members(value)? else {
        return Ok((value.trim(), None));
    };
    if !members.iter().any(|(name, _)| name == "payload") {
        return Ok((value.trim(), None));
    }
    let (mut payload, mut schema) = (None, None);
    for (name, part) in members {
        match name.as_ref() {
            "payload" => once(&mut payload, part, "payload")?,
            "schema" => once(&mut schema, part, "schema")?,
            other => return Err(format!("has the unknown field {other} beside its payload")),
        }
    }
    let schema = schema.and_then(json::present);
    Ok((payload.unwrap_or("null"), schema))
}

/// Reads the value of one record.
///
/// # Errors
/// When it is no envelope, or says something that is not known.
pub fn parse(value: &str) -> Result<Message<'_>, Flaw> {
    json::check(value)?;
    let (payload, schema) = unwrapped(value)?;
    if json::present(payload).is_none() {
        return Ok(Message::Tombstone);
    }
    let Some(members) = json::members(payload)? else {
        let kind = json::kind(payload);
        return Err(format!("is {kind}, not the envelope of a change"));
    };
    match members.iter().any(|(name, _)| name == "status") {
        true => transaction(&members),
        false => event(&members, schema).map(Message::Event),
    }
}

fn event<'a>(members: &[Member<'a>], schema: Option<&'a str>) -> Result<Event<'a>, Flaw> {
    let (mut op, mut before, mut after, mut source) = (None, None, None, None);
    let (mut seen_ms, mut seen_us) = (None, None);
    for (name, value) in members {
        let field = match name.as_ref() {
            "op" => &mut op,
            "before" => &mut before,
            "after" => &mut after,
            "source" => &mut source,
            "ts_ms" => &mut seen_ms,
            "ts_us" => &mut seen_us,
            "ts_ns" | "transaction" | "message" => continue,
            unknown => {
                return Err(format!(
                    "has the unknown field {unknown}: the fields of an envelope are before, after, source, op, ts_ms, ts_us, ts_ns, transaction and message"
                ));
            }
        };
        once(field, value, name)?;
    }
    let op = match op.map(json::text).transpose()?.flatten() {
        None => return Err("has no op, so it is not the envelope of a change".to_owned()),
        Some(letter) => Op::named(&letter)
            .ok_or_else(|| format!("has the unknown op {letter}: known are c, r, u, d, t and m"))?,
    };
    let (before, after) = (image(before, "before")?, image(after, "after")?);
    if matches!(op, Op::Create | Op::Read | Op::Update) && after.is_none() {
        return Err(format!("has op {} and no after", op.name()));
    }
    let source = image(source, "source")?;
    let (mut times, lsn) = from_source(source)?;
    times.seen_ms = instant(seen_ms, 1_000, "ts_ms")?;
    times.seen_us = instant(seen_us, 1, "ts_us")?;
    Ok(Event {
        op,
        before,
        after,
        source,
        schema,
        times,
        lsn,
    })
}

fn transaction<'a>(members: &[Member<'a>]) -> Result<Message<'a>, Flaw> {
    let (mut status, mut seen_ms, mut seen_us) = (None, None, None);
    for (name, value) in members {
        match name.as_ref() {
            "status" => once(&mut status, value, name)?,
            "ts_ms" => once(&mut seen_ms, value, name)?,
            "ts_us" => once(&mut seen_us, value, name)?,
            "ts_ns" | "id" | "event_count" | "data_collections" => {}
            unknown => {
                return Err(format!(
                    "has the unknown field {unknown} in the marker of a transaction"
                ));
            }
        }
    }
    let times = Times {
        seen_ms: instant(seen_ms, 1_000, "ts_ms")?,
        seen_us: instant(seen_us, 1, "ts_us")?,
        ..Times::default()
    };
    match status.map(json::text).transpose()?.flatten().as_deref() {
        Some("BEGIN") => Ok(Message::Transaction("BEGIN", times)),
        Some("END") => Ok(Message::Transaction("END", times)),
        _ => Err("has a status that is neither BEGIN nor END".to_owned()),
    }
}

/// Instants and place that the source gives. Its other fields differ from database to database.
fn from_source(source: Option<&str>) -> Result<(Times, Option<i64>), Flaw> {
    let members = match source {
        Some(source) => json::members(source)?.unwrap_or_default(),
        None => Vec::new(),
    };
    let (mut times, mut lsn) = (Times::default(), None);
    for (name, value) in members {
        match name.as_ref() {
            "ts_ms" => times.source_ms = known(instant(Some(value), 1_000, "source.ts_ms")?),
            "ts_us" => times.source_us = known(instant(Some(value), 1, "source.ts_us")?),
            // Others than PostgreSQL write texts here.
            "lsn" => lsn = json::integer(value).unwrap_or_default(),
            _ => {}
        }
    }
    Ok((times, lsn))
}

/// Where the database does not say when, as of rows of a snapshot, some connectors write 0.
fn known(instant: Option<i64>) -> Option<i64> {
    instant.filter(|instant| *instant != 0)
}

fn instant(value: Option<&str>, micros: i64, name: &str) -> Result<Option<i64>, Flaw> {
    let Some(value) = value else {
        return Ok(None);
    };
    let number = json::integer(value).map_err(|flaw| format!("has a {name} that {flaw}"))?;
    match number.map(|number| number.checked_mul(micros)) {
        None => Ok(None),
        Some(Some(instant)) => Ok(Some(instant)),
        Some(None) => Err(format!("has a {name} that is out of range")),
    }
}

/// A part that is an object or nothing.
fn image<'a>(value: Option<&'a str>, name: &str) -> Result<Option<&'a str>, Flaw> {
    match value.and_then(json::present) {
        None => Ok(None),
        Some(object) if object.starts_with('{') => Ok(Some(object)),
        Some(other) => {
            let kind = json::kind(other);
            Err(format!("has {kind} as its {name}, not an object"))
        }
    }
}

fn once<'a>(field: &mut Option<&'a str>, value: &'a str, name: &str) -> Result<(), Flaw> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("has the field {name} twice")),
    }
}

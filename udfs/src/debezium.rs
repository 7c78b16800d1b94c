//! Changes that Debezium captured: the envelope, and the function that unpacks it in a query.
//!
//! Unlike JSON in logs, a change that cannot be read must not turn into NULL: the history made of the others
//! would be wrong. So everything unknown is an error here.

pub mod envelope;
pub mod json;

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Int64Builder, StringBuilder, StructArray, TimestampMicrosecondBuilder,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::ScalarUDF;

use self::envelope::{Event, Message, Times};
use self::json::Flaw;
use crate::scalar::{Call, Takes, Told, pure};

const NAME: &str = "debezium";
/// How much of a text that is no envelope is shown.
const SHOWN_CHARACTERS: usize = 80;

/// The functions of this room.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let told = Told {
        name: NAME,
        parameters: &[
            (
                "envelope",
                Takes::Text,
                "text of a record's value, with or without its schema",
            ),
            (
                "key",
                Takes::TextOrNothing,
                "text of the record's key, with or without its schema; may be left out",
            ),
        ],
        returns: DataType::Struct(fields()),
        about: "Unpacks the value of a record that Debezium wrote: op (c, r, u, d, t, m, or BEGIN and END of a transaction), before and after as JSON text, the record's key without its schema, ts (when the database made the change, in UTC; else when the connector saw it), source as JSON text, and lsn (PostgreSQL). NULL, and null in JSON (a tombstone), give NULL. Text that is no envelope, an op or a field of the envelope that is not known are errors, because a change left out makes the history of the others wrong.",
        example: r#"SELECT get_field(debezium('{"op": "u", "before": null, "after": {"id": 7}, "ts_ms": 0}'), 'after') -- {"id": 7}"#,
    };
    vec![pure(told, unpack)]
}

fn unpack(call: &Call<'_>) -> Result<ArrayRef> {
    let (envelopes, keys) = (call.texts(0)?, call.texts(1)?);
    let mut unpacked = Unpacked::default();
    for row in 0..call.rows {
        let Some(text) = envelopes.get(row) else {
            unpacked.nothing();
            continue;
        };
        let pushed = unpacked.push(text, keys.get(row));
        pushed.map_err(|flaw| exec_datafusion_err!("{NAME}: {} {flaw}", shown(text)))?;
    }
    unpacked.finish()
}

fn fields() -> Fields {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let ts = DataType::Timestamp(TimeUnit::Microsecond, None);
    Fields::from(vec![
        text("op"),
        text("before"),
        text("after"),
        text("key"),
        Field::new("ts", ts, true),
        text("source"),
        Field::new("lsn", DataType::Int64, true),
    ])
}

/// The answer of a call, row by row.
#[derive(Default)]
struct Unpacked {
    op: StringBuilder,
    before: StringBuilder,
    after: StringBuilder,
    key: StringBuilder,
    ts: TimestampMicrosecondBuilder,
    source: StringBuilder,
    lsn: Int64Builder,
    valid: Vec<bool>,
}

/// One row of it.
#[derive(Default)]
struct Row<'a> {
    op: Option<&'a str>,
    before: Option<&'a str>,
    after: Option<&'a str>,
    key: Option<&'a str>,
    times: Times,
    source: Option<&'a str>,
    lsn: Option<i64>,
}

impl Unpacked {
    fn push(&mut self, text: &str, key: Option<&str>) -> Result<(), Flaw> {
        let key = match key {
            None => None,
            Some(key) => {
                let checked = json::check(key).and_then(|()| envelope::unwrapped(key));
                let (payload, _) = checked.map_err(|flaw| format!("has a key that {flaw}"))?;
                json::present(payload)
            }
        };
        let row = match envelope::parse(text)? {
            Message::Tombstone => {
                self.nothing();
                return Ok(());
            }
            Message::Transaction(status, times) => Row {
                op: Some(status),
                key,
                times,
                ..Row::default()
            },
            Message::Event(Event {
                op,
                before,
                after,
                source,
                times,
                lsn,
                schema: _,
            }) => Row {
                op: Some(op.name()),
                before,
                after,
                key,
                times,
                source,
                lsn,
            },
        };
        self.append(&row, true);
        Ok(())
    }

    fn nothing(&mut self) {
        self.append(&Row::default(), false);
    }

    fn append(&mut self, row: &Row<'_>, valid: bool) {
        self.op.append_option(row.op);
        self.before.append_option(row.before);
        self.after.append_option(row.after);
        self.key.append_option(row.key);
        self.ts.append_option(row.times.best());
        self.source.append_option(row.source);
        self.lsn.append_option(row.lsn);
        self.valid.push(valid);
    }

    fn finish(mut self) -> Result<ArrayRef> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.op.finish()),
            Arc::new(self.before.finish()),
            Arc::new(self.after.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.ts.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.lsn.finish()),
        ];
        let valid = NullBuffer::from(self.valid);
        let rows = StructArray::try_new(fields(), columns, Some(valid))?;
        Ok(Arc::new(rows))
    }
}

/// The beginning of a text.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    format!("'{short}'")
}

#[cfg(test)]
mod tests;

//! COPY INTO .. FORMAT DEBEZIUM: changes that were captured in another database, into a journal.
//!
//! ```text
//! files -> lines -> change (what an event does, cells by columns) -> the last of each key and instant -> a write of changes
//! ```
//!
//! The order of lines is the order of changes. What a line says that is not known here is an error: a history made
//! of the others would be wrong. A line is an envelope, or `{"key": .., "value": ..}`, with or without schemas.
//!
//! | op | becomes |
//! | --- | --- |
//! | `c`, `r`, `u` | the row of `after`, whole; a changed key also ends that of `before` |
//! | `d` | the end of the key that `before`, or the record's key, names |
//! | `t` | the end of all current rows; it must be the only event of the load |
//! | `m`, markers of transactions, the tombstone behind a delete | nothing |
//!
//! | option | says | default |
//! | --- | --- | --- |
//! | `sequence` | what orders changes: `source.ts_us`, `source.ts_ms`, `ts_us`, `ts_ms`, or a field of the row | the SEQUENCE BY column where the row has it, else the first of these instants that is there |
//! | `unavailable` | the marker of a value that the log did not hold, which stays what it was | `__debezium_unavailable_value` |
//! | `key_field` | the member of a line that holds the record's key | `key` |
//! | `timestamp_unit` | `ms`, `us` or `ns`: what numbers for TIMESTAMP columns count where no schema says it | refused |
//! | `binary` | `base64` or `hex`: how bytes are written | `base64` |
//!
//! The image of a delete is the row as it was, so a delete takes its instant from the event, and comes after the row
//! it ends. Of several changes of a key at one instant in one load, the last line is true.

mod cells;
mod change;
mod lines;
mod once;
mod schema;
mod terms;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream;
use selvedge_udfs::debezium::envelope::{Message, Op};

use self::cells::{Bytes, MICROS_PER_DAY, Reading, Unit};
use self::change::Changes;
use self::lines::{Line, Lines};
use self::terms::{POSITION, Stamp, Terms, When, record};
use super::files::{self, Listed};
use super::insert;
use super::scope::{Opened, Scope};
use crate::error::{Error, Result};
use crate::journal::event::{DELETE, KEEP};
use crate::journal::shape::Shape;
use crate::sql::{self, CopyInto};
use crate::write::target::JournalMode;

const OPERATION: &str = "COPY INTO";
/// What Debezium writes for a value that the log of the database does not hold.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
const OPTIONS: [&str; 5] = [
    "unavailable",
    "key_field",
    "sequence",
    "timestamp_unit",
    "binary",
];
/// Files take the upper bits of a place in the stream, lines those below.
const LINE_BITS: u32 = 40;

/// Plans COPY INTO .. FORMAT DEBEZIUM.
pub(super) async fn copy(scope: &Arc<Scope>, copy: CopyInto) -> Result<LogicalPlan> {
    let opened = scope.open(&copy.table).await?;
    let shape = opened.shape()?.ok_or_else(|| {
        Error::invalid(format!(
            "FORMAT DEBEZIUM needs a journal table, and table {} is none",
            opened.name
        ))
        .with_hint("CREATE TABLE .. JOURNAL KEYS (..) SEQUENCE BY .. makes one; SELECT debezium(line) unpacks envelopes for any query")
    })?;
    let terms = Arc::new(with_options(Arc::clone(&shape), &copy.options)?);
    let state = scope.state();
    let mut files = Vec::new();
    for path in &copy.files {
        files.extend(files::listed(&state, path).await?);
    }
    let input = match emptied(&files, &terms).await? {
        Some(at) => everything_ends(&opened, &shape, at)?,
        None => changes(files, &terms)?,
    };
    insert::change_rows(scope, &opened, input, OPERATION, JournalMode::Changes)
}

/// What the options of the statement say.
fn with_options(shape: Arc<Shape>, options: &[(String, String)]) -> Result<Terms> {
    let mut reading = Reading {
        unavailable: UNAVAILABLE.to_owned(),
        unit: None,
        bytes: Bytes::Base64,
    };
    let (mut key_field, mut when) = ("key".to_owned(), When::Row);
    for (name, value) in options {
        let refused = |known: &str| {
            Error::invalid(format!("option {name} = '{value}' must be one of {known}"))
        };
        match name.as_str() {
            "unavailable" => reading.unavailable.clone_from(value),
            "key_field" if value == "value" => {
                return Err(Error::invalid(
                    "option key_field = 'value' names the member that holds the change",
                ));
            }
            "key_field" => key_field.clone_from(value),
            "sequence" if shape.sequence.is_none() => {
                return Err(Error::invalid(format!(
                    "option sequence: table {} has no SEQUENCE BY, so no column keeps it",
                    shape.table
                )));
            }
            "sequence" => {
                let stamp = Stamp::ALL.iter().find(|(known, _)| known == value);
                when = match stamp {
                    Some((_, stamp)) => When::Event(*stamp),
                    None => When::Field(value.clone()),
                };
            }
            "timestamp_unit" => {
                reading.unit = Some(match value.as_str() {
                    "ms" => Unit::Millis,
                    "us" => Unit::Micros,
                    "ns" => Unit::Nanos,
                    _ => return Err(refused("ms, us and ns")),
                });
            }
            "binary" => {
                reading.bytes = match value.as_str() {
                    "base64" => Bytes::Base64,
                    "hex" => Bytes::Hex,
                    _ => return Err(refused("base64 and hex")),
                };
            }
            other => {
                let error = Error::invalid(format!("FORMAT DEBEZIUM has no option {other}"));
                return Err(match sql::nearest(other, OPTIONS) {
                    Some(near) => error.with_hint(format!("did you mean {near}?")),
                    None => error.with_hint(format!("options: {}", OPTIONS.join(", "))),
                });
            }
        }
    }
    Terms::new(shape, reading, key_field, when)
}

/// The rows of all files, of several for one key and instant the last: states that were true for no time are none.
fn changes(files: Vec<Listed>, terms: &Arc<Terms>) -> Result<LogicalPlan> {
    let streams = files.into_iter().zip(0_i64..).map(|(file, place)| {
        Arc::new(FileChanges {
            file,
            first: place << LINE_BITS,
            terms: Arc::clone(terms),
        }) as Arc<dyn PartitionStream>
    });
    let table = StreamingTable::try_new(Arc::clone(&terms.schema), streams.collect())?;
    let table: Arc<dyn TableProvider> = Arc::new(table);
    let rows = LogicalPlanBuilder::scan("changes", provider_as_source(table), None)?.build()?;
    let columns: Vec<Expr> = columns_of(&rows);
    let shape = &terms.shape;
    let same = shape.keys.iter().chain(&shape.sequence);
    let same: Vec<Expr> = same
        .filter_map(|place| columns.get(*place))
        .cloned()
        .collect();
    let position = columns
        .last()
        .cloned()
        .ok_or_else(|| Error::internal(format!("changes have no {POSITION}")))?;
    let from_last = row_number()
        .partition_by(same)
        .order_by(vec![position.sort(false, false)])
        .build()?;
    let numbered = LogicalPlanBuilder::from(rows)
        .window(vec![from_last])?
        .build()?;
    let number = columns_of(&numbered)
        .pop()
        .ok_or_else(|| Error::internal("numbered rows have no number"))?;
    // Where no instant tells the changes of a key apart, all but the last would be lost.
    let last = match shape.sequence {
        Some(_) => number.eq(lit(1_u64)),
        None => once::of(shape).call(vec![number]),
    };
    let kept = columns.len().saturating_sub(1);
    Ok(LogicalPlanBuilder::from(numbered)
        .filter(last)?
        .project(columns.into_iter().take(kept))?
        .build()?)
}

fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema()
        .iter()
        .map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name())))
        .collect()
}

/// The instant at which the source table was emptied, if that is all that the files say.
async fn emptied(files: &[Listed], terms: &Terms) -> Result<Option<i64>> {
    let mut emptied: Option<i64> = None;
    for file in files {
        let mut lines = Lines::open(file).await?;
        while let Some(Line { number, text }) = lines.next().await? {
            let at_line = |error: Error| placed(error, &lines.place(number));
            let (_, message) = record(&text, terms).map_err(at_line)?;
            let Message::Event(event) = message else {
                continue;
            };
            match (event.op, emptied) {
                (Op::Message, _) => {}
                (Op::Truncate, None) => {
                    let at = match terms.when {
                        When::Event(stamp) => stamp.of(&event.times).map(Some),
                        When::Row | When::Field(_) => Ok(event.times.best()),
                    };
                    let at = at.map_err(at_line)?.ok_or_else(|| {
                        at_line(Error::rejected("the change does not say when it was made"))
                    })?;
                    emptied = Some(at);
                }
                // It begins with other changes, which are read when they are written.
                (_, None) => return Ok(None),
                (_, Some(_)) => {
                    let error = Error::rejected(
                        "the table was emptied (op t), and other changes stand beside it",
                    )
                    .with_hint("load the event alone, then the rest");
                    return Err(at_line(error));
                }
            }
        }
    }
    Ok(emptied)
}

/// The end of all current rows.
fn everything_ends(opened: &Opened, shape: &Shape, at: i64) -> Result<LogicalPlan> {
    let rows: Arc<dyn TableProvider> = Arc::new(opened.rows()?);
    let rows = LogicalPlanBuilder::scan("current", provider_as_source(rows), None)?.build()?;
    let mut columns = Vec::with_capacity(shape.declared.fields().len() + 2);
    let named = columns_of(&rows).into_iter().zip(shape.declared.fields());
    for (place, (column, field)) in named.enumerate() {
        columns.push(match shape.sequence == Some(place) {
            true => lit(sequence_of(field.data_type(), at)?).alias(field.name()),
            false => column,
        });
    }
    columns.push(lit(true).alias(DELETE));
    columns.push(lit(ScalarValue::Binary(None)).alias(KEEP));
    Ok(LogicalPlanBuilder::from(rows).project(columns)?.build()?)
}

/// An instant as a value of the sequence column: a cast would take the zone of the session.
fn sequence_of(data_type: &DataType, at: i64) -> Result<ScalarValue> {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Ok(ScalarValue::TimestampMicrosecond(Some(at), zone.clone()))
        }
        DataType::Date32 => Ok(ScalarValue::Date32(
            i32::try_from(at.div_euclid(MICROS_PER_DAY)).ok(),
        )),
        other => Err(Error::internal(format!(
            "a sequence that is {other}, no point in time"
        ))),
    }
}

/// An error of a line.
fn placed(error: Error, place: &str) -> Error {
    let told = format!("{place}: {}", error.message());
    error.reworded(told)
}

/// The changes of one file.
struct FileChanges {
    file: Listed,
    /// The place in the stream of what comes before its first line.
    first: i64,
    terms: Arc<Terms>,
}

impl fmt::Debug for FileChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileChanges")
            .field("file", &self.file.name)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for FileChanges {
    fn schema(&self) -> &SchemaRef {
        &self.terms.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = context.session_config().batch_size();
        let begin = Step::Begin {
            file: self.file.clone(),
            changes: Changes::new(Arc::clone(&self.terms)),
        };
        let first = self.first;
        let batches = stream::try_unfold(begin, move |step| async move {
            step.next(first, rows).await.map_err(DataFusionError::from)
        });
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.terms.schema),
            batches,
        ))
    }
}

/// How far the reading of a file has come.
enum Step {
    Begin { file: Listed, changes: Changes },
    Reading { lines: Lines, changes: Changes },
    Done,
}

impl Step {
    /// The next rows, about `rows` of them.
    async fn next(self, first: i64, rows: usize) -> Result<Option<(RecordBatch, Self)>> {
        let (mut lines, mut changes) = match self {
            Self::Begin { file, changes } => (Lines::open(&file).await?, changes),
            Self::Reading { lines, changes } => (lines, changes),
            Self::Done => return Ok(None),
        };
        while changes.rows() < rows {
            let Some(Line { number, text }) = lines.next().await? else {
                if changes.skipped > 0 {
                    tracing::info!(
                        file = lines.file(),
                        records = changes.skipped,
                        "tombstones, messages and markers of transactions say nothing of a row"
                    );
                }
                let batch = changes.batch()?;
                return Ok(Some((batch, Self::Done)));
            };
            // A line may make two rows: the end of the old key, and the new one.
            let position = i64::try_from(number)
                .ok()
                .and_then(|number| first.checked_add(number.checked_mul(2)?))
                .ok_or_else(|| Error::internal("a file of too many lines"))?;
            changes
                .push(&text, position)
                .map_err(|error| placed(error, &lines.place(number)))?;
        }
        let batch = changes.batch()?;
        Ok(Some((batch, Self::Reading { lines, changes })))
    }
}

#[cfg(test)]
mod tests;

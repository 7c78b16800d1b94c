//! COPY INTO .. FORMAT DEBEZIUM: changes that were captured in another database, into a journal.
//!
//! ```text
//! files -> lines -> change (what an event does, cells by columns) -> settled (one of each key and instant) -> a write of changes
//! ```
//!
//! The order of lines is the order of changes. What a line says that is not known here is an error: a history made
//! of the others would be wrong. A line is an envelope, or `{"key": .., "value": ..}`, with or without schemas.
//!
//! | op | becomes |
//! | --- | --- |
//! | `c`, `r`, `u` | the row of `after`, whole; a changed key also ends that of `before` |
//! | `d` | the end of the key that `before`, or the record's key, names |
//! | `t` | the end of all current rows; a load may begin with it |
//! | `m`, markers of transactions | nothing |
//! | the tombstone behind a delete | nothing; an error if its delete is nowhere and the table holds the key |
//!
//! | option | says | default |
//! | --- | --- | --- |
//! | `sequence` | what orders changes: `event`, `source.ts_us`, `source.ts_ms`, `ts_us`, `ts_ms`, or a field of the row | `event`, while rows have no field of the SEQUENCE BY column |
//! | `unavailable` | the marker of a value that the log did not hold, which stays what it was | `__debezium_unavailable_value` |
//! | `key_field` | the member of a line that holds the record's key | `key` |
//! | `timestamp_unit` | `ms`, `us` or `ns`: what numbers for TIMESTAMP columns count where no schema says it | refused |
//! | `binary` | `base64` or `hex`: how bytes are written | `base64` |
//!
//! One clock orders all changes: that of the database (`source.ts_us` or `source.ts_ms`; of the connector where it is
//! silent), and the SEQUENCE BY column holds its instant. A clock of the rows, such as `updated_at`, is another one: a
//! delete has no instant there, and a row that is deleted and made anew in one transaction may have an earlier one than
//! its delete. So rows with an instant of their own in that column are refused until the option chooses. With a field,
//! deletes take the event's instant, after that of the row they end.
//!
//! Of several changes of a key at one instant in one load, what is true behind the last line counts.

mod cells;
mod change;
mod decimal;
mod emptied;
mod lines;
mod rows;
mod schema;
mod settled;
mod terms;
mod tombstones;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use futures::stream;

use self::cells::{Bytes, Reading, Unit};
use self::change::Changes;
use self::emptied::Emptied;
use self::lines::{Line, Lines};
use self::terms::{Stamp, Terms, When};
use self::tombstones::Tombstones;
use super::files::{self, Listed};
use super::insert;
use super::scope::Scope;
use crate::error::{Error, Result};
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
    let terms = Arc::new(with_options(shape, &copy.options)?);
    let state = scope.state();
    let mut files = Vec::new();
    for path in &copy.files {
        files.extend(files::listed(&state, path).await?);
    }
    let current: Arc<dyn TableProvider> = Arc::new(opened.rows()?);
    let input = changes(&state, files, &terms, &current).await?;
    insert::change_rows(
        scope,
        &opened,
        input,
        OPERATION,
        JournalMode::Changes,
        false,
    )
}

/// What the options of the statement say.
fn with_options(shape: Arc<Shape>, options: &[(String, String)]) -> Result<Terms> {
    let mut reading = Reading {
        unavailable: UNAVAILABLE.to_owned(),
        unit: None,
        bytes: Bytes::Base64,
    };
    let (mut key_field, mut when) = ("key".to_owned(), When::Event);
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
                    Some((_, stamp)) => When::Stamp(*stamp),
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

/// The rows of all files, of several for one key and instant one.
async fn changes(
    state: &SessionState,
    files: Vec<Listed>,
    terms: &Arc<Terms>,
    current: &Arc<dyn TableProvider>,
) -> Result<LogicalPlan> {
    let emptied = emptied::leading(&files, terms).await?;
    let names = files.iter().map(|file| file.name.clone()).collect();
    let tombstones = Arc::new(Tombstones::new(
        Arc::clone(terms),
        names,
        Arc::clone(current),
        state.clone(),
    ));
    let streams = files.into_iter().zip(0_i64..).map(|(file, place)| {
        Arc::new(FileChanges {
            file,
            first: first_position(place),
            terms: Arc::clone(terms),
            emptied: emptied.clone(),
            tombstones: Arc::clone(&tombstones),
        }) as Arc<dyn PartitionStream>
    });
    let read = StreamingTableExec::try_new(
        Arc::clone(&terms.schema),
        streams.collect(),
        None,
        Vec::<LexOrdering>::new(),
        false,
        None,
    )?;
    let mut parts: Vec<Arc<dyn ExecutionPlan>> = vec![Arc::new(read)];
    for emptied in &emptied {
        parts.push(emptied::ends(state, current, terms, emptied).await?);
    }
    let partitions = state.config().target_partitions();
    let table = settled::settled(UnionExec::try_new(parts)?, terms, partitions)?;
    let table = provider_as_source(Arc::new(table));
    let rows = LogicalPlanBuilder::scan("changes", table, None)?.build()?;
    match emptied.is_empty() {
        true => Ok(rows),
        false => emptied::depending(rows, current),
    }
}

/// The place in the stream of what comes before the first line of a file.
fn first_position(file: i64) -> i64 {
    file << LINE_BITS
}

/// The place of a line, which may make two rows: the end of the old key, and the new one.
fn position(first: i64, line: u64) -> Result<i64> {
    i64::try_from(line)
        .ok()
        .and_then(|line| first.checked_add(line.checked_mul(2)?))
        .ok_or_else(|| Error::internal("a file of too many lines"))
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
    /// The events that emptied the table before all others.
    emptied: Vec<Emptied>,
    tombstones: Arc<Tombstones>,
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
            changes: Changes::new(
                Arc::clone(&self.terms),
                self.emptied.clone(),
                context.memory_pool(),
            ),
        };
        let (first, tombstones) = (self.first, Arc::clone(&self.tombstones));
        let batches = stream::try_unfold(begin, move |step| {
            let tombstones = Arc::clone(&tombstones);
            async move {
                let next = step.next(first, rows, &tombstones).await;
                next.map_err(DataFusionError::from)
            }
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
    async fn next(
        self,
        first: i64,
        rows: usize,
        tombstones: &Tombstones,
    ) -> Result<Option<(RecordBatch, Self)>> {
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
                tombstones.file_ends(changes.gone()).await?;
                return Ok(Some((batch, Self::Done)));
            };
            let position = position(first, number)?;
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

//! Stage 5: run the plan and write its rows as Parquet data files. The first effect of a write,
//! and an invisible one: no commit refers to the files yet.
//!
//! ```text
//! plan -> lane (one per input partition) -> partition -> encode -> upload -> add (with stats)
//! ```
//!
//! - `lane`: rows of one input partition, bounded memory, files of the wanted size
//! - `partition`: rows told apart by partition values
//! - `encode`: one Parquet file, its columns in parallel
//! - `trial`: which encoding makes whole numbers small
//! - `nan`: chunks that hold NaN, whose bounds would be untrue
//! - `stats`: the log's statistics from the file's footer
//! - `upload`: bytes to an object, and the clean-up when the write fails
//!
//! This room does not check rows and knows no version: `validate` comes before, `commit` after.

mod encode;
mod lane;
mod nan;
mod partition;
mod stats;
#[cfg(test)]
mod tests;
mod trial;
mod upload;

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::runtime::JoinSet;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use uuid::Uuid;

use self::encode::Format;
pub(crate) use self::encode::ROW_GROUP_ROWS;
use self::lane::{Lane, Outcome, STEP_ROWS};
use self::partition::{Layout, Place};
use self::stats::StatsPlan;
pub(crate) use self::stats::{STATS_COLUMNS_KEY, lists};
use self::upload::{Ledger, Undo, delete_all};
use crate::error::{Error, Result};
use crate::journal::definition;
use crate::table::actions::{Add, Metadata};
use crate::table::mapping;
use crate::table::snapshot::TableRoot;

/// Memory of one lane before its largest file gives way.
const LANE_BYTES: usize = 256 << 20;

/// Makes the UUIDs in the names of files.
pub(crate) type Ids = Arc<dyn Fn() -> Uuid + Send + Sync>;
/// Milliseconds since the epoch.
pub(crate) type ClockMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Writes rows of one table into new data files.
#[derive(Clone)]
pub(crate) struct FileSink {
    target: Arc<Target>,
}

/// The files of a write, not yet visible.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub adds: Vec<Add>,
    pub rows: u64,
    pub bytes: u64,
}

/// The files of a write as long as nobody says that they stay: dropped, it deletes them.
pub(crate) struct Held {
    written: Written,
    undo: Undo,
}

impl Held {
    pub(crate) fn written(&self) -> &Written {
        &self.written
    }

    /// They stay, whatever comes.
    pub(crate) fn keep(self) -> Written {
        self.undo.keep();
        self.written
    }

    /// Deletes them now.
    pub(crate) async fn discard(self) {
        self.undo.run().await;
    }
}

/// Where files go and what they look like.
struct Target {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    layout: Layout,
    format: Arc<Format>,
    file_bytes: usize,
    /// The partition whose files have one row group each, if any: a column's name in files, and its value.
    single: Option<(String, String)>,
    lane_bytes: usize,
    /// Whether columns are encoded by tasks of their own.
    parallel: bool,
    ids: Ids,
    now_ms: ClockMs,
}

impl FileSink {
    /// A sink for rows of `schema`, the whole schema of the table `metadata` describes; a file is
    /// closed when it reaches `target_file_bytes`.
    pub(crate) fn new(
        root: &TableRoot,
        schema: &SchemaRef,
        metadata: &Metadata,
        target_file_bytes: u64,
        ids: Ids,
        now_ms: ClockMs,
    ) -> Result<Self> {
        // Measured on rows like TPC-H lineitem: against Snappy a fifth more time to encode, a
        // fifth fewer bytes to sync and to send, and no difference in reading.
        let level = ZstdLevel::try_new(1)
            .map_err(|e| Error::internal("zstd level 1 is not known").with_source(e))?;
        let compression = Compression::ZSTD(level);
        let in_files = mapping::in_files(schema, metadata)?;
        let layout = Layout::new(Arc::clone(schema), &in_files, &metadata.partition_columns)?;
        let stats = StatsPlan::new(&layout.file, &layout.names(), metadata)?;
        let found_by = found_by(schema, &in_files, metadata)?;
        let format = Format::new(Arc::clone(&layout.file), stats, compression, found_by)?;
        Ok(Self {
            target: Arc::new(Target {
                store: Arc::clone(&root.store),
                folder: root.path.clone(),
                layout,
                format: Arc::new(format),
                file_bytes: usize::try_from(target_file_bytes).unwrap_or(usize::MAX),
                single: None,
                lane_bytes: LANE_BYTES,
                parallel: std::thread::available_parallelism().is_ok_and(|n| n.get() > 1),
                ids,
                now_ms,
            }),
        })
    }

    /// The same for rows of a journal whose current rows `flag` tells: a file of these is closed after one row group.
    /// Later writes delete rows all over it, and of many files a few can be written again at a time.
    pub(crate) fn of_journal(mut self, flag: &str) -> Result<Self> {
        let target = Arc::get_mut(&mut self.target)
            .ok_or_else(|| Error::internal("files of a journal are being written already"))?;
        let name = target.layout.physical_name(flag)?.to_owned();
        target.single = Some((name, true.to_string()));
        Ok(self)
    }

    /// Runs `plan`, whose rows have the table's schema, into new files, which are the caller's then.
    ///
    /// On an error, and when the future is dropped, the files are deleted again.
    pub(crate) async fn write(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Written> {
        self.hold(plan, context).await.map(Held::keep)
    }

    /// As [`Self::write`], and the files are deleted as long as nobody says that they stay.
    pub(crate) async fn hold(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Held> {
        let plan = self.together(plan, &context)?;
        let inputs = 0..plan.output_partitioning().partition_count();
        let inputs = inputs
            .map(|input| plan.execute(input, Arc::clone(&context)))
            .collect::<datafusion::common::Result<_>>()?;
        self.held(inputs, &context).await
    }

    /// Writes `rows`, in their order; as [`Self::write`].
    pub(crate) async fn write_rows(
        &self,
        rows: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> Result<Written> {
        self.hold_rows(rows, context).await.map(Held::keep)
    }

    /// Writes `rows`, in their order; as [`Self::hold`].
    pub(crate) async fn hold_rows(
        &self,
        rows: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> Result<Held> {
        self.held(vec![rows], context).await
    }

    async fn held(
        &self,
        inputs: Vec<SendableRecordBatchStream>,
        context: &TaskContext,
    ) -> Result<Held> {
        let undo = Undo::new(Arc::clone(&self.target.store));
        match self.run(inputs, context, undo.ledger()).await {
            Ok(written) => Ok(Held { written, undo }),
            Err(error) => {
                undo.run().await;
                Err(error)
            }
        }
    }

    /// Deletes files of ours that no commit refers to, and none will.
    pub(crate) async fn discard(&self, adds: &[Add]) {
        let paths = adds
            .iter()
            .filter_map(|add| self.target.object_path(&decode_path(&add.path)?).ok())
            .collect();
        delete_all(&*self.target.store, paths).await;
    }

    /// The log's statistics of a file of this table that another writer made, from its footer. They are
    /// `tight` when no row of the file is deleted.
    pub(crate) fn statistics(&self, footer: &ParquetMetaData, tight: bool) -> String {
        self.target.format.stats.of_foreign(footer, tight)
    }

    async fn run(
        &self,
        streams: Vec<SendableRecordBatchStream>,
        context: &TaskContext,
        ledger: &Arc<Ledger>,
    ) -> Result<Written> {
        let inputs = streams.len();
        let lane = |number: usize| {
            let reservation =
                MemoryConsumer::new(format!("DataFiles[{number}]")).register(context.memory_pool());
            Lane::new(number, &self.target, ledger, reservation)
        };
        let mut lanes = JoinSet::new();
        for (input, rows) in streams.into_iter().enumerate() {
            let lane = lane(input)?;
            lanes.spawn(async move { Ok::<_, Error>((input, drain(lane, rows).await?)) });
        }
        let mut outcomes: Vec<(usize, Outcome)> = Vec::with_capacity(inputs);
        while let Some(joined) = lanes.join_next().await {
            outcomes.push(joined.map_err(upload::stopped)??);
        }
        // Lanes end in any order; files are reported in that of the input.
        outcomes.sort_by_key(|(input, _)| *input);

        let mut last = lane(inputs)?;
        let mut written = Written::default();
        for (_, outcome) in outcomes {
            for batch in &outcome.tail {
                last.push(batch).await?;
            }
            written.take(outcome);
        }
        written.take(last.finish().await?);
        Ok(written)
    }

    /// Brings the rows of a partition of the table into one lane, so that they share files.
    fn together(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &TaskContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let layout = &self.target.layout;
        let lanes = context.session_config().target_partitions();
        if !layout.partitioned() || plan.output_partitioning().partition_count() == 1 {
            return Ok(plan);
        }
        let columns = layout
            .partition()
            .iter()
            .map(|&i| Arc::new(Column::new(layout.table.field(i).name(), i)) as _)
            .collect();
        let spread = RepartitionExec::try_new(plan, Partitioning::Hash(columns, lanes));
        Ok(Arc::new(spread.map_err(Error::from)?))
    }
}

/// Names in files of the columns by which the rows of a journal are found: keys and period. None for a plain table.
fn found_by(
    schema: &SchemaRef,
    in_files: &Schema,
    metadata: &Metadata,
) -> Result<Option<Vec<String>>> {
    let Some(journal) = definition::of("of these files", &metadata.configuration)? else {
        return Ok(None);
    };
    let names = journal
        .keys
        .iter()
        .chain([&journal.columns.from, &journal.columns.to]);
    let places = names.filter_map(|name| schema.index_of(name).ok());
    let columns = places.filter_map(|place| in_files.fields().get(place));
    Ok(Some(columns.map(|field| field.name().clone()).collect()))
}

impl Written {
    fn take(&mut self, outcome: Outcome) {
        self.rows += outcome.rows;
        self.bytes += outcome
            .adds
            .iter()
            .map(|a| a.size.unsigned_abs())
            .sum::<u64>();
        self.adds.extend(outcome.adds);
    }
}

impl Target {
    /// Whether a file of so many bytes and rows takes no more.
    fn is_full(&self, place: &Place, bytes: usize, rows: u64) -> bool {
        let single = self.single.as_ref().is_some_and(|(name, value)| {
            place.values.get(name).and_then(Option::as_ref) == Some(value)
        });
        // What comes next shall not begin another row group.
        let most = (ROW_GROUP_ROWS - 2 * STEP_ROWS) as u64;
        bytes >= self.file_bytes || single && rows > most
    }

    /// Where the file `name`, relative to the table, is in the store.
    fn object_path(&self, name: &str) -> Result<Path> {
        let full = match self.folder.as_ref() {
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        };
        // Parsed and not built of parts: building would escape what the folders escaped already.
        Path::parse(&full).map_err(|e| {
            Error::internal(format!("data file {full} has a name no store takes")).with_source(e)
        })
    }

    fn add(&self, name: &str, place: &Place, bytes: u64, stats: String) -> Add {
        Add {
            path: encode_path(name),
            partition_values: place.values.clone(),
            size: i64::try_from(bytes).unwrap_or(i64::MAX),
            modification_time: (self.now_ms)(),
            data_change: true,
            stats: Some(stats),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }
    }
}

/// Feeds a lane until its input ends.
async fn drain(mut lane: Lane, mut rows: SendableRecordBatchStream) -> Result<Outcome> {
    while let Some(batch) = rows.next().await {
        lane.push(&batch.map_err(Error::from)?).await?;
    }
    lane.finish_but_tail().await
}

/// A relative path as the log writes it: URL-encoded, on top of what the folders' names escape.
fn encode_path(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b'=' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The inverse of [`encode_path`]; `None` for a path it did not make.
fn decode_path(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

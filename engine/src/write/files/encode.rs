//! One Parquet data file: rows in, encoded row groups out to the upload.
//!
//! Columns of a large file are encoded by a task each, so that one writer keeps all cores busy and
//! the plan's next rows are computed meanwhile. A small file is encoded in place.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::runtime::SpawnedTask;
use parking_lot::Mutex;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowLeafColumn, ArrowRowGroupWriterFactory,
    compute_leaves,
};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescriptor, TypePtr};
use tokio::sync::mpsc;

use super::nan::{self, NanLeaves};
use super::stats::{STRING_BYTES, Seen, StatsPlan};
use super::trial::{self, Packing};
use super::upload::{Upload, join};
use crate::error::{Error, Result};
use crate::table::footer;

/// Rows of a full row group: enough for good encoding, few enough to skip and to share out.
pub(crate) const ROW_GROUP_ROWS: usize = 1 << 20;
/// Rows of a page of a journal: what is read for one row, of each column.
const JOURNAL_PAGE_ROWS: usize = 4 << 10;
/// Below this many rows neither dictionaries nor the probe for them pay.
const DICTIONARY_ROWS: usize = 1024;
/// Rows the probe for dictionaries looks at.
const PROBED_ROWS: usize = 8192;
/// Below this many bytes a compressor costs more than it saves.
const COMPRESSED_BYTES: usize = 16 << 10;
/// Batches with fewer rows on average are joined first: each call of an encoder has a price.
const JOINED_ROWS: usize = 1024;

/// What all files of one write have in common.
#[derive(Debug)]
pub(super) struct Format {
    /// Columns of a file: those of the table without the partition columns.
    pub(super) schema: SchemaRef,
    pub(super) stats: StatsPlan,
    parquet: TypePtr,
    compression: Compression,
    /// Columns by which rows of a journal are found; their pages tell bounds. None for a plain table.
    found_by: Option<Vec<String>>,
    /// The columns of whole numbers, and how each is packed, once a file began with enough rows to tell.
    packings: HashMap<String, OnceLock<Packing>>,
}

impl Format {
    pub(super) fn new(
        schema: SchemaRef,
        stats: StatsPlan,
        compression: Compression,
        found_by: Option<Vec<String>>,
    ) -> Result<Self> {
        let parquet = ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(encoding)?
            .root_schema_ptr();
        let leaves = SchemaDescriptor::new(Arc::clone(&parquet));
        let whole = leaves.columns().iter().filter(|leaf| trial::is_whole(leaf));
        let packings = whole.map(|leaf| (leaf.name().to_owned(), OnceLock::new()));
        Ok(Self {
            packings: packings.collect(),
            schema,
            stats,
            parquet,
            compression,
            found_by,
        })
    }

    /// Writer properties for a file that begins with `sample`.
    fn properties(&self, sample: &[RecordBatch]) -> Result<WriterProperties> {
        let rows: usize = sample.iter().map(RecordBatch::num_rows).sum();
        let small =
            rows < PROBED_ROWS && sample.iter().map(batch_bytes).sum::<usize>() < COMPRESSED_BYTES;
        let mut properties = WriterProperties::builder()
            .set_created_by(footer::created_by())
            .set_compression(match small {
                true => Compression::UNCOMPRESSED,
                false => self.compression,
            })
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_statistics_truncate_length(Some(STRING_BYTES))
            .set_dictionary_enabled(rows >= DICTIONARY_ROWS);
        if let Some(columns) = &self.found_by {
            properties = properties.set_data_page_row_count_limit(JOURNAL_PAGE_ROWS);
            for column in columns {
                let column = ColumnPath::new(vec![column.clone()]);
                let pages = EnabledStatistics::Page;
                properties = properties.set_column_statistics_enabled(column, pages);
            }
        }
        let leaves = SchemaDescriptor::new(Arc::clone(&self.parquet));
        for leaf in leaves.columns() {
            let path = leaf.path();
            let column = path.parts().first();
            if column.is_some_and(|column| self.stats.discreet().contains(column)) {
                let none = EnabledStatistics::None;
                properties = properties.set_column_statistics_enabled(path.clone(), none);
            }
        }
        if rows >= DICTIONARY_ROWS
            && let Some(first) = sample.iter().max_by_key(|b| b.num_rows())
        {
            for (field, array) in self.schema.fields().iter().zip(first.columns()) {
                if field.data_type().is_nested() {
                    continue;
                }
                let column = ColumnPath::new(vec![field.name().clone()]);
                let distinct = mostly_distinct(array)?;
                if distinct {
                    properties = properties.set_column_dictionary_enabled(column.clone(), false);
                }
                if let Some(packing) = self.packings.get(field.name())
                    && !small
                {
                    let tried = match packing.get() {
                        Some(packing) => Some(*packing),
                        None => trial::packing(field, array, distinct, self.compression)
                            .map_err(encoding)?,
                    };
                    if let Some(tried) = tried {
                        properties = packing.get_or_init(|| tried).of(column, properties);
                    }
                }
            }
        }
        Ok(properties.build())
    }
}

/// A file being encoded.
pub(super) struct Encoder {
    format: Arc<Format>,
    parquet: SerializedFileWriter<Buffer>,
    factory: ArrowRowGroupWriterFactory,
    /// Where the Parquet writer puts its bytes, and we take them.
    buffer: Buffer,
    row_group: Option<RowGroup>,
    seen: Vec<Seen>,
    /// Of the row groups that are finished.
    nan: NanLeaves,
    parallel: bool,
    rows: u64,
}

/// A file whose last byte was encoded.
pub(super) struct Encoded {
    pub(super) rows: u64,
    /// The log's statistics.
    pub(super) stats: String,
}

impl Encoder {
    /// A file that begins with `sample`, by which its encodings are chosen.
    pub(super) fn new(
        format: &Arc<Format>,
        sample: &[RecordBatch],
        parallel: bool,
    ) -> Result<Self> {
        let buffer = Buffer::default();
        let parquet = SerializedFileWriter::new(
            buffer.clone(),
            Arc::clone(&format.parquet),
            Arc::new(format.properties(sample)?),
        )
        .map_err(encoding)?;
        let factory = ArrowRowGroupWriterFactory::new(&parquet, Arc::clone(&format.schema));
        Ok(Self {
            format: Arc::clone(format),
            parquet,
            factory,
            buffer,
            row_group: None,
            seen: format.stats.unseen(),
            nan: NanLeaves::default(),
            parallel,
            rows: 0,
        })
    }

    /// Encoded bytes so far, those not yet in a finished row group estimated.
    pub(super) fn bytes(&self) -> usize {
        self.parquet.bytes_written() + self.row_group.as_ref().map_or(0, |g| g.sizes().0)
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes held in memory.
    pub(super) fn memory(&self) -> usize {
        self.row_group.as_ref().map_or(0, |g| g.sizes().1)
    }

    pub(super) async fn write(
        &mut self,
        batches: &[RecordBatch],
        upload: &mut Upload,
    ) -> Result<()> {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if batches.len() > 1 && rows / batches.len() < JOINED_ROWS {
            let joined = concat_batches(&self.format.schema, batches).map_err(arrow)?;
            return self.write_all(&[joined], upload).await;
        }
        self.write_all(batches, upload).await
    }

    async fn write_all(&mut self, batches: &[RecordBatch], upload: &mut Upload) -> Result<()> {
        // Batches that go into the same row group are handed to its columns together.
        let mut together = Vec::with_capacity(batches.len());
        let mut room = self.room();
        for batch in batches {
            self.format.stats.observe(batch, &mut self.seen);
            self.rows += batch.num_rows() as u64;
            let mut rest = batch.clone();
            while rest.num_rows() >= room {
                together.push(rest.slice(0, room));
                rest = rest.slice(room, rest.num_rows() - room);
                self.encode(&together).await?;
                together.clear();
                self.flush_row_group(upload).await?;
                room = self.room();
            }
            if rest.num_rows() > 0 {
                room -= rest.num_rows();
                together.push(rest);
            }
        }
        if !together.is_empty() {
            self.encode(&together).await?;
        }
        Ok(())
    }

    fn room(&self) -> usize {
        ROW_GROUP_ROWS - self.row_group.as_ref().map_or(0, |g| g.rows)
    }

    async fn encode(&mut self, batches: &[RecordBatch]) -> Result<()> {
        let group = match &mut self.row_group {
            Some(group) => group,
            none => {
                let index = self.parquet.flushed_row_groups().len();
                let writers = self
                    .factory
                    .create_column_writers(index)
                    .map_err(encoding)?;
                none.insert(RowGroup::new(writers, self.parallel))
            }
        };
        group.write(&self.format.schema, batches).await
    }

    /// Ends the open row group, if any, and passes its bytes on.
    pub(super) async fn flush_row_group(&mut self, upload: &mut Upload) -> Result<()> {
        let Some(mut group) = self.row_group.take() else {
            return Ok(());
        };
        let nan = std::mem::take(&mut group.nan);
        let chunks = group.close().await?;
        let mut writer = self.parquet.next_row_group().map_err(encoding)?;
        for (leaf, mut chunk) in chunks.into_iter().enumerate() {
            if nan.contains(&leaf) {
                let close = chunk.close_mut();
                close.metadata = footer::unbounded(close.metadata.clone()).map_err(encoding)?;
                close.column_index = None;
            }
            chunk.append_to_row_group(&mut writer).map_err(encoding)?;
            upload.push(self.buffer.take()).await?;
        }
        writer.close().map_err(encoding)?;
        self.nan.extend(nan);
        Ok(())
    }

    /// Ends the file with its footer.
    pub(super) async fn finish(mut self, upload: &mut Upload) -> Result<Encoded> {
        self.flush_row_group(upload).await?;
        let footer = self.parquet.finish().map_err(encoding)?;
        upload.push(self.buffer.take()).await?;
        Ok(Encoded {
            rows: self.rows,
            stats: self.format.stats.render(&footer, &self.seen, &self.nan),
        })
    }
}

/// A row group being encoded.
struct RowGroup {
    rows: usize,
    nan: NanLeaves,
    columns: Columns,
}

enum Columns {
    InPlace(Vec<ArrowColumnWriter>),
    Tasks(Vec<ColumnTask>),
}

/// A column encoded by a task of its own.
struct ColumnTask {
    sender: mpsc::Sender<Work>,
    task: SpawnedTask<Result<ArrowColumnChunk>>,
    sizes: Arc<Sizes>,
}

struct Work {
    leaves: Vec<ArrowLeafColumn>,
    /// Share of this column in the memory of the batches.
    bytes: usize,
}

/// What a column's task says of itself.
#[derive(Default)]
struct Sizes {
    encoded: AtomicUsize,
    memory: AtomicUsize,
    /// Bytes of rows sent and not yet encoded.
    queued: AtomicUsize,
}

impl RowGroup {
    fn new(writers: Vec<ArrowColumnWriter>, parallel: bool) -> Self {
        let columns = match parallel {
            true => Columns::Tasks(writers.into_iter().map(ColumnTask::spawn).collect()),
            false => Columns::InPlace(writers),
        };
        Self {
            rows: 0,
            nan: NanLeaves::default(),
            columns,
        }
    }

    async fn write(&mut self, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<()> {
        self.rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        for batch in batches {
            nan::find(batch, &mut self.nan);
        }
        match &mut self.columns {
            Columns::InPlace(writers) => {
                for batch in batches {
                    for (writer, leaf) in writers.iter_mut().zip(leaves(schema, batch)?) {
                        writer.write(&leaf).map_err(encoding)?;
                    }
                }
                Ok(())
            }
            Columns::Tasks(tasks) => {
                let bytes = batches.iter().map(batch_bytes).sum::<usize>() / tasks.len().max(1);
                let mut work: Vec<Vec<ArrowLeafColumn>> = Vec::new();
                work.resize_with(tasks.len(), || Vec::with_capacity(batches.len()));
                for batch in batches {
                    for (work, leaf) in work.iter_mut().zip(leaves(schema, batch)?) {
                        work.push(leaf);
                    }
                }
                for (task, leaves) in tasks.iter().zip(work) {
                    task.sizes.queued.fetch_add(bytes, Ordering::Relaxed);
                    if task.sender.send(Work { leaves, bytes }).await.is_err() {
                        // The task has ended by an error, which closing brings to light.
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// Encoded bytes and bytes in memory.
    fn sizes(&self) -> (usize, usize) {
        match &self.columns {
            Columns::InPlace(writers) => writers.iter().fold((0, 0), |(encoded, memory), w| {
                (
                    encoded + w.get_estimated_total_bytes(),
                    memory + w.memory_size(),
                )
            }),
            Columns::Tasks(tasks) => tasks.iter().fold((0, 0), |(encoded, memory), t| {
                (
                    encoded + t.sizes.encoded.load(Ordering::Relaxed),
                    memory
                        + t.sizes.memory.load(Ordering::Relaxed)
                        + t.sizes.queued.load(Ordering::Relaxed),
                )
            }),
        }
    }

    async fn close(self) -> Result<Vec<ArrowColumnChunk>> {
        match self.columns {
            Columns::InPlace(writers) => writers
                .into_iter()
                .map(|w| w.close().map_err(encoding))
                .collect(),
            Columns::Tasks(tasks) => {
                let mut running = Vec::with_capacity(tasks.len());
                for ColumnTask { sender, task, .. } in tasks {
                    // The end of its input ends the task.
                    drop(sender);
                    running.push(task);
                }
                let mut chunks = Vec::with_capacity(running.len());
                for task in running {
                    chunks.push(join(task).await?);
                }
                Ok(chunks)
            }
        }
    }
}

impl ColumnTask {
    fn spawn(mut writer: ArrowColumnWriter) -> Self {
        // One message waits while one is encoded: more would only hold memory.
        let (sender, mut receiver) = mpsc::channel::<Work>(1);
        let sizes = Arc::new(Sizes::default());
        let report = Arc::clone(&sizes);
        let task = SpawnedTask::spawn(async move {
            while let Some(Work { leaves, bytes }) = receiver.recv().await {
                for leaf in &leaves {
                    writer.write(leaf).map_err(encoding)?;
                }
                drop(leaves);
                report
                    .encoded
                    .store(writer.get_estimated_total_bytes(), Ordering::Relaxed);
                report.memory.store(writer.memory_size(), Ordering::Relaxed);
                report.queued.fetch_sub(bytes, Ordering::Relaxed);
            }
            writer.close().map_err(encoding)
        });
        Self {
            sender,
            task,
            sizes,
        }
    }
}

/// The Parquet leaf columns of a batch.
fn leaves(schema: &SchemaRef, batch: &RecordBatch) -> Result<Vec<ArrowLeafColumn>> {
    let mut all = Vec::with_capacity(batch.num_columns());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        all.extend(compute_leaves(field, array).map_err(encoding)?);
    }
    Ok(all)
}

/// Bytes a batch really uses: views count the text they point at, not the buffers they share with
/// the batches they were cut from.
pub(super) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|a| array_bytes(a)).sum()
}

fn array_bytes(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Utf8View => 16 * array.len() + array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => 16 * array.len() + array.as_binary_view().total_buffer_bytes_used(),
        _ => array
            .to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

/// Whether a dictionary of this column would hold nearly as many values as the column itself.
fn mostly_distinct(array: &dyn Array) -> Result<bool> {
    let sample = array.slice(0, array.len().min(PROBED_ROWS));
    let valid = sample.len() - sample.null_count();
    let mut hashes = vec![0; sample.len()];
    create_hashes([&sample], &RandomState::default(), &mut hashes)
        .map_err(|e| Error::internal("values cannot be hashed").with_source(e))?;
    let distinct: HashSet<u64> = hashes.into_iter().collect();
    Ok(valid > 0 && distinct.len() > valid / 4 * 3)
}

/// Memory the Parquet writer writes to and the upload is fed from.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock()).into()
    }
}

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encoding(error: ParquetError) -> Error {
    Error::internal("rows cannot be encoded as Parquet")
        .with_detail(error.to_string())
        .with_source(error)
}

fn arrow(error: datafusion::arrow::error::ArrowError) -> Error {
    Error::internal("batches cannot be joined")
        .with_detail(error.to_string())
        .with_source(error)
}

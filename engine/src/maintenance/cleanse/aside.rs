//! One file of quarantine without what the policies take away. It is read as it is, in the columns that the table had
//! when it was written, so that nothing else of it is lost.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::{filter, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::parquet::arrow::ParquetRecordBatchStreamBuilder;
use datafusion::parquet::errors::ParquetError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringTreemap;

use super::find::unexpected;
use super::rewrite::Tally;
use crate::cleanse::apply::{Applied, Running};
use crate::cleanse::aside;
use crate::cleanse::cast::fit;
use crate::error::{Error, Result};
use crate::maintenance::Job;
use crate::quality::failure::{FAILURES, OWN, ROW, failures_type, kept_as};
use crate::quality::record::{Origin, Replayed, SideFile};
use crate::store::Whole;
use crate::table::actions::Add;
use crate::table::records::{self, Quarantined};
use crate::table::snapshot::TableRoot;
use crate::table::{footer, mapping};
use crate::write::files::FileSink;
use crate::write::quarantine::{side_files, sink};

/// Before the name of a column of a file that the table no longer has.
const DROPPED: &str = "__selvedge_dropped_";

/// Rows that are read at a time.
const BATCH_ROWS: usize = 8192;

/// A file of quarantine that was written anew, which nobody sees yet.
pub(super) struct Moved {
    pub old: Quarantined,
    pub files: Vec<SideFile>,
    /// All rows of the old file.
    pub taken: Replayed,
    pub tally: Tally,
    pub bytes: u64,
    sink: FileSink,
    adds: Vec<Add>,
}

impl Moved {
    pub(super) async fn discard(&self) {
        self.sink.discard(&self.adds).await;
    }
}

/// What the policies would make of the rows of a file of quarantine.
pub(super) struct Asked {
    /// Whether anything of the file changes, rows that were taken up again included.
    pub changes: bool,
    /// What becomes of the rows that are still in quarantine.
    pub tally: Tally,
}

/// The rows of a file of Parquet, as it has them.
pub(crate) async fn open(
    root: &TableRoot,
    path: Path,
) -> Result<(SchemaRef, BoxStream<'static, Result<RecordBatch>>)> {
    let failed = |error: ParquetError| Error::from(DataFusionError::from(error));
    let store = Arc::new(Whole(Arc::clone(&root.store)));
    let meta = root.store.head(&path).await;
    let meta = meta.map_err(|error| Error::storage(format!("cannot read {path}"), error))?;
    let file = PartitionedFile::new(path.to_string(), meta.size);
    let reader = footer::open(store, file)?;
    let rows = ParquetRecordBatchStreamBuilder::new(reader)
        .await
        .map_err(failed)?
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(failed)?;
    Ok((Arc::clone(rows.schema()), rows.map_err(failed).boxed()))
}

/// Asks the policies of the rows of a file.
pub(super) async fn ask(root: &TableRoot, running: &Running, old: &Quarantined) -> Result<Asked> {
    let (_, mut rows) = open(root, root.locate(&old.file.path)?).await?;
    let (mut tally, mut changes, mut first) = (Tally::of(running), false, 0);
    while let Some(batch) = rows.try_next().await? {
        let put = Put::of(running, &batch)?;
        if put.changes() {
            changes = true;
            let left = visible(&old.gone, first, &batch)?;
            tally.counts.merge(&Put::of(running, &left)?.applied.counts);
        }
        first += batch.num_rows() as u64;
    }
    Ok(Asked { changes, tally })
}

/// The rows of a batch, which begins at `first`, that were not taken up again.
fn visible(gone: &RoaringTreemap, first: u64, batch: &RecordBatch) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let rows = BooleanBuffer::collect_bool(rows, |row| !gone.contains(first + row as u64));
    filter_record_batch(batch, &BooleanArray::new(rows, None)).map_err(unexpected)
}

/// Rows of quarantine that were put through the policies.
pub(crate) struct Put {
    given: RecordBatch,
    pub applied: Applied,
    /// What is left of them, in the columns they came in.
    pub after: RecordBatch,
}

impl Put {
    pub(crate) fn of(running: &Running, batch: &RecordBatch) -> Result<Self> {
        let table = &running.compiled().schema;
        let rows = relabelled(batch, named(table, batch.schema_ref()))?;
        let given = fitting(running, &rows)?;
        let applied = aside::apply(running, &given)?;
        let after = restored(running, &rows, &applied)?;
        let after = relabelled(&after, as_found(batch.schema_ref()))?;
        Ok(Self {
            given,
            applied,
            after,
        })
    }

    /// Whether anything is another than it was, what is said of the rows included.
    pub(crate) fn changes(&self) -> bool {
        let (before, after) = (&self.given, &self.applied.batch);
        let mut said = [FAILURES, ROW].into_iter();
        !self.applied.is_unchanged()
            || said.any(|name| before.column_by_name(name) != after.column_by_name(name))
    }
}

/// The same rows under other names.
fn relabelled(batch: &RecordBatch, columns: SchemaRef) -> Result<RecordBatch> {
    let count = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(columns, batch.columns().to_vec(), &count).map_err(unexpected)
}

/// The columns of a file under the names that the table of today has for them.
fn named(table: &Schema, file: &Schema) -> SchemaRef {
    let fields = file.fields().iter().map(|field| {
        let own = |own: &&Arc<Field>| kept_as(mapping::physical_name(own)) == field.name().as_str();
        let name = match table.fields().iter().find(own) {
            Some(own) => own.name().clone(),
            None if OWN.contains(&field.name().as_str()) => field.name().clone(),
            // A column that was dropped. Another may have got its name since.
            None => format!("{DROPPED}{}", field.name()),
        };
        field.as_ref().clone().with_name(name)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The columns of a file as they are, in which a value may be missing from now on.
fn as_found(file: &Schema) -> SchemaRef {
    let fields = file.fields().iter();
    let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The rows with all columns of the table of today in its types: what policies ask and say of them.
fn fitting(running: &Running, batch: &RecordBatch) -> Result<RecordBatch> {
    let table = &running.compiled().schema;
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = Default::default();
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    };
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name().as_str();
        match (name, table.field_with_name(name)) {
            (FAILURES, _) => add(name, fit(column, &failures_type())),
            (ROW, _) => add(name, fit(column, &DataType::Utf8)),
            (_, Err(_)) => add(name, Arc::clone(column)),
            (_, Ok(own)) => add(name, fit(column, own.data_type())),
        }
    }
    for field in table.fields() {
        if batch.column_by_name(field.name()).is_none() {
            let none = new_null_array(field.data_type(), batch.num_rows());
            add(field.name(), none);
        }
    }
    let count = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &count)
        .map_err(unexpected)
}

/// The rows after the policies in the columns they came in: what was not cleansed is as it was.
fn restored(running: &Running, batch: &RecordBatch, applied: &Applied) -> Result<RecordBatch> {
    let compiled = running.compiled();
    let kept = applied
        .erased
        .as_ref()
        .map(|erased| BooleanArray::new(!erased, None));
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = Default::default();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let name = field.name().as_str();
        let before = match &kept {
            Some(kept) => filter(column, kept).map_err(unexpected)?,
            None => Arc::clone(column),
        };
        let touched = compiled.touched().iter().zip(&applied.cleansed);
        let mut touched = touched.filter(|(at, _)| compiled.schema.field(**at).name() == name);
        let after = applied.batch.column_by_name(name);
        let column = match (name, touched.next(), after) {
            (FAILURES | ROW, _, Some(after)) => Arc::clone(after),
            (_, Some((_, Some(rows))), Some(after)) => {
                let after = fit(after, before.data_type());
                let rows = BooleanArray::new(rows.clone(), None);
                zip(&rows, &after, &before).map_err(unexpected)?
            }
            _ => before,
        };
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    }
    let count = RecordBatchOptions::new().with_row_count(Some(applied.batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &count)
        .map_err(unexpected)
}

/// Writes the rows that are left of a file of quarantine, as rows of the write that they came from.
pub(super) async fn rewrite(
    job: &Job,
    running: &Arc<Running>,
    old: Quarantined,
    tally: Tally,
    context: &Arc<TaskContext>,
) -> Result<Moved> {
    let table = &job.table;
    let (schema, rows) = open(&table.root, table.root.locate(&old.file.path)?).await?;
    let schema = Put::of(running, &RecordBatch::new_empty(schema))?
        .after
        .schema();
    let (running, gone, mut first) = (Arc::clone(running), old.gone.clone(), 0);
    let rows = rows.map(move |batch| -> datafusion::common::Result<RecordBatch> {
        let batch = batch?;
        let left = visible(&gone, first, &batch)?;
        first += batch.num_rows() as u64;
        Ok(Put::of(&running, &left)?.after)
    });
    let rows = RecordBatchStreamAdapter::new(Arc::clone(&schema), rows);
    let bytes = job.settings.target_file_bytes;
    let sink = sink(&table.root, &schema, bytes, &table.ambient)?;
    let written = sink.write_rows(Box::pin(rows), context).await?;
    let mut files = side_files(&written)?;
    for file in &mut files {
        file.origin = Some(Origin {
            version: old.version,
            at_ms: old.at_ms,
        });
    }
    let mut taken = RoaringTreemap::new();
    taken.insert_range(0..old.file.rows);
    taken -= &old.gone;
    Ok(Moved {
        taken: records::replayed(&old.file.path, &taken)?,
        old,
        files,
        tally,
        bytes: written.bytes,
        sink,
        adds: written.adds,
    })
}

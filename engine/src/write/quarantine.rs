//! The rows that leave the path, into files beside the table's. Only the commit of the write names them, so they
//! are there in the same instant as the rows that went on, or never.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use tokio::sync::mpsc::Receiver;

use super::files::{FileSink, Held, Written};
use super::target::WriteTarget;
use crate::clock::Ambient;
use crate::error::{Error, Result};
use crate::quality::failure::{UNFIT, quarantine_schema};
use crate::quality::record::SideFile;
use crate::table::actions::Metadata;
use crate::table::mapping;
use crate::table::records::{QUARANTINE, quarantine_folder};
use crate::table::schema::{PERSONAL, personal, with_tags};
use crate::table::snapshot::TableRoot;

/// Writes the rows of one write that go to quarantine, in the names that the table's files have for its columns:
/// a column that is renamed keeps its values there, and one that gets the name of a dropped one does not find them.
pub(super) struct Quarantine {
    sink: FileSink,
    schema: SchemaRef,
    names: Names,
}

/// What files call the columns of the table, where that is another name.
#[derive(Clone)]
struct Names(Arc<HashMap<String, String>>);

impl Names {
    fn new(table: &Schema, in_files: &Schema) -> Self {
        let fields = table.fields().iter().zip(in_files.fields());
        let other = fields.filter(|(own, file)| own.name() != file.name());
        let names = other.map(|(own, file)| (own.name().clone(), file.name().clone()));
        Self(Arc::new(names.collect()))
    }

    /// The rows with these names for the columns that a value did not fit.
    fn of(&self, rows: RecordBatch) -> Result<RecordBatch> {
        if self.0.is_empty() {
            return Ok(rows);
        }
        let at = rows.schema_ref().index_of(UNFIT).map_err(renamed)?;
        let mut columns = rows.columns().to_vec();
        let lists = columns[at].as_list::<i32>();
        let texts = lists.values().as_string::<i32>().iter();
        let texts =
            texts.map(|text| text.map(|name| self.0.get(name).map_or(name, String::as_str)));
        let texts: StringArray = texts.collect();
        let field = Arc::new(Field::new_list_field(DataType::Utf8, true));
        let (offsets, nulls) = (lists.offsets().clone(), lists.nulls().cloned());
        let lists = ListArray::try_new(field, offsets, Arc::new(texts), nulls).map_err(renamed)?;
        columns[at] = Arc::new(lists);
        RecordBatch::try_new(rows.schema(), columns).map_err(renamed)
    }
}

fn renamed(error: ArrowError) -> Error {
    Error::internal(format!("quarantined rows in the names of files: {error}")).with_source(error)
}

impl Quarantine {
    pub(super) fn new(target: &WriteTarget) -> Result<Self> {
        let table = target
            .metadata()
            .ok_or_else(|| Error::internal(format!("the write to {} has no table", target.name)))?;
        let in_files = match target.journals() {
            // Rows on their way lack the columns that the journal adds.
            Some(journal) => {
                let all = mapping::in_files(&journal.shape.stored, table)?;
                all.project(&journal.shape.places).map_err(renamed)?
            }
            None => mapping::in_files(&target.schema, table)?,
        };
        let schema = quarantine_schema(&in_files);
        let names = Names::new(&target.schema, &in_files);
        // What files call a column tells no less of a person.
        let fields = target.schema.fields().iter().zip(in_files.fields());
        let tagged = fields.map(|(own, file)| own.as_ref().clone().with_name(file.name()));
        let tagged = Schema::new(tagged.collect::<Vec<_>>());
        let bytes = target.settings.target_file_bytes;
        let columns = discreet(&schema, &tagged);
        let sink = sink(&target.table.root, &columns, bytes, &target.ambient)?;
        Ok(Self {
            sink,
            schema,
            names,
        })
    }

    /// Takes rows until there are no more. Nothing is left behind as long as nobody says that it stays.
    pub(super) async fn hold(
        &self,
        rows: Receiver<RecordBatch>,
        context: &Arc<TaskContext>,
    ) -> Result<Held> {
        let batches = stream::unfold(rows, |mut rows| async {
            rows.recv().await.map(|batch| (batch, rows))
        });
        let rows = RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            batches.map(Ok::<_, DataFusionError>),
        );
        self.hold_rows(Box::pin(rows), context).await
    }

    /// The same of rows that a stream gives.
    pub(super) async fn hold_rows(
        &self,
        rows: SendableRecordBatchStream,
        context: &Arc<TaskContext>,
    ) -> Result<Held> {
        let names = self.names.clone();
        let batches = rows.map(move |batch| names.of(batch?).map_err(DataFusionError::from));
        let rows = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches);
        self.sink.hold_rows(Box::pin(rows), context).await
    }

    pub(super) async fn discard(&self, written: &Written) {
        self.sink.discard(&written.adds).await;
    }
}

/// Where rows of `schema` go that are put aside from the table at `root`. The columns of quarantine must be those of
/// [`discreet`].
pub(crate) fn sink(
    root: &TableRoot,
    schema: &SchemaRef,
    target_file_bytes: u64,
    ambient: &Ambient,
) -> Result<FileSink> {
    let root = TableRoot {
        path: quarantine_folder(root),
        ..root.clone()
    };
    // Described as a table of its own, which has no partitions and needs no statistics.
    let metadata = Metadata::of_files([("delta.dataSkippingNumIndexedCols", "0")]);
    FileSink::new(
        &root,
        schema,
        &metadata,
        target_file_bytes,
        ambient.ids(),
        ambient.millis(),
    )
}

/// The columns of quarantine beside a table, tagged as those: a file tells no bounds of what tells something of a
/// person, nor of what holds all of a row.
pub(crate) fn discreet(quarantine: &Schema, table: &Schema) -> SchemaRef {
    let any = table.fields().iter().any(|field| personal(field));
    let secret = |field: &Field| match table.field_with_name(field.name()) {
        Ok(own) => personal(own),
        Err(_) => any,
    };
    let fields = quarantine.fields().iter().map(|field| {
        let field = field.as_ref().clone();
        match secret(&field) {
            true => with_tags(field, &BTreeSet::from([PERSONAL])),
            false => field,
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The files as the commit names them.
pub(crate) fn side_files(written: &Written) -> Result<Vec<SideFile>> {
    let file = |add: &crate::table::actions::Add| {
        let rows = add.counted_rows();
        Ok(SideFile {
            path: format!("{QUARANTINE}/{}", add.path),
            rows: rows.ok_or_else(|| Error::internal("a file of quarantine has no row count"))?,
            bytes: add.size.unsigned_abs(),
            origin: None,
        })
    };
    written.adds.iter().map(file).collect()
}

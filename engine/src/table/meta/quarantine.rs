//! `t$quarantine`: the rows that rules kept out of the table, in the columns that the table has today.
//!
//! ```text
//! records -> files with rows left -> rows not taken up again -> columns of today (lenient) -> _id
//! ```
//!
//! Which rows there are follows from the commits alone, as with the table's own. Files have the names that the
//! table's own files have for its columns, so that a column is the same under whatever name it goes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use datafusion::arrow::array::{Int64Array, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue, project_schema};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::parquet::arrow::arrow_reader::RowSelection;
use datafusion::parquet::file::metadata::PageIndexPolicy;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, cast, col};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;
use object_store::ObjectMeta;

use super::super::actions::Add;
use super::super::located::{self, Located};
use super::super::mapped_footer::Names;
use super::super::mapping::Mode;
use super::super::records::{self, Quarantined};
use super::super::snapshot::{DataFile, Snapshot, TableRoot};
use super::super::source::source;
use super::super::{deletion, mapping, prune};
use super::lenient::{Apart, Lenient, nullable};
use super::past_ms;
use crate::around::AroundExec;
use crate::error::Error;
use crate::journal::definition;
use crate::quality::failure::{
    FAILURES, ID, REPLACES, ROW, UNFIT, VERSION, WRITTEN_AT, failures_type, kept_as,
    quarantine_schema, unfit_type,
};

/// The file of a row as its `_id` begins; not a column of the relation.
const STEM: &str = "__selvedge_stem";

/// The quarantined rows of one version of a table.
#[derive(Debug, Clone)]
pub(crate) struct QuarantineTable {
    snapshot: Arc<Snapshot>,
    root: TableRoot,
    columns: SchemaRef,
    located: Option<Arc<Located>>,
}

impl QuarantineTable {
    pub(crate) fn new(snapshot: Arc<Snapshot>, root: TableRoot) -> Self {
        Self {
            columns: schema(&snapshot),
            snapshot,
            root,
            located: None,
        }
    }

    /// The same with three columns more, for REPLAY: the names, as files have them, of the columns that a value
    /// did not fit; and the place of each row: the number of its file in `located`, which knows it by the path
    /// that records have, and the position in it.
    pub(crate) fn located(mut self, located: Arc<Located>) -> Self {
        let unfit = Arc::new(Field::new(UNFIT, unfit_type(), true));
        let columns = self.columns.fields().iter().cloned().chain([unfit]);
        let columns = Arc::new(Schema::new(columns.collect::<Vec<FieldRef>>()));
        self.columns = located::with_places(&columns);
        self.located = Some(located);
        self
    }
}

/// The columns of the relation: those of the table by their names, save where a name is taken.
pub(super) fn schema(snapshot: &Snapshot) -> SchemaRef {
    let own = [
        Field::new(ID, DataType::Utf8, true),
        Field::new(VERSION, DataType::Int64, true),
        Field::new(WRITTEN_AT, instants(), true),
        Field::new(FAILURES, failures_type(), true),
        Field::new(ROW, DataType::Utf8, true),
        Field::new(REPLACES, DataType::Boolean, true),
    ];
    let columns = mapping::logical(&declared(snapshot));
    let columns = columns.fields().iter();
    let free = columns.filter(|field| own.iter().all(|taken| taken.name() != field.name()));
    let columns: Vec<FieldRef> = free
        .map(|field| Arc::new(Field::new(field.name(), nullable(field.data_type()), true)))
        .collect();
    let own = own.iter().cloned().map(Arc::new);
    Arc::new(Schema::new(own.chain(columns).collect::<Vec<FieldRef>>()))
}

/// The columns that rows come with: a journal gives its intervals some of their own.
fn declared(snapshot: &Snapshot) -> SchemaRef {
    let properties = &snapshot.metadata.configuration;
    // A definition that nobody can read is told of where the table itself is read.
    let Ok(Some(journal)) = definition::of("", properties) else {
        return Arc::clone(&snapshot.schema);
    };
    let own = journal.columns.names();
    let fields = snapshot.schema.fields().iter();
    let fields = fields.filter(|field| !own.contains(&field.name().as_str()));
    Arc::new(Schema::new(fields.cloned().collect::<Vec<FieldRef>>()))
}

/// The columns that files may have, each with the name that it has there.
fn in_files(snapshot: &Snapshot) -> Schema {
    let own = quarantine_schema(&Schema::empty());
    let columns = declared(snapshot);
    let columns = columns.fields().iter().map(|field| {
        let name = kept_as(mapping::physical_name(field)).into_owned();
        let named = HashMap::from([(mapping::PHYSICAL_NAME.to_owned(), name)]);
        Arc::new(field.as_ref().clone().with_metadata(named))
    });
    let own = own.fields().iter().cloned();
    Schema::new(own.chain(columns).collect::<Vec<FieldRef>>())
}

fn instants() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Whether the filter is about whole writes, so that files it refuses need not be read.
pub(super) fn of_writes(filter: &Expr) -> bool {
    prune::decided_by(filter, &[VERSION, WRITTEN_AT])
}

#[async_trait]
impl TableProvider for QuarantineTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match of_writes(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = project_schema(&self.columns, projection)?;
        let past_ms = past_ms(session, &self.snapshot)?;
        let newest = self.snapshot.version;
        let mut files = records::quarantine(&self.root, newest, past_ms).await?;
        if let Some(filter) = conjunction(filters.iter().cloned()) {
            let kept = prune::accepts(session, &writes(&files)?, filter)?;
            prune::retain(&mut files, &kept);
        }
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(wanted)));
        }
        let columns = ScanColumns::new(&wanted)?;
        let opened = files
            .iter()
            .map(|file| self.open(file, columns.source.table_partition_cols()))
            .collect::<Result<Vec<_>, _>>()?;
        let groups = FileGroup::new(opened).split_files(session.config().target_partitions());
        let schema = columns.source.clone();
        let names = Names::new(Mode::Name, &in_files(&self.snapshot));
        let pages = PageIndexPolicy::Skip;
        let source = source(session, &self.root, schema, pages, vec![Box::new(names)]);
        let scan = FileScanConfigBuilder::new(self.root.store_url.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_expr_adapter(Some(Arc::new(Lenient)))
            .with_projection_indices(Some(columns.order))?
            // All filters have been heard.
            .with_limit(limit)
            .build();
        let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(scan);
        let rows = match wanted.fields().find(ID) {
            Some(_) => with_ids(scan, &wanted)?,
            None => scan,
        };
        Ok(AroundExec::plan(Apart, rows))
    }
}

impl QuarantineTable {
    /// Describes a file to the source, with what is the same for all rows of it.
    fn open(&self, file: &Quarantined, same: &[FieldRef]) -> Result<PartitionedFile, Error> {
        let location = self.root.locate(&file.file.path)?;
        let values = same
            .iter()
            .map(|field| match field.name().as_str() {
                VERSION => Ok(ScalarValue::Int64(i64::try_from(file.version).ok())),
                WRITTEN_AT => {
                    let micros = file.at_ms.checked_mul(1000);
                    let utc = Some("UTC".into());
                    Ok(ScalarValue::TimestampMicrosecond(micros, utc))
                }
                STEM => {
                    let name = location.filename().unwrap_or_default();
                    let stem = name.strip_suffix(".parquet").unwrap_or(name);
                    Ok(ScalarValue::Utf8(Some(format!("{stem}:"))))
                }
                name => match &self.located {
                    Some(located) if name == located::FILE => located.number(&data_file(file)),
                    _ => Err(Error::internal(format!(
                        "no file of quarantine has a {name}"
                    ))),
                },
            })
            .collect::<Result<Vec<ScalarValue>, Error>>()?;
        let mut opened = PartitionedFile::new_from_meta(ObjectMeta {
            location,
            last_modified: DateTime::from_timestamp_millis(file.at_ms).unwrap_or_default(),
            size: file.file.bytes,
            e_tag: None,
            version: None,
        });
        opened.partition_values = values;
        if !file.gone.is_empty() {
            let rows = usize::try_from(file.file.rows).map_err(|_| {
                let (path, rows) = (&file.file.path, file.file.rows);
                Error::corrupt(format!("quarantine file '{path}' of {rows} rows"))
            })?;
            let left = RowSelection::from(deletion::visible_rows(&file.gone, rows));
            opened.extensions.insert(ParquetRowSelection::new(left));
        }
        Ok(opened)
    }
}

/// The file as places of rows name it.
fn data_file(file: &Quarantined) -> Arc<DataFile> {
    Arc::new(DataFile::new(Add {
        modification_time: file.at_ms,
        ..Add::of_file(file.file.path.clone(), file.file.bytes)
    }))
}

/// The writes that files came from, a row for each file.
fn writes(files: &[Quarantined]) -> Result<RecordBatch> {
    let versions = files.iter().map(|file| i64::try_from(file.version).ok());
    let instants = files.iter().map(|file| file.at_ms.checked_mul(1000));
    let instants: TimestampMicrosecondArray = instants.collect();
    let schema = Schema::new(vec![
        Field::new(VERSION, DataType::Int64, true),
        Field::new(WRITTEN_AT, self::instants(), true),
    ]);
    Ok(RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(versions.collect::<Int64Array>()),
            Arc::new(instants.with_timezone("UTC")),
        ],
    )?)
}

/// The columns of a scan as the source wants them: of the file, then those that are the same for all rows of a
/// file, then the row's position.
struct ScanColumns {
    source: TableSchema,
    /// Positions in `source`: the wanted columns but `_id`, and what that is made of.
    order: Vec<usize>,
}

impl ScanColumns {
    fn new(wanted: &SchemaRef) -> Result<Self> {
        let mut scanned: Vec<FieldRef> = wanted.fields().iter().cloned().collect();
        scanned.retain(|field| field.name() != ID);
        if scanned.len() < wanted.fields().len() {
            scanned.push(Arc::new(Field::new(STEM, DataType::Utf8, true)));
            if wanted.fields().find(located::ROW).is_none() {
                let places = located::with_places(&Arc::new(Schema::empty()));
                let (_, row) = places
                    .fields()
                    .find(located::ROW)
                    .ok_or_else(|| Error::internal("a row has no position"))?;
                scanned.push(Arc::clone(row));
            }
        }
        let positions = |field: &FieldRef| field.name() == located::ROW;
        let (position, others): (Vec<FieldRef>, Vec<FieldRef>) =
            scanned.iter().cloned().partition(positions);
        let (same, of_file): (Vec<FieldRef>, Vec<FieldRef>) =
            others.into_iter().partition(|field| {
                [VERSION, WRITTEN_AT, STEM, located::FILE].contains(&field.name().as_str())
            });
        let source = TableSchema::builder(Arc::new(Schema::new(of_file)))
            .with_table_partition_cols(same)
            .with_virtual_columns(position)
            .build();
        let order = scanned
            .iter()
            .map(|field| source.table_schema().index_of(field.name()))
            .collect::<Result<_, _>>()?;
        Ok(Self { source, order })
    }
}

/// The wanted columns over a scan that has all of them but `_id`.
fn with_ids(scan: Arc<dyn ExecutionPlan>, wanted: &Schema) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = scan.schema();
    let column = |field: &FieldRef| -> Result<(Arc<dyn PhysicalExpr>, String)> {
        let expr: Arc<dyn PhysicalExpr> = match field.name().as_str() {
            ID => {
                let row = col(located::ROW, &schema)?;
                let row = cast(row, &schema, DataType::Utf8)?;
                let stem = col(STEM, &schema)?;
                Arc::new(BinaryExpr::new(stem, Operator::StringConcat, row))
            }
            name => col(name, &schema)?,
        };
        Ok((expr, field.name().clone()))
    };
    let columns = wanted.fields().iter().map(column);
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(columns, scan)?))
}

#[cfg(test)]
mod tests;

//! Rows of a batch told apart by their partition values.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, make_array,
};
use datafusion::arrow::compute::take_record_batch;
use datafusion::arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;

use crate::error::{Error, Result};
use crate::table::mapping::relabel;
use crate::table::partition::{encode, path_segment};

/// Where the columns of a table go: into the files, or into the names of their folders.
#[derive(Debug)]
pub(super) struct Layout {
    /// All columns of the table.
    pub(super) table: SchemaRef,
    /// Columns in the files, as files call them.
    pub(super) file: SchemaRef,
    /// Names of all columns in files and in the log.
    physical_names: Vec<String>,
    /// Positions of the file's columns in the table.
    stored: Vec<usize>,
    /// Positions of the partition columns in the table, in the order of the folders.
    partition: Vec<usize>,
}

/// Rows with the same partition values.
pub(super) struct Piece {
    /// Orders and tells apart partitions.
    pub(super) key: Box<[u8]>,
    /// A row of the batch with these values.
    pub(super) row: usize,
    /// Columns of the file.
    pub(super) rows: RecordBatch,
}

/// Values of one partition, as the log and the folders write them.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) values: BTreeMap<String, Option<String>>,
    /// Folders below the table's, each followed by a slash.
    pub(super) folders: String,
}

impl Layout {
    /// The layout of a table whose columns are those of `in_files` in files, all of them.
    pub(super) fn new(
        table: SchemaRef,
        in_files: &Schema,
        partition_columns: &[String],
    ) -> Result<Self> {
        if in_files.fields().len() != table.fields().len() {
            return Err(Error::internal(format!(
                "a table of {} columns has files of {}",
                table.fields().len(),
                in_files.fields().len()
            )));
        }
        let partition = partition_columns
            .iter()
            .map(|name| {
                table.index_of(name).map_err(|e| {
                    Error::corrupt(format!(
                        "partition column {name} is not a column of the table"
                    ))
                    .with_source(e)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let stored: Vec<usize> = (0..table.fields().len())
            .filter(|i| !partition.contains(i))
            .collect();
        if stored.is_empty() {
            return Err(Error::invalid(
                "a table needs a column that is not a partition column",
            ));
        }
        let file = in_files.project(&stored).map_err(unexpected)?;
        let physical_names = in_files.fields().iter().map(|f| f.name().clone());
        Ok(Self {
            table,
            file: Arc::new(file),
            physical_names: physical_names.collect(),
            stored,
            partition,
        })
    }

    /// The columns in the files, as queries call them.
    pub(super) fn names(&self) -> Fields {
        let fields = self.table.fields();
        self.stored
            .iter()
            .map(|&i| Arc::clone(&fields[i]))
            .collect()
    }

    /// The name that files and the log have for a column.
    pub(super) fn physical_name(&self, column: &str) -> Result<&str> {
        let at = self.table.index_of(column).map_err(unexpected)?;
        Ok(&self.physical_names[at])
    }

    /// Positions of the partition columns.
    pub(super) fn partition(&self) -> &[usize] {
        &self.partition
    }

    pub(super) fn partitioned(&self) -> bool {
        !self.partition.is_empty()
    }

    pub(super) fn splitter(&self) -> Result<Splitter> {
        let fields = self
            .partition
            .iter()
            .map(|&i| SortField::new(self.table.field(i).data_type().clone()))
            .collect();
        Ok(Splitter {
            converter: RowConverter::new(fields).map_err(unexpected)?,
        })
    }

    /// The partition of `row` of a batch of the table's columns.
    pub(super) fn place(&self, batch: &RecordBatch, row: usize) -> Result<Place> {
        let mut values = BTreeMap::new();
        let mut folders = String::new();
        for &index in &self.partition {
            let name = self.table.field(index).name();
            let value = ScalarValue::try_from_array(batch.column(index), row).map_err(|e| {
                Error::internal(format!("partition column {name}: value cannot be read"))
                    .with_source(e)
            })?;
            let text = encode(&value)?;
            // The log has one spelling for both, so the row would come back as another one.
            if text.is_none() && !value.is_null() {
                return Err(Error::rejected(format!(
                    "partition column {name} cannot hold an empty string: it could not be told from NULL"
                )));
            }
            let physical = &self.physical_names[index];
            folders.push_str(&path_segment(physical, text.as_deref()));
            folders.push('/');
            values.insert(physical.clone(), text);
        }
        Ok(Place { values, folders })
    }

    /// The columns of the file, checked against what a file may hold.
    fn stored_columns(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if batch.num_columns() != self.table.fields().len() {
            return Err(Error::internal(format!(
                "rows of {} columns reached a table of {}",
                batch.num_columns(),
                self.table.fields().len()
            )));
        }
        for (field, array) in self.table.fields().iter().zip(batch.columns()) {
            if !field.is_nullable() && array.null_count() > 0 {
                return Err(Error::rejected(format!(
                    "column {} is NOT NULL, but {} rows have no value",
                    field.name(),
                    array.null_count()
                )));
            }
        }
        let columns = self
            .stored
            .iter()
            .zip(self.file.fields())
            .map(|(&i, field)| relabel(batch.column(i), field.data_type()));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        columns
            .collect::<Result<Vec<_>, _>>()
            .and_then(|columns| {
                RecordBatch::try_new_with_options(self.file.clone(), columns, &options)
            })
            .map_err(|e| {
                Error::internal("rows of other types than the table's reached its files")
                    .with_detail(e.to_string())
                    .with_source(e)
            })
    }
}

/// Splits batches; keeps what is costly to make anew.
pub(super) struct Splitter {
    converter: RowConverter,
}

impl Splitter {
    pub(super) fn split(&mut self, layout: &Layout, batch: &RecordBatch) -> Result<Vec<Piece>> {
        let stored = layout.stored_columns(batch)?;
        if layout.partition.is_empty() || batch.num_rows() == 0 {
            let whole = Piece {
                key: Box::default(),
                row: 0,
                rows: stored,
            };
            return Ok(vec![whole]);
        }
        let columns: Vec<ArrayRef> = layout
            .partition
            .iter()
            .map(|&i| ArrayRef::clone(batch.column(i)))
            .collect();
        let keys = self
            .converter
            .convert_columns(&columns)
            .map_err(unexpected)?;
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut known: HashMap<&[u8], usize> = HashMap::new();
        let mut last: Option<(&[u8], usize)> = None;
        for row in 0..batch.num_rows() {
            let key = keys.row(row).data();
            // Neighbours are mostly alike: a comparison is cheaper than a look-up.
            let group = match last {
                Some((same, group)) if same == key => group,
                _ => *known.entry(key).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                }),
            };
            last = Some((key, group));
            groups[group].push(row as u32);
        }
        let whole = groups.len() == 1;
        groups
            .into_iter()
            .map(|rows| {
                let first = rows[0] as usize;
                let rows = match whole {
                    true => stored.clone(),
                    false => cut_out(&stored, rows)?,
                };
                Ok(Piece {
                    key: keys.row(first).data().into(),
                    row: first,
                    rows,
                })
            })
            .collect()
    }
}

/// Some rows, holding on to no buffer of the batch they come from: a rare partition waits long for
/// its next rows and would keep the text of all others alive.
fn cut_out(batch: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
    let piece = take_record_batch(batch, &UInt32Array::from(rows)).map_err(unexpected)?;
    let columns = piece
        .columns()
        .iter()
        .map(own_text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(unexpected)?;
    let options = RecordBatchOptions::new().with_row_count(Some(piece.num_rows()));
    RecordBatch::try_new_with_options(piece.schema(), columns, &options).map_err(unexpected)
}

fn own_text(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => {
            let data = array.to_data();
            let children = data
                .child_data()
                .iter()
                .map(|child| Ok(own_text(&make_array(child.clone()))?.to_data()))
                .collect::<Result<Vec<_>, ArrowError>>()?;
            make_array(data.into_builder().child_data(children).build()?)
        }
        _ => ArrayRef::clone(array),
    })
}

fn unexpected(error: ArrowError) -> Error {
    Error::internal("rows cannot be told apart by partition")
        .with_detail(error.to_string())
        .with_source(error)
}

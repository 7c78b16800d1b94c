//! `t$partitions`: the live files, by the values of the partition columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StructArray};
use datafusion::arrow::datatypes::{DataType, Fields};
use datafusion::common::{Result, ScalarValue};

use super::super::partition;
use super::super::snapshot::{DataFile, Snapshot};
use super::column::Columns;

/// Files with the same partition values.
#[derive(Debug, Clone)]
pub(super) struct Partition {
    /// Any of them: all have the same values.
    one: Arc<DataFile>,
    files: i64,
    /// Unknown as soon as one file's is.
    rows: Option<u64>,
    deleted_rows: i64,
    size_bytes: i64,
}

pub(super) fn columns(snapshot: &Snapshot) -> Columns<Partition> {
    with_values(Columns::new(), snapshot, |of: &Partition| &of.one)
        .number("files", |of| Some(of.files))
        .number("rows", |of| i64::try_from(of.rows?).ok())
        .number("deleted_rows", |of| Some(of.deleted_rows))
        .number("size_bytes", |of| Some(of.size_bytes))
}

/// In the order of the values as the log writes them. A table without partitions is one, if it has files.
pub(super) fn of(snapshot: &Snapshot) -> Vec<Partition> {
    let mut found: BTreeMap<_, Partition> = BTreeMap::new();
    for file in snapshot.files.values() {
        let partition = found
            .entry(&file.add.partition_values)
            .or_insert_with(|| Partition {
                one: Arc::clone(file),
                files: 0,
                rows: Some(0),
                deleted_rows: 0,
                size_bytes: 0,
            });
        partition.files += 1;
        partition.rows = partition
            .rows
            .zip(file.rows(&snapshot.schema))
            .map(|(a, b)| a + b);
        partition.deleted_rows += deleted_rows(file);
        partition.size_bytes = partition.size_bytes.saturating_add(file.add.size);
    }
    found.into_values().collect()
}

pub(super) fn deleted_rows(file: &DataFile) -> i64 {
    let vector = file.add.deletion_vector.as_ref();
    vector.map_or(0, |vector| vector.cardinality)
}

/// Adds the partition values of a row's file, typed. A table without partitions has no such column.
pub(super) fn with_values<T: Send + Sync + 'static>(
    columns: Columns<T>,
    snapshot: &Snapshot,
    file: impl Fn(&T) -> &Arc<DataFile> + Send + Sync + 'static,
) -> Columns<T> {
    let fields: Fields = snapshot
        .partition_columns()
        .iter()
        .filter_map(|name| snapshot.schema.field_with_name(name).ok())
        .map(|field| {
            field
                .clone()
                .with_nullable(true)
                .with_metadata(Default::default())
        })
        .collect();
    if fields.is_empty() {
        return columns;
    }
    let data_type = DataType::Struct(fields.clone());
    columns.column("partition", data_type, move |rows: &[T]| {
        let column = |field| -> Result<ArrayRef> {
            let values = rows
                .iter()
                .map(|row| partition::value_of(file(row), field))
                .collect::<Result<Vec<_>, _>>()?;
            ScalarValue::iter_to_array(values)
        };
        let arrays = fields
            .iter()
            .map(|field| column(field))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(StructArray::try_new(
            fields.clone(),
            arrays,
            None,
        )?))
    })
}

//! Files of Parquet, read as they are: what policies would change of their rows is what is left.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use super::Tally;
use crate::cleanse::apply::{Applied, Running};
use crate::cleanse::cast::fit;
use crate::cleanse::compile::CompiledPolicy;
use crate::error::{Error, Result};
use crate::maintenance::cleanse::aside::{Put, open};
use crate::maintenance::cleanse::rewrite::differ;
use crate::table::actions::Add;
use crate::table::mapping::{self, Mode};
use crate::table::partition;
use crate::table::snapshot::{DataFile, Snapshot, TableRoot};
use crate::write::commit::PartitionKey;

/// What Hive and its heirs call a partition without a value.
const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file of the table's rows, whether a version has it or not.
pub(super) async fn data(
    root: &TableRoot,
    path: &Path,
    base: &Snapshot,
    running: &Running,
    values: &PartitionKey,
) -> Result<Tally> {
    let (schema, mut batches) = open(root, path.clone()).await?;
    let columns = Columns::new(base, &schema, values);
    let mut found = Tally::new();
    while let Some(batch) = batches.try_next().await? {
        let rows = columns.of(&batch)?;
        let applied = running.apply(&rows)?;
        erased(running, &applied, "row", &mut found);
        changed(running, &rows, &applied, "cell", &mut found)?;
    }
    Ok(found)
}

/// A file of rows beside the table, each of which is `what`; in quarantine, rows that were taken up again included.
pub(super) async fn aside(
    root: &TableRoot,
    path: &Path,
    running: &Running,
    what: &'static str,
) -> Result<Tally> {
    let (_, mut batches) = open(root, path.clone()).await?;
    let mut found = Tally::new();
    while let Some(batch) = batches.try_next().await? {
        // Row by row only where there is something: what is said of a row is compared as a whole.
        if !Put::of(running, &batch)?.changes() {
            continue;
        }
        for row in 0..batch.num_rows() {
            let put = Put::of(running, &batch.slice(row, 1))?;
            if !put.changes() {
                continue;
            }
            erased(running, &put.applied, what, &mut found);
            let policies = running.compiled().policies().iter().enumerate();
            for (_, policy) in policies
                .filter(|(at, _)| put.applied.counts.policy(*at).rows_matched > 0)
                .filter(|(_, policy)| !policy.columns().is_empty())
            {
                let columns = names(running, policy.columns());
                *found.entry((what, columns)).or_default() += 1;
            }
        }
    }
    Ok(found)
}

fn names(running: &Running, columns: &[usize]) -> String {
    let fields = running.compiled().schema.fields();
    let names = columns.iter().filter_map(|at| fields.get(*at));
    let names: Vec<&str> = names.map(|field| field.name().as_str()).collect();
    names.join(", ")
}

/// Columns of the key of a policy.
fn key(running: &Running, policy: &CompiledPolicy) -> String {
    policy
        .key()
        .map(|key| names(running, key.columns()))
        .unwrap_or_default()
}

fn erased(running: &Running, applied: &Applied, what: &'static str, found: &mut Tally) {
    for (at, policy) in running.compiled().policies().iter().enumerate() {
        let rows = applied.counts.policy(at).rows_erased;
        if rows > 0 {
            *found.entry((what, key(running, policy))).or_default() += rows;
        }
    }
}

fn changed(
    running: &Running,
    rows: &RecordBatch,
    applied: &Applied,
    what: &'static str,
    found: &mut Tally,
) -> Result<()> {
    if applied.counts.cells_changed() == 0 {
        return Ok(());
    }
    let before = applied.left_of(rows)?;
    for at in running.compiled().touched() {
        let cells = differ(&before, &applied.batch, *at).count_set_bits() as u64;
        if cells > 0 {
            *found.entry((what, names(running, &[*at]))).or_default() += cells;
        }
    }
    Ok(())
}

/// The partition that the folders of a path name.
pub(super) fn named(relative: &str) -> PartitionKey {
    let folders = relative.split('/').filter_map(|part| part.split_once('='));
    folders
        .map(|(name, value)| {
            // What is no path as other engines write it stands for itself.
            let text = |text: &str| {
                Path::from_url_path(text).map_or_else(|_| text.to_owned(), |path| path.to_string())
            };
            (text(name), (value != NO_VALUE).then(|| text(value)))
        })
        .collect()
}

/// Where the columns of the table are in a file.
struct Columns {
    schema: SchemaRef,
    /// For each its place in the file; elsewhere its value in all rows, if it has one.
    places: Vec<(Option<usize>, Option<datafusion::common::ScalarValue>)>,
}

impl Columns {
    fn new(base: &Snapshot, file: &Schema, values: &PartitionKey) -> Self {
        let by_id = base.mapping() == Mode::Id;
        let (mut fields, mut places) = (Vec::new(), Vec::new());
        let same = DataFile::new(Add {
            partition_values: values.clone(),
            ..Add::of_file(String::new(), 0)
        });
        for field in base.schema.fields() {
            let physical = mapping::physical_name(field);
            let place = file.fields().iter().position(|found| {
                let id = found.metadata().get(PARQUET_FIELD_ID_META_KEY);
                match (by_id, id.and_then(|id| id.parse::<i32>().ok())) {
                    (true, Some(id)) => mapping::id(field) == Some(id),
                    _ => found.name() == physical,
                }
            });
            // Names inside of nested types may be others than those of the table.
            let data_type = match place.map(|at| file.field(at).data_type()) {
                Some(found) if found.is_nested() => found.clone(),
                _ => field.data_type().clone(),
            };
            // A value that is none of its column equals no key.
            let value = match place {
                None if base.partition_columns().contains(field.name()) => {
                    partition::value_of(&same, field).ok()
                }
                _ => None,
            };
            fields.push(Field::new(field.name(), data_type, true));
            places.push((place, value));
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            places,
        }
    }

    /// Rows of the file as rows of the table.
    fn of(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.places.len());
        for (field, (place, value)) in self.schema.fields().iter().zip(&self.places) {
            columns.push(match (place, value) {
                (Some(at), _) => fit(batch.column(*at), field.data_type()),
                (None, Some(value)) if value.data_type() == *field.data_type() => {
                    value.to_array_of_size(rows)?
                }
                (None, Some(value)) => fit(&value.to_array_of_size(rows)?, field.data_type()),
                (None, None) => new_null_array(field.data_type(), rows),
            });
        }
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &count)
            .map_err(unexpected)
    }
}

fn unexpected(error: datafusion::arrow::error::ArrowError) -> Error {
    Error::internal(format!("rows that are looked through: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_their_partition() {
        let values = named("day=2024-01-01/p=a%20b/q=__HIVE_DEFAULT_PARTITION__/part-0.parquet");
        let expected = [("day", Some("2024-01-01")), ("p", Some("a b")), ("q", None)];
        let expected: PartitionKey = expected
            .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)))
            .into();
        assert_eq!(values, expected);
        assert!(named("part-0.parquet").is_empty());
    }
}

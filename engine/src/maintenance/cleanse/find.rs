//! Which files may hold rows that a policy is about, by what the log says of them, and which of these do.
//!
//! Deleted rows count: they are in the file as long as it is there.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::compute::{CastOptions, cast_with_options, filter, is_not_null};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;

use crate::cleanse::apply::Running;
use crate::cleanse::compile::CompiledPolicy;
use crate::cleanse::keys::KeyQuery;
use crate::cleanse::policy::PolicyAction;
use crate::error::{Error, Result};
use crate::maintenance::Job;
use crate::table::partition;
use crate::table::snapshot::{DataFile, Snapshot};

/// A file, and which of the policies it is for.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub file: Arc<DataFile>,
    /// One for each policy.
    pub policies: Vec<bool>,
}

/// Those of `files` that policies, or the one that is `asked` for, may be about: of which the log does not say that no policy is about a row of them.
pub(super) async fn suspects(
    base: &Snapshot,
    running: &Running,
    asked: Option<&str>,
    files: Vec<Arc<DataFile>>,
    context: &Arc<TaskContext>,
) -> Result<Vec<Found>> {
    let compiled = running.compiled();
    let count = compiled.policies().len();
    let found = files.into_iter().map(|file| Found {
        file,
        policies: vec![false; count],
    });
    let mut found: Vec<Found> = found.collect();
    for (at, policy) in compiled.policies().iter().enumerate() {
        let deletes = matches!(policy.policy().action, PolicyAction::DeleteRows);
        let other = asked.is_some_and(|asked| asked != policy.policy().name);
        if other || !deletes && policy.columns().is_empty() {
            continue;
        }
        match policy.key() {
            None => {
                for found in &mut found {
                    found.policies[at] = !empty(base, policy, &compiled.schema, &found.file);
                }
            }
            Some(_) if running.keys(at).is_some_and(|keys| keys.distinct() == 0) => {}
            Some(query) => listed(base, query, &compiled.schema, &mut found, at, context).await?,
        }
    }
    found.retain(|found| found.policies.contains(&true));
    Ok(found)
}

/// Whether nothing is in the cells that a policy nullifies.
fn empty(base: &Snapshot, policy: &CompiledPolicy, schema: &SchemaRef, file: &DataFile) -> bool {
    let Some(stats) = file.stats(&base.schema) else {
        return false;
    };
    let null = |at: &usize| {
        let column = stats.columns.get(schema.field(*at).name());
        stats.num_records.is_some() && column.and_then(|c| c.null_count) == stats.num_records
    };
    matches!(policy.policy().action, PolicyAction::Nullify { .. })
        && policy.columns().iter().all(null)
}

/// What the log says of the values of a column in a file.
enum Bounds {
    Unknown,
    /// There are none but NULL, which no key equals.
    None,
    Between(ScalarValue, ScalarValue),
}

/// A value, as bytes that compare as values do.
type Bytes = Box<[u8]>;

/// One column of a key, and where its values lie in each file, as bytes that compare as the values do.
struct Lane {
    at: usize,
    data_type: DataType,
    converter: RowConverter,
    /// The least and the greatest; None where the log does not say.
    files: Vec<Option<(Bytes, Bytes)>>,
}

/// Marks the files in whose bounds a key lies. Keys are read once and none is kept, so that the length of the list
/// does not matter.
async fn listed(
    base: &Snapshot,
    query: &KeyQuery,
    schema: &SchemaRef,
    found: &mut [Found],
    policy: usize,
    context: &Arc<TaskContext>,
) -> Result<()> {
    let mut open: Vec<usize> = (0..found.len()).collect();
    let mut lanes = Vec::new();
    for (at, (column, data_type)) in query.columns().iter().zip(query.types()).enumerate() {
        // Zero has a sign, and NaN has many forms: the order of floats is not that of their keys.
        if data_type.is_floating() {
            continue;
        }
        let name = schema.field(*column).name();
        let mut files = Vec::with_capacity(found.len());
        let converter = RowConverter::new(vec![SortField::new(data_type.clone())]);
        let converter = converter.map_err(unexpected)?;
        for (place, found) in found.iter().enumerate() {
            files.push(match bounds(base, name, &found.file)? {
                Bounds::Unknown => None,
                Bounds::None => {
                    open.retain(|open| *open != place);
                    None
                }
                Bounds::Between(least, greatest) => {
                    let least = row(&converter, &least, data_type)?;
                    least.zip(row(&converter, &greatest, data_type)?)
                }
            });
        }
        lanes.push(Lane {
            at,
            data_type: data_type.clone(),
            converter,
            files,
        });
    }
    let mut keys = query.read(context)?;
    while let Some(batch) = keys.try_next().await? {
        if open.is_empty() {
            break;
        }
        if batch.num_rows() == 0 {
            continue;
        }
        let mut hit: Vec<bool> = vec![true; found.len()];
        for lane in &lanes {
            lane.narrow(batch.column(lane.at), &open, &mut hit)?;
        }
        open.retain(|place| {
            found[*place].policies[policy] |= hit[*place];
            !hit[*place]
        });
    }
    Ok(())
}

impl Lane {
    /// Takes the files out of `hit` in which none of the keys lies.
    fn narrow(&self, keys: &ArrayRef, open: &[usize], hit: &mut [bool]) -> Result<()> {
        let safe = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        let keys = cast_with_options(keys, &self.data_type, &safe).map_err(unexpected)?;
        let valid = is_not_null(&keys).map_err(unexpected)?;
        let keys = filter(&keys, &valid).map_err(unexpected)?;
        let rows = self.converter.convert_columns(&[keys]);
        let rows = rows.map_err(unexpected)?;
        let mut sorted: Vec<_> = rows.iter().collect();
        sorted.sort_unstable();
        for place in open {
            let Some((least, greatest)) = &self.files[*place] else {
                hit[*place] &= !sorted.is_empty();
                continue;
            };
            let first = sorted.partition_point(|key| key.as_ref() < least.as_ref());
            hit[*place] &= sorted
                .get(first)
                .is_some_and(|key| key.as_ref() <= greatest.as_ref());
        }
        Ok(())
    }
}

/// A value as bytes; None where it has no equal in the type.
fn row(
    converter: &RowConverter,
    value: &ScalarValue,
    data_type: &DataType,
) -> Result<Option<Bytes>> {
    let Ok(value) = value.cast_to(data_type) else {
        return Ok(None);
    };
    if value.is_null() {
        return Ok(None);
    }
    let rows = converter.convert_columns(&[value.to_array()?]);
    Ok(Some(rows.map_err(unexpected)?.row(0).as_ref().into()))
}

fn bounds(base: &Snapshot, column: &str, file: &DataFile) -> Result<Bounds> {
    if base.partition_columns().iter().any(|name| name == column) {
        let field = base.schema.field_with_name(column).map_err(unexpected)?;
        let value = partition::value_of(file, field)?;
        return Ok(match value.is_null() {
            true => Bounds::None,
            false => Bounds::Between(value.clone(), value),
        });
    }
    let Some(stats) = file.stats(&base.schema) else {
        return Ok(Bounds::Unknown);
    };
    let Some(column) = stats.columns.get(column) else {
        return Ok(Bounds::Unknown);
    };
    if stats.num_records.is_some() && column.null_count == stats.num_records {
        return Ok(Bounds::None);
    }
    Ok(match (&column.min, &column.max) {
        (Some((least, _)), Some((greatest, _))) => Bounds::Between(least.clone(), greatest.clone()),
        _ => Bounds::Unknown,
    })
}

/// Tells by the columns that policies are about which of them would change something in a file.
pub(super) async fn examine(
    job: &Job,
    base: &Arc<Snapshot>,
    running: &Running,
    suspect: Found,
) -> Result<Found> {
    let add = &suspect.file.add;
    let whole = Arc::new(DataFile::new(crate::table::actions::Add {
        deletion_vector: None,
        ..add.clone()
    }));
    let state = job.state(1);
    let wide = Wide::new(running);
    let table = job.only(base, &[whole]);
    let plan = table.scan(&state, Some(&wide.columns), &[], None).await?;
    let mut batches = execute_stream(plan, state.task_ctx())?;
    let mut policies = vec![false; suspect.policies.len()];
    while let Some(batch) = batches.try_next().await? {
        let applied = running.apply(&wide.of(&batch)?)?;
        for (at, changes) in policies.iter_mut().enumerate() {
            let counts = applied.counts.policy(at);
            // What another policy takes away as well is taken away with it.
            *changes |= counts.rows_erased + counts.cells_changed > 0 && suspect.policies[at];
        }
        if policies == suspect.policies {
            break;
        }
    }
    Ok(Found {
        file: suspect.file,
        policies,
    })
}

/// Rows of which only the columns that policies are about were read, as rows of the table: the others are NULL.
pub(super) struct Wide {
    schema: SchemaRef,
    /// Positions in the table, ascending.
    pub columns: Vec<usize>,
}

impl Wide {
    pub(super) fn new(running: &Running) -> Self {
        let compiled = running.compiled();
        let keys = compiled.policies().iter().filter_map(CompiledPolicy::key);
        let keys = keys.flat_map(|key| key.columns().to_vec());
        let mut columns: Vec<usize> = keys.chain(compiled.touched().to_vec()).collect();
        columns.sort_unstable();
        columns.dedup();
        let fields = compiled.schema.fields().iter();
        let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
        Self {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            columns,
        }
    }

    pub(super) fn of(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let fields = self.schema.fields().iter().enumerate();
        let columns = fields.map(|(at, field)| match self.columns.binary_search(&at) {
            Ok(place) => Arc::clone(batch.column(place)),
            Err(_) => new_null_array(field.data_type(), rows),
        });
        let count = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.collect(), &count)
            .map_err(unexpected)
    }
}

pub(super) fn unexpected(error: datafusion::arrow::error::ArrowError) -> Error {
    Error::internal(format!("rows to be cleansed: {error}")).with_source(error)
}

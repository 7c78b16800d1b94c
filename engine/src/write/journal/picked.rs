//! The rows of a scan whose keys are among those of a write.
//!
//! The scan decodes all columns at once. To decode the keys alone, and then the rest of the rows that have one, saves
//! nothing: with a key in a hundred rows hardly a page has none. For the same reason the scan leaves deleted rows in: of
//! those that have a key few are deleted, and to drop the others first would copy all that is read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Int64Array, NullArray, RecordBatch, RecordBatchOptions,
    UInt32Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{TryStreamExt, stream};
use roaring::RoaringTreemap;

use super::super::quality::unexpected;
use crate::around::{Around, AroundExec};
use crate::error::{Error, Result};
use crate::journal::key::{self, KeySet};
use crate::journal::shape::Shape;
use crate::table::located::{self, Located};
use crate::table::snapshot::{Snapshot, TableRoot};

/// The step that picks.
#[derive(Debug)]
pub(super) struct Picked {
    shape: Arc<Shape>,
    keys: Arc<KeySet>,
    deleted: Arc<Deleted>,
}

impl Picked {
    /// Those of `rows` that have one of the keys and are not deleted. Others of the same hash come along.
    pub(super) fn plan(
        shape: &Arc<Shape>,
        keys: &Arc<KeySet>,
        deleted: Deleted,
        rows: Arc<dyn ExecutionPlan>,
    ) -> Arc<dyn ExecutionPlan> {
        let picked = Self {
            shape: Arc::clone(shape),
            keys: Arc::clone(keys),
            deleted: Arc::new(deleted),
        };
        AroundExec::plan(picked, rows)
    }
}

impl Around for Picked {
    const NAME: &'static str = "JournalKeysExec";

    fn execute(
        &self,
        inner: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> datafusion::error::Result<SendableRecordBatchStream> {
        let rows = inner.execute(partition, Arc::clone(&context))?;
        let schema = rows.schema();
        let places = self.shape.key_names().map(|name| schema.index_of(name));
        let picking = Picking {
            places: places.collect::<Result<_, _>>()?,
            shape: Arc::clone(&self.shape),
            keys: Arc::clone(&self.keys),
            deleted: Arc::clone(&self.deleted),
            hashes: Vec::new(),
            // A few rows of each batch, which would hold on to all the others.
            picked: BatchCoalescer::new(Arc::clone(&schema), context.session_config().batch_size()),
            ended: false,
            rows,
        };
        let picked = stream::try_unfold(picking, |mut picking| async move {
            let next = picking.next().await.map_err(DataFusionError::from)?;
            Ok::<_, DataFusionError>(next.map(|batch| (batch, picking)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, picked)))
    }
}

/// The work of one partition.
struct Picking {
    rows: SendableRecordBatchStream,
    shape: Arc<Shape>,
    keys: Arc<KeySet>,
    deleted: Arc<Deleted>,
    /// Where the key columns are, in the order of the definition.
    places: Vec<usize>,
    hashes: Vec<u64>,
    picked: BatchCoalescer,
    ended: bool,
}

impl Picking {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.picked.next_completed_batch() {
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            match self.rows.try_next().await? {
                Some(batch) => self.pick(batch)?,
                None => {
                    self.ended = true;
                    self.picked.finish_buffered_batch().map_err(unexpected)?;
                }
            }
        }
    }

    fn pick(&mut self, batch: RecordBatch) -> Result<()> {
        let keys = batch.project(&self.places).map_err(unexpected)?;
        let keys = keys_in_place(&self.shape, &keys)?;
        key::hashes(&self.shape, &keys, &mut self.hashes)?;
        let places = self.deleted.places(&batch)?;
        let among = BooleanBuffer::collect_bool(self.hashes.len(), |row| {
            let hash = self.hashes.get(row);
            hash.is_some_and(|hash| self.keys.has(*hash)) && !places.has(row)
        });
        let among = BooleanArray::new(among, None);
        let picked = self.picked.push_batch_with_filter(batch, &among);
        picked.map_err(unexpected)
    }
}

/// The deleted rows of the files of a scan, by the numbers of these.
#[derive(Debug, Default)]
pub(super) struct Deleted(Vec<Option<Arc<RoaringTreemap>>>);

impl Deleted {
    /// Of what a scan read, as a version has it.
    pub(super) async fn of(located: &Located, base: &Snapshot, root: &TableRoot) -> Result<Self> {
        let mut deleted = Vec::new();
        for file in located.files() {
            let of_base = base.files.get(&file.add.path).ok_or_else(|| {
                Error::internal(format!("data file '{}' is of no version", file.add.path))
            })?;
            deleted.push(of_base.deleted(root).await?.cloned());
        }
        Ok(Self(deleted))
    }

    fn places<'a>(&'a self, rows: &'a RecordBatch) -> Result<Places<'a>> {
        let files = rows.column_by_name(located::FILE);
        let numbers = rows.column_by_name(located::ROW);
        let files = files.and_then(|files| files.as_primitive_opt::<UInt32Type>());
        let numbers = numbers.and_then(|numbers| numbers.as_primitive_opt::<Int64Type>());
        let (Some(files), Some(numbers)) = (files, numbers) else {
            return Err(Error::internal("rows of a journal without their places"));
        };
        let last = files.values().iter().max();
        if last.is_some_and(|last| *last as usize >= self.0.len()) {
            return Err(Error::internal(
                "a row of a journal in a file that was not read",
            ));
        }
        Ok(Places {
            deleted: self,
            files,
            numbers,
        })
    }
}

/// Where the rows of a batch are.
struct Places<'a> {
    deleted: &'a Deleted,
    files: &'a UInt32Array,
    numbers: &'a Int64Array,
}

impl Places<'_> {
    /// Whether a row is deleted.
    fn has(&self, row: usize) -> bool {
        let of_file = self.deleted.0.get(self.files.value(row) as usize);
        let of_file = of_file.and_then(Option::as_ref);
        of_file.is_some_and(|deleted| deleted.contains(self.numbers.value(row).cast_unsigned()))
    }
}

/// Rows of which only the key columns were read, in the order of the definition, as rows that begin with the declared
/// columns: the others are there, and empty.
pub(in crate::write) fn keys_in_place(shape: &Shape, keys: &RecordBatch) -> Result<RecordBatch> {
    let rows = keys.num_rows();
    let empty: ArrayRef = Arc::new(NullArray::new(rows));
    let mut columns = vec![empty; shape.declared.fields().len()];
    let mut fields = vec![Field::new("", DataType::Null, true); columns.len()];
    for (at, values) in shape.keys.iter().zip(keys.columns()) {
        if let (Some(column), Some(field)) = (columns.get_mut(*at), fields.get_mut(*at)) {
            let name = shape.declared.field(*at).name();
            *field = Field::new(name, values.data_type().clone(), true);
            *column = Arc::clone(values);
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(unexpected)
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int64Type;
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::collect_partitioned;
    use datafusion::prelude::SessionConfig;

    use super::*;
    use crate::journal::definition::Definition;

    /// The keys are `name`, `k`, and `v` comes before both.
    fn shape() -> Arc<Shape> {
        let declared = Arc::new(Schema::new(vec![
            Field::new("v", DataType::Int64, true),
            Field::new("k", DataType::Int64, false),
            Field::new("name", DataType::Utf8View, false),
        ]));
        let definition = Definition::plain(&["name", "k"], None);
        let stored = Shape::with_period(&declared, &definition.columns).unwrap();
        Arc::new(Shape::new("s.t", definition, &stored).unwrap())
    }

    /// Rows of a scan, whose columns lie elsewhere than in the journal; of file 0, where each is at its `k`.
    fn rows(k: impl Iterator<Item = i64>) -> RecordBatch {
        let k: Int64Array = k.map(Some).collect();
        let names = k
            .values()
            .iter()
            .map(|k| format!("a name that is no inlined one {}", k % 7));
        let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(names));
        let columns: [(&str, ArrayRef); 5] = [
            ("k", Arc::new(k.clone())),
            ("v", Arc::new(k.clone())),
            ("name", names),
            (located::FILE, Arc::new(UInt32Array::from(vec![0; k.len()]))),
            (located::ROW, Arc::new(k)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn declared(rows: &RecordBatch) -> RecordBatch {
        rows.project(&[1, 0, 2]).unwrap()
    }

    #[tokio::test]
    async fn just_visible_rows_with_a_key_are_picked_in_full_batches() {
        let shape = shape();
        let mut hashes = Vec::new();
        let wanted = declared(&rows((0..3_000).step_by(10)));
        key::hashes(&shape, &wanted, &mut hashes).unwrap();
        let mut keys = KeySet::default();
        hashes.iter().for_each(|hash| keys.add(*hash));

        let batches = |of: [i64; 2]| {
            (0..15).map(move |at| rows((of[0] + at * 100)..(of[0] + at * 100 + of[1])))
        };
        let parts: Vec<Vec<RecordBatch>> = vec![
            batches([0, 100]).collect(),
            batches([1_500, 100]).collect(),
            // None of them.
            vec![rows([1, 2, 3].into_iter()), rows(5_000..5_100)],
            Vec::new(),
        ];
        let schema = rows([].into_iter()).schema();
        let scan = MemorySourceConfig::try_new_exec(&parts, schema, None).unwrap();
        // Rows 2,000 to 2,100 of the file, of which ten have a key.
        let deleted = Arc::new((2_000..2_100).collect::<RoaringTreemap>());
        let deleted = Deleted(vec![Some(deleted)]);
        let plan = Picked::plan(&shape, &Arc::new(keys), deleted, scan);
        let config = SessionConfig::new().with_batch_size(64);
        let context = Arc::new(TaskContext::default().with_session_config(config));
        let picked = collect_partitioned(plan, context).await.unwrap();
        let sizes = |part: &Vec<RecordBatch>| part.iter().map(RecordBatch::num_rows).collect();
        let sizes: Vec<Vec<usize>> = picked.iter().map(sizes).collect();
        assert_eq!(sizes, [vec![64, 64, 22], vec![64, 64, 12], vec![], vec![]]);
        let expected = (0..3_000).step_by(10);
        let mut expected = expected.filter(|k| !(2_000..2_100).contains(k));
        for batch in picked.iter().flatten() {
            let k = batch.column(0).as_primitive::<Int64Type>();
            let names = batch.column(2).as_string_view();
            for (k, name) in k.values().iter().zip(names) {
                assert_eq!(Some(*k), expected.next());
                assert!(name.unwrap().ends_with(&format!("one {}", k % 7)));
            }
        }
        assert_eq!(expected.next(), None);
    }

    #[test]
    fn the_other_columns_are_there_and_empty() {
        let shape = shape();
        let rows = rows(0..3);
        let keys = rows.project(&[2, 0]).unwrap();
        let placed = keys_in_place(&shape, &keys).unwrap();
        assert_eq!(placed.column(0).data_type(), &DataType::Null);
        assert_eq!(placed.column(1), rows.column(0));
        assert_eq!(placed.column(2), rows.column(2));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        key::hashes(&shape, &placed, &mut a).unwrap();
        key::hashes(&shape, &declared(&rows), &mut b).unwrap();
        assert_eq!(a, b);
    }
}

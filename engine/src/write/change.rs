//! Rows that are changed: the stage before all others takes note of where old rows are, and lets the new ones on.
//!
//! ```text
//! (columns.., file, row, change [, keys..])  ->  Received (columns..)
//! ```
//!
//! The old rows become deletion vectors in the same commit that shows the new ones.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int8Type, Int64Type, Schema, SchemaRef, UInt32Type};
use arrow::util::display::array_value_to_string;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use parking_lot::Mutex;
use roaring::RoaringTreemap;

use super::conflict::TakenRows;
use super::stages::{RECOMPUTE, Slot, StageStream, one_child, properties};
use crate::error::{Error, Result};
use crate::table::located::{self, Located};

/// Column that says what is to become of a row: one of the codes of [`Kind`].
pub(crate) const CHANGE: &str = "__selvedge_change";

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is new.
    Insert = 1,
    /// It takes the place of an old one.
    Update = 2,
    /// The old one goes.
    Delete = 3,
}

/// The terms of a statement that changes rows.
#[derive(Debug)]
pub(crate) struct Change {
    /// `DELETE`, `UPDATE`, `MERGE`, ..
    pub statement: &'static str,
    pub located: Arc<Located>,
    /// Whether one old row may be named several times, as when each means its deletion.
    pub repeats: bool,
    /// Whether the statement also looked at this table by another way than its located scan.
    pub reads_itself: bool,
    /// Whether it acts on rows it did not find.
    pub absence: bool,
}

/// What a run of the stage has noted.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    /// By the number of the file.
    rows: HashMap<u32, RoaringTreemap>,
    inserted: u64,
    updated: u64,
    deleted: u64,
    repeated: Option<String>,
    repeats: u64,
}

/// The account of a finished run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changed {
    pub rows: BTreeMap<String, TakenRows>,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

impl Changes {
    /// What is to be taken out, by the path of its file.
    pub(super) fn verdict(&self, table: &str, change: &Change) -> Result<Changed> {
        let noted = self.0.lock();
        if let Some(which) = &noted.repeated {
            let which = match which.as_str() {
                "" => String::new(),
                keys => format!(", first the row with {keys}"),
            };
            return Err(Error::rejected(format!(
                "{} of table {table}: several rows of the source change one row of the table, {} times in all{which}",
                change.statement, noted.repeats
            ))
            .with_hint("make the source name each row once, with DISTINCT, GROUP BY or a narrower condition"));
        }
        let files = change.located.files();
        let mut rows: BTreeMap<String, TakenRows> = BTreeMap::new();
        for (number, taken) in &noted.rows {
            let file = files.get(*number as usize).ok_or_else(|| {
                Error::internal(format!(
                    "a changed row lies in file {number}, which was not read"
                ))
            })?;
            match rows.get_mut(&file.add.path) {
                Some(known) => known.rows |= taken,
                None => {
                    rows.insert(
                        file.add.path.clone(),
                        TakenRows {
                            file: Arc::clone(file),
                            rows: taken.clone(),
                        },
                    );
                }
            }
        }
        Ok(Changed {
            rows,
            inserted: noted.inserted,
            updated: noted.updated,
            deleted: noted.deleted,
        })
    }

    /// Notes rows that only go, run by run: many of them lie side by side.
    fn note_deletes(&self, batch: &Places) -> Result<()> {
        let (files, rows) = (batch.file.values(), batch.row.values());
        let mut noted = self.0.lock();
        let mut at = 0;
        while at < rows.len() {
            let mut end = at + 1;
            while end < rows.len() && files[end] == files[at] && rows[end] == rows[end - 1] + 1 {
                end += 1;
            }
            let first = u64::try_from(rows[at])
                .map_err(|_| Error::internal("a row lies before its file begins"))?;
            let run = first..first + (end - at) as u64;
            let fresh = noted.rows.entry(files[at]).or_default().insert_range(run);
            noted.deleted += fresh;
            at = end;
        }
        Ok(())
    }

    /// Notes the old rows of a batch and returns which rows go on.
    fn note(&self, change: &Change, batch: &Places) -> Result<BooleanArray> {
        if change.repeats && batch.only_deletes() {
            self.note_deletes(batch)?;
            return Ok(BooleanArray::from(vec![false; batch.change.len()]));
        }
        let mut noted = self.0.lock();
        let mut on = Vec::with_capacity(batch.change.len());
        for (index, code) in batch.change.values().iter().enumerate() {
            let (goes_on, goes) = match code {
                1 => {
                    noted.inserted += 1;
                    (true, false)
                }
                2 => (true, true),
                3 => (false, true),
                other => {
                    return Err(Error::internal(format!(
                        "a row has the change code {other}"
                    )));
                }
            };
            on.push(goes_on);
            if !goes {
                continue;
            }
            if batch.file.is_null(index) || batch.row.is_null(index) {
                return Err(Error::internal("a row to be changed has no place"));
            }
            let position = u64::try_from(batch.row.value(index))
                .map_err(|_| Error::internal("a row lies before its file begins"))?;
            let fresh = noted
                .rows
                .entry(batch.file.value(index))
                .or_default()
                .insert(position);
            match (fresh, goes_on) {
                (true, true) => noted.updated += 1,
                (true, false) => noted.deleted += 1,
                (false, _) if change.repeats => {}
                (false, _) => {
                    noted.repeats += 1;
                    if noted.repeated.is_none() {
                        noted.repeated = Some(batch.keys(index)?);
                    }
                }
            }
        }
        Ok(on.into())
    }
}

/// The columns of a batch that say what and where.
struct Places {
    change: arrow::array::PrimitiveArray<Int8Type>,
    file: arrow::array::PrimitiveArray<UInt32Type>,
    row: arrow::array::PrimitiveArray<Int64Type>,
    keys: Vec<(String, ArrayRef)>,
}

impl Places {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let column = |name: &str, data_type: &DataType| -> Result<ArrayRef> {
            let column = batch
                .column_by_name(name)
                .ok_or_else(|| Error::internal(format!("a change has no column {name}")))?;
            Ok(cast(column, data_type).map_err(DataFusionError::from)?)
        };
        let mut keys = Vec::new();
        let schema = batch.schema();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            if let Some(name) = field.name().strip_prefix(KEY) {
                keys.push((name.to_owned(), Arc::clone(array)));
            }
        }
        Ok(Self {
            change: column(CHANGE, &DataType::Int8)?.as_primitive().clone(),
            file: column(located::FILE, &DataType::UInt32)?
                .as_primitive()
                .clone(),
            row: column(located::ROW, &DataType::Int64)?
                .as_primitive()
                .clone(),
            keys,
        })
    }

    fn only_deletes(&self) -> bool {
        let delete = Kind::Delete as i8;
        self.file.null_count() == 0
            && self.row.null_count() == 0
            && self.change.values().iter().all(|code| *code == delete)
    }

    /// The values by which a person knows the row.
    fn keys(&self, index: usize) -> Result<String> {
        let shown = self.keys.iter().map(|(name, values)| {
            let value = array_value_to_string(values, index).map_err(DataFusionError::from)?;
            Ok(format!("{name} = {value}"))
        });
        Ok(shown.collect::<Result<Vec<_>>>()?.join(", "))
    }
}

/// Begins the names of columns that only messages need.
pub(crate) const KEY: &str = "__selvedge_key_";

/// The stage: notes old rows, passes new ones.
#[derive(Debug)]
pub(super) struct ChangeExec {
    change: Arc<Change>,
    input: Arc<dyn ExecutionPlan>,
    /// Of the rows that go on.
    schema: SchemaRef,
    noted: Arc<Slot<Changes>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ChangeExec {
    /// `columns` are those of the table: a statement that only deletes gives none of them.
    pub(super) fn try_new(
        change: Arc<Change>,
        columns: &SchemaRef,
        input: Arc<dyn ExecutionPlan>,
        noted: Arc<Slot<Changes>>,
    ) -> Result<Self> {
        let given = input.schema();
        let gives_rows = columns.fields().first().is_some_and(|first| {
            given
                .fields()
                .first()
                .is_some_and(|f| f.name() == first.name())
        });
        let schema = if gives_rows {
            let fields = &given.fields()[..columns.fields().len()];
            Arc::new(Schema::new(fields.to_vec()))
        } else {
            Arc::clone(columns)
        };
        Ok(Self {
            properties: properties(&input, &schema),
            change,
            input,
            schema,
            noted,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl DisplayAs for ChangeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeExec: {}", self.change.statement)
    }
}

impl ExecutionPlan for ChangeExec {
    fn name(&self) -> &str {
        "ChangeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let input = one_child(children)?;
        Ok(Arc::new(Self {
            properties: properties(&input, &self.schema),
            change: Arc::clone(&self.change),
            schema: Arc::clone(&self.schema),
            noted: Arc::clone(&self.noted),
            metrics: ExecutionPlanMetricsSet::new(),
            input,
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, RECOMPUTE)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> PlanResult<SendableRecordBatchStream> {
        let noted = self.noted.current()?;
        let (change, width) = (Arc::clone(&self.change), self.schema.fields().len());
        let schema = Arc::clone(&self.schema);
        Ok(StageStream::boxed(
            self.input.execute(partition, context)?,
            &self.schema,
            (&self.metrics, partition),
            move |batch| {
                let on = noted.note(&change, &Places::of(&batch)?)?;
                if on.true_count() == 0 {
                    return Ok(None);
                }
                let columns = batch.columns()[..width].to_vec();
                let rows = RecordBatch::try_new(Arc::clone(&schema), columns)
                    .and_then(|rows| filter_record_batch(&rows, &on))
                    .map_err(DataFusionError::from)?;
                Ok(Some(rows))
            },
            || (),
        ))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

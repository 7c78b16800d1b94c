//! The last stage of a write to a journal: rows become events. An event is a row that says when it is true from, and
//! whether its key ends there; behind the stage events are brought in the order of their keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;

use super::super::quality::unexpected;
use super::super::stage::{Part, Stage, StageExec, Step, Work};
use super::super::target::JournalTarget;
use super::bounded::{BoundedSortExec, SORT_BYTES};
use crate::error::{Error, Result};
use crate::journal::event::{self, DELETE, KEEP, SEQUENCE};
use crate::journal::key;
use crate::journal::shape::Shape;

/// The order in which the step takes events.
pub(in crate::write) fn ordering(shape: &Shape, events: &SchemaRef) -> Result<LexOrdering> {
    key::ordering(shape, events, &[SEQUENCE, DELETE])
}

/// The events of `rows`, which come with their riders, in the order of the step.
pub(in crate::write) fn plan(
    rows: Arc<dyn ExecutionPlan>,
    target: &JournalTarget,
) -> Result<Arc<dyn ExecutionPlan>> {
    let stage = Journaling::new(target);
    let events = StageExec::plan(Arc::new(stage), rows, None);
    let order = ordering(&target.shape, &events.schema())?;
    let sorted = BoundedSortExec::new(order.clone(), events, SORT_BYTES);
    Ok(Arc::new(SortPreservingMergeExec::new(
        order,
        Arc::new(sorted),
    )))
}

/// The stage.
#[derive(Debug)]
struct Journaling {
    shape: Arc<Shape>,
    /// When rows are true from that do not say it themselves.
    instant: i64,
    schema: SchemaRef,
}

impl Journaling {
    fn new(target: &JournalTarget) -> Self {
        Self {
            schema: event::event_schema(&target.shape),
            shape: Arc::clone(&target.shape),
            instant: target.instant,
        }
    }
}

impl Stage for Journaling {
    const NAME: &'static str = "JournalExec";
    const IN_PLACE: bool = false;
    type Work = Telling;

    fn describe(&self) -> String {
        let definition = &self.shape.definition;
        let after = match definition.late.after_micros {
            Some(micros) => format!(" AFTER {micros} us"),
            None => String::new(),
        };
        format!(
            "table={}, keys=[{}], sequence={}, late={}{after}",
            self.shape.table,
            definition.keys.join(", "),
            definition.sequence.as_deref().unwrap_or("the statement"),
            definition.late.policy.sql(),
        )
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin(&self, _: Part) -> Result<Telling> {
        Ok(Telling {
            shape: Arc::clone(&self.shape),
            instant: self.instant,
            schema: Arc::clone(&self.schema),
        })
    }
}

/// The work of one partition.
struct Telling {
    shape: Arc<Shape>,
    instant: i64,
    schema: SchemaRef,
}

impl Work for Telling {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(Step::default());
        }
        let width = self.shape.flow.fields().len();
        let rider = |name: &str| {
            let column = batch.column_by_name(name).map(Arc::clone);
            column.ok_or_else(|| Error::internal(format!("a row for a journal has no {name}")))
        };
        let (delete, keep) = (rider(DELETE)?, rider(KEEP)?);
        let mut columns: Vec<ArrayRef> = batch.columns().iter().take(width).cloned().collect();
        // Hooks and policies may have taken values that the first stages saw.
        let needed = self.shape.keys.iter().chain(&self.shape.sequence);
        for at in needed {
            let missing = columns
                .get(*at)
                .map_or(rows, |column| column.logical_null_count());
            if missing > 0 {
                return Err(Error::rejected(format!(
                    "table {}: {missing} rows have no value in {} {} after hooks and cleansing",
                    self.shape.table,
                    role(&self.shape, *at),
                    self.shape.declared.field(*at).name()
                )));
            }
        }
        let sequence = match self.shape.sequence.and_then(|at| columns.get(at)) {
            Some(column) => event::micros(&self.shape, column)?,
            None => Int64Array::from_value(self.instant, rows),
        };
        columns.push(Arc::new(sequence));
        columns.push(delete);
        columns.push(keep);
        let events = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        Ok(Step {
            on: Some(events.map_err(unexpected)?),
            aside: None,
        })
    }

    fn end(self) -> Result<()> {
        Ok(())
    }
}

/// What a message calls a column that each event needs.
fn role(shape: &Shape, at: usize) -> &'static str {
    match shape.keys.contains(&at) {
        true => "key",
        false => "sequence",
    }
}

//! Rows that come out of quarantine: the stage before all others takes note of which they are.
//!
//! ```text
//! (columns.., file, row)  ->  Received (columns..)
//! ```
//!
//! The commit that shows the rows says that quarantine has them no longer.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, UInt32Type};
use datafusion::error::DataFusionError;
use parking_lot::Mutex;
use roaring::RoaringTreemap;

use super::stage::{Part, Slot, Stage, Step, Work};
use crate::error::{Error, Result};

/// Rows of files of quarantine, by the number of the file.
#[derive(Debug, Default)]
pub(super) struct Taken(Mutex<HashMap<u32, RoaringTreemap>>);

impl Taken {
    pub(super) fn rows(&self) -> HashMap<u32, RoaringTreemap> {
        self.0.lock().clone()
    }
}

/// The stage: notes which rows of quarantine pass.
#[derive(Debug)]
pub(super) struct Taking {
    schema: SchemaRef,
    taken: Arc<Slot<Taken>>,
}

impl Taking {
    /// `given` has the columns of the table, then file and row.
    pub(super) fn new(given: &SchemaRef, width: usize, taken: Arc<Slot<Taken>>) -> Self {
        let fields = given.fields().iter().take(width).cloned();
        Self {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            taken,
        }
    }
}

impl Stage for Taking {
    const NAME: &'static str = "ReplayExec";
    type Work = Noting;

    fn describe(&self) -> String {
        format!("columns={}", self.schema.fields().len())
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin(&self, _: Part) -> Result<Noting> {
        Ok(Noting {
            schema: Arc::clone(&self.schema),
            taken: self.taken.current()?,
        })
    }
}

/// The work of one partition.
pub(super) struct Noting {
    schema: SchemaRef,
    taken: Arc<Taken>,
}

impl Work for Noting {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        let width = self.schema.fields().len();
        let [file, row] = batch.columns().get(width..).unwrap_or_default() else {
            return Err(Error::internal("a replayed row came without its place"));
        };
        let file = cast(file, &DataType::UInt32).map_err(DataFusionError::from)?;
        let row = cast(row, &DataType::Int64).map_err(DataFusionError::from)?;
        let (file, row) = (
            file.as_primitive::<UInt32Type>(),
            row.as_primitive::<Int64Type>(),
        );
        if file.null_count() + row.null_count() > 0 {
            return Err(Error::internal("a replayed row has no place"));
        }
        let mut taken = self.taken.0.lock();
        for (file, row) in file.values().iter().zip(row.values()) {
            let row = u64::try_from(*row)
                .map_err(|_| Error::internal("a row lies before its file begins"))?;
            if !taken.entry(*file).or_default().insert(row) {
                return Err(Error::internal("a row of quarantine was replayed twice"));
            }
        }
        drop(taken);
        let columns = batch.columns()[..width].to_vec();
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(DataFusionError::from)?;
        Ok(Step {
            on: (rows.num_rows() > 0).then_some(rows),
            aside: None,
        })
    }

    fn end(self) -> Result<()> {
        Ok(())
    }
}

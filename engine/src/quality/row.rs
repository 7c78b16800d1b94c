//! Rules about each row by itself.

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, BooleanArray, BooleanBuilder, RecordBatch,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;

use super::condition::{self, Condition, Nan, Owner};
use crate::error::Result;

/// A condition on a row, asked so that it always has an answer.
#[derive(Debug, Clone)]
pub(super) struct RowRule(Condition);

/// What came out for the rows of a batch.
#[derive(Debug)]
pub(super) struct Answers {
    pub holds: BooleanArray,
    /// Rows for which the condition has no answer, ascending, and why: a division by zero.
    pub failed: Vec<(usize, String)>,
}

impl RowRule {
    pub(super) fn compile(
        state: &SessionState,
        owner: Owner<'_>,
        parsed: ast::Expr,
        schema: &SchemaRef,
        nan: Nan,
    ) -> Result<Self> {
        condition::compile(state, owner, parsed, schema, (false, nan)).map(Self)
    }

    pub(super) fn columns(&self) -> &[usize] {
        self.0.columns()
    }

    pub(super) fn ask(&self, batch: &RecordBatch) -> Answers {
        match self.0.ask(batch) {
            Ok(holds) => Answers {
                holds,
                failed: Vec::new(),
            },
            Err(_) => {
                let mut holds = BooleanBuilder::with_capacity(batch.num_rows());
                let mut failed = Vec::new();
                self.ask_parts(batch, &mut holds, &mut failed);
                Answers {
                    holds: holds.finish(),
                    failed,
                }
            }
        }
    }

    /// The rows in ever smaller parts: few of them have no answer, and the others must not suffer for it.
    fn ask_parts(
        &self,
        rows: &RecordBatch,
        holds: &mut BooleanBuilder,
        failed: &mut Vec<(usize, String)>,
    ) {
        match (self.0.ask(rows), rows.num_rows()) {
            (Ok(answers), _) => holds.extend(answers.iter()),
            (Err(error), 1) => {
                failed.push((ArrayBuilder::len(holds), error.strip_backtrace()));
                holds.append_value(false);
            }
            (Err(_), count) => {
                let half = count / 2;
                self.ask_parts(&rows.slice(0, half), holds, failed);
                self.ask_parts(&rows.slice(half, count - half), holds, failed);
            }
        }
    }
}

/// Which rows are NaN, if any is.
pub(super) fn nans(column: &ArrayRef) -> Option<BooleanBuffer> {
    let nan = match column.data_type() {
        DataType::Float16 => {
            let values = column.as_primitive::<Float16Type>().values();
            BooleanBuffer::collect_bool(values.len(), |row| values[row].is_nan())
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>().values();
            BooleanBuffer::collect_bool(values.len(), |row| values[row].is_nan())
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().values();
            BooleanBuffer::collect_bool(values.len(), |row| values[row].is_nan())
        }
        _ => return None,
    };
    let nan = match column.nulls() {
        Some(nulls) => &nan & nulls.inner(),
        None => nan,
    };
    (nan.count_set_bits() > 0).then_some(nan)
}

//! Rules about each row by itself.

use arrow::array::{Array, ArrayBuilder, BooleanArray, BooleanBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
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

impl Answers {
    /// The same, but these rows were not asked: they hold.
    pub(super) fn sparing(self, rows: &BooleanBuffer) -> Self {
        let values = self.holds.values() | rows;
        let nulls = self.holds.nulls();
        let nulls = nulls.map(|nulls| arrow::buffer::NullBuffer::new(nulls.inner() | rows));
        let failed = self.failed.into_iter();
        Self {
            holds: BooleanArray::new(values, nulls),
            failed: failed.filter(|(row, _)| !rows.value(*row)).collect(),
        }
    }
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

//! Rules about each row by itself.

use arrow::array::{ArrayBuilder, BooleanArray, BooleanBuilder, RecordBatch};
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

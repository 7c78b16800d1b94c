//! Rules about each row by itself.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use datafusion::sql::sqlparser::ast::{self, visit_expressions};
use std::ops::ControlFlow;

use super::condition::{self, Condition, Owner};
use crate::error::Result;

/// A condition on a row, asked so that it always has an answer.
#[derive(Debug, Clone)]
pub(super) struct RowRule {
    condition: Condition,
    /// Columns of floats that it compares with a bound: NaN is within none, though it sorts above all numbers.
    bounded: Vec<usize>,
}

/// What came out for the rows of a batch.
#[derive(Debug)]
pub(super) struct Answers {
    pub holds: BooleanArray,
    /// Rows for which the condition has no answer, and why: a division by zero.
    pub failed: Vec<(usize, String)>,
}

impl RowRule {
    pub(super) fn compile(
        state: &SessionState,
        owner: Owner<'_>,
        mut parsed: ast::Expr,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let compiled = condition::compile(state, owner, parsed.clone(), schema, false)?;
        condition::spell_columns(&mut parsed, schema);
        // Who asks for NaN has thought of it.
        let bounded = match asks_for_nan(&parsed) {
            true => Vec::new(),
            false => bounded(&condition::resolve(state, owner, parsed, schema)?, schema),
        };
        Ok(Self {
            condition: compiled,
            bounded,
        })
    }

    pub(super) fn columns(&self) -> &[usize] {
        self.condition.columns()
    }

    pub(super) fn ask(&self, batch: &RecordBatch) -> Answers {
        let mut answers = match self.condition.ask(batch) {
            Ok(holds) => Answers {
                holds,
                failed: Vec::new(),
            },
            Err(_) => self.ask_each(batch),
        };
        for column in &self.bounded {
            if let Some(nan) = nans(batch.column(*column)) {
                answers.holds = without(&answers.holds, &nan);
            }
        }
        answers
    }

    /// The rows one by one: one of them has no answer, and the others must not suffer for it.
    fn ask_each(&self, batch: &RecordBatch) -> Answers {
        let mut holds = BooleanBuilder::with_capacity(batch.num_rows());
        let mut failed = Vec::new();
        for row in 0..batch.num_rows() {
            match self.condition.ask(&batch.slice(row, 1)) {
                Ok(answer) if answer.is_valid(0) => holds.append_value(answer.value(0)),
                Ok(_) => holds.append_null(),
                Err(error) => {
                    holds.append_value(false);
                    failed.push((row, error.strip_backtrace()));
                }
            }
        }
        Answers {
            holds: holds.finish(),
            failed,
        }
    }
}

fn asks_for_nan(expr: &ast::Expr) -> bool {
    visit_expressions(expr, |expr| match expr {
        ast::Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("isnan") => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// Columns of floats on either side of `<`, `<=`, `>`, `>=` and BETWEEN.
fn bounded(predicate: &Expr, schema: &SchemaRef) -> Vec<usize> {
    let mut columns = Vec::new();
    let mut note = |side: &Expr| {
        for column in side.column_refs() {
            if let Ok(at) = schema.index_of(&column.name)
                && schema.field(at).data_type().is_floating()
            {
                columns.push(at);
            }
        }
    };
    let _ = predicate.apply(|expr| {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                use Operator::{Gt, GtEq, Lt, LtEq};
                if matches!(op, Lt | LtEq | Gt | GtEq) {
                    note(left);
                    note(right);
                }
            }
            Expr::Between(Between {
                expr, low, high, ..
            }) => [expr, low, high].into_iter().for_each(|side| note(side)),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    columns.sort_unstable();
    columns.dedup();
    columns
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

/// `holds`, but false in the rows `not`.
fn without(holds: &BooleanArray, not: &BooleanBuffer) -> BooleanArray {
    let values = holds.values() & &!not;
    let nulls = holds.nulls().map(|nulls| {
        // False is known: these rows are no longer NULL.
        arrow::buffer::NullBuffer::new(nulls.inner() | not)
    });
    BooleanArray::new(values, nulls)
}

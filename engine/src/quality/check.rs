//! CHECK constraints: conditions that the Delta protocol knows, and that every writer of it honours.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use datafusion::physical_expr::PhysicalExpr;
use std::sync::Arc;

use super::condition::{self, Condition, Nan, Owner};
use crate::error::{Error, Result};

/// A constraint ready to run on batches of its table's schema.
#[derive(Debug, Clone)]
pub(crate) struct CompiledCheck {
    pub name: String,
    /// What an error calls it: `CHECK positive (amount >= 0)`.
    label: String,
    condition: Condition,
}

/// Compiles constraint `name` of `table`. Everything wrong with it is told here, before any row.
pub(crate) fn compile(
    state: &SessionState,
    table: &str,
    name: &str,
    text: &str,
    schema: &SchemaRef,
) -> Result<CompiledCheck> {
    let label = format!("CHECK {name} ({text})");
    let owner = Owner {
        label: &label,
        table,
    };
    let parsed = condition::parse(owner, text)?;
    let condition = condition::compile(state, owner, parsed, schema, (true, Nan::Greatest))?;
    Ok(CompiledCheck {
        name: name.to_string(),
        label,
        condition,
    })
}

impl CompiledCheck {
    /// The rows for which the predicate is not TRUE. As in the Delta protocol, NULL is a violation.
    pub(crate) fn broken_by(&self, table: &str, batch: &RecordBatch) -> Result<Vec<usize>> {
        let verdict = self.condition.ask(batch).map_err(|error| {
            let what = match self.condition.is_personal() {
                // The reason may quote a value.
                true => "it has no answer for some row".to_owned(),
                false => error.strip_backtrace(),
            };
            Error::rejected(format!("{} of table {table}: {what}", self.label)).with_source(error)
        })?;
        if verdict.true_count() == verdict.len() {
            return Ok(Vec::new());
        }
        let holds = |row| verdict.is_valid(row) && verdict.value(row);
        Ok((0..verdict.len()).filter(|row| !holds(*row)).collect())
    }

    /// The constraint and the values of `row` it reads.
    pub(crate) fn describe(&self, batch: &RecordBatch, row: usize) -> String {
        let values = self.condition.values(batch, row);
        format!("{} is not true for {values}", self.label)
    }

    /// Whether it reads the column at this position.
    pub(crate) fn reads(&self, column: usize) -> bool {
        self.condition.columns().contains(&column)
    }

    pub(crate) fn predicate(&self) -> &Arc<dyn PhysicalExpr> {
        self.condition.predicate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Int64Array, StringViewArray};
    use arrow::datatypes::{DataType, Field, Fields, Schema};
    use datafusion::prelude::SessionContext;

    fn schema() -> SchemaRef {
        let inner = Fields::from(vec![Field::new("zip", DataType::Utf8View, true)]);
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("Amount", DataType::Decimal128(12, 2), true),
            Field::new("name", DataType::Utf8View, true),
            Field::new("address", DataType::Struct(inner), true),
        ]))
    }

    fn check(text: &str) -> Result<CompiledCheck> {
        compile(
            &SessionContext::new().state(),
            "shop.orders",
            "c",
            text,
            &schema(),
        )
    }

    fn batch() -> RecordBatch {
        let schema = Arc::new(Schema::new(schema().fields()[..3].to_vec()));
        let amounts = Decimal128Array::from(vec![Some(100), Some(-1), None])
            .with_precision_and_scale(12, 2)
            .unwrap();
        RecordBatch::try_new(
            schema,
            vec![
                Arc::new(Int64Array::from(vec![1, 2, 3])),
                Arc::new(amounts),
                Arc::new(StringViewArray::from(vec![Some("a"), Some("b"), None])),
            ],
        )
        .unwrap()
    }

    #[test]
    fn only_true_passes() {
        let broken = |text: &str| check(text).unwrap().broken_by("t", &batch()).unwrap();
        assert_eq!(broken("amount >= 0"), [1, 2]);
        assert_eq!(broken("AMOUNT >= 0 OR amount IS NULL"), [1]);
        assert_eq!(broken("\"Amount\" > -5.5 and id < 3"), [2]);
        assert_eq!(broken("upper(name) IN ('A', 'B')"), [2]);
        assert_eq!(broken("1 = 1"), Vec::<usize>::new());
        assert_eq!(broken("1 = 2"), [0, 1, 2]);
        assert_eq!(
            broken("coalesce(length(name), 1) = 1 AND nullif(id, 2) > 0"),
            [1]
        );
        assert!(check("address.zip LIKE '1%'").is_ok());
        assert!(check("array_has(['a', 'b'], name)").is_ok());
    }

    #[test]
    fn a_broken_row_is_told_by_the_values_the_check_reads() {
        let check = check("amount >= 0 AND id < 9").unwrap();
        assert_eq!(
            check.describe(&batch(), 1),
            "CHECK c (amount >= 0 AND id < 9) is not true for id = 2, Amount = -0.01"
        );
    }

    #[test]
    fn a_predicate_that_cannot_be_kept_is_refused_by_name() {
        let nope = |text: &str, what: &str| {
            let error = check(text).expect_err(text).to_string();
            assert!(error.contains(what), "{text}: {error}");
            assert!(error.contains("shop.orders"), "{error}");
        };
        nope("amout > 0", "no column amout\nhint: did you mean Amount?");
        nope("\"amount\" > 0", "no column");
        nope(
            "uper(name) = 'A'",
            "no function uper\nhint: did you mean upper?",
        );
        nope(
            "now() > '2024-01-01'",
            "function now may answer differently",
        );
        nope("random() > 0.5", "function random may answer differently");
        nope("uuid() = name", "function uuid may answer differently");
        nope(
            "current_date > '2024-01-01'",
            "function current_date may answer differently",
        );
        nope("sum(amount) > 0", "aggregate function sum");
        nope("row_number() OVER () > 0", "window function");
        nope("sum(amount) OVER () > 0", "window function");
        nope("id IN (SELECT 1)", "subquery");
        nope("EXISTS (SELECT 1)", "subquery");
        nope("id = (SELECT 1)", "subquery");
        nope("id > ANY (SELECT 1)", "subquery");
        nope("id = $1", "parameter");
        nope("id = ?", "parameter");
        nope("id + 1", "it is BIGINT, not BOOLEAN");
        nope("name", "it is TEXT, not BOOLEAN");
        nope("NULL", "not BOOLEAN");
        nope("id > 0 AS x", "found AS");
        nope("id > 0; DROP TABLE t", "CHECK c");
        nope("id > 0 garbage more", "CHECK c");
        nope("id >", "CHECK c");
        nope("", "CHECK c");
        nope("id > address", "CHECK c");
    }

    #[test]
    fn a_check_that_fails_to_run_is_a_refusal_not_a_pass() {
        let check = check("10 / (id - 2) >= -100").unwrap();
        let error = check.broken_by("shop.orders", &batch()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Rejected);
        assert!(error.message().contains("CHECK c"), "{error}");
    }
}

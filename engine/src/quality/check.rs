//! CHECK constraints: from SQL text to something that finds the rows of a batch that break them.
//!
//! A check sees one row and nothing else, so that it means the same today, tomorrow and in every other
//! engine: no subquery, aggregate, window, parameter, and no function whose answer may change.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, SchemaError};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::sql::sqlparser::ast::{self, Ident, visit_expressions, visit_expressions_mut};

use super::cast::{shown, sql_name};
use crate::error::{Error, Result};
use crate::expr;
use crate::sql;

/// A constraint ready to run on batches of its table's schema.
#[derive(Debug, Clone)]
pub(crate) struct CompiledCheck {
    pub name: String,
    /// What an error calls it: `CHECK positive (amount >= 0)`.
    label: String,
    predicate: Arc<dyn PhysicalExpr>,
    /// Columns it reads, by position.
    columns: Vec<usize>,
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
    let wrong = |what: String| Error::invalid(format!("{label} of table {table}: {what}"));
    let failed = |error: DataFusionError| match missing_column(&error) {
        Some(column) => {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            suggest(wrong(format!("no column {column}")), &column, names)
        }
        None => wrong(error.strip_backtrace()).with_source(error),
    };

    let dialect = state.config().options().sql_parser.dialect;
    let mut parsed = state
        .sql_to_expr_with_alias(text, &dialect)
        .map_err(failed)?;
    if let Some(alias) = &parsed.alias {
        return Err(wrong(format!("unexpected AS {alias}")));
    }
    functions_are_known(state, &parsed.expr, &wrong)?;
    spell_columns(&mut parsed.expr, schema);

    let names = DFSchema::try_from(Arc::clone(schema)).map_err(failed)?;
    let predicate = state
        .create_logical_expr_from_sql_expr(parsed, &names)
        .map_err(failed)?;
    sees_one_row(&predicate).map_err(wrong)?;
    // Some functions (coalesce) exist only until the simplifier has rewritten them.
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(names.clone()))
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let physical = expr::condition(&simplifier, predicate, &names)
        .and_then(|predicate| state.create_physical_expr(predicate, &names))
        .map_err(failed)?;
    match physical.data_type(schema).map_err(failed)? {
        DataType::Boolean => {}
        other => return Err(wrong(format!("it is {}, not BOOLEAN", sql_name(&other)))),
    }
    let mut columns: Vec<usize> = collect_columns(&physical)
        .iter()
        .map(|column| column.index())
        .collect();
    columns.sort_unstable();
    Ok(CompiledCheck {
        name: name.to_string(),
        label,
        predicate: physical,
        columns,
    })
}

impl CompiledCheck {
    /// The rows for which the predicate is not TRUE. As in the Delta protocol, NULL is a violation.
    pub(crate) fn broken_by(&self, table: &str, batch: &RecordBatch) -> Result<Vec<usize>> {
        let failed = |error: DataFusionError| {
            let what = error.strip_backtrace();
            Error::rejected(format!("{} of table {table}: {what}", self.label)).with_source(error)
        };
        let verdict = self
            .predicate
            .evaluate(batch)
            .and_then(|value| value.into_array(batch.num_rows()))
            .map_err(failed)?;
        let verdict = verdict.as_boolean_opt().ok_or_else(|| {
            Error::internal(format!("{} gave {}", self.label, verdict.data_type()))
        })?;
        if verdict.true_count() == verdict.len() {
            return Ok(Vec::new());
        }
        let holds = |row| verdict.is_valid(row) && verdict.value(row);
        Ok((0..verdict.len()).filter(|row| !holds(*row)).collect())
    }

    /// The constraint and the values of `row` it reads.
    pub(crate) fn describe(&self, batch: &RecordBatch, row: usize) -> String {
        let values: Vec<String> = self
            .columns
            .iter()
            .filter_map(|column| {
                let value = shown(batch.column(*column), &[row]).pop()?;
                Some(format!(
                    "{} = {value}",
                    batch.schema_ref().field(*column).name()
                ))
            })
            .collect();
        format!("{} is not true for {}", self.label, values.join(", "))
    }

    /// Whether it reads the column at this position.
    pub(crate) fn reads(&self, column: usize) -> bool {
        self.columns.contains(&column)
    }

    pub(crate) fn predicate(&self) -> &Arc<dyn PhysicalExpr> {
        &self.predicate
    }
}

/// Refuses calls by name while the text still holds them; later errors would speak of a plan.
fn functions_are_known(
    state: &SessionState,
    expr: &ast::Expr,
    wrong: &impl Fn(String) -> Error,
) -> Result<()> {
    let found = visit_expressions(expr, |expr| match expr {
        ast::Expr::Function(call) => {
            let name = call.name.to_string().to_lowercase();
            let scalar = state.scalar_functions().contains_key(&name)
                || state.higher_order_functions().contains_key(&name);
            if call.over.is_some() || state.window_functions().contains_key(&name) {
                let what = format!("window function {name} needs more than one row");
                ControlFlow::Break(wrong(what))
            } else if scalar {
                ControlFlow::Continue(())
            } else if state.aggregate_functions().contains_key(&name) {
                let what = format!("aggregate function {name} needs more than one row");
                ControlFlow::Break(wrong(what))
            } else {
                let names = state.scalar_functions().keys().map(String::as_str);
                let error = wrong(format!("no function {name}"));
                ControlFlow::Break(suggest(error, &name, names))
            }
        }
        ast::Expr::Subquery(_) | ast::Expr::InSubquery { .. } | ast::Expr::Exists { .. } => {
            ControlFlow::Break(wrong("a subquery is not allowed".into()))
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Other engines declare checks without minding letter case: a bare name that is no column as written
/// means the one column it is in any case.
fn spell_columns(expr: &mut ast::Expr, schema: &SchemaRef) {
    let spell = |ident: &mut Ident| {
        if ident.quote_style.is_some() {
            return;
        }
        let mut alike = schema
            .fields()
            .iter()
            .filter(|field| field.name().eq_ignore_ascii_case(&ident.value));
        if let (Some(field), None) = (alike.next(), alike.next()) {
            let span = ident.span;
            *ident = Ident::with_quote_and_span('"', span, field.name().clone());
        }
    };
    let _: ControlFlow<()> = visit_expressions_mut(expr, |expr| {
        match expr {
            ast::Expr::Identifier(ident) => spell(ident),
            ast::Expr::CompoundIdentifier(path) => {
                if let Some(first) = path.first_mut() {
                    spell(first);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
}

/// What makes a predicate depend on more than its row, if anything.
fn sees_one_row(predicate: &Expr) -> Result<(), String> {
    let mut found = None;
    let walked = predicate.apply(|expr| {
        found = match expr {
            Expr::ScalarFunction(call) => match call.func.signature().volatility {
                Volatility::Immutable => None,
                Volatility::Stable | Volatility::Volatile => Some(format!(
                    "function {} may answer differently next time",
                    call.func.name()
                )),
            },
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::Unnest(_) => {
                Some(format!("{} needs more than one row", expr.schema_name()))
            }
            Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_)
            | Expr::ScalarSubquery(_) => Some("a subquery is not allowed".into()),
            Expr::Placeholder(parameter) => {
                Some(format!("parameter {} is not allowed", parameter.id))
            }
            Expr::ScalarVariable(_, names) => {
                Some(format!("variable {} is not allowed", names.join(".")))
            }
            _ => None,
        };
        Ok(match found {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    });
    match (walked, found) {
        (_, Some(what)) => Err(what),
        (Err(error), None) => Err(error.strip_backtrace()),
        (Ok(_), None) => Ok(()),
    }
}

fn missing_column(error: &DataFusionError) -> Option<String> {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => Some(field.flat_name()),
            _ => None,
        },
        _ => None,
    }
}

fn suggest<'a>(error: Error, name: &str, valid: impl Iterator<Item = &'a str>) -> Error {
    match sql::nearest(name, valid) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Int64Array, StringViewArray};
    use arrow::datatypes::{Field, Fields, Schema};
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
        nope("row_number() OVER () > 0", "window function row_number");
        nope("sum(amount) OVER () > 0", "window function sum");
        nope("id IN (SELECT 1)", "subquery");
        nope("EXISTS (SELECT 1)", "subquery");
        nope("id = (SELECT 1)", "subquery");
        nope("id > ANY (SELECT 1)", "subquery");
        nope("id = $1", "parameter $1");
        nope("id = ?", "parameter");
        nope("id + 1", "it is BIGINT, not BOOLEAN");
        nope("name", "it is TEXT, not BOOLEAN");
        nope("NULL", "not BOOLEAN");
        nope("id > 0 AS x", "unexpected AS x");
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

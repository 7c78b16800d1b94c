//! Two IN lists over one value are two questions.
//!
//! DataFusion 55.2 folds them into one (`simplify_expressions/expr_simplifier.rs`, `inlist_intersection` and
//! `inlist_except`; `a = 1 OR a = 2` becomes a list first), and is wrong in three ways:
//!
//! - It compares elements as they are written. `a IN (1, b) AND a IN (1, b + 0)` becomes `a IN (1)`,
//!   `a IN (1, 2) AND a NOT IN (1, b)` becomes `a IN (2)`, though `b` may be 2.
//! - A NULL is to it an element like any other. `a IN (1, 2) AND a NOT IN (1, NULL)`, true of no row, becomes
//!   `a IN (2)`.
//! - What is left without elements becomes FALSE (`IN .. AND IN`, `IN .. AND NOT IN`) or TRUE (`NOT IN .. OR NOT IN`),
//!   though a NULL on the left makes it NULL.
//!
//! The union of lists (`IN .. OR IN`, `NOT IN .. AND NOT IN`) is right. Folding needs equal left sides, so a list that
//! must not be folded gets a left side of its own: a function that gives back its argument. Such a list prunes no
//! files. A list alone of constants keeps its left side wherever FALSE is as good as NULL.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::{Cast, InList, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::optimizer::AnalyzerRule;

/// Name of the function in plans. No session knows it.
const SAME: &str = "__selvedge_same";

/// Keeps lists apart in plans. Must run after `TypeCoercion`, which shows constants and types as they will be folded.
#[derive(Debug)]
pub(super) struct Apart;

impl AnalyzerRule for Apart {
    fn name(&self) -> &str {
        "lists_apart"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if !foldable(&plan)? {
            return Ok(plan);
        }
        let given = Cell::new(0);
        let plan = plan.transform_up_with_subqueries(|plan| node(plan, &given))?;
        Ok(plan.data)
    }
}

/// A condition over `schema` that is asked only whether it is true.
pub(super) fn apart_in_condition(condition: Expr, schema: &DFSchema) -> Result<Expr> {
    let given = Cell::new(0);
    let lists = Lists {
        schema,
        given: &given,
    };
    Ok(lists.condition(condition, false)?.data)
}

/// An expression over `schema` whose value is wanted.
pub(super) fn apart_in_value(value: Expr, schema: &DFSchema) -> Result<Expr> {
    let given = Cell::new(0);
    let lists = Lists {
        schema,
        given: &given,
    };
    Ok(lists.value(value)?.data)
}

/// Whether the plan has two things that could be folded, wherever they stand: filters are moved and views are
/// looked through.
fn foldable(plan: &LogicalPlan) -> Result<bool> {
    let mut found = 0;
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                found += usize::from(matches!(expr, Expr::InList(_)) || is_or(expr));
                Ok(match found {
                    0 | 1 => TreeNodeRecursion::Continue,
                    _ => TreeNodeRecursion::Stop,
                })
            })
        })
    })?;
    Ok(found > 1)
}

fn node(plan: LogicalPlan, given: &Cell<i64>) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let lists = Lists {
        schema: &schema,
        given,
    };
    match plan {
        LogicalPlan::Filter(mut filter) => {
            let predicate = lists.condition(filter.predicate, false)?;
            filter.predicate = predicate.data;
            Ok(Transformed::new_transformed(
                LogicalPlan::Filter(filter),
                predicate.transformed,
            ))
        }
        LogicalPlan::Join(mut join) => {
            if let Some(filter) = join.filter.take() {
                join.filter = Some(lists.condition(filter, false)?.data);
            }
            for (left, right) in &mut join.on {
                *left = lists.value(std::mem::take(left))?.data;
                *right = lists.value(std::mem::take(right))?.data;
            }
            Ok(Transformed::yes(LogicalPlan::Join(join)))
        }
        // Its expressions must stay those it sorts by.
        LogicalPlan::Distinct(_) => Ok(Transformed::no(plan)),
        plan => {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                // Its name is that of nothing, and it may not be renamed.
                if matches!(expr, Expr::GroupingSet(_)) {
                    return Ok(Transformed::no(expr));
                }
                let name = names.save(&expr);
                let expr = lists.value(expr)?;
                Ok(match expr.transformed {
                    true => expr.update_data(|expr| name.restore(expr)),
                    false => expr,
                })
            })
        }
    }
}

/// The lists of one node.
struct Lists<'a> {
    schema: &'a DFSchema,
    /// How many left sides were made, in the whole plan: no two are equal.
    given: &'a Cell<i64>,
}

impl Lists<'_> {
    /// What only its being TRUE matters of: FALSE is as good as NULL, TRUE is not. `either` is below an OR, where
    /// two negated lists become TRUE.
    fn condition(&self, condition: Expr, either: bool) -> Result<Transformed<Expr>> {
        condition.transform_down(|expr| match expr {
            Expr::BinaryExpr(BinaryExpr {
                op: Operator::And, ..
            }) => Ok(Transformed::no(expr)),
            expr if is_or(&expr) => match either {
                true => Ok(Transformed::no(expr)),
                false => done(self.condition(expr, true)?),
            },
            Expr::InList(list) => {
                let negated = list.negated;
                done(self.list(list, either && negated)?)
            }
            Expr::Not(inner) => match *inner {
                // `NOT (a IN (..))` is `a NOT IN (..)`.
                Expr::InList(list) => {
                    let hide = either && !list.negated;
                    let list = self.list(list, hide)?;
                    done(list.update_data(|list| Expr::Not(Box::new(list))))
                }
                inner => {
                    let inner = self.value(inner)?;
                    done(inner.update_data(|inner| Expr::Not(Box::new(inner))))
                }
            },
            expr => done(self.value(expr)?),
        })
    }

    /// What may be NULL, TRUE or FALSE, each of which matters.
    fn value(&self, value: Expr) -> Result<Transformed<Expr>> {
        value.transform_up(|expr| match expr {
            Expr::InList(list) => self.hide_left(list, true),
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Or,
                right,
            }) => {
                let left = self.equality(*left)?;
                let right = self.equality(*right)?;
                let transformed = left.transformed || right.transformed;
                let either =
                    BinaryExpr::new(Box::new(left.data), Operator::Or, Box::new(right.data));
                Ok(Transformed::new_transformed(
                    Expr::BinaryExpr(either),
                    transformed,
                ))
            }
            expr => Ok(Transformed::no(expr)),
        })
    }

    /// A list of a condition, what stands in it being values.
    fn list(&self, list: InList, hide: bool) -> Result<Transformed<Expr>> {
        Expr::InList(list)
            .map_children(|part| self.value(part))?
            .transform_parent(|expr| match expr {
                Expr::InList(list) => self.hide_left(list, hide),
                expr => Ok(Transformed::no(expr)),
            })
    }

    /// Gives a list a left side of its own where folding it would be wrong: always for what can be said of its
    /// elements, and if `strict` for a NULL on the left.
    fn hide_left(&self, mut list: InList, strict: bool) -> Result<Transformed<Expr>> {
        let left = list.expr.as_ref();
        let wrong = !list.list.iter().all(constant)
            || left.is_volatile()
            || strict && left.nullable(self.schema).unwrap_or(true);
        if hidden(left) || !wrong {
            return Ok(Transformed::no(Expr::InList(list)));
        }
        list.expr = Box::new(self.hide(*list.expr));
        Ok(Transformed::yes(Expr::InList(list)))
    }

    /// `a = 1` below an OR, where it would become a list.
    fn equality(&self, expr: Expr) -> Result<Transformed<Expr>> {
        let Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) = expr
        else {
            return Ok(Transformed::no(expr));
        };
        let nullable = |expr: &Expr| expr.nullable(self.schema).unwrap_or(true);
        let fixed = |expr: &Expr| expr.column_refs().is_empty();
        let (left, right, transformed) = match (fixed(&left), fixed(&right)) {
            (false, true) if !hidden(&left) && nullable(&left) => {
                (Box::new(self.hide(*left)), right, true)
            }
            (true, false) if !hidden(&right) && nullable(&right) => {
                (left, Box::new(self.hide(*right)), true)
            }
            _ => (left, right, false),
        };
        let equality = BinaryExpr::new(left, Operator::Eq, right);
        Ok(Transformed::new_transformed(
            Expr::BinaryExpr(equality),
            transformed,
        ))
    }

    fn hide(&self, expr: Expr) -> Expr {
        static FUNCTION: LazyLock<Arc<ScalarUDF>> =
            LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Same::new())));
        self.given.set(self.given.get() + 1);
        let args = vec![expr, lit(self.given.get())];
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FUNCTION), args))
    }
}

fn is_or(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::BinaryExpr(BinaryExpr {
            op: Operator::Or,
            ..
        })
    )
}

fn hidden(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == SAME)
}

/// Whether it is a value and no NULL, which equals another such value only if both are written alike. Of floats,
/// 0 has two spellings and NaN many; whole numbers and decimals have one as floats too.
fn constant(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => match value {
            ScalarValue::Float16(_) | ScalarValue::Float32(_) | ScalarValue::Float64(_) => false,
            value => !value.is_null() && !value.data_type().is_nested(),
        },
        Expr::Negative(expr) => constant(expr),
        Expr::Cast(Cast { expr, field }) if field.data_type().is_floating() => {
            exact(expr) && constant(expr)
        }
        Expr::Cast(Cast { expr, .. }) => constant(expr),
        _ => false,
    }
}

/// A number that is no float, however negative.
fn exact(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => {
            let data_type = value.data_type();
            data_type.is_integer() || data_type.is_decimal()
        }
        Expr::Negative(expr) => exact(expr),
        _ => false,
    }
}

/// The expression, and nothing below it is looked at again.
fn done(expr: Transformed<Expr>) -> Result<Transformed<Expr>> {
    Ok(Transformed::new(
        expr.data,
        expr.transformed,
        TreeNodeRecursion::Jump,
    ))
}

/// Gives back its first argument. The second one tells calls apart.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Same {
    signature: Signature,
}

impl Same {
    fn new() -> Self {
        Self {
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Same {
    fn name(&self) -> &str {
        SAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(data_type) => Ok(data_type.clone()),
            None => internal_err!("{SAME} takes a value"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields.first() {
            Some(field) => Ok(Arc::clone(field)),
            None => internal_err!("{SAME} takes a value"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => internal_err!("{SAME} takes a value"),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::logical_expr::{col, or};
    use datafusion::prelude::SessionContext;

    use super::*;

    /// The `a` of the rows for which the condition is true.
    async fn found(rows: &str, condition: &str) -> Vec<String> {
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_analyzer_rules(crate::expr::rules())
            .build();
        let context = SessionContext::new_with_state(state);
        let sql = format!("SELECT a FROM (VALUES {rows}) AS v(a, b) WHERE {condition} ORDER BY a");
        let found = context.sql(&sql).await.unwrap().collect().await.unwrap();
        let table = pretty_format_batches(&found).unwrap().to_string();
        let lines = table.lines().skip(3).filter(|line| line.starts_with("| "));
        lines
            .map(|line| line.trim_matches(['|', ' ']).to_owned())
            .collect()
    }

    #[tokio::test]
    async fn elements_that_are_columns_are_compared_by_value() {
        let none: [&str; 0] = [];
        let except = "a IN (1, 2) AND a NOT IN (1, b)";
        assert_eq!(found("(2, 2), (2, 3)", except).await, ["2"]);
        assert_eq!(found("(2, 2)", except).await, none);
        let both = "a IN (1, b) AND a IN (1, b + 0)";
        assert_eq!(found("(3, 3), (4, 3)", both).await, ["3"]);
    }

    #[tokio::test]
    async fn a_null_is_unknown_in_a_list_and_beside_it() {
        let none: [&str; 0] = [];
        let rows = "(2, 0), (3, 0), (NULL, 0)";
        assert_eq!(
            found(rows, "a IN (1, 2) AND a NOT IN (1, NULL)").await,
            none
        );
        let either = "a NOT IN (1, 5) OR a NOT IN (2, 7)";
        assert_eq!(found(rows, either).await, ["2", "3"]);
        let not_both = "NOT (a IN (1, 5) AND a IN (2, 7))";
        assert_eq!(found(rows, not_both).await, ["2", "3"]);
        let equalities = "NOT ((a = 1 OR a = 5) AND (a = 2 OR a = 7))";
        assert_eq!(found(rows, equalities).await, ["2", "3"]);
        let unknown = "(a IN (1, 5) AND a IN (2, 7)) IS NULL";
        assert_eq!(found("(NULL, 0), (1, 0)", unknown).await, [""]);
    }

    #[tokio::test]
    async fn lists_of_two_nodes_are_kept_apart() {
        let none: [&str; 0] = [];
        let inner = "a IN (SELECT a FROM (SELECT a FROM (VALUES (2), (NULL)) AS w(a) \
                     WHERE a IN (1, 2)) AS x WHERE a NOT IN (1, NULL))";
        assert_eq!(found("(2, 0)", inner).await, none);
    }

    fn schema() -> DFSchema {
        let fields = vec![
            Field::new("a", DataType::Int64, true),
            Field::new("id", DataType::Int64, false),
        ];
        DFSchema::try_from(Schema::new(fields)).unwrap()
    }

    #[test]
    fn what_is_folded_rightly_is_left_alone() {
        let (one, two) = (vec![lit(1_i64), lit(5_i64)], vec![lit(2_i64), lit(7_i64)]);
        let same = |condition: Expr| {
            let after = apart_in_condition(condition.clone(), &schema()).unwrap();
            after == condition
        };
        let within = |name: &str, negated| {
            (
                col(name).in_list(one.clone(), negated),
                col(name).in_list(two.clone(), negated),
            )
        };
        let (left, right) = within("a", false);
        assert!(same(left.clone().and(right.clone())));
        assert!(same(left.clone().or(right.clone())));
        assert!(!same(!(left.and(right))));
        let (left, right) = within("a", true);
        assert!(same(left.clone().and(right.clone())));
        assert!(!same(left.or(right)));
        let (left, right) = within("id", true);
        assert!(same(left.clone().or(right.clone())));
        assert!(same(!(left.or(right))));
        let unknown = vec![lit(1_i64), lit(ScalarValue::Int64(None))];
        assert!(!same(col("id").in_list(unknown, false)));
    }

    #[test]
    fn a_long_chain_of_equalities_is_passed_once() {
        let chain = || {
            let each = (0..1_000_i64).map(|value| col("a").eq(lit(value)));
            let chain = each.reduce(or).unwrap();
            let after = apart_in_condition(chain.clone(), &schema()).unwrap();
            assert!(after == chain);
        };
        // Cloning and comparing what is so deep takes more stack than a test has.
        let deep = std::thread::Builder::new().stack_size(64 << 20);
        deep.spawn(chain).unwrap().join().unwrap();
    }
}

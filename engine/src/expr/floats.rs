//! A decimal beside a float is a float, as in SQL what is exact beside what is approximate is approximate.
//!
//! DataFusion makes a `DECIMAL(30, 15)` of a `DOUBLE` beside a decimal, and every literal with a point is a decimal
//! here: `f > 0.0` would not be true of `1e-20`, and `coalesce(f, 0.0)` would fail at `1e300`. Arithmetic is right.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{Cast, InSubquery, SetComparison};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, Union,
};
use datafusion::optimizer::AnalyzerRule;

/// Functions that give back, compare or collect their arguments, and so bring them to one type.
const OF_ONE_TYPE: [&str; 24] = [
    "array_append",
    "array_concat",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_resize",
    "array_union",
    "coalesce",
    "greatest",
    "least",
    "make_array",
    "nullif",
    "nvl",
];

/// Makes floats of decimals wherever DataFusion would make decimals of floats. Must run before its `TypeCoercion`.
#[derive(Debug)]
pub(super) struct Floats;

impl AnalyzerRule for Floats {
    fn name(&self) -> &str {
        "floats"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        typed_rows(plan)
    }
}

/// A plan with floats for decimals that stand beside floats.
pub(super) fn typed_rows(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(node)?.data)
}

/// An expression over `schema`, with floats for decimals that stand beside floats.
pub(super) fn typed(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(expr.transform_up(|expr| operands(expr, schema))?.data)
}

/// One node, its inputs and the subqueries in it being done.
fn node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        let columns = scan.source.schema();
        schema.merge(&DFSchema::try_from_qualified_schema(
            scan.table_name.clone(),
            &columns,
        )?);
    }
    let names = NamePreserver::new(&plan);
    let plan = plan
        .map_expressions(|expr| {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| operands(expr, &schema))?;
            Ok(match expr.transformed {
                true => expr.update_data(|expr| name.restore(expr)),
                false => expr,
            })
        })?
        .data;
    // An input may have other types than before, whether or not this node has.
    Ok(Transformed::yes(match plan {
        LogicalPlan::Union(rows) => union(rows)?,
        LogicalPlan::Join(rows) => LogicalPlan::Join(keys(rows)).recompute_schema()?,
        plan => plan.recompute_schema()?,
    }))
}

/// The operands of one expression, where DataFusion brings them to one type.
fn operands(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let mut expr = expr;
    let changed = match &mut expr {
        Expr::BinaryExpr(binary) if compares(binary.op) => {
            agree(vec![binary.left.as_mut(), binary.right.as_mut()], schema)
        }
        Expr::Between(between) => agree(
            vec![
                between.expr.as_mut(),
                between.low.as_mut(),
                between.high.as_mut(),
            ],
            schema,
        ),
        Expr::InList(list) => {
            let elements = list.list.iter_mut();
            agree(elements.chain([list.expr.as_mut()]).collect(), schema)
        }
        Expr::Case(case) => {
            let mut compared: Vec<&mut Expr> = Vec::new();
            let mut results: Vec<&mut Expr> = Vec::new();
            let searched = case.expr.is_none();
            compared.extend(case.expr.as_deref_mut());
            for (when, then) in &mut case.when_then_expr {
                if !searched {
                    compared.push(when);
                }
                results.push(then);
            }
            results.extend(case.else_expr.as_deref_mut());
            // Both, whatever the first one did.
            agree(compared, schema) | agree(results, schema)
        }
        Expr::ScalarFunction(call) if OF_ONE_TYPE.contains(&call.func.name()) => {
            agree(call.args.iter_mut().collect(), schema)
        }
        // What decides is no result.
        Expr::ScalarFunction(call) if call.func.name() == "nvl2" => {
            agree(call.args.iter_mut().skip(1).collect(), schema)
        }
        // The value and what stands for it where there is no such row.
        Expr::WindowFunction(call) if matches!(call.fun.name(), "lag" | "lead") => {
            agree(call.params.args.iter_mut().collect(), schema)
        }
        Expr::InSubquery(InSubquery { expr, subquery, .. }) => {
            agree_with_rows(expr, subquery, schema)?
        }
        Expr::SetComparison(SetComparison { expr, subquery, .. }) => {
            agree_with_rows(expr, subquery, schema)?
        }
        _ => false,
    };
    Ok(match changed {
        true => Transformed::yes(expr),
        false => Transformed::no(expr),
    })
}

fn compares(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// Casts the decimals among `exprs` if a float is among them; whether it did. What has no type is left for
/// DataFusion to refuse.
fn agree(exprs: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let types: Vec<Option<DataType>> = exprs
        .iter()
        .map(|expr| expr.get_type(schema).ok())
        .collect();
    if !types.iter().flatten().any(has_float) {
        return false;
    }
    let mut changed = false;
    for (expr, data_type) in exprs.into_iter().zip(types) {
        if let Some(to) = data_type.as_ref().and_then(floated) {
            let exact = std::mem::take(expr);
            *expr = Expr::Cast(Cast::new(Box::new(exact), to));
            changed = true;
        }
    }
    changed
}

/// The same for a value and the one column of a subquery.
fn agree_with_rows(expr: &mut Expr, rows: &mut Subquery, schema: &DFSchema) -> Result<bool> {
    let found = rows.subquery.schema().fields().first().cloned();
    let (Ok(given), Some(found)) = (expr.get_type(schema), found) else {
        return Ok(false);
    };
    if has_float(found.data_type()) {
        let Some(to) = floated(&given) else {
            return Ok(false);
        };
        let exact = std::mem::take(expr);
        *expr = Expr::Cast(Cast::new(Box::new(exact), to));
        return Ok(true);
    }
    if has_float(&given)
        && let Some(to) = floated(found.data_type())
    {
        rows.subquery = Arc::new(cast_columns(Arc::clone(&rows.subquery), &[Some(to)])?);
        return Ok(true);
    }
    Ok(false)
}

/// The keys of a join, each pair of which is an equality; INTERSECT and EXCEPT are such joins too.
fn keys(mut join: Join) -> Join {
    for (left, right) in &mut join.on {
        let (Ok(one), Ok(other)) = (
            left.get_type(join.left.schema()),
            right.get_type(join.right.schema()),
        ) else {
            continue;
        };
        let side = match (has_float(&one), has_float(&other)) {
            (true, false) => floated(&other).map(|to| (right, to)),
            (false, true) => floated(&one).map(|to| (left, to)),
            _ => None,
        };
        if let Some((side, to)) = side {
            let exact = std::mem::take(side);
            *side = Expr::Cast(Cast::new(Box::new(exact), to));
        }
    }
    join
}

/// A UNION, its decimal columns cast where another input has a float in their place.
fn union(rows: Union) -> Result<LogicalPlan> {
    let width = rows.schema.fields().len();
    let floating: Vec<bool> = (0..width)
        .map(|position| {
            let mut inputs = rows.inputs.iter();
            inputs.any(|input| {
                let field = input.schema().fields().get(position);
                field.is_some_and(|field| has_float(field.data_type()))
            })
        })
        .collect();
    // DataFusion starts from the schema of before, in which a column may still be a decimal.
    let mut columns = rows.schema.fields().iter().zip(&floating);
    let mut changed = columns.any(|(field, float)| *float && floated(field.data_type()).is_some());
    let mut inputs = Vec::with_capacity(rows.inputs.len());
    for input in &rows.inputs {
        let fields = input.schema().fields().iter().zip(&floating);
        let casts: Vec<Option<DataType>> = fields
            .map(|(field, float)| float.then(|| floated(field.data_type())).flatten())
            .collect();
        inputs.push(match casts.iter().any(Option::is_some) {
            true => {
                changed = true;
                Arc::new(cast_columns(Arc::clone(input), &casts)?)
            }
            false => Arc::clone(input),
        });
    }
    Ok(LogicalPlan::Union(match changed {
        true => Union::try_new_with_loose_types(inputs)?,
        false => rows,
    }))
}

/// The rows of `input`, columns of which are cast and keep their names.
fn cast_columns(input: Arc<LogicalPlan>, casts: &[Option<DataType>]) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = input
        .schema()
        .iter()
        .enumerate()
        .map(|(position, (qualifier, field))| {
            let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            match casts.get(position) {
                Some(Some(to)) => Expr::Cast(Cast::new(Box::new(column), to.clone()))
                    .alias_qualified(qualifier.cloned(), field.name()),
                _ => column,
            }
        })
        .collect();
    LogicalPlanBuilder::from(input).project(columns)?.build()
}

fn has_float(data_type: &DataType) -> bool {
    match element(data_type) {
        Some(field) => has_float(field.data_type()),
        None => data_type.is_floating(),
    }
}

/// The type with floats for its decimals, if it is a decimal or a list of them.
fn floated(data_type: &DataType) -> Option<DataType> {
    if data_type.is_decimal() {
        return Some(DataType::Float64);
    }
    let field = element(data_type)?;
    let inner = floated(field.data_type())?;
    let field: FieldRef = Arc::new(Field::clone(field).with_data_type(inner));
    Some(match data_type {
        DataType::LargeList(_) => DataType::LargeList(field),
        DataType::FixedSizeList(_, size) => DataType::FixedSizeList(field, *size),
        _ => DataType::List(field),
    })
}

fn element(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::{SessionConfig, SessionContext};

    /// The values of a query's rows, from top to bottom.
    async fn rows(sql: &str) -> Vec<String> {
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.parse_float_as_decimal = true;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .with_analyzer_rules(crate::expr::rules())
            .build();
        let context = SessionContext::new_with_state(state);
        let table = "CREATE TABLE t AS SELECT * FROM (VALUES \
                     (1, '1e-20'::double), (2, '0.5'::double), (3, '1e300'::double)) AS v(id, f)";
        context.sql(table).await.unwrap();
        let found = context.sql(sql).await.unwrap().collect().await.unwrap();
        let table = pretty_format_batches(&found).unwrap().to_string();
        let lines = table.lines().skip(3).filter(|line| line.starts_with("| "));
        lines
            .map(|line| line.trim_matches(['|', ' ']).to_owned())
            .collect()
    }

    #[tokio::test]
    async fn a_float_is_compared_as_a_float() {
        let ids = async |condition: &str| {
            rows(&format!("SELECT id FROM t WHERE {condition} ORDER BY id")).await
        };
        assert_eq!(ids("f > 0.0").await, ["1", "2", "3"]);
        assert_eq!(ids("0.0 < f AND f <= 0.5").await, ["1", "2"]);
        assert_eq!(ids("f IS DISTINCT FROM 0.0").await, ["1", "2", "3"]);
        assert_eq!(ids("f BETWEEN 0.1 AND 0.9").await, ["2"]);
        assert_eq!(ids("f IN (0.5, 0.0)").await, ["2"]);
        assert_eq!(ids("f = 0.5 OR f NOT IN (0.0, 0.5)").await, ["1", "2", "3"]);
        assert_eq!(ids("f IN (SELECT 0.0 UNION SELECT 0.5)").await, ["2"]);
        assert_eq!(ids("array_has([0.0, 0.5], f)").await, ["2"]);
        assert_eq!(
            ids("CASE f WHEN 0.0 THEN true ELSE false END").await.len(),
            0
        );
    }

    #[tokio::test]
    async fn a_float_stays_what_it_is_among_results() {
        let small =
            async |value: &str| rows(&format!("SELECT {value} > 0 FROM t WHERE id = 1")).await;
        for value in [
            "coalesce(f, 0.0)",
            "nvl(f, 0.0)",
            "nullif(f, 0.5)",
            "greatest(f, 0.0)",
            "array_element([f, 0.5], 1)",
            "CASE WHEN id = 2 THEN 0.5 ELSE f END",
            "coalesce(CASE WHEN id = 2 THEN 0.5 ELSE f END, 0.5)",
        ] {
            assert_eq!(small(value).await, ["true"], "{value}");
        }
    }

    #[tokio::test]
    async fn rows_of_two_types_are_floats() {
        let union = "SELECT count(*) FROM (SELECT f FROM t UNION ALL SELECT 0.0) AS u WHERE f > 0";
        assert_eq!(rows(union).await, ["3"]);
        let first =
            "SELECT count(*) FROM (SELECT 0.0 AS f UNION ALL SELECT f FROM t) AS u WHERE f > 0";
        assert_eq!(rows(first).await, ["3"]);
        let joined =
            "SELECT id FROM t JOIN (SELECT 0.0 AS d UNION ALL SELECT 0.5) AS s ON t.f = s.d";
        assert_eq!(rows(joined).await, ["2"]);
        let both = "SELECT count(*) FROM (SELECT f FROM t INTERSECT SELECT 0.0) AS u";
        assert_eq!(rows(both).await, ["0"]);
    }

    #[tokio::test]
    async fn decimals_among_themselves_stay_decimals() {
        assert_eq!(rows("SELECT coalesce(NULL, 0.10)").await, ["0.10"]);
        assert_eq!(rows("SELECT 0.1 + 0.2 = 0.3").await, ["true"]);
    }
}

//! Access to maps and lists as tables store them, where DataFusion compares types to the letter: a key
//! written in SQL is `Utf8` or `Int64`, the keys of a stored map are `Utf8View`, `Int32` and so on.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_nested::expr_fn::{array_element, map_extract};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, LogicalPlan, lit, try_cast};
use datafusion::optimizer::AnalyzerRule;

use super::types::sql_name;

/// Plans `map[key]`, in queries and in checks; leaves every other subscript to DataFusion.
#[derive(Debug)]
pub(super) struct MapSubscript;

impl ExprPlanner for MapSubscript {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let Ok(DataType::Map(entries, _)) = access.expr.get_type(schema) else {
            return Ok(PlannerResult::Original(access));
        };
        let key = match &access.field_access {
            GetFieldAccess::NamedStructField { name } => Expr::Literal(name.clone(), None),
            GetFieldAccess::ListIndex { key } => key.as_ref().clone(),
            GetFieldAccess::ListRange { .. } => return Ok(PlannerResult::Original(access)),
        };
        let key_type = key_type(entries.data_type())?;
        Ok(PlannerResult::Planned(lookup(
            access.expr,
            key,
            key_type,
            schema,
        )?))
    }
}

fn key_type(entries: &DataType) -> Result<&DataType> {
    match entries {
        DataType::Struct(fields) if fields.len() == 2 => Ok(fields[0].data_type()),
        other => plan_err!("the entries of a map are {other}"),
    }
}

/// The value of `map` at `key`, which no map has in another type than its own.
fn lookup(map: Expr, key: Expr, key_type: &DataType, schema: &DFSchema) -> Result<Expr> {
    let key = match key {
        Expr::Literal(value, _) => {
            let value = typed(value, key_type)?;
            if !key_type.is_nested() {
                return Ok(get_field(map, value));
            }
            lit(value)
        }
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Field::new(&id, key_type.clone(), true);
            Expr::Placeholder(Placeholder::new_with_field(id, Some(Arc::new(field))))
        }
        key => {
            let given = key.get_type(schema)?;
            if &given == key_type {
                key
            } else if alike(&given, key_type) {
                // A key that the type of the map cannot hold is a key that the map does not have.
                try_cast(key, key_type.clone())
            } else {
                return plan_err!(
                    "the keys of the map are {}, not {}",
                    sql_name(key_type),
                    sql_name(&given)
                );
            }
        }
    };
    // `get_field` takes literals only, and compares nested keys wrongly.
    Ok(array_element(map_extract(map, key), lit(1_i64)))
}

/// `key` as a key of the map, if it is the same value there.
fn typed(key: ScalarValue, key_type: &DataType) -> Result<ScalarValue> {
    let given = key.data_type();
    if given == *key_type {
        return Ok(key);
    }
    match key.cast_to(key_type) {
        Ok(same) if key.is_null() || same.cast_to(&given).is_ok_and(|back| back == key) => Ok(same),
        _ => plan_err!(
            "the keys of the map are {}, {key} is not",
            sql_name(key_type)
        ),
    }
}

fn alike(a: &DataType, b: &DataType) -> bool {
    let family = |t: &DataType| (t.is_integer(), t.is_string());
    family(a) == family(b) && family(a) != (false, false)
}

/// Mends calls of functions that are stricter than SQL about the types of what they are given,
/// however they were made.
#[derive(Debug)]
pub(super) struct NestedTypes;

impl AnalyzerRule for NestedTypes {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let mended = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let mended = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let mended = expr.transform_up(|expr| mend(expr, &schema))?;
                Ok(mended.update_data(|expr| name.restore(expr)))
            })?;
            match mended.transformed {
                true => mended.map_data(LogicalPlan::recompute_schema),
                false => Ok(mended),
            }
        })?;
        Ok(mended.data)
    }

    fn name(&self) -> &str {
        "nested_types"
    }
}

fn mend(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = &expr else {
        return Ok(Transformed::no(expr));
    };
    match (func.name(), args.as_slice()) {
        ("get_field", [map, key @ Expr::Literal(value, _)]) => {
            let DataType::Map(entries, _) = map.get_type(schema)? else {
                return Ok(Transformed::no(expr));
            };
            let key_type = key_type(entries.data_type())?;
            if value.data_type() == *key_type && !key_type.is_nested() {
                return Ok(Transformed::no(expr));
            }
            let found = lookup(map.clone(), key.clone(), key_type, schema)?;
            Ok(Transformed::yes(found))
        }
        // It looks for the name that Arrow gives the elements of a list, and Delta's is another.
        ("array_repeat", [element, count]) => match element.get_type(schema)? {
            DataType::List(item) if item.name() != Field::LIST_FIELD_DEFAULT_NAME => {
                let list = Field::new_list_field(item.data_type().clone(), item.is_nullable());
                let element = element
                    .clone()
                    .cast_to(&DataType::List(Arc::new(list)), schema)?;
                let args = vec![element, count.clone()];
                let call = ScalarFunction::new_udf(Arc::clone(func), args);
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            _ => Ok(Transformed::no(expr)),
        },
        _ => Ok(Transformed::no(expr)),
    }
}

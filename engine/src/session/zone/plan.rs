//! Plans of a session whose zone is not UTC.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

use super::{Zone, ZoneCast, textual, zoneless};
use crate::error::Result;
use crate::session::change::column_type;

/// The plan with every column of instants that a table gives in the zone of the session.
pub(in crate::session) fn shown(plan: LogicalPlan, zone: &Zone) -> Result<LogicalPlan> {
    let shown = plan.transform_up_with_subqueries(|node| match &node {
        LogicalPlan::TableScan(_) => scanned(node, zone),
        _ => Ok(Transformed::yes(node.recompute_schema()?)),
    })?;
    Ok(shown.data)
}

fn scanned(scan: LogicalPlan, zone: &Zone) -> DfResult<Transformed<LogicalPlan>> {
    let schema = Arc::clone(scan.schema());
    let elsewhere = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(name)) if name != zone.name());
    if !schema
        .fields()
        .iter()
        .any(|field| elsewhere(field.data_type()))
    {
        return Ok(Transformed::no(scan));
    }
    let columns = schema.iter().map(|(qualifier, field)| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        match field.data_type() {
            DataType::Timestamp(unit, Some(_)) if elsewhere(field.data_type()) => {
                let here = DataType::Timestamp(*unit, Some(Arc::clone(zone.name())));
                cast(column, here).alias_qualified(qualifier.cloned(), field.name())
            }
            _ => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    let shown = LogicalPlanBuilder::from(scan).project(columns)?.build()?;
    Ok(Transformed::yes(shown))
}

/// Gives every cast between local times and instants to the session's zone. Runs after types were made to agree, so
/// that it sees the casts nobody wrote.
#[derive(Debug)]
pub(in crate::session) struct ZoneCasts;

impl AnalyzerRule for ZoneCasts {
    fn name(&self) -> &str {
        "zone_casts"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> DfResult<LogicalPlan> {
        let Some(zone) = Zone::other_than_utc(config.execution.time_zone.as_deref())? else {
            return Ok(plan);
        };
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                let columns = scan.source.schema();
                let columns =
                    DFSchema::try_from_qualified_schema(scan.table_name.clone(), &columns)?;
                schema.merge(&columns);
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|expr| in_zone(expr, &schema, &zone))?;
                Ok(expr.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(rewritten.data)
    }
}

fn in_zone(expr: Expr, schema: &DFSchema, zone: &Zone) -> DfResult<Transformed<Expr>> {
    let (inner, to, lenient) = match &expr {
        Expr::Cast(Cast { expr, field }) => (expr, field.data_type(), false),
        Expr::TryCast(TryCast { expr, field }) => (expr, field.data_type(), true),
        Expr::ScalarFunction(call) => {
            let Some(column) = column_type(&call.func) else {
                return Ok(Transformed::no(expr));
            };
            return as_column(call, column, schema, zone);
        }
        _ => return Ok(Transformed::no(expr)),
    };
    let here = |unit| DataType::Timestamp(unit, Some(Arc::clone(zone.name())));
    let call = |to: DataType| {
        let function = ZoneCast::function(zone, to, lenient);
        Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![(**inner).clone()]))
    };
    let replaced = match (inner.get_type(schema)?, to) {
        (from, DataType::Timestamp(unit, Some(name))) if zoneless(&from) => {
            let instant = call(here(*unit));
            match name == zone.name() {
                true => instant,
                false => cast(instant, to.clone()),
            }
        }
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None)) => call(to.clone()),
        (DataType::Timestamp(unit, Some(name)), to) if name != *zone.name() && zoneless(to) => {
            cast(cast((**inner).clone(), here(unit)), to.clone())
        }
        _ => return Ok(Transformed::no(expr)),
    };
    Ok(Transformed::yes(replaced))
}

/// A text that a MERGE gives to a column of instants.
fn as_column(
    call: &ScalarFunction,
    column: &DataType,
    schema: &DFSchema,
    zone: &Zone,
) -> DfResult<Transformed<Expr>> {
    let given = |value: &Expr| {
        let from = value.get_type(schema)?;
        Ok(assigned(value.clone(), &from, column, Some(zone)))
    };
    let args = call.args.iter().map(given).collect::<DfResult<_>>()?;
    let call = ScalarFunction::new_udf(Arc::clone(&call.func), args);
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

/// A value of a source as a column of the table wants it: a text without a zone is local to the session.
pub(in crate::session) fn assigned(
    value: Expr,
    from: &DataType,
    to: &DataType,
    zone: Option<&Zone>,
) -> Expr {
    match (zone, to) {
        (Some(zone), DataType::Timestamp(unit, Some(_))) if textual(from) => {
            let here = DataType::Timestamp(*unit, Some(Arc::clone(zone.name())));
            let function = ZoneCast::function(zone, here, false);
            Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![value]))
        }
        _ => value,
    }
}

/// The rows of a change, each value as the table's column of its name wants it.
pub(in crate::session) fn assign(
    rows: LogicalPlan,
    table: &Schema,
    zone: Option<&Zone>,
) -> Result<LogicalPlan> {
    if zone.is_none() {
        return Ok(rows);
    }
    let columns = rows.schema().iter().map(|(qualifier, field)| {
        let value = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        match table.field_with_name(field.name()) {
            Ok(column) => {
                assigned(value, field.data_type(), column.data_type(), zone).alias(field.name())
            }
            Err(_) => value,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    Ok(LogicalPlanBuilder::from(rows).project(columns)?.build()?)
}

//! As-of joins: of a journal, to each row of another table, the row that was true at an instant of that row.
//!
//! ```text
//! f JOIN t FOR VALID_TIME AS OF f.ts ON f.k = t.k
//!   -> Join(f, AsOfRow, f.k = t.k AND marker('t', f.ts))                     as the planner sees it
//!   -> Join(f, intervals of t, f.k = t.k AND holds(from, to, f.ts, t.k))     as the optimizer sees it
//! ```
//!
//! So it is an equality join of whole tables with one more condition, and no row is looked up by itself. Intervals of
//! a key never overlap, so no row of the other side is found twice where the equalities name all keys; how such a join
//! runs is told in `crate::asof`.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, TableScan, Volatility,
};

use crate::asof;
use crate::error::{Error, Result};
use crate::journal::event::{FROM, TO};
use crate::shown::sql_name;
use crate::sql::AS_OF_ROW;
use crate::table::journal::AsOfRow;
use crate::table::versioned::VersionedTable;

/// The function by which a condition says the instant. It is gone before anything runs.
pub(super) fn marker() -> ScalarUDF {
    ScalarUDF::new_from_impl(Marker {
        signature: Signature::any(2, Volatility::Immutable),
    })
}

/// The plan with each such join turned into one on intervals.
pub(super) fn joined(plan: LogicalPlan) -> Result<LogicalPlan> {
    let joined = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => on_intervals(join),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(joined.data)
}

fn on_intervals(mut join: Join) -> DfResult<Transformed<LogicalPlan>> {
    let marked = |filter: &Expr| {
        let parts = split_conjunction(filter);
        parts.into_iter().any(|part| mark(part).is_some())
    };
    if !join.filter.as_ref().is_some_and(marked) {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let before = Arc::clone(&join.schema);
    let sides = join.left.schema().join(join.right.schema())?;
    let mut conditions = Vec::new();
    for part in join
        .filter
        .take()
        .into_iter()
        .flat_map(split_conjunction_owned)
    {
        let Some((name, at)) = mark(&part) else {
            conditions.push(part);
            continue;
        };
        let Some(right) = widened(&join.right, name)? else {
            return Err(Error::unsupported(format!(
                "FOR VALID_TIME AS OF {at} on a table that is not joined by itself"
            ))
            .with_hint("write JOIN table FOR VALID_TIME AS OF .. ON ..")
            .into());
        };
        conditions.push(right.holds(instant(at, &sides)?));
        join.right = Arc::new(right.plan);
    }
    let joined = LogicalPlan::Join(Join::try_new(
        join.left,
        join.right,
        join.on,
        conjunction(conditions),
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?);
    // Whatever reads the join knows the columns it had.
    let columns = before.iter().map(|column| Expr::Column(column.into()));
    let columns: Vec<Expr> = columns.collect();
    let joined = LogicalPlanBuilder::from(joined).project(columns)?.build()?;
    Ok(Transformed::yes(joined))
}

/// The relation and the instant of a call of the marker.
fn mark(condition: &Expr) -> Option<(&str, &Expr)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = condition else {
        return None;
    };
    match args.as_slice() {
        [Expr::Literal(name, _), at] if func.name() == AS_OF_ROW => Some((name.try_as_str()??, at)),
        _ => None,
    }
}

/// `at` as an instant. A local time is one of the session's zone, which the cast tells.
fn instant(at: &Expr, schema: &DFSchema) -> DfResult<Expr> {
    match at.get_type(schema)? {
        DataType::Timestamp(_, Some(_)) => Ok(at.clone()),
        local @ (DataType::Timestamp(_, None) | DataType::Date32) => {
            let unit = match local {
                // Cut off by a cast, what is less than a microsecond would be cut towards 1970.
                DataType::Timestamp(TimeUnit::Nanosecond, _) => TimeUnit::Nanosecond,
                _ => TimeUnit::Microsecond,
            };
            let utc = DataType::Timestamp(unit, Some("UTC".into()));
            Ok(Expr::Cast(Cast::new(Box::new(at.clone()), utc)))
        }
        other => Err(Error::invalid(format!(
            "FOR VALID_TIME AS OF {at}: it is {}, and not a point in time",
            sql_name(&other)
        ))
        .with_hint(format!("CAST({at} AS TIMESTAMP)"))
        .into()),
    }
}

/// A journal with all its intervals, where the state at an instant of each row stood.
struct Widened {
    plan: LogicalPlan,
    /// All keys of the journal, as the plan names them; none of them where it does not have them all, for then nothing
    /// is known of overlaps.
    keys: Vec<Column>,
    from: Column,
    to: Column,
    far_future: bool,
}

impl Widened {
    /// The same below another node, which has columns of this one at `places`: of the keys, where it has them all. The
    /// two columns of the interval stay the last ones.
    fn below(self, plan: LogicalPlan, places: Option<Vec<usize>>) -> DfResult<Self> {
        let columns = plan.schema().columns();
        let keys = places.into_iter().flatten();
        let keys: Option<Vec<Column>> = keys.map(|place| columns.get(place).cloned()).collect();
        match columns.as_slice() {
            [.., from, to] => Ok(Self {
                keys: keys.unwrap_or_default(),
                from: from.clone(),
                to: to.clone(),
                plan,
                far_future: self.far_future,
            }),
            _ => Err(Error::internal("a journal lost the columns of its intervals").into()),
        }
    }

    /// Where `find` says that the keys are, if it finds all of them.
    fn places(&self, find: impl Fn(&Column) -> Option<usize>) -> Option<Vec<usize>> {
        self.keys.iter().map(find).collect()
    }

    /// Whether the interval holds an instant.
    fn holds(&self, at: Expr) -> Expr {
        let interval = [&self.from, &self.to].map(|column| Expr::Column(column.clone()));
        let keys = self.keys.iter().cloned().map(Expr::Column);
        asof::holds(self.far_future, interval, at, keys)
    }
}

/// `plan`, if it is the relation `name`, with two columns more.
fn widened(plan: &LogicalPlan, name: &str) -> DfResult<Option<Widened>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source)?;
            match provider.downcast_ref::<AsOfRow>() {
                Some(table) if table.name == name => intervals(scan, table).map(Some),
                _ => Ok(None),
            }
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(inner) = widened(&alias.input, name)? else {
                return Ok(None);
            };
            let places = inner.places(|key| inner.plan.schema().index_of_column(key).ok());
            let plan = LogicalPlanBuilder::from(inner.plan.clone());
            let plan = plan.alias(alias.alias.clone())?.build()?;
            inner.below(plan, places).map(Some)
        }
        // Columns that the query gives other names.
        LogicalPlan::Projection(projection) => {
            let Some(inner) = widened(&projection.input, name)? else {
                return Ok(None);
            };
            let place = |column: &Column| inner.plan.schema().index_of_column(column).ok();
            let places = inner.places(|key| {
                let is_key = |column: &Expr| match column.clone().unalias() {
                    Expr::Column(column) => place(&column) == place(key),
                    _ => false,
                };
                projection.expr.iter().position(is_key)
            });
            let interval = [inner.from.clone(), inner.to.clone()].map(Expr::Column);
            let columns: Vec<Expr> = projection.expr.iter().cloned().chain(interval).collect();
            let plan = LogicalPlanBuilder::from(inner.plan.clone());
            let plan = plan.project(columns)?.build()?;
            inner.below(plan, places).map(Some)
        }
        _ => Ok(None),
    }
}

fn intervals(scan: &TableScan, table: &AsOfRow) -> DfResult<Widened> {
    let name = &scan.table_name;
    let column = |field: &str| Expr::Column(Column::new(Some(name.clone()), field));
    let declared = table.shape.declared.fields().iter();
    let periods = &table.shape.definition.columns;
    let interval = [
        column(&periods.from).alias_qualified(Some(name.clone()), FROM),
        column(&periods.to).alias_qualified(Some(name.clone()), TO),
    ];
    let columns = declared.map(|field| column(field.name())).chain(interval);
    let columns: Vec<Expr> = columns.collect();
    let raw: Arc<VersionedTable> = Arc::clone(&table.raw);
    let plan = LogicalPlanBuilder::scan(name.clone(), provider_as_source(raw), None)?
        .project(columns)?
        .build()?;
    let (from, to) = (
        Column::new(Some(name.clone()), FROM),
        Column::new(Some(name.clone()), TO),
    );
    let keys = table.shape.key_names();
    let keys = keys.map(|key| Column::new(Some(name.clone()), key));
    Ok(Widened {
        plan,
        keys: keys.collect(),
        from,
        to,
        far_future: table.shape.far_future(),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        AS_OF_ROW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Err(Error::internal("the instant of an as-of join was left in its condition").into())
    }
}

//! Which joins become as-of joins.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinSide, JoinType, NullEquality, Result};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column};
use datafusion::physical_expr::utils::conjunction_opt;
use datafusion::physical_expr::{PhysicalExprRef, ScalarFunctionExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs, StatisticsContext};

use super::exec::{AsOfJoinExec, Way};
use super::interval::Holds;
use super::rows::Terms;
use crate::error::Error;

/// Rows of the smaller side up to which a hash join stays. Were they all of one key, each row of the other side would
/// meet as many: about what it costs to sort or to search. And a hash join tells the scan of its larger side, be it that
/// of the facts, which keys there are; held facts tell that of the journal alone. Only an exact number counts here, for
/// an estimate of what a filter leaves knows nothing of the one key that has most of the rows.
const FEW: usize = 64;

/// Facts up to which they are held. Sorting a journal costs more than searching among so many for each of its rows.
const HELD: usize = 256 * 1024;

/// Turns joins on [`super::holds`] into as-of joins, where the equalities of the join contain all keys of the journal:
///
/// | one side has | facts | the join is |
/// | --- | --- | --- |
/// | at most 64 rows, exactly | any | `HashJoinExec`, as it was: at most 64 pairs for each row of the other side |
/// | more | at most 256 Ki, as far as is known | `AsOfJoinExec: way=facts held`: facts sorted, a search for each interval that the scan does not leave out |
/// | more | more, or unknown | `AsOfJoinExec: way=merge`: both sides sorted, one pass |
///
/// So a join of F facts and J intervals costs (F + J) times a logarithm at most, however many intervals a key has. All
/// other joins stay what they are: several intervals may hold one instant there, and each must be found.
#[derive(Debug)]
pub(crate) struct AsOfJoins;

impl AsOfJoins {
    /// DataFusion's rules with this one before them: it replaces joins before they get their sides and their order.
    pub(crate) fn with_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
        let mut rules = PhysicalOptimizer::new().rules;
        rules.insert(0, Arc::new(Self));
        rules
    }
}

impl PhysicalOptimizerRule for AsOfJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let chosen = match plan.downcast_ref::<HashJoinExec>() {
                Some(join) => chosen(join)?,
                None => None,
            };
            Ok(match chosen {
                Some(join) => Transformed::yes(Arc::new(join) as _),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "as_of_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn chosen(join: &HashJoinExec) -> Result<Option<AsOfJoinExec>> {
    let plain = matches!(join.join_type(), JoinType::Inner | JoinType::Left)
        && join.null_equality() == NullEquality::NullEqualsNothing
        && !join.contains_projection()
        && join.fetch().is_none();
    let Some(filter) = join.filter().filter(|_| plain) else {
        return Ok(None);
    };
    let Some(terms) = terms(join, filter)? else {
        return Ok(None);
    };
    let (facts, spans) = (rows(join.left()), rows(join.right()));
    let few = |rows: Precision<usize>| matches!(rows, Precision::Exact(rows) if rows <= FEW);
    if few(facts) || few(spans) {
        return Ok(None);
    }
    let way = match facts.get_value() {
        Some(facts) if *facts <= HELD => Way::Held,
        _ => Way::Merge,
    };
    let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
    AsOfJoinExec::try_new(left, right, Arc::new(terms), way).map(Some)
}

/// How many rows a plan has, as far as it is known.
fn rows(plan: &Arc<dyn ExecutionPlan>) -> Precision<usize> {
    let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
    statistics.map_or(Precision::Absent, |statistics| statistics.num_rows)
}

/// The terms of an as-of join that finds what `join` does, if there is one.
fn terms(join: &HashJoinExec, filter: &JoinFilter) -> Result<Option<Terms>> {
    let conditions = split_conjunction(filter.expression());
    let call = |condition: &PhysicalExprRef| {
        let call = ScalarFunctionExpr::try_downcast_func::<Holds>(condition.as_ref())?;
        let holds = call.fun().inner().downcast_ref::<Holds>()?;
        Some((call.args().to_vec(), holds.far_future))
    };
    let mut numbered = conditions.iter().enumerate();
    let called = numbered.find_map(|(place, condition)| Some((place, call(condition)?)));
    let Some((place, (arguments, far_future))) = called else {
        return Ok(None);
    };
    let [from, to, at, keys @ ..] = arguments.as_slice() else {
        return Ok(None);
    };
    let journal = |expression: &PhysicalExprRef| of_side(expression, filter, JoinSide::Right);
    let (Some(from), Some(to)) = (journal(from), journal(to)) else {
        return Ok(None);
    };
    let Some(at) = of_facts(at, filter, &join.left().schema())? else {
        return Ok(None);
    };
    // The proof: every key of the journal is equal to something of the fact. Without keys nothing is known of overlaps.
    let mut equal = join.on().to_vec();
    let mut on = Vec::with_capacity(keys.len());
    for key in keys {
        let key = journal(key);
        let found = equal
            .iter()
            .position(|pair| key.is_some_and(|key| tells(pair, join, key)));
        match found {
            Some(found) => on.push(equal.remove(found)),
            None => return Ok(None),
        }
    }
    if on.is_empty() {
        return Ok(None);
    }
    let others = conditions.iter().enumerate();
    let others = others.filter(|(other, _)| *other != place);
    let others: Vec<&PhysicalExprRef> = others.map(|(_, condition)| *condition).collect();
    Ok(Some(Terms {
        join_type: *join.join_type(),
        on,
        at,
        from,
        to,
        far_future,
        filter: Further::default().filter(join, filter, &others, &equal)?,
    }))
}

/// The column of one side that an expression of a condition is.
fn of_side(expression: &PhysicalExprRef, filter: &JoinFilter, side: JoinSide) -> Option<usize> {
    let column = expression.downcast_ref::<Column>()?;
    let place = filter.column_indices().get(column.index())?;
    (place.side == side).then_some(place.index)
}

/// An expression of a condition as one of the facts alone, if it is one.
fn of_facts(
    expression: &PhysicalExprRef,
    filter: &JoinFilter,
    facts: &Schema,
) -> Result<Option<PhysicalExprRef>> {
    let mut foreign = false;
    let moved = Arc::clone(expression).transform_up(|node| {
        if !node.is::<Column>() {
            return Ok(Transformed::no(node));
        }
        let place = of_side(&node, filter, JoinSide::Left);
        let field = place.and_then(|place| Some((place, facts.fields().get(place)?)));
        Ok(match field {
            Some((place, field)) => {
                Transformed::yes(Arc::new(Column::new(field.name(), place)) as _)
            }
            None => {
                foreign = true;
                Transformed::no(node)
            }
        })
    })?;
    // What is another instant each time it is asked for has no order.
    Ok((!foreign && !is_volatile(&moved.data)).then_some(moved.data))
}

/// Whether rows of the journal that a pair calls equal agree in the column `key`.
fn tells((fact, key): &(PhysicalExprRef, PhysicalExprRef), join: &HashJoinExec, at: usize) -> bool {
    let (facts, spans) = (join.left().schema(), join.right().schema());
    let same_type = match (fact.data_type(&facts), key.data_type(&spans)) {
        // Both sides are compared as bytes.
        (Ok(fact), Ok(key)) => fact == key,
        _ => false,
    };
    let Some(column) = key.downcast_ref::<Column>().filter(|_| same_type) else {
        return false;
    };
    if column.index() == at {
        return true;
    }
    // A key that is compared as another type is a column of a projection, beside the key itself.
    let Some(projection) = join.right().downcast_ref::<ProjectionExec>() else {
        return false;
    };
    let below = projection.input().schema();
    let made = |at: usize| projection.expr().get(at).map(|made| &made.expr);
    match (made(column.index()), made(at)) {
        (Some(compared), Some(itself)) => {
            itself.is::<Column>() && uncast(compared, &below).eq(itself)
        }
        _ => false,
    }
}

/// What was cast, where values that differ still differ afterwards.
fn uncast<'a>(mut expression: &'a PhysicalExprRef, schema: &Schema) -> &'a PhysicalExprRef {
    while let Some(cast) = expression.downcast_ref::<CastExpr>() {
        let Ok(from) = cast.expr().data_type(schema) else {
            break;
        };
        if !keeps_apart(&from, cast.cast_type()) {
            break;
        }
        expression = cast.expr();
    }
    expression
}

fn keeps_apart(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Int8, Int16, Int32, Int64, LargeBinary, LargeUtf8, Utf8, Utf8View,
    };
    from == to
        || matches!(
            (from, to),
            (Int8, Int16 | Int32 | Int64)
                | (Int16, Int32 | Int64)
                | (Int32, Int64)
                | (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View)
                | (
                    Binary | LargeBinary | BinaryView,
                    Binary | LargeBinary | BinaryView
                )
        )
}

/// The conditions that an as-of join asks of the pairs it found, over just the columns that they read.
#[derive(Default)]
struct Further {
    places: Vec<ColumnIndex>,
    fields: Vec<FieldRef>,
}

impl Further {
    /// `others`: of the condition; `equal`: of the equalities those that are not about keys.
    fn filter(
        mut self,
        join: &HashJoinExec,
        filter: &JoinFilter,
        others: &[&PhysicalExprRef],
        equal: &[(PhysicalExprRef, PhysicalExprRef)],
    ) -> Result<Option<JoinFilter>> {
        let (facts, spans) = (join.left().schema(), join.right().schema());
        let mut all = Vec::with_capacity(others.len() + equal.len());
        for condition in others {
            all.push(self.moved(condition, &facts, &spans, |column| {
                filter.column_indices().get(column).cloned()
            })?);
        }
        let of = |side| move |index| Some(ColumnIndex { index, side });
        for (fact, key) in equal {
            let fact = self.moved(fact, &facts, &spans, of(JoinSide::Left))?;
            let key = self.moved(key, &facts, &spans, of(JoinSide::Right))?;
            all.push(Arc::new(BinaryExpr::new(fact, Operator::Eq, key)) as _);
        }
        let schema = Arc::new(Schema::new(self.fields));
        let all = conjunction_opt(all);
        Ok(all.map(|all| JoinFilter::new(all, self.places, schema)))
    }

    /// `expression` with its columns, which `place` finds on either side, as columns of this condition.
    fn moved(
        &mut self,
        expression: &PhysicalExprRef,
        facts: &Schema,
        spans: &Schema,
        place: impl Fn(usize) -> Option<ColumnIndex>,
    ) -> Result<PhysicalExprRef> {
        let moved = Arc::clone(expression).transform_up(|node| {
            let Some(column) = node.downcast_ref::<Column>() else {
                return Ok(Transformed::no(node));
            };
            let column = self.column(place(column.index()), facts, spans)?;
            Ok(Transformed::yes(Arc::new(column) as _))
        })?;
        Ok(moved.data)
    }

    fn column(
        &mut self,
        place: Option<ColumnIndex>,
        facts: &Schema,
        spans: &Schema,
    ) -> Result<Column> {
        let found = place.and_then(|place| {
            let side = match place.side {
                JoinSide::Left => facts,
                JoinSide::Right => spans,
                JoinSide::None => return None,
            };
            let field = side.fields().get(place.index)?;
            Some((place, Arc::clone(field)))
        });
        let Some((place, field)) = found else {
            return Err(Error::internal("a condition of a join reads neither side").into());
        };
        let name = field.name().clone();
        let at = match self.places.iter().position(|known| *known == place) {
            Some(at) => at,
            None => {
                self.places.push(place);
                self.fields.push(field);
                self.places.len() - 1
            }
        };
        Ok(Column::new(&name, at))
    }
}

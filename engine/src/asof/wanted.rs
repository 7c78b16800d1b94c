//! What held facts ask of the journal: a filter for its scan, empty until the facts are known. So a few facts do not
//! read a whole journal, as a hash join does not read its larger side for the few keys of the smaller one.
//!
//! It refuses only what no fact can find, and may let other rows pass: the join looks at each of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::config::OptimizerOptions;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::{
    BinaryExpr, DynamicFilterPhysicalExpr, in_list, is_null, lit,
};
use datafusion::physical_expr::utils::conjunction;

use super::rows::{Facts, Terms};
use crate::journal::definition::FAR_FUTURE_MICROS;

/// How many keys are told one by one, and how many bytes they may have: as many as a hash join tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    keys: usize,
    bytes: usize,
}

impl From<&OptimizerOptions> for Limits {
    fn from(options: &OptimizerOptions) -> Self {
        Self {
            keys: options.hash_join_inlist_pushdown_max_distinct_values,
            bytes: options.hash_join_inlist_pushdown_max_size,
        }
    }
}

/// A filter of the columns by which intervals are found, which refuses nothing yet.
pub(super) fn unknown(terms: &Terms, journal: &Schema) -> Result<DynamicFilterPhysicalExpr> {
    let keys = terms.on.iter().map(|(_, key)| Arc::clone(key));
    let columns = keys.chain(terms.period(journal)?).collect();
    Ok(DynamicFilterPhysicalExpr::new(columns, lit(true)))
}

/// Tells `filter` what the facts look for: these keys, and intervals that may hold one of these instants.
pub(super) fn tell(
    filter: &DynamicFilterPhysicalExpr,
    terms: &Terms,
    journal: &Schema,
    facts: &Facts,
    limits: Limits,
) -> Result<()> {
    let mut all = Vec::new();
    let few = few(facts, limits.keys);
    for (fact, key) in &terms.on {
        let values = fact.evaluate(&facts.batch)?;
        let values = values.into_array(facts.len())?;
        if told(values.data_type()) {
            let bounds = bounds(facts, &values)?;
            let list = few.clone().map(|few| distinct(few, &values));
            let list = list.transpose()?.filter(|list| {
                let bytes = list.iter().map(ScalarValue::size).sum::<usize>();
                bytes <= limits.bytes
            });
            all.extend(of_key(key, bounds, list, journal)?);
        }
    }
    let [from, to] = terms.period(journal)?;
    let instants = (0..facts.len()).filter_map(|fact| facts.sought(fact));
    let range = instants.fold(None, |range: Option<(i64, i64)>, at| {
        let (first, last) = range.unwrap_or((at, at));
        Some((first.min(at), last.max(at)))
    });
    match range {
        Some((first, last)) => {
            if let Some(last) = instant(&from.data_type(journal)?, last) {
                all.push(compared(&from, Operator::LtEq, last));
            }
            let first = match terms.far_future {
                // Such an end is none, however late the instant is.
                true => first.min(FAR_FUTURE_MICROS - 1),
                false => first,
            };
            if let Some(first) = instant(&to.data_type(journal)?, first) {
                let later = compared(&to, Operator::Gt, first);
                all.push(both(is_null(to)?, Operator::Or, later));
            }
            filter.update(conjunction(all))?;
        }
        None => filter.update(lit(false))?,
    }
    filter.mark_complete();
    Ok(())
}

/// Whether a scan may be told of such keys. Statistics of files know no NaN, and do not order nested values.
fn told(keys: &DataType) -> bool {
    !keys.is_floating() && !keys.is_nested()
}

/// A fact of each key that is looked for, unless these are more than `most`. Facts of one key follow each other.
fn few(facts: &Facts, most: usize) -> Option<Vec<usize>> {
    let mut few: Vec<usize> = Vec::new();
    for fact in 0..facts.len() {
        let again = few.last().map(|last| facts.key(*last)) == Some(facts.key(fact));
        if again || facts.sought(fact).is_none() {
            continue;
        }
        if few.len() == most {
            return None;
        }
        few.push(fact);
    }
    Some(few)
}

/// The values of these facts, each once.
fn distinct(mut facts: Vec<usize>, values: &ArrayRef) -> Result<Vec<ScalarValue>> {
    let order = make_comparator(values, values, SortOptions::default())?;
    facts.sort_unstable_by(|one, other| order(*one, *other));
    facts.dedup_by(|one, other| order(*one, *other).is_eq());
    let facts = facts.into_iter();
    facts
        .map(|fact| ScalarValue::try_from_array(values, fact))
        .collect()
}

/// The least and the greatest of the values that are looked for.
fn bounds(facts: &Facts, values: &ArrayRef) -> Result<Option<(ScalarValue, ScalarValue)>> {
    let order = make_comparator(values, values, SortOptions::default())?;
    let sought = || (0..facts.len()).filter(|fact| facts.sought(*fact).is_some());
    let first = sought().min_by(|one, other| order(*one, *other));
    let last = sought().max_by(|one, other| order(*one, *other));
    let value = |fact| ScalarValue::try_from_array(values, fact);
    Ok(match (first, last) {
        (Some(first), Some(last)) => Some((value(first)?, value(last)?)),
        _ => None,
    })
}

/// What is asked of one key.
fn of_key(
    key: &PhysicalExprRef,
    bounds: Option<(ScalarValue, ScalarValue)>,
    list: Option<Vec<ScalarValue>>,
    journal: &Schema,
) -> Result<Vec<PhysicalExprRef>> {
    let Some((first, last)) = bounds else {
        return Ok(Vec::new());
    };
    if first == last {
        return Ok(vec![compared(key, Operator::Eq, first)]);
    }
    let mut all = vec![
        compared(key, Operator::GtEq, first),
        compared(key, Operator::LtEq, last),
    ];
    if let Some(list) = list {
        let list = list.into_iter().map(lit).collect();
        all.push(in_list(Arc::clone(key), list, &false, journal)?);
    }
    Ok(all)
}

/// An instant as the columns of intervals have it, which are kept in microseconds.
fn instant(of: &DataType, micros: i64) -> Option<ScalarValue> {
    match of {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let zone = zone.clone();
            Some(ScalarValue::TimestampMicrosecond(Some(micros), zone))
        }
        _ => None,
    }
}

fn compared(column: &PhysicalExprRef, operator: Operator, value: ScalarValue) -> PhysicalExprRef {
    both(Arc::clone(column), operator, lit(value))
}

fn both(left: PhysicalExprRef, operator: Operator, right: PhysicalExprRef) -> PhysicalExprRef {
    Arc::new(BinaryExpr::new(left, operator, right))
}

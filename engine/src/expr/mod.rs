//! What an expression means, where DataFusion's own rules would make it mean something else.
//!
//! | File | Room |
//! |---|---|
//! | `floats.rs` | a decimal beside a float is a float |
//! | `lists.rs` | two IN lists over one value are two questions |
//!
//! Knows nothing but DataFusion's expressions and plans. A session takes [`rules`]; whoever prepares an
//! expression without a plan goes through [`condition`] or [`value`].

mod floats;
mod lists;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{Analyzer, AnalyzerRule};

/// The analyzer's rules, DataFusion's between ours: floats must be told before types are made to agree, and lists
/// are compared only after it.
pub(crate) fn rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(floats::Floats)];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(lists::Apart));
    rules
}

/// A query as planned, with floats where the analyzer will put them: what reads the types of its columns before the
/// query runs (views, CREATE TABLE AS) must read those.
///
/// # Errors
/// When a part of the plan does not fit the types of its inputs.
pub(crate) fn planned(plan: LogicalPlan) -> Result<LogicalPlan> {
    floats::typed_rows(plan)
}

/// The columns that a plan returns, which are known only when its types were made to agree: those of a UNION as
/// planned are those of its first input.
pub(crate) fn columns(state: &SessionState, plan: &LogicalPlan) -> SchemaRef {
    let analyzer = state.analyzer();
    let analyzed = analyzer.execute_and_check(plan.clone(), state.config_options(), |_, _| {});
    Arc::new(match analyzed {
        Ok(analyzed) => analyzed.schema().as_arrow().clone(),
        // It fails when it runs too, unless parameters that it is given then tell the types it lacks.
        Err(_) => plan.schema().as_arrow().clone(),
    })
}

/// A condition over `schema` that is asked only whether it is true, with its types made to agree, simplified.
///
/// # Errors
/// When the types of the condition do not fit one another, or a constant in it has no value.
pub(crate) fn condition(
    simplifier: &ExprSimplifier,
    condition: Expr,
    schema: &DFSchema,
) -> Result<Expr> {
    let typed = simplifier.coerce(floats::typed(condition, schema)?, schema)?;
    simplifier.simplify(lists::apart_in_condition(typed, schema)?)
}

/// An expression over `schema` whose value is wanted, with its types made to agree, simplified.
///
/// # Errors
/// When the types of the expression do not fit one another, or a constant in it has no value.
pub(crate) fn value(simplifier: &ExprSimplifier, value: Expr, schema: &DFSchema) -> Result<Expr> {
    let typed = simplifier.coerce(floats::typed(value, schema)?, schema)?;
    simplifier.simplify(lists::apart_in_value(typed, schema)?)
}

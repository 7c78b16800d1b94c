//! Rules about all rows of a write: a condition over metrics, and over what they were in writes before.
//!
//! Each aggregate in the text becomes a column of a row of numbers, and so does each `previous(..)` and
//! `baseline(.., n)`; what is left of the text is a condition on that row.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use datafusion::common::ScalarValue;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, visit_expressions,
    visit_expressions_mut,
};

use super::compile::spelled;
use super::condition::{self, Condition, Nan, Owner};
use super::past::{MOST_SAMPLES, Need};
use super::record::RuleOutcome;
use crate::error::{Error, Result};

/// Begins the names of columns that stand for metrics; no column of a table is called so.
const METRIC: &str = "__selvedge_metric_";

/// A metric as it was in the last write that recorded it.
const PREVIOUS: &str = "previous";
/// The mean of a metric in the last n writes that recorded it.
const BASELINE: &str = "baseline";

/// A condition over metrics.
#[derive(Debug, Clone)]
pub(super) struct Formula {
    condition: Condition,
    schema: SchemaRef,
    /// What stands in each column of the row of numbers.
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    /// As the text has it, for messages.
    text: String,
    /// Which of the metrics.
    metric: usize,
    /// The metric itself as SQL.
    of: String,
    past: Past,
    data_type: DataType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    Now,
    Previous,
    Mean(usize),
}

/// What a formula said of the numbers of one write or partition.
#[derive(Debug)]
pub(super) struct Said {
    pub outcome: RuleOutcome,
    pub unknown: bool,
    pub observed: Vec<String>,
    pub threshold: Vec<String>,
}

impl Formula {
    /// Whether the text speaks of more than one row.
    pub(super) fn is_one(state: &SessionState, parsed: &ast::Expr) -> bool {
        visit_expressions(parsed, |expr| match expr {
            ast::Expr::Function(call) if is_metric(state, call) || history(call).is_some() => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    }

    /// Compiles the text; `add` compiles a metric and tells its place and type.
    pub(super) fn compile(
        state: &SessionState,
        owner: Owner<'_>,
        mut parsed: ast::Expr,
        columns: &SchemaRef,
        mut add: impl FnMut(&str) -> Result<(usize, FieldRef)>,
    ) -> Result<Self> {
        let mut terms: Vec<Term> = Vec::new();
        // From the inside out, so that what `previous` is asked of is a column already.
        let replaced = visit_expressions_mut(&mut parsed, |expr| {
            let ast::Expr::Function(call) = expr else {
                return ControlFlow::Continue(());
            };
            match term(state, owner, call, &terms, &mut add) {
                Ok(None) => ControlFlow::Continue(()),
                Ok(Some(term)) => {
                    let known = terms.iter().position(|known| *known == term);
                    let at = known.unwrap_or_else(|| {
                        terms.push(term);
                        terms.len() - 1
                    });
                    let name = format!("{METRIC}{at}");
                    *expr = ast::Expr::Identifier(Ident::with_quote('"', name));
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            }
        });
        if let ControlFlow::Break(error) = replaced {
            return Err(error);
        }
        outside(owner, &parsed, columns)?;
        let fields = terms
            .iter()
            .enumerate()
            .map(|(at, term)| Field::new(format!("{METRIC}{at}"), term.data_type.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self {
            condition: condition::compile(state, owner, parsed, &schema, (false, Nan::Unknown))?,
            schema,
            terms,
        })
    }

    /// What it must know of writes before.
    pub(super) fn needs(&self) -> impl Iterator<Item = Need> {
        self.terms.iter().filter_map(|term| {
            let samples = match term.past {
                Past::Now => return None,
                Past::Previous => 1,
                Past::Mean(samples) => samples,
            };
            Some(Need {
                metric: term.of.clone(),
                samples,
            })
        })
    }

    /// Asks it: `now` gives the value of a metric, `before` the newest `n` values of one.
    pub(super) fn ask(
        &self,
        now: impl Fn(usize) -> ScalarValue,
        before: impl Fn(&str, usize) -> Vec<Option<String>>,
    ) -> Result<Said> {
        let (mut observed, mut threshold) = (Vec::new(), Vec::new());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.terms.len());
        for term in &self.terms {
            let value = match term.past {
                Past::Now => now(term.metric),
                Past::Previous => match before(&term.of, 1).pop().flatten() {
                    Some(text) => read_back(text, &term.data_type)?,
                    None => ScalarValue::try_from(&term.data_type)?,
                },
                Past::Mean(samples) => mean(&before(&term.of, samples), samples),
            };
            // No number, so nothing that a bound could be held against.
            let value = match is_nan(&value) {
                true => ScalarValue::try_from(&term.data_type)?,
                false => value,
            };
            let told = text(&value).unwrap_or_else(|| "NULL".to_owned());
            let told = format!("{} = {told}", term.text);
            match term.past {
                Past::Now => observed.push(told),
                Past::Previous | Past::Mean(_) => threshold.push(told),
            }
            columns.push(value.cast_to(&term.data_type)?.to_array()?);
        }
        let row = RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|error| Error::internal(format!("a metric: {error}")).with_source(error))?;
        // A formula without a value, as one that divides by zero, says nothing.
        let answer = match self.condition.ask(&row) {
            Ok(answer) if arrow::array::Array::is_valid(&answer, 0) => Some(answer.value(0)),
            Ok(_) | Err(_) => None,
        };
        Ok(Said {
            outcome: match answer {
                Some(true) => RuleOutcome::Passed,
                Some(false) => RuleOutcome::Violated,
                None => RuleOutcome::Unknown,
            },
            unknown: answer.is_none(),
            observed,
            threshold,
        })
    }
}

/// A value as text, from which its type reads it back; None is NULL.
pub(super) fn text(value: &ScalarValue) -> Option<String> {
    let array = value.to_array().ok()?;
    match value.is_null() {
        true => None,
        false => array_value_to_string(&array, 0).ok(),
    }
}

fn is_nan(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float16(Some(value)) => value.is_nan(),
        ScalarValue::Float32(Some(value)) => value.is_nan(),
        ScalarValue::Float64(Some(value)) => value.is_nan(),
        _ => false,
    }
}

/// A value that was recorded as text; unknown, where the metric was of another type then.
fn read_back(text: String, data_type: &DataType) -> Result<ScalarValue> {
    match ScalarValue::Utf8(Some(text)).cast_to(data_type) {
        Ok(value) => Ok(value),
        Err(_) => Ok(ScalarValue::try_from(data_type)?),
    }
}

fn mean(values: &[Option<String>], samples: usize) -> ScalarValue {
    let numbers = values
        .iter()
        .filter_map(|value| value.as_ref()?.parse::<f64>().ok())
        .filter(|value| !value.is_nan());
    let numbers: Vec<f64> = numbers.collect();
    ScalarValue::Float64(
        (numbers.len() == samples).then(|| numbers.iter().sum::<f64>() / samples as f64),
    )
}

fn name_of(call: &ast::Function) -> String {
    call.name.to_string().to_lowercase()
}

fn is_metric(state: &SessionState, call: &ast::Function) -> bool {
    let name = name_of(call);
    // Window functions share names with aggregates; they are refused by name later.
    call.over.is_none()
        && state.aggregate_functions().contains_key(&name)
        && !state.scalar_functions().contains_key(&name)
}

fn history(call: &ast::Function) -> Option<&'static str> {
    match name_of(call).as_str() {
        PREVIOUS => Some(PREVIOUS),
        BASELINE => Some(BASELINE),
        _ => None,
    }
}

/// What a call stands for; None for functions of one value.
fn term(
    state: &SessionState,
    owner: Owner<'_>,
    call: &ast::Function,
    terms: &[Term],
    add: &mut impl FnMut(&str) -> Result<(usize, FieldRef)>,
) -> Result<Option<Term>> {
    if is_metric(state, call) {
        if inner_metric(call) {
            return Err(owner.wrong(format!(
                "aggregate function {} holds another aggregate",
                name_of(call)
            )));
        }
        let text = spelled(call);
        let (metric, field) = add(&text)?;
        return Ok(Some(Term {
            of: text.clone(),
            text,
            metric,
            past: Past::Now,
            data_type: field.data_type().clone(),
        }));
    }
    let Some(function) = history(call) else {
        return Ok(None);
    };
    let arguments = arguments(call);
    let form = match function {
        PREVIOUS => "previous(metric)",
        _ => "baseline(metric, n)",
    };
    let wrong = || {
        owner
            .wrong(format!("{function} is called as {form}"))
            .with_hint("a metric is a call of an aggregate function, such as count(*)")
    };
    let of = match arguments.first() {
        Some(ast::Expr::Identifier(ident)) => ident
            .value
            .strip_prefix(METRIC)
            .and_then(|at| terms.get(at.parse::<usize>().ok()?))
            .filter(|term| term.past == Past::Now)
            .ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    let (past, data_type) = match (function, &arguments[1..]) {
        (PREVIOUS, []) => (Past::Previous, of.data_type.clone()),
        (BASELINE, [count]) => {
            if !of.data_type.is_numeric() {
                return Err(owner.wrong(format!("{} is no number, so it has no mean", of.text)));
            }
            let samples = count.to_string().parse::<usize>().ok();
            let samples = samples.filter(|samples| (1..=MOST_SAMPLES).contains(samples));
            let samples = samples.ok_or_else(|| {
                owner.wrong(format!(
                    "baseline({}, {count}): the number of writes is a constant from 1 to {MOST_SAMPLES}",
                    of.text
                ))
            })?;
            (Past::Mean(samples), DataType::Float64)
        }
        _ => return Err(wrong()),
    };
    let text = match past {
        Past::Mean(samples) => format!("{BASELINE}({}, {samples})", of.text),
        Past::Now | Past::Previous => format!("{PREVIOUS}({})", of.text),
    };
    Ok(Some(Term {
        text,
        metric: of.metric,
        of: of.of.clone(),
        past,
        data_type,
    }))
}

fn arguments(call: &ast::Function) -> Vec<&ast::Expr> {
    let FunctionArguments::List(list) = &call.args else {
        return Vec::new();
    };
    list.args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect()
}

fn inner_metric(call: &ast::Function) -> bool {
    let stands_for_one = |expr: &ast::Expr| match expr {
        ast::Expr::Identifier(ident) if ident.value.starts_with(METRIC) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    visit_expressions(call, stands_for_one).is_break()
}

/// Refuses columns of the table beside aggregates: which row would they be of?
fn outside(owner: Owner<'_>, parsed: &ast::Expr, columns: &SchemaRef) -> Result<()> {
    let found = visit_expressions(parsed, |expr| {
        let ident = match expr {
            ast::Expr::Identifier(ident) => ident,
            ast::Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [first, ..] => first,
                [] => return ControlFlow::Continue(()),
            },
            _ => return ControlFlow::Continue(()),
        };
        let own = |field: &FieldRef| field.name().eq_ignore_ascii_case(&ident.value);
        match columns.fields().iter().any(own) {
            true => ControlFlow::Break(ident.value.clone()),
            false => ControlFlow::Continue(()),
        }
    });
    match found {
        ControlFlow::Break(column) => Err(owner
            .wrong(format!("column {column} stands outside of an aggregate"))
            .with_hint("a condition is about each row, or about all rows of a write, not both")),
        ControlFlow::Continue(()) => Ok(()),
    }
}

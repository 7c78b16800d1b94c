//! Parameters: how many a statement takes, and where it may not have any.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Value, ValueWithSpan, Visit, Visitor};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::statement::Statement;
use super::syntax::at;
use super::walk::walk;
use crate::error::{Error, Result};

/// How many parameters must be given to run the statement. Those of a statement being prepared are
/// given to its EXECUTE, and do not count.
pub(crate) fn parameter_count(statement: &Statement) -> usize {
    match statement {
        Statement::Prepare(_) => 0,
        _ => find(statement).numbers.into_iter().max().unwrap_or(0),
    }
}

/// Whether the value of an expression waits for parameters.
pub(crate) fn holds_parameter(expr: &Expr) -> bool {
    let mut found = Found::default();
    let _ = expr.visit(&mut found);
    found.first.is_some()
}

/// The name of the parameter that an expression is, with nothing around it.
pub(crate) fn sole_parameter(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Nested(inner) => sole_parameter(inner),
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

/// Refuses parameters with a name or a gap, and parameters where no value would come from. Those in
/// checks and defaults are refused where these are read.
pub(super) fn check(statement: &Statement) -> Result<()> {
    let mut found = find(statement);
    if let Some((name, place)) = found.named {
        let error = Error::invalid(format!("{name} is not a parameter"))
            .with_hint("parameters are ?, or $1, $2 and so on");
        return Err(at(error, place));
    }
    found.numbers.sort_unstable();
    found.numbers.dedup();
    if let Some(missing) = (1..).zip(&found.numbers).find(|(n, found)| n != *found) {
        return Err(Error::invalid(format!(
            "the statement uses parameter ${} but not ${}",
            missing.1, missing.0
        )));
    }
    let kept = match statement {
        Statement::CreateView(_) => "a view",
        Statement::CreateFunction(_) => "a function",
        Statement::Execute { .. } => "an argument of EXECUTE",
        // These have no plan that a parameter could go into.
        Statement::Restore(_) => "the instant of RESTORE",
        Statement::CheckTable(_) => "the instant of CHECK TABLE",
        Statement::CheckJournal { .. } => "the instant of CHECK JOURNAL",
        // Its text is what the log keeps of it.
        Statement::CorrectJournal(_) => "CORRECT JOURNAL",
        Statement::ExplainQuality(_) => "EXPLAIN QUALITY",
        Statement::Replay(_) => "REPLAY QUARANTINE",
        Statement::Prepare(prepare)
            if matches!(*prepare.statement, Statement::CorrectJournal(_)) =>
        {
            "CORRECT JOURNAL"
        }
        _ => return Ok(()),
    };
    match found.first {
        Some(place) => Err(at(
            Error::invalid(format!("{kept} cannot hold a parameter")),
            place,
        )),
        None => Ok(()),
    }
}

fn find(statement: &Statement) -> Found {
    let mut found = Found::default();
    let _ = walk(statement, &mut found);
    found
}

#[derive(Default)]
struct Found {
    numbers: Vec<usize>,
    named: Option<(String, Location)>,
    first: Option<Location>,
}

impl Visitor for Found {
    type Break = std::convert::Infallible;

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Self::Break> {
        if let Value::Placeholder(name) = &value.value {
            let place = value.span.start;
            self.first.get_or_insert(place);
            match name.strip_prefix('$').and_then(|n| n.parse().ok()) {
                Some(number) => self.numbers.push(number),
                None => self.named = Some((name.clone(), place)),
            }
        }
        ControlFlow::Continue(())
    }
}

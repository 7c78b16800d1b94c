//! EXPLAIN QUALITY: what the rules would say of a write, which is run to its end and leaves nothing.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::answer::Answer;
use crate::cleanse::record::PolicyResult;
use crate::error::{Error, Result};
use crate::quality::failure::{FAILURES, OWN};
use crate::quality::record::RuleResult;
use crate::session::scope::Scope;
use crate::session::show;
use crate::shown::HIDDEN;
use crate::sql::Statement;
use crate::table::meta::Columns;
use crate::table::schema::personal;
use crate::write::sink::{Rehearsal, WriteExec};

/// A line of the answer.
#[derive(Debug, Clone, Default)]
pub(in crate::session) struct Line {
    /// `received`, `erased`, `written`, `dropped`, `quarantined`, `refused`; `policy`; `rule`; `row` for a sample.
    what: &'static str,
    rule: Option<String>,
    action: Option<&'static str>,
    outcome: Option<&'static str>,
    rows: Option<u64>,
    detail: Option<String>,
}

/// The columns of EXPLAIN QUALITY.
pub(in crate::session) fn explained() -> Columns<Line> {
    Columns::new()
        .text("what", |line: &Line| Some(line.what.to_owned()))
        .text("rule", |line| line.rule.clone())
        .text("action", |line| line.action.map(str::to_owned))
        .text("outcome", |line| line.outcome.map(str::to_owned))
        .number("rows", |line| i64::try_from(line.rows?).ok())
        .text("detail", |line| line.detail.clone())
}

/// `EXPLAIN QUALITY statement`
pub(in crate::session) async fn explain(
    scope: &Arc<Scope>,
    statement: Statement,
) -> Result<Answer> {
    let plan = Box::pin(crate::session::plan(scope, statement)).await?;
    let state = scope.state();
    let physical = state.create_physical_plan(&plan).await?;
    let found = WriteExec::rehearse(&physical, &state.task_ctx()).await?;
    show::answer(&explained(), &lines(&found)?)
}

fn lines(found: &Rehearsal) -> Result<Vec<Line>> {
    let report = &found.report;
    let count = |what, rows| Line {
        what,
        rows: Some(rows),
        ..Line::default()
    };
    let mut lines = vec![
        count("received", report.rows_received),
        count("written", report.rows_written),
        count("dropped", report.rows_dropped),
        count("quarantined", report.rows_quarantined),
    ];
    if !report.policies.is_empty() {
        lines.insert(1, count("erased", report.rows_erased));
    }
    lines.extend(report.policies.iter().map(of_policy));
    lines.extend(found.refused.as_ref().map(|error| Line {
        what: "refused",
        detail: Some(error.message().to_owned()),
        ..Line::default()
    }));
    lines.extend(report.rules.iter().map(of_rule));
    for batch in &found.quarantined {
        of_rows(batch, &mut lines)?;
    }
    Ok(lines)
}

fn of_policy(result: &PolicyResult) -> Line {
    Line {
        what: "policy",
        rule: Some(result.policy.clone()),
        rows: Some(result.rows_matched),
        detail: (!result.notes.is_empty()).then(|| result.notes.join("; ")),
        ..Line::default()
    }
}

fn of_rule(result: &RuleResult) -> Line {
    let mut told: Vec<&str> = result.observed.iter().map(String::as_str).collect();
    told.extend(
        result
            .threshold
            .iter()
            .chain(&result.sample)
            .map(String::as_str),
    );
    Line {
        what: "rule",
        rule: Some(result.rule.clone()),
        action: Some(result.action.sql()),
        outcome: Some(result.outcome.word()),
        rows: Some(result.violations),
        detail: (!told.is_empty()).then(|| told.join("; ")),
    }
}

/// Rows that would go to quarantine, each with what is wrong with it.
fn of_rows(batch: &RecordBatch, lines: &mut Vec<Line>) -> Result<()> {
    let options = FormatOptions::default().with_null("NULL");
    let broken = |error: datafusion::arrow::error::ArrowError| {
        Error::internal(format!("a quarantined row: {error}")).with_source(error)
    };
    let schema = batch.schema();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if !OWN.contains(&field.name().as_str()) {
            let shown = ArrayFormatter::try_new(column, &options).map_err(broken)?;
            columns.push((field, shown));
        }
    }
    let failures = batch
        .column_by_name(FAILURES)
        .and_then(|of| of.as_list_opt::<i32>());
    for row in 0..batch.num_rows() {
        let values = columns.iter();
        let values = values.map(|(field, shown)| match personal(field) {
            true => format!("{} = {HIDDEN}", field.name()),
            false => format!("{} = {}", field.name(), shown.value(row)),
        });
        let values: Vec<String> = values.collect();
        let rules = failures.map(|of| {
            let of = of.value(row);
            let names = of.as_struct().column(0).as_string::<i32>().clone();
            let names: Vec<&str> = names.iter().flatten().collect();
            names.join(", ")
        });
        lines.push(Line {
            what: "row",
            rule: rules,
            detail: Some(values.join(", ")),
            ..Line::default()
        });
    }
    Ok(())
}

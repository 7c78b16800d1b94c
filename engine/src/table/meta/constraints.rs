//! `t$constraints`: what every row of the table satisfies, and what is asked of rows that are written.

use super::super::snapshot::{Snapshot, TableRoot};
use super::column::Columns;
use super::metrics::over;
use crate::error::Result;
use crate::journal::definition;
use crate::quality::rule::{self, OnNull, OnViolation, Rule, RuleKind};
use crate::sql;

#[derive(Debug, Clone)]
pub(super) struct Constraint {
    name: String,
    kind: &'static str,
    /// The one column it is about.
    column: Option<String>,
    expression: String,
    action: OnViolation,
    on_null: Option<OnNull>,
    enabled: bool,
    /// Whether the rows that were there before it satisfy it too.
    validated: bool,
    /// What else is kept of a rule; other writers know of NOT NULL and CHECK, and keep no more of them.
    rule: Option<Rule>,
}

pub(super) fn columns() -> Columns<Constraint> {
    Columns::new()
        .text("name", |of: &Constraint| Some(of.name.clone()))
        .text("kind", |of| Some(of.kind.to_owned()))
        .text("column_name", |of| of.column.clone())
        .text("expression", |of| Some(of.expression.clone()))
        .text("action", |of| Some(of.action.sql().to_owned()))
        .text("on_null", |of| Some(of.on_null?.sql().to_owned()))
        .truth("per_partition", |of| Some(of.rule.as_ref()?.per_partition))
        .text("over", |of| {
            let rule = of.rule.as_ref()?;
            (rule.kind == RuleKind::Metric).then(|| over(rule.over).to_owned())
        })
        .truth("enabled", |of| Some(of.enabled))
        .truth("validated", |of| Some(of.validated))
        .number("since_version", |of| {
            i64::try_from(of.rule.as_ref()?.since_version).ok()
        })
        .text("author", |of| of.rule.as_ref()?.author.clone())
        .text("fingerprint", |of| {
            Some(of.rule.as_ref()?.fingerprint.clone())
        })
}

/// NOT NULL first, in the order of the columns; it has no name but that of its column. Then CHECK, then rules.
pub(super) fn of(snapshot: &Snapshot, root: &TableRoot) -> Result<Vec<Constraint>> {
    let holds = |name: &str, kind, expression: String| Constraint {
        name: name.to_owned(),
        kind,
        column: None,
        expression,
        action: OnViolation::Fail,
        on_null: None,
        enabled: true,
        validated: true,
        rule: None,
    };
    let properties = &snapshot.metadata.configuration;
    let journal = definition::of(&root.url(), properties)?;
    // Nobody gives a journal its period columns, so none can break what holds for them.
    let own = |name: &str| {
        let columns = journal.as_ref().map(|journal| journal.columns.names());
        columns.is_some_and(|names| names.contains(&name))
    };
    let fields = snapshot.schema.fields().iter();
    let not_null = fields.filter(|field| !field.is_nullable() && !own(field.name()));
    let not_null = not_null.map(|field| {
        let expression = format!("{} IS NOT NULL", sql::quoted(field.name()));
        Constraint {
            column: Some(field.name().clone()),
            ..holds(field.name(), "NOT NULL", expression)
        }
    });
    let checks = snapshot.checks().map(|(name, text)| Constraint {
        on_null: Some(OnNull::Violate),
        ..holds(name, "CHECK", text.to_owned())
    });
    let rules = rule::rules(&root.url(), properties)?;
    let rules = rules.into_iter().map(|rule| Constraint {
        name: rule.name.clone(),
        kind: rule.kind.word(),
        column: None,
        expression: rule.expect.clone(),
        action: rule.on_violation,
        on_null: Some(rule.on_null),
        enabled: rule.enabled,
        validated: rule.validated,
        rule: Some(rule),
    });
    Ok(not_null.chain(checks).chain(rules).collect())
}

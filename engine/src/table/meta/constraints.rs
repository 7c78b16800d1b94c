//! `t$constraints`: what every row of the table satisfies.

use super::super::snapshot::Snapshot;
use super::column::Columns;
use crate::sql;

#[derive(Debug, Clone)]
pub(super) struct Constraint {
    name: String,
    kind: &'static str,
    /// The one column it is about.
    column: Option<String>,
    expression: String,
}

pub(super) fn columns() -> Columns<Constraint> {
    Columns::new()
        .text("name", |of: &Constraint| Some(of.name.clone()))
        .text("kind", |of| Some(of.kind.to_owned()))
        .text("column_name", |of| of.column.clone())
        .text("expression", |of| Some(of.expression.clone()))
}

/// NOT NULL first, in the order of the columns; it has no name but that of its column.
pub(super) fn of(snapshot: &Snapshot) -> Vec<Constraint> {
    let not_null = snapshot
        .schema
        .fields()
        .iter()
        .filter(|field| !field.is_nullable())
        .map(|field| Constraint {
            name: field.name().clone(),
            kind: "NOT NULL",
            column: Some(field.name().clone()),
            expression: format!("{} IS NOT NULL", sql::quoted(field.name())),
        });
    let checks = snapshot.checks().map(|(name, text)| Constraint {
        name: name.to_owned(),
        kind: "CHECK",
        column: None,
        expression: text.to_owned(),
    });
    not_null.chain(checks).collect()
}

//! `t$policies`: what the table must forget, and where each policy last found something to take away.

use futures::TryStreamExt;

use super::super::records;
use super::super::snapshot::{Snapshot, TableRoot};
use super::column::Columns;
use crate::cleanse::policy::{self, Policy, PolicyAction, PolicyScope};
use crate::cleanse::record::PolicyResult;
use crate::error::Result;

/// The operation of CLEANSE TABLE, which looks for all rows that a policy is about.
const OPERATION: &str = "CLEANSE";

/// A policy of the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    policy: Policy,
    last: Option<Applied>,
}

/// A commit that a policy was part of.
#[derive(Debug, Clone)]
struct Applied {
    version: Option<u64>,
    at_ms: i64,
    operation: String,
    user: Option<String>,
    result: PolicyResult,
}

pub(super) fn columns() -> Columns<Row> {
    Columns::new()
        .text("policy", |row: &Row| Some(row.policy.name.clone()))
        .list("key_columns", |row| match &row.policy.scope {
            PolicyScope::Keys { columns, .. } => columns.clone(),
            PolicyScope::Every => Vec::new(),
        })
        .text("keys_from", |row| match &row.policy.scope {
            PolicyScope::Keys { query, .. } => Some(query.clone()),
            PolicyScope::Every => None,
        })
        .text("action", |row| Some(action(&row.policy).to_owned()))
        .list("columns", |row| touched(&row.policy))
        .text("tag", |row| match &row.policy.action {
            PolicyAction::Nullify {
                columns: policy::Columns::Tagged(tag),
            } => Some(tag.clone()),
            _ => None,
        })
        .truth("enabled", |row| Some(row.policy.enabled))
        .number("since_version", |row| {
            i64::try_from(row.policy.since_version).ok()
        })
        .text("author", |row| row.policy.author.clone())
        .number("last_version", |row| {
            i64::try_from(row.last.as_ref()?.version?).ok()
        })
        .instant("last_applied", |row| Some(row.last.as_ref()?.at_ms))
        .text("last_operation", |row| {
            Some(row.last.as_ref()?.operation.clone())
        })
        .text("applied_by", |row| row.last.as_ref()?.user.clone())
        .number("keys", |row| count(row, |of| of.keys))
        .number("rows_matched", |row| count(row, |of| of.rows_matched))
        .number("cells_changed", |row| count(row, |of| of.cells_changed))
        .number("rows_erased", |row| count(row, |of| of.rows_erased))
        .list("notes", |row| {
            let last = row.last.as_ref();
            last.map(|last| last.result.notes.clone())
                .unwrap_or_default()
        })
}

fn count(row: &Row, of: fn(&PolicyResult) -> u64) -> Option<i64> {
    i64::try_from(of(&row.last.as_ref()?.result)).ok()
}

fn action(policy: &Policy) -> &'static str {
    match policy.action {
        PolicyAction::Nullify { .. } => "NULLIFY",
        PolicyAction::Set { .. } => "SET",
        PolicyAction::DeleteRows => "DELETE ROWS",
    }
}

/// The columns it names.
fn touched(policy: &Policy) -> Vec<String> {
    match &policy.action {
        PolicyAction::Nullify {
            columns: policy::Columns::Named(names),
        } => names.clone(),
        PolicyAction::Set { values } => values.keys().cloned().collect(),
        PolicyAction::Nullify { .. } | PolicyAction::DeleteRows => Vec::new(),
    }
}

/// The policies, each with the last commit that cleansed the table by it, or let in rows it is about.
pub(super) async fn of(snapshot: &Snapshot, root: &TableRoot) -> Result<Vec<Row>> {
    let policies = policy::policies(&root.url(), &snapshot.metadata.configuration)?;
    let rows = policies
        .into_iter()
        .map(|policy| Row { policy, last: None });
    let mut rows: Vec<Row> = rows.collect();
    if rows.is_empty() {
        return Ok(rows);
    }
    let mut records = records::newest_first(root, snapshot.version);
    while let Some(record) = records.try_next().await? {
        let cleanses = record.report.operation == OPERATION;
        for result in &record.report.policies {
            let row = rows.iter_mut().find(|row| row.policy.name == result.policy);
            if let Some(row) = row.filter(|row| row.last.is_none())
                && (cleanses || result.rows_matched > 0)
            {
                row.last = Some(Applied {
                    version: record.version,
                    at_ms: record.at_ms,
                    operation: record.report.operation.clone(),
                    user: record.user.clone(),
                    result: result.clone(),
                });
            }
        }
        if rows.iter().all(|row| row.last.is_some()) {
            break;
        }
    }
    Ok(rows)
}

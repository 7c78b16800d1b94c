//! What is known of an answer before its statement runs.
//!
//! A client is told the columns of an answer when it prepares a statement. A statement that changes something, or
//! that takes long, must not run for that: its columns are declared, and told here.

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast::ObjectName;

use super::super::{cleanse, journal, listing, maintain, policy, quality, suggest};
use crate::sql::{Show, Statement};

/// The columns of a statement whose answer has the same ones whatever it is about.
pub(super) fn columns(statement: &Statement) -> Option<SchemaRef> {
    Some(match statement {
        Statement::Optimize(_) => maintain::optimized().schema(),
        Statement::Vacuum(vacuum) if vacuum.dry_run => maintain::vacuumable().schema(),
        Statement::Vacuum(_) => maintain::vacuumed().schema(),
        Statement::Restore(_) => maintain::restored().schema(),
        Statement::Analyze { .. } => maintain::analyzed().schema(),
        Statement::Cleanse(_) => cleanse::cleansed().schema(),
        Statement::VerifyErasure { .. } => cleanse::verified().schema(),
        Statement::CheckTable(_) => quality::checked().schema(),
        Statement::CheckJournal { .. } => journal::checked(),
        Statement::ExplainQuality(_) => quality::explained().schema(),
        Statement::SuggestConstraints { .. } => suggest::columns().schema(),
        Statement::Show(Show::Functions { .. }) => listing::columns().schema(),
        Statement::Show(Show::Policies { .. }) => policy::shown().schema(),
        _ => return None,
    })
}

/// The table that such a statement is about.
pub(super) fn table(statement: &Statement) -> Option<&ObjectName> {
    match statement {
        Statement::Optimize(optimize) => Some(&optimize.table),
        Statement::Vacuum(vacuum) => Some(&vacuum.table),
        Statement::Restore(restore) => Some(&restore.table),
        Statement::Analyze { table } | Statement::SuggestConstraints { table } => Some(table),
        Statement::Cleanse(cleanse) => Some(&cleanse.table),
        Statement::VerifyErasure { table, .. } => Some(table),
        Statement::CheckTable(check) => Some(&check.table),
        Statement::CheckJournal { table, .. } => Some(table),
        _ => None,
    }
}

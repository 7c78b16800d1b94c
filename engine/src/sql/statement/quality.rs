//! What the statements say that ask rules, or put rows to them again.

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName};

use super::super::versions::At;
use super::Assignment;

/// The rules of a table, asked of the rows that it holds.
#[derive(Debug, Clone)]
pub(crate) struct CheckTable {
    pub(crate) table: ObjectName,
    /// None: the newest version. No parameter in its instant.
    pub(crate) at: Option<At>,
    /// None: all of them.
    pub(crate) constraint: Option<Ident>,
}

/// Quarantined rows of a table, written to it once more.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    pub(crate) table: ObjectName,
    /// None: all that are there.
    pub(crate) predicate: Option<Expr>,
    /// What is repaired; no column twice.
    pub(crate) assignments: Vec<Assignment>,
}

//! What the statements say of journals: how one is kept, and how its history is proved and put right.

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName};

use super::Assignment;
use crate::journal::definition::Late;

/// `JOURNAL KEYS (..) ..` of CREATE TABLE, as typed.
#[derive(Debug, Clone)]
pub(crate) struct JournalClause {
    /// Never empty, and no column twice.
    pub(crate) keys: Vec<Ident>,
    pub(crate) sequence: Option<Ident>,
    /// Rows for which this holds end what they name; no subquery, no parameter.
    pub(crate) delete_when: Option<Expr>,
    pub(crate) track: TrackClause,
    pub(crate) ignore_nulls: IgnoreNullsClause,
    pub(crate) late: Late,
}

#[derive(Debug, Clone, Default)]
pub(crate) enum TrackClause {
    #[default]
    All,
    Only(Vec<Ident>),
    Except(Vec<Ident>),
}

#[derive(Debug, Clone, Default)]
pub(crate) enum IgnoreNullsClause {
    #[default]
    No,
    All,
    On(Vec<Ident>),
}

/// `CORRECT JOURNAL t SET .. | DELETE WHERE ..`: intervals as they are kept, put right by hand.
#[derive(Debug, Clone)]
pub(crate) struct CorrectJournal {
    pub(crate) table: ObjectName,
    pub(crate) change: Correction,
    /// None is refused when the statement is read.
    pub(crate) predicate: Option<Expr>,
}

#[derive(Debug, Clone)]
pub(crate) enum Correction {
    /// Never empty, and no column twice.
    Set(Vec<Assignment>),
    Delete,
}

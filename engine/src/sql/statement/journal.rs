//! What the statements say of journals: how one is kept, and how its history is proved and put right.

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName};

use super::{Assignment, fold};
use crate::journal::definition::{Definition, IgnoreNulls, Late, OpenEnd, PeriodColumns, Track};

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

impl JournalClause {
    /// What it means, where nothing else is said of the period.
    pub(crate) fn definition(&self) -> Definition {
        let names = |idents: &[Ident]| idents.iter().map(fold).collect::<Vec<String>>();
        Definition {
            keys: names(&self.keys),
            sequence: self.sequence.as_ref().map(fold),
            delete_when: self.delete_when.as_ref().map(ToString::to_string),
            track: match &self.track {
                TrackClause::All => Track::All,
                TrackClause::Only(columns) => Track::Only(names(columns)),
                TrackClause::Except(columns) => Track::Except(names(columns)),
            },
            ignore_nulls: match &self.ignore_nulls {
                IgnoreNullsClause::No => IgnoreNulls::No,
                IgnoreNullsClause::All => IgnoreNulls::All,
                IgnoreNullsClause::On(columns) => IgnoreNulls::On(names(columns)),
            },
            late: self.late,
            columns: PeriodColumns::default(),
            open_end: OpenEnd::default(),
        }
    }
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

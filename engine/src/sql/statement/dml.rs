//! What the statements say that change rows of a table.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, TableFactor, TableWithJoins,
};

#[derive(Debug, Clone)]
pub(crate) struct Insert {
    pub(crate) table: ObjectName,
    /// The columns named, in the order of the source's; empty when none are.
    pub(crate) columns: Vec<Ident>,
    /// Whether source columns find their target by name (`BY NAME`).
    pub(crate) by_name: bool,
    /// `REPLACE WHERE`: the rows of the table for which this holds make place for the source's.
    pub(crate) replace: Option<Expr>,
    pub(crate) source: InsertSource,
    pub(crate) mode: InsertMode,
    /// `AS SNAPSHOTS`: each instant of the source's rows has all that was true then. Only in [`InsertMode::Append`].
    pub(crate) snapshots: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum InsertSource {
    Query(Box<Query>),
    /// One row of every column's default.
    DefaultValues,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InsertMode {
    /// `INSERT INTO t`
    Append,
    /// `INSERT OVERWRITE t`: the table, or what its property says.
    Overwrite,
    /// `INSERT OVERWRITE PARTITIONS OF t`: only the partitions that the source has rows for.
    OverwritePartitions,
}

#[derive(Debug, Clone)]
pub(crate) struct Delete {
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    /// Other tables that the predicate may name.
    pub(crate) using: Vec<TableWithJoins>,
    pub(crate) predicate: Option<Expr>,
}

#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    /// Never empty, and no column twice.
    pub(crate) assignments: Vec<Assignment>,
    /// Other tables that the values and the predicate may name.
    pub(crate) from: Vec<TableWithJoins>,
    pub(crate) predicate: Option<Expr>,
}

/// `column = value`. The column's qualifier, if it had one, was that of the target.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) column: Ident,
    /// None: the column's DEFAULT.
    pub(crate) value: Option<Expr>,
}

#[derive(Debug, Clone)]
pub(crate) struct Merge {
    pub(crate) table: ObjectName,
    pub(crate) alias: Option<Ident>,
    /// A table, a table function, or a subquery with an alias.
    pub(crate) source: TableFactor,
    pub(crate) on: Expr,
    /// Never empty. For each kind, only the last one may lack a condition.
    pub(crate) clauses: Vec<MergeClause>,
}

#[derive(Debug, Clone)]
pub(crate) struct MergeClause {
    pub(crate) when: MergeWhen,
    pub(crate) condition: Option<Expr>,
    pub(crate) action: MergeAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeWhen {
    /// A row of the table and one of the source.
    Matched,
    /// A row of the source alone: `NOT MATCHED [BY TARGET]`.
    NotMatched,
    /// A row of the table alone.
    NotMatchedBySource,
}

/// What becomes of a row. Inserts stand under [`MergeWhen::NotMatched`] and nothing else does; what
/// takes a whole source row does not stand under [`MergeWhen::NotMatchedBySource`].
#[derive(Debug, Clone)]
pub(crate) enum MergeAction {
    Update(Vec<Assignment>),
    /// `UPDATE SET *`: each column from the source's of its name.
    UpdateAll,
    Delete,
    Insert {
        /// Empty: all, in order. Else as many as values.
        columns: Vec<Ident>,
        /// None: the column's DEFAULT.
        values: Vec<Option<Expr>>,
    },
    /// `INSERT *`: each column from the source's of its name.
    InsertAll,
}

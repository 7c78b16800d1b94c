//! What a statement says: plain data, checked for form, with no name resolved.

use std::fmt;

use datafusion::common::format::ExplainFormat;
use datafusion::sql::sqlparser::ast::{DataType, Expr, Ident, ObjectName, Query};
use datafusion::sql::sqlparser::keywords;

use super::versions::At;
use crate::quality::rule::Rule;

mod cleanse;
mod dml;
mod journal;
mod quality;

pub(crate) use cleanse::*;
pub(crate) use dml::*;
pub(crate) use journal::*;
pub(crate) use quality::*;

/// One statement. Anything that is not here is refused by name when it is read.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one statement is alive at a time, and most are queries, which are boxed"
)]
pub(crate) enum Statement {
    Query(Box<Query>),
    Explain(Explain),
    /// What the rules of its table say of a write that is not committed: one that names the table whose rows it
    /// changes, COPY INTO, or CREATE TABLE .. AS.
    ExplainQuality(Box<Statement>),
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Merge(Merge),
    /// All rows of a table, deleted.
    Truncate {
        table: ObjectName,
    },
    CreateTable(CreateTable),
    CreateExternalTable(CreateExternalTable),
    CreateSchema {
        name: ObjectName,
        if_not_exists: bool,
    },
    CreateView(CreateView),
    CreateFunction(CreateFunction),
    Drop(Drop),
    AlterTable {
        name: ObjectName,
        action: AlterAction,
    },
    CopyTo(CopyTo),
    CopyInto(CopyInto),
    Optimize(Optimize),
    Vacuum(Vacuum),
    Restore(Restore),
    /// Gathers the statistics of a table's columns.
    Analyze {
        table: ObjectName,
    },
    CheckTable(CheckTable),
    /// What is wrong with the intervals of a journal; no rows are a proof that nothing is.
    CheckJournal {
        table: ObjectName,
        /// None: the newest version. No parameter in its instant.
        at: Option<At>,
    },
    CorrectJournal(CorrectJournal),
    Replay(Replay),
    /// Rules that the past writes of a table would have kept.
    SuggestConstraints {
        table: ObjectName,
    },
    CreatePolicy(CreatePolicy),
    DropPolicy {
        name: Ident,
        table: ObjectName,
        if_exists: bool,
    },
    SwitchPolicy {
        name: Ident,
        table: ObjectName,
        enabled: bool,
    },
    Cleanse(Cleanse),
    /// What is left anywhere of the values that policies of a table took away; without one, of all that are enabled.
    VerifyErasure {
        table: ObjectName,
        policy: Option<Ident>,
    },
    Show(Show),
    /// Columns of a table.
    Describe(ObjectName),
    /// Versions of a table.
    DescribeHistory(ObjectName),
    /// Columns of a query's answer; the query does not run.
    DescribeQuery(Box<Query>),
    /// A session variable, its name in lower case with dots.
    Set {
        name: String,
        value: String,
    },
    Reset {
        name: String,
    },
    Use {
        schema: ObjectName,
    },
    Prepare(Prepare),
    Execute {
        name: Ident,
        arguments: Vec<Expr>,
    },
    /// Without a name: all of them.
    Deallocate {
        name: Option<Ident>,
    },
    Transaction(Transaction),
}

impl Statement {
    /// The table whose rows the statement changes, if it is one that says how (COPY INTO is not).
    pub(crate) fn changed_table(&self) -> Option<&ObjectName> {
        match self {
            Self::Insert(insert) => Some(&insert.table),
            Self::Update(update) => Some(&update.table),
            Self::Delete(delete) => Some(&delete.table),
            Self::Merge(merge) => Some(&merge.table),
            Self::Truncate { table } => Some(table),
            Self::CorrectJournal(correction) => Some(&correction.table),
            Self::Replay(replay) => Some(&replay.table),
            Self::ExplainQuality(write) => write.changed_table(),
            Self::Explain(explain) => explain.statement.changed_table(),
            Self::Prepare(prepare) => prepare.statement.changed_table(),
            _ => None,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Explain {
    pub(crate) analyze: bool,
    pub(crate) verbose: bool,
    pub(crate) format: Option<ExplainFormat>,
    /// A query or a write.
    pub(crate) statement: Box<Statement>,
}

#[derive(Debug, Clone)]
pub(crate) struct CreateTable {
    pub(crate) name: ObjectName,
    pub(crate) if_not_exists: bool,
    pub(crate) or_replace: bool,
    /// Never empty unless `query` is there.
    pub(crate) columns: Vec<Column>,
    pub(crate) checks: Vec<Check>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) partitioned_by: Vec<Ident>,
    /// `JOURNAL KEYS ..`: the table keeps what was true when.
    pub(crate) journal: Option<JournalClause>,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) comment: Option<String>,
    /// `AS SNAPSHOTS`: each instant of the query's rows has all that was true then. Only with `journal` and `query`.
    pub(crate) snapshots: bool,
    /// `AS query`. With `columns`, its columns go to theirs by position.
    pub(crate) query: Option<Box<Query>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: Ident,
    pub(crate) data_type: DataType,
    pub(crate) nullable: bool,
    pub(crate) default: Option<Expr>,
    pub(crate) comment: Option<String>,
}

/// A row check. Its expression holds no subquery and no parameter.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) name: Option<Ident>,
    pub(crate) expr: Expr,
}

#[derive(Debug, Clone)]
pub(crate) struct CreateExternalTable {
    pub(crate) name: ObjectName,
    pub(crate) if_not_exists: bool,
    pub(crate) format: FileFormat,
    pub(crate) location: String,
    /// Empty: read from the files.
    pub(crate) columns: Vec<Column>,
    pub(crate) options: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileFormat {
    Delta,
    Parquet,
    Csv,
    Json,
    Avro,
}

impl FileFormat {
    pub(crate) const ALL: [Self; 5] = [
        Self::Delta,
        Self::Parquet,
        Self::Csv,
        Self::Json,
        Self::Avro,
    ];
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delta => "DELTA",
            Self::Parquet => "PARQUET",
            Self::Csv => "CSV",
            Self::Json => "JSON",
            Self::Avro => "AVRO",
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct CreateView {
    pub(crate) name: ObjectName,
    pub(crate) or_replace: bool,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<Ident>,
    pub(crate) query: Box<Query>,
    /// The query as it was typed, version clauses included.
    pub(crate) text: String,
}

#[derive(Debug, Clone)]
pub(crate) struct CreateFunction {
    pub(crate) name: ObjectName,
    pub(crate) or_replace: bool,
    pub(crate) if_not_exists: bool,
    /// No name twice.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) returns: Returns,
    pub(crate) comment: Option<String>,
    /// A value where `returns` is one, rows where it is rows.
    pub(crate) body: FunctionBody,
    /// The body as it was typed, version clauses included.
    pub(crate) text: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) name: Ident,
    pub(crate) data_type: DataType,
}

#[derive(Debug, Clone)]
pub(crate) enum Returns {
    Value(DataType),
    /// Its columns; empty: those of the query, whatever they are when it is called.
    Rows(Vec<Parameter>),
}

#[derive(Debug, Clone)]
pub(crate) enum FunctionBody {
    Value(Box<Expr>),
    Rows(Box<Query>),
}

#[derive(Debug, Clone)]
pub(crate) struct Drop {
    pub(crate) kind: DropKind,
    pub(crate) name: ObjectName,
    pub(crate) if_exists: bool,
    pub(crate) cascade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropKind {
    Table,
    View,
    Schema,
    Function,
}

#[derive(Debug, Clone)]
pub(crate) enum AlterAction {
    AddColumn(AddColumn),
    /// A column, or a field of a struct, by the names on the way to it.
    DropColumn {
        column: Vec<Ident>,
        if_exists: bool,
    },
    RenameColumn {
        column: Vec<Ident>,
        to: Ident,
    },
    AlterColumn {
        column: Vec<Ident>,
        change: ColumnChange,
    },
    SetProperties(Vec<(String, String)>),
    UnsetProperties {
        keys: Vec<String>,
        if_exists: bool,
    },
    RenameTo(ObjectName),
    AddCheck {
        name: Ident,
        expr: Expr,
        /// Rows that are there are not to be asked.
        not_valid: bool,
    },
    AddRule {
        /// Name, condition and clauses as typed. What only the table can tell is not filled in: a rule with
        /// aggregates says that it is about rows, too.
        rule: Rule,
        /// Rows that are there are not to be asked.
        not_valid: bool,
    },
    SwitchConstraint {
        name: Ident,
        enabled: bool,
    },
    DropConstraint {
        name: Ident,
        if_exists: bool,
    },
}

/// A new column, or a new field of the struct that `parent` leads to.
#[derive(Debug, Clone)]
pub(crate) struct AddColumn {
    pub(crate) parent: Vec<Ident>,
    pub(crate) column: Column,
    /// None: it comes last.
    pub(crate) place: Option<ColumnPlace>,
    pub(crate) if_not_exists: bool,
}

/// Where a column stands among its siblings.
#[derive(Debug, Clone)]
pub(crate) enum ColumnPlace {
    First,
    After(Ident),
}

/// What becomes of a column.
#[derive(Debug, Clone)]
pub(crate) enum ColumnChange {
    Type(DataType),
    Nullable(bool),
    /// An expression without columns; none takes the default away.
    Default(Option<Box<Expr>>),
    Comment(String),
    Place(ColumnPlace),
    /// In lower case, as every tag.
    SetTag(String),
    UnsetTag(String),
}

#[derive(Debug, Clone)]
pub(crate) struct CopyTo {
    pub(crate) source: CopySource,
    pub(crate) target: String,
    /// None: told by the target's extension.
    pub(crate) format: Option<FileFormat>,
    pub(crate) options: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub(crate) enum CopySource {
    Table(ObjectName),
    Query(Box<Query>),
}

#[derive(Debug, Clone)]
pub(crate) struct CopyInto {
    pub(crate) table: ObjectName,
    pub(crate) columns: Vec<Ident>,
    /// Paths, URLs or patterns; never empty.
    pub(crate) files: Vec<String>,
    /// None: told by the files' extension.
    pub(crate) format: Option<FileFormat>,
    /// `FORMAT DEBEZIUM`: each line is a change, told by its envelope. Then there is no other format, and no column
    /// is named.
    pub(crate) debezium: bool,
    pub(crate) options: Vec<(String, String)>,
}

/// Fewer, larger files with the same rows.
#[derive(Debug, Clone)]
pub(crate) struct Optimize {
    pub(crate) table: ObjectName,
    /// A row predicate that says which files; no subquery, no parameter.
    pub(crate) predicate: Option<Expr>,
    /// Columns by whose nearness rows are arranged; no column twice.
    pub(crate) zorder: Vec<Ident>,
}

/// Files that no version within the retention reads, deleted.
#[derive(Debug, Clone)]
pub(crate) struct Vacuum {
    pub(crate) table: ObjectName,
    /// Finite and not negative. None: what the table's property says.
    pub(crate) retain_hours: Option<f64>,
    /// The files are listed and stay.
    pub(crate) dry_run: bool,
}

/// A table's rows as they were, as a new version.
#[derive(Debug, Clone)]
pub(crate) struct Restore {
    pub(crate) table: ObjectName,
    /// No parameter in its instant.
    pub(crate) to: At,
}

#[derive(Debug, Clone)]
pub(crate) enum Show {
    Tables {
        schema: Option<ObjectName>,
        like: Option<String>,
    },
    Schemas {
        like: Option<String>,
    },
    Columns {
        table: ObjectName,
    },
    /// The statement that would make this table or view.
    Create {
        name: ObjectName,
    },
    Functions {
        like: Option<String>,
    },
    /// The statement that would make this function.
    CreateFunction {
        name: ObjectName,
    },
    /// Without a table: those of all.
    Policies {
        table: Option<ObjectName>,
    },
    /// A session variable, its name in lower case with dots.
    Variable(String),
    AllVariables,
}

#[derive(Debug, Clone)]
pub(crate) struct Prepare {
    pub(crate) name: Ident,
    pub(crate) types: Vec<DataType>,
    /// A query or a statement that changes rows, checked like any other.
    pub(crate) statement: Box<Statement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    Begin,
    Commit,
    Rollback,
}

/// A name as the catalog knows it: in lower case unless it was quoted.
pub(crate) fn fold(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

/// The parts of a name as the catalog knows them.
pub(crate) fn folded(name: &ObjectName) -> Vec<String> {
    let parts = name.0.iter().filter_map(|part| part.as_ident());
    parts.map(fold).collect()
}

/// An identifier as SQL text: bare where that means the same.
pub(crate) fn quoted(name: &str) -> String {
    let bare = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !keywords::ALL_KEYWORDS
            .iter()
            .any(|keyword| keyword.eq_ignore_ascii_case(name));
    if bare {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

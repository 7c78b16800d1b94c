//! Version clauses: `orders VERSION AS OF 3`, `orders TIMESTAMP AS OF '2026-01-01'` and their spellings.
//!
//! The planner would drop the clause and read the newest rows, so it never sees one: each table with
//! a version is replaced by a name of its own, under which the session makes that version known. The
//! same is done with what reads a table in another way: `FOR VALID_TIME`, `HISTORY OF`, `table_changes(..)`
//! and `valid_time_changes(..)`.

use std::fmt;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, ObjectName,
    Query, Select, Spanned, TableAlias, TableFactor, TableFunctionArgs, TableVersion,
    TableWithJoins, Value, Visitor, VisitorMut,
};

use super::changes::{self, Changes};
use super::confine::constant;
use super::statement::{Statement, fold, folded};
use super::syntax::{self, at as placed};
use super::walk::{walk, walk_mut};
use super::{history, valid};
use crate::error::{Error, Position, Result};

/// A table at a version, as a statement reads it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VersionedTable {
    /// The one-part name that stands for it in the statement now, exactly as it is here.
    pub(crate) internal: String,
    /// The name that was typed.
    pub(crate) original: ObjectName,
    pub(crate) reading: Reading,
    /// Where the name stands in the text.
    pub(crate) position: Option<Position>,
}

/// What is read of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reading {
    /// Its rows as they were.
    At(At),
    /// The rows that came and went.
    Changes(Changes),
    /// What a journal says was true.
    Valid(Valid),
    /// What began and ended to be true, from one instant to another.
    ValidChanges { from: Box<Expr>, to: Box<Expr> },
    /// The aggregates of a query over the table, through all instants.
    History(Box<Query>),
}

/// A journal, read by when its rows were true.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Valid {
    pub(crate) time: ValidTime,
    /// The version that says so; the newest one without.
    pub(crate) at: Option<At>,
}

/// Instants are values without columns and subqueries. They may wait for parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ValidTime {
    /// The state at an instant.
    AsOf(Box<Expr>),
    /// Intervals that share an instant with `[from, to)`.
    FromTo(Box<Expr>, Box<Expr>),
    /// Intervals that share an instant with `[from, to]`.
    Between(Box<Expr>, Box<Expr>),
    /// Intervals that lie in `[from, to)`.
    ContainedIn(Box<Expr>, Box<Expr>),
    All,
    /// The state at an instant of each row of the table it is joined to; the instant stands in the join's
    /// condition, as an argument of [`AS_OF_ROW`].
    OfRow,
}

/// `ON (..) AND __selvedge_as_of_row('name', f.ts)`: of the relation that has this internal name, the row that was
/// true at the instant. Nothing evaluates it: the session turns the join it stands in into one on intervals.
pub(crate) const AS_OF_ROW: &str = "__selvedge_as_of_row";

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum At {
    Version(u64),
    /// The version that was current at this instant: a value that may hold parameters, but no column
    /// and no subquery.
    Timestamp(Box<Expr>),
}

/// Takes the version clauses out of the statement and gives each versioned table a name of its own.
///
/// The same table at the same version has one name, however often it is read. A table without an
/// alias gets its own last name as one, so that columns are still found by it. Parameters in a
/// timestamp leave the statement with their clause: count them before.
pub(crate) fn take_versions(statement: &mut Statement) -> Result<Vec<VersionedTable>> {
    let mut names = Names::default();
    let _ = walk(statement, &mut names);
    names.take(statement.changed_table());
    if !names.versions {
        return Ok(vec![]);
    }
    let mut take = Take {
        taken: names.taken,
        found: vec![],
    };
    match walk_mut(statement, &mut take) {
        ControlFlow::Continue(()) => Ok(take.found),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Names that a new one must differ from: a common table expression wins over any table, and a table of
/// the schema in which names are searched may be written with that schema before it.
#[derive(Default)]
struct Names {
    taken: Vec<String>,
    versions: bool,
}

impl Names {
    fn take<'a>(&mut self, names: impl IntoIterator<Item = &'a ObjectName>) {
        let parts = names.into_iter().flat_map(|name| folded(name).pop());
        self.taken.extend(parts);
    }
}

impl Visitor for Names {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.taken.extend(ctes.map(|cte| fold(&cte.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table {
            name,
            version,
            args,
            ..
        } = factor
        {
            self.versions |= version.is_some() || called(name, args.as_ref());
            self.take([name]);
        }
        ControlFlow::Continue(())
    }
}

struct Take {
    taken: Vec<String>,
    found: Vec<VersionedTable>,
}

impl VisitorMut for Take {
    type Break = Error;

    /// Joins come before the relations in them: what is read as of a row of the other side is said in the condition.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        let mut from = select.from.iter_mut();
        go(from.try_for_each(|tables| self.joins(tables)))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        go(match factor {
            TableFactor::NestedJoin {
                table_with_joins, ..
            } => self.joins(table_with_joins),
            _ => self.relation(factor),
        })
    }
}

fn go(outcome: Result<()>) -> ControlFlow<Error> {
    match outcome {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

/// What a relation reads of which table, where that is not simply its rows.
fn reading(
    name: &ObjectName,
    version: &Option<TableVersion>,
    args: &Option<TableFunctionArgs>,
) -> Result<Option<(ObjectName, Reading)>> {
    Ok(match (version, args) {
        (Some(version), _) => Some((name.clone(), clause(version)?)),
        (None, Some(args)) if changes::called(name, Some(args)) => Some(changes::read(name, args)?),
        (None, Some(args)) if history::called(name, Some(args)) => {
            let (table, query) = history::read(name, args)?;
            Some((table, Reading::History(query)))
        }
        _ => None,
    })
}

/// Whether a relation with these arguments reads a table in another way, without a clause.
fn called(name: &ObjectName, args: Option<&TableFunctionArgs>) -> bool {
    changes::called(name, args) || history::called(name, args)
}

impl Take {
    fn relation(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table {
            name,
            alias,
            version,
            args,
            ..
        } = factor
        else {
            return Ok(());
        };
        let Some((original, reading)) = reading(name, version, args)? else {
            return Ok(());
        };
        if let Reading::Valid(Valid {
            time: ValidTime::AsOf(instant),
            ..
        }) = &reading
            && valid::of_row(instant)
        {
            return Err(valid::misplaced(instant));
        }
        let called = match &reading {
            Reading::History(_) => Some(Ident::new(history::ALIAS)),
            _ => last(name),
        };
        let internal = self.name(original, position(name), reading);
        stand_in(name, alias, called, internal);
        (*version, *args) = (None, None);
        Ok(())
    }

    fn joins(&mut self, tables: &mut TableWithJoins) -> Result<()> {
        let mut joins = tables.joins.iter_mut();
        joins.try_for_each(|join| self.as_of_row(join))
    }

    /// `JOIN t FOR VALID_TIME AS OF f.ts ON ..`: each use reads for itself, since each has instants of its own.
    fn as_of_row(&mut self, join: &mut Join) -> Result<()> {
        let Join {
            relation,
            join_operator,
            ..
        } = join;
        let TableFactor::Table {
            name,
            alias,
            version,
            args: None,
            ..
        } = relation
        else {
            return Ok(());
        };
        let (at, instant) = match version.as_ref().map(clause).transpose()? {
            Some(Reading::Valid(Valid {
                time: ValidTime::AsOf(instant),
                at,
            })) if valid::of_row(&instant) => (at, instant),
            _ => return Ok(()),
        };
        let on = valid::condition(join_operator, &instant)?;
        let reading = Reading::Valid(Valid {
            time: ValidTime::OfRow,
            at,
        });
        let called = last(name);
        let internal = self.name(name.clone(), position(name), reading);
        *on = valid::with_row(on.clone(), &internal, *instant);
        stand_in(name, alias, called, internal);
        *version = None;
        Ok(())
    }

    /// The name of what is read of a table: one that it has already, or a new one.
    fn name(
        &mut self,
        original: ObjectName,
        position: Option<Position>,
        reading: Reading,
    ) -> String {
        // Compared as text: expressions that are equal still differ in their places.
        let what = reading.to_string();
        let of_row = matches!(
            &reading,
            Reading::Valid(Valid {
                time: ValidTime::OfRow,
                ..
            })
        );
        let same = |table: &VersionedTable| {
            !of_row
                && folded(&table.original) == folded(&original)
                && table.reading.to_string() == what
        };
        if let Some(table) = self.found.iter().find(|table| same(table)) {
            return table.internal.clone();
        }
        let table = folded(&original).join(".");
        let base = match &reading {
            Reading::At(At::Version(version)) => format!("{table}@v{version}"),
            Reading::At(At::Timestamp(_)) => format!("{table}@t"),
            Reading::Changes(_) => format!("{table}@changes"),
            Reading::Valid(_) => format!("{table}@valid"),
            Reading::ValidChanges { .. } => format!("{table}@valid_changes"),
            Reading::History(_) => format!("{table}@history"),
        };
        let mut internal = base.clone();
        let mut n = 1;
        while self.taken.contains(&internal) {
            n += 1;
            internal = format!("{base}#{n}");
        }
        self.taken.push(internal.clone());
        self.found.push(VersionedTable {
            internal: internal.clone(),
            original,
            reading,
            position,
        });
        internal
    }
}

/// Puts the internal name where the table's was. Columns are still found by what it was `called`.
fn stand_in(
    name: &mut ObjectName,
    alias: &mut Option<TableAlias>,
    called: Option<Ident>,
    internal: String,
) {
    *name = ObjectName::from(vec![Ident::with_quote('"', internal)]);
    if let (None, Some(called)) = (&alias, called) {
        *alias = Some(TableAlias {
            explicit: true,
            name: called,
            columns: vec![],
            at: None,
        });
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => at.fmt(f),
            Self::Changes(Changes { from, to: None }) => write!(f, "{from}.."),
            Self::Changes(Changes { from, to: Some(to) }) => write!(f, "{from}..{to}"),
            Self::Valid(Valid { time, at: None }) => write!(f, "valid {time}"),
            Self::Valid(Valid { time, at: Some(at) }) => write!(f, "valid {time} at {at}"),
            Self::ValidChanges { from, to } => write!(f, "valid changes {from}..{to}"),
            Self::History(query) => write!(f, "history of {query}"),
        }
    }
}

impl fmt::Display for ValidTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsOf(instant) => write!(f, "AS OF {instant}"),
            Self::FromTo(from, to) => write!(f, "FROM {from} TO {to}"),
            Self::Between(from, to) => write!(f, "BETWEEN {from} AND {to}"),
            Self::ContainedIn(from, to) => write!(f, "CONTAINED IN ({from}, {to})"),
            Self::All => f.write_str("ALL"),
            Self::OfRow => f.write_str("AS OF the row"),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Timestamp(expr) => expr.fmt(f),
        }
    }
}

fn last(name: &ObjectName) -> Option<Ident> {
    name.0.last().and_then(|part| part.as_ident()).cloned()
}

fn position(name: &ObjectName) -> Option<Position> {
    syntax::position(name.span().start)
}

/// Refuses a version where there is none to read: on a function, a file or a common table expression.
pub(super) fn check(
    version: &TableVersion,
    name: &ObjectName,
    function: bool,
    scopes: &Scopes,
) -> Result<()> {
    let said = clause(version).map_err(|error| match error.position() {
        Some(_) => error,
        None => placed(error, name.span().start),
    });
    let called = match &said {
        Ok(Reading::Valid(_)) => "FOR VALID_TIME",
        _ => "a version clause",
    };
    let error = |what: String| {
        let error = Error::invalid(format!("{called} cannot stand on {what}"))
            .with_hint("put it on the tables that are read there");
        placed(error, name.span().start)
    };
    if function && history::named(name) {
        return Err(error("HISTORY OF".to_owned()));
    }
    if function {
        return Err(error(format!("the table function {name}")));
    }
    let last = last(name);
    if last
        .as_ref()
        .is_some_and(|ident| ident.quote_style == Some('\''))
    {
        return Err(error(format!("the file {name}")).with_hint("only tables have versions"));
    }
    if scopes.names(name) {
        return Err(error(format!("the common table expression {name}")));
    }
    said.map(drop)
}

/// A version, where a statement is about one.
pub(super) fn read(version: &TableVersion) -> Result<At> {
    match clause(version)? {
        Reading::At(at) => Ok(at),
        _ => Err(Error::invalid("FOR VALID_TIME cannot stand here")
            .with_hint("name a version: VERSION AS OF 3")),
    }
}

/// All spellings to one meaning.
fn clause(version: &TableVersion) -> Result<Reading> {
    match version {
        TableVersion::VersionAsOf(number) => self::number(number).map(Reading::At),
        TableVersion::TimestampAsOf(instant) | TableVersion::ForSystemTimeAsOf(instant) => {
            self::instant(instant).map(Reading::At)
        }
        TableVersion::Function(call) => self::call(call),
        TableVersion::Changes { changes, .. } => {
            let error = Error::unsupported("CHANGES (..) of a table is not supported");
            Err(placed(error, changes.span().start))
        }
    }
}

pub(super) fn number(number: &Expr) -> Result<At> {
    let parsed = match number {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        _ => None,
    };
    parsed.map(At::Version).ok_or_else(|| {
        let error = Error::invalid(format!("{number} is not a version"))
            .with_hint("a version is a whole number, written out: VERSION AS OF 3");
        placed(error, number.span().start)
    })
}

pub(super) fn instant(instant: &Expr) -> Result<At> {
    constant(instant, "the instant of a version")?;
    if matches!(instant, Expr::Value(value) if value.value == Value::Null) {
        let error = Error::invalid("the instant of a version cannot be NULL");
        return Err(placed(error, instant.span().start));
    }
    Ok(At::Timestamp(Box::new(instant.clone())))
}

/// `AT (VERSION => n)`, `AT (TIMESTAMP => e)`, and what [`valid::spell`] makes of valid time.
fn call(call: &Expr) -> Result<Reading> {
    let wrong = || {
        let error = Error::invalid(format!("{call} is not a version clause"))
            .with_hint("use AT (VERSION => n) or AT (TIMESTAMP => instant)");
        placed(error, call.span().start)
    };
    let Expr::Function(Function {
        name,
        args: FunctionArguments::List(list),
        filter: None,
        over: None,
        null_treatment: None,
        ..
    }) = call
    else {
        return Err(wrong());
    };
    let at =
        folded(name) == ["at"] && list.duplicate_treatment.is_none() && list.clauses.is_empty();
    if !at {
        return Err(wrong());
    }
    let mut arguments = Vec::with_capacity(list.args.len());
    for argument in &list.args {
        match argument {
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(value),
                operator: _,
            } => arguments.push((fold(name), value)),
            _ => return Err(wrong()),
        }
    }
    match arguments.as_slice() {
        [(name, value)] if name == "version" => number(value).map(Reading::At),
        [(name, value)] if name == "timestamp" => instant(value).map(Reading::At),
        arguments => match valid::read(arguments) {
            Some(valid) => valid.map(Reading::Valid),
            None => Err(wrong()),
        },
    }
}

/// The common table expressions in sight while a statement is walked from the outside in.
#[derive(Default)]
pub(super) struct Scopes(Vec<Scope>);

struct Scope {
    ctes: Vec<String>,
    recursive: bool,
    /// How many of them have been walked; the queries of the first ones are walked first.
    walked: usize,
    /// Whether the query is itself that of a common table expression of the scope around it.
    cte: bool,
}

impl Scopes {
    pub(super) fn enter(&mut self, query: &Query) {
        let cte = self
            .0
            .last()
            .is_some_and(|around| around.walked < around.ctes.len());
        let with = query.with.as_ref();
        self.0.push(Scope {
            ctes: with.map_or_else(Vec::new, |with| {
                let ctes = with.cte_tables.iter();
                ctes.map(|cte| fold(&cte.alias.name)).collect()
            }),
            recursive: with.is_some_and(|with| with.recursive),
            walked: 0,
            cte,
        });
    }

    pub(super) fn leave(&mut self) {
        let left = self.0.pop();
        if let (Some(left), Some(around)) = (left, self.0.last_mut())
            && left.cte
        {
            around.walked += 1;
        }
    }

    /// Whether the name of a relation is that of a common table expression here.
    pub(super) fn names(&self, name: &ObjectName) -> bool {
        matches!(folded(name).as_slice(), [one] if self.holds(one))
    }

    /// Whether the name stands for a common table expression here. One is in sight after its own
    /// query, or in it if it is recursive.
    fn holds(&self, name: &str) -> bool {
        self.0.iter().any(|scope| {
            let seen = scope.walked + usize::from(scope.recursive);
            scope.ctes.iter().take(seen).any(|cte| cte == name)
        })
    }
}

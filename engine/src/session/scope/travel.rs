//! Version clauses and `table_changes`, `FOR VALID_TIME` and what else reads a journal through time: which version of a
//! table, and which of its intervals, each of them chooses.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::sql::sqlparser::ast;

use super::Scope;
use super::resolve::intervals;
use crate::asof;
use crate::catalog;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::shape::Shape;
use crate::session::journal::history;
use crate::session::prepared::parameters::{self, PARAMETERS, Parameters};
use crate::session::zone;
use crate::sql::{self, At, Changes, Reading, Valid, ValidTime};
use crate::table::changes;
use crate::table::handle::Table;
use crate::table::journal::{self, AsOfRow, Period};
use crate::table::meta::{Beside, MetadataTable};
use crate::table::snapshot::Snapshot;
use crate::table::versioned::VersionedTable;

/// Stands for an instant of valid time that is not known yet, in a plan that never runs.
const UNKNOWN: i64 = 0;

/// One version of a journal, with all its intervals.
pub(in crate::session) struct Journal {
    pub raw: VersionedTable,
    pub shape: Arc<Shape>,
}

impl Scope {
    /// Resolves what a statement reads of versions and of valid time, so that the planner finds it as tables. Whether
    /// there is a join in which each row chooses the instant.
    pub(super) async fn pin_versions(
        self: &Arc<Self>,
        statement: &mut sql::Statement,
    ) -> Result<bool> {
        let mut by_row = false;
        for versioned in sql::take_versions(statement)? {
            let position = versioned.position;
            let table = match versioned.reading {
                Reading::At(at) => self.at_version(&versioned.original, at).await,
                Reading::Changes(changes) => self.changes(&versioned.original, changes).await,
                Reading::Valid(valid) => {
                    by_row |= valid.time == ValidTime::OfRow;
                    let internal = versioned.internal.clone();
                    self.valid(&versioned.original, valid, internal).await
                }
                Reading::ValidChanges { from, to } => {
                    history::changes(self, &versioned.original, *from, *to).await
                }
                Reading::History(query) => history::of(self, &versioned.original, *query).await,
            };
            let table = table.map_err(|error| match position {
                Some(position) if error.position().is_none() => error.with_position(position),
                _ => error,
            })?;
            self.bind(&versioned.internal, table);
        }
        Ok(by_row)
    }

    /// What a journal says was true. `internal` is the name that the statement has for it.
    async fn valid(
        self: &Arc<Self>,
        name: &ast::ObjectName,
        Valid { time, at }: Valid,
        internal: String,
    ) -> Result<Arc<dyn TableProvider>> {
        let found = self.journal(name, "FOR VALID_TIME", at).await?;
        let full = &found.shape.table;
        let period = match time {
            ValidTime::All => Period::All,
            ValidTime::AsOf(at) => Period::AsOf(self.valid_instant(full, *at).await?),
            ValidTime::FromTo(a, b) => {
                let (a, b) = self.bounds(full, *a, *b).await?;
                Period::FromTo(a, b)
            }
            ValidTime::Between(a, b) => {
                let (a, b) = self.bounds(full, *a, *b).await?;
                Period::Between(a, b)
            }
            ValidTime::ContainedIn(a, b) => {
                let (a, b) = self.bounds(full, *a, *b).await?;
                Period::ContainedIn(a, b)
            }
            ValidTime::OfRow => {
                return Ok(Arc::new(AsOfRow {
                    name: internal,
                    raw: Arc::new(found.raw),
                    shape: found.shape,
                }));
            }
        };
        journal::view(found.raw, &found.shape, period)
    }

    /// Two instants of valid time that a clause names.
    pub(in crate::session) async fn bounds(
        self: &Arc<Self>,
        table: &str,
        a: ast::Expr,
        b: ast::Expr,
    ) -> Result<(i64, i64)> {
        let waits = matches!(self.parameters, Parameters::Awaited(_))
            && (sql::holds_parameter(&a) || sql::holds_parameter(&b));
        let a = self.valid_instant(table, a).await?;
        let b = self.valid_instant(table, b).await?;
        // A period of which half is known would look as if it ended before it began.
        Ok(match waits {
            true => (UNKNOWN, UNKNOWN),
            false => (a, b),
        })
    }

    /// A journal with all its intervals, at a version or as the statement sees it. `what` needs one.
    pub(in crate::session) async fn journal(
        self: &Arc<Self>,
        name: &ast::ObjectName,
        what: &str,
        at: Option<At>,
    ) -> Result<Journal> {
        let (schema, name) = self.versioned_place(name)?;
        let (entry, full) = self.table_entry(&schema, &name)?;
        let table = self.engine.table(entry)?;
        let snapshot = match at {
            Some(at) => self.snapshot_at(&table, &full, at).await?,
            None => self.pin(&schema, &name, &table).await?,
        };
        let Some(shape) = Shape::of(&full, &snapshot)? else {
            return Err(Error::invalid(format!(
                "table {full} keeps no valid time: {what} needs a journal table"
            ))
            .with_hint("CREATE TABLE .. JOURNAL KEYS (..) makes one"));
        };
        Ok(Journal {
            raw: table.provider(&full, snapshot),
            shape,
        })
    }

    /// A table, or a relation about it, at the version that a clause chooses.
    async fn at_version(
        self: &Arc<Self>,
        name: &ast::ObjectName,
        at: At,
    ) -> Result<Arc<dyn TableProvider>> {
        let (schema, name) = self.versioned_place(name)?;
        let (name, kind) = match self.metadata(&schema, &name)? {
            Some((base, kind)) => (base, Some(kind)),
            None => (name.as_str(), None),
        };
        let (entry, full) = self.table_entry(&schema, name)?;
        let table = self.engine.table(entry)?;
        let snapshot = self.snapshot_at(&table, &full, at).await?;
        Ok(match kind {
            Some(Beside::Journal) => intervals(&table, &full, snapshot)?,
            Some(Beside::Metadata(kind)) => {
                Arc::new(MetadataTable::new(kind, snapshot, table.root.clone()).of_the_past())
            }
            None => Arc::new(table.provider(&full, snapshot).current()?),
        })
    }

    /// The rows that came and went between two versions of a table.
    async fn changes(
        self: &Arc<Self>,
        name: &ast::ObjectName,
        Changes { from, to }: Changes,
    ) -> Result<Arc<dyn TableProvider>> {
        let (schema, name) = self.versioned_place(name)?;
        let (entry, full) = self.table_entry(&schema, &name)?;
        let table = self.engine.table(entry)?;
        let newest = self.pin(&schema, &name, &table).await?;
        let last = match to {
            None => Arc::clone(&newest),
            Some(at) => self.snapshot_at(&table, &full, at).await?,
        };
        let first = match from {
            At::Version(first) if first > newest.version => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "table {full} has no version {first}; the newest is {}",
                        newest.version
                    ),
                ));
            }
            At::Version(first) if first > last.version => {
                return Err(Error::invalid(format!(
                    "table_changes: the first version {first} of table {full} comes after the last one, {}",
                    last.version
                )));
            }
            At::Version(first) => first,
            // The first millisecond that is not before it.
            At::Timestamp(expr) => {
                let micros = self.instant(&full, *expr).await?;
                table
                    .first_since(&full, -(-micros).div_euclid(1000))
                    .await?
            }
        };
        let feed = changes::between(&table, &full, first, &last).await?;
        Ok(Arc::new(table.provider(&full, Arc::new(feed))))
    }

    /// The version of a table that a clause chooses.
    pub(in crate::session) async fn snapshot_at(
        self: &Arc<Self>,
        table: &Table,
        full: &str,
        at: At,
    ) -> Result<Arc<Snapshot>> {
        match at {
            At::Version(version) => table.at_version(full, version).await,
            At::Timestamp(expr) => {
                let micros = self.instant(full, *expr).await?;
                table.at_time(full, micros.div_euclid(1000)).await
            }
        }
    }

    /// Schema and name of a relation that is to have versions.
    fn versioned_place(&self, name: &ast::ObjectName) -> Result<(String, String)> {
        let (schema, name) = self.place(name)?;
        if schema == catalog::INFORMATION_SCHEMA {
            return Err(Error::invalid(format!("{schema}.{name} has no versions")));
        }
        Ok((schema, name))
    }

    /// An instant of valid time. It only chooses among rows, whose columns are known without it, so that it may have
    /// parameters.
    async fn valid_instant(self: &Arc<Self>, table: &str, mut expr: ast::Expr) -> Result<i64> {
        if !sql::holds_parameter(&expr) {
            return self.instant(table, expr).await;
        }
        let text = expr.to_string();
        match &self.parameters {
            Parameters::Awaited(instants) => {
                instants.lock().note(&expr);
                Ok(UNKNOWN)
            }
            Parameters::Given(given) => {
                let values = parameters::table_of(std::slice::from_ref(given))?;
                self.bind(PARAMETERS, values);
                parameters::as_columns(&mut expr);
                let query = format!("SELECT {expr} FROM {}", sql::quoted(PARAMETERS));
                self.point_in_time(table, &text, &query).await
            }
            Parameters::None => Err(Error::invalid(format!(
                "table {table}: the timestamp {text} is a parameter, and has no value"
            ))
            .with_hint("PREPARE the statement, and EXECUTE it with values")),
        }
    }

    /// The value of a timestamp clause, which may be any constant expression, in microseconds since the epoch.
    pub(in crate::session) async fn instant(
        self: &Arc<Self>,
        table: &str,
        expr: ast::Expr,
    ) -> Result<i64> {
        let text = expr.to_string();
        if sql::holds_parameter(&expr) {
            // The version decides the columns, which a statement has before its parameters have values.
            return Err(Error::invalid(format!(
                "table {table}: the timestamp {text} cannot be a parameter"
            ))
            .with_hint("write the instant itself"));
        }
        let query = format!("SELECT {text}");
        self.point_in_time(table, &text, &query).await
    }

    /// The one value of a query, as a point in time. `text` is how the statement says it.
    async fn point_in_time(self: &Arc<Self>, table: &str, text: &str, query: &str) -> Result<i64> {
        let wrong =
            |why: &str| Error::invalid(format!("table {table}: the timestamp {text} {why}"));
        let query = sql::parse(query)?;
        let sql::Statement::Query(query) = query else {
            return Err(wrong("is not an expression"));
        };
        let plan = Box::pin(self.plan_query(*query)).await?;
        let state = self.state();
        let batches = datafusion::dataframe::DataFrame::new(state, plan)
            .collect()
            .await?;
        let value = batches
            .first()
            .filter(|batch| batch.num_rows() == 1 && batch.num_columns() == 1)
            .ok_or_else(|| wrong("is not one value"))?;
        let value = local(value.column(0), wrong)?;
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let value = match (value.data_type(), self.zone()?) {
            // A number is no point in time, though Arrow would make one of it.
            (DataType::Null | DataType::Timestamp(_, Some(_)), _) => Ok(Arc::clone(&value)),
            (other, _) if !zone::zoneless(other) => return Err(wrong("is not a point in time")),
            (_, None) => Ok(Arc::clone(&value)),
            (_, Some(zone)) => zone.instants(&value, TimeUnit::Microsecond),
        };
        let value = value.map_err(|error| {
            let told = wrong(&format!("is not a point in time: {}", error.message()));
            match error.hint() {
                Some(hint) => told.with_hint(hint),
                None => told,
            }
        })?;
        let micros = match value.data_type() {
            // A cast would cut them towards 1970, which before it is the future.
            DataType::Timestamp(TimeUnit::Nanosecond, _) => asof::micros(&value)?,
            _ => {
                let cast = cast_with_options(&value, &utc, &strict());
                asof::micros(&cast.map_err(|_| wrong("is not a point in time"))?)?
            }
        };
        let micros = micros.iter().next().flatten();
        micros.ok_or_else(|| wrong("is null"))
    }
}

/// The value of a parameter in a type that SQL has too: programs count seconds and milliseconds, and keep texts in
/// dictionaries.
fn local(value: &ArrayRef, wrong: impl Fn(&str) -> Error) -> Result<ArrayRef> {
    let to = match value.data_type() {
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, None) => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        DataType::Date64 => DataType::Date32,
        DataType::Dictionary(_, inner) => inner.as_ref().clone(),
        _ => return Ok(Arc::clone(value)),
    };
    cast_with_options(value, &to, &strict())
        .map_err(|error| wrong("is out of range").with_source(error))
}

/// What does not fit is an error, not NULL.
fn strict() -> CastOptions<'static> {
    CastOptions {
        safe: false,
        ..CastOptions::default()
    }
}

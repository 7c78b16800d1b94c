//! What names mean during one statement: every table is pinned to one version on first use.
//!
//! | file | holds |
//! | --- | --- |
//! | `resolve` | what a name stands for |
//! | `travel` | the versions, and of journals the instants, that clauses and functions choose |
//! | `asof` | joins in which each row chooses the instant |
//! | `missing` | what is said of names that stand for nothing |
//! | `names` | the same names, as DataFusion's catalogs ask for them |
//! | `information` | `information_schema` |
//! | `literals` | literals the planner would read otherwise |

mod asof;
mod information;
mod literals;
mod missing;
mod names;
mod resolve;
mod travel;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, VisitMut};
use parking_lot::Mutex;

use self::literals::Floats;
use self::names::Names;
use crate::catalog::{self, Pinned};
use crate::engine::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::expr;
use crate::journal::definition;
use crate::journal::shape::Shape;
use crate::progress::Observer;
use crate::session::dependents::Object;
use crate::session::prepared::parameters::Parameters;
use crate::session::zone::{self, Zone};
use crate::session::{functions, stack};
use crate::sql;
use crate::table::handle::Table;
use crate::table::snapshot::Snapshot;
use crate::table::versioned::VersionedTable;
use crate::table::{erased, mapping, protocol};
use crate::write::target::{JournalMode, JournalTarget, WriteTarget};

/// Snapshots by schema and name of their table.
type Pins = HashMap<(String, String), Arc<Snapshot>>;

/// One statement's view of the lake.
pub(in crate::session) struct Scope {
    pub engine: Arc<Inner>,
    pub pinned: Pinned,
    /// The session's state as it was when the statement began.
    state: SessionState,
    /// Milliseconds since the epoch at which the statement began; its batch id.
    pub batch_id: i64,
    pub user: Option<String>,
    pub external_files: bool,
    /// Who is told how far long work has come.
    pub observer: Option<Observer>,
    /// Tables the embedding program registered, by name.
    pub registered: HashMap<String, Arc<dyn TableProvider>>,
    resolved: Mutex<HashMap<(String, String), Arc<dyn TableProvider>>>,
    /// The version of each table that the statement has met, views included.
    snapshots: Arc<Mutex<Pins>>,
    /// Views and functions being planned, outermost first: one that leads back to itself is refused.
    pub path: Vec<Object>,
    pub parameters: Parameters,
}

/// The terms under which a scope is made.
pub(in crate::session) struct Terms {
    pub engine: Arc<Inner>,
    pub state: SessionState,
    pub user: Option<String>,
    pub external_files: bool,
    pub observer: Option<Observer>,
    pub registered: HashMap<String, Arc<dyn TableProvider>>,
}

impl Scope {
    pub(in crate::session) async fn begin(terms: Terms) -> Result<Arc<Self>> {
        let pinned = terms.engine.catalog.pin().await?;
        let batch_id = terms.engine.ambient.now_ms();
        Ok(Arc::new(Self {
            engine: terms.engine,
            pinned,
            state: terms.state,
            batch_id,
            user: terms.user,
            external_files: terms.external_files,
            observer: terms.observer,
            registered: terms.registered,
            resolved: Mutex::new(HashMap::new()),
            snapshots: Arc::default(),
            path: Vec::new(),
            parameters: Parameters::None,
        }))
    }

    /// The schema that unqualified names mean.
    pub(in crate::session) fn search_schema(&self) -> &str {
        &self.state.config_options().catalog.default_schema
    }

    /// The zone of the session, unless it is UTC.
    pub(in crate::session) fn zone(&self) -> Result<Option<Zone>> {
        let execution = &self.state.config_options().execution;
        Zone::other_than_utc(execution.time_zone.as_deref())
    }

    /// DataFusion's state in which names mean what they mean in this scope.
    pub(in crate::session) fn state(self: &Arc<Self>) -> SessionState {
        let mut state = self.state.clone();
        state.register_catalog_list(Arc::new(Names(Arc::clone(self))));
        // One instant for the whole statement, from the engine's clock.
        let at = chrono::DateTime::from_timestamp_millis(self.batch_id);
        let options = Arc::new(state.config_options().as_ref().clone());
        let props = state.execution_props_mut();
        props.mark_start_execution(options);
        props.query_execution_start_time = at;
        state
    }

    /// Plans a query. Version clauses are resolved first, each to a table of its own, then calls of functions that
    /// the lake keeps.
    pub(in crate::session) async fn plan_query(
        self: &Arc<Self>,
        query: ast::Query,
    ) -> Result<LogicalPlan> {
        self.plan_with(query, Vec::new()).await
    }

    /// Plans a query that may call functions of the engine's own, which people are not told of.
    pub(in crate::session) async fn plan_with(
        self: &Arc<Self>,
        query: ast::Query,
        own: Vec<ScalarUDF>,
    ) -> Result<LogicalPlan> {
        stack::roomy(self.plan_level(query, own)).await
    }

    async fn plan_level(
        self: &Arc<Self>,
        query: ast::Query,
        mut own: Vec<ScalarUDF>,
    ) -> Result<LogicalPlan> {
        let mut statement = sql::Statement::Query(Box::new(query));
        let by_row = self.pin_versions(&mut statement).await?;
        let sql::Statement::Query(mut query) = statement else {
            return Err(Error::internal("a query turned into another statement"));
        };
        if by_row {
            own.push(asof::marker());
        }
        let _ = query.visit(&mut Floats);
        let macros = functions::prepare(self, &mut query).await?;
        let expands = !macros.is_empty();
        own.extend(macros);
        let statement = DfStatement::Statement(Box::new(ast::Statement::Query(query)));
        let mut state = self.state();
        for function in own {
            state.register_udf(Arc::new(function))?;
        }
        // What a query names must be there and work; what a listing comes across need not.
        for reference in state.resolve_table_references(&statement)? {
            let schema = reference
                .schema()
                .unwrap_or(self.search_schema())
                .to_owned();
            self.resolve(&schema, reference.table()).await?;
        }
        let plan = state.statement_to_plan(statement).await;
        let plan = plan.map_err(|error| self.explain_missing(error.into()))?;
        let plan = match expands {
            true => functions::expand(plan)?,
            false => plan,
        };
        let plan = match by_row {
            true => asof::joined(plan)?,
            false => plan,
        };
        let plan = expr::planned(plan)?;
        match self.zone()? {
            Some(zone) => zone::shown(plan, &zone),
            None => Ok(plan),
        }
    }

    /// Gives a name of the statement's own to a table.
    pub(in crate::session) fn bind(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.resolved
            .lock()
            .insert((self.search_schema().to_owned(), name.to_owned()), table);
    }

    /// Puts another table under a name of the catalog.
    pub(in crate::session) fn stand_in(
        &self,
        schema: &str,
        name: &str,
        table: Arc<dyn TableProvider>,
    ) {
        let key = (schema.to_owned(), name.to_owned());
        self.resolved.lock().insert(key, table);
    }

    /// Schema and name of a relation, folded; refuses other catalogs.
    pub(in crate::session) fn place(&self, name: &ast::ObjectName) -> Result<(String, String)> {
        let mut parts = Vec::with_capacity(3);
        for part in &name.0 {
            let ident = part
                .as_ident()
                .ok_or_else(|| Error::invalid(format!("{name} is not the name of a table")))?;
            parts.push(sql::fold(ident));
        }
        match parts.as_slice() {
            [table] => Ok((self.search_schema().to_owned(), table.clone())),
            [schema, table] => Ok((schema.clone(), table.clone())),
            [catalog, schema, table] if catalog == catalog::NAME => {
                Ok((schema.clone(), table.clone()))
            }
            [catalog, _, _] => Err(Error::new(
                ErrorKind::NotFound,
                format!("catalog {catalog} does not exist"),
            )
            .with_hint(format!("the catalog is {}", catalog::NAME))),
            _ => Err(Error::invalid(format!("{name} is not the name of a table"))
                .with_hint("write table, schema.table or lake.schema.table")),
        }
    }

    /// The version of a table that this statement sees, wherever it names it.
    async fn pin(&self, schema: &str, table: &str, handle: &Table) -> Result<Arc<Snapshot>> {
        let key = (schema.to_owned(), table.to_owned());
        if let Some(pinned) = self.snapshots.lock().get(&key) {
            return Ok(Arc::clone(pinned));
        }
        let snapshot = handle.pin(&format!("{schema}.{table}")).await?;
        Ok(Arc::clone(
            self.snapshots.lock().entry(key).or_insert(snapshot),
        ))
    }

    /// The error of a statement whose files were taken away while it read them, for it to be run again; any other
    /// as it is.
    pub(in crate::session) async fn overtaken(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Corrupt {
            return error;
        }
        let pins: Vec<_> = self.snapshots.lock().clone().into_iter().collect();
        for ((schema, table), pinned) in pins {
            let Ok((entry, full)) = self.table_entry(&schema, &table) else {
                continue;
            };
            let Ok(handle) = self.engine.table(entry) else {
                continue;
            };
            let Ok(newest) = handle.pin(&full).await else {
                continue;
            };
            if erased::of(&newest).is_some_and(|erased| pinned.version < erased.first) {
                let version = pinned.version;
                return Error::new(
                    ErrorKind::Conflict,
                    format!("version {version} of table {full} was erased by CLEANSE TABLE .. ERASE while the statement read it"),
                )
                .with_source(error);
            }
        }
        error
    }

    /// The newest snapshot of a table, for a statement about the table itself.
    pub(in crate::session) async fn open(&self, name: &ast::ObjectName) -> Result<Opened> {
        let (schema, table) = self.place(name)?;
        let (entry, full) = self.table_entry(&schema, &table)?;
        let handle = self.engine.table(entry)?;
        let snapshot = self.pin(&schema, &table, &handle).await?;
        Ok(Opened {
            name: full,
            schema,
            table,
            external: entry.external,
            handle,
            snapshot,
        })
    }

    /// A table as a write finds it: pinned, writable, and with the terms of the write.
    pub(in crate::session) fn writable(
        &self,
        opened: &Opened,
        operation: &'static str,
    ) -> Result<VersionedTable> {
        protocol::check_writable(&opened.name, &opened.snapshot)?;
        self.engine.sweep_once(&opened.handle, &opened.name);
        let target = self.target(
            &opened.name,
            Arc::clone(&opened.handle),
            Some(Arc::clone(&opened.snapshot)),
            operation,
        )?;
        Ok(opened.rows()?.with_target(Arc::new(target)))
    }

    /// The terms of a write. Rows that come to a journal are changes, unless the statement says more.
    pub(in crate::session) fn target(
        &self,
        name: &str,
        table: Arc<Table>,
        base: Option<Arc<Snapshot>>,
        operation: &'static str,
    ) -> Result<WriteTarget> {
        let shape = match &base {
            Some(base) => Shape::of(name, base)?,
            None => None,
        };
        let schema = match (&shape, &base) {
            (Some(shape), _) => Arc::clone(&shape.declared),
            (None, Some(base)) => mapping::logical(&base.schema),
            (None, None) => Arc::new(Schema::empty()),
        };
        let journal = shape.zip(base.as_deref()).map(|(shape, base)| {
            Arc::new(JournalTarget {
                shape,
                mode: JournalMode::Changes,
                moves: false,
                instant: Shape::instant(self.batch_id, Some(base)),
                max_delete_fraction: definition::max_delete_fraction(&base.metadata.configuration),
            })
        });
        Ok(WriteTarget {
            name: name.to_owned(),
            table,
            schema,
            base,
            creates: None,
            change: None,
            condition: None,
            reads_itself: false,
            replays: None,
            vectors: None,
            journal,
            corrected: None,
            operation,
            batch_id: self.batch_id,
            user: self.user.clone(),
            hooks: self.engine.hooks.clone(),
            settings: self.engine.settings.clone(),
            ambient: self.engine.ambient.clone(),
        })
    }
}

/// A table opened for a statement about it.
#[derive(Debug, Clone)]
pub(in crate::session) struct Opened {
    /// `schema.table`
    pub name: String,
    pub schema: String,
    pub table: String,
    pub handle: Arc<Table>,
    pub snapshot: Arc<Snapshot>,
    /// Whether it lives at a place of its own, where others may read it.
    pub external: bool,
}

impl Opened {
    /// Its journal, if it is one.
    pub(in crate::session) fn shape(&self) -> Result<Option<Arc<Shape>>> {
        Shape::of(&self.name, &self.snapshot)
    }

    /// The columns that statements know: of a journal those that were declared.
    pub(in crate::session) fn columns(&self) -> SchemaRef {
        match self.shape() {
            Ok(Some(shape)) => Arc::clone(&shape.declared),
            // A definition that nobody can read is told of where rows are wanted.
            Ok(None) | Err(_) => mapping::logical(&self.snapshot.schema),
        }
    }

    /// Its rows as its plain name means them: of a journal the current ones.
    pub(in crate::session) fn rows(&self) -> Result<VersionedTable> {
        let snapshot = Arc::clone(&self.snapshot);
        self.handle.provider(&self.name, snapshot).current()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("catalog_version", &self.pinned.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! What names mean during one statement: every table is pinned to one version on first use.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::datasource::ViewTable;
use datafusion::error::Result as DfResult;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, VisitMut};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::files;
use crate::catalog::entry::{Relation, TableEntry, ViewEntry};
use crate::catalog::{self, Pinned};
use crate::engine::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Observer;
use crate::sql::{self, At};
use crate::table::handle::Table;
use crate::table::protocol;
use crate::table::snapshot::Snapshot;
use crate::table::versioned::VersionedTable;
use crate::write::target::WriteTarget;

/// One statement's view of the lake.
pub(super) struct Scope {
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
    registered: HashMap<String, Arc<dyn TableProvider>>,
    resolved: Mutex<HashMap<(String, String), Arc<dyn TableProvider>>>,
    /// Views being resolved, outermost first: a view that leads back to itself is refused.
    views: Vec<(String, String)>,
}

/// The terms under which a scope is made.
pub(super) struct Terms {
    pub engine: Arc<Inner>,
    pub state: SessionState,
    pub user: Option<String>,
    pub external_files: bool,
    pub observer: Option<Observer>,
    pub registered: HashMap<String, Arc<dyn TableProvider>>,
}

impl Scope {
    pub(super) async fn begin(terms: Terms) -> Result<Arc<Self>> {
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
            views: Vec::new(),
        }))
    }

    /// The schema that unqualified names mean.
    pub(super) fn search_schema(&self) -> &str {
        &self.state.config_options().catalog.default_schema
    }

    /// DataFusion's state in which names mean what they mean in this scope.
    pub(super) fn state(self: &Arc<Self>) -> SessionState {
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

    /// Plans a query. Version clauses are resolved first, each to a table of its own.
    pub(super) async fn plan_query(self: &Arc<Self>, query: ast::Query) -> Result<LogicalPlan> {
        let mut statement = sql::Statement::Query(Box::new(query));
        self.pin_versions(&mut statement).await?;
        let sql::Statement::Query(mut query) = statement else {
            return Err(Error::internal("a query turned into another statement"));
        };
        let _ = query.visit(&mut Floats);
        let statement = DfStatement::Statement(Box::new(ast::Statement::Query(query)));
        let state = self.state();
        // What a query names must be there and work; what a listing comes across need not.
        for reference in state.resolve_table_references(&statement)? {
            let schema = reference
                .schema()
                .unwrap_or(self.search_schema())
                .to_owned();
            self.resolve(&schema, reference.table()).await?;
        }
        match state.statement_to_plan(statement).await {
            Ok(plan) => Ok(plan),
            Err(error) => Err(self.explain_missing(error.into())),
        }
    }

    /// Resolves the version clauses of a statement, so that the planner finds them as tables.
    async fn pin_versions(self: &Arc<Self>, statement: &mut sql::Statement) -> Result<()> {
        for versioned in sql::take_versions(statement)? {
            let (schema, name) = self.place(&versioned.original)?;
            if schema == catalog::INFORMATION_SCHEMA {
                return Err(Error::invalid(format!("{schema}.{name} has no versions")));
            }
            let at = |error: Error| match versioned.position {
                Some(position) if error.position().is_none() => error.with_position(position),
                _ => error,
            };
            let (entry, full) = self.table_entry(&schema, &name).map_err(at)?;
            let table = self.engine.table(entry)?;
            let snapshot = match versioned.at {
                At::Version(version) => table.at_version(&full, version).await.map_err(at)?,
                At::Timestamp(expr) => {
                    let at_ms = self.instant(&full, *expr).await.map_err(at)?;
                    table.at_time(&full, at_ms).await.map_err(at)?
                }
            };
            let provider = Arc::new(table.provider(&full, snapshot));
            self.bind(&versioned.internal, provider);
        }
        Ok(())
    }

    /// Gives a name of the statement's own to a table.
    pub(super) fn bind(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.resolved
            .lock()
            .insert((self.search_schema().to_owned(), name.to_owned()), table);
    }

    /// The value of a timestamp clause, which may be any constant expression.
    pub(super) async fn instant(self: &Arc<Self>, table: &str, expr: ast::Expr) -> Result<i64> {
        use datafusion::arrow::datatypes::{DataType, TimeUnit};
        let text = expr.to_string();
        let wrong =
            |why: &str| Error::invalid(format!("table {table}: the timestamp {text} {why}"));
        let query = sql::parse(&format!("SELECT {text}"))?;
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
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let cast = datafusion::arrow::compute::cast_with_options(
            value.column(0),
            &utc,
            &datafusion::arrow::compute::CastOptions {
                safe: false,
                ..Default::default()
            },
        )
        .map_err(|_| wrong("is not a point in time"))?;
        let micros = datafusion::common::ScalarValue::try_from_array(&cast, 0)?;
        match micros {
            datafusion::common::ScalarValue::TimestampMicrosecond(Some(micros), _) => {
                Ok(micros.div_euclid(1000))
            }
            _ => Err(wrong("is null")),
        }
    }

    /// Schema and name of a relation, folded; refuses other catalogs.
    pub(super) fn place(&self, name: &ast::ObjectName) -> Result<(String, String)> {
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

    /// The catalog's entry of a table, and its full name; says what the name is when it is no table.
    pub(super) fn table_entry(&self, schema: &str, name: &str) -> Result<(&TableEntry, String)> {
        let full = format!("{schema}.{name}");
        match self.pinned.catalog.relation(schema, name) {
            Some(Relation::Table(entry)) => Ok((entry, full)),
            Some(Relation::View(_)) => {
                Err(Error::invalid(format!("{full} is a view, not a table")))
            }
            Some(Relation::Files(_)) => Err(Error::invalid(format!(
                "{full} stands for files read in place, not for a versioned table"
            ))),
            None => Err(self.no_such_table(schema, name)),
        }
    }

    /// The newest snapshot of a table, for a statement about the table itself.
    pub(super) async fn open(&self, name: &ast::ObjectName) -> Result<Opened> {
        let (schema, table) = self.place(name)?;
        let (entry, full) = self.table_entry(&schema, &table)?;
        let handle = self.engine.table(entry)?;
        let snapshot = handle.pin(&full).await?;
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
    pub(super) fn writable(
        &self,
        opened: &Opened,
        operation: &'static str,
    ) -> Result<VersionedTable> {
        protocol::check_writable(&opened.name, &opened.snapshot)?;
        self.engine.sweep_once(&opened.handle);
        let target = self.target(
            &opened.name,
            Arc::clone(&opened.handle),
            Some(Arc::clone(&opened.snapshot)),
            operation,
        );
        let provider = opened
            .handle
            .provider(&opened.name, Arc::clone(&opened.snapshot));
        Ok(provider.with_target(Arc::new(target)))
    }

    /// The terms of a write.
    pub(super) fn target(
        &self,
        name: &str,
        table: Arc<Table>,
        base: Option<Arc<Snapshot>>,
        operation: &'static str,
    ) -> WriteTarget {
        WriteTarget {
            name: name.to_owned(),
            table,
            schema: base.as_ref().map_or_else(
                || Arc::new(Schema::empty()),
                |base| Arc::clone(&base.schema),
            ),
            base,
            creates: None,
            change: None,
            condition: None,
            reads_itself: false,
            vectors: None,
            operation,
            batch_id: self.batch_id,
            user: self.user.clone(),
            hooks: self.engine.hooks.clone(),
            settings: self.engine.settings.clone(),
            ambient: self.engine.ambient.clone(),
        }
    }

    /// "Not found", with the nearest name there is.
    pub(super) fn no_such_table(&self, schema: &str, name: &str) -> Error {
        let catalog = &self.pinned.catalog;
        let Some(found) = catalog.schemas.get(schema) else {
            return self.no_such_schema(schema);
        };
        let missing = Error::new(
            ErrorKind::NotFound,
            format!("table {schema}.{name} does not exist"),
        );
        let here = found
            .relations
            .keys()
            .map(String::as_str)
            .chain(self.registered.keys().map(String::as_str));
        if let Some(near) = sql::nearest(name, here) {
            return missing.with_hint(format!("did you mean {}?", sql::quoted(&near)));
        }
        let elsewhere = catalog
            .schemas
            .iter()
            .find(|(_, other)| other.relations.contains_key(name));
        match elsewhere {
            Some((other, _)) => missing.with_hint(format!("did you mean {other}.{name}?")),
            None => missing.with_hint("SHOW TABLES lists what is there"),
        }
    }

    pub(super) fn no_such_schema(&self, schema: &str) -> Error {
        let missing = Error::new(
            ErrorKind::NotFound,
            format!("schema {schema} does not exist"),
        );
        match sql::nearest(
            schema,
            self.pinned.catalog.schemas.keys().map(String::as_str),
        ) {
            Some(near) => missing.with_hint(format!("did you mean {near}?")),
            None => missing.with_hint(format!("CREATE SCHEMA {schema} makes it")),
        }
    }

    /// DataFusion says only that a table is not there; the catalog knows more.
    fn explain_missing(&self, error: Error) -> Error {
        let function = error.message().strip_prefix("table function '");
        if let Some(name) = function.and_then(|rest| rest.strip_suffix("' not found")) {
            let what = format!("table function {name} does not exist");
            let missing = Error::new(ErrorKind::NotFound, what);
            let known = self.state.table_functions().keys().map(String::as_str);
            return match sql::nearest(name, known) {
                Some(near) => missing.with_hint(format!("did you mean {near}?")),
                None => missing,
            };
        }
        let Some(name) = error
            .message()
            .strip_prefix("table '")
            .and_then(|rest| rest.strip_suffix("' not found"))
        else {
            return error;
        };
        let parts: Vec<&str> = name.splitn(3, '.').collect();
        let told = match parts.as_slice() {
            [catalog, schema, table] if *catalog == catalog::NAME => {
                self.no_such_table(schema, table)
            }
            _ => return error,
        };
        match error.position() {
            Some(position) => told.with_position(position),
            None => told,
        }
    }

    /// What `schema.name` stands for in this statement.
    fn resolve<'a>(
        self: &'a Arc<Self>,
        schema: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn TableProvider>>>> {
        Box::pin(async move {
            let key = (schema.to_owned(), name.to_owned());
            if let Some(known) = self.resolved.lock().get(&key) {
                return Ok(Some(Arc::clone(known)));
            }
            let found = match self.pinned.catalog.relation(schema, name) {
                Some(Relation::Table(entry)) => Some(self.table(schema, name, entry).await?),
                Some(Relation::View(entry)) => Some(self.view(schema, name, entry).await?),
                Some(Relation::Files(entry)) => {
                    Some(files::of_entry(&self.state(), &format!("{schema}.{name}"), entry).await?)
                }
                None if schema == self.search_schema() => match self.registered.get(name) {
                    Some(table) => Some(Arc::clone(table)),
                    None if files::looks_like_files(name) => {
                        self.may_use_files(name)?;
                        Some(files::of_path(&self.state(), name).await?)
                    }
                    None => None,
                },
                None => None,
            };
            if let Some(table) = &found {
                self.resolved.lock().insert(key, Arc::clone(table));
            }
            Ok(found)
        })
    }

    /// The table or view of that name; an error that names the nearest one when there is none.
    pub(super) async fn relation(
        self: &Arc<Self>,
        schema: &str,
        name: &str,
    ) -> Result<Arc<dyn TableProvider>> {
        match self.resolve(schema, name).await? {
            Some(table) => Ok(table),
            None => Err(self.no_such_table(schema, name)),
        }
    }

    /// Refuses files outside the lake to sessions that may not use them.
    pub(super) fn may_use_files(&self, what: &str) -> Result<()> {
        if self.external_files {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Denied,
            format!("{what}: this session may not use files outside the lake"),
        ))
    }

    async fn table(
        &self,
        schema: &str,
        name: &str,
        entry: &TableEntry,
    ) -> Result<Arc<dyn TableProvider>> {
        let full = format!("{schema}.{name}");
        let handle = self.engine.table(entry)?;
        let snapshot = handle.pin(&full).await?;
        // A DataFrame writes through the table it reads, so every table knows its way in. Whether the
        // protocol allows the write is asked when one is planned.
        let target = self.target(
            &full,
            Arc::clone(&handle),
            Some(Arc::clone(&snapshot)),
            "WRITE",
        );
        Ok(Arc::new(
            handle
                .provider(&full, snapshot)
                .with_target(Arc::new(target)),
        ))
    }

    /// The scope of a view's query: other names to search, and the view itself out of bounds.
    pub(super) fn within(&self, view: (String, String), search_schema: &str) -> Arc<Self> {
        let mut state = self.state.clone();
        search_schema.clone_into(&mut state.config_mut().options_mut().catalog.default_schema);
        Arc::new(Self {
            engine: Arc::clone(&self.engine),
            pinned: self.pinned.clone(),
            state,
            batch_id: self.batch_id,
            user: self.user.clone(),
            external_files: self.external_files,
            observer: self.observer.clone(),
            registered: HashMap::new(),
            // The same table has the same version inside and outside the view.
            resolved: Mutex::new(self.resolved.lock().clone()),
            views: self.views.iter().cloned().chain([view]).collect(),
        })
    }

    async fn view(
        self: &Arc<Self>,
        schema: &str,
        name: &str,
        entry: &ViewEntry,
    ) -> Result<Arc<dyn TableProvider>> {
        let here = (schema.to_owned(), name.to_owned());
        let full = format!("{schema}.{name}");
        if self.views.contains(&here) {
            return Err(Error::invalid(format!("view {full} leads back to itself"))
                .with_hint("CREATE OR REPLACE VIEW with another query"));
        }
        let inside = self.within(here, &entry.search_schema);
        let within = |error: Error| match error.detail() {
            None => error.with_detail(format!("in view {full}")),
            Some(_) => error,
        };
        let sql::Statement::Query(query) = sql::parse(&entry.query).map_err(within)? else {
            return Err(Error::corrupt(format!("view {full} does not hold a query")));
        };
        let plan = inside.plan_query(*query).await.map_err(within)?;
        let plan = super::rename::columns(plan, &entry.columns).map_err(within)?;
        Ok(Arc::new(ViewTable::new(plan, Some(entry.query.clone()))))
    }
}

/// Makes numbers with an exponent the floats that SQL says they are; the planner reads every literal as a decimal.
struct Floats;

impl ast::VisitorMut for Floats {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> std::ops::ControlFlow<()> {
        if let ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::Number(digits, _),
            span,
        }) = expr
            && digits.contains(['e', 'E'])
        {
            let text = ast::Value::SingleQuotedString(digits.clone());
            *expr = ast::Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(ast::Expr::Value(ast::ValueWithSpan {
                    value: text,
                    span: *span,
                })),
                data_type: ast::DataType::Double(ast::ExactNumberInfo::None),
                array: false,
                format: None,
            };
        }
        std::ops::ControlFlow::Continue(())
    }
}

/// A table opened for a statement about it.
#[derive(Debug)]
pub(super) struct Opened {
    /// `schema.table`
    pub name: String,
    pub schema: String,
    pub table: String,
    pub handle: Arc<Table>,
    pub snapshot: Arc<Snapshot>,
    /// Whether it lives at a place of its own, where others may read it.
    pub external: bool,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("catalog_version", &self.pinned.version)
            .finish_non_exhaustive()
    }
}

/// The scope as DataFusion's catalogs see it.
#[derive(Debug)]
struct Names(Arc<Scope>);

impl CatalogProviderList for Names {
    fn register_catalog(
        &self,
        _name: String,
        _catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![catalog::NAME.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == catalog::NAME).then(|| Arc::new(LakeNames(Arc::clone(&self.0))) as _)
    }
}

#[derive(Debug)]
struct LakeNames(Arc<Scope>);

impl CatalogProvider for LakeNames {
    fn schema_names(&self) -> Vec<String> {
        self.0.pinned.catalog.schemas.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.0.pinned.catalog.schemas.contains_key(name).then(|| {
            Arc::new(SchemaNames {
                scope: Arc::clone(&self.0),
                schema: name.to_owned(),
            }) as _
        })
    }
}

/// A view or table that cannot be opened, as listings show it: a name without columns.
#[derive(Debug)]
struct Broken {
    definition: Option<String>,
}

#[async_trait]
impl TableProvider for Broken {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        match self.definition {
            Some(_) => TableType::View,
            None => TableType::Base,
        }
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.definition.as_deref()
    }

    async fn scan(
        &self,
        _state: &dyn datafusion::catalog::Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[datafusion::logical_expr::Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Err(Error::internal("a table that cannot be opened was scanned").into())
    }
}

#[derive(Debug)]
struct SchemaNames {
    scope: Arc<Scope>,
    schema: String,
}

#[async_trait]
impl SchemaProvider for SchemaNames {
    fn table_names(&self) -> Vec<String> {
        let schemas = &self.scope.pinned.catalog.schemas;
        let mut names: Vec<String> = schemas
            .get(&self.schema)
            .map(|schema| schema.relations.keys().cloned().collect())
            .unwrap_or_default();
        if self.schema == self.scope.search_schema() {
            names.extend(self.scope.registered.keys().cloned());
        }
        names
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        match self.scope.resolve(&self.schema, name).await {
            Ok(found) => Ok(found),
            // A query that names it was refused before it came here, so this is a listing.
            Err(error) => {
                tracing::debug!(%error, schema = self.schema, name, "listed without its columns");
                let relation = self.scope.pinned.catalog.relation(&self.schema, name);
                let definition = match relation {
                    Some(Relation::View(view)) => Some(view.query.clone()),
                    _ => None,
                };
                Ok(Some(Arc::new(Broken { definition })))
            }
        }
    }

    /// From the catalog alone, so that listing tables opens none.
    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(
            match self.scope.pinned.catalog.relation(&self.schema, name) {
                Some(Relation::View(_)) => Some(TableType::View),
                Some(_) => Some(TableType::Base),
                None => self
                    .scope
                    .registered
                    .get(name)
                    .map(|table| table.table_type()),
            },
        )
    }

    fn table_exist(&self, name: &str) -> bool {
        self.scope
            .pinned
            .catalog
            .relation(&self.schema, name)
            .is_some()
            || self.scope.registered.contains_key(name)
    }
}

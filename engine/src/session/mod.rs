//! A session: SQL text in, [`Answer`] out. The one door for the shell, the server and embedders.

mod alter;
mod change;
mod cleanse;
mod columns;
mod constraint;
mod cooperate;
mod copy;
mod create;
mod culprit;
mod debezium;
mod dependents;
mod evolve;
mod files;
mod functions;
mod ingest;
mod insert;
mod journal;
mod listing;
mod maintain;
mod nested;
mod parquet;
mod policy;
mod prepared;
mod properties;
mod quality;
mod references;
mod rename;
mod rules;
mod scope;
mod show;
mod site;
mod stack;
mod suggest;
mod syntax;
mod types;
mod variables;
mod whole;
mod zone;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::dataframe::DataFrame;
use datafusion::execution::{
    FunctionRegistry, SendableRecordBatchStream, SessionState, SessionStateBuilder,
};
use datafusion::logical_expr::{
    AggregateUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, WindowUDF,
};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use parking_lot::{Mutex, RwLock};

use crate::answer::Answer;
use crate::asof::AsOfJoins;
use crate::catalog;
use crate::catalog::entry::Relation;
use crate::engine::{Inner, session_config};
use crate::error::{Error, ErrorKind, Result};
use crate::expr;
use crate::progress::{Observer, Progress};
use crate::sql::{self, Statement};
use crate::write::report::WriteReport;
use crate::write::sink::WriteExec;

pub use ingest::IngestMode;
pub use prepared::Prepared;
pub use rules::{Rules, Validation};

use change::ChangeRows;
use scope::{Scope, Terms};

/// How often a statement is run anew because another writer changed what it depends on.
const RERUNS: u32 = 20;

/// What a session may do.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Whether statements may read and write files outside the lake (local paths and other URLs).
    pub external_files: bool,
    /// Name kept in the commits of this session, if known.
    pub user: Option<String>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            external_files: true,
            user: None,
        }
    }
}

/// A session on an engine. Cheap to clone; clones share variables and registered tables.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Shared>,
}

struct Shared {
    engine: Arc<Inner>,
    options: SessionOptions,
    state: RwLock<SessionState>,
    registered: RwLock<HashMap<String, Arc<dyn TableProvider>>>,
    prepared: Mutex<HashMap<String, Prepared>>,
    observer: RwLock<Option<Observer>>,
}

/// Whether a statement reads, writes rows, or does something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Returns rows and changes nothing.
    Query,
    /// Writes rows; its answer is a report with a row count.
    Write,
    /// DDL, SET and the like.
    Other,
}

/// What a table name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// A table of rows.
    Table,
    /// A stored query.
    View,
}

/// One entry of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Schema that holds it.
    pub schema: String,
    /// Name in the schema.
    pub name: String,
    /// Table or view.
    pub kind: TableKind,
}

impl Session {
    pub(crate) fn new(engine: Arc<Inner>, options: SessionOptions) -> Self {
        let mut state = SessionStateBuilder::new()
            .with_config(session_config(&engine.settings))
            .with_runtime_env(Arc::clone(&engine.runtime))
            // Before DataFusion's own, which are added next.
            .with_expr_planners(vec![Arc::new(nested::MapSubscript)])
            .with_default_features()
            .with_analyzer_rules(expr::rules())
            .with_analyzer_rule(Arc::new(nested::NestedTypes))
            .with_analyzer_rule(Arc::new(zone::ZoneCasts))
            .with_query_planner(Arc::new(change::ChangePlanner))
            .with_physical_optimizer_rules(AsOfJoins::with_rules())
            .with_physical_optimizer_rule(Arc::new(cooperate::CooperativeJoins))
            .with_physical_optimizer_rule(Arc::new(whole::WholeFiles))
            .with_physical_optimizer_rule(Arc::new(culprit::NameCulprits))
            .build();
        if let Err(error) = selvedge_udfs::register(&mut state, &engine.geo) {
            tracing::warn!(%error, "functions were not registered");
        }
        Self {
            inner: Arc::new(Shared {
                engine,
                options,
                state: RwLock::new(state),
                registered: RwLock::new(HashMap::new()),
                prepared: Mutex::new(HashMap::new()),
                observer: RwLock::new(None),
            }),
        }
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// Nothing was changed when it fails, unless the error says that the outcome is unknown.
    pub async fn execute(&self, sql: &str) -> Result<Answer> {
        self.run(sql::parse(sql)?).await
    }

    /// Parses and plans one statement. Nothing is written.
    pub async fn prepare(&self, sql: &str) -> Result<Prepared> {
        Prepared::new(self.clone(), sql::parse(sql)?).await
    }

    /// A query as a DataFusion `DataFrame`.
    pub async fn query(&self, sql: &str) -> Result<DataFrame> {
        match sql::parse(sql)? {
            Statement::Query(query) => {
                let scope = self.begin().await?;
                let plan = scope.plan_query(*query).await?;
                Ok(DataFrame::new(scope.state(), plan))
            }
            _ => Err(Error::invalid("only a query can become a data frame")
                .with_hint("use execute for this statement")),
        }
    }

    /// Makes a table of the embedding program visible to this session, under `name` in the current schema.
    /// Tables of the lake come first.
    pub fn register_table(&self, name: impl Into<String>, table: Arc<dyn TableProvider>) {
        self.inner.registered.write().insert(name.into(), table);
    }

    /// Adds a scalar function to this session.
    pub fn register_function(&self, function: ScalarUDF) -> Result<()> {
        self.inner.state.write().register_udf(Arc::new(function))?;
        Ok(())
    }

    /// Adds an aggregate function to this session.
    pub fn register_aggregate(&self, function: AggregateUDF) -> Result<()> {
        self.inner.state.write().register_udaf(Arc::new(function))?;
        Ok(())
    }

    /// Adds a window function to this session.
    pub fn register_window(&self, function: WindowUDF) -> Result<()> {
        self.inner.state.write().register_udwf(Arc::new(function))?;
        Ok(())
    }

    /// Tells `observer` how far statements of this session have come that take long: OPTIMIZE, VACUUM, RESTORE
    /// and ANALYZE. It is called on the engine's threads and should return at once.
    pub fn on_progress(&self, observer: impl Fn(&Progress) + Send + Sync + 'static) {
        *self.inner.observer.write() = Some(Arc::new(observer));
    }

    /// The catalog's name (`lake`).
    pub fn catalog(&self) -> &str {
        catalog::NAME
    }

    /// Schemas of the lake, `information_schema` included, sorted.
    pub async fn schemas(&self) -> Result<Vec<String>> {
        let pinned = self.inner.engine.catalog.pin().await?;
        let mut schemas: Vec<String> = pinned.catalog.schemas.keys().cloned().collect();
        schemas.push(catalog::INFORMATION_SCHEMA.to_owned());
        schemas.sort();
        Ok(schemas)
    }

    /// Tables and views of all schemas, sorted; opens no table.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        let pinned = self.inner.engine.catalog.pin().await?;
        let all = pinned.catalog.schemas.iter().flat_map(|(schema, content)| {
            content
                .relations
                .iter()
                .map(move |(name, relation)| TableInfo {
                    schema: schema.clone(),
                    name: name.clone(),
                    kind: match relation {
                        Relation::View(_) => TableKind::View,
                        Relation::Table(_) | Relation::Files(_) => TableKind::Table,
                    },
                })
        });
        Ok(all.collect())
    }

    /// Columns of one table or view.
    pub async fn table_schema(&self, schema: &str, table: &str) -> Result<SchemaRef> {
        let scope = self.begin().await?;
        Ok(scope.relation(schema, table).await?.schema())
    }

    /// Makes unqualified names mean tables of this schema.
    pub async fn use_schema(&self, schema: &str) -> Result<()> {
        let scope = self.begin().await?;
        if !scope.pinned.catalog.schemas.contains_key(schema) {
            return Err(scope.no_such_schema(schema));
        }
        let mut state = self.inner.state.write();
        schema.clone_into(&mut state.config_mut().options_mut().catalog.default_schema);
        Ok(())
    }

    /// The schema unqualified names mean.
    pub fn current_schema(&self) -> String {
        self.inner
            .state
            .read()
            .config_options()
            .catalog
            .default_schema
            .clone()
    }

    async fn begin(&self) -> Result<Arc<Scope>> {
        let terms = Terms {
            engine: Arc::clone(&self.inner.engine),
            state: self.inner.state.read().clone(),
            user: self.inner.options.user.clone(),
            external_files: self.inner.options.external_files,
            registered: self.inner.registered.read().clone(),
            observer: self.inner.observer.read().clone(),
        };
        Scope::begin(terms).await
    }

    /// Runs a statement, again when a table was altered between its planning and its commit.
    async fn run(&self, statement: Statement) -> Result<Answer> {
        self.rerun(|| self.run_once(statement.clone())).await
    }

    /// Runs `work` until no other writer changed what it depends on while it ran, within reason.
    async fn rerun<'a, T>(&self, mut work: impl FnMut() -> BoxFuture<'a, Result<T>>) -> Result<T> {
        let engine = &self.inner.engine;
        for run in 0..RERUNS {
            match work().await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    tracing::debug!(%error, run, "a statement is run again");
                    engine.ambient.pause(run, engine.settings.max_backoff).await;
                }
                done => return done,
            }
        }
        work().await
    }

    /// Boxed, because EXECUTE runs a statement within one.
    fn run_once(&self, statement: Statement) -> BoxFuture<'_, Result<Answer>> {
        Box::pin(self.run_now(statement))
    }

    async fn run_now(&self, statement: Statement) -> Result<Answer> {
        match statement {
            Statement::Set { name, value } => {
                return variables::set(&self.inner, &name, &value).await;
            }
            Statement::Reset { name } => return variables::reset(&self.inner, &name),
            Statement::Use { schema } => return self.change_schema(&schema).await,
            Statement::Prepare(prepare) => return prepared::prepare(self, prepare).await,
            Statement::Execute { name, arguments } => {
                return prepared::execute(self, &name, arguments).await;
            }
            Statement::Deallocate { name } => {
                return prepared::deallocate(&self.inner.prepared, name.as_ref());
            }
            Statement::Transaction(kind) => return Err(no_transactions(kind)),
            _ => {}
        }
        let scope = self.begin().await?;
        match run_in(&scope, statement).await {
            Err(error) => Err(scope.overtaken(error).await),
            answer => answer,
        }
    }

    async fn change_schema(
        &self,
        name: &datafusion::sql::sqlparser::ast::ObjectName,
    ) -> Result<Answer> {
        let parts: Vec<String> = name
            .0
            .iter()
            .filter_map(|part| part.as_ident().map(sql::fold))
            .collect();
        match parts.as_slice() {
            [schema] => self.use_schema(schema).await?,
            [catalog, schema] if catalog == catalog::NAME => self.use_schema(schema).await?,
            _ => {
                return Err(Error::invalid(format!(
                    "{name} is not the name of a schema"
                )));
            }
        }
        Ok(Answer::Done("USE".to_owned()))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("schema", &self.current_schema())
            .finish_non_exhaustive()
    }
}

/// Whether a statement reads, writes rows, or does something else.
fn kind(statement: &Statement) -> StatementKind {
    match statement {
        // It runs what it explains, so it must not run whenever a client asks for its rows again.
        Statement::Explain(explain)
            if explain.analyze && kind(&explain.statement) != StatementKind::Query =>
        {
            StatementKind::Other
        }
        Statement::Query(_)
        | Statement::Explain(_)
        | Statement::Show(_)
        | Statement::Describe(_)
        | Statement::DescribeHistory(_)
        | Statement::DescribeQuery(_)
        | Statement::CheckTable(_)
        | Statement::CheckJournal { .. }
        | Statement::ExplainQuality(_)
        | Statement::VerifyErasure { .. }
        | Statement::SuggestConstraints { .. } => StatementKind::Query,
        Statement::Cleanse(cleanse) if cleanse.dry_run => StatementKind::Query,
        Statement::Vacuum(vacuum) if vacuum.dry_run => StatementKind::Query,
        Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::Merge(_)
        | Statement::Truncate { .. }
        | Statement::CorrectJournal(_)
        | Statement::Replay(_)
        | Statement::CopyInto(_) => StatementKind::Write,
        _ => StatementKind::Other,
    }
}

async fn run_in(scope: &Arc<Scope>, statement: Statement) -> Result<Answer> {
    match statement {
        Statement::Query(_)
        | Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::Merge(_)
        | Statement::Truncate { .. }
        | Statement::CorrectJournal(_)
        | Statement::Replay(_)
        | Statement::Explain(_)
        | Statement::CopyInto(_)
        | Statement::CopyTo(_) => {
            let plan = plan(scope, statement).await?;
            run_plan(scope, plan).await
        }
        Statement::CreateTable(create) => create::table(scope, create).await,
        Statement::CreateExternalTable(create) => create::external(scope, create).await,
        Statement::CreateSchema {
            name,
            if_not_exists,
        } => create::schema(scope, &name, if_not_exists).await,
        Statement::CreateView(create) => create::view(scope, create).await,
        Statement::CreateFunction(create) => functions::create(scope, create).await,
        Statement::Drop(drop) => alter::drop(scope, drop).await,
        Statement::AlterTable { name, action } => alter::table(scope, &name, action).await,
        Statement::Optimize(optimize) => maintain::optimize(scope, optimize).boxed().await,
        Statement::Vacuum(vacuum) => maintain::vacuum(scope, vacuum).boxed().await,
        Statement::Restore(restore) => maintain::restore(scope, restore).boxed().await,
        Statement::Analyze { table } => maintain::analyze(scope, &table).boxed().await,
        Statement::CreatePolicy(create) => policy::create(scope, create).boxed().await,
        Statement::DropPolicy {
            name,
            table,
            if_exists,
        } => policy::drop(scope, &name, &table, if_exists).boxed().await,
        Statement::SwitchPolicy {
            name,
            table,
            enabled,
        } => policy::switch(scope, &name, &table, enabled).boxed().await,
        Statement::Cleanse(cleanse) => cleanse::cleanse(scope, cleanse).boxed().await,
        Statement::VerifyErasure { table, policy } => {
            cleanse::verify(scope, &table, policy.as_ref())
                .boxed()
                .await
        }
        Statement::CheckTable(check) => quality::table(scope, check).boxed().await,
        Statement::CheckJournal { table, at } => journal::check(scope, &table, at).boxed().await,
        Statement::ExplainQuality(write) => quality::explain(scope, *write).boxed().await,
        Statement::SuggestConstraints { table } => {
            suggest::constraints(scope, &table).boxed().await
        }
        Statement::Show(show) => show::show(scope, show).await,
        Statement::Describe(name) => show::describe(scope, &name).await,
        Statement::DescribeHistory(name) => show::history(scope, &name).await,
        Statement::DescribeQuery(query) => {
            let plan = scope.plan_query(*query).await?;
            show::columns(&expr::columns(&scope.state(), &plan))
        }
        Statement::Set { .. }
        | Statement::Reset { .. }
        | Statement::Use { .. }
        | Statement::Prepare(_)
        | Statement::Execute { .. }
        | Statement::Deallocate { .. }
        | Statement::Transaction(_) => {
            Err(Error::internal("a session statement reached the planner"))
        }
    }
}

/// The plan of a statement that has one. Planning has no effects.
async fn plan(scope: &Arc<Scope>, statement: Statement) -> Result<LogicalPlan> {
    match statement {
        Statement::Query(query) => scope.plan_query(*query).await,
        Statement::Insert(insert) => insert::plan(scope, insert).await,
        Statement::Update(update) => change::update(scope, update).await,
        Statement::Delete(delete) => change::delete(scope, delete).await,
        Statement::Merge(merge) => change::merge(scope, merge).await,
        Statement::Truncate { table } => change::truncate(scope, &table).await,
        Statement::CopyInto(copy) => copy::into(scope, copy).await,
        Statement::Replay(replay) => quality::replay(scope, replay).await,
        Statement::CorrectJournal(correction) => change::correct(scope, correction).boxed().await,
        Statement::CopyTo(copy) => copy::to(scope, copy).await,
        Statement::CreateTable(create) => create::plan(scope, create).await,
        Statement::Explain(explain) => {
            if explain.analyze && matches!(*explain.statement, Statement::CreateTable(_)) {
                return Err(Error::unsupported(
                    "EXPLAIN ANALYZE runs its statement, which CREATE TABLE AS does not allow",
                )
                .with_hint("EXPLAIN it, or EXPLAIN ANALYZE its query"));
            }
            let inner = Box::pin(plan(scope, *explain.statement)).await?;
            let options = scope.state().config_options().explain.format.clone();
            let option = datafusion::logical_expr::ExplainOption::default()
                .with_verbose(explain.verbose)
                .with_analyze(explain.analyze)
                .with_format(explain.format.unwrap_or(options));
            Ok(LogicalPlanBuilder::from(inner)
                .explain_option_format(option)?
                .build()?)
        }
        _ => {
            Err(Error::invalid("this statement has no plan")
                .with_hint("EXPLAIN a query or a write"))
        }
    }
}

/// Runs a plan: rows as a stream, a write to its end.
async fn run_plan(scope: &Arc<Scope>, plan: LogicalPlan) -> Result<Answer> {
    let writes = matches!(plan, LogicalPlan::Dml(_)) || ChangeRows::of(&plan).is_some();
    let (physical, stream) = start(scope, &plan).await?;
    if writes {
        return finish_write(&physical, stream).await.map(Answer::Written);
    }
    Ok(Answer::Rows(stream))
}

async fn start(
    scope: &Arc<Scope>,
    plan: &LogicalPlan,
) -> Result<(Arc<dyn ExecutionPlan>, SendableRecordBatchStream)> {
    let state = scope.state();
    let physical = state.create_physical_plan(plan).await?;
    let stream = execute_stream(Arc::clone(&physical), state.task_ctx())?;
    Ok((physical, stream))
}

async fn finish_write(
    physical: &Arc<dyn ExecutionPlan>,
    stream: SendableRecordBatchStream,
) -> Result<WriteReport> {
    let _count: Vec<_> = stream.try_collect().await?;
    WriteExec::report_of(physical).ok_or_else(|| Error::internal("a write ended without a report"))
}

/// Runs a write to its end.
async fn run_write(scope: &Arc<Scope>, plan: &LogicalPlan) -> Result<WriteReport> {
    let (physical, stream) = start(scope, plan).await?;
    finish_write(&physical, stream).await
}

fn no_transactions(kind: sql::Transaction) -> Error {
    let word = match kind {
        sql::Transaction::Begin => "BEGIN",
        sql::Transaction::Commit => "COMMIT",
        sql::Transaction::Rollback => "ROLLBACK",
    };
    Error::unsupported(format!(
        "{word}: there are no transactions of several statements"
    ))
    .with_hint("every statement commits by itself, whole or not at all")
}

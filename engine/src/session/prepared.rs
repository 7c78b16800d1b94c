//! Prepared statements: parsed once, run many times with other parameters.
//!
//! An INSERT of VALUES reads its parameters as a table of its own, so that one run with many rows of parameters is
//! one write and one commit. Every other statement gets its parameters as values of its plan, but for the instants of
//! valid time, which it must know to be planned.

mod answers;
pub(super) mod parameters;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, SetExpr};
use parking_lot::Mutex;

use self::parameters::{PARAMETERS, Parameters, table_of};
use super::change::ChangeRows;
use super::scope::Scope;
use super::types::sql_name;
use super::{Session, StatementKind, insert, kind, plan, run_plan, run_write};
use crate::answer::Answer;
use crate::error::{Error, ErrorKind, Result};
use crate::expr;
use crate::sql::{self, Insert, InsertSource, Statement};
use crate::write::report::WriteReport;

/// A parsed and planned statement, ready to run many times with other parameters.
#[derive(Clone, Debug)]
pub struct Prepared {
    session: Session,
    statement: Statement,
    kind: StatementKind,
    schema: SchemaRef,
    parameters: Schema,
    /// Types that PREPARE declared for its parameters.
    declared: Vec<ast::DataType>,
    /// Whether instants of valid time are among them.
    instants: bool,
}

impl Prepared {
    pub(super) async fn new(session: Session, statement: Statement) -> Result<Self> {
        let count = sql::parameter_count(&statement);
        let mut types: HashMap<String, DataType> = HashMap::new();
        let mut schema = Arc::new(Schema::empty());
        let mut kind = kind(&statement);
        let scope = session.begin().await?.with(Parameters::awaited());
        match &statement {
            Statement::Query(_) | Statement::Explain(_) => {
                let planned = plan(&scope, statement.clone()).await?;
                inferred(&scope, &planned, &mut types)?;
                schema = expr::columns(&scope.state(), &planned);
            }
            Statement::Insert(insert) => {
                let opened = scope.open(&insert.table).await?;
                types = insert::parameter_types(insert, &opened);
                if !has_values(insert) || count == 0 {
                    inferred(&scope, &plan(&scope, statement.clone()).await?, &mut types)?;
                }
            }
            Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Merge(_)
            | Statement::CorrectJournal(_)
            | Statement::Truncate { .. } => {
                inferred(&scope, &plan(&scope, statement.clone()).await?, &mut types)?;
            }
            Statement::CopyInto(_) => {
                plan(&scope, statement.clone()).await?;
            }
            // Running a query by its name is a query: a client that is told otherwise does not read its rows.
            Statement::Execute { name, arguments } => {
                let named = named(&session, name)?;
                schema = named.schema();
                if named.kind == StatementKind::Query {
                    kind = StatementKind::Query;
                    if let Some(row) = bound(&scope, &named, arguments.clone()).await? {
                        schema = named.schema_for(&row).await?;
                    }
                }
            }
            statement => {
                // A table that is not there is told of now, as it is to a query.
                if let Some(table) = answers::table(statement) {
                    scope.open(table).await?;
                }
                if let Some(columns) = answers::columns(statement) {
                    schema = columns;
                } else if kind == StatementKind::Query
                    && let Answer::Rows(rows) = session.run(statement.clone()).await?
                {
                    // What is left tells what the catalog knows: it is cheap, changes nothing, and refuses an
                    // unknown name now.
                    schema = rows.schema();
                }
            }
        }
        let instants = scope.parameters.instants();
        let fields: Vec<Field> = (1..=count)
            .map(|number| {
                let name = format!("${number}");
                let data_type = types.remove(&name).unwrap_or(DataType::Null);
                Field::new(name, data_type, true)
            })
            .collect();
        Ok(Self {
            session,
            statement,
            kind,
            schema,
            parameters: Schema::new(fields),
            declared: Vec::new(),
            instants,
        })
    }

    /// Whether it reads, writes, or does something else.
    pub fn kind(&self) -> StatementKind {
        self.kind
    }

    /// Columns of the rows it returns, whether it changes something or not; none where it returns no rows.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Columns of the rows it returns for parameters of these types, where they differ from [`Self::schema`].
    ///
    /// # Errors
    /// When a query cannot take parameters of these types.
    pub async fn schema_for(&self, parameters: &RecordBatch) -> Result<SchemaRef> {
        if self.kind() != StatementKind::Query
            || parameters.num_columns() == 0
            || parameters.num_rows() == 0
        {
            return Ok(self.schema());
        }
        self.check_count(parameters.num_columns())?;
        let scope = self.session.begin().await?;
        let planned = self.planned(&scope, parameters, 0).await?;
        let planned = planned.with_param_values(row(parameters, 0)?)?;
        Ok(expr::columns(&scope.state(), &planned))
    }

    /// One field per parameter, in the order `$1..$n`; type Null where it could not be inferred.
    pub fn parameters(&self) -> Schema {
        self.parameters.clone()
    }

    /// Runs it with one row of parameters, or with none. The batch has one column per parameter, in order.
    pub async fn execute(&self, parameters: Option<&RecordBatch>) -> Result<Answer> {
        let Some(parameters) = parameters.filter(|batch| batch.num_columns() > 0) else {
            self.check_count(0)?;
            return self.session.run(self.statement.clone()).await;
        };
        self.check_count(parameters.num_columns())?;
        if parameters.num_rows() != 1 {
            return Err(Error::invalid(format!(
                "the statement runs once, but {} rows of parameters are given",
                parameters.num_rows()
            )));
        }
        if self.kind() == StatementKind::Write {
            return self
                .execute_many(std::slice::from_ref(parameters))
                .await
                .map(Answer::Written);
        }
        let scope = self.session.begin().await?;
        let planned = self.planned(&scope, parameters, 0).await?;
        run_plan(&scope, planned.with_param_values(row(parameters, 0)?)?).await
    }

    /// Runs a write once for all rows of `parameters`, in one commit.
    pub async fn execute_many(&self, parameters: &[RecordBatch]) -> Result<WriteReport> {
        if self.kind() != StatementKind::Write {
            return Err(Error::invalid(
                "only a write runs over many rows of parameters",
            ));
        }
        for batch in parameters {
            self.check_count(batch.num_columns())?;
        }
        self.session
            .rerun(|| Box::pin(self.write(parameters)))
            .await
    }

    /// The plan for a row of parameters, with those that are no instants still in it.
    async fn planned(
        &self,
        scope: &Arc<Scope>,
        parameters: &RecordBatch,
        row: usize,
    ) -> Result<LogicalPlan> {
        let scope = scope.with(Parameters::given(parameters, row));
        plan(&scope, self.statement.clone()).await
    }

    /// What the write that is `planned` reads with another row of parameters, where these are instants.
    async fn source_again(
        &self,
        scope: &Arc<Scope>,
        planned: &LogicalPlan,
        parameters: &RecordBatch,
        row: usize,
    ) -> Result<LogicalPlan> {
        if ChangeRows::of(planned).is_some() {
            // Such a plan holds the places of rows, and those of another one are not its own.
            return Err(Error::unsupported(
                "a statement that changes rows by what was true at an instant takes one row of parameters",
            )
            .with_hint("run it once for each of them"));
        }
        source(&self.planned(scope, parameters, row).await?).cloned()
    }

    fn check_count(&self, given: usize) -> Result<()> {
        let wanted = self.parameters.fields().len();
        if given == wanted {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the statement has {wanted} parameters, but {given} are given"
        )))
    }

    async fn write(&self, parameters: &[RecordBatch]) -> Result<WriteReport> {
        let scope = self.session.begin().await?;
        match self.write_in(&scope, parameters).await {
            Err(error) => Err(scope.overtaken(error).await),
            report => report,
        }
    }

    async fn write_in(
        &self,
        scope: &Arc<Scope>,
        parameters: &[RecordBatch],
    ) -> Result<WriteReport> {
        if let Statement::Insert(insert) = &self.statement
            && has_values(insert)
        {
            scope.bind(PARAMETERS, table_of(parameters)?);
            let planned = insert::plan_over(scope, insert.clone(), over_parameters).await?;
            return run_write(scope, &planned).await;
        }
        // Each row of parameters is one run of the source; all of them together are one write.
        let rows = parameters.iter();
        let rows = rows.flat_map(|batch| (0..batch.num_rows()).map(move |index| (batch, index)));
        let rows: Vec<(&RecordBatch, usize)> = rows.collect();
        let Some((first, more)) = rows.split_first() else {
            return Err(Error::invalid("no rows of parameters are given"));
        };
        let planned = self.planned(scope, first.0, first.1).await?;
        let mut all = source(&planned)?
            .clone()
            .with_param_values(row(first.0, first.1)?)?;
        for (batch, index) in more {
            let one = match self.instants {
                false => source(&planned)?.clone(),
                true => self.source_again(scope, &planned, batch, *index).await?,
            };
            let one = one.with_param_values(row(batch, *index)?)?;
            all = LogicalPlanBuilder::from(all).union(one)?.build()?;
        }
        let planned = match (planned.clone(), ChangeRows::of(&planned)) {
            (LogicalPlan::Dml(mut write), _) => {
                write.input = Arc::new(all);
                LogicalPlan::Dml(write)
            }
            (_, Some(change)) => change.over(all),
            (other, None) => other,
        };
        run_write(scope, &planned).await
    }
}

/// What a planned write reads.
fn source(planned: &LogicalPlan) -> Result<&LogicalPlan> {
    match (planned, ChangeRows::of(planned)) {
        (LogicalPlan::Dml(write), _) => Ok(write.input.as_ref()),
        (_, Some(change)) => Ok(change.input.as_ref()),
        _ => Err(Error::internal("a write is not planned as one")),
    }
}

/// Types the planner inferred for parameters nothing else has told. A parameter that stands in several
/// places has the type to which all of them compare: `id = $1 OR id = $1 + 1` is no conflict.
fn inferred(
    scope: &Scope,
    plan: &LogicalPlan,
    types: &mut HashMap<String, DataType>,
) -> Result<()> {
    let mut found = scope.parameters.types();
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let PlanExpr::Placeholder(Placeholder {
                    id,
                    field: Some(field),
                }) = expr
                {
                    let here = field.data_type();
                    let common = match found.get(id) {
                        None => here.clone(),
                        Some(before) => comparison_coercion(before, here)
                            .ok_or_else(|| in_conflict(id, before, here))?,
                    };
                    found.insert(id.clone(), common);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    for (name, data_type) in found {
        types.entry(name).or_insert(data_type);
    }
    Ok(())
}

fn in_conflict(parameter: &str, one: &DataType, other: &DataType) -> Error {
    let (one, other) = (sql_name(one), sql_name(other));
    Error::invalid(format!(
        "parameter {parameter} would have to be {one} in one place and {other} in another"
    ))
    .with_hint(format!("say which: CAST({parameter} AS {one})"))
}

fn has_values(insert: &Insert) -> bool {
    matches!(&insert.source, InsertSource::Query(query) if matches!(query.body.as_ref(), SetExpr::Values(_)))
}

fn row(batch: &RecordBatch, index: usize) -> Result<ParamValues> {
    let values = batch
        .columns()
        .iter()
        .map(|column| {
            Ok(ScalarAndMetadata::from(ScalarValue::try_from_array(
                column, index,
            )?))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(ParamValues::List(values))
}

/// `INSERT .. VALUES (e($1), ..)` as `INSERT .. SELECT e("$1"), .. FROM "$parameters"`.
fn over_parameters(mut query: ast::Query) -> Result<ast::Query> {
    let SetExpr::Values(values) = query.body.as_ref() else {
        return Ok(query);
    };
    let mut all: Option<SetExpr> = None;
    for row in &values.rows {
        let mut select = template()?;
        let SetExpr::Select(body) = &mut select else {
            return Err(Error::internal("a template is not a select"));
        };
        body.projection = row
            .iter()
            .cloned()
            .enumerate()
            .map(|(index, mut expr)| {
                parameters::as_columns(&mut expr);
                ast::SelectItem::ExprWithAlias {
                    expr,
                    alias: Ident::with_quote('"', format!("column{}", index + 1)),
                }
            })
            .collect();
        all = Some(match all {
            None => select,
            Some(before) => SetExpr::SetOperation {
                op: ast::SetOperator::Union,
                set_quantifier: ast::SetQuantifier::All,
                left: Box::new(before),
                right: Box::new(select),
            },
        });
    }
    if let Some(all) = all {
        *query.body = all;
    }
    Ok(query)
}

fn template() -> Result<SetExpr> {
    let Statement::Query(query) = sql::parse(&format!("SELECT 1 FROM \"{PARAMETERS}\""))? else {
        return Err(Error::internal("a template is not a query"));
    };
    Ok(*query.body)
}

/// PREPARE name AS statement.
pub(super) async fn prepare(session: &Session, prepare: sql::Prepare) -> Result<Answer> {
    let name = sql::fold(&prepare.name);
    let mut prepared = Prepared::new(session.clone(), *prepare.statement).await?;
    if !prepare.types.is_empty() && prepare.types.len() != prepared.parameters.fields().len() {
        return Err(Error::invalid(format!(
            "prepared statement {name} has {} parameters, but {} types are declared",
            prepared.parameters.fields().len(),
            prepare.types.len()
        )));
    }
    prepared.declared = prepare.types;
    let mut known = session.inner.prepared.lock();
    if known.contains_key(&name) {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("prepared statement {name} already exists"),
        )
        .with_hint(format!("DEALLOCATE {name}")));
    }
    known.insert(name, prepared);
    Ok(Answer::Done("PREPARE".to_owned()))
}

/// EXECUTE name(arguments).
pub(super) async fn execute(
    session: &Session,
    name: &Ident,
    arguments: Vec<Expr>,
) -> Result<Answer> {
    let prepared = named(session, name)?;
    let scope = session.begin().await?;
    let row = bound(&scope, &prepared, arguments).await?;
    Box::pin(prepared.execute(row.as_ref())).await
}

/// The prepared statement of this name.
fn named(session: &Session, name: &Ident) -> Result<Prepared> {
    let name = sql::fold(name);
    let known = session.inner.prepared.lock();
    known
        .get(&name)
        .cloned()
        .ok_or_else(|| missing(&known, &name))
}

/// The values of the arguments, in the types PREPARE declared; `None` where there are no arguments.
async fn bound(
    scope: &Arc<Scope>,
    prepared: &Prepared,
    arguments: Vec<Expr>,
) -> Result<Option<RecordBatch>> {
    if arguments.is_empty() {
        return Ok(None);
    }
    let arguments = arguments
        .into_iter()
        .enumerate()
        .map(|(index, argument)| match prepared.declared.get(index) {
            Some(data_type) => Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(argument),
                data_type: data_type.clone(),
                array: false,
                format: None,
            },
            None => argument,
        })
        .collect();
    constants(scope, arguments).await.map(Some)
}

/// The values of constant expressions, as one row.
async fn constants(scope: &Arc<Scope>, expressions: Vec<Expr>) -> Result<RecordBatch> {
    let Statement::Query(mut query) = sql::parse("SELECT 1")? else {
        return Err(Error::internal("a template is not a query"));
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = expressions
            .into_iter()
            .enumerate()
            .map(|(index, expr)| ast::SelectItem::ExprWithAlias {
                expr,
                alias: Ident::with_quote('"', format!("${}", index + 1)),
            })
            .collect();
    }
    let planned = scope.plan_query(*query).await?;
    let batches = datafusion::dataframe::DataFrame::new(scope.state(), planned)
        .collect()
        .await?;
    batches
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal("constants have no value"))
}

/// DEALLOCATE name, or all.
pub(super) fn deallocate(
    known: &Mutex<HashMap<String, Prepared>>,
    name: Option<&Ident>,
) -> Result<Answer> {
    let mut known = known.lock();
    match name.map(sql::fold) {
        None => known.clear(),
        Some(name) => {
            if known.remove(&name).is_none() {
                return Err(missing(&known, &name));
            }
        }
    }
    Ok(Answer::Done("DEALLOCATE".to_owned()))
}

fn missing(known: &HashMap<String, Prepared>, name: &str) -> Error {
    let missing = Error::new(
        ErrorKind::NotFound,
        format!("there is no prepared statement {name}"),
    );
    match sql::nearest(name, known.keys().map(String::as_str)) {
        Some(near) => missing.with_hint(format!("did you mean {near}?")),
        None => missing,
    }
}

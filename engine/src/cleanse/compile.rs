//! From the policies of a table to something its rows can be put through. Everything wrong with a policy is told
//! here, when it is defined and again before each write, so that none is ever passed over.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast;

use super::apply::counted;
use super::keys::KeyQuery;
use super::policy::{Columns, Policy, PolicyAction, PolicyScope};
use crate::error::{Error, Result};
use crate::quality::check::CompiledCheck;
use crate::shown::sql_name;
use crate::table::schema::tags;
use crate::write::lossless;
use crate::{expr, sql};

/// The terms under which policies of a table are compiled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub state: &'a SessionState,
    /// Table as `schema.name`.
    pub table: &'a str,
    /// Its columns, with what is noted of each: tags are among it.
    pub schema: &'a SchemaRef,
    pub partition_columns: &'a [String],
}

/// The enabled policies of a table, ready to be run.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Table as `schema.name`.
    pub table: String,
    pub schema: SchemaRef,
    policies: Vec<CompiledPolicy>,
    touched: Vec<usize>,
}

/// One policy, ready to be run.
#[derive(Debug)]
pub(crate) struct CompiledPolicy {
    policy: Policy,
    key: Option<KeyQuery>,
    columns: Vec<usize>,
    action: Action,
}

/// What becomes of rows, the stricter first.
#[derive(Debug)]
pub(super) enum Action {
    Delete,
    Nullify,
    /// The value of each of the columns, an array of one row.
    Set(Vec<ArrayRef>),
}

/// Who is compiled, for messages: `cleanse policy forget of table shop.clients`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub label: &'a str,
    pub table: &'a str,
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of table {}", self.label, self.table)
    }
}

impl Owner<'_> {
    pub(super) fn wrong(self, what: impl fmt::Display) -> Error {
        Error::invalid(format!("{self}: {what}"))
    }

    /// What DataFusion says. A table or column that a query misses is told with the nearest name.
    pub(super) fn failed(self, error: DataFusionError) -> Error {
        Error::from(error).ending(&self.to_string())
    }
}

/// What messages call a policy.
pub(super) fn label(policy: &Policy) -> String {
    format!("cleanse policy {}", policy.name)
}

/// The column of that name; an error with the nearest one when there is none.
pub(super) fn place(owner: Owner<'_>, schema: &SchemaRef, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        near(owner.wrong(format!("no column {name}")), name, names)
    })
}

fn near<'a>(error: Error, name: &str, valid: impl Iterator<Item = &'a str>) -> Error {
    match sql::nearest(name, valid) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error,
    }
}

/// Checks a policy that is to be kept, whether it is enabled or not. Its keys are planned, not read.
///
/// # Errors
/// Everything for which no write could ever run it.
pub(crate) async fn define(
    terms: Terms<'_>,
    policy: &Policy,
    checks: &[CompiledCheck],
) -> Result<()> {
    let label = label(policy);
    let owner = Owner {
        label: &label,
        table: terms.table,
    };
    if policy.name.is_empty() {
        return Err(owner.wrong("it needs a name"));
    }
    let compiled = compiled(terms, policy).await?;
    let left = compiled.left(terms.schema)?;
    for check in checks {
        let columns = 0..terms.schema.fields().len();
        let read: Vec<usize> = columns.filter(|at| check.reads(*at)).collect();
        let decided = !read.is_empty() && read.iter().all(|at| compiled.columns.contains(at));
        if decided && !check.broken_by(terms.table, &left)?.is_empty() {
            return Err(owner
                .wrong(format!(
                    "what it leaves is refused: {}",
                    check.describe(&left, 0)
                ))
                .with_hint(
                    "let the constraint allow what the policy leaves: CHECK (.. OR c IS NULL)",
                ));
        }
    }
    if let PolicyAction::Nullify {
        columns: Columns::Tagged(tag),
    } = &policy.action
        && compiled.columns.is_empty()
    {
        let known: Vec<&str> = terms.schema.fields().iter().flat_map(|f| tags(f)).collect();
        let error = owner.wrong(format!("no column carries the tag {tag}"));
        return Err(match sql::nearest(tag, known) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error.with_hint(format!(
                "ALTER TABLE {} ALTER COLUMN .. SET TAG {}",
                terms.table,
                sql::quoted(tag)
            )),
        });
    }
    Ok(())
}

/// Compiles the policies that are enabled.
pub(crate) async fn compile(terms: Terms<'_>, policies: &[Policy]) -> Result<Compiled> {
    let mut all = Vec::new();
    for policy in policies.iter().filter(|policy| policy.enabled) {
        all.push(compiled(terms, policy).await?);
    }
    let mut touched: Vec<usize> = all.iter().flat_map(|of| of.columns.clone()).collect();
    touched.sort_unstable();
    touched.dedup();
    Ok(Compiled {
        table: terms.table.to_owned(),
        schema: Arc::clone(terms.schema),
        policies: all,
        touched,
    })
}

async fn compiled(terms: Terms<'_>, policy: &Policy) -> Result<CompiledPolicy> {
    let Terms {
        state,
        table,
        schema,
        ..
    } = terms;
    let label = label(policy);
    let owner = Owner {
        label: &label,
        table,
    };
    let key = match &policy.scope {
        PolicyScope::Every => None,
        PolicyScope::Keys { columns, query } => {
            Some(KeyQuery::compile(state, owner, columns, query, schema).await?)
        }
    };
    let (columns, action) = match &policy.action {
        PolicyAction::DeleteRows if key.is_none() => {
            return Err(owner
                .wrong("DELETE ROWS without a key would leave no row in the table")
                .with_hint("KEY (..) IN (SELECT ..) DELETE ROWS, or TRUNCATE TABLE"));
        }
        PolicyAction::DeleteRows => (Vec::new(), Action::Delete),
        PolicyAction::Nullify { columns } => {
            let columns = nullified(owner, schema, columns)?;
            for at in &columns {
                may_be_null(owner, terms, key.as_ref(), *at)?;
            }
            (columns, Action::Nullify)
        }
        PolicyAction::Set { values } => {
            if values.is_empty() {
                return Err(owner.wrong("SET gives no column a value"));
            }
            let (mut columns, mut literals) = (Vec::new(), Vec::new());
            for (name, text) in values {
                let at = place(owner, schema, name)?;
                may_change(owner, terms, at)?;
                columns.push(at);
                literals.push(literal(state, owner, schema, at, text)?);
            }
            (columns, Action::Set(literals))
        }
    };
    Ok(CompiledPolicy {
        policy: policy.clone(),
        key,
        columns,
        action,
    })
}

fn nullified(owner: Owner<'_>, schema: &SchemaRef, columns: &Columns) -> Result<Vec<usize>> {
    match columns {
        Columns::Named(names) if names.is_empty() => Err(owner.wrong("NULLIFY names no column")),
        Columns::Named(names) => {
            let mut places = Vec::with_capacity(names.len());
            for name in names {
                let at = place(owner, schema, name)?;
                if places.contains(&at) {
                    return Err(owner.wrong(format!("column {name} is nullified twice")));
                }
                places.push(at);
            }
            Ok(places)
        }
        Columns::Tagged(tag) => {
            let fields = schema.fields().iter().enumerate();
            let tagged = fields.filter(|(_, field)| tags(field).contains(&tag.as_str()));
            Ok(tagged.map(|(at, _)| at).collect())
        }
    }
}

/// Refuses to take the value from a column that must have one.
fn may_be_null(
    owner: Owner<'_>,
    terms: Terms<'_>,
    key: Option<&KeyQuery>,
    at: usize,
) -> Result<()> {
    may_change(owner, terms, at)?;
    let field = terms.schema.field(at);
    let name = field.name();
    let why = if !field.is_nullable() {
        "it is NOT NULL"
    } else if key.is_some_and(|key| key.columns().contains(&at)) {
        "it is in the key of the policy"
    } else {
        return Ok(());
    };
    Err(owner
        .wrong(format!("column {name} cannot be nullified: {why}"))
        .with_hint(format!(
            "SET ({} = ..) gives it another value, DELETE ROWS leaves its rows out",
            sql::quoted(name)
        )))
}

/// Refuses another value for a column by which the files of the table are told apart: its rows would move.
fn may_change(owner: Owner<'_>, terms: Terms<'_>, at: usize) -> Result<()> {
    let name = terms.schema.field(at).name();
    match terms.partition_columns.contains(name) {
        false => Ok(()),
        true => Err(owner
            .wrong(format!(
                "column {name} cannot be nullified or set: the table is partitioned by it"
            ))
            .with_hint("DELETE ROWS leaves the rows out")),
    }
}

/// The value of a literal, as one row of its column.
fn literal(
    state: &SessionState,
    owner: Owner<'_>,
    schema: &SchemaRef,
    at: usize,
    text: &str,
) -> Result<ArrayRef> {
    let field = schema.field(at);
    let name = field.name();
    let place = format!("SET ({name} = {text})");
    let parsed = sql::parse_expr(text).map_err(|error| error.ending(&owner.to_string()))?;
    let parsed = ast::ExprWithAlias {
        expr: parsed,
        alias: None,
    };
    let empty = DFSchema::empty();
    let failed = |error: DataFusionError| {
        let what = error.strip_backtrace();
        owner.wrong(format!("{place}: {what}")).with_source(error)
    };
    let value = state
        .create_logical_expr_from_sql_expr(parsed, &empty)
        .map_err(failed)?;
    let context = SimplifyContext::builder()
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let value = expr::value(&ExprSimplifier::new(context), value, &empty).map_err(failed)?;
    if !matches!(value, Expr::Literal(..)) {
        return Err(owner.wrong(format!("{place}: {text} is no literal")));
    }
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)
        .map_err(|error| Error::internal(format!("a literal: {error}")).with_source(error))?;
    let value = state
        .create_physical_expr(value, &empty)
        .and_then(|value| value.evaluate(&row)?.into_array(1))
        .map_err(failed)?;
    let value = lossless(&value, field.data_type()).map_err(|failure| {
        let to = sql_name(field.data_type());
        owner.wrong(format!(
            "column {name} is {to} and cannot hold {text}: {}",
            failure.reason
        ))
    })?;
    if value.is_null(0) && !field.is_nullable() {
        return Err(owner.wrong(format!("{place}: the column is NOT NULL")));
    }
    Ok(value)
}

impl Compiled {
    /// Other engines trust a CHECK to hold for every row, and the rows held it before policies changed them.
    /// `broken` tells of which rows one is not true.
    pub(crate) fn hold(
        &self,
        checks: &[CompiledCheck],
        rows: &RecordBatch,
        broken: impl Fn(&CompiledCheck) -> Result<Vec<usize>>,
    ) -> Result<()> {
        for check in checks {
            if !self.touched.iter().any(|at| check.reads(*at)) {
                continue;
            }
            let broken = broken(check)?;
            let Some(first) = broken.first() else {
                continue;
            };
            let which: Vec<&str> = self
                .policies
                .iter()
                .filter(|policy| policy.columns.iter().any(|at| check.reads(*at)))
                .map(|policy| policy.policy.name.as_str())
                .collect();
            return Err(Error::rejected(format!(
                "cleanse policy {} of table {} broke a constraint: {} ({})",
                which.join(", "),
                self.table,
                check.describe(rows, *first),
                counted(broken.len() as u64, "row")
            ))
            .with_hint("let the constraint allow what the policy leaves, or change the policy"));
        }
        Ok(())
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// In the order of their names.
    pub(crate) fn policies(&self) -> &[CompiledPolicy] {
        &self.policies
    }

    /// Columns of which some policy may change cells, by position, ascending.
    pub(crate) fn touched(&self) -> &[usize] {
        &self.touched
    }

    /// Whether some policy deletes rows.
    pub(crate) fn deletes(&self) -> bool {
        let mut policies = self.policies.iter();
        policies.any(|policy| matches!(policy.action, Action::Delete))
    }

    /// Names of the policies, for plans.
    pub(crate) fn names(&self) -> Vec<&str> {
        let policies = self.policies.iter();
        policies.map(|policy| policy.policy.name.as_str()).collect()
    }
}

impl CompiledPolicy {
    /// One row with what the policy leaves in its columns, NULL in all others.
    fn left(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let fields = schema.fields().iter();
        let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
        let mut columns: Vec<ArrayRef> = schema
            .fields()
            .iter()
            .map(|field| new_null_array(field.data_type(), 1))
            .collect();
        if let Action::Set(values) = &self.action {
            for (at, value) in self.columns.iter().zip(values) {
                columns[*at] = Arc::clone(value);
            }
        }
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, columns)
            .map_err(|error| Error::internal(format!("a row of NULL: {error}")).with_source(error))
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where its keys come from; None for one that is about every row.
    pub(crate) fn key(&self) -> Option<&KeyQuery> {
        self.key.as_ref()
    }

    /// Columns whose cells it changes, by position.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    pub(super) fn action(&self) -> &Action {
        &self.action
    }
}

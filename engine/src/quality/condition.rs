//! A condition on one row: from SQL text to something that answers true, false or unknown for each row of a batch.
//!
//! It sees its row and nothing else: no subquery, aggregate, window, parameter, and no function whose answer may
//! change. A rule of ours may ask for the instant of its statement, which is one for all rows of it; a CHECK means
//! the same today, tomorrow and in every other engine.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue, SchemaError};
use datafusion::execution::SessionState;
use datafusion::functions::math::isnan;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, Volatility, when};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::sql::sqlparser::ast::{self, Ident, visit_expressions, visit_expressions_mut};

use crate::error::{Error, Result};
use crate::shown::{shown_of, sql_name};
use crate::table::schema::personal;
use crate::{expr, sql};

/// A condition ready to run on batches of its table's schema.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    predicate: Arc<dyn PhysicalExpr>,
    /// Columns it reads, by position, ascending.
    columns: Vec<usize>,
    /// The columns of its table.
    schema: SchemaRef,
}

/// Who is compiled, for messages: `CHECK positive (amount >= 0)` of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub label: &'a str,
    pub table: &'a str,
}

impl Owner<'_> {
    pub(super) fn wrong(self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{} of table {}: {what}", self.label, self.table))
    }

    /// What DataFusion says, with the nearest name where it misses a column.
    pub(super) fn failed(self, error: DataFusionError, schema: &SchemaRef) -> Error {
        match missing_column(&error) {
            Some(column) => {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                suggest(self.wrong(format!("no column {column}")), &column, names)
            }
            None => self.wrong(error.strip_backtrace()).with_source(error),
        }
    }
}

/// `text` as an expression, not yet resolved.
pub(super) fn parse(owner: Owner<'_>, text: &str) -> Result<ast::Expr> {
    sql::parse_expr(text).map_err(|error| {
        let wrong = owner.wrong(error.message());
        match error.hint() {
            Some(hint) => wrong.with_hint(hint),
            None => wrong,
        }
    })
}

/// Compiles a condition. Everything wrong with it is told here, before any row. One that is `lasting` means the same
/// in every statement, so it cannot hold the instant of one.
pub(super) fn compile(
    state: &SessionState,
    owner: Owner<'_>,
    mut parsed: ast::Expr,
    schema: &SchemaRef,
    (lasting, nan): (bool, Nan),
) -> Result<Condition> {
    functions_are_known(state, &parsed, owner, lasting)?;
    spell_columns(&mut parsed, schema);
    let names = names(schema)?;
    let predicate = resolve(state, owner, parsed, schema)?;
    sees_one_row(&predicate, !lasting).map_err(|what| owner.wrong(what))?;
    let predicate = expr::condition(&simplifier(state, &names), predicate, &names)
        // NOT is gone by now: it went into the comparisons.
        .and_then(|predicate| mind_nan(predicate, &names, nan))
        .and_then(|predicate| state.create_physical_expr(predicate, &names))
        .map_err(|error| owner.failed(error, schema))?;
    match predicate
        .data_type(schema)
        .map_err(|error| owner.failed(error, schema))?
    {
        DataType::Boolean => {}
        other => return Err(owner.wrong(format!("it is {}, not BOOLEAN", sql_name(&other)))),
    }
    let mut columns: Vec<usize> = collect_columns(&predicate)
        .iter()
        .map(|column| column.index())
        .collect();
    columns.sort_unstable();
    Ok(Condition {
        predicate,
        columns,
        schema: Arc::clone(schema),
    })
}

/// What a comparison with NaN says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nan {
    /// What it says in SQL: NaN is above all numbers.
    Greatest,
    /// It does not hold: no bound has NaN within.
    Outside,
    /// Nothing.
    Unknown,
}

/// `predicate`, but comparisons of floats by `<`, `<=`, `>` and `>=` say of NaN what `nan` demands.
fn mind_nan(predicate: Expr, names: &DFSchema, nan: Nan) -> Result<Expr, DataFusionError> {
    let value = match nan {
        Nan::Greatest => return Ok(predicate),
        Nan::Outside => ScalarValue::Boolean(Some(false)),
        Nan::Unknown => ScalarValue::Boolean(None),
    };
    let minded = predicate.transform_up(|expr| {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &expr else {
            return Ok(Transformed::no(expr));
        };
        use Operator::{Gt, GtEq, Lt, LtEq};
        if !matches!(op, Lt | LtEq | Gt | GtEq) {
            return Ok(Transformed::no(expr));
        }
        let mut floats = Vec::new();
        for side in [left, right] {
            let literal = matches!(side.as_ref(), Expr::Literal(..));
            if !literal && side.get_type(names)?.is_floating() {
                floats.push(isnan().call(vec![side.as_ref().clone()]));
            }
        }
        let Some(any) = floats.into_iter().reduce(Expr::or) else {
            return Ok(Transformed::no(expr));
        };
        // A missing value is none that is NaN: the comparison itself says that it is unknown.
        let is_nan = Expr::IsTrue(Box::new(any));
        let told = when(is_nan, Expr::Literal(value.clone(), None)).otherwise(expr)?;
        Ok(Transformed::yes(told))
    })?;
    Ok(minded.data)
}

/// The columns of `schema` as names that expressions may hold.
pub(super) fn names(schema: &SchemaRef) -> Result<DFSchema> {
    Ok(DFSchema::try_from(Arc::clone(schema))?)
}

/// An expression whose names are columns of `schema`.
pub(super) fn resolve(
    state: &SessionState,
    owner: Owner<'_>,
    expr: ast::Expr,
    schema: &SchemaRef,
) -> Result<Expr> {
    let parsed = ast::ExprWithAlias { expr, alias: None };
    state
        .create_logical_expr_from_sql_expr(parsed, &names(schema)?)
        .map_err(|error| owner.failed(error, schema))
}

/// Some functions (coalesce) exist only until the simplifier has rewritten them.
pub(super) fn simplifier(state: &SessionState, names: &DFSchema) -> ExprSimplifier {
    ExprSimplifier::new(
        SimplifyContext::builder()
            .with_schema(Arc::new(names.clone()))
            .with_config_options(Arc::clone(state.config_options()))
            .with_query_execution_start_time(state.execution_props().query_execution_start_time)
            .build(),
    )
}

impl Condition {
    /// True, false or unknown for each row.
    ///
    /// # Errors
    /// When it has no answer for some row: a division by zero.
    pub(super) fn ask(&self, batch: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let answer = self.predicate.evaluate(batch)?;
        let answer = answer.into_array(batch.num_rows())?;
        match answer.as_boolean_opt() {
            Some(answer) => Ok(answer.clone()),
            None => Err(Error::internal(format!("a condition gave {}", answer.data_type())).into()),
        }
    }

    /// The values of `row` it reads: `id = 2, amount = -0.01`.
    pub(super) fn values(&self, batch: &RecordBatch, row: usize) -> String {
        values(&self.schema, batch, &self.columns, row)
    }

    /// Columns it reads, by position, ascending.
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether it reads a column that tells something of a person.
    pub(super) fn is_personal(&self) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|at| personal(self.schema.field(*at)))
    }

    pub(crate) fn predicate(&self) -> &Arc<dyn PhysicalExpr> {
        &self.predicate
    }
}

/// The values that `row` has in `columns` of a table: `id = 2, amount = -0.01`. Those that tell something of a person
/// are not shown.
pub(super) fn values(
    schema: &Schema,
    batch: &RecordBatch,
    columns: &[usize],
    row: usize,
) -> String {
    let value = |column: &usize| {
        let field = schema.field(*column);
        let value = shown_of(field, batch.column(*column), &[row]).pop()?;
        Some(format!("{} = {value}", field.name()))
    };
    columns
        .iter()
        .filter_map(value)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Refuses calls by name while the text still holds them; later errors would speak of a plan.
fn functions_are_known(
    state: &SessionState,
    expr: &ast::Expr,
    owner: Owner<'_>,
    of_values: bool,
) -> Result<()> {
    let found = visit_expressions(expr, |expr| match expr {
        ast::Expr::Function(call) => {
            let name = call.name.to_string().to_lowercase();
            let scalar = state.scalar_functions().contains_key(&name)
                || state.higher_order_functions().contains_key(&name);
            if call.over.is_some() || state.window_functions().contains_key(&name) {
                let what = format!("window function {name} needs more than one row");
                ControlFlow::Break(owner.wrong(what))
            } else if scalar {
                ControlFlow::Continue(())
            } else if state.aggregate_functions().contains_key(&name) {
                let what = format!("aggregate function {name} needs more than one row");
                ControlFlow::Break(owner.wrong(what))
            } else {
                let names = state.scalar_functions().keys();
                let aggregates = state.aggregate_functions().keys().filter(|_| !of_values);
                let names = names.chain(aggregates).map(String::as_str);
                let error = owner.wrong(format!("no function {name}"));
                ControlFlow::Break(suggest(error, &name, names))
            }
        }
        ast::Expr::Subquery(_) | ast::Expr::InSubquery { .. } | ast::Expr::Exists { .. } => {
            ControlFlow::Break(owner.wrong("a subquery is not allowed"))
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Other engines declare checks without minding letter case: a bare name that is no column as written
/// means the one column it is in any case.
pub(super) fn spell_columns(expr: &mut ast::Expr, schema: &SchemaRef) {
    let spell = |ident: &mut Ident| {
        if ident.quote_style.is_some() {
            return;
        }
        let mut alike = schema
            .fields()
            .iter()
            .filter(|field| field.name().eq_ignore_ascii_case(&ident.value));
        if let (Some(field), None) = (alike.next(), alike.next()) {
            let span = ident.span;
            *ident = Ident::with_quote_and_span('"', span, field.name().clone());
        }
    };
    let _: ControlFlow<()> = visit_expressions_mut(expr, |expr| {
        match expr {
            ast::Expr::Identifier(ident) => spell(ident),
            ast::Expr::CompoundIdentifier(path) => {
                if let Some(first) = path.first_mut() {
                    spell(first);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
}

/// What makes a predicate depend on more than its row, and with `instant` the statement's instant, if anything.
pub(super) fn sees_one_row(predicate: &Expr, instant: bool) -> Result<(), String> {
    let mut found = None;
    let walked = predicate.apply(|expr| {
        found = match expr {
            Expr::ScalarFunction(call) => match call.func.signature().volatility {
                Volatility::Immutable => None,
                Volatility::Stable if instant => None,
                Volatility::Stable | Volatility::Volatile => Some(format!(
                    "function {} may answer differently next time",
                    call.func.name()
                )),
            },
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::Unnest(_) => {
                Some(format!("{} needs more than one row", expr.schema_name()))
            }
            Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_)
            | Expr::ScalarSubquery(_) => Some("a subquery is not allowed".into()),
            Expr::Placeholder(parameter) => {
                Some(format!("parameter {} is not allowed", parameter.id))
            }
            Expr::ScalarVariable(_, names) => {
                Some(format!("variable {} is not allowed", names.join(".")))
            }
            _ => None,
        };
        Ok(match found {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    });
    match (walked, found) {
        (_, Some(what)) => Err(what),
        (Err(error), None) => Err(error.strip_backtrace()),
        (Ok(_), None) => Ok(()),
    }
}

fn missing_column(error: &DataFusionError) -> Option<String> {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => Some(field.flat_name()),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn suggest<'a>(error: Error, name: &str, valid: impl Iterator<Item = &'a str>) -> Error {
    match sql::nearest(name, valid) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error,
    }
}

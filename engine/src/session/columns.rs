//! Columns of new tables: declared in SQL, or those of a query's answer.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast;
use futures::future::BoxFuture;

use super::scope::Scope;
use crate::error::{Error, Result};
use crate::sql::{self, Column};
use crate::table::schema as delta;
use crate::write::lossless;

/// The columns a table stores for a query's answer. Their names are checked by [`delta::to_delta`].
pub(super) fn stored_columns(schema: &Schema) -> Result<SchemaRef> {
    let stored = delta::normalize_schema(schema)?;
    let fields = stored.fields().iter().map(|field| {
        // A query's "never null" is about this answer, not a promise about rows to come.
        field.as_ref().clone().with_nullable(true)
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// The columns a statement declares. Their names are checked by [`delta::to_delta`].
pub(super) async fn declared(
    scope: &Arc<Scope>,
    table: &str,
    columns: &[Column],
) -> Result<SchemaRef> {
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        let name = sql::fold(&column.name);
        let what = format!("column {name} of table {table}");
        let stored = stored_type(scope, &what, &name, &column.data_type).await?;
        let mut field = Field::new(&name, stored, column.nullable);
        if let Some(comment) = &column.comment {
            field = delta::with_comment(field, Some(comment));
        }
        if let Some(default) = &column.default {
            field = with_default(scope, table, field, default)?;
        }
        fields.push(field);
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The type in which a table stores values of a SQL type; `what` is declared with it, under this name.
pub(super) async fn stored_type(
    scope: &Arc<Scope>,
    what: &str,
    name: &str,
    data_type: &ast::DataType,
) -> Result<DataType> {
    let planned = type_of(scope, what, data_type).await?;
    honoured(what, data_type)?;
    delta::normalize(name, &planned)
}

/// `field` with a default for rows that do not give it.
pub(super) fn with_default(
    scope: &Arc<Scope>,
    table: &str,
    field: Field,
    default: &ast::Expr,
) -> Result<Field> {
    let (name, text) = (field.name(), default.to_string());
    let state = scope.state();
    let expr = state
        .create_logical_expr(&text, &DFSchema::empty())
        .map_err(|error| {
            let error = Error::from(error);
            Error::new(
                error.kind(),
                format!("column {name} of table {table}: the default {text} is not a constant"),
            )
            .with_detail(error.message().to_owned())
        })?;
    if expr.any_column_refs() {
        return Err(Error::invalid(format!(
            "column {name} of table {table}: the default {text} uses a column"
        )));
    }
    check_default(&state, &expr, field.data_type()).map_err(|why| {
        Error::invalid(format!(
            "column {name} of table {table} cannot have the default {text}: {why}"
        ))
    })?;
    Ok(delta::with_default(field, Some(&text)))
}

/// Refuses what a type, or one within it, says beyond what a table can keep to.
fn honoured(what: &str, data_type: &ast::DataType) -> Result<()> {
    use ast::ArrayElemTypeDef::{AngleBracket, Parenthesis, SquareBracket};
    match data_type {
        ast::DataType::Array(AngleBracket(item) | SquareBracket(item, _) | Parenthesis(item)) => {
            return honoured(what, item);
        }
        ast::DataType::Map(key, value) => {
            honoured(what, key)?;
            return honoured(what, value);
        }
        ast::DataType::Struct(fields, _) => {
            return fields
                .iter()
                .try_for_each(|field| honoured(what, &field.field_type));
        }
        _ => {}
    }
    let text = data_type.to_string();
    let upper = text.to_ascii_uppercase();
    let refuse = |why: &str, hint: String| {
        Err(Error::unsupported(format!("{what}: {text} {why}")).with_hint(hint))
    };
    if upper.contains("UNSIGNED") {
        let hint = "use BIGINT or DECIMAL(20,0), and CHECK (.. >= 0)".to_owned();
        return refuse("does not exist in a Delta table", hint);
    }
    let sized = upper.contains('(');
    if sized
        && (upper.starts_with("VARCHAR")
            || upper.starts_with("CHAR")
            || upper.starts_with("NVARCHAR"))
    {
        let hint = "use TEXT, and CHECK (char_length(..) <= n)".to_owned();
        return refuse("has a length that would not be kept to", hint);
    }
    if sized && upper.starts_with("TIMESTAMP") && !upper.starts_with("TIMESTAMP(6)") {
        return refuse(
            "has another precision than microseconds",
            "use TIMESTAMP".to_owned(),
        );
    }
    Ok(())
}

/// Whether the default is a value of its column, as far as that can be told before a row needs it.
fn check_default(
    state: &SessionState,
    expr: &Expr,
    data_type: &DataType,
) -> std::result::Result<(), String> {
    let plain = |error: DataFusionError| Error::from(error).message().to_owned();
    // The functions of the statement's instant (`now()`) are constants only once they are simplified.
    let context = SimplifyContext::builder()
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(context);
    let physical = crate::expr::value(&simplifier, expr.clone(), &DFSchema::empty())
        .and_then(|expr| state.create_physical_expr(expr, &DFSchema::empty()))
        .map_err(plain)?;
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)
        .map_err(|error| error.to_string())?;
    let value = physical
        .evaluate(&row)
        .and_then(|value| value.into_array(1))
        .map_err(plain)?;
    match lossless(&value, data_type) {
        Ok(_) => Ok(()),
        // The clock has nanoseconds at one instant and none at another; rows are cut to what is stored.
        Err(_) if value.data_type().is_temporal() && data_type.is_temporal() => Ok(()),
        Err(failure) => Err(failure.reason),
    }
}

/// A SQL type as the planner understands it everywhere else: by planning a cast to it. The planner knows no
/// maps, so those are put together from their parts.
fn type_of<'a>(
    scope: &'a Arc<Scope>,
    what: &'a str,
    data_type: &'a ast::DataType,
) -> BoxFuture<'a, Result<DataType>> {
    Box::pin(async move {
        if let ast::DataType::Map(key, value) = data_type {
            let key = Field::new("key", type_of(scope, what, key).await?, false);
            let value = Field::new("value", type_of(scope, what, value).await?, true);
            let entries = DataType::Struct(vec![key, value].into());
            return Ok(DataType::Map(
                Arc::new(Field::new("key_value", entries, false)),
                false,
            ));
        }
        let sql::Statement::Query(mut query) = sql::parse("SELECT CAST(NULL AS INT)")? else {
            return Err(Error::internal("a probe for types is not a query"));
        };
        let ast::SetExpr::Select(select) = query.body.as_mut() else {
            return Err(Error::internal("a probe for types is not a select"));
        };
        for item in &mut select.projection {
            if let ast::SelectItem::UnnamedExpr(ast::Expr::Cast {
                data_type: wanted, ..
            }) = item
            {
                wanted.clone_from(data_type);
            }
        }
        let plan = scope.plan_query(*query).await.map_err(|error| {
            Error::new(
                error.kind(),
                format!("{what}: there is no type {data_type}"),
            )
            .with_detail(error.message().to_owned())
        })?;
        Ok(plan.schema().field(0).data_type().clone())
    })
}

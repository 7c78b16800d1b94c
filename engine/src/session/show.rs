//! SHOW and DESCRIBE: what the catalog, a table's log and the session say of themselves.

use std::sync::Arc;

use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast::ObjectName;
use futures::stream;

use super::scope::{Opened, Scope};
use super::{constraint, functions, policy, run_plan, types, variables as names};
use crate::answer::Answer;
use crate::catalog::entry::{FilesEntry, Relation, ViewEntry};
use crate::catalog::{INFORMATION_SCHEMA, NAME};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::{self, Show};
use crate::table::meta::{Columns, Kind, MetadataTable};
use crate::table::schema as delta;

pub(super) async fn show(scope: &Arc<Scope>, show: Show) -> Result<Answer> {
    match show {
        Show::Tables { schema, like } => {
            let schema = match schema {
                Some(name) => {
                    let schema = super::create::schema_name(&name)?;
                    if schema != INFORMATION_SCHEMA
                        && !scope.pinned.catalog.schemas.contains_key(&schema)
                    {
                        return Err(scope.no_such_schema(&schema));
                    }
                    Some(schema)
                }
                None => None,
            };
            let wanted = match schema {
                Some(schema) => col("table_schema").eq(lit(schema)),
                None => col("table_schema").not_eq(lit(INFORMATION_SCHEMA)),
            };
            let columns = ["table_schema", "table_name", "table_type"];
            listing(scope, "tables", wanted, &columns, "table_name", like).await
        }
        Show::Schemas { like } => {
            let wanted = col("catalog_name").eq(lit(NAME));
            listing(
                scope,
                "schemata",
                wanted,
                &["schema_name"],
                "schema_name",
                like,
            )
            .await
        }
        Show::Functions { like } => super::listing::functions(scope, like).await,
        Show::CreateFunction { name } => create_function(scope, &name),
        Show::Columns { table } => describe(scope, &table).await,
        Show::Create { name } => create(scope, &name).await,
        Show::Policies { table } => policy::list(scope, table).await,
        Show::AllVariables => variables(scope, None).await,
        Show::Variable(name) => variables(scope, Some(name)).await,
    }
}

async fn information(scope: &Arc<Scope>, table: &str) -> Result<LogicalPlan> {
    let sql::Statement::Query(query) =
        sql::parse(&format!("SELECT * FROM {INFORMATION_SCHEMA}.{table}"))?
    else {
        return Err(Error::internal("a listing is not a query"));
    };
    scope.plan_query(*query).await
}

async fn listing(
    scope: &Arc<Scope>,
    table: &str,
    wanted: Expr,
    columns: &[&str],
    name: &str,
    like: Option<String>,
) -> Result<Answer> {
    let mut plan = LogicalPlanBuilder::from(information(scope, table).await?).filter(wanted)?;
    if let Some(like) = like {
        plan = plan.filter(col(name).like(lit(like)))?;
    }
    let plan = plan
        .project(columns.iter().map(|column| col(*column)))?
        .sort(columns.iter().map(|column| col(*column).sort(true, false)))?
        .build()?;
    run_plan(scope, plan).await
}

async fn variables(scope: &Arc<Scope>, name: Option<String>) -> Result<Answer> {
    let one = name.is_some();
    let plan = information(scope, "df_settings").await?;
    let mut plan = LogicalPlanBuilder::from(plan);
    if let Some(name) = name {
        let entries = scope.state().config_options().entries();
        let name = names::full_name(&name);
        if !entries.iter().any(|entry| entry.key == name) {
            let missing = Error::new(ErrorKind::NotFound, format!("there is no variable {name}"));
            return Err(
                match sql::nearest(&name, entries.iter().map(|entry| entry.key.as_str())) {
                    Some(near) => missing.with_hint(format!("did you mean {near}?")),
                    None => missing.with_hint("SHOW ALL lists the variables"),
                },
            );
        }
        plan = plan.filter(col("name").eq(lit(name)))?;
    }
    let columns = if one {
        &["name", "value"][..]
    } else {
        &["name", "value", "description"]
    };
    let plan = plan
        .project(columns.iter().map(|column| col(*column)))?
        .sort(vec![col("name").sort(true, false)])?
        .build()?;
    run_plan(scope, plan).await
}

/// DESCRIBE a table or view.
pub(super) async fn describe(scope: &Arc<Scope>, name: &ObjectName) -> Result<Answer> {
    let (schema, table) = scope.place(name)?;
    columns(&scope.relation(&schema, &table).await?.schema())
}

/// One row per column.
pub(super) fn columns(schema: &Schema) -> Result<Answer> {
    let described = Columns::new()
        .text("column_name", |field: &FieldRef| Some(field.name().clone()))
        .text("data_type", |field| {
            Some(types::sql_name(field.data_type()))
        })
        .truth("is_nullable", |field| Some(field.is_nullable()))
        .text("column_default", |field| {
            delta::column_default(field).map(str::to_owned)
        })
        .text("comment", |field| delta::comment(field).map(str::to_owned));
    answer(&described, schema.fields())
}

/// DESCRIBE HISTORY: `t$history`, newest version first.
pub(super) async fn history(scope: &Arc<Scope>, name: &ObjectName) -> Result<Answer> {
    let opened = scope.open(name).await?;
    let root = opened.handle.root.clone();
    let history = MetadataTable::new(Kind::History, opened.snapshot, root);
    let source = provider_as_source(Arc::new(history));
    let name = TableReference::partial(opened.schema, format!("{}$history", opened.table));
    let plan = LogicalPlanBuilder::scan(name, source, None)?
        .sort(vec![col("version").sort(false, true)])?
        .build()?;
    run_plan(scope, plan).await
}

/// SHOW CREATE TABLE: the statement that would make it again, and those that disable rules of it.
async fn create(scope: &Arc<Scope>, name: &ObjectName) -> Result<Answer> {
    let (schema, table) = scope.place(name)?;
    let full = format!("{}.{}", sql::quoted(&schema), sql::quoted(&table));
    let text = match scope.pinned.catalog.relation(&schema, &table) {
        None => return Err(scope.no_such_table(&schema, &table)),
        Some(Relation::View(view)) => view_text(&full, view),
        Some(Relation::Files(files)) => files_text(&full, files),
        Some(Relation::Table(entry)) if entry.external => format!(
            "CREATE EXTERNAL TABLE {full} STORED AS DELTA LOCATION {}",
            literal(&entry.location)
        ),
        Some(Relation::Table(_)) => table_text(&full, &scope.open(name).await?)?,
    };
    created(format!("{schema}.{table}"), text)
}

/// SHOW CREATE FUNCTION.
fn create_function(scope: &Arc<Scope>, name: &ObjectName) -> Result<Answer> {
    let (schema, function) = scope.place(name)?;
    let Some(entry) = scope.pinned.catalog.function(&schema, &function) else {
        return Err(functions::missing(scope, name));
    };
    let text = functions::text(&schema, &function, entry)?;
    created(format!("{schema}.{function}"), text)
}

fn created(name: String, statement: String) -> Result<Answer> {
    let columns = Columns::new()
        .text("name", |(name, _): &(String, String)| Some(name.clone()))
        .text("create_statement", |(_, statement)| Some(statement.clone()));
    answer(&columns, &[(name, statement)])
}

fn view_text(full: &str, view: &ViewEntry) -> String {
    let columns = match view.columns.as_slice() {
        [] => String::new(),
        columns => format!(
            " ({})",
            columns
                .iter()
                .map(|column| sql::quoted(column))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    format!("CREATE VIEW {full}{columns} AS {}", view.query)
}

fn files_text(full: &str, files: &FilesEntry) -> String {
    let mut text = format!("CREATE EXTERNAL TABLE {full} STORED AS {}", files.format);
    text.push_str(&format!(" LOCATION {}", literal(&files.location)));
    if !files.options.is_empty() {
        let options: Vec<String> = files
            .options
            .iter()
            .map(|(key, value)| format!("{} {}", literal(key), literal(value)))
            .collect();
        text.push_str(&format!(" OPTIONS ({})", options.join(", ")));
    }
    text
}

fn table_text(full: &str, opened: &Opened) -> Result<String> {
    let (snapshot, rules) = (&opened.snapshot, constraint::rules(opened)?);
    let journal = opened.shape()?;
    let mut parts: Vec<String> = opened
        .columns()
        .fields()
        .iter()
        .map(|field| {
            let mut line = format!(
                "  {} {}",
                sql::quoted(field.name()),
                types::sql_name(field.data_type())
            );
            if !field.is_nullable() {
                line.push_str(" NOT NULL");
            }
            if let Some(default) = delta::column_default(field) {
                line.push_str(&format!(" DEFAULT {default}"));
            }
            if let Some(comment) = delta::comment(field) {
                line.push_str(&format!(" COMMENT {}", literal(comment)));
            }
            line
        })
        .collect();
    parts.extend(
        snapshot
            .checks()
            .map(|(name, text)| format!("  CONSTRAINT {} CHECK ({text})", sql::quoted(name))),
    );
    parts.extend(
        rules
            .iter()
            .map(|rule| format!("  {}", sql::rule_clause(rule))),
    );
    let mut text = format!("CREATE TABLE {full} (\n{}\n)", parts.join(",\n"));
    if let Some(comment) = &snapshot.metadata.description {
        text.push_str(&format!(" COMMENT {}", literal(comment)));
    }
    // By what a journal is partitioned is its own business.
    if let Some(shape) = &journal {
        text.push_str(&format!(" {}", sql::journal_clause(&shape.definition)));
    } else if !snapshot.partition_columns().is_empty() {
        let columns: Vec<String> = snapshot
            .partition_columns()
            .iter()
            .map(|column| sql::quoted(column))
            .collect();
        text.push_str(&format!(" PARTITIONED BY ({})", columns.join(", ")));
    }
    let properties: Vec<String> = snapshot
        .metadata
        .configuration
        .iter()
        .filter(|(key, _)| super::properties::known("", key).is_ok())
        .map(|(key, value)| format!("{} = {}", literal(key), literal(value)))
        .collect();
    if !properties.is_empty() {
        text.push_str(&format!(" TBLPROPERTIES ({})", properties.join(", ")));
    }
    // A rule is enabled when it is made.
    for rule in rules.iter().filter(|rule| !rule.enabled) {
        let name = sql::quoted(&rule.name);
        text.push_str(&format!(";\nALTER TABLE {full} DISABLE CONSTRAINT {name}"));
    }
    for statement in policy::statements(full, opened)? {
        text.push_str(&format!(";\n{statement}"));
    }
    Ok(text)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An answer whose rows are at hand.
pub(super) fn answer<T: Send + Sync + 'static>(columns: &Columns<T>, rows: &[T]) -> Result<Answer> {
    let batch = columns.batch(rows)?;
    let schema = batch.schema();
    Ok(Answer::Rows(Box::pin(RecordBatchStreamAdapter::new(
        schema,
        stream::iter([Ok(batch)]),
    ))))
}

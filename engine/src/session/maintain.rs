//! OPTIMIZE, VACUUM, RESTORE and ANALYZE: from names and clauses to upkeep, and from its account to rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray, UInt64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, ExprSchemable, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{self, ObjectName};
use selvedge_udfs::SelvedgeOptions;
use serde_json::Value;

use super::scope::{Opened, Scope};
use super::show::rows;
use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::expr;
use crate::maintenance::{Job, analyze, optimize, restore, vacuum};
use crate::progress::Meter;
use crate::sql::{self, At, Optimize, Restore, Vacuum};
use crate::table::handle::instant;
use crate::table::prune;

/// OPTIMIZE. One row: what was rewritten.
pub(super) async fn optimize(scope: &Arc<Scope>, statement: Optimize) -> Result<Answer> {
    let opened = scope.open(&statement.table).await?;
    let request = optimize::Request {
        filters: match statement.predicate {
            Some(predicate) => partition_filters(scope, &opened, predicate)?,
            None => Vec::new(),
        },
        zorder: statement.zorder.iter().map(sql::fold).collect(),
    };
    let done = optimize::run(&job(scope, &opened, "OPTIMIZE"), &request).await?;
    rows(vec![
        ("files_before", number(done.files_before)),
        ("files_after", number(done.files_after)),
        ("bytes_before", number(done.bytes_before)),
        ("bytes_after", number(done.bytes_after)),
        ("rows", number(done.rows)),
        (
            "deletion_vectors_folded",
            number(done.deletion_vectors_folded),
        ),
        ("files_skipped", number(done.files_skipped)),
        ("version", version(done.version)),
    ])
}

/// VACUUM. One row with counts; DRY RUN gives a row per file.
pub(super) async fn vacuum(scope: &Arc<Scope>, statement: Vacuum) -> Result<Answer> {
    let opened = scope.open(&statement.table).await?;
    let state = scope.state();
    let options = state.config_options().extensions.get::<SelvedgeOptions>();
    let request = vacuum::Request {
        retain_hours: statement.retain_hours,
        checked: options.is_none_or(|options| options.vacuum_retention_check),
        dry_run: statement.dry_run,
    };
    let done = vacuum::run(&job(scope, &opened, "VACUUM"), &request).await?;
    if statement.dry_run {
        let paths: StringArray = done.files.iter().map(|(path, _)| Some(path)).collect();
        let bytes: UInt64Array = done.files.iter().map(|(_, bytes)| Some(*bytes)).collect();
        return rows(vec![
            ("path", Arc::new(paths) as ArrayRef),
            ("bytes", Arc::new(bytes)),
        ]);
    }
    let leftovers = scope.engine.sweep(&opened.handle).await?;
    rows(vec![
        ("files_deleted", number(done.files.len() as u64)),
        ("bytes_deleted", number(done.bytes)),
        ("leftovers_deleted", number(leftovers)),
        ("version", version(done.version)),
    ])
}

/// RESTORE. One row: what came back and what went.
pub(super) async fn restore(scope: &Arc<Scope>, statement: Restore) -> Result<Answer> {
    let opened = scope.open(&statement.table).await?;
    let (table, name) = (&opened.handle, &opened.name);
    let (old, asked) = match statement.to {
        At::Version(wanted) => (wanted, ("version", Value::from(wanted))),
        At::Timestamp(expr) => {
            let at_ms = scope.instant(name, *expr).await?.div_euclid(1000);
            let wanted = table.version_at(name, at_ms).await?;
            (wanted, ("timestamp", Value::from(instant(at_ms))))
        }
    };
    let old = table.logged(name, &opened.snapshot, old).await?;
    let (key, value) = asked;
    let parameters = BTreeMap::from([(key.to_owned(), value)]);
    let job = job(scope, &opened, "RESTORE");
    let done = restore::run(&job, &opened.snapshot, &old, parameters).await?;
    rows(vec![
        ("restored_version", number(old.version)),
        ("files_restored", number(done.files_restored)),
        ("files_removed", number(done.files_removed)),
        ("rows_restored", number(done.rows_restored)),
        ("rows_removed", number(done.rows_removed)),
        ("bytes_restored", number(done.bytes_restored)),
        ("bytes_removed", number(done.bytes_removed)),
        ("version", version(done.version)),
    ])
}

/// ANALYZE. One row: how many files got statistics.
pub(super) async fn analyze(scope: &Arc<Scope>, table: &ObjectName) -> Result<Answer> {
    let opened = scope.open(table).await?;
    let done = analyze::run(&job(scope, &opened, "ANALYZE")).await?;
    rows(vec![
        ("files_analyzed", number(done.files)),
        ("rows", number(done.rows)),
        ("version", version(done.version)),
    ])
}

fn job(scope: &Arc<Scope>, opened: &Opened, statement: &'static str) -> Job {
    Job {
        name: opened.name.clone(),
        table: Arc::clone(&opened.handle),
        runtime: Arc::clone(&scope.engine.runtime),
        settings: scope.engine.settings.clone(),
        user: scope.user.clone(),
        batch_id: scope.batch_id,
        meter: Meter::new(statement, scope.observer.clone()),
    }
}

fn number(value: u64) -> ArrayRef {
    Arc::new(UInt64Array::from(vec![value]))
}

/// Null when nothing was to be done, so that no version was made.
fn version(value: Option<u64>) -> ArrayRef {
    Arc::new(UInt64Array::from(vec![value]))
}

/// A condition as filters, each of which is decided by partition values alone.
fn partition_filters(
    scope: &Arc<Scope>,
    opened: &Opened,
    predicate: ast::Expr,
) -> Result<Vec<Expr>> {
    let (state, snapshot) = (scope.state(), &opened.snapshot);
    let text = predicate.to_string();
    let schema = Arc::clone(&snapshot.schema);
    let names = DFSchema::try_from_qualified_schema(opened.table.as_str(), &schema)?;
    let parsed = ast::ExprWithAlias {
        expr: predicate,
        alias: None,
    };
    let filter = state.create_logical_expr_from_sql_expr(parsed, &names)?;
    if !matches!(filter.get_type(&names)?, DataType::Boolean | DataType::Null) {
        return Err(Error::invalid(format!(
            "OPTIMIZE of table {} WHERE {text}: {text} is not a condition",
            opened.name
        )));
    }
    // What is constant in this statement, as the day is, is a value from here on.
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(names.clone()))
        .with_config_options(Arc::clone(state.config_options()))
        .with_query_execution_start_time(state.execution_props().query_execution_start_time)
        .build();
    let simplifier = ExprSimplifier::new(context);
    let filter = expr::condition(&simplifier, filter, &names)?;
    let filters: Vec<Expr> = split_conjunction_owned(filter)
        .into_iter()
        .map(|filter| match unnormalize_col(filter) {
            // What is unknown chooses nothing.
            Expr::Literal(value, _) if value.is_null() => lit(false),
            filter => filter,
        })
        .collect();
    for filter in &filters {
        if prune::partition_only(snapshot, filter) || matches!(filter, Expr::Literal(..)) {
            continue;
        }
        let partition = snapshot.partition_columns();
        let other = filter
            .column_refs()
            .into_iter()
            .map(|column| column.name.clone());
        let mut other: Vec<String> = other.filter(|name| !partition.contains(name)).collect();
        other.sort_unstable();
        let refused = Error::invalid(match other.first() {
            Some(column) => format!(
                "OPTIMIZE of table {} WHERE {text}: column {column} is not a partition column, and files hold \
                 rows with many values of it",
                opened.name
            ),
            None => format!(
                "OPTIMIZE of table {} WHERE {text}: the condition is not decided by partition values alone",
                opened.name
            ),
        });
        return Err(refused.with_hint(match partition {
            [] => "the table is not partitioned: OPTIMIZE it without WHERE".to_owned(),
            columns => format!("partition columns: {}", columns.join(", ")),
        }));
    }
    Ok(filters)
}

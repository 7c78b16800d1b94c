//! OPTIMIZE, VACUUM, RESTORE and ANALYZE: from names and clauses to upkeep, and from its account to rows.
//!
//! The columns of each account are declared once: they make its rows, and a client is told of them before it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

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

use super::cleanse;
use super::scope::{Opened, Scope};
use super::show::answer;
use crate::answer::Answer;
use crate::error::{Error, Result};
use crate::expr;
use crate::maintenance::{Job, analyze, optimize, restore, vacuum};
use crate::progress::Meter;
use crate::sql::{self, At, Optimize, Restore, Vacuum};
use crate::table::handle::instant;
use crate::table::meta::Columns;
use crate::table::prune;

/// The version a statement made: null when nothing was to be done, so that it made none.
const VERSION: &str = "version";

/// What OPTIMIZE answers: one row, what was rewritten.
pub(super) fn optimized() -> Columns<optimize::Optimized> {
    Columns::new()
        .count("files_before", |done: &optimize::Optimized| {
            Some(done.files_before)
        })
        .count("files_after", |done| Some(done.files_after))
        .count("bytes_before", |done| Some(done.bytes_before))
        .count("bytes_after", |done| Some(done.bytes_after))
        .count("rows", |done| Some(done.rows))
        .count("deletion_vectors_folded", |done| {
            Some(done.deletion_vectors_folded)
        })
        .count("files_skipped", |done| Some(done.files_skipped))
        .count(VERSION, |done| done.version)
}

/// What VACUUM answers: one row, what went, with the leftovers that were swept beside it.
pub(super) fn vacuumed() -> Columns<(vacuum::Vacuumed, u64)> {
    Columns::new()
        .count("files_deleted", |(done, _): &(vacuum::Vacuumed, u64)| {
            Some(done.files.len() as u64)
        })
        .count("bytes_deleted", |(done, _)| Some(done.bytes))
        .count("leftovers_deleted", |(_, leftovers)| Some(*leftovers))
        .count(VERSION, |(done, _)| done.version)
}

/// What VACUUM .. DRY RUN answers: a row per file that would go.
pub(super) fn vacuumable() -> Columns<(String, u64)> {
    Columns::new()
        .text("path", |(path, _): &(String, u64)| Some(path.clone()))
        .count("bytes", |(_, bytes)| Some(*bytes))
}

/// What RESTORE answers: one row, which version is the newest again, what came back and what went.
pub(super) fn restored() -> Columns<(u64, restore::Restored)> {
    Columns::new()
        .count("restored_version", |(old, _): &(u64, restore::Restored)| {
            Some(*old)
        })
        .count("files_restored", |(_, done)| Some(done.files_restored))
        .count("files_removed", |(_, done)| Some(done.files_removed))
        .count("rows_restored", |(_, done)| Some(done.rows_restored))
        .count("rows_removed", |(_, done)| Some(done.rows_removed))
        .count("bytes_restored", |(_, done)| Some(done.bytes_restored))
        .count("bytes_removed", |(_, done)| Some(done.bytes_removed))
        .count(VERSION, |(_, done)| done.version)
}

/// What ANALYZE answers: one row, how many files got statistics.
pub(super) fn analyzed() -> Columns<analyze::Analyzed> {
    Columns::new()
        .count("files_analyzed", |done: &analyze::Analyzed| {
            Some(done.files)
        })
        .count("rows", |done| Some(done.rows))
        .count(VERSION, |done| done.version)
}

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
    answer(&optimized(), &[done])
}

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
        return answer(&vacuumable(), &done.files);
    }
    let leftovers = scope.engine.sweep(&opened.handle).await?;
    answer(&vacuumed(), &[(done, leftovers)])
}

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
    if done.version.is_some() {
        // What had been taken away since is not to come back.
        cleanse::again(scope, &opened).await?;
    }
    answer(&restored(), &[(old.version, done)])
}

pub(super) async fn analyze(scope: &Arc<Scope>, table: &ObjectName) -> Result<Answer> {
    let opened = scope.open(table).await?;
    let done = analyze::run(&job(scope, &opened, "ANALYZE")).await?;
    answer(&analyzed(), &[done])
}

pub(super) fn job(scope: &Arc<Scope>, opened: &Opened, statement: &'static str) -> Job {
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

//! `t$history`: the commits that the log still has, newest first, each read when its row is asked for.
//!
//! What our own writes counted stands in their commits; of other writers' commits, the files are
//! counted from the lines and the rows are those their metrics tell.

use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use super::super::actions::{Action, CommitInfo};
use super::super::log::{self, Commit};
use super::super::snapshot::{Snapshot, TableRoot};
use super::super::{erased, prune};
use super::column::Columns;
use crate::write::report::WriteReport;

const VERSION: &str = "version";

/// The parameter that holds the text of a statement which put intervals right by hand.
const CORRECTED: &str = "statement";

/// Commits fetched at once.
const READ_AHEAD: usize = 16;

/// What is kept of a commit: its lines may be many.
#[derive(Debug)]
pub(super) struct Entry {
    version: u64,
    time_ms: i64,
    info: CommitInfo,
    report: Option<WriteReport>,
    files_added: u64,
    files_removed: u64,
    bytes_added: u64,
}

impl From<Commit> for Entry {
    fn from(commit: Commit) -> Self {
        let mut entry = Self {
            version: commit.version,
            time_ms: commit.time_ms(),
            info: commit.info().cloned().unwrap_or_default(),
            report: None,
            files_added: 0,
            files_removed: 0,
            bytes_added: 0,
        };
        entry.report = entry.info.selvedge.take().and_then(|marker| marker.report);
        for action in &commit.actions {
            match action {
                Action::Add(add) => {
                    entry.files_added += 1;
                    entry.bytes_added = entry.bytes_added.saturating_add(add.size.max(0) as u64);
                }
                Action::Remove(_) => entry.files_removed += 1,
                _ => {}
            }
        }
        entry
    }
}

impl Entry {
    /// Our own count, or the first of these metrics that the writer left.
    fn count(&self, ours: fn(&WriteReport) -> u64, metrics: &[&str]) -> Option<i64> {
        match &self.report {
            Some(report) => i64::try_from(ours(report)).ok(),
            None => metrics.iter().find_map(|name| self.metric(name)),
        }
    }

    /// Our own count, or that of the commit's lines.
    fn lines(&self, ours: fn(&WriteReport) -> u64, counted: u64) -> Option<i64> {
        i64::try_from(self.report.as_ref().map_or(counted, ours)).ok()
    }

    /// Some writers quote their numbers.
    fn metric(&self, name: &str) -> Option<i64> {
        match self.info.operation_metrics.as_ref()?.get(name)? {
            Value::String(text) => text.parse().ok(),
            value => value.as_i64(),
        }
    }
}

pub(super) fn columns() -> Columns<Entry> {
    Columns::new()
        .number(VERSION, |of: &Entry| i64::try_from(of.version).ok())
        .instant("timestamp", |of| Some(of.time_ms))
        .number("batch_id", |of| Some(of.report.as_ref()?.batch_id))
        .text("operation", |of| of.info.operation.clone())
        .texts("operation_parameters", |of| {
            let given = of.info.operation_parameters.as_ref();
            let corrected = of.report.as_ref().and_then(|own| own.corrected.clone());
            if given.is_none() && corrected.is_none() {
                return None;
            }
            let parameters = given.into_iter().flatten().map(parameter);
            let corrected = corrected.map(|text| (CORRECTED.to_owned(), Some(text)));
            Some(parameters.chain(corrected).collect())
        })
        .text("user_name", |of| of.info.user_name.clone())
        .number("read_version", |of| of.info.read_version)
        .truth("is_blind_append", |of| of.info.is_blind_append)
        .text("engine", |of| of.info.engine_info.clone())
        .number("rows_received", |of| of.count(|own| own.rows_received, &[]))
        .number("rows_written", |of| {
            of.count(|own| own.rows_written, &["numOutputRows", "num_added_rows"])
        })
        .number("rows_removed", |of| {
            let metrics = ["numDeletedRows", "numTargetRowsDeleted", "num_deleted_rows"];
            of.count(|own| own.rows_removed, &metrics)
        })
        .number("files_added", |of| {
            of.lines(|own| own.files_added, of.files_added)
        })
        .number("files_removed", |of| {
            of.lines(|own| own.files_removed, of.files_removed)
        })
        .number("bytes_written", |of| {
            of.lines(|own| own.bytes_written, of.bytes_added)
        })
        .number("duration_ms", |of| {
            of.count(
                |own| own.duration_ms,
                &["executionTimeMs", "execution_time_ms"],
            )
        })
}

fn parameter((name, value): (&String, &Value)) -> (String, Option<String>) {
    let text = match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    (name.clone(), text)
}

/// Whether the filter is about versions alone, so that commits it refuses need not be read.
pub(super) fn of_versions(filter: &Expr) -> bool {
    prune::decided_by(filter, &[VERSION])
}

/// The commits up to `snapshot` that the filters accept.
pub(super) async fn scan(
    session: &dyn Session,
    root: &TableRoot,
    snapshot: &Snapshot,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    // Of versions that were erased, the log only keeps the place.
    let first = erased::of(snapshot).map_or(0, |erased| erased.first);
    let mut versions = log::list(root, 0).await?.commits;
    versions.retain(|version| (first..=snapshot.version).contains(version));
    versions.reverse();
    if let Some(filter) = conjunction(filters.iter().cloned()) {
        let kept = prune::accepts(session, &batch(&versions)?, filter)?;
        prune::retain(&mut versions, &kept);
    }
    // Every commit is a row, and all filters have been heard.
    versions.truncate(limit.unwrap_or(usize::MAX));
    let columns = columns().project(projection);
    let order = order(&Schema::new(columns.fields()));
    let (versions, root): (Arc<[u64]>, TableRoot) = (versions.into(), root.clone());
    columns.ordered(order, limit, move || {
        let (versions, root) = (Arc::clone(&versions), root.clone());
        let commits = stream::iter((0..versions.len()).map(move |at| versions[at]))
            .map(move |version| {
                let root = root.clone();
                async move { log::read(&root, version).await }
            })
            .buffered(READ_AHEAD)
            // Gone since the log was listed: cleaned up, as are all before it.
            .try_filter_map(|commit| std::future::ready(Ok(commit)))
            .map_ok(Entry::from)
            .map_err(DataFusionError::from)
            .try_chunks(READ_AHEAD)
            .map_err(|failed| failed.1);
        Box::pin(commits)
    })
}

fn batch(versions: &[u64]) -> Result<RecordBatch> {
    let field = Field::new(VERSION, DataType::Int64, true);
    let values = versions.iter().map(|version| i64::try_from(*version).ok());
    let values: Int64Array = values.collect();
    let schema = Arc::new(Schema::new(vec![field]));
    Ok(RecordBatch::try_new(schema, vec![Arc::new(values)])?)
}

/// Newest first, where the version is among the columns.
fn order(schema: &Schema) -> Option<LexOrdering> {
    let descending = SortOptions {
        descending: true,
        nulls_first: true,
    };
    let version = col(VERSION, schema).ok()?;
    LexOrdering::new([PhysicalSortExpr::new(version, descending)])
}

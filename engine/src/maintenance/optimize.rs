//! OPTIMIZE: small files become fewer, worn files whole, and rows may be brought near their like.
//!
//! ```text
//! choose groups -> rewrite them -> commit those whose files are still what they were -> choose again
//! ```
//!
//! Rows of a journal are brought in the order of their keys, in which each of its files is written.
//!
//! A group that another statement changed meanwhile is given up and its new files are deleted: what was written
//! anew would bring back rows that are deleted by now. All others are committed as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use futures::{FutureExt, StreamExt, stream};
use serde_json::Value;

use super::compact::{self, Group};
use super::tally::Tally;
use super::{Job, zorder};
use crate::error::{Error, Result};
use crate::journal::shape::Shape;
use crate::table::actions::Add;
use crate::table::snapshot::{DataFile, Snapshot};
use crate::table::{protocol, prune};
use crate::write::commit::{self, Intent, Outcome, Removes};
use crate::write::files::FileSink;
use crate::write::report::WriteReport;

/// How often files are chosen again when other statements changed some while they were rewritten.
const ROUNDS: usize = 3;

/// Files of the target size that are rewritten before they are committed: so much work is lost at most when a
/// store fails or the program ends.
const BATCH_FILES: u64 = 8;

/// What OPTIMIZE is to do.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Conditions on partition columns, all of which the partitions meet.
    pub filters: Vec<Expr>,
    /// Columns by whose nearness rows are arranged; empty to keep their order.
    pub zorder: Vec<String>,
}

/// What OPTIMIZE did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Optimized {
    /// Files that were rewritten, and what they became.
    pub files_before: u64,
    pub files_after: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// Rows in them.
    pub rows: u64,
    /// Deletion vectors that nobody needs to apply any more.
    pub deletion_vectors_folded: u64,
    /// Files that other statements changed whenever they were rewritten.
    pub files_skipped: u64,
    /// The last version that was committed, if any.
    pub version: Option<u64>,
}

/// A group that lies in new files, which nobody sees yet.
#[derive(Debug)]
pub(super) struct Rewritten {
    group: Group,
    adds: Vec<Add>,
    rows: u64,
}

/// Runs OPTIMIZE.
pub(crate) async fn run(job: &Job, request: &Request) -> Result<Optimized> {
    let table = &job.table;
    let _turn = table.compacting.lock().await;
    let _running = table.running.begin(table.ambient.now_ms(), false);
    let mut total = Optimized::default();
    for _ in 0..ROUNDS {
        let base = table.pin(&job.name).await?;
        protocol::check_writable(&job.name, &base)?;
        let groups = choose(job, &base, request)?;
        for group in &groups {
            job.meter.expect(group.files.len() as u64, group.bytes());
        }
        total.files_skipped = 0;
        let sink = job.sink(&base)?;
        for batch in batches(groups, BATCH_FILES * job.settings.target_file_bytes) {
            let done = rewrite_all(job, &base, &sink, batch, &request.zorder).await?;
            let intent = Intent {
                parameters: parameters(request, false),
                ..job.intent(&base, "OPTIMIZE")
            };
            total.add(land(job, &sink, intent, done).await?);
        }
        if total.files_skipped == 0 {
            break;
        }
    }
    Ok(total)
}

fn choose(job: &Job, base: &Snapshot, request: &Request) -> Result<Vec<Group>> {
    let files = prune::select_files(&job.state(1), base, &request.filters)?;
    if request.zorder.is_empty() {
        let target = job.settings.target_file_bytes;
        return Ok(compact::pack(files, &base.schema, target));
    }
    if Shape::of(&job.name, base)?.is_some() {
        return Err(Error::invalid(format!(
            "OPTIMIZE of table {} ZORDER BY ({}): its rows lie in the order of the keys of its journal",
            job.name,
            request.zorder.join(", ")
        ))
        .with_hint("OPTIMIZE it without ZORDER"));
    }
    zorder::check(&job.name, base, &request.zorder)?;
    let tag = zorder::tag(&request.zorder);
    Ok(compact::unarranged(
        files,
        &base.schema,
        (zorder::TAG, &tag),
    ))
}

/// Groups in their order, so many at a time that they have `bytes` together.
fn batches(groups: Vec<Group>, bytes: u64) -> Vec<Vec<Group>> {
    let mut batches: Vec<Vec<Group>> = Vec::new();
    let mut open_bytes = u64::MAX;
    for group in groups {
        match batches.last_mut() {
            Some(open) if open_bytes < bytes => {
                open_bytes += group.bytes();
                open.push(group);
            }
            _ => {
                open_bytes = group.bytes();
                batches.push(vec![group]);
            }
        }
    }
    batches
}

async fn rewrite_all(
    job: &Job,
    base: &Arc<Snapshot>,
    sink: &FileSink,
    groups: Vec<Group>,
    zorder: &[String],
) -> Result<Vec<Rewritten>> {
    // A sort takes all cores and much memory by itself.
    let sorts = !zorder.is_empty() || Shape::of(&job.name, base)?.is_some();
    let at_once = match sorts {
        false => job.settings.target_partitions,
        true => 1,
    };
    let mut work = stream::iter(groups)
        .map(|group| rewrite(job, base, sink, group, zorder).boxed())
        .buffer_unordered(at_once);
    let mut done = Vec::new();
    while let Some(outcome) = work.next().await {
        match outcome {
            Ok(rewritten) => done.push(rewritten),
            Err(error) => {
                drop(work);
                for rewritten in &done {
                    sink.discard(&rewritten.adds).await;
                }
                return Err(error);
            }
        }
    }
    Ok(done)
}

/// Writes the visible rows of a group into new files.
pub(super) async fn rewrite(
    job: &Job,
    base: &Arc<Snapshot>,
    sink: &FileSink,
    group: Group,
    zorder: &[String],
) -> Result<Rewritten> {
    let (plan, context) = match (zorder, Shape::of(&job.name, base)?) {
        ([], None) => {
            let state = job.state(1);
            let table = job.only(base, &group.files);
            let plan = table.scan(&state, None, &[], None).await?;
            (plan, state.task_ctx())
        }
        ([], Some(shape)) => ordered(job, base, &group, &shape).await?,
        (columns, _) => zorder::plan(job, base, &group, columns).await?,
    };
    let plan = Tally::plan(plan, job.meter.clone());
    let mut written = sink.write(plan, context).await?;
    if let Some(rows) = group.rows(&base.schema)
        && rows != written.rows
    {
        sink.discard(&written.adds).await;
        return Err(Error::internal(format!(
            "{} files of table {} hold {rows} rows, but {} came out of them",
            group.files.len(),
            job.name,
            written.rows
        )));
    }
    let tags = (!zorder.is_empty())
        .then(|| BTreeMap::from([(zorder::TAG.to_owned(), Some(zorder::tag(zorder)))]));
    for add in &mut written.adds {
        add.data_change = false;
        // The rows keep their age, by which files are brought in order.
        add.modification_time = group.modified_ms();
        add.tags.clone_from(&tags);
    }
    let files = group.files.len() as u64;
    job.meter.done(files, group.bytes());
    Ok(Rewritten {
        group,
        adds: written.adds,
        rows: written.rows,
    })
}

/// The intervals of a group by key and begin, so that a file of them holds keys that lie together.
///
/// The files of a journal are in this order already, but nothing says so of those that another engine wrote: they are
/// sorted, which costs little where rows come nearly in order.
async fn ordered(
    job: &Job,
    base: &Snapshot,
    group: &Group,
    shape: &Shape,
) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>)> {
    let state = job.state(job.settings.target_partitions);
    let table = job.only(base, &group.files);
    let order = shape
        .key_names()
        .chain([shape.definition.columns.from.as_str()])
        .map(|name| Expr::Column(Column::new(Some("t"), name)).sort(true, false));
    let order: Vec<_> = order.collect();
    let plan = LogicalPlanBuilder::scan("t", provider_as_source(Arc::new(table)), None)?
        .sort(order)?
        .build()?;
    let plan = state.create_physical_plan(&plan).await?;
    Ok((plan, state.task_ctx()))
}

/// Commits the groups whose files are still what they were, and gives up the others.
pub(super) async fn land(
    job: &Job,
    sink: &FileSink,
    intent: Intent,
    mut groups: Vec<Rewritten>,
) -> Result<Optimized> {
    let mut skipped = 0;
    let base = intent.base.clone();
    let mut head = base.clone();
    loop {
        let (fit, moved): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|group| match (&base, &head) {
                (Some(base), Some(head)) => group.still_fits(base, head),
                _ => false,
            });
        for group in moved {
            skipped += group.group.files.len() as u64;
            sink.discard(&group.adds).await;
        }
        if fit.is_empty() {
            return Ok(Optimized {
                files_skipped: skipped,
                ..Optimized::default()
            });
        }
        let intent = Intent {
            base: head,
            adds: fit.iter().flat_map(|group| group.adds.clone()).collect(),
            removes: Removes::Files(fit.iter().flat_map(Rewritten::by_path).collect()),
            report: WriteReport {
                rows_written: fit.iter().map(|group| group.rows).sum(),
                ..intent.report.clone()
            },
            ..intent.clone()
        };
        let outcome = commit::commit(Arc::clone(&job.table), intent, &job.settings).await;
        let refused = match outcome {
            Ok(Outcome::Committed(report)) => {
                return Ok(Optimized {
                    files_skipped: skipped,
                    ..Optimized::of(&fit, report.version)
                });
            }
            // The store may still hold the commit, so its files must stay.
            Ok(Outcome::Unknown(error)) => return Err(error),
            Ok(Outcome::Conflict(reason)) => {
                tracing::debug!(
                    reason,
                    table = job.name,
                    "some rewritten files have changed"
                );
                job.table.pin(&job.name).await
            }
            Err(error) => Err(error),
        };
        match refused {
            Ok(newest) => head = Some(newest),
            Err(error) => {
                for group in &fit {
                    sink.discard(&group.adds).await;
                }
                return Err(error);
            }
        }
        groups = fit;
    }
}

impl Rewritten {
    fn by_path(&self) -> impl Iterator<Item = (String, Arc<DataFile>)> + '_ {
        let files = self.group.files.iter();
        files.map(|file| (file.add.path.clone(), Arc::clone(file)))
    }

    /// Whether `head` has the files that were read in `base`, and files still mean the same.
    fn still_fits(&self, base: &Snapshot, head: &Snapshot) -> bool {
        let same = |file: &Arc<DataFile>| head.files.get(&file.add.path) == Some(file);
        head.metadata == base.metadata
            && head.protocol == base.protocol
            && self.group.files.iter().all(same)
    }
}

impl Optimized {
    fn of(groups: &[Rewritten], version: Option<u64>) -> Self {
        let adds = || groups.iter().flat_map(|group| &group.adds);
        Self {
            files_before: groups.iter().map(|g| g.group.files.len() as u64).sum(),
            files_after: adds().count() as u64,
            bytes_before: groups.iter().map(|g| g.group.bytes()).sum(),
            bytes_after: adds().map(|add| add.size.max(0).unsigned_abs()).sum(),
            rows: groups.iter().map(|g| g.rows).sum(),
            deletion_vectors_folded: groups.iter().map(|g| g.group.vectors()).sum(),
            files_skipped: 0,
            version,
        }
    }

    fn add(&mut self, more: Self) {
        self.files_before += more.files_before;
        self.files_after += more.files_after;
        self.bytes_before += more.bytes_before;
        self.bytes_after += more.bytes_after;
        self.rows += more.rows;
        self.deletion_vectors_folded += more.deletion_vectors_folded;
        self.files_skipped += more.files_skipped;
        self.version = more.version.or(self.version);
    }
}

/// What the log says of it, in the words other Delta writers use.
pub(super) fn parameters(request: &Request, auto: bool) -> BTreeMap<String, Value> {
    let filters = request.filters.iter().map(ToString::to_string);
    let list = |items: Vec<String>| Value::from(Value::from(items).to_string());
    BTreeMap::from([
        ("predicate".to_owned(), list(filters.collect())),
        ("zOrderBy".to_owned(), list(request.zorder.clone())),
        ("auto".to_owned(), Value::from(auto.to_string())),
    ])
}

//! The run of a planned write: its rows into files, the verdicts, one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::execute_stream_partitioned;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

use super::commit::{self, Intent, Outcome, PartitionKey, Removes};
use super::conflict::Reads;
use super::files::{FileSink, Held, Written};
use super::journal;
use super::quarantine::{Quarantine, discreet, side_files};
use super::report::WriteReport;
use super::stages::{Checked, Settled, WriteRun};
use super::target::WriteTarget;
use crate::error::{Error, ErrorKind, Result};
use crate::quality::past::{MOST_SAMPLES, Past};
use crate::table::actions::{Add, Metadata};
use crate::table::records::{self, Record};

/// Runs a write to its commit.
pub(super) async fn run(
    rows: &Checked,
    target: &WriteTarget,
    op: InsertOp,
    context: &Arc<TaskContext>,
) -> Result<WriteReport> {
    if let Some(journal) = target.journals() {
        return Box::pin(journal::run::run(rows, target, journal, op, context)).await;
    }
    let started_ms = target.ambient.now_ms();
    let _running = target
        .table
        .running
        .begin(started_ms, target.change.is_some());
    let mut run = rows.account.begin(context).await?;
    let outputs = Outputs::new(target, &run)?;
    let files = outputs.write(rows, &mut run, context).await?;
    let duration_ms = (target.ambient.now_ms() - started_ms).max(0) as u64;
    // Verdicts come before the commit: what was refused has no effect but files nobody refers to.
    let intent = match judged(run, target, op, &files, duration_ms).await {
        Ok(Judged::Accepted(intent)) => intent,
        Ok(Judged::Refused(report, error)) => {
            files.discard().await;
            remember_refusal(target, *report, &error).await;
            return Err(error);
        }
        Err(error) => {
            files.discard().await;
            return Err(error);
        }
    };
    if intent.says_nothing() {
        return Ok(intent.report);
    }
    // From here on the commit may name them.
    let files = files.keep();
    match commit::commit(Arc::clone(&target.table), *intent, &target.settings).await {
        Ok(Outcome::Committed(report)) => Ok(report),
        // The store may still hold the commit, so its files must stay.
        Ok(Outcome::Unknown(error)) => Err(error),
        Ok(Outcome::Conflict(reason)) => {
            outputs.discard(&files).await;
            Err(Error::new(ErrorKind::Conflict, reason).with_hint("run the statement again"))
        }
        Err(error) => {
            outputs.discard(&files).await;
            Err(error)
        }
    }
}

/// What the stages say of a write whose rows are in files.
enum Judged {
    Accepted(Box<Intent>),
    Refused(Box<WriteReport>, Error),
}

async fn judged(
    run: WriteRun,
    target: &WriteTarget,
    op: InsertOp,
    files: &Files,
    duration_ms: u64,
) -> Result<Judged> {
    let aside = files.aside().map_or(0, |aside| aside.rows);
    let settled = verdict(run, target, (files.main.written().rows, aside)).await?;
    let (intent, refused) = intent(settled, files, target, op, duration_ms)?;
    Ok(match refused {
        Some(error) => Judged::Refused(Box::new(intent.report), error),
        None => Judged::Accepted(Box::new(intent)),
    })
}

/// Name of the operation in the log that takes rows out of quarantine.
pub(crate) const REPLAY: &str = "REPLAY QUARANTINE";

/// Where the rows of a write go.
struct Outputs {
    sink: FileSink,
    /// Only where rows may go there.
    quarantine: Option<Quarantine>,
}

/// The files of a write, which are deleted as long as nobody says that they stay.
struct Files {
    main: Held,
    aside: Option<Held>,
}

impl Files {
    fn aside(&self) -> Option<&Written> {
        self.aside.as_ref().map(Held::written)
    }

    fn keep(self) -> (Written, Option<Written>) {
        (self.main.keep(), self.aside.map(Held::keep))
    }

    async fn discard(self) {
        self.main.discard().await;
        if let Some(aside) = self.aside {
            aside.discard().await;
        }
    }
}

impl Outputs {
    fn new(target: &WriteTarget, run: &WriteRun) -> Result<Self> {
        let sink = FileSink::new(
            &target.table.root,
            &target.schema,
            table_of(target)?,
            target.settings.target_file_bytes,
            target.ambient.ids(),
            target.ambient.millis(),
        )?;
        Ok(Self {
            sink,
            quarantine: match run.sets_aside() {
                true => Some(Quarantine::new(target)?),
                false => None,
            },
        })
    }

    /// On an error, no file is left behind.
    async fn write(
        &self,
        rows: &Checked,
        run: &mut WriteRun,
        context: &Arc<TaskContext>,
    ) -> Result<Files> {
        let aside = run.aside();
        let main = async {
            let written = self.sink.hold(Arc::clone(&rows.plan), Arc::clone(context));
            let written = written.await;
            run.aside_ends();
            written
        };
        let (Some(aside), Some(quarantine)) = (aside, &self.quarantine) else {
            let (main, aside) = (main.await?, None);
            return Ok(Files { main, aside });
        };
        // Where one fails, the other ends: rows nobody takes are an error, and no rows are an end.
        match tokio::join!(main, quarantine.hold(aside, context)) {
            (Ok(main), Ok(aside)) => Ok(Files {
                main,
                aside: Some(aside),
            }),
            (Err(error), Ok(left)) | (Ok(left), Err(error)) => {
                left.discard().await;
                Err(error)
            }
            (Err(_), Err(cause)) => Err(cause),
        }
    }

    /// Deletes files that a commit could have named, and none does.
    async fn discard(&self, (main, aside): &(Written, Option<Written>)) {
        self.sink.discard(&main.adds).await;
        if let (Some(quarantine), Some(aside)) = (&self.quarantine, aside) {
            quarantine.discard(aside).await;
        }
    }
}

/// The terms of the table that a write goes to.
pub(super) fn table_of(target: &WriteTarget) -> Result<&Metadata> {
    let metadata = target.metadata();
    metadata.ok_or_else(|| Error::internal(format!("the write to {} has no table", target.name)))
}

/// What all stages say, and that no row was lost on the way.
pub(super) async fn verdict(
    run: WriteRun,
    target: &WriteTarget,
    (written, aside): (u64, u64),
) -> Result<Settled> {
    let past = past(&run, target).await?;
    let settled = run.settle(&past)?;
    let whole = settled.refused.is_some()
        || (settled.rows_written == written && settled.rows_quarantined == aside);
    if !whole {
        return Err(Error::internal(format!(
            "table {}: of {} rows, {} were to be written and {} quarantined, but {written} and {aside} were",
            target.name, settled.rows_received, settled.rows_written, settled.rows_quarantined
        )));
    }
    Ok(settled)
}

/// What the rules must know of the writes before this one.
async fn past(run: &WriteRun, target: &WriteTarget) -> Result<Past> {
    let (Some(mut past), Some(base)) = (run.past()?, &target.base) else {
        return Ok(Past::default());
    };
    let root = &target.table.root;
    let mut records = records::back_to(root, base.version, past.oldest()).take(MOST_SAMPLES);
    while past.is_wanting()
        && let Some(record) = records.try_next().await?
    {
        if class(&record.report.operation) == class(target.operation) {
            past.note(&record.report.metrics);
        }
    }
    Ok(past)
}

/// What brings rows is compared with what brought rows before; what changes some is like nothing but itself.
fn class(operation: &str) -> &str {
    match operation {
        "UPDATE" | "MERGE" | REPLAY => operation,
        _ => "WRITE",
    }
}

/// The account of a write, as far as its stages tell it.
pub(super) fn account(settled: &mut Settled, target: &WriteTarget) -> WriteReport {
    WriteReport {
        table: target.name.clone(),
        operation: target.operation.to_owned(),
        batch_id: target.batch_id,
        corrected: target.corrected.clone(),
        rows_received: settled.rows_received,
        rows_written: settled.rows_written,
        rows_dropped: settled.rows_dropped,
        rows_quarantined: settled.rows_quarantined,
        rows_erased: settled.rows_erased,
        hooks: std::mem::take(&mut settled.hooks),
        policies: std::mem::take(&mut settled.policies),
        rules: std::mem::take(&mut settled.rules),
        metrics: std::mem::take(&mut settled.metrics),
        ..WriteReport::default()
    }
}

/// What the write wants to become true, and why its rules say no.
fn intent(
    mut settled: Settled,
    files: &Files,
    target: &WriteTarget,
    op: InsertOp,
    duration_ms: u64,
) -> Result<(Intent, Option<Error>)> {
    let mut report = account(&mut settled, target);
    report.duration_ms = duration_ms;
    let quarantine = match files.aside() {
        Some(aside) => side_files(aside)?,
        None => Vec::new(),
    };
    let adds = files.main.written().adds.clone();
    let mut removes = match settled.changed {
        Some(changed) => {
            report.rows_inserted = changed.inserted;
            report.rows_updated = changed.updated;
            report.rows_deleted = changed.deleted;
            match changed.rows.is_empty() {
                true => Removes::None,
                false => Removes::Rows(Arc::new(changed.rows)),
            }
        }
        None => removes(op, &adds),
    };
    if target.creates.is_some() && target.base.is_some() {
        removes = Removes::All;
    }
    let replayed = target.replayed(&settled.taken)?;
    let intent = Intent {
        name: target.name.clone(),
        base: target.base.clone(),
        operation: target.operation,
        parameters: parameters(target, op),
        protocol: target.creates.as_ref().map(|new| new.protocol.clone()),
        metadata: target.creates.as_ref().map(|new| new.metadata.clone()),
        removes,
        adds,
        user: target.user.clone(),
        reads: reads(target),
        vectors: target.vectors.clone(),
        rearranges: false,
        transaction: None,
        quarantine,
        replayed,
        keeping: None,
        compares: settled.looked_back,
        forgets: !report.policies.is_empty(),
        report,
    };
    Ok((intent, settled.refused))
}

/// A write that the rules refused leaves a record beside the table, and no version.
pub(super) async fn remember_refusal(target: &WriteTarget, report: WriteReport, error: &Error) {
    if target.base.is_none() {
        // There is no table yet, and there will be none.
        return;
    }
    let record = Record {
        version: None,
        at_ms: target.ambient.now_ms(),
        user: target.user.clone(),
        report,
        refused: Some(error.message().to_owned()),
        restored: None,
        quarantine: Vec::new(),
        replayed: Vec::new(),
    };
    if let Err(error) = records::refuse(&target.table, &record).await {
        tracing::warn!(%error, table = %target.name, "a refused write left no record");
    }
}

/// What a write would come to.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    pub report: WriteReport,
    /// Why its rules would refuse it.
    pub refused: Option<Error>,
    /// Some of the rows that would go to quarantine.
    pub quarantined: Vec<RecordBatch>,
}

/// Rows for quarantine that a rehearsal keeps.
const REHEARSED_ROWS: usize = 20;

/// Runs the stages of a write over all of its rows, and keeps none.
pub(super) async fn rehearse(
    rows: &Checked,
    target: &WriteTarget,
    context: &Arc<TaskContext>,
) -> Result<Rehearsal> {
    let mut run = rows.account.begin(context).await?;
    let aside = run.aside();
    let streams = execute_stream_partitioned(Arc::clone(&rows.plan), Arc::clone(context))?;
    let main = async {
        let counts = streams.into_iter().map(|rows| async move {
            rows.try_fold(
                0,
                |sum, batch| async move { Ok(sum + batch.num_rows() as u64) },
            )
            .await
        });
        let counted = futures::future::try_join_all(counts).await;
        run.aside_ends();
        counted
    };
    let (counts, (quarantined, aside)) = tokio::join!(main, sample(aside));
    let main = counts?.into_iter().sum();
    let mut settled = verdict(run, target, (main, aside)).await?;
    // The columns of these rows do not say any more which of them are personal.
    let quarantined = quarantined.into_iter().map(|rows| {
        let columns = discreet(&rows.schema(), &target.schema);
        rows.with_schema(columns)
    });
    let quarantined = quarantined.collect::<Result<_, _>>();
    let quarantined = quarantined.map_err(DataFusionError::from)?;
    Ok(Rehearsal {
        report: account(&mut settled, target),
        refused: settled.refused,
        quarantined,
    })
}

/// The first rows that leave the path, and how many do.
async fn sample(rows: Option<Receiver<RecordBatch>>) -> (Vec<RecordBatch>, u64) {
    let (mut kept, mut count) = (Vec::new(), 0);
    let Some(mut rows) = rows else {
        return (kept, 0);
    };
    while let Some(batch) = rows.recv().await {
        let room = REHEARSED_ROWS.saturating_sub(count);
        if room > 0 {
            kept.push(batch.slice(0, room.min(batch.num_rows())));
        }
        count += batch.num_rows();
    }
    (kept, count as u64)
}

/// What the write depends on in the table it goes to.
fn reads(target: &WriteTarget) -> Reads {
    let Some(change) = &target.change else {
        return match target.reads_itself {
            true => Reads::Table,
            false => Reads::Nothing,
        };
    };
    match change.located.looked_at() {
        _ if change.reads_itself => Reads::Table,
        Some(asked) if change.absence => Reads::Matches(asked),
        Some(asked) => Reads::Rows(asked),
        None => Reads::Nothing,
    }
}

fn removes(op: InsertOp, adds: &[Add]) -> Removes {
    match op {
        InsertOp::Append => Removes::None,
        InsertOp::Overwrite => Removes::All,
        InsertOp::Replace => {
            let present: BTreeSet<PartitionKey> = adds
                .iter()
                .map(|add| add.partition_values.clone())
                .collect();
            if present.is_empty() {
                Removes::None
            } else {
                Removes::Partitions(present)
            }
        }
    }
}

/// What the log says of the write, in the words other Delta writers use.
pub(super) fn parameters(target: &WriteTarget, op: InsertOp) -> BTreeMap<String, Value> {
    if target.change.is_some() {
        return BTreeMap::new();
    }
    let mode = match op {
        InsertOp::Append => "Append",
        InsertOp::Overwrite | InsertOp::Replace => "Overwrite",
    };
    let columns = Value::from(target.partition_columns().to_vec()).to_string();
    let mut parameters = BTreeMap::from([
        ("mode".to_owned(), Value::from(mode)),
        ("partitionBy".to_owned(), Value::from(columns)),
    ]);
    if op == InsertOp::Replace {
        parameters.insert("partitionOverwriteMode".to_owned(), Value::from("dynamic"));
    }
    parameters
}

//! The run of a planned write: its rows into files, the verdicts, one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::execute_stream_partitioned;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

use super::commit::{self, Intent, Outcome, PartitionKey, Removes};
use super::conflict::Reads;
use super::files::{FileSink, Written};
use super::quarantine::{Quarantine, side_files};
use super::report::WriteReport;
use super::stages::{Checked, Settled, WriteRun};
use super::target::WriteTarget;
use crate::error::{Error, ErrorKind, Result};
use crate::quality::past::{MOST_SAMPLES, Past};
use crate::table::actions::Add;
use crate::table::records::{self, Record};

/// Runs a write to its commit.
pub(super) async fn run(
    rows: &Checked,
    target: &WriteTarget,
    op: InsertOp,
    context: &Arc<TaskContext>,
) -> Result<WriteReport> {
    let started_ms = target.ambient.now_ms();
    let _running = target
        .table
        .running
        .begin(started_ms, target.change.is_some());
    let mut run = rows.account.begin(context).await?;
    let outputs = Outputs::new(target)?;
    let files = outputs.write(rows, &mut run, context).await?;
    // Verdicts come before the commit: what was refused has no effect but files nobody refers to.
    let settled = match verdict(run, target, &files).await {
        Ok(settled) => settled,
        Err(error) => {
            outputs.discard(&files).await;
            return Err(error);
        }
    };
    let duration_ms = (target.ambient.now_ms() - started_ms).max(0) as u64;
    let (intent, refused) = intent(settled, files.clone(), target, op, duration_ms)?;
    if let Some(error) = refused {
        outputs.discard(&files).await;
        remember_refusal(target, intent.report, &error).await;
        return Err(error);
    }
    if intent.is_empty() {
        return Ok(intent.report);
    }
    match commit::commit(Arc::clone(&target.table), intent, &target.settings).await {
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

/// Where the rows of a write go.
struct Outputs {
    sink: FileSink,
    quarantine: Quarantine,
}

/// The files of a write, not yet visible.
#[derive(Clone, Default)]
struct Files {
    main: Written,
    aside: Written,
}

impl Outputs {
    fn new(target: &WriteTarget) -> Result<Self> {
        let metadata = target
            .metadata()
            .ok_or_else(|| Error::internal(format!("the write to {} has no table", target.name)))?;
        let sink = FileSink::new(
            &target.table.root,
            &target.schema,
            metadata,
            target.settings.target_file_bytes,
            target.ambient.ids(),
            target.ambient.millis(),
        )?;
        Ok(Self {
            sink,
            quarantine: Quarantine::new(target)?,
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
            let written = self.sink.write(Arc::clone(&rows.plan), Arc::clone(context));
            let written = written.await;
            run.aside_ends();
            written
        };
        let Some(aside) = aside else {
            let main = main.await?;
            return Ok(Files {
                main,
                ..Files::default()
            });
        };
        // Where one fails, the other ends: rows nobody takes are an error, and no rows are an end.
        match tokio::join!(main, self.quarantine.write(aside, context)) {
            (Ok(main), Ok(aside)) => Ok(Files { main, aside }),
            (Err(error), Ok(aside)) => {
                self.quarantine.discard(&aside).await;
                Err(error)
            }
            (Ok(main), Err(error)) => {
                self.sink.discard(&main.adds).await;
                Err(error)
            }
            (Err(_), Err(cause)) => Err(cause),
        }
    }

    async fn discard(&self, files: &Files) {
        self.sink.discard(&files.main.adds).await;
        self.quarantine.discard(&files.aside).await;
    }
}

/// What all stages say, and that no row was lost on the way.
async fn verdict(run: WriteRun, target: &WriteTarget, files: &Files) -> Result<Settled> {
    let past = past(&run, target).await?;
    let settled = run.settle(&past)?;
    let (written, aside) = (files.main.rows, files.aside.rows);
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
    let mut records = records::newest_first(&target.table.root, base.version).take(MOST_SAMPLES);
    while past.is_wanting()
        && let Some(record) = records.try_next().await?
    {
        past.note(&record.report.metrics);
    }
    Ok(past)
}

/// What the write wants to become true, and why its rules say no.
fn intent(
    settled: Settled,
    files: Files,
    target: &WriteTarget,
    op: InsertOp,
    duration_ms: u64,
) -> Result<(Intent, Option<Error>)> {
    let mut report = WriteReport {
        table: target.name.clone(),
        operation: target.operation.to_owned(),
        batch_id: target.batch_id,
        rows_received: settled.rows_received,
        rows_written: settled.rows_written,
        rows_dropped: settled.rows_dropped,
        rows_quarantined: settled.rows_quarantined,
        duration_ms,
        hooks: settled.hooks,
        rules: settled.rules,
        metrics: settled.metrics,
        ..WriteReport::default()
    };
    let quarantine = side_files(&files.aside)?;
    let adds = files.main.adds;
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
        report,
    };
    Ok((intent, settled.refused))
}

/// A write that the rules refused leaves a record beside the table, and no version.
async fn remember_refusal(target: &WriteTarget, report: WriteReport, error: &Error) {
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
    let files = Files {
        main: Written {
            rows: main,
            ..Written::default()
        },
        aside: Written {
            rows: aside,
            ..Written::default()
        },
    };
    let settled = verdict(run, target, &files).await?;
    Ok(Rehearsal {
        report: WriteReport {
            table: target.name.clone(),
            operation: target.operation.to_owned(),
            batch_id: target.batch_id,
            rows_received: settled.rows_received,
            rows_written: settled.rows_written,
            rows_dropped: settled.rows_dropped,
            rows_quarantined: settled.rows_quarantined,
            hooks: settled.hooks,
            rules: settled.rules,
            metrics: settled.metrics,
            ..WriteReport::default()
        },
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
fn parameters(target: &WriteTarget, op: InsertOp) -> BTreeMap<String, Value> {
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

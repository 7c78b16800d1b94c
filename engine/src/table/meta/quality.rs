//! `t$quality`: what each write said of each rule, refused writes included.

use std::ops::RangeInclusive;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::super::records::{self, Record};
use super::super::snapshot::TableRoot;
use super::column::Columns;
use crate::error::Error;
use crate::quality::record::RuleResult;

/// Writes whose rows are one batch.
const WRITES: usize = 16;

/// What is told of one write in every row about it.
#[derive(Debug)]
pub(super) struct Write {
    version: Option<u64>,
    at_ms: i64,
    batch_id: i64,
    operation: String,
    user: Option<String>,
}

impl Write {
    pub(super) fn of(record: &mut Record) -> Arc<Self> {
        Arc::new(Self {
            version: record.version,
            at_ms: record.at_ms,
            batch_id: record.report.batch_id,
            operation: std::mem::take(&mut record.report.operation),
            user: record.user.take(),
        })
    }
}

/// One result of one write.
type Row = (Arc<Write>, RuleResult);

pub(super) fn columns() -> Columns<Row> {
    of_the_write(|(write, _): &Row| write)
        .text("user_name", |(write, _)| write.user.clone())
        .text("rule", |(_, of)| Some(of.rule.clone()))
        .text("fingerprint", |(_, of)| Some(of.fingerprint.clone()))
        .text("kind", |(_, of)| Some(of.kind.word().to_owned()))
        .text("action", |(_, of)| Some(of.action.sql().to_owned()))
        .texts("partition", |(_, of)| of.partition.clone())
        .text("outcome", |(_, of)| Some(of.outcome.word().to_owned()))
        .number("rows_checked", |(_, of)| {
            i64::try_from(of.rows_checked).ok()
        })
        .number("violations", |(_, of)| i64::try_from(of.violations).ok())
        .number("nulls", |(_, of)| i64::try_from(of.nulls).ok())
        .list("observed", |(_, of)| of.observed.clone())
        .list("threshold", |(_, of)| of.threshold.clone())
        .list("sample", |(_, of)| of.sample.clone())
}

/// The columns that say which write a row is about.
pub(super) fn of_the_write<T: Send + Sync + 'static>(
    write: impl Fn(&T) -> &Arc<Write> + Copy + Send + Sync + 'static,
) -> Columns<T> {
    Columns::new()
        .number("version", move |row: &T| {
            i64::try_from(write(row).version?).ok()
        })
        .instant("timestamp", move |row| Some(write(row).at_ms))
        .number("batch_id", move |row| Some(write(row).batch_id))
        .text("status", move |row| {
            let accepted = write(row).version.is_some();
            Some(if accepted { "accepted" } else { "blocked" }.to_owned())
        })
        .text("operation", move |row| Some(write(row).operation.clone()))
}

/// The rows that `split` makes of each write: of those up to a version, the newest first, then of those that
/// were refused in a time.
pub(super) fn rows<T: Send + 'static>(
    root: &TableRoot,
    newest: u64,
    refused: RangeInclusive<i64>,
    split: fn(Record) -> Vec<T>,
) -> BoxStream<'static, Result<Vec<T>>> {
    let accepted = records::newest_first(root, newest);
    let root = root.clone();
    let blocked = async move {
        let blocked = records::refused(&root, refused).await?;
        Ok::<_, Error>(stream::iter(blocked.into_iter().map(Ok::<_, Error>)))
    };
    accepted
        .chain(stream::once(blocked).try_flatten())
        .map_ok(split)
        .try_chunks(WRITES)
        .map_ok(|rows| rows.into_iter().flatten().collect::<Vec<T>>())
        .map_err(|failed| DataFusionError::from(failed.1))
        .boxed()
}

pub(super) fn split(mut record: Record) -> Vec<Row> {
    let rules = std::mem::take(&mut record.report.rules);
    let write = Write::of(&mut record);
    let rows = rules.into_iter();
    rows.map(|result| (Arc::clone(&write), result)).collect()
}

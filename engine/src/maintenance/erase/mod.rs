//! CLEANSE TABLE .. ERASE: all versions before a clean one end, and what only they held is deleted.
//!
//! ```text
//! intent -> note (a commit: the first version that stays) -> records redacted -> objects of older versions deleted
//! -> checkpoint of the first version -> older checkpoints deleted, older commits hollow -> intent removed
//! ```
//!
//! - `pending`: the intent
//! - `past`: what only the older versions had
//!
//! Up to the note, nothing has happened. From there on every step can be done again, in the same order, by the
//! next statement or the next writer of any process: the log is the last that goes, because it says what else
//! has to. The table can be read at every step, for the checkpoint is there before any of the log before it goes.

mod past;
mod pending;

use std::sync::Arc;

use self::past::Past;
use self::pending::Pending;
use super::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Meter;
use crate::settings::Settings;
use crate::table::handle::Table;
use crate::table::records::{self, Forget};
use crate::table::snapshot::Snapshot;
use crate::table::{checkpoint, erased, protocol, replay};
use crate::write::commit::{self, Intent, Outcome};
use crate::write::conflict::Reads;
use crate::write::report::WriteReport;

/// What was erased.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Erasure {
    /// The first version that stays.
    pub first: u64,
    /// Objects that were deleted.
    pub objects: u64,
    pub bytes: u64,
}

/// Refuses tables whose past cannot be ended.
pub(crate) fn check(name: &str, base: &Snapshot) -> Result<()> {
    protocol::check_writable(name, base)?;
    if base.has_writer_feature("v2Checkpoint") {
        return Err(Error::unsupported(format!(
            "CLEANSE TABLE {name} ERASE: the table has the Delta feature v2Checkpoint, whose checkpoints share \
             files, so that the older ones cannot be deleted"
        ))
        .with_hint("CLEANSE TABLE without ERASE, and delete the old versions with the engine that made it"));
    }
    Ok(())
}

/// Ends all versions up to `base`, whose rows are clean, with a commit that says `parameters` and `report` of
/// `intent`. None when the table has changed since, so that the new version may not be clean.
pub(crate) async fn run(
    job: &Job,
    base: &Arc<Snapshot>,
    forget: Forget,
    intent: Intent,
) -> Result<Option<(WriteReport, Erasure)>> {
    check(&job.name, base)?;
    let (table, root) = (&job.table, &job.table.root);
    let _turn = table.past.lock().await;
    // One that was cut short is finished with this one, or by itself, should this one fail.
    let pending = match pending::read(root).await? {
        Some(older) => Pending {
            base: older.base.min(base.version),
            forget: forget.and(older.forget),
        },
        None => Pending {
            base: base.version,
            forget,
        },
    };
    pending::write(root, &pending).await?;
    let note = erased::note(base.version + 1, table.ambient.now_ms())?;
    let intent = Intent {
        base: Some(Arc::clone(base)),
        transaction: Some(note),
        // What came in between has to be looked at first.
        reads: Reads::Exclusive,
        ..intent
    };
    let once = Settings {
        max_commit_retries: 0,
        ..job.settings.clone()
    };
    let report = match commit::commit(Arc::clone(table), intent, &once).await {
        Ok(Outcome::Committed(report)) => report,
        Ok(Outcome::Conflict(reason)) => {
            tracing::debug!(reason, table = job.name, "the past is ended anew");
            return Ok(None);
        }
        Ok(Outcome::Unknown(error)) => return Err(error),
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
        Err(error) => return Err(error),
    };
    let done = end(table, &job.name, &pending, &job.meter).await?;
    Ok(Some((report, done.unwrap_or_default())))
}

/// What would end and go if nothing but the version `base` were to stay.
pub(crate) async fn rehearse(job: &Job, base: &Arc<Snapshot>) -> Result<Erasure> {
    check(&job.name, base)?;
    let (table, now_ms) = (&job.table, job.table.ambient.now_ms());
    let past = Past::of(&table.root, base).await?;
    let objects = past.objects(table, &job.name, base, base, now_ms).await?;
    Ok(Erasure {
        first: base.version + 1,
        objects: objects.len() as u64,
        bytes: objects.iter().map(|object| object.size).sum(),
    })
}

/// Finishes an erasure that was cut short, if there is one.
pub(crate) async fn finish(table: &Arc<Table>, name: &str) -> Result<Option<Erasure>> {
    let _turn = table.past.lock().await;
    match pending::read(&table.root).await? {
        Some(pending) => end(table, name, &pending, &Meter::new("CLEANSE", None)).await,
        None => Ok(None),
    }
}

/// Everything after the note. None where there is nothing to end.
async fn end(
    table: &Arc<Table>,
    name: &str,
    pending: &Pending,
    meter: &Meter,
) -> Result<Option<Erasure>> {
    let root = &table.root;
    let head = table.pin(name).await?;
    // Without the note, the statement has failed before it did anything.
    let noted = erased::of(&head).filter(|erased| erased.first > pending.base);
    let Some(erased) = noted else {
        return Ok(None);
    };
    let kept = replay::load(root, Some(erased.first))
        .await?
        .ok_or_else(|| {
            Error::corrupt(format!(
                "table {name} has no version {}, which is to stay",
                erased.first
            ))
        })?;
    let past = Past::of(root, &kept).await?;
    records::redact(table, erased.first, &pending.forget).await?;
    let objects = past
        .objects(table, name, &head, &kept, erased.at_ms)
        .await?;
    let mut done = Erasure {
        first: erased.first,
        objects: objects.len() as u64,
        bytes: objects.iter().map(|object| object.size).sum(),
    };
    meter.expect(done.objects, done.bytes);
    past::delete(root, objects, meter).await?;
    checkpoint::forgetful(table, &kept).await?;
    done.objects += past.log(root, kept.version, table.ambient.now_ms()).await?;
    pending::remove(root).await?;
    // What is in memory still knows of the files that are gone, and would tell later checkpoints.
    table.forget();
    let Erasure {
        first,
        objects,
        bytes,
    } = done;
    tracing::info!(
        table = name,
        first,
        objects,
        bytes,
        "older versions were erased"
    );
    Ok(Some(done))
}

//! The run of a planned write to a journal: its events into a spool, the verdicts, and then the step, again and again
//! until its commit lands. A write whose rows were made from the table itself is made anew by its statement instead.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::logical_expr::dml::InsertOp;

use super::super::commit::{self, Intent, Outcome, Removes};
use super::super::conflict::{Reads, TouchedKeys};
use super::super::files::{FileSink, Held, Written};
use super::super::quarantine::{Quarantine, side_files};
use super::super::report::WriteReport;
use super::super::run::{account, parameters, remember_refusal, table_of, verdict};
use super::super::stages::{Checked, Settled, WriteRun};
use super::super::target::{JournalMode, JournalTarget, WriteTarget};
use super::accept::{Accepted, Wants, accept};
use super::refusal::{RULE, differing, unmoved};
use super::step::{Made, Round};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::definition::LatePolicy;
use crate::quality::record::{RuleResult, SideFile};
use crate::table::snapshot::Snapshot;

/// Events of which the keys are held as hashes, to look for just them. A write of more reads all that is current.
const MOST_KEYS: u64 = 8 << 20;

/// The same where there is nothing to look in yet. Should another writer come first, so few are still picked out of
/// what it wrote.
const FIRST_KEYS: u64 = 64 << 10;

/// Runs a write to its commit.
pub(in crate::write) async fn run(
    rows: &Checked,
    target: &WriteTarget,
    journal: &JournalTarget,
    op: InsertOp,
    context: &Arc<TaskContext>,
) -> Result<WriteReport> {
    let started_ms = target.ambient.now_ms();
    let _running = target.table.running.begin(started_ms, true);
    let run = rows.account.begin(context).await?;
    let mode = Mode::of(target, journal, op, run.sets_aside());
    let quarantine = match mode.quarantines {
        true => Some(Quarantine::new(target)?),
        false => None,
    };
    let write = Write {
        rows,
        target,
        journal,
        op,
        context,
        mode,
        sink: sink(target, journal)?,
        quarantine,
        started_ms,
    };
    let (accepted, settled, aside) = write.accept(run).await?;
    match settled {
        Verdict::Accepted(settled) => Box::pin(write.land(&accepted, *settled, aside)).await,
        Verdict::Refused(report, error) => {
            if let Some(aside) = aside {
                aside.discard().await;
            }
            remember_refusal(target, *report, &error).await;
            Err(error)
        }
    }
}

fn sink(target: &WriteTarget, journal: &JournalTarget) -> Result<FileSink> {
    let sink = FileSink::new(
        &target.table.root,
        &journal.shape.stored,
        table_of(target)?,
        target.settings.target_file_bytes,
        target.ambient.ids(),
        target.ambient.millis(),
    )?;
    sink.of_journal(&journal.shape.definition.columns.current)
}

/// What kind of write it is.
#[derive(Debug, Clone, Copy)]
struct Mode {
    /// Whether the rows hold all there is of their instants.
    snapshots: bool,
    /// Whether they are one snapshot.
    one: bool,
    /// Whether rows may go to quarantine.
    quarantines: bool,
}

impl Mode {
    fn of(target: &WriteTarget, journal: &JournalTarget, op: InsertOp, sets_aside: bool) -> Self {
        let one = op == InsertOp::Overwrite && journal.mode == JournalMode::Changes;
        let late = journal.shape.definition.late.policy == LatePolicy::Quarantine;
        Self {
            snapshots: one || journal.mode == JournalMode::Snapshots,
            one,
            // A table that is being made has no history that a row could come too late for.
            quarantines: sets_aside || (late && target.creates.is_none()),
        }
    }
}

/// What the stages say of a write whose events are all there.
enum Verdict {
    Accepted(Box<Settled>),
    Refused(Box<WriteReport>, Error),
}

struct Write<'a> {
    rows: &'a Checked,
    target: &'a WriteTarget,
    journal: &'a JournalTarget,
    op: InsertOp,
    context: &'a Arc<TaskContext>,
    mode: Mode,
    sink: FileSink,
    quarantine: Option<Quarantine>,
    started_ms: i64,
}

/// The files of a try, which a commit may name.
struct Files {
    written: Written,
    kept: Option<(FileSink, Written)>,
    aside: Option<Written>,
}

impl Write<'_> {
    /// The events, the verdict of the stages, and the rows that they put aside.
    async fn accept(&self, mut run: WriteRun) -> Result<(Accepted, Verdict, Option<Held>)> {
        let aside = run.aside();
        // A statement that changes current rows means all of them.
        let sender = match self.journal.mode {
            JournalMode::Dml => None,
            _ => run.sends_invalid()?,
        };
        let main = async {
            let plan = &self.rows.plan;
            let shape = &self.journal.shape;
            let accepted = accept(plan, shape, self.wants(), sender, self.context).await;
            run.aside_ends();
            accepted
        };
        let (accepted, aside) = match (aside, &self.quarantine) {
            (Some(aside), Some(quarantine)) => {
                // Where one fails, the other ends: rows nobody takes are an error, and no rows are an end.
                match tokio::join!(main, quarantine.hold(aside, self.context)) {
                    (Ok(accepted), Ok(aside)) => (accepted, Some(aside)),
                    (Err(error), Ok(left)) => {
                        left.discard().await;
                        return Err(error);
                    }
                    (Ok(_), Err(error)) | (Err(_), Err(error)) => return Err(error),
                }
            }
            _ => (main.await?, None),
        };
        let judged = self.judge(run, &accepted, aside.as_ref()).await;
        match judged {
            Ok(verdict) => Ok((accepted, verdict, aside)),
            Err(error) => {
                if let Some(aside) = aside {
                    aside.discard().await;
                }
                Err(error)
            }
        }
    }

    /// What the tries ask of the events.
    fn wants(&self) -> Wants {
        let target = self.target;
        let empty = target
            .base
            .as_ref()
            .is_none_or(|base| base.files.is_empty());
        Wants {
            instants: self.mode.snapshots,
            keys: match self.mode.snapshots || target.creates.is_some() {
                // A snapshot is held against all that is current, a table that is made anew against nothing.
                true => 0,
                false if empty => FIRST_KEYS,
                false => MOST_KEYS,
            },
        }
    }

    async fn judge(
        &self,
        run: WriteRun,
        accepted: &Accepted,
        aside: Option<&Held>,
    ) -> Result<Verdict> {
        let (target, shape) = (self.target, &self.journal.shape);
        let aside = aside.map_or(0, |aside| aside.written().rows);
        // Rows that differ at one instant went there behind the stages, which know nothing of them.
        let by_stages = aside.saturating_sub(accepted.aside);
        let mut settled = verdict(run, target, (accepted.arrived, by_stages)).await?;
        if let Some(error) = settled.refused.take() {
            let report = account(&mut settled, target);
            return Ok(Verdict::Refused(Box::new(report), error));
        }
        let told = &accepted.differing;
        if told.rows > accepted.aside {
            return Err(differing(shape, told));
        }
        if told.rows > 0 {
            settled.rows_quarantined += accepted.aside;
            let arrived = accepted.arrived;
            let first = told.first().to_owned();
            let result = RuleResult::of_table(RULE.to_owned(), arrived, told.rows, first);
            settled.rules.push(result);
        }
        let instants = accepted.instants.as_ref().map_or(0, BTreeSet::len);
        if self.mode.one && instants > 1 {
            return Err(Error::rejected(format!(
                "INSERT OVERWRITE of table {}: a snapshot is of one instant, and its rows have {instants} of them",
                target.name
            ))
            .with_hint("INSERT INTO .. AS SNAPSHOTS takes each instant as a snapshot of its own"));
        }
        let left = settled.rows_dropped + settled.rows_quarantined;
        // What left the path would be taken for what nobody has any more.
        if self.mode.snapshots && left > 0 {
            return Err(Error::rejected(format!(
                "table {}: {left} of {} rows of the snapshot did not pass its rules, and their keys would be closed",
                target.name, settled.rows_received
            ))
            .with_hint("repair these rows, or load what is good as changes: INSERT INTO"));
        }
        // The keys that rows leave, end; those that rows get, may be other rows' that should stay.
        if self.journal.moves && left > 0 {
            return Err(unmoved(target, left, settled.rows_received));
        }
        Ok(Verdict::Accepted(Box::new(settled)))
    }

    /// Tries until one commit lands.
    async fn land(
        &self,
        accepted: &Accepted,
        settled: Settled,
        aside: Option<Held>,
    ) -> Result<WriteReport> {
        let invalid = match &aside {
            Some(aside) => side_files(aside.written())?,
            None => Vec::new(),
        };
        let draft = self.draft(settled, accepted, invalid)?;
        // From the first commit on it may be named.
        let mut held = aside;
        let mut kept = None;
        let landed = self.tries(accepted, draft, &mut held, &mut kept).await;
        match landed {
            Ok(report) => Ok(report),
            Err(Failed::Known(error)) => {
                if let (Some(quarantine), Some(kept)) = (&self.quarantine, &kept) {
                    quarantine.discard(kept).await;
                }
                if let Some(held) = held {
                    held.discard().await;
                }
                Err(error)
            }
            // The store may still hold the commit, so its files must stay.
            Err(Failed::Unknown(error)) => Err(error),
        }
    }

    async fn tries(
        &self,
        accepted: &Accepted,
        draft: Intent,
        aside: &mut Option<Held>,
        kept: &mut Option<Written>,
    ) -> std::result::Result<WriteReport, Failed> {
        let target = self.target;
        let round = Round {
            target,
            journal: self.journal,
            accepted,
            state: self.rows.account.state()?,
            context: self.context,
            sink: &self.sink,
            quarantine: self.quarantine.as_ref(),
            quarantines_invalid: self.rows.account.quarantines_invalid()
                && self.journal.mode != JournalMode::Dml,
            snapshots: self.mode.snapshots,
        };
        // A table that is made anew begins without what was there before.
        let mut base = match target.creates {
            Some(_) => None,
            None => target.base.clone(),
        };
        for _ in 0..=target.settings.max_commit_retries {
            let made = Box::pin(round.run(base.as_ref())).await?;
            let mut intent = self.intent(&draft, accepted, &made)?;
            if target.creates.is_none() {
                intent.base.clone_from(&base);
            }
            if intent.says_nothing() {
                made.discard().await;
                return Ok(intent.report);
            }
            if let Some(held) = aside.take() {
                *kept = Some(held.keep());
            }
            let files = Files {
                written: made.written.keep(),
                kept: made.kept.map(|kept| (kept.sink, kept.held.keep())),
                aside: made.aside.map(Held::keep),
            };
            let table = Arc::clone(&target.table);
            let reason = match commit::commit(table, intent, &target.settings).await {
                Ok(Outcome::Committed(report)) => return Ok(report),
                Ok(Outcome::Unknown(error)) => return Err(Failed::Unknown(error)),
                Ok(Outcome::Conflict(reason)) => reason,
                Err(error) => {
                    self.discard(&files).await;
                    return Err(Failed::Known(error));
                }
            };
            self.discard(&files).await;
            base = match (self.again(&draft), base) {
                (true, Some(old)) => Some(self.newer(&old, &reason).await?),
                _ => return Err(Failed::Known(conflict(reason))),
            };
            tracing::debug!(table = %target.name, reason, "the step of a journal is done again");
        }
        Err(Failed::Known(
            Error::new(
                ErrorKind::Conflict,
                format!(
                    "{} of table {} gave up after {} tries: other writers were faster",
                    target.operation,
                    target.name,
                    target.settings.max_commit_retries + 1
                ),
            )
            .with_hint("run the statement again, or raise max_commit_retries"),
        ))
    }

    /// Whether the same events mean the same on a newer version.
    fn again(&self, draft: &Intent) -> bool {
        !self.target.reads_itself
            // Keys may have been asked for since.
            && !draft.forgets
            && self.journal.mode != JournalMode::Dml
            && draft.replayed.is_empty()
            && !draft.compares
    }

    /// The newest version, if its columns and terms are still those of the plan.
    async fn newer(
        &self,
        old: &Snapshot,
        reason: &str,
    ) -> std::result::Result<Arc<Snapshot>, Failed> {
        let newest = self.target.table.pin(&self.target.name).await?;
        match newest.metadata == old.metadata && newest.protocol == old.protocol {
            true => Ok(newest),
            false => Err(Failed::Known(conflict(reason.to_owned()))),
        }
    }

    /// What the write wants to become true, as far as the stages tell it.
    fn draft(
        &self,
        mut settled: Settled,
        accepted: &Accepted,
        quarantine: Vec<SideFile>,
    ) -> Result<Intent> {
        let target = self.target;
        let mut report = account(&mut settled, target);
        report.rows_written = 0;
        report.rows_accepted = accepted.rows;
        let upserts = accepted.rows - accepted.deletes;
        if self.journal.mode == JournalMode::Dml {
            match target.operation {
                "UPDATE" => report.rows_updated = upserts,
                "DELETE" | "TRUNCATE" => report.rows_deleted = accepted.deletes,
                _ => {}
            }
        }
        let replaces = target.creates.is_some() && target.base.is_some();
        Ok(Intent {
            name: target.name.clone(),
            base: target.base.clone(),
            operation: target.operation,
            parameters: parameters(target, self.op),
            protocol: target.creates.as_ref().map(|new| new.protocol.clone()),
            metadata: target.creates.as_ref().map(|new| new.metadata.clone()),
            removes: match replaces {
                true => Removes::All,
                false => Removes::None,
            },
            adds: Vec::new(),
            user: target.user.clone(),
            reads: self.reads(accepted)?,
            vectors: target.vectors.clone(),
            rearranges: false,
            transaction: None,
            quarantine,
            replayed: target.replayed(&settled.taken)?,
            keeping: None,
            compares: settled.looked_back,
            forgets: !report.policies.is_empty(),
            report,
        })
    }

    /// What the write depends on in the table it goes to. Without the keys of the events that is any row of it: a
    /// first load that meets another writer is held against what that one wrote, as any later write is.
    fn reads(&self, accepted: &Accepted) -> Result<Reads> {
        let target = self.target;
        // What was in the table before it was made anew is nothing to the rows that come.
        if target.creates.is_some() && !target.reads_itself {
            return Ok(Reads::Nothing);
        }
        let whole = self.mode.snapshots || target.reads_itself;
        // Rows that a statement chose among all current ones depend on each of them.
        let chosen = self.journal.mode == JournalMode::Dml;
        Ok(match &accepted.keys {
            Some(keys) if !whole && !chosen => Reads::Keys(Arc::new(TouchedKeys {
                shape: Arc::clone(&self.journal.shape),
                keys: vec![Arc::clone(keys)],
                state: self.rows.account.state()?.clone(),
            })),
            _ => Reads::Table,
        })
    }

    /// The same with what a try has made.
    fn intent(&self, draft: &Intent, accepted: &Accepted, made: &Made) -> Result<Intent> {
        let mut intent = draft.clone();
        let written = made.written.written();
        intent.adds.clone_from(&written.adds);
        if !made.removed.is_empty() {
            intent.removes = Removes::Rows(Arc::new(made.removed.clone()));
        }
        intent.keeping.clone_from(&made.keeping);
        intent.transaction.clone_from(&made.told);
        if let Some(aside) = &made.aside {
            intent.quarantine.extend(side_files(aside.written())?);
        }
        let report = &mut intent.report;
        report.rows_written = written.rows;
        report.rows_accepted = accepted.rows.saturating_sub(made.rows_aside);
        report.rows_quarantined += made.rows_aside;
        report.rows_unchanged = made.counts.unchanged;
        report.rows_late = made.counts.late;
        report.intervals_opened = made.counts.opened;
        report.intervals_closed = made.counts.closed;
        report.intervals_updated = made.counts.updated;
        report.duration_ms = (self.target.ambient.now_ms() - self.started_ms).max(0) as u64;
        if made.rows_aside > 0 {
            let told = format!(
                "{} came too late, {} differ from what is stored",
                made.rows_aside - made.rows_clashing,
                made.rows_clashing
            );
            let (arrived, aside) = (accepted.arrived, made.rows_aside);
            let result = RuleResult::of_table(RULE.to_owned(), arrived, aside, told);
            report.rules.push(result);
        }
        Ok(intent)
    }

    /// Deletes files that a commit could have named, and none does.
    async fn discard(&self, files: &Files) {
        self.sink.discard(&files.written.adds).await;
        if let Some((sink, written)) = &files.kept {
            sink.discard(&written.adds).await;
        }
        if let (Some(quarantine), Some(aside)) = (&self.quarantine, &files.aside) {
            quarantine.discard(aside).await;
        }
    }
}

/// Why no try has landed.
enum Failed {
    /// Nothing of it is there.
    Known(Error),
    /// It may be there.
    Unknown(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Known(error)
    }
}

fn conflict(reason: String) -> Error {
    Error::new(ErrorKind::Conflict, reason).with_hint("run the statement again")
}

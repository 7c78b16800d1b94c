//! The commit of files that were cleansed: of the table, of quarantine and of kept events, in the same instant.
//!
//! A file that another statement changed meanwhile is given up, and what was made of it is deleted; it is done again in
//! the next round.

use std::sync::Arc;

use super::aside::Moved;
use super::events::{self, Refolded};
use super::report;
use super::rewrite::{Rewritten, Tally};
use crate::cleanse::apply::Running;
use crate::error::Result;
use crate::journal::horizon;
use crate::maintenance::Job;
use crate::table::records;
use crate::table::snapshot::Snapshot;
use crate::write::commit::{self, Intent, Outcome, Removes};
use crate::write::files::FileSink;
use crate::write::report::WriteReport;

/// Files that were written anew, which nobody sees yet.
#[derive(Default)]
pub(super) struct Pieces {
    pub files: Vec<Rewritten>,
    pub aside: Vec<Moved>,
    pub events: Vec<Refolded>,
}

impl Pieces {
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.aside.is_empty() && self.events.is_empty()
    }

    pub(super) async fn discard(&self, sink: &FileSink) {
        for piece in &self.files {
            sink.discard(&piece.adds).await;
        }
        for moved in &self.aside {
            moved.discard().await;
        }
        for refolded in &self.events {
            refolded.discard().await;
        }
    }

    /// Keeps those whose files `head` has as they were read in `base`, and discards the others.
    async fn fitting(
        self,
        job: &Job,
        sink: &FileSink,
        base: &Snapshot,
        head: &Snapshot,
    ) -> Result<Self> {
        if base.version == head.version {
            return Ok(self);
        }
        let live = match self.aside.is_empty() {
            true => Vec::new(),
            false => match records::quarantine(&job.table.root, head.version, i64::MIN).await {
                Ok(live) => live,
                Err(error) => {
                    self.discard(sink).await;
                    return Err(error);
                }
            },
        };
        let kept = match horizon::of(head) {
            Ok(kept) => kept,
            Err(error) => {
                self.discard(sink).await;
                return Err(error);
            }
        };
        let same = head.metadata == base.metadata && head.protocol == base.protocol;
        let (files, changed) = self.files.into_iter().partition(|piece| {
            let file = &piece.found.file;
            same && head.files.get(&file.add.path) == Some(file)
        });
        let (aside, taken) = self
            .aside
            .into_iter()
            .partition(|moved| same && live.contains(&moved.old));
        let (events, folded) = self
            .events
            .into_iter()
            .partition(|refolded| same && kept.files.contains(&refolded.old));
        let given_up = Self {
            files: changed,
            aside: taken,
            events: folded,
        };
        given_up.discard(sink).await;
        Ok(Self {
            files,
            aside,
            events,
        })
    }

    fn tally(&self, running: &Running) -> Tally {
        let mut all = Tally::of(running);
        let files = self.files.iter().map(|piece| &piece.tally);
        for tally in files.chain(self.aside.iter().map(|moved| &moved.tally)) {
            all.merge(tally);
        }
        all
    }
}

/// Commits what still fits; None when nothing does.
pub(super) async fn land(
    job: &Job,
    sink: &FileSink,
    running: &Running,
    intent: Intent,
    mut pieces: Pieces,
) -> Result<Option<(Pieces, u64)>> {
    let Some(base) = intent.base.clone() else {
        return Ok(None);
    };
    let mut head = Arc::clone(&base);
    loop {
        pieces = pieces.fitting(job, sink, &base, &head).await?;
        if pieces.is_empty() {
            return Ok(None);
        }
        let by_path = |piece: &Rewritten| {
            let file = &piece.found.file;
            (file.add.path.clone(), Arc::clone(file))
        };
        let rows = pieces.files.iter().map(|piece| piece.rows).sum();
        let attempt = Intent {
            base: Some(Arc::clone(&head)),
            adds: pieces.files.iter().flat_map(|p| p.adds.clone()).collect(),
            removes: Removes::Files(pieces.files.iter().map(by_path).collect()),
            quarantine: pieces.aside.iter().flat_map(|m| m.files.clone()).collect(),
            replayed: pieces.aside.iter().map(|m| m.taken.clone()).collect(),
            keeping: events::keeping(&head, &pieces.events)?,
            report: WriteReport {
                rows_written: rows,
                ..report(running, &pieces.tally(running), intent.report.clone())
            },
            ..intent.clone()
        };
        let outcome = commit::commit(Arc::clone(&job.table), attempt, &job.settings).await;
        let refused = match outcome {
            Ok(Outcome::Committed(report)) => {
                return Ok(report.version.map(|version| (pieces, version)));
            }
            // The store may still hold the commit, so its files must stay.
            Ok(Outcome::Unknown(error)) => return Err(error),
            Ok(Outcome::Conflict(reason)) => {
                tracing::debug!(reason, table = job.name, "some cleansed files have changed");
                job.table.pin(&job.name).await
            }
            Err(error) => Err(error),
        };
        match refused {
            Ok(newest) => head = newest,
            Err(error) => {
                pieces.discard(sink).await;
                return Err(error);
            }
        }
    }
}

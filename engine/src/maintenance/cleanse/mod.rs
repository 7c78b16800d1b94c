//! CLEANSE TABLE: what policies take away is taken out of the rows that lie already, those in quarantine included.
//!
//! ```text
//! files the log does not clear -> those that hold something -> rewrite -> commit those that are still what they were
//! -> look again, until every file of the newest version is known to be clean -> ERASE: the versions before end
//! ```
//!
//! - `find`: which files
//! - `rewrite`: a file of the table, anew
//! - `aside`: a file of quarantine, anew
//! - `events`: a file of the events that a journal keeps, anew
//! - `land`: the commit
//!
//! A file never changes its rows, so one that was found clean is clean in every version that has it. Each commit is
//! whole by itself: a run that was cut short has done a part, and the next does the rest.

pub(crate) mod aside;
mod events;
mod find;
mod land;
pub(crate) mod rewrite;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde_json::Value;

use self::aside::Asked;
use self::find::Found;
use self::land::Pieces;
use self::rewrite::Tally;
use super::erase::{self, Erasure};
use super::{Job, bytes};
use crate::cleanse::apply::{Counts, Running, counted};
use crate::cleanse::compile::{Compiled, CompiledPolicy};
use crate::cleanse::policy::PolicyAction;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::horizon;
use crate::journal::shape::Shape;
use crate::quality::check::CompiledCheck;
use crate::table::actions::Metadata;
use crate::table::records::{self, Forget, Quarantined};
use crate::table::snapshot::{DataFile, Snapshot};
use crate::table::{mapping, protocol};
use crate::write::commit::Intent;
use crate::write::report::WriteReport;

/// How often the newest version is looked at while other statements add to it, or change what is rewritten.
const ROUNDS: usize = 16;

/// Files of the target size that are rewritten before they are committed.
const BATCH_FILES: u64 = 8;

/// Files that one commit takes at most, however small they are.
const MOST_FILES: usize = 1024;

/// What CLEANSE TABLE is to do.
#[derive(Debug)]
pub(crate) struct Request {
    /// The policies of the table, with their keys: one is never run against a stricter one.
    pub running: Arc<Running>,
    /// The policy whose rows are looked for; None: all of them.
    pub policy: Option<String>,
    /// What holds for the rows as policies leave them.
    pub checks: Arc<[CompiledCheck]>,
    /// What the table was when they were compiled.
    pub metadata: Arc<Metadata>,
    pub erase: bool,
    pub dry_run: bool,
}

/// What CLEANSE TABLE did, or would do, by one policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub policy: String,
    pub keys: u64,
    /// Files that were read for it.
    pub files_scanned: u64,
    /// Files that held something of it, deleted rows included.
    pub files_rewritten: u64,
    /// Visible rows of which cells were changed, and that were left out.
    pub rows_nullified: u64,
    pub rows_deleted: u64,
    /// Rows in quarantine that it is about, in files of which something changed.
    pub quarantine_rows: u64,
    /// Bytes of the files that took the place of those; of a dry run, of the files that would be rewritten.
    pub bytes_written: u64,
    /// The last version that was committed, if any.
    pub version: Option<u64>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Runs CLEANSE TABLE.
pub(crate) async fn run(job: &Job, request: &Request) -> Result<Vec<Done>> {
    let table = &job.table;
    let _turn = table.compacting.lock().await;
    let _running = table.running.begin(table.ambient.now_ms(), false);
    let mut work = Work::new(job, request);
    for _ in 0..ROUNDS {
        let base = table.pin(&job.name).await?;
        work.check(&base)?;
        let (found, beside) = work.look(&base).await?;
        if request.dry_run {
            work.rehearse(&base, &found, beside).await?;
            let erasure = match request.erase {
                true => Some(erase::rehearse(job, &base).await?),
                false => None,
            };
            return Ok(work.end(erasure));
        }
        if !found.is_empty() || !beside.is_empty() {
            work.cleanse(&base, found, beside).await?;
            continue;
        }
        if !request.erase {
            return Ok(work.end(None));
        }
        // Nothing of this version holds what is to be forgotten: those before it may.
        let ended = erase::run(job, &base, forget(work.running), work.intent(&base)).await?;
        if let Some((report, erasure)) = ended {
            for done in &mut work.done {
                done.version = report.version;
            }
            return Ok(work.end(Some(erasure)));
        }
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "CLEANSE of table {} gave up after {ROUNDS} rounds: other statements went on changing it",
            job.name
        ),
    )
    .with_hint("what it has done stays done; run the statement again"))
}

/// One statement's work.
struct Work<'a> {
    job: &'a Job,
    request: &'a Request,
    running: &'a Arc<Running>,
    /// Paths of files in which nothing is to be cleansed.
    clean: HashSet<String>,
    done: Vec<Done>,
    /// What was committed, all commits together.
    tally: Tally,
}

/// A file of quarantine in which something is to be cleansed.
type Aside = (Quarantined, Asked);

/// Files beside those of the table in which something is to be cleansed.
#[derive(Default)]
struct Beside {
    quarantine: Vec<Aside>,
    events: Vec<events::Found>,
}

impl Beside {
    fn is_empty(&self) -> bool {
        self.quarantine.is_empty() && self.events.is_empty()
    }
}

impl<'a> Work<'a> {
    fn new(job: &'a Job, request: &'a Request) -> Self {
        let running = &request.running;
        let policies = running.compiled().policies().iter().enumerate();
        let done = policies.map(|(at, policy)| Done {
            policy: policy.policy().name.clone(),
            keys: running.keys(at).map_or(0, |keys| keys.distinct()),
            ..Done::default()
        });
        Self {
            job,
            request,
            running,
            clean: HashSet::new(),
            done: done.collect(),
            tally: Tally::of(running),
        }
    }

    fn check(&self, base: &Snapshot) -> Result<()> {
        let name = &self.job.name;
        protocol::check_writable(name, base)?;
        if self.request.erase {
            erase::check(name, base)?;
        }
        if base.metadata != self.request.metadata {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("table {name} was altered while it was cleansed"),
            )
            .with_hint("what was done stays done; run the statement again"));
        }
        Ok(())
    }

    /// What is answered.
    fn end(mut self, erasure: Option<Erasure>) -> Vec<Done> {
        let ended = erasure.map(|ended| {
            let verb = match self.request.dry_run {
                true => "would be",
                false => "were",
            };
            let objects = counted(ended.objects, "object");
            format!(
                "versions before {} {verb} ended: {objects}, {} bytes deleted",
                ended.first, ended.bytes
            )
        });
        let results = self.running.results(&self.tally.counts);
        for (done, result) in self.done.iter_mut().zip(results) {
            done.notes = result.notes;
            done.notes.extend(ended.clone());
        }
        let chosen = self.request.policy.as_ref();
        self.done
            .retain(|done| chosen.is_none_or(|chosen| done.policy == *chosen));
        self.done
    }

    /// The files in which something is to be cleansed.
    async fn look(&mut self, base: &Arc<Snapshot>) -> Result<(Vec<Found>, Beside)> {
        let (job, running) = (self.job, self.running);
        let state = job.state(job.settings.target_partitions);
        let files = base.files.values();
        let files: Vec<_> = files
            .filter(|file| !self.clean.contains(&file.add.path))
            .cloned()
            .collect();
        let paths: Vec<String> = files.iter().map(|file| file.add.path.clone()).collect();
        let asked = self.request.policy.as_deref();
        let suspects = find::suspects(base, running, asked, files, &state.task_ctx()).await?;
        let total = suspects.iter().map(|found| bytes(&found.file)).sum();
        job.meter.expect(suspects.len() as u64, total);
        for suspect in &suspects {
            for (done, asked) in self.done.iter_mut().zip(&suspect.policies) {
                done.files_scanned += u64::from(*asked);
            }
        }
        let mut found: Vec<Found> = stream::iter(suspects)
            .map(|suspect| find::examine(job, base, running, suspect).boxed())
            .buffer_unordered(job.settings.target_partitions.max(1))
            .try_collect()
            .await?;
        found.retain(|found| {
            let holds = found.policies.contains(&true);
            if !holds {
                job.meter.done(1, bytes(&found.file));
            }
            holds
        });
        let holding: HashSet<&str> = found.iter().map(|f| f.file.add.path.as_str()).collect();
        let clean = paths.iter().filter(|path| !holding.contains(path.as_str()));
        self.clean.extend(clean.cloned());
        // By partition and age, so that those which are read together are committed together.
        found.sort_by(|a, b| order(&a.file).cmp(&order(&b.file)));

        let root = &job.table.root;
        let files = records::quarantine(root, base.version, i64::MIN).await?;
        let mut beside = Beside::default();
        for file in files {
            if self.clean.contains(&file.file.path) {
                continue;
            }
            let asked = aside::ask(root, running, &file).await?;
            match asked.changes {
                true => beside.quarantine.push((file, asked)),
                false => {
                    self.clean.insert(file.file.path);
                }
            }
        }
        beside.events = self.look_at_events(base).await?;
        Ok((found, beside))
    }

    /// The files of kept events in which something is to be cleansed.
    async fn look_at_events(&mut self, base: &Arc<Snapshot>) -> Result<Vec<events::Found>> {
        let (job, running) = (self.job, self.running);
        let mut found = Vec::new();
        let Some(shape) = Shape::of(&job.name, base)? else {
            return Ok(found);
        };
        for file in horizon::of(base)?.files {
            if self.clean.contains(&file.path) {
                continue;
            }
            match events::ask(job, base, &shape, running, &file).await? {
                Some(holds) => found.push(holds),
                None => {
                    self.clean.insert(file.path);
                }
            }
        }
        Ok(found)
    }

    /// Counts what would be done.
    async fn rehearse(
        &mut self,
        base: &Arc<Snapshot>,
        found: &[Found],
        beside: Beside,
    ) -> Result<()> {
        for found in found {
            let tally = rewrite::rehearse(self.job, base, self.running, found).await?;
            self.count(found, &tally, bytes(&found.file));
        }
        for (file, asked) in beside.quarantine {
            self.count_aside(&asked.tally, file.file.bytes);
        }
        for found in beside.events {
            self.count_events(&found.counts, found.file.bytes);
        }
        Ok(())
    }

    fn count(&mut self, found: &Found, tally: &Tally, bytes: u64) {
        for (at, done) in self.done.iter_mut().enumerate() {
            let holds = found.policies.get(at).is_some_and(|holds| *holds);
            done.files_rewritten += u64::from(holds);
            done.bytes_written += if holds { bytes } else { 0 };
            done.rows_nullified += tally.changed.get(at).copied().unwrap_or_default();
            done.rows_deleted += tally.counts.policy(at).rows_erased;
        }
        self.tally.merge(tally);
    }

    fn count_aside(&mut self, tally: &Tally, bytes: u64) {
        for (at, done) in self.done.iter_mut().enumerate() {
            let rows = tally.counts.policy(at).rows_matched;
            done.quarantine_rows += rows;
            done.bytes_written += if rows > 0 { bytes } else { 0 };
        }
        self.tally.merge(tally);
    }

    /// Events are no rows of the table: of their files alone is told.
    fn count_events(&mut self, counts: &Counts, bytes: u64) {
        for (at, done) in self.done.iter_mut().enumerate() {
            let own = counts.policy(at);
            let holds = own.rows_erased + own.cells_changed > 0;
            done.files_rewritten += u64::from(holds);
            done.bytes_written += if holds { bytes } else { 0 };
        }
    }

    /// Rewrites files, some at a time, and commits those that are still what they were.
    async fn cleanse(
        &mut self,
        base: &Arc<Snapshot>,
        found: Vec<Found>,
        mut beside: Beside,
    ) -> Result<()> {
        let sink = self.job.sink(base)?;
        let mut batches = batches(found, BATCH_FILES * self.job.settings.target_file_bytes);
        // Rows in quarantine and kept events go with the first of them.
        if batches.is_empty() {
            batches.push(Vec::new());
        }
        for batch in batches {
            let beside = std::mem::take(&mut beside);
            let pieces = self.rewrite(base, &sink, batch, beside).await?;
            let intent = Intent {
                parameters: self.parameters(),
                ..self.job.intent(base, "CLEANSE")
            };
            let landed = land::land(self.job, &sink, self.running, intent, pieces).await?;
            let Some((pieces, version)) = landed else {
                continue;
            };
            for piece in &pieces.files {
                let written = piece.adds.iter().map(|add| add.size.max(0).unsigned_abs());
                self.count(&piece.found, &piece.tally, written.sum());
                let paths = piece.adds.iter().map(|add| add.path.clone());
                self.clean.extend(paths);
            }
            for moved in &pieces.aside {
                self.count_aside(&moved.tally, moved.bytes);
                let paths = moved.files.iter().map(|file| file.path.clone());
                self.clean.extend(paths);
            }
            for refolded in &pieces.events {
                self.count_events(&refolded.counts, refolded.bytes);
                let paths = refolded.came.iter().map(|file| file.path.clone());
                self.clean.extend(paths);
            }
            for done in &mut self.done {
                done.version = Some(version);
            }
        }
        Ok(())
    }

    async fn rewrite(
        &self,
        base: &Arc<Snapshot>,
        sink: &crate::write::files::FileSink,
        found: Vec<Found>,
        beside: Beside,
    ) -> Result<Pieces> {
        let (job, running) = (self.job, self.running);
        let shape = Shape::of(&job.name, base)?;
        let mut pieces = Pieces::default();
        let mut failed = None;
        {
            let mut work = stream::iter(found)
                .map(|found| {
                    rewrite::rewrite(job, base, sink, running, &self.request.checks, found).boxed()
                })
                .buffer_unordered(job.settings.target_partitions.max(1));
            while let Some(outcome) = work.next().await {
                match outcome {
                    Ok(rewritten) => pieces.files.push(rewritten),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        let context = job.state(1).task_ctx();
        for (file, asked) in beside.quarantine {
            if failed.is_some() {
                break;
            }
            match aside::rewrite(job, running, file, asked.tally, &context).await {
                Ok(moved) => pieces.aside.push(moved),
                Err(error) => failed = Some(error),
            }
        }
        // Only a journal has any.
        for (found, shape) in beside.events.into_iter().zip(shape.iter().cycle()) {
            if failed.is_some() {
                break;
            }
            match events::rewrite(job, base, shape, running, found).await {
                Ok(refolded) => pieces.events.push(refolded),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(pieces),
            Some(error) => {
                pieces.discard(sink).await;
                Err(error)
            }
        }
    }

    /// What the log says of it.
    fn parameters(&self) -> BTreeMap<String, Value> {
        let names = self.running.compiled().names();
        let names: Vec<Value> = names.into_iter().map(Value::from).collect();
        BTreeMap::from([
            (
                "policies".to_owned(),
                Value::from(Value::from(names).to_string()),
            ),
            (
                "erase".to_owned(),
                Value::from(self.request.erase.to_string()),
            ),
        ])
    }

    /// The commit that ends the versions before: it says of the whole statement what they can say no more.
    fn intent(&self, base: &Arc<Snapshot>) -> Intent {
        let intent = self.job.intent(base, "CLEANSE");
        let mut report = report(self.running, &self.tally, intent.report.clone());
        // Of the others it is not known whether anything is left.
        let asked = self.request.policy.as_ref();
        let policies = &mut report.policies;
        policies.retain(|result| asked.is_none_or(|asked| result.policy == *asked));
        Intent {
            parameters: self.parameters(),
            report,
            ..intent
        }
    }
}

/// What is to be told no more of the versions that the policies end.
pub(crate) fn forget(running: &Running) -> Forget {
    let compiled = running.compiled();
    let each = compiled.policies().iter();
    let each = each.map(|policy| forget_by(compiled, policy));
    each.reduce(Forget::and)
        .unwrap_or_else(|| Forget::Columns(BTreeSet::new()))
}

/// The same of one policy: what is told of the cells it takes away and of its key, and of columns that may have been
/// those under another name.
pub(crate) fn forget_by(compiled: &Compiled, policy: &CompiledPolicy) -> Forget {
    if matches!(policy.policy().action, PolicyAction::DeleteRows) {
        return Forget::Everything;
    }
    let key = policy.key().map(|key| key.columns()).unwrap_or_default();
    let fields = compiled.schema.fields().iter().enumerate();
    let kept = fields.filter(|(at, field)| {
        let own = policy.columns().contains(at) || key.contains(at);
        // What files call otherwise may have got the name that one of those had.
        !own && mapping::physical_name(field) == field.name().as_str()
    });
    Forget::AllBut(kept.map(|(_, field)| field.name().clone()).collect())
}

/// What a commit says of the policies.
fn report(running: &Running, tally: &Tally, report: WriteReport) -> WriteReport {
    WriteReport {
        rows_erased: tally.counts.rows_erased(),
        policies: running.results(&tally.counts),
        ..report
    }
}

fn order(file: &DataFile) -> (&BTreeMap<String, Option<String>>, i64, &str) {
    let add = &file.add;
    (&add.partition_values, add.modification_time, &add.path)
}

/// Files in their order, so many at a time that they have `bytes` together.
fn batches(found: Vec<Found>, most_bytes: u64) -> Vec<Vec<Found>> {
    let mut batches: Vec<Vec<Found>> = Vec::new();
    let mut open_bytes = 0;
    for found in found {
        let own = bytes(&found.file);
        match batches.last_mut() {
            Some(open) if open_bytes < most_bytes && open.len() < MOST_FILES => {
                open_bytes += own;
                open.push(found);
            }
            _ => {
                open_bytes = own;
                batches.push(vec![found]);
            }
        }
    }
    batches
}

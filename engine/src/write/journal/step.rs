//! One try: the accepted events against one version of the table, up to files that no commit names yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::stream::{EmptyRecordBatchStream, RecordBatchStreamAdapter};
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::super::conflict::TakenRows;
use super::super::files::{FileSink, Held};
use super::super::quarantine::Quarantine;
use super::super::target::{JournalMode, JournalTarget, WriteTarget};
use super::accept::Accepted;
use super::find::{Finder, Stored};
use super::merge::{Gathered, Inputs, Merge};
use super::refusal::{counted, differing, instant, quarantined};
use super::snapshots::Snapshots;
use super::spool::Spool;
use crate::error::{Error, Result};
use crate::journal::definition::{Late, LatePolicy, MAX_DELETE_FRACTION};
use crate::journal::event;
use crate::journal::fold::{Counts, Terms};
use crate::journal::horizon::{self, Keeping, Kept};
use crate::journal::shape::Shape;
use crate::journal::told;
use crate::quality::failure::quarantine_schema;
use crate::table::actions::Txn;
use crate::table::located::Located;
use crate::table::snapshot::Snapshot;

/// The terms of all tries of one write.
pub(super) struct Round<'a> {
    pub target: &'a WriteTarget,
    pub journal: &'a JournalTarget,
    pub accepted: &'a Accepted,
    pub state: &'a SessionState,
    pub context: &'a Arc<TaskContext>,
    /// Files of the table.
    pub sink: &'a FileSink,
    /// Where rows go that came too late, or differ from what is stored; None where the table has none there.
    pub quarantine: Option<&'a Quarantine>,
    /// Whether rows that differ from what is stored go there.
    pub quarantines_invalid: bool,
    /// Whether each row holds all there is of its instant.
    pub snapshots: bool,
}

/// What came of a try.
pub(super) struct Made {
    pub written: Held,
    pub removed: BTreeMap<String, TakenRows>,
    /// Files of events that are kept.
    pub kept: Option<KeptFiles>,
    pub keeping: Option<Keeping>,
    /// The line that notes the newest snapshot, where the table did not know of it.
    pub told: Option<Txn>,
    /// Rows that history had no place for.
    pub aside: Option<Held>,
    pub rows_aside: u64,
    /// Of these, the ones that differ from what is stored.
    pub rows_clashing: u64,
    pub counts: Counts,
}

/// Files of events that are kept, and who can delete them.
pub(super) struct KeptFiles {
    pub held: Held,
    pub sink: FileSink,
}

impl Made {
    pub(super) async fn discard(self) {
        self.written.discard().await;
        if let Some(kept) = self.kept {
            kept.held.discard().await;
        }
        if let Some(aside) = self.aside {
            aside.discard().await;
        }
    }
}

/// What the journal keeps for late events, seen from one version.
struct Horizon {
    kept: Kept,
    watermark: i64,
    /// Events before it are late.
    at: i64,
    after_micros: i64,
}

impl Horizon {
    fn of(shape: &Shape, base: Option<&Snapshot>) -> Result<Option<Self>> {
        let Some(after_micros) = shape.definition.late.after_micros else {
            return Ok(None);
        };
        let kept = match base {
            Some(base) => horizon::of(base)?,
            None => Kept::default(),
        };
        // Before the first write nothing is late.
        let watermark = match kept == Kept::default() {
            true => i64::MIN,
            false => kept.watermark,
        };
        Ok(Some(Self {
            at: watermark.saturating_sub(after_micros),
            kept,
            watermark,
            after_micros,
        }))
    }
}

impl Round<'_> {
    /// Folds the events into what `base` holds. Nothing of it is visible, and on an error nothing is left.
    pub(super) async fn run(&self, base: Option<&Arc<Snapshot>>) -> Result<Made> {
        let shape = &self.journal.shape;
        let at = match self.journal.mode {
            // What changes the current rows says its instant in the rows themselves.
            JournalMode::Dml => self.journal.instant,
            _ => Shape::instant(self.target.batch_id, base.map(AsRef::as_ref)),
        };
        let horizon = Horizon::of(shape, base.map(AsRef::as_ref))?;
        let finder = base.map(|base| Finder {
            shape,
            table: &self.target.table,
            base,
            state: self.state,
            context: self.context,
        });
        let snapshots = match self.snapshots {
            true => Some(self.instants(at, finder.as_ref()).await?),
            false => None,
        };
        let told = self.note(snapshots.as_ref(), base.map(AsRef::as_ref))?;
        let (inputs, located) = self.inputs(at, horizon.as_ref(), finder.as_ref()).await?;
        let terms = Terms {
            shape: self.terms()?,
            horizon: horizon.as_ref().map(|horizon| horizon.at),
            dml: self.journal.mode == JournalMode::Dml,
        };
        let (rows, outcome) = Merge::new(terms, inputs, snapshots, self.context)?.run();
        let written = self.sink.hold_rows(rows, self.context).await?;
        let gathered = outcome.lock().take();
        let gathered =
            gathered.ok_or_else(|| Error::internal("the merge of a journal did not end"))?;
        if let Err(error) = self.judge(&gathered, horizon.as_ref()) {
            written.discard().await;
            return Err(error);
        }
        let mut made = Made {
            written,
            removed: removed(base, located.as_deref(), &gathered.removed)?,
            kept: None,
            keeping: None,
            told,
            aside: None,
            rows_aside: gathered.late.rows() + gathered.clash.rows(),
            rows_clashing: gathered.clash.rows(),
            counts: gathered.counts,
        };
        made.aside = self.set_aside(&gathered, horizon.as_ref()).await?;
        if let Some(horizon) = &horizon {
            self.keep(horizon, base, &gathered.keep, &mut made).await?;
        }
        Ok(made)
    }

    /// The journal, on the terms of this write.
    fn terms(&self) -> Result<Arc<Shape>> {
        let shape = &self.journal.shape;
        if self.target.replays.is_none() || shape.definition.late.policy == LatePolicy::Apply {
            return Ok(Arc::clone(shape));
        }
        // Who takes rows out of quarantine wants them in, however late they are.
        let mut definition = shape.definition.clone();
        definition.late = Late {
            policy: LatePolicy::Apply,
            ..definition.late
        };
        Shape::new(&shape.table, definition, &shape.stored).map(Arc::new)
    }

    /// The instants of snapshots: those of their rows, and where there are none that of the statement.
    async fn instants(&self, at: i64, finder: Option<&Finder<'_>>) -> Result<Snapshots> {
        let told = self.accepted.instants.iter().flatten().copied();
        if self.accepted.rows > 0 {
            return Ok(match self.journal.shape.sequence {
                Some(_) => Snapshots::new(told),
                None => Snapshots::new([at]),
            });
        }
        let current = match finder {
            Some(finder) => finder.current_keys().await?,
            None => 0,
        };
        if current > 0 && self.journal.max_delete_fraction < 1.0 {
            return Err(Error::rejected(format!(
                "{} of table {} has no rows, and would close all of its {}",
                self.operation(),
                self.target.name,
                counted(current, "key")
            ))
            .with_hint(format!(
                "ALTER TABLE .. SET TBLPROPERTIES ('{MAX_DELETE_FRACTION}' = '1') allows it"
            )));
        }
        Ok(Snapshots::new([at]))
    }

    /// The note of the newest snapshot, if it is newer than what the table knows.
    fn note(&self, snapshots: Option<&Snapshots>, base: Option<&Snapshot>) -> Result<Option<Txn>> {
        let Some(snapshots) = snapshots else {
            return Ok(None);
        };
        let shape = &self.journal.shape;
        let known = base.and_then(told::newest);
        snapshots.follow(known, shape, self.operation())?;
        // Without a sequence none comes before another, and one without rows tells of nothing that was there.
        let tells = shape.sequence.is_some() && self.accepted.rows > 0;
        let newest = snapshots
            .newest()
            .filter(|newest| tells && known.is_none_or(|known| known < *newest));
        Ok(newest.map(|newest| told::note(newest, self.target.ambient.now_ms())))
    }

    /// What the statement is called.
    fn operation(&self) -> &'static str {
        match self.target.operation {
            "WRITE" if self.journal.mode == JournalMode::Snapshots => "INSERT AS SNAPSHOTS",
            "WRITE" => "INSERT OVERWRITE",
            other => other,
        }
    }

    /// The events, and what is stored and kept of their keys.
    async fn inputs(
        &self,
        at: i64,
        horizon: Option<&Horizon>,
        finder: Option<&Finder<'_>>,
    ) -> Result<(Inputs, Option<Arc<Located>>)> {
        let shape = &self.journal.shape;
        let events = self.accepted.read(at)?;
        let nothing =
            |schema| -> SendableRecordBatchStream { Box::pin(EmptyRecordBatchStream::new(schema)) };
        let wanted = self.snapshots || self.accepted.rows > 0;
        let Some(finder) = finder.filter(|_| wanted) else {
            let inputs = Inputs {
                events,
                stored: nothing(event::stored_schema(shape)),
                kept: nothing(event::kept_schema(shape)),
            };
            return Ok((inputs, None));
        };
        let first = match (shape.sequence, self.accepted.bounds) {
            (Some(_), Some((first, _))) => first,
            _ => at,
        };
        let (kept, least) = match horizon {
            Some(horizon) => {
                let accepted = (!self.snapshots).then_some(self.accepted);
                let (kept, least) = finder.kept(&horizon.kept, accepted).await?;
                (kept, least.map_or(first, |least| least.min(first)))
            }
            None => (nothing(event::kept_schema(shape)), first),
        };
        // What else a key has had decides whether something so old of it is late.
        let asked = shape.definition.late.policy != LatePolicy::Apply;
        let least = match horizon {
            Some(horizon) if asked && first < horizon.at => i64::MIN,
            _ => least,
        };
        let Stored { rows, located } = match self.snapshots {
            true => finder.all(Vec::new(), least).await?,
            false => finder.rows_of(self.accepted, least).await?,
        };
        let inputs = Inputs {
            events,
            stored: rows,
            kept,
        };
        Ok((inputs, Some(located)))
    }

    /// Refuses what history has no place for, where it has no other place either.
    fn judge(&self, gathered: &Gathered, horizon: Option<&Horizon>) -> Result<()> {
        let shape = &self.journal.shape;
        if gathered.clash.rows() > 0 && !self.quarantines_invalid {
            return Err(differing(shape, &gathered.clash_told));
        }
        let late = &gathered.late_told;
        if late.rows > 0 && self.journal.mode == JournalMode::Dml {
            return Err(Error::rejected(format!(
                "{} of table {} is not after what is known of {}, first {}",
                self.target.operation,
                shape.table,
                counted(late.keys, "key"),
                late.first()
            ))
            .with_hint(
                "a change of current rows comes after all of their history; CORRECT JOURNAL puts history right",
            ));
        }
        if late.rows > 0 && shape.definition.late.policy != LatePolicy::Quarantine {
            let before = match horizon {
                Some(horizon) => format!(", before {}", instant(horizon.at)),
                None => String::new(),
            };
            return Err(Error::rejected(format!(
                "table {}: {} came too late{before}, first {}",
                shape.table,
                counted(late.rows, "row"),
                late.first()
            ))
            .with_hint("LATE APPLY lets them in, LATE QUARANTINE puts them aside"));
        }
        if let Some(snapshots) = &gathered.snapshots {
            snapshots.guard(shape, self.operation(), self.journal.max_delete_fraction)?;
        }
        Ok(())
    }

    /// The rows that history had no place for, in quarantine.
    async fn set_aside(
        &self,
        gathered: &Gathered,
        horizon: Option<&Horizon>,
    ) -> Result<Option<Held>> {
        if gathered.late.rows() + gathered.clash.rows() == 0 {
            return Ok(None);
        }
        let quarantine = self.quarantine.ok_or_else(|| {
            Error::internal("rows left the path of a write, and nobody took them")
        })?;
        let late = match horizon {
            Some(horizon) => format!(
                "it arrived after its horizon: it is before {}",
                instant(horizon.at)
            ),
            None => "it arrived after a later event of its key".to_owned(),
        };
        let clash = "the journal has another row of its key and sequence, with other values";
        let shape = Arc::clone(&self.journal.shape);
        let late = told(&gathered.late, &shape, late)?;
        let clash = told(&gathered.clash, &shape, clash.to_owned())?;
        let rows = futures::StreamExt::chain(late, clash);
        let schema = quarantine_schema(&shape.flow);
        let rows = RecordBatchStreamAdapter::new(schema, rows);
        let held = quarantine.hold_rows(Box::pin(rows), self.context);
        Ok(Some(held.await?))
    }

    /// The events that are kept from now on.
    async fn keep(
        &self,
        horizon: &Horizon,
        base: Option<&Arc<Snapshot>>,
        events: &Spool,
        made: &mut Made,
    ) -> Result<()> {
        let (shape, target) = (&self.journal.shape, self.target);
        let metadata = target
            .metadata()
            .ok_or_else(|| Error::internal(format!("the write to {} has no table", target.name)))?;
        let Some((first, last)) = self.accepted.bounds else {
            return Ok(());
        };
        let root = &target.table.root;
        let bytes = target.settings.target_file_bytes;
        let sink = horizon::sink(root, shape, metadata, bytes, &target.ambient)?;
        // A statement is of today, whatever day the rows are of.
        let last = match self.journal.mode {
            JournalMode::Dml => horizon.watermark,
            _ => last,
        };
        let mut keeping = Keeping {
            watermark: horizon.watermark.max(last),
            restores: false,
            came: Vec::new(),
            out: Vec::new(),
        };
        if events.rows() > 0 {
            let held = sink.hold_rows(events.read()?, self.context).await?;
            keeping.came = horizon::files(held.written(), first, last)?;
            made.kept = Some(KeptFiles {
                held,
                sink: sink.clone(),
            });
        }
        if base.is_some() {
            let until = keeping.watermark.saturating_sub(horizon.after_micros);
            let condensed = horizon::condense(
                self.state,
                shape,
                root,
                metadata,
                &horizon.kept,
                until,
                &sink,
            );
            if let Some((came, out)) = Box::pin(condensed).await? {
                keeping.came.extend(came);
                keeping.out = out;
            }
        }
        let same = keeping.watermark == horizon.watermark
            && keeping.came.is_empty()
            && keeping.out.is_empty();
        made.keeping = (!same).then_some(keeping);
        Ok(())
    }
}

/// Events as rows of quarantine.
fn told(
    events: &Spool,
    shape: &Arc<Shape>,
    message: String,
) -> Result<impl futures::Stream<Item = datafusion::error::Result<RecordBatch>> + Send + use<>> {
    let shape = Arc::clone(shape);
    Ok(events.read()?.and_then(move |batch| {
        let rows = quarantined(&shape, &batch, &message).map_err(DataFusionError::from);
        async move { rows }
    }))
}

/// The rows that go, by the path of their file, as the version has it.
fn removed(
    base: Option<&Arc<Snapshot>>,
    located: Option<&Located>,
    places: &BTreeMap<u32, RoaringTreemap>,
) -> Result<BTreeMap<String, TakenRows>> {
    let mut removed: BTreeMap<String, TakenRows> = BTreeMap::new();
    let files = located.map(Located::files).unwrap_or_default();
    for (number, rows) in places {
        let file = files.get(*number as usize);
        let file = file.and_then(|file| base?.files.get(&file.add.path));
        let file = file.ok_or_else(|| {
            Error::internal(format!(
                "an interval lies in file {number}, which was not read"
            ))
        })?;
        let taken = removed
            .entry(file.add.path.clone())
            .or_insert_with(|| TakenRows {
                file: Arc::clone(file),
                rows: RoaringTreemap::new(),
            });
        taken.rows |= rows;
    }
    Ok(removed)
}

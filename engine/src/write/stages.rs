//! The stages in the only order there is, and the account that the sink settles before it commits.
//!
//! ```text
//! [Changed ->] Received -> Validated -> Hooked -> Cleansed -> Checked -> (files, commit)
//!                               \                                \-> quarantine
//!                                \-> quarantine, where the table says so
//! ```
//!
//! The first is there for statements that change rows, or take them out of quarantine: it keeps the places of the
//! old ones. Rows for a journal get riders there, and behind the last stage become events:
//!
//! ```text
//! Received -> with riders -> .. -> Checked -> events -> sorted -> (spool, step, commit)
//! ```
//!
//! Plans only: building them runs nothing. What a run counts lives in slots shared by the account and
//! the plan nodes (copies of a node made by the optimizer share them too). [`WriteAccount::begin`]
//! fills the slots afresh, so a plan that is run again counts from zero and gets new hooks; a stage
//! that runs outside of a begun write refuses to, so nothing can be written that nobody settles.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use roaring::RoaringTreemap;
use tokio::sync::mpsc::{self, Receiver};

use super::change::{Change, ChangeAccount, Changed, Changing};
use super::cleanse::{CleanseAccount, Cleansing};
use super::hook::{HookStage, Hooking, WriteContext, WriteHookSupplier};
use super::journal;
use super::journal::riders::Riding;
use super::quality::Checking;
use super::replay::{Taken, Taking};
use super::report::HookReport;
use super::stage::{Aside, Slot, StageExec};
use super::target::JournalTarget;
use super::validate::{TableRules, Validating, Violations};
use crate::cleanse::mask::Masks;
use crate::cleanse::record::PolicyResult;
use crate::error::{Error, Result};
use crate::quality::check::CompiledCheck;
use crate::quality::compile::Compiled;
use crate::quality::evaluate::Evaluation;
use crate::quality::past::Past;
use crate::quality::record::{MetricValue, RuleResult};

/// Batches on their way into quarantine before those who send them wait.
const ASIDE_BATCHES: usize = 4;

/// Rows as the statement gave them, columns in the table's order.
#[derive(Debug)]
pub(crate) struct Received {
    plan: Arc<dyn ExecutionPlan>,
    changes: Option<ChangeAccount>,
    taken: Option<Arc<Slot<Taken>>>,
}

/// Rows of the table's exact schema that satisfy its constraints.
#[derive(Debug)]
pub(crate) struct Validated {
    plan: Arc<dyn ExecutionPlan>,
    account: WriteAccount,
    rules: Arc<TableRules>,
}

/// Rows as the hooks left them.
#[derive(Debug)]
pub(crate) struct Hooked {
    plan: Arc<dyn ExecutionPlan>,
    account: WriteAccount,
    rules: Arc<TableRules>,
}

/// Rows without what the table must forget; which cells that was comes along.
#[derive(Debug)]
pub(crate) struct Cleansed {
    plan: Arc<dyn ExecutionPlan>,
    account: WriteAccount,
    rules: Arc<TableRules>,
    masks: Masks,
}

/// Rows as they will be stored: what the sink takes.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub plan: Arc<dyn ExecutionPlan>,
    pub account: Arc<WriteAccount>,
}

impl Received {
    /// New rows.
    pub(crate) fn rows(plan: Arc<dyn ExecutionPlan>) -> Self {
        Self {
            plan,
            changes: None,
            taken: None,
        }
    }

    /// Rows that come out of quarantine; which they are is noted.
    pub(crate) fn replayed(plan: Arc<dyn ExecutionPlan>, columns: &SchemaRef) -> Self {
        let taken = Arc::default();
        let width = columns.fields().len();
        let stage = Taking::new(&plan.schema(), width, Arc::clone(&taken));
        Self {
            plan: StageExec::plan(Arc::new(stage), plan, None),
            changes: None,
            taken: Some(taken),
        }
    }

    /// The new rows among those of a statement that changes rows; where the old ones are is noted. With `places`,
    /// each new row goes on with the place of the one it replaces.
    pub(crate) fn changed(
        plan: Arc<dyn ExecutionPlan>,
        change: &Arc<Change>,
        columns: &SchemaRef,
        places: bool,
    ) -> Self {
        let changes = ChangeAccount {
            change: Arc::clone(change),
            noted: Arc::default(),
        };
        let stage = Changing::new(changes.clone(), columns, &plan.schema(), places);
        Self {
            plan: StageExec::plan(Arc::new(stage), plan, None),
            changes: Some(changes),
            taken: None,
        }
    }

    /// The same rows with what a journal must know of them beside their columns.
    pub(super) fn riding(
        self,
        rules: &TableRules,
        delete_when: Option<CompiledCheck>,
    ) -> Result<Self> {
        let given = self.plan.schema();
        let stage = Riding::new(&rules.table, &rules.schema, delete_when, &given)?;
        Ok(Self {
            plan: StageExec::plan(Arc::new(stage), self.plan, None),
            ..self
        })
    }

    /// Holds the rows to what the table demands of them. Those that go to quarantine are cleansed on their way.
    pub(super) fn validate(
        self,
        rules: Arc<TableRules>,
        cleansing: Option<CleanseAccount>,
    ) -> Result<Validated> {
        let violations = Arc::new(Slot::default());
        let aside = Aside::default();
        let stage = Validating::new(
            Arc::clone(&rules),
            &self.plan.schema(),
            Arc::clone(&violations),
            self.changes.clone(),
            cleansing.clone(),
        )?;
        let sets_aside = rules.quarantines_invalid.then(|| Arc::clone(&aside));
        Ok(Validated {
            plan: StageExec::plan(Arc::new(stage), self.plan, sets_aside),
            account: WriteAccount {
                table: rules.table.clone(),
                rules: Arc::clone(&rules),
                violations,
                changes: self.changes,
                taken: self.taken,
                hooks: Vec::new(),
                cleansing,
                quality: None,
                state: None,
                aside,
                quarantines: rules.quarantines_invalid,
            },
            rules,
        })
    }
}

impl Validated {
    /// Puts every hook that wants this write behind the one before it.
    pub(crate) fn hooks(
        self,
        suppliers: &[Arc<dyn WriteHookSupplier>],
        context: &WriteContext,
    ) -> Result<Hooked> {
        let Self {
            mut plan,
            mut account,
            rules,
        } = self;
        for supplier in suppliers {
            let hook = HookStage::new(Arc::clone(supplier), context.clone());
            // Asked only whether it wants the write; the instance that works comes with the run.
            if hook.create()?.is_some() {
                let hook = Arc::new(hook);
                let stage = Hooking::new(Arc::clone(&hook), Arc::clone(&rules), plan.schema());
                plan = StageExec::plan(Arc::new(stage), plan, None);
                account.hooks.push(hook);
            }
        }
        Ok(Hooked {
            plan,
            account,
            rules,
        })
    }
}

impl Hooked {
    /// Takes out what the policies of the table are about, if it has any.
    pub(crate) fn cleanse(self) -> Cleansed {
        let Self {
            mut plan,
            account,
            rules,
        } = self;
        let mut masks = Masks::default();
        if let Some(cleansing) = &account.cleansing {
            masks = Masks::new(cleansing.compiled.touched(), rules.schema.fields().len());
            let (input, changes) = (plan.schema(), account.changes.clone());
            let stage = Cleansing::new(cleansing.clone(), Arc::clone(&rules), &input, changes);
            plan = StageExec::plan(Arc::new(stage), plan, None);
        }
        Cleansed {
            plan,
            account,
            rules,
            masks,
        }
    }
}

impl Cleansed {
    /// Asks the rules of the table, if it has any.
    pub(crate) fn check(self, compiled: Compiled) -> Checked {
        let Self {
            mut plan,
            mut account,
            rules,
            masks,
        } = self;
        let own = rules.schema.fields().len() + rules.beside();
        let along = plan.schema().fields().len() > own;
        if !compiled.is_empty() || along {
            let compiled = Arc::new(compiled.masked(masks));
            let quality = QualityAccount {
                compiled: Arc::clone(&compiled),
                evaluation: Arc::default(),
                unasked: Arc::default(),
            };
            account.quarantines |= compiled.quarantines();
            let sets_aside = compiled.quarantines().then(|| Arc::clone(&account.aside));
            let stage = Checking::new(
                &rules,
                &plan.schema(),
                compiled,
                Arc::clone(&quality.evaluation),
                account.changes.clone(),
                Arc::clone(&quality.unasked),
            );
            plan = StageExec::plan(Arc::new(stage), plan, sets_aside);
            account.quality = Some(quality);
        }
        Checked {
            plan,
            account: Arc::new(account),
        }
    }
}

impl Checked {
    /// The events that the rows are for a journal, in the order of their keys. The step looks for stored rows with
    /// `state`.
    pub(super) fn journal(self, target: &JournalTarget, state: &SessionState) -> Result<Self> {
        let account = WriteAccount {
            state: Some(Box::new(state.clone())),
            ..Arc::unwrap_or_clone(self.account)
        };
        Ok(Self {
            plan: journal::plan(self.plan, target)?,
            account: Arc::new(account),
        })
    }
}

/// What the stages of one planned write count.
#[derive(Debug, Clone)]
pub(crate) struct WriteAccount {
    table: String,
    rules: Arc<TableRules>,
    violations: Arc<Slot<Violations>>,
    changes: Option<ChangeAccount>,
    taken: Option<Arc<Slot<Taken>>>,
    hooks: Vec<Arc<HookStage>>,
    cleansing: Option<CleanseAccount>,
    quality: Option<QualityAccount>,
    /// Of a write to a journal: with what the step plans its queries.
    state: Option<Box<SessionState>>,
    aside: Aside,
    quarantines: bool,
}

#[derive(Debug, Clone)]
struct QualityAccount {
    compiled: Arc<Compiled>,
    evaluation: Arc<Slot<Evaluation>>,
    /// Rows of the run that no rule is asked of.
    unasked: Arc<AtomicU64>,
}

/// One run of a write. Dropping it unsettled closes the account: the rows were not accepted.
#[derive(Debug)]
pub(crate) struct WriteRun {
    account: Arc<WriteAccount>,
    aside: Option<Receiver<RecordBatch>>,
}

/// What an accepted run counted.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub rows_received: u64,
    /// Rows that must have reached the files.
    pub rows_written: u64,
    pub rows_dropped: u64,
    pub rows_quarantined: u64,
    /// Rows that policies left out.
    pub rows_erased: u64,
    pub hooks: Vec<HookReport>,
    pub policies: Vec<PolicyResult>,
    /// Of a statement that changes rows.
    pub changed: Option<Changed>,
    /// Rows of quarantine that were taken up, by the numbers of their files.
    pub taken: HashMap<u32, RoaringTreemap>,
    pub rules: Vec<RuleResult>,
    pub metrics: Vec<MetricValue>,
    /// Why the rules let nothing become visible.
    pub refused: Option<Error>,
    /// Whether rules compared the write with those before it.
    pub looked_back: bool,
}

impl WriteAccount {
    /// Opens a run: called before any partition of the plan is executed.
    pub(crate) async fn begin(self: &Arc<Self>, context: &Arc<TaskContext>) -> Result<WriteRun> {
        self.violations.open(Violations::default())?;
        // From here on a failure drops the run, which closes what was opened.
        let mut run = WriteRun {
            account: Arc::clone(self),
            aside: None,
        };
        if let Some(changes) = &self.changes {
            changes.noted.open(super::change::Changes::default())?;
        }
        if let Some(taken) = &self.taken {
            taken.open(Taken::default())?;
        }
        for hook in &self.hooks {
            hook.open()?;
        }
        if let Some(cleansing) = &self.cleansing {
            cleansing.open(context).await?;
        }
        if let Some(quality) = &self.quality {
            let evaluation = Evaluation::begin(&quality.compiled, context).await?;
            quality.evaluation.open(evaluation)?;
            quality.unasked.store(0, Relaxed);
        }
        if self.quarantines {
            let (sender, receiver) = mpsc::channel(ASIDE_BATCHES);
            self.aside.open(sender)?;
            run.aside = Some(receiver);
        }
        Ok(run)
    }
}

impl WriteAccount {
    /// With what a write to a journal plans its queries.
    pub(super) fn state(&self) -> Result<&SessionState> {
        let state = self.state.as_deref();
        state.ok_or_else(|| Error::internal("a write to a journal was planned as that of a table"))
    }

    /// Whether rows that are none of the table's go to quarantine.
    pub(super) fn quarantines_invalid(&self) -> bool {
        self.rules.quarantines_invalid
    }
}

impl WriteRun {
    /// Where rows go behind the stages that are none of the table's, if they go to quarantine.
    pub(super) fn sends_invalid(&self) -> Result<Option<Arc<mpsc::Sender<RecordBatch>>>> {
        match self.account.rules.quarantines_invalid {
            true => self.account.aside.current().map(Some),
            false => Ok(None),
        }
    }

    /// Whether rows may go to quarantine.
    pub(crate) fn sets_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// The rows for quarantine, where the table has one. They end when [`Self::aside_ends`] was called.
    pub(crate) fn aside(&mut self) -> Option<Receiver<RecordBatch>> {
        self.aside.take()
    }

    /// Called after the last row of every partition.
    pub(crate) fn aside_ends(&self) {
        self.account.aside.close();
    }

    /// What the rules must know of the writes before this one; None when they look at this one alone.
    pub(crate) fn past(&self) -> Result<Option<Past>> {
        let Some(quality) = &self.account.quality else {
            return Ok(None);
        };
        let evaluation = quality.evaluation.current()?;
        Ok(evaluation.looks_back().then(|| evaluation.past()))
    }

    /// The verdict of every stage, in order: called after the last row of every partition and before
    /// the commit. An error means that nothing may become visible, and so does [`Settled::refused`].
    pub(crate) fn settle(self, past: &Past) -> Result<Settled> {
        let account = &self.account;
        let validated = account.violations.current()?.verdict(&account.rules)?;
        let mut settled = Settled {
            rows_received: validated.received,
            rows_quarantined: validated.quarantined,
            rules: validated.results,
            ..Settled::default()
        };
        let cleansed = match &account.cleansing {
            Some(cleansing) => Some(cleansing.run.current()?.settle()),
            None => None,
        };
        let erased_aside = cleansed
            .as_ref()
            .map_or(0, |cleansed| cleansed.erased_aside);
        let mut expected = validated.received - validated.quarantined - erased_aside;
        for hook in &account.hooks {
            let report = hook.finish()?;
            // No row may get lost between two stages without being counted by one of them.
            if report.rows_in != expected {
                return Err(Error::internal(format!(
                    "table {}: {expected} rows went to hook {}, {} arrived",
                    account.table, report.hook, report.rows_in
                )));
            }
            expected = report.rows_out;
            settled.hooks.push(report);
        }
        if let Some(cleansed) = cleansed {
            if cleansed.rows_in != expected || cleansed.erased > expected {
                return Err(Error::internal(format!(
                    "table {}: {expected} rows went to the cleanse policies, {} arrived and {} left",
                    account.table, cleansed.rows_in, cleansed.erased
                )));
            }
            expected -= cleansed.erased;
            settled.rows_erased = cleansed.erased + cleansed.erased_aside;
            settled.policies = cleansed.results;
        }
        if let Some(quality) = &account.quality {
            // A statement that only takes rows away writes none, so nothing is said of those it writes.
            let all = account.changes.is_none() || validated.received > 0;
            let evaluation = quality.evaluation.current()?;
            settled.looked_back = all && evaluation.looks_back();
            let found = evaluation.settle(past, all)?;
            let out = found.dropped + found.quarantined;
            let came = found.asked + quality.unasked.load(Relaxed);
            if came != expected || out > expected {
                return Err(Error::internal(format!(
                    "table {}: {expected} rows went to the rules, {came} arrived and {out} left",
                    account.table
                )));
            }
            expected -= out;
            settled.rows_dropped = found.dropped;
            settled.rows_quarantined += found.quarantined;
            settled.rules.extend(found.results);
            settled.metrics = found.metrics;
            settled.refused = found.refused;
        }
        settled.rows_written = expected;
        if let Some(changes) = &account.changes {
            let noted = changes.noted.current()?;
            let (changed, passed) = noted.verdict(&account.table, &changes.change)?;
            if passed != validated.received {
                return Err(Error::internal(format!(
                    "table {}: {passed} rows were changed, {} arrived",
                    account.table, validated.received
                )));
            }
            settled.changed = Some(changed);
        }
        if let Some(taken) = &account.taken {
            settled.taken = taken.current()?.rows();
        }
        Ok(settled)
    }
}

impl Drop for WriteRun {
    fn drop(&mut self) {
        let account = &self.account;
        account.violations.close();
        account.aside.close();
        if let Some(changes) = &account.changes {
            changes.noted.close();
        }
        if let Some(taken) = &account.taken {
            taken.close();
        }
        for hook in &account.hooks {
            hook.close();
        }
        if let Some(cleansing) = &account.cleansing {
            cleansing.run.close();
        }
        if let Some(quality) = &account.quality {
            quality.evaluation.close();
        }
    }
}

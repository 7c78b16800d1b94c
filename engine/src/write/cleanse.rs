//! The stage behind the hooks: what the table must forget is taken out of every row, before the rules see it. Which
//! cells that were goes on with the rows: a rule is not to blame a row for what was taken from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::execution::TaskContext;
use parking_lot::Mutex;

use super::change::{ChangeAccount, Changes};
use super::quality::{places, unexpected};
use super::stage::{Part, Slot, Stage, Step, Work};
use super::validate::TableRules;
use crate::cleanse::apply::{Counts, Running};
use crate::cleanse::aside;
use crate::cleanse::compile::Compiled;
use crate::cleanse::mask::Masks;
use crate::cleanse::record::PolicyResult;
use crate::error::Result;

/// The policies of a write, and where its run of them is.
#[derive(Debug, Clone)]
pub(super) struct CleanseAccount {
    pub compiled: Arc<Compiled>,
    pub run: Arc<Slot<CleanseRun>>,
}

impl CleanseAccount {
    /// None where there is nothing to forget.
    pub(super) fn new(compiled: Compiled) -> Option<Self> {
        (!compiled.is_empty()).then(|| Self {
            compiled: Arc::new(compiled),
            run: Arc::default(),
        })
    }

    /// Reads the keys of the moment.
    pub(super) async fn open(&self, context: &Arc<TaskContext>) -> Result<()> {
        self.run.open(CleanseRun {
            running: Running::begin(&self.compiled, context).await?,
            rows_in: AtomicU64::new(0),
            erased_aside: AtomicU64::new(0),
            counts: Mutex::new(Counts::of(&self.compiled)),
        })
    }
}

/// The policies of one run, and what they did in it.
#[derive(Debug)]
pub(crate) struct CleanseRun {
    running: Running,
    rows_in: AtomicU64,
    erased_aside: AtomicU64,
    counts: Mutex<Counts>,
}

/// The account of a finished run.
#[derive(Debug)]
pub(super) struct Cleansed {
    /// Rows that came to the stage.
    pub rows_in: u64,
    /// Rows it left out.
    pub erased: u64,
    /// Rows left out of those on their way into quarantine, from an earlier stage.
    pub erased_aside: u64,
    pub results: Vec<PolicyResult>,
}

impl CleanseRun {
    /// Rows that an earlier stage sends to quarantine, cleansed as all others.
    pub(super) fn aside(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let applied = aside::apply(&self.running, rows)?;
        let erased = applied.counts.rows_erased();
        self.erased_aside.fetch_add(erased, Relaxed);
        self.counts.lock().merge(&applied.counts);
        Ok(applied.batch)
    }

    pub(super) fn settle(&self) -> Cleansed {
        let counts = self.counts.lock();
        let erased_aside = self.erased_aside.load(Relaxed);
        Cleansed {
            rows_in: self.rows_in.load(Relaxed),
            erased: counts.rows_erased() - erased_aside,
            erased_aside,
            results: self.running.results(&counts),
        }
    }
}

/// The policies as a stage of the plan.
#[derive(Debug)]
pub(super) struct Cleansing {
    account: CleanseAccount,
    rules: Arc<TableRules>,
    /// Columns of the input, and the masks.
    schema: SchemaRef,
    changes: Option<ChangeAccount>,
}

impl Cleansing {
    pub(super) fn new(
        account: CleanseAccount,
        rules: Arc<TableRules>,
        input: &SchemaRef,
        changes: Option<ChangeAccount>,
    ) -> Self {
        let masks = Masks::new(account.compiled.touched(), input.fields().len());
        let masks = masks.fields(&rules.schema).into_iter().map(Arc::new);
        let all: Vec<FieldRef> = input.fields().iter().cloned().chain(masks).collect();
        Self {
            account,
            rules,
            schema: Arc::new(Schema::new(all)),
            changes,
        }
    }
}

impl Stage for Cleansing {
    const NAME: &'static str = "CleanseExec";
    type Work = Forgetting;

    fn describe(&self) -> String {
        format!(
            "table={}, policies=[{}]",
            self.rules.table,
            self.account.compiled.names().join(", ")
        )
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin(&self, _: Part) -> Result<Forgetting> {
        let changes = self.changes.as_ref();
        Ok(Forgetting {
            run: self.account.run.current()?,
            counts: Counts::of(&self.account.compiled),
            rules: Arc::clone(&self.rules),
            schema: Arc::clone(&self.schema),
            changes: changes.map(|changes| changes.noted.current()).transpose()?,
        })
    }
}

/// The work of one partition.
pub(super) struct Forgetting {
    run: Arc<CleanseRun>,
    counts: Counts,
    rules: Arc<TableRules>,
    schema: SchemaRef,
    changes: Option<Arc<Changes>>,
}

impl Work for Forgetting {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        self.run.rows_in.fetch_add(batch.num_rows() as u64, Relaxed);
        let applied = self.run.running.apply(&batch)?;
        self.counts.merge(&applied.counts);
        if let (Some(changes), Some(erased)) = (&self.changes, &applied.erased) {
            changes.erase(places(&batch, &self.rules.schema, erased)?);
        }
        if applied.counts.cells_changed() > 0 {
            let compiled = self.run.running.compiled();
            let (rules, rows) = (&self.rules, &applied.batch);
            compiled.hold(&rules.checks, rows, |check| rules.breaking(check, rows))?;
        }
        let rows = applied.batch.num_rows();
        let masks = Masks::columns(&applied.cleansed, rows);
        let columns = applied.batch.columns().iter().cloned().chain(masks);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        let on = RecordBatch::try_new_with_options(schema, columns.collect(), &options)
            .map_err(unexpected)?;
        Ok(Step {
            on: (rows > 0).then_some(on),
            aside: None,
        })
    }

    fn end(self) -> Result<()> {
        self.run.counts.lock().merge(&self.counts);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

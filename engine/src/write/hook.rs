//! The second stage: hooks, the way an embedding program looks at every row before it lands.
//!
//! A hook maps rows to rows and sees no session and no storage. What it returns is held to the same
//! rules as what it was given; where it breaks them, fails or panics, the write ends and nothing of it
//! becomes visible.

pub mod conformance;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, filter_record_batch, is_not_null, not};
use arrow::datatypes::SchemaRef;

use super::journal::riders::apart;
use super::quality::{narrow, unexpected};
use super::report::HookReport;
use super::stage::{Part, Slot, Stage, Step, Work};
use super::validate::TableRules;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::event::KEEP;

/// Makes the hook of each write.
pub trait WriteHookSupplier: Send + Sync {
    /// Name of the hook, in plans, reports and errors. Always the same.
    fn name(&self) -> &str;

    /// A fresh hook for one write, or `None` if this write is not its business.
    ///
    /// Called when the statement is planned, to know whether the plan has this stage, and again for
    /// each run. So making a hook must have no effect; its first rows may.
    fn create(&self, context: &WriteContext) -> Result<Option<Arc<dyn WriteHook>>>;
}

/// Looks at the rows of one write, and may change or drop them.
pub trait WriteHook: Send + Sync {
    /// Takes rows of the table's schema that satisfy its constraints, and returns those to go on.
    ///
    /// Called from several threads at once, with rows split into batches in any way. The result has
    /// the same schema and at most as many rows, and satisfies the same constraints. An error ends
    /// the write.
    fn rows(&self, batch: RecordBatch) -> Result<RecordBatch>;

    /// The verdict over the whole write: called once, after all rows and before the commit.
    ///
    /// Not called where the write failed before.
    fn finish(&self) -> Result<Verdict>;
}

/// What a hook says of a whole write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The write may be committed.
    Accept {
        /// Numbers for the write's report, in the order to show them.
        counters: Vec<(String, u64)>,
    },
    /// Nothing of the write becomes visible; the statement fails with this reason.
    Refuse {
        /// Follows the names of hook and table in the error: lower case, no final period.
        reason: String,
    },
}

/// What a hook may know about the write it is made for.
#[derive(Debug, Clone)]
pub struct WriteContext {
    table: String,
    schema: SchemaRef,
    operation: String,
    batch_id: i64,
    base_version: Option<u64>,
}

impl WriteContext {
    /// A context with these facts; see the methods of the same names.
    pub fn new(
        table: impl Into<String>,
        schema: SchemaRef,
        operation: impl Into<String>,
        batch_id: i64,
        base_version: Option<u64>,
    ) -> Self {
        Self {
            table: table.into(),
            schema,
            operation: operation.into(),
            batch_id,
            base_version,
        }
    }

    /// Table as `schema.name`.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Columns of every batch, in table order.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The operation as the Delta log names it: `WRITE`, `CREATE TABLE AS SELECT`, ...
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// Milliseconds since the epoch of the statement, the same in every row and file it writes.
    pub fn batch_id(&self) -> i64 {
        self.batch_id
    }

    /// The version of the table that this write builds upon; `None` for a table that is being created.
    pub fn base_version(&self) -> Option<u64> {
        self.base_version
    }
}

/// One hook in one plan, and its instance in the run that is open.
pub(super) struct HookStage {
    supplier: Arc<dyn WriteHookSupplier>,
    context: WriteContext,
    run: Slot<HookRun>,
}

/// A hook at work.
pub(super) struct HookRun {
    hook: Arc<dyn WriteHook>,
    rows_in: AtomicU64,
    rows_out: AtomicU64,
}

impl fmt::Debug for HookStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HookStage").field(&self.name()).finish()
    }
}

impl HookStage {
    pub(super) fn new(supplier: Arc<dyn WriteHookSupplier>, context: WriteContext) -> Self {
        Self {
            supplier,
            context,
            run: Slot::default(),
        }
    }

    fn name(&self) -> &str {
        self.supplier.name()
    }

    pub(super) fn create(&self) -> Result<Option<Arc<dyn WriteHook>>> {
        self.guarded(|| self.supplier.create(&self.context))
    }

    pub(super) fn open(&self) -> Result<()> {
        let hook = self.create()?.ok_or_else(|| {
            self.fault(
                ErrorKind::Rejected,
                "declined a write it had agreed to take",
            )
        })?;
        self.run.open(HookRun {
            hook,
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
        })
    }

    pub(super) fn close(&self) {
        self.run.close();
    }

    /// Asks for the verdict on the run that is open.
    pub(super) fn finish(&self) -> Result<HookReport> {
        let run = self.run.current()?;
        match self.guarded(|| run.hook.finish())? {
            Verdict::Accept { counters } => Ok(HookReport {
                hook: self.name().to_string(),
                rows_in: run.rows_in.load(Relaxed),
                rows_out: run.rows_out.load(Relaxed),
                counters,
            }),
            Verdict::Refuse { reason } => Err(Error::rejected(format!(
                "hook {} refused the write to table {}: {reason}",
                self.name(),
                self.context.table
            ))),
        }
    }

    /// The rows that the hook lets through, held to the rules of the table.
    fn rows(
        &self,
        run: &HookRun,
        rules: &TableRules,
        batch: RecordBatch,
        ends: bool,
    ) -> Result<RecordBatch> {
        run.rows_in.fetch_add(batch.num_rows() as u64, Relaxed);
        let out = self.guarded(|| run.hook.rows(batch.clone()))?;
        let out = if untouched(&batch, &out) {
            batch
        } else {
            self.hold(rules, (batch.num_rows(), ends), out)?
        };
        run.rows_out.fetch_add(out.num_rows() as u64, Relaxed);
        Ok(out)
    }

    /// Checks what a hook has changed as if it had come from outside. `ends`: the rows only end keys of a journal.
    fn hold(
        &self,
        rules: &TableRules,
        (given, ends): (usize, bool),
        out: RecordBatch,
    ) -> Result<RecordBatch> {
        let refuse = |what: String| Err(self.fault(ErrorKind::Rejected, &what));
        let (new, old) = (out.schema(), &rules.schema);
        let same_columns =
            new.fields().len() == old.fields().len()
                && new.fields().iter().zip(old.fields()).all(|(new, old)| {
                    new.name() == old.name() && new.data_type() == old.data_type()
                });
        if !same_columns {
            return refuse(format!("changed the columns from {old:?} to {new:?}"));
        }
        if out.num_rows() > given {
            return refuse(format!("made {} rows of {given}", out.num_rows()));
        }
        for at in rules.demanded(ends) {
            let nulls = out.column(at).logical_null_count();
            if nulls > 0 {
                let name = old.field(at).name();
                return refuse(format!(
                    "left no value in NOT NULL column {name} ({nulls} rows)"
                ));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(out.num_rows()));
        let columns = out.columns().to_vec();
        let out = RecordBatch::try_new_with_options(Arc::clone(old), columns, &options)
            .map_err(|error| self.fault(ErrorKind::Rejected, &format!("gave {error}")))?;
        for check in rules.checks.iter().filter(|_| !ends) {
            let rows = check.broken_by(&rules.table, &out)?;
            if let Some(first) = rows.first() {
                let what = check.describe(&out, *first);
                return refuse(format!("broke a constraint: {what} ({} rows)", rows.len()));
            }
        }
        Ok(out)
    }

    /// Runs code of the hook: its errors and panics end the write with an error that names it.
    fn guarded<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let mut named = self.fault(error.kind(), &format!("failed: {}", error.message()));
                if let Some(detail) = error.detail() {
                    named = named.with_detail(detail);
                }
                if let Some(hint) = error.hint() {
                    named = named.with_hint(hint);
                }
                Err(named.with_source(error))
            }
            Err(panic) => {
                let what = format!("panicked: {}", panic_text(panic.as_ref()));
                Err(self.fault(ErrorKind::Internal, &what))
            }
        }
    }

    fn fault(&self, kind: ErrorKind, what: &str) -> Error {
        let (name, table) = (self.name(), &self.context.table);
        Error::new(kind, format!("hook {name} on table {table} {what}"))
    }
}

/// Whether these are the very same arrays, so that nothing has to be checked again.
fn untouched(before: &RecordBatch, after: &RecordBatch) -> bool {
    let columns = || before.columns().iter().zip(after.columns());
    before.num_rows() == after.num_rows()
        && before.num_columns() == after.num_columns()
        && columns().all(|(before, after)| Arc::ptr_eq(before, after))
        && before.schema_ref().fields() == after.schema_ref().fields()
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// A hook as a stage of the plan.
#[derive(Debug)]
pub(super) struct Hooking {
    hook: Arc<HookStage>,
    rules: Arc<TableRules>,
    /// Columns of the table, and those that come along.
    schema: SchemaRef,
}

impl Hooking {
    pub(super) fn new(hook: Arc<HookStage>, rules: Arc<TableRules>, schema: SchemaRef) -> Self {
        Self {
            hook,
            rules,
            schema,
        }
    }
}

impl Stage for Hooking {
    const NAME: &'static str = "WriteHookExec";
    type Work = AtWork;

    fn describe(&self) -> String {
        self.hook.name().to_owned()
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin(&self, _: Part) -> Result<AtWork> {
        Ok(AtWork {
            run: self.hook.run.current()?,
            hook: Arc::clone(&self.hook),
            rules: Arc::clone(&self.rules),
            schema: Arc::clone(&self.schema),
        })
    }
}

/// The work of one partition.
pub(super) struct AtWork {
    hook: Arc<HookStage>,
    run: Arc<HookRun>,
    rules: Arc<TableRules>,
    schema: SchemaRef,
}

impl Work for AtWork {
    fn step(&mut self, batch: RecordBatch) -> Result<Step> {
        if self.rules.beside() > 0 {
            return self.ridden(&batch);
        }
        let rows = narrow(&batch, &self.rules.schema)?;
        let mut out = self.hook.rows(&self.run, &self.rules, rows, false)?;
        let along = &batch.columns()[self.rules.schema.fields().len()..];
        if !along.is_empty() {
            // What comes along says which old row each new one replaces.
            if out.num_rows() != batch.num_rows() {
                let what = format!(
                    "dropped {} of {} rows of a statement that changes rows, and rules of the table that leave rows \
                     out must know which",
                    batch.num_rows() - out.num_rows(),
                    batch.num_rows()
                );
                return Err(self.hook.fault(ErrorKind::Rejected, &what));
            }
            let columns = out.columns().iter().chain(along).cloned().collect();
            out = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(unexpected)?;
        }
        Ok(Step {
            on: (out.num_rows() > 0).then_some(out),
            aside: None,
        })
    }

    fn end(self) -> Result<()> {
        Ok(())
    }
}

impl AtWork {
    /// Rows for a journal. The hook sees those that end keys apart from the others, so that whatever it does with
    /// the rows of either kind, it is known of each that comes back which kind it is.
    fn ridden(&self, batch: &RecordBatch) -> Result<Step> {
        let (asked, ended) = apart(batch)?;
        let mut out = Vec::with_capacity(4);
        for (rows, ends) in [(asked, false), (ended, true)] {
            let Some(rows) = rows else {
                continue;
            };
            for rows in by_keeping(&rows)? {
                out.push(self.of_kind(&rows, ends)?);
            }
        }
        let on = match out.as_slice() {
            [one] => one.clone(),
            many => concat_batches(&self.schema, many).map_err(unexpected)?,
        };
        Ok(Step {
            on: (on.num_rows() > 0).then_some(on),
            aside: None,
        })
    }

    /// Rows that all end their keys or do not, and all say which columns they keep or do not.
    fn of_kind(&self, batch: &RecordBatch, ends: bool) -> Result<RecordBatch> {
        let rows = narrow(batch, &self.rules.schema)?;
        let out = self.hook.rows(&self.run, &self.rules, rows, ends)?;
        let width = self.rules.schema.fields().len();
        let riders = batch.columns().get(width..).unwrap_or_default();
        let riders: Vec<ArrayRef> = if out.num_rows() == batch.num_rows() {
            riders.to_vec()
        } else if riders.iter().any(|rider| rider.null_count() > 0) {
            // None of them keeps columns of its own, so their riders are alike.
            riders
                .iter()
                .map(|rider| rider.slice(0, out.num_rows()))
                .collect()
        } else {
            let what = format!(
                "dropped {} of {} rows that each say which columns they change",
                batch.num_rows() - out.num_rows(),
                batch.num_rows()
            );
            return Err(self.hook.fault(ErrorKind::Rejected, &what));
        };
        let columns = out.columns().iter().chain(&riders).cloned().collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(unexpected)
    }
}

/// The rows that keep columns of their own, and those that do not.
fn by_keeping(batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
    let Some(keep) = batch.column_by_name(KEEP) else {
        return Err(Error::internal("a row for a journal came without riders"));
    };
    if keep.null_count() == 0 || keep.null_count() == keep.len() {
        return Ok(vec![batch.clone()]);
    }
    let kept = is_not_null(keep).map_err(unexpected)?;
    let others = not(&kept).map_err(unexpected)?;
    [kept, others]
        .iter()
        .map(|which| filter_record_batch(batch, which).map_err(unexpected))
        .collect()
}

#[cfg(test)]
mod tests;

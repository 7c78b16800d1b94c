//! What every [`WriteHook`](super::WriteHook) must do, as a suite that any implementation can call.

use std::sync::Arc;
use std::thread;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::{HookStage, Verdict, WriteContext, WriteHookSupplier};
use crate::error::{Error, Result};
use crate::write::stage::Slot;
use crate::write::validate::TableRules;

/// Puts `batches` of the context's schema through hooks of `supplier` in every way the engine may, and
/// says which law is broken, if one is:
///
/// - it takes the write that the context describes, under a name;
/// - the schema stays, NOT NULL holds, rows do not increase, an empty batch is fine;
/// - the same rows in other batches give the same rows;
/// - each write has an instance of its own, which does not remember the one before;
/// - rows may come from several threads.
///
/// ```no_run
/// # fn test(supplier: std::sync::Arc<dyn selvedge_engine::WriteHookSupplier>,
/// #         context: selvedge_engine::WriteContext,
/// #         batches: Vec<arrow::array::RecordBatch>) -> selvedge_engine::Result<()> {
/// selvedge_engine::conformance::write_hook(&supplier, &context, &batches)?;
/// # Ok(()) }
/// ```
pub fn write_hook(
    supplier: &Arc<dyn WriteHookSupplier>,
    context: &WriteContext,
    batches: &[RecordBatch],
) -> Result<()> {
    let suite = Suite { supplier, context };
    let whole = concat_batches(context.schema(), batches)
        .map_err(|error| Error::invalid(format!("the batches of the suite: {error}")))?;
    if supplier.name().trim().is_empty() {
        return Err(suite.broken("a hook has a name", "it is empty"));
    }

    let empty = RecordBatch::new_empty(Arc::clone(context.schema()));
    let (rows, _) = suite.run(&[empty])?;
    if rows.num_rows() > 0 {
        return Err(suite.broken("an empty batch stays empty", "rows came out"));
    }

    let once = suite.run(std::slice::from_ref(&whole))?;
    if suite.run(std::slice::from_ref(&whole))? != once {
        let law = "each write has an instance of its own";
        return Err(suite.broken(law, "the same write twice gave different answers"));
    }

    let single: Vec<RecordBatch> = (0..whole.num_rows())
        .map(|row| whole.slice(row, 1))
        .collect();
    for split in [batches, &single] {
        if suite.run(split)?.0 != once.0 {
            let law = "the same rows in other batches give the same rows";
            let parts = split.len();
            return Err(suite.broken(law, &format!("not so in {parts} batches")));
        }
    }

    let rows = suite.run_in_threads(&single)?;
    if rows != once.0.num_rows() {
        let law = "rows may come from several threads";
        let expected = once.0.num_rows();
        return Err(suite.broken(law, &format!("{rows} rows came out instead of {expected}")));
    }
    Ok(())
}

struct Suite<'a> {
    supplier: &'a Arc<dyn WriteHookSupplier>,
    context: &'a WriteContext,
}

impl Suite<'_> {
    fn stage(&self) -> Result<(HookStage, TableRules)> {
        let stage = HookStage {
            supplier: Arc::clone(self.supplier),
            context: self.context.clone(),
            run: Slot::default(),
        };
        if stage.create()?.is_none() {
            let law = "the supplier takes the write of the suite";
            return Err(self.broken(law, "it declined, so nothing was tested"));
        }
        stage.open()?;
        let rules = TableRules {
            table: self.context.table().to_string(),
            schema: Arc::clone(self.context.schema()),
            journal: None,
            checks: Vec::new(),
            condition: false,
            quarantines_invalid: false,
        };
        Ok((stage, rules))
    }

    fn run(&self, batches: &[RecordBatch]) -> Result<(RecordBatch, Verdict)> {
        let (stage, rules) = self.stage()?;
        let run = stage.run.current()?;
        let rows = batches
            .iter()
            .map(|batch| stage.rows(&run, &rules, batch.clone(), false))
            .collect::<Result<Vec<_>>>()?;
        let verdict = stage.guarded(|| run.hook.finish())?;
        let rows = concat_batches(&rules.schema, &rows)
            .map_err(|error| self.broken("the schema stays", &error.to_string()))?;
        Ok((rows, verdict))
    }

    fn run_in_threads(&self, batches: &[RecordBatch]) -> Result<usize> {
        let (stage, rules) = self.stage()?;
        let run = stage.run.current()?;
        let (left, right) = batches.split_at(batches.len() / 2);
        let feed = |batches: &[RecordBatch]| {
            let mut rows = 0;
            for batch in batches {
                rows += stage.rows(&run, &rules, batch.clone(), false)?.num_rows();
            }
            Ok::<usize, Error>(rows)
        };
        let rows = thread::scope(|scope| {
            let other = scope.spawn(|| feed(right));
            let here = feed(left)?;
            let there = other.join().map_err(|_| {
                self.broken("rows may come from several threads", "a thread panicked")
            })?;
            Ok::<usize, Error>(here + there?)
        })?;
        stage.guarded(|| run.hook.finish())?;
        Ok(rows)
    }

    fn broken(&self, law: &str, how: &str) -> Error {
        let name = self.supplier.name();
        Error::invalid(format!("hook {name} breaks the law that {law}: {how}"))
    }
}

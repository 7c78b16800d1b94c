//! The stages of a write, top to bottom. Building them has no effect; the sink at their end has.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::ExecutionPlan;

use super::cleanse::CleanseAccount;
use super::hook::WriteContext;
use super::sink::WriteExec;
use super::stages::Received;
use super::target::WriteTarget;
use super::validate::{Needed, TableRules};
use crate::cleanse;
use crate::error::{Error, Result};
use crate::journal::definition::LatePolicy;
use crate::journal::shape::Shape;
use crate::quality::check::{self, CompiledCheck};
use crate::quality::compile::{Terms, compile};
use crate::quality::failure::quarantinable;
use crate::quality::rule::{PROFILE, QUARANTINE_INVALID};
use crate::table::protocol;

/// The plan that writes `input`, whose columns are those of the table in order.
pub(crate) async fn plan(
    state: &dyn Session,
    target: &Arc<WriteTarget>,
    input: Arc<dyn ExecutionPlan>,
    op: InsertOp,
) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(base) = &target.base {
        protocol::check_writable(&target.name, base)?;
    }
    let state = state
        .as_any()
        .downcast_ref::<SessionState>()
        .ok_or_else(|| Error::internal("a write needs DataFusion's own session state"))?;
    let schema = target.flow();
    let condition = target.condition.as_deref();
    let checks = target
        .checks()
        .chain(condition.map(|text| ("REPLACE WHERE", text)))
        .map(|(name, text)| check::compile(state, &target.name, name, text, schema))
        .collect::<Result<Vec<_>>>()?;
    let rules = Arc::new(TableRules {
        table: target.name.clone(),
        schema: Arc::clone(schema),
        journal: target.journals().map(|journal| needed(&journal.shape)),
        checks,
        condition: condition.is_some(),
        quarantines_invalid: target.is_set(QUARANTINE_INVALID),
    });
    let partitioning = target.partitioning()?;
    let terms = Terms {
        state,
        table: &target.name,
        schema,
        partitioning: &partitioning,
        checks: &[],
    };
    // Where no row is written, none is asked.
    let makes_rows = makes_rows(target, &input);
    let compiled = match makes_rows {
        true => compile(terms, &target.rules()?, target.is_set(PROFILE)).await?,
        false => compile(terms, &[], false).await?,
    };
    let sets_late_aside = target
        .journals()
        .is_some_and(|journal| journal.shape.definition.late.policy == LatePolicy::Quarantine);
    if compiled.quarantines() || rules.quarantines_invalid || sets_late_aside {
        quarantinable(&target.name, schema)?;
    }
    let policies = match makes_rows {
        true => target.policies()?,
        false => Vec::new(),
    };
    let terms = cleanse::compile::Terms {
        state,
        table: &target.name,
        schema,
        partition_columns: target.flow_partition_columns(),
    };
    let cleansing = cleanse::compile::compile(terms, &policies).await?;
    let context = WriteContext::new(
        target.name.as_str(),
        Arc::clone(schema),
        target.operation,
        target.batch_id,
        target.base.as_ref().map(|base| base.version),
    );
    let rows = match &target.change {
        Some(change) => {
            // Rows that are left out must not take the place of others.
            let places = compiled.rejects() || rules.quarantines_invalid || cleansing.deletes();
            Received::changed(input, change, &target.schema, places)
        }
        None if target.replays.is_some() => Received::replayed(input, schema),
        None => Received::rows(input),
    };
    let rows = match target.journals() {
        Some(journal) => {
            let delete_when = delete_when(state, target, &journal.shape)?;
            rows.riding(&rules, delete_when)?
        }
        None => rows,
    };
    let rows = rows.validate(rules, CleanseAccount::new(cleansing))?;
    let rows = rows.hooks(&target.hooks, &context)?;
    let rows = rows.cleanse().check(compiled);
    let rows = match target.journals() {
        Some(journal) => rows.journal(journal, state)?,
        None => rows,
    };
    Ok(Arc::new(WriteExec::new(rows, Arc::clone(target), op)))
}

/// Columns in which rows for a journal must have a value.
fn needed(shape: &Shape) -> Needed {
    let always: Vec<usize> = shape.keys.iter().chain(&shape.sequence).copied().collect();
    let declared = shape.declared.fields().iter().enumerate();
    let unless_deleted = declared
        .filter(|(at, field)| !field.is_nullable() && !always.contains(at))
        .map(|(at, _)| at)
        .collect();
    Needed {
        always,
        sequence: shape.sequence,
        unless_deleted,
        ends_told: shape.definition.delete_when.is_some(),
    }
}

/// What tells of a row that it only ends its key.
fn delete_when(
    state: &SessionState,
    target: &WriteTarget,
    shape: &Shape,
) -> Result<Option<CompiledCheck>> {
    let Some(text) = &shape.definition.delete_when else {
        return Ok(None);
    };
    let name = "APPLY AS DELETE WHEN";
    check::compile(state, &target.name, name, text, target.flow()).map(Some)
}

/// Whether the statement makes rows: one that only deletes gives no columns of the table, and need not know which
/// keys there are.
fn makes_rows(target: &WriteTarget, input: &Arc<dyn ExecutionPlan>) -> bool {
    let given = input.schema();
    let first = |schema: &SchemaRef| schema.fields().first().map(|field| field.name().clone());
    target.change.is_none() || first(&given) == first(&target.schema)
}

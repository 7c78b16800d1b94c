//! CHECK TABLE: the rules of a table, asked of the rows it has.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::common::runtime::JoinSet;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::execute_stream_partitioned;
use futures::TryStreamExt;

use crate::answer::Answer;
use crate::cleanse;
use crate::cleanse::apply::Running;
use crate::cleanse::mask::Masks;
use crate::error::{Error, Result};
use crate::quality::compile::{Compiled, Terms, compile};
use crate::quality::evaluate::Evaluation;
use crate::quality::past::Past;
use crate::quality::record::RuleResult;
use crate::quality::rule::{OnNull, Rule};
use crate::session::scope::{Opened, Scope};
use crate::session::{constraint, policy, show};
use crate::sql::{self, At, CheckTable};
use crate::table::meta::Columns;
use crate::table::snapshot::Snapshot;

/// The columns of CHECK TABLE: a row per rule, or per partition of a rule that is asked of each.
pub(in crate::session) fn checked() -> Columns<RuleResult> {
    let whole = |count: u64| i64::try_from(count).ok();
    Columns::new()
        .text("rule", |of: &RuleResult| Some(of.rule.clone()))
        .text("kind", |of| Some(of.kind.word().to_owned()))
        .text("action", |of| Some(of.action.sql().to_owned()))
        .texts("partition", |of| of.partition.clone())
        .text("outcome", |of| Some(of.outcome.word().to_owned()))
        .number("rows_checked", move |of| whole(of.rows_checked))
        .number("violations", move |of| whole(of.violations))
        .number("nulls", move |of| whole(of.nulls))
        .list("observed", |of| of.observed.clone())
        .list("threshold", |of| of.threshold.clone())
        .list("sample", |of| of.sample.clone())
}

/// `CHECK TABLE t ..`
pub(in crate::session) async fn table(scope: &Arc<Scope>, statement: CheckTable) -> Result<Answer> {
    let opened = scope.open(&statement.table).await?;
    let name = statement.constraint.as_ref().map(sql::fold);
    let results = check(scope, &opened, statement.at, name.as_deref()).await?;
    show::answer(&checked(), &results)
}

/// What the rules of the table as it is now say of its rows as they are, or were in another version. With a name,
/// one of them is asked, whether it is enabled or not.
pub(in crate::session) async fn check(
    scope: &Arc<Scope>,
    opened: &Opened,
    at: Option<At>,
    name: Option<&str>,
) -> Result<Vec<RuleResult>> {
    let mut rules = constraint::rules(opened)?;
    // CHECK is asked as what it is: a condition that must be true.
    let checks = opened.snapshot.checks().map(|(name, text)| Rule {
        on_null: OnNull::Violate,
        ..Rule::new(name, text)
    });
    rules.extend(checks);
    rules.sort_by(|one, other| one.name.cmp(&other.name));
    match name {
        Some(name) => {
            rules.retain(|rule| rule.name == name);
            let [rule] = rules.as_mut_slice() else {
                return Err(constraint::missing(opened, name));
            };
            rule.enabled = true;
        }
        None => rules.retain(|rule| rule.enabled),
    }
    let snapshot = match at {
        Some(at) => scope.snapshot_at(&opened.handle, &opened.name, at).await?,
        None => Arc::clone(&opened.snapshot),
    };
    asked(scope, opened, &snapshot, &rules).await
}

/// What one rule says of the rows of a table, whether the table has it or not.
pub(in crate::session) async fn violations(
    scope: &Arc<Scope>,
    opened: &Opened,
    rule: &Rule,
) -> Result<RuleResult> {
    let rule = Rule {
        enabled: true,
        ..rule.clone()
    };
    let mut results = asked(scope, opened, &opened.snapshot, &[rule]).await?;
    results
        .pop()
        .ok_or_else(|| Error::internal(format!("a rule of table {} said nothing", opened.name)))
}

async fn asked(
    scope: &Arc<Scope>,
    opened: &Opened,
    snapshot: &Arc<Snapshot>,
    rules: &[Rule],
) -> Result<Vec<RuleResult>> {
    let state = scope.state();
    // A journal answers with what is true now, in the columns that rules know.
    let rows = opened.handle.provider(&opened.name, Arc::clone(snapshot));
    let rows = rows.current()?;
    let schema = rows.schema();
    let checks: Vec<String> = opened
        .snapshot
        .checks()
        .map(|(name, _)| name.to_owned())
        .collect();
    let partitioning = constraint::partitioning(&schema, snapshot.partition_columns());
    let terms = Terms {
        state: &state,
        table: &opened.name,
        schema: &schema,
        partitioning: &partitioning,
        checks: &checks,
    };
    let compiled = compile(terms, rules, false).await?;
    if compiled.is_empty() {
        return Ok(Vec::new());
    }
    // What was taken from a row is no more to blame at rest than it was when the row was written.
    let terms = cleanse::compile::Terms {
        state: &state,
        table: &opened.name,
        schema: &schema,
        partition_columns: snapshot.partition_columns(),
    };
    let cleansing = match snapshot.version == opened.snapshot.version {
        true => cleanse::compile::compile(terms, &policy::policies(opened)?).await?,
        // The columns may have been others.
        false => cleanse::compile::compile(terms, &[]).await?,
    };
    let masks = Masks::new(cleansing.touched(), schema.fields().len());
    let compiled = Arc::new(compiled.masked(masks));
    let running = match cleansing.touched().is_empty() {
        true => None,
        false => Some(Running::begin(&Arc::new(cleansing), &state.task_ctx()).await?),
    };
    let running = running.map(Arc::new);
    evaluated(scope, opened, Arc::new(rows), &compiled, running).await
}

async fn evaluated(
    scope: &Arc<Scope>,
    opened: &Opened,
    rows: Arc<dyn TableProvider>,
    compiled: &Arc<Compiled>,
    cleansing: Option<Arc<Running>>,
) -> Result<Vec<RuleResult>> {
    let state = scope.state();
    let name = TableReference::partial(opened.schema.as_str(), opened.table.as_str());
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(rows), None)?.build()?;
    let plan = state.create_physical_plan(&scan).await?;
    let context = state.task_ctx();
    let evaluation = Evaluation::begin(compiled, &context).await?;
    let mut workers = JoinSet::new();
    let streams = execute_stream_partitioned(plan, context)?;
    for (number, mut batches) in streams.into_iter().enumerate() {
        let mut worker = evaluation.worker(number)?;
        let cleansing = cleansing.clone();
        workers.spawn(async move {
            while let Some(batch) = batches.try_next().await? {
                match &cleansing {
                    Some(running) => worker.count(&running.marked(&batch)?)?,
                    None => worker.count(&batch)?,
                }
            }
            worker.finish()
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.map_err(|error| {
            Error::internal(format!("a check of table {} stopped", opened.name)).with_source(error)
        })??;
    }
    // What writes were like says nothing of a whole table: what asks for it is unknown.
    Ok(evaluation.settle(&Past::default(), true)?.results)
}

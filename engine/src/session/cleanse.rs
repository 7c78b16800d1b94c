//! CLEANSE TABLE and VERIFY ERASURE: from names and clauses to policies with their keys, and from the account to rows.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};

use super::maintain::job;
use super::policy::{checks, policies, policy_named, terms};
use super::scope::{Opened, Scope};
use super::show::answer;
use crate::answer::Answer;
use crate::cleanse::apply::Running;
use crate::cleanse::compile::compile;
use crate::cleanse::policy::Policy;
use crate::error::{Error, Result};
use crate::maintenance::cleanse::{self, Done, Request};
use crate::maintenance::verify::{self, Left};
use crate::sql::{self, Cleanse};
use crate::table::meta::Columns;

/// What CLEANSE TABLE answers: a row for each policy.
pub(super) fn cleansed() -> Columns<Done> {
    Columns::new()
        .text("policy", |done: &Done| Some(done.policy.clone()))
        .count("keys", |done| Some(done.keys))
        .count("files_scanned", |done| Some(done.files_scanned))
        .count("files_rewritten", |done| Some(done.files_rewritten))
        .count("rows_nullified", |done| Some(done.rows_nullified))
        .count("rows_deleted", |done| Some(done.rows_deleted))
        .count("quarantine_rows", |done| Some(done.quarantine_rows))
        .count("bytes_written", |done| Some(done.bytes_written))
        .count("version", |done| done.version)
        .text("notes", |done| {
            (!done.notes.is_empty()).then(|| done.notes.join("; "))
        })
}

/// What VERIFY ERASURE answers: a row for each place in which something is left.
pub(super) fn verified() -> Columns<Left> {
    Columns::new()
        .text("object", |left: &Left| Some(left.object.clone()))
        .text("what", |left| Some(left.what.to_owned()))
        .text("column", |left| Some(left.column.clone()))
        .count("count", |left| Some(left.count))
}

/// `CLEANSE TABLE t ..`
pub(super) async fn cleanse(scope: &Arc<Scope>, statement: Cleanse) -> Result<Answer> {
    let opened = scope.open(&statement.table).await?;
    let policy = statement.policy.as_ref().map(sql::fold);
    if let Some(name) = &policy
        && !policy_named(&opened, name)?.enabled
    {
        return Err(Error::invalid(format!(
            "CLEANSE TABLE {}: cleanse policy {name} is disabled",
            opened.name
        ))
        .with_hint(format!(
            "ALTER CLEANSE POLICY {} ON {} ENABLE",
            sql::quoted(name),
            opened.name
        )));
    }
    let Cleanse { erase, dry_run, .. } = statement;
    let done = run(scope, &opened, policy, erase, dry_run).await?;
    answer(&cleansed(), &done)
}

/// The same for rows that a statement has brought back.
pub(super) async fn again(scope: &Arc<Scope>, opened: &Opened) -> Result<()> {
    let snapshot = opened.handle.pin(&opened.name).await?;
    let opened = Opened {
        snapshot,
        ..opened.clone()
    };
    run(scope, &opened, None, false, false).await.map(drop)
}

async fn run(
    scope: &Arc<Scope>,
    opened: &Opened,
    policy: Option<String>,
    erase: bool,
    dry_run: bool,
) -> Result<Vec<Done>> {
    // One that is asked for alone overrules none that is stricter.
    let running = running(scope, opened, &policies(opened)?).await?;
    // Without a policy, no version holds anything that is to be forgotten.
    if running.compiled().is_empty() {
        return Ok(Vec::new());
    }
    let request = Request {
        running,
        policy,
        checks: checks(&scope.state(), opened, &opened.snapshot.schema)?.into(),
        metadata: Arc::clone(&opened.snapshot.metadata),
        erase,
        dry_run,
    };
    let done = cleanse::run(&job(scope, opened, "CLEANSE"), &request).await?;
    if erase && !dry_run {
        // Half-written files of writers that died hold rows too.
        scope.engine.sweep(&opened.handle).await?;
    }
    Ok(done)
}

/// `VERIFY ERASURE OF t ..`
pub(super) async fn verify(
    scope: &Arc<Scope>,
    table: &ObjectName,
    policy: Option<&Ident>,
) -> Result<Answer> {
    let opened = scope.open(table).await?;
    // Whether a policy runs by itself does not matter to what is left.
    let policies = chosen(&opened, policy)?.into_iter().map(|policy| Policy {
        enabled: true,
        ..policy
    });
    let policies: Vec<Policy> = policies.collect();
    if policies.is_empty() {
        return Err(Error::invalid(format!(
            "VERIFY ERASURE OF {}: the table has no enabled cleanse policy, so nothing says what is to be gone",
            opened.name
        ))
        .with_hint("CREATE CLEANSE POLICY, or name one that is disabled: VERIFY ERASURE OF t POLICY p"));
    }
    let running = running(scope, &opened, &policies).await?;
    let job = job(scope, &opened, "VERIFY ERASURE");
    let left = verify::run(&job, &opened.snapshot, &running).await?;
    answer(&verified(), &left)
}

/// The policy of that name, or all that are enabled.
fn chosen(opened: &Opened, name: Option<&Ident>) -> Result<Vec<Policy>> {
    match name {
        Some(name) => Ok(vec![policy_named(opened, &sql::fold(name))?]),
        None => {
            let mut policies = policies(opened)?;
            policies.retain(|policy| policy.enabled);
            Ok(policies)
        }
    }
}

/// The policies with the keys of the moment.
async fn running(scope: &Arc<Scope>, opened: &Opened, policies: &[Policy]) -> Result<Arc<Running>> {
    let state = scope.state();
    // Rows that lie have all columns of the table: of a journal those of its intervals too.
    let terms = terms(&state, opened, &opened.snapshot.schema);
    let compiled = Arc::new(compile(terms, policies).await?);
    let running = Running::begin(&compiled, &state.task_ctx()).await;
    Ok(Arc::new(running?))
}

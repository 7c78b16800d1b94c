//! What rests on a table's columns: constraints, rules, policies, views and functions. A change they could not live with is refused.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::Expr;

use super::draft::Draft;
use crate::cleanse;
use crate::error::{Error, Result};
use crate::quality::check;
use crate::quality::compile::{self, Terms};
use crate::session::dependents::{self, Object};
use crate::session::scope::{Opened, Scope};
use crate::session::{constraint, policy, references};
use crate::sql;
use crate::table::snapshot::Snapshot;

/// Refuses a draft under which a constraint no longer says anything, or, with `retyped`, the place of a column whose
/// type changes, may say something else: `a / 2` is another number for another type of `a`. A rule that is disabled
/// must be able to come back, so it counts too, and so do rules of other tables that refer to this one.
pub(super) async fn constraints(
    scope: &Arc<Scope>,
    opened: &Opened,
    draft: &Draft<'_>,
    retyped: Option<usize>,
    what: &str,
) -> Result<()> {
    let (state, schema) = (scope.state(), draft.declared()?);
    let refuse = |constraint: &str, name: &str, text: &str| {
        Err(
            Error::invalid(format!("{what}: {constraint} {name} ({text}) uses it")).with_hint(
                format!(
                    "ALTER TABLE {} DROP CONSTRAINT {} first",
                    opened.name,
                    sql::quoted(name)
                ),
            ),
        )
    };
    for (name, text) in opened.snapshot.checks() {
        let compiled = check::compile(&state, &opened.name, name, text, &schema);
        let kept = compiled.is_ok_and(|check| !retyped.is_some_and(|at| check.reads(at)));
        if !kept {
            return refuse("CHECK", name, text);
        }
    }
    let terms = Terms {
        state: &state,
        table: &opened.name,
        schema: &schema,
        partitioning: &constraint::partitioning(&schema, &draft.metadata.partition_columns),
        checks: &[],
    };
    for rule in constraint::rules(opened)? {
        let read = compile::reads(terms, &rule).await;
        let kept = read.is_ok_and(|columns| !retyped.is_some_and(|at| columns.contains(&at)));
        if !kept {
            return refuse("rule", &rule.name, &rule.expect);
        }
    }
    policies(scope, opened, draft, what).await?;
    references::survive(scope, &opened.schema, &opened.table, &schema, what).await
}

/// Refuses a draft under which a cleanse policy could not be run: it would no longer be forgotten what must be.
pub(super) async fn policies(
    scope: &Arc<Scope>,
    opened: &Opened,
    draft: &Draft<'_>,
    what: &str,
) -> Result<()> {
    let (state, schema) = (scope.state(), draft.declared()?);
    for kept in policy::policies(opened)? {
        let terms = cleanse::compile::Terms {
            state: &state,
            table: &opened.name,
            schema: &schema,
            partition_columns: &draft.metadata.partition_columns,
        };
        if let Err(error) = policy::compiles(terms, &kept).await {
            let clause = sql::policy_clause(&kept);
            return Err(Error::invalid(format!(
                "{what}: cleanse policy {} ({clause}) uses it",
                kept.name
            ))
            .with_detail(error.message().to_owned())
            .with_hint(format!(
                "DROP CLEANSE POLICY {} ON {} first",
                sql::quoted(&kept.name),
                opened.name
            )));
        }
    }
    Ok(())
}

/// Refuses a draft under which a view or function that works now would not. One that is broken already stands in
/// nobody's way.
pub(super) async fn users(
    scope: &Arc<Scope>,
    opened: &Opened,
    draft: &Draft<'_>,
    what: &str,
) -> Result<()> {
    let catalog = &scope.pinned.catalog;
    let table = Object::relation(&opened.schema, &opened.table);
    let users = dependents::users_of_users(catalog, &[table]);
    if users.is_empty() {
        return Ok(());
    }
    let snapshot = Snapshot::draft(&opened.snapshot.protocol, &draft.metadata, draft.schema());
    let table = opened.handle.provider(&opened.name, Arc::new(snapshot));
    let table = table.current()?;
    let supposed = scope.over((**catalog).clone());
    supposed.stand_in(&opened.schema, &opened.table, Arc::new(table));
    for user in users {
        if dependents::works(scope, &user).await.is_err() {
            continue;
        }
        let refuse = |how: &str, why: Option<&str>| {
            let error = Error::invalid(format!("{what}: {} {how}", user.told(catalog)))
                .with_hint("CREATE OR REPLACE it without the column, or DROP it, first");
            Err(match why {
                Some(why) => error.with_detail(why.to_owned()),
                None => error,
            })
        };
        if let Err(error) = dependents::works(&supposed, &user).await {
            return refuse("would not work any more", Some(error.message()));
        }
        if let Some((schema, view)) = user.as_relation()
            && names_from_outside(&supposed.relation(schema, view).await?)?
                != names_from_outside(&scope.relation(schema, view).await?)?
        {
            return refuse("would mean another column", None);
        }
    }
    Ok(())
}

/// How many names in subqueries of a view mean columns of the query around. In `a IN (SELECT b FROM t)` a name
/// that `t` no longer has is looked for outside, and `b` may be there too.
fn names_from_outside(view: &Arc<dyn TableProvider>) -> Result<usize> {
    let mut names = 0;
    if let Some(view) = view.downcast_ref::<ViewTable>() {
        view.logical_plan().apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    names += usize::from(matches!(expr, Expr::OuterReferenceColumn(..)));
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
    }
    Ok(names)
}

//! ALTER TABLE and DROP.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast::ObjectName;

use super::create;
use super::dependents::{self, Object};
use super::evolve::{self, Draft};
use super::rules::Validation;
use super::scope::{Opened, Scope};
use super::site::clear;
use super::{constraint, functions, journal, properties, references};
use crate::answer::Answer;
use crate::catalog::entry::{Change, Relation, TableEntry};
use crate::catalog::{DEFAULT_SCHEMA, INFORMATION_SCHEMA};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::{self, AlterAction, Drop, DropKind};
use crate::table::protocol;
use crate::write::commit::{self, Intent, Outcome};
use crate::write::conflict::Reads;
use crate::write::target::NewTable;

/// ALTER TABLE.
pub(super) async fn table(
    scope: &Arc<Scope>,
    name: &ObjectName,
    action: AlterAction,
) -> Result<Answer> {
    let done = Answer::Done("ALTER TABLE".to_owned());
    if let AlterAction::RenameTo(to) = &action {
        rename(scope, name, to).await?;
        return Ok(done);
    }
    let opened = scope.open(name).await?;
    protocol::check_writable(&opened.name, &opened.snapshot)?;
    match action {
        AlterAction::RenameTo(_) => {}
        AlterAction::AddColumn(add) => evolve::add(scope, &opened, add).await?,
        AlterAction::DropColumn { column, if_exists } => {
            evolve::drop(scope, &opened, &column, if_exists).await?;
        }
        AlterAction::RenameColumn { column, to } => {
            evolve::rename(scope, &opened, &column, &to).await?;
        }
        AlterAction::AlterColumn { column, change } => {
            evolve::alter(scope, &opened, &column, change).await?;
        }
        AlterAction::SetProperties(pairs) => {
            let mut draft = Draft::of(scope, &opened);
            for (key, value) in pairs {
                properties::check(&opened.name, &key, &value)?;
                journal::settable(&opened.name, &key)?;
                draft.set(key, value)?;
            }
            let properties = &draft.metadata.configuration;
            journal::fits(&opened.name, properties)?;
            constraint::quarantinable(&opened.name, &opened.columns(), properties)?;
            amend(scope, &opened, "SET TBLPROPERTIES", draft.finish()?, false).await?;
        }
        AlterAction::UnsetProperties { keys, if_exists } => {
            let mut draft = Draft::of(scope, &opened);
            for key in keys {
                // Only what may be set may be unset; the rest is the engine's own.
                properties::known(&opened.name, &key)?;
                journal::settable(&opened.name, &key)?;
                if !draft.unset(&key)? && !if_exists {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!("table {} has no property {key}", opened.name),
                    ));
                }
            }
            amend(
                scope,
                &opened,
                "UNSET TBLPROPERTIES",
                draft.finish()?,
                false,
            )
            .await?;
        }
        AlterAction::AddCheck {
            name,
            expr,
            not_valid,
        } => constraint::add_check(scope, &opened, &sql::fold(&name), &expr, not_valid).await?,
        AlterAction::AddRule { rule, not_valid } => {
            let validation = match not_valid {
                true => Validation::Trust,
                false => Validation::Scan,
            };
            constraint::add_rule(scope, &opened, rule, validation).await?;
        }
        AlterAction::SwitchConstraint { name, enabled } => {
            constraint::switch(scope, &opened, &sql::fold(&name), enabled).await?;
        }
        AlterAction::DropConstraint { name, if_exists } => {
            constraint::drop(scope, &opened, &sql::fold(&name), if_exists).await?;
        }
    }
    Ok(done)
}

async fn rename(scope: &Arc<Scope>, from: &ObjectName, to: &ObjectName) -> Result<()> {
    let (schema, name) = scope.place(from)?;
    let (to_schema, to_name) = match to.0.len() {
        // A bare new name stays in the schema of the old one.
        1 => (schema.clone(), scope.place(to)?.1),
        _ => scope.place(to)?,
    };
    let going = [(schema.clone(), name.clone())];
    references::unreferenced(scope, &going, "renamed").await?;
    scope
        .engine
        .catalog
        .change(|catalog| {
            let Some(relation) = catalog.relation(&schema, &name) else {
                return Err(scope.no_such_table(&schema, &name));
            };
            if matches!(relation, Relation::View(_)) {
                return Err(Error::invalid(format!(
                    "{schema}.{name} is a view, not a table"
                )));
            }
            if !catalog.schemas.contains_key(&to_schema) {
                return Err(scope.no_such_schema(&to_schema));
            }
            if catalog.relation(&to_schema, &to_name).is_some() {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("{to_schema}.{to_name} already exists"),
                ));
            }
            dependents::renamed(catalog, &Object::relation(&schema, &name))?;
            Ok(vec![
                Change::Drop {
                    schema: schema.clone(),
                    name: name.clone(),
                },
                Change::Put {
                    schema: to_schema.clone(),
                    name: to_name.clone(),
                    relation: relation.clone(),
                },
            ])
        })
        .await
}

/// DROP TABLE, VIEW, SCHEMA or FUNCTION.
pub(super) async fn drop(scope: &Arc<Scope>, drop: Drop) -> Result<Answer> {
    match drop.kind {
        DropKind::Schema => drop_schema(scope, &drop).await,
        DropKind::Table | DropKind::View => drop_relation(scope, &drop).await,
        DropKind::Function => functions::remove(scope, &drop).await,
    }
}

async fn drop_relation(scope: &Arc<Scope>, drop: &Drop) -> Result<Answer> {
    let (schema, name) = scope.place(&drop.name)?;
    let view = drop.kind == DropKind::View;
    let done = Answer::Done(if view { "DROP VIEW" } else { "DROP TABLE" }.to_owned());
    if drop.if_exists && scope.pinned.catalog.relation(&schema, &name).is_none() {
        return Ok(done);
    }
    let going = [(schema.clone(), name.clone())];
    references::unreferenced(scope, &going, "dropped").await?;
    let dropped = parking_lot::Mutex::new(None);
    scope
        .engine
        .catalog
        .change(|catalog| {
            match (catalog.relation(&schema, &name), view) {
                (None, _) if drop.if_exists => return Ok(Vec::new()),
                (None, _) => return Err(scope.no_such_table(&schema, &name)),
                (Some(Relation::View(_)), false) => {
                    return Err(Error::invalid(format!("{schema}.{name} is a view"))
                        .with_hint(format!("DROP VIEW {schema}.{name}")));
                }
                (Some(Relation::Table(_) | Relation::Files(_)), true) => {
                    return Err(Error::invalid(format!("{schema}.{name} is a table"))
                        .with_hint(format!("DROP TABLE {schema}.{name}")));
                }
                (Some(relation), _) => *dropped.lock() = Some(relation.clone()),
            }
            dependents::dropped(catalog, Object::relation(&schema, &name), drop.cascade)
        })
        .await?;
    if let Some(Relation::Table(entry)) = dropped.into_inner() {
        remove_files(scope, &entry).await?;
    }
    Ok(done)
}

/// The name is gone, so nobody can reach the files; those of external tables are not ours.
async fn remove_files(scope: &Arc<Scope>, entry: &TableEntry) -> Result<()> {
    if !entry.external {
        clear(&*scope.engine.table(entry)?).await;
    }
    Ok(())
}

async fn drop_schema(scope: &Arc<Scope>, drop: &Drop) -> Result<Answer> {
    let schema = create::schema_name(&drop.name)?;
    if schema == DEFAULT_SCHEMA || schema == INFORMATION_SCHEMA {
        return Err(Error::invalid(format!("schema {schema} cannot be dropped")));
    }
    let done = Answer::Done("DROP SCHEMA".to_owned());
    if drop.cascade
        && let Some(content) = scope.pinned.catalog.schemas.get(&schema)
    {
        let tables = content.relations.keys();
        let going: Vec<_> = tables.map(|name| (schema.clone(), name.clone())).collect();
        references::unreferenced(scope, &going, "dropped").await?;
    }
    let dropped = parking_lot::Mutex::new(Vec::new());
    scope
        .engine
        .catalog
        .change(|catalog| {
            let Some(content) = catalog.schemas.get(&schema) else {
                return if drop.if_exists {
                    Ok(Vec::new())
                } else {
                    Err(scope.no_such_schema(&schema))
                };
            };
            let (relations, functions) = (content.relations.len(), content.functions.len());
            if relations + functions > 0 && !drop.cascade {
                let holds = match (relations, functions) {
                    (_, 0) => format!("{relations} tables and views"),
                    (0, _) => format!("{functions} functions"),
                    _ => format!("{relations} tables and views and {functions} functions"),
                };
                return Err(Error::invalid(format!(
                    "schema {schema} is not empty: it holds {holds}"
                ))
                .with_hint(format!("DROP SCHEMA {schema} CASCADE drops them too")));
            }
            *dropped.lock() = content.relations.values().cloned().collect();
            let mut changes = dependents::dropped_with(catalog, &schema, drop.cascade)?;
            changes.push(Change::DropSchema {
                schema: schema.clone(),
            });
            Ok(changes)
        })
        .await?;
    for relation in dropped.into_inner() {
        if let Relation::Table(entry) = relation {
            remove_files(scope, &entry).await?;
        }
    }
    Ok(done)
}

/// Commits new metadata of a table that stays as it is otherwise.
pub(super) async fn amend(
    scope: &Arc<Scope>,
    opened: &Opened,
    operation: &'static str,
    new: NewTable,
    exclusive: bool,
) -> Result<()> {
    let protocol = (new.protocol != *opened.snapshot.protocol).then_some(new.protocol);
    let base = Some(Arc::clone(&opened.snapshot));
    let (name, user) = (opened.name.clone(), scope.user.clone());
    let intent = Intent {
        protocol,
        metadata: Some(new.metadata),
        reads: match exclusive {
            true => Reads::Exclusive,
            false => Reads::Nothing,
        },
        ..Intent::new(name, base, operation, user, scope.batch_id)
    };
    let handle = Arc::clone(&opened.handle);
    match commit::commit(handle, intent, &scope.engine.settings).await? {
        Outcome::Committed(..) => Ok(()),
        Outcome::Conflict(reason) => {
            Err(Error::new(ErrorKind::Conflict, reason).with_hint("run the statement again"))
        }
        Outcome::Unknown(error) => Err(error),
    }
}

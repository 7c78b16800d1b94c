//! Rules that refer to another table, `c REFERENCES t (k)`, and cleanse policies that take their keys from one. The
//! table must be one of the lake, and stays as long as a rule or a policy refers to it.
//!
//! A rule is kept with its own table, so the catalog notes beside that table which others its rules may refer to,
//! before the rule is committed: only those few tables are asked when another is to go. A note outlives its rule,
//! because old versions with the rule may be restored. What others add at the same time is not seen; their writes
//! then fail with the reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};

use super::scope::{Opened, Scope};
use super::{constraint, policy};
use crate::catalog::entry::{Catalog, Change, Relation, TableName};
use crate::cleanse;
use crate::error::{Error, Result};
use crate::quality::rule::{self, Rule, RuleKind};
use crate::sql::{self, Condition, Reference};

/// The rule with its condition as it is kept. A table it refers to is named in full: it must mean the same for every
/// session.
pub(super) fn resolved(scope: &Scope, table: &str, mut rule: Rule) -> Result<Rule> {
    let owner = format!("rule {} of table {table}", rule.name);
    let condition = sql::parse_condition(&rule.expect).map_err(|error| error.ending(&owner))?;
    let mut reference = match condition {
        Condition::Reference(reference) => reference,
        Condition::Expr(expr) => {
            rule.expect = expr.to_string();
            rule.kind = RuleKind::Row;
            return Ok(rule);
        }
    };
    let (schema, name) = scope.place(&reference.table)?;
    if format!("{schema}.{name}") == table {
        return Err(Error::unsupported(format!(
            "{owner} refers to its own table, where it would not find the rows of the same write"
        )));
    }
    scope
        .table_entry(&schema, &name)
        .map_err(|error| error.ending(&owner))?;
    reference.table = object(&schema, &name);
    rule.expect = sql::reference_text(&reference);
    rule.kind = RuleKind::Reference;
    Ok(rule)
}

/// The tables that rules and policies among these properties refer to.
pub(super) fn targets(
    scope: &Scope,
    table: &str,
    properties: &BTreeMap<String, String>,
) -> Result<Vec<TableName>> {
    let mut targets = Vec::new();
    for rule in rule::rules(table, properties)? {
        if let Some((_, target)) = target(scope, &rule)?
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    for policy in cleanse::policy::policies(table, properties)? {
        for source in policy::sources(scope, &policy)? {
            if !targets.contains(&source) {
                targets.push(source);
            }
        }
    }
    Ok(targets)
}

/// Notes in the catalog that rules and policies of a table that is there may refer to these.
pub(super) async fn note(
    scope: &Scope,
    schema: &str,
    table: &str,
    targets: &[TableName],
) -> Result<()> {
    if targets.is_empty() {
        return Ok(());
    }
    let change = |catalog: &Catalog| {
        let Some(Relation::Table(entry)) = catalog.relation(schema, table) else {
            return Err(scope.no_such_table(schema, table));
        };
        let mut entry = entry.clone();
        let known = entry.refers_to.len();
        for (other_schema, other) in targets {
            if catalog.relation(other_schema, other).is_none() {
                return Err(scope.no_such_table(other_schema, other));
            }
            let target = (other_schema.clone(), other.clone());
            if !entry.refers_to.contains(&target) {
                entry.refers_to.push(target);
            }
        }
        if entry.refers_to.len() == known {
            return Ok(Vec::new());
        }
        Ok(vec![Change::Put {
            schema: schema.to_owned(),
            name: table.to_owned(),
            relation: Relation::Table(entry),
        }])
    };
    scope.engine.catalog.change(change).await
}

/// The same for one rule.
pub(super) async fn note_rule(scope: &Scope, opened: &Opened, rule: &Rule) -> Result<()> {
    match target(scope, rule)? {
        Some((_, target)) => note(scope, &opened.schema, &opened.table, &[target]).await,
        None => Ok(()),
    }
}

/// Refuses to take away tables, or their names, that rules or policies of others refer to.
pub(super) async fn unreferenced(
    scope: &Arc<Scope>,
    going: &[TableName],
    what: &str,
) -> Result<()> {
    for table in going {
        let refused = format!("table {}.{} cannot be {what}", table.0, table.1);
        for found in referrers(scope, table).await? {
            if !going.contains(&found.name) {
                return Err(found.refused(&refused));
            }
        }
        for found in policy::readers(scope, table).await? {
            if !going.contains(&found.table) {
                return Err(found.refused(&refused));
            }
        }
    }
    Ok(())
}

/// Refuses columns for a table under which rules or policies of others would not find the keys they refer to.
pub(super) async fn survive(
    scope: &Arc<Scope>,
    schema: &str,
    table: &str,
    columns: &SchemaRef,
    what: &str,
) -> Result<()> {
    let this = (schema.to_owned(), table.to_owned());
    for found in referrers(scope, &this).await? {
        let mut pairs = found.reference.columns.iter().zip(&found.reference.keys);
        let kept = pairs.all(|(column, key)| {
            let own = found.columns.field_with_name(&sql::fold(column));
            let their = columns.field_with_name(&sql::fold(key));
            match (own, their) {
                (Ok(own), Ok(their)) => {
                    comparison_coercion(own.data_type(), their.data_type()).is_some()
                }
                _ => false,
            }
        });
        if !kept {
            return Err(found.refused(what));
        }
    }
    for found in policy::readers(scope, &this).await? {
        if !found.survives(scope, &this, columns).await {
            return Err(found.refused(what));
        }
    }
    Ok(())
}

/// A rule of another table that refers to one.
struct Referrer {
    name: TableName,
    columns: SchemaRef,
    rule: Rule,
    reference: Reference,
}

impl Referrer {
    fn refused(&self, what: &str) -> Error {
        let Self { name, rule, .. } = self;
        let table = format!("{}.{}", name.0, name.1);
        Error::invalid(format!(
            "{what}: rule {} of table {table} ({}) refers to it",
            rule.name, rule.expect
        ))
        .with_hint(format!(
            "ALTER TABLE {table} DROP CONSTRAINT {} first",
            sql::quoted(&rule.name)
        ))
    }
}

async fn referrers(scope: &Scope, to: &TableName) -> Result<Vec<Referrer>> {
    let mut found = Vec::new();
    for (schema, content) in &scope.pinned.catalog.schemas {
        for (name, relation) in &content.relations {
            match relation {
                Relation::Table(entry) if entry.refers_to.contains(to) => {}
                _ => continue,
            }
            let opened = scope.open(&object(schema, name)).await?;
            for rule in constraint::rules(&opened)? {
                if let Some((reference, target)) = target(scope, &rule)?
                    && target == *to
                {
                    found.push(Referrer {
                        name: (schema.clone(), name.clone()),
                        columns: opened.columns(),
                        rule,
                        reference,
                    });
                }
            }
        }
    }
    Ok(found)
}

/// What a rule refers to, and the table of it.
fn target(scope: &Scope, rule: &Rule) -> Result<Option<(Reference, TableName)>> {
    if rule.kind != RuleKind::Reference {
        return Ok(None);
    }
    let reference = sql::parse_reference(&rule.expect)?;
    let target = scope.place(&reference.table)?;
    Ok(Some((reference, target)))
}

pub(super) fn object(schema: &str, table: &str) -> ObjectName {
    ObjectName::from(vec![
        Ident::with_quote('"', schema),
        Ident::with_quote('"', table),
    ])
}

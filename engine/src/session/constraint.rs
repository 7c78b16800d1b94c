//! ALTER TABLE for constraints. There are two kinds, which share their names: a CHECK is kept as the Delta protocol
//! keeps it, and other engines hold rows to it too; a rule is this engine's own, and says what becomes of rows
//! that break it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{Int64Type, Schema, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::sql::sqlparser::ast;

use super::alter::amend;
use super::rules::Validation;
use super::scope::{Opened, Scope};
use super::{quality, references};
use crate::error::{Error, ErrorKind, Result};
use crate::quality::compile::Terms;
use crate::quality::metric::Partitioning;
use crate::quality::rule::{self, OnViolation, Rule, RuleKind};
use crate::quality::{check, compile, failure};
use crate::sql::{self, Check};
use crate::table::actions::Protocol;
use crate::table::{partition, protocol};
use crate::write::target::NewTable;

/// Begins the property that holds a CHECK; its name follows.
pub(super) const CHECK: &str = "delta.constraints.";

/// ADD CONSTRAINT .. CHECK.
pub(super) async fn add_check(
    scope: &Arc<Scope>,
    opened: &Opened,
    name: &str,
    expr: &ast::Expr,
    not_valid: bool,
) -> Result<()> {
    vacant(opened, name)?;
    let text = expr.to_string();
    if not_valid {
        return Err(Error::unsupported(format!(
            "constraint {name} cannot be added to table {} as NOT VALID: other engines trust a CHECK to hold for every row",
            opened.name
        ))
        .with_hint(format!(
            "ADD CONSTRAINT {} EXPECT ({text}) NOT VALID holds only rows to come to it",
            sql::quoted(name)
        )));
    }
    check::compile(&scope.state(), &opened.name, name, &text, &opened.columns())?;
    let broken = violations(scope, opened, expr).await?;
    if broken > 0 {
        return Err(Error::rejected(format!(
            "constraint {name} cannot be added to table {}: {broken} rows violate {text}",
            opened.name
        )));
    }
    let mut configuration = opened.snapshot.metadata.configuration.clone();
    configuration.insert(format!("{CHECK}{name}"), text);
    let protocol = protocol::with_feature(&opened.snapshot.protocol, "checkConstraints");
    // Rows that came since were not looked at, so any commit in between means looking again.
    configure(
        scope,
        opened,
        "ADD CONSTRAINT",
        configuration,
        protocol,
        true,
    )
    .await
}

/// ADD CONSTRAINT .. EXPECT. The rule as it is kept.
pub(super) async fn add_rule(
    scope: &Arc<Scope>,
    opened: &Opened,
    rule: Rule,
    validation: Validation,
) -> Result<Rule> {
    vacant(opened, &rule.name)?;
    let rule = defined(scope, opened, rule).await?;
    let rule = begun(scope, opened, rule, validation, "added to").await?;
    keep(scope, opened, "ADD CONSTRAINT", &rule, true).await?;
    Ok(rule)
}

/// Another condition or action for a rule, under its name. Another condition is asked of the rows that are there,
/// as that of a new rule would be.
pub(super) async fn update_rule(scope: &Arc<Scope>, opened: &Opened, rule: Rule) -> Result<Rule> {
    let old = rule_named(opened, &rule.name)?;
    let rule = defined(scope, opened, rule).await?;
    let mut rule = if rule.fingerprint == old.fingerprint {
        Rule {
            author: old.author.clone(),
            validated: old.validated,
            since_version: old.since_version,
            ..rule
        }
    } else {
        begun(scope, opened, rule, Validation::Scan, "changed in").await?
    };
    if rule.fingerprint == old.fingerprint && rule.enabled && !old.enabled {
        resumed(opened, &mut rule);
    }
    if rule != old {
        keep(scope, opened, "CHANGE CONSTRAINT", &rule, true).await?;
    }
    Ok(rule)
}

/// ENABLE and DISABLE CONSTRAINT.
pub(super) async fn switch(
    scope: &Arc<Scope>,
    opened: &Opened,
    name: &str,
    enabled: bool,
) -> Result<()> {
    if opened.snapshot.checks().any(|(known, _)| known == name) {
        return Err(Error::unsupported(format!(
            "CHECK {name} of table {} cannot be enabled or disabled: it is a Delta constraint, which is always in force",
            opened.name
        ))
        .with_hint(format!(
            "ALTER TABLE {} DROP CONSTRAINT {}",
            opened.name,
            sql::quoted(name)
        )));
    }
    let mut rule = rule_named(opened, name)?;
    if rule.enabled == enabled {
        return Ok(());
    }
    rule.enabled = enabled;
    if enabled {
        resumed(opened, &mut rule);
        return keep(scope, opened, "ENABLE CONSTRAINT", &rule, true).await;
    }
    keep(scope, opened, "DISABLE CONSTRAINT", &rule, false).await
}

/// DROP CONSTRAINT.
pub(super) async fn drop(
    scope: &Arc<Scope>,
    opened: &Opened,
    name: &str,
    if_exists: bool,
) -> Result<()> {
    let mut configuration = opened.snapshot.metadata.configuration.clone();
    let held = [CHECK, rule::PROPERTY]
        .iter()
        .any(|prefix| configuration.remove(&format!("{prefix}{name}")).is_some());
    match (held, if_exists) {
        (false, true) => Ok(()),
        (false, false) => Err(missing(opened, name)),
        (true, _) => {
            let operation = "DROP CONSTRAINT";
            configure(scope, opened, operation, configuration, None, false).await
        }
    }
}

/// The checks of a new table, as properties. One without a name gets its place as name.
pub(super) fn checks(
    scope: &Arc<Scope>,
    table: &str,
    columns: &SchemaRef,
    checks: &[Check],
) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    for (index, check) in checks.iter().enumerate() {
        let name = match &check.name {
            Some(name) => sql::fold(name),
            None => format!("check_{}", index + 1),
        };
        let text = check.expr.to_string();
        check::compile(&scope.state(), table, &name, &text, columns)?;
        if properties.insert(format!("{CHECK}{name}"), text).is_some() {
            return Err(given_twice(table, &name));
        }
    }
    Ok(properties)
}

/// Puts a rule of a new table among its properties. The table begins, with `version`, without rows, or with rows
/// that were asked.
pub(super) fn declare(
    scope: &Scope,
    table: &str,
    mut rule: Rule,
    version: u64,
    properties: &mut BTreeMap<String, String>,
) -> Result<()> {
    rule.author.clone_from(&scope.user);
    rule.validated = true;
    rule.since_version = version;
    let (key, text) = rule::property(&rule)?;
    let check = properties.contains_key(&format!("{CHECK}{}", rule.name));
    if properties.insert(key, text).is_some() || check {
        return Err(given_twice(table, &rule.name));
    }
    Ok(())
}

fn given_twice(table: &str, constraint: &str) -> Error {
    Error::invalid(format!(
        "table {table}: constraint {constraint} is given twice"
    ))
}

/// The rules of a table, by name.
pub(super) fn rules(opened: &Opened) -> Result<Vec<Rule>> {
    rule::rules(&opened.name, &opened.snapshot.metadata.configuration)
}

/// The rule of that name; an error that names the nearest constraint when there is none.
pub(super) fn rule_named(opened: &Opened, name: &str) -> Result<Rule> {
    let found = rules(opened)?.into_iter().find(|rule| rule.name == name);
    found.ok_or_else(|| missing(opened, name))
}

/// A rule for these columns, checked: with its kind, its fingerprint, and the condition as it is kept.
pub(super) async fn define(
    scope: &Arc<Scope>,
    table: &str,
    columns: &SchemaRef,
    partition_columns: &[String],
    rule: Rule,
) -> Result<Rule> {
    let rule = references::resolved(scope, table, rule)?;
    if rule.on_violation == OnViolation::QuarantineRow {
        failure::quarantinable(table, columns)?;
    }
    let terms = Terms {
        state: &scope.state(),
        table,
        schema: columns,
        partitioning: &partitioning(columns, partition_columns),
        checks: &[],
    };
    compile::define(terms, rule).await
}

/// Refuses columns that a table of these properties cannot have beside its quarantine, if it has one.
pub(super) fn quarantinable(
    table: &str,
    columns: &Schema,
    properties: &BTreeMap<String, String>,
) -> Result<()> {
    let invalid = properties.get(rule::QUARANTINE_INVALID);
    // A rule that is disabled may be enabled again.
    let quarantines = invalid.is_some_and(|value| value == "true")
        || rule::rules(table, properties)?
            .iter()
            .any(|rule| rule.on_violation == OnViolation::QuarantineRow);
    match quarantines {
        true => failure::quarantinable(table, columns),
        false => Ok(()),
    }
}

/// How a table of these columns is partitioned. A column that is not there is told elsewhere.
pub(super) fn partitioning(columns: &SchemaRef, partition_columns: &[String]) -> Partitioning {
    let places = partition_columns.iter().map(|name| columns.index_of(name));
    Partitioning {
        columns: places.filter_map(Result::ok).collect(),
        spell: partition::encode,
    }
}

async fn defined(scope: &Arc<Scope>, opened: &Opened, rule: Rule) -> Result<Rule> {
    let columns = opened.columns();
    let partitioned = opened.snapshot.partition_columns();
    define(scope, &opened.name, &columns, partitioned, rule).await
}

/// A rule that begins to hold with the next version, asked of the rows that are there if it is to be.
async fn begun(
    scope: &Arc<Scope>,
    opened: &Opened,
    mut rule: Rule,
    validation: Validation,
    what: &str,
) -> Result<Rule> {
    rule.author.clone_from(&scope.user);
    rule.since_version = opened.snapshot.version + 1;
    rule.validated = match (rule.kind, validation) {
        // It is about the rows of a write, so rows that are there have nothing to answer.
        (RuleKind::Metric, _) => true,
        (_, Validation::Trust) => false,
        (_, Validation::Scan) => {
            let found = quality::violations(scope, opened, &rule).await?;
            if found.violations > 0 {
                let broken = match found.violations {
                    1 => "1 row violates".to_owned(),
                    many => format!("{many} rows violate"),
                };
                let refused = Error::rejected(format!(
                    "rule {} cannot be {what} table {}: {broken} {}",
                    rule.name, opened.name, rule.expect
                ))
                .with_hint(
                    "correct the rows first; ADD CONSTRAINT .. NOT VALID holds only rows to come to a rule",
                );
                return Err(match found.sample.as_slice() {
                    [] => refused,
                    sample => refused.with_detail(format!("the first: {}", sample.join("; "))),
                });
            }
            true
        }
    };
    Ok(rule)
}

/// Rows that came while a rule was disabled were not asked.
fn resumed(opened: &Opened, rule: &mut Rule) {
    rule.since_version = opened.snapshot.version + 1;
    rule.validated = rule.kind == RuleKind::Metric;
}

/// Commits a rule. One that says of all rows from this version on that they were asked allows none in between.
async fn keep(
    scope: &Arc<Scope>,
    opened: &Opened,
    operation: &'static str,
    rule: &Rule,
    exclusive: bool,
) -> Result<()> {
    references::note_rule(scope, opened, rule).await?;
    let mut configuration = opened.snapshot.metadata.configuration.clone();
    let (key, text) = rule::property(rule)?;
    configuration.insert(key, text);
    configure(scope, opened, operation, configuration, None, exclusive).await
}

/// Refuses a name that a check or a rule of the table has.
fn vacant(opened: &Opened, name: &str) -> Result<()> {
    match names(opened).any(|known| known == name) {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("table {} already has a constraint {name}", opened.name),
        )),
    }
}

/// Names of checks and rules.
pub(super) fn names(opened: &Opened) -> impl Iterator<Item = &str> {
    let properties = opened.snapshot.metadata.configuration.keys();
    properties.filter_map(|key| {
        key.strip_prefix(CHECK)
            .or_else(|| key.strip_prefix(rule::PROPERTY))
    })
}

pub(super) fn missing(opened: &Opened, name: &str) -> Error {
    let missing = Error::new(
        ErrorKind::NotFound,
        format!("table {} has no constraint {name}", opened.name),
    );
    match sql::nearest(name, names(opened)) {
        Some(near) => missing.with_hint(format!("did you mean {near}?")),
        None => missing,
    }
}

async fn configure(
    scope: &Arc<Scope>,
    opened: &Opened,
    operation: &'static str,
    configuration: BTreeMap<String, String>,
    protocol: Option<Protocol>,
    exclusive: bool,
) -> Result<()> {
    let mut metadata = (*opened.snapshot.metadata).clone();
    metadata.configuration = configuration;
    let new = NewTable {
        protocol: protocol.unwrap_or_else(|| (*opened.snapshot.protocol).clone()),
        metadata,
    };
    amend(scope, opened, operation, new, exclusive).await
}

/// Rows for which `expr` is not true. Of a journal these are all intervals: other engines see them too, and a row that
/// ends is written again as it was.
pub(super) async fn violations(
    scope: &Arc<Scope>,
    opened: &Opened,
    expr: &ast::Expr,
) -> Result<i64> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (schema, table) = (quoted(&opened.schema), quoted(&opened.table));
    let rows = match opened.shape()? {
        Some(_) => {
            let all = format!("{}@intervals", opened.name);
            let snapshot = Arc::clone(&opened.snapshot);
            let intervals = opened.handle.provider(&opened.name, snapshot);
            scope.bind(&all, Arc::new(intervals));
            format!("{} AS {table}", quoted(&all))
        }
        None => format!("{schema}.{table}"),
    };
    let text = format!("SELECT count(*) FROM {rows} WHERE ({expr}) IS NOT TRUE");
    let sql::Statement::Query(query) = sql::parse(&text)? else {
        return Err(Error::internal("a count of violations is not a query"));
    };
    let plan = scope.plan_query(*query).await?;
    let batches = DataFrame::new(scope.state(), plan).collect().await?;
    Ok(batches.first().map_or(0, |batch| {
        batch.column(0).as_primitive::<Int64Type>().value(0)
    }))
}

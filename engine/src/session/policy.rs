//! Cleanse policies: CREATE, DROP, ALTER and SHOW CLEANSE POLICIES. A policy is kept with its table; the tables its
//! keys come from are tables of the lake, and stay as long as a policy reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};

use super::alter::amend;
use super::scope::{Opened, Scope};
use super::{references, show};
use crate::answer::Answer;
use crate::catalog::entry::{Relation, TableName};
use crate::cleanse::compile::{self, Terms};
use crate::cleanse::policy::{self, Policy, PolicyScope};
use crate::error::{Error, ErrorKind, Result};
use crate::quality::check::{self, CompiledCheck};
use crate::sql::{self, CreatePolicy};
use crate::table::meta::Columns;
use crate::table::{protocol, schema as delta};
use crate::write::target::NewTable;

/// CREATE [OR REPLACE] CLEANSE POLICY.
pub(super) async fn create(scope: &Arc<Scope>, create: CreatePolicy) -> Result<Answer> {
    let opened = scope.open(&create.table).await?;
    protocol::check_writable(&opened.name, &opened.snapshot)?;
    let name = &create.policy.name;
    let known = policies(&opened)?.iter().any(|known| known.name == *name);
    if known && !create.or_replace {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("table {} already has a cleanse policy {name}", opened.name),
        )
        .with_hint("CREATE OR REPLACE CLEANSE POLICY puts another one in its place"));
    }
    let mut policy = resolved(scope, &opened.name, create.policy)?;
    policy.author.clone_from(&scope.user);
    policy.enabled = true;
    policy.since_version = opened.snapshot.version + 1;
    let (state, columns) = (scope.state(), opened.columns());
    let terms = terms(&state, &opened, &columns);
    let checks = checks(&state, &opened, &columns)?;
    compile::define(terms, &policy, &checks).await?;
    spares_journal(terms, &opened, &policy).await?;
    keep(scope, &opened, "CREATE CLEANSE POLICY", &policy, true).await?;
    Ok(Answer::Done("CREATE CLEANSE POLICY".to_owned()))
}

/// Refuses to take away by what a journal tells whose intervals are whose, and when.
async fn spares_journal(terms: Terms<'_>, opened: &Opened, policy: &Policy) -> Result<()> {
    let Some(shape) = opened.shape()? else {
        return Ok(());
    };
    let compiled = compile::compile(terms, std::slice::from_ref(policy)).await?;
    for at in compiled.touched() {
        let name = compiled.schema.field(*at).name();
        if let Some(role) = shape.definition.role(name)
            && (shape.keys.contains(at) || shape.sequence == Some(*at))
        {
            return Err(Error::invalid(format!(
                "cleanse policy {} of table {}: column {name} is {role} of its journal",
                policy.name, opened.name
            ))
            .with_hint("DELETE ROWS takes all intervals of the keys it lists"));
        }
    }
    Ok(())
}

/// DROP CLEANSE POLICY. Old versions of the table keep it.
pub(super) async fn drop(
    scope: &Arc<Scope>,
    name: &Ident,
    table: &ObjectName,
    if_exists: bool,
) -> Result<Answer> {
    let opened = scope.open(table).await?;
    protocol::check_writable(&opened.name, &opened.snapshot)?;
    let name = sql::fold(name);
    let mut configuration = opened.snapshot.metadata.configuration.clone();
    let key = format!("{}{name}", policy::PROPERTY);
    match (configuration.remove(&key).is_some(), if_exists) {
        (false, true) => {}
        (false, false) => return Err(missing(&opened, &name)),
        (true, _) => {
            let operation = "DROP CLEANSE POLICY";
            configure(scope, &opened, operation, configuration, false).await?;
        }
    }
    Ok(Answer::Done("DROP CLEANSE POLICY".to_owned()))
}

/// ALTER CLEANSE POLICY .. ENABLE or DISABLE.
pub(super) async fn switch(
    scope: &Arc<Scope>,
    name: &Ident,
    table: &ObjectName,
    enabled: bool,
) -> Result<Answer> {
    let opened = scope.open(table).await?;
    protocol::check_writable(&opened.name, &opened.snapshot)?;
    let mut policy = policy_named(&opened, &sql::fold(name))?;
    if policy.enabled != enabled {
        policy.enabled = enabled;
        let operation = match enabled {
            true => {
                // Rows that came while it was disabled were not cleansed.
                policy.since_version = opened.snapshot.version + 1;
                "ENABLE CLEANSE POLICY"
            }
            false => "DISABLE CLEANSE POLICY",
        };
        keep(scope, &opened, operation, &policy, enabled).await?;
    }
    Ok(Answer::Done("ALTER CLEANSE POLICY".to_owned()))
}

/// The policies of a table, by name.
pub(super) fn policies(opened: &Opened) -> Result<Vec<Policy>> {
    policy::policies(&opened.name, &opened.snapshot.metadata.configuration)
}

/// The policy of that name; an error that names the nearest one when there is none.
pub(super) fn policy_named(opened: &Opened, name: &str) -> Result<Policy> {
    let mut all = policies(opened)?.into_iter();
    all.find(|policy| policy.name == name)
        .ok_or_else(|| missing(opened, name))
}

/// The terms under which the policies of a table are compiled: for rows of `columns`.
pub(super) fn terms<'a>(
    state: &'a SessionState,
    opened: &'a Opened,
    columns: &'a SchemaRef,
) -> Terms<'a> {
    Terms {
        state,
        table: &opened.name,
        schema: columns,
        partition_columns: opened.snapshot.partition_columns(),
    }
}

/// The CHECK constraints of a table, which hold for what policies leave as well.
pub(super) fn checks(
    state: &SessionState,
    opened: &Opened,
    columns: &SchemaRef,
) -> Result<Vec<CompiledCheck>> {
    let checks = opened.snapshot.checks();
    let checks =
        checks.map(|(name, text)| check::compile(state, &opened.name, name, text, columns));
    checks.collect()
}

fn missing(opened: &Opened, name: &str) -> Error {
    let missing = Error::new(
        ErrorKind::NotFound,
        format!("table {} has no cleanse policy {name}", opened.name),
    );
    let properties = opened.snapshot.metadata.configuration.keys();
    let names = properties.filter_map(|key| key.strip_prefix(policy::PROPERTY));
    match sql::nearest(name, names) {
        Some(near) => missing.with_hint(format!("did you mean {near}?")),
        None => missing,
    }
}

/// The policy as it is kept: the tables its keys come from are named in full, so that it means the same for every
/// session.
fn resolved(scope: &Scope, table: &str, mut policy: Policy) -> Result<Policy> {
    let owner = format!("cleanse policy {} of table {table}", policy.name);
    if let PolicyScope::Keys { query, .. } = &mut policy.scope {
        let mut parsed = sql::parse_keys(query).map_err(|error| error.ending(&owner))?;
        sql::name_tables(&mut parsed, |name| {
            let (schema, other) = scope.place(name)?;
            if format!("{schema}.{other}") == table {
                return Err(Error::unsupported(format!(
                    "{owner} takes its keys from its own table, whose rows it takes away"
                ))
                .with_hint("keep the requests in a table of their own"));
            }
            scope
                .table_entry(&schema, &other)
                .map_err(|error| error.ending(&owner))?;
            Ok((schema, other))
        })?;
        *query = parsed.to_string();
    }
    Ok(policy)
}

/// The tables that a policy takes its keys from.
pub(super) fn sources(scope: &Scope, policy: &Policy) -> Result<Vec<TableName>> {
    let mut sources = Vec::new();
    if let PolicyScope::Keys { query, .. } = &policy.scope {
        let mut query = sql::parse_keys(query)?;
        sql::name_tables(&mut query, |name| {
            let source = scope.place(name)?;
            if !sources.contains(&source) {
                sources.push(source.clone());
            }
            Ok(source)
        })?;
    }
    Ok(sources)
}

/// A policy of another table that takes its keys from one.
pub(super) struct Reader {
    pub table: TableName,
    opened: Opened,
    policy: Policy,
}

impl Reader {
    pub(super) fn refused(&self, what: &str) -> Error {
        let name = sql::quoted(&self.policy.name);
        let table = &self.opened.name;
        Error::invalid(format!(
            "{what}: cleanse policy {} of table {table} takes its keys from it",
            self.policy.name
        ))
        .with_hint(format!("DROP CLEANSE POLICY {name} ON {table} first"))
    }

    /// Whether it would still find its keys if the table they come from had other columns.
    pub(super) async fn survives(
        &self,
        scope: &Arc<Scope>,
        source: &TableName,
        columns: &SchemaRef,
    ) -> bool {
        let after = scope.over((*scope.pinned.catalog).clone());
        let stand_in = EmptyTable::new(Arc::clone(columns));
        after.stand_in(&source.0, &source.1, Arc::new(stand_in));
        let (state, own) = (after.state(), self.opened.columns());
        let terms = terms(&state, &self.opened, &own);
        compiles(terms, &self.policy).await.is_ok()
    }
}

/// The policies that take keys from a table.
pub(super) async fn readers(scope: &Arc<Scope>, of: &TableName) -> Result<Vec<Reader>> {
    let mut found = Vec::new();
    for (schema, content) in &scope.pinned.catalog.schemas {
        for (name, relation) in &content.relations {
            match relation {
                Relation::Table(entry) if entry.refers_to.contains(of) => {}
                _ => continue,
            }
            let table = (schema.clone(), name.clone());
            let opened = scope.open(&references::object(schema, name)).await?;
            for policy in policies(&opened)? {
                if sources(scope, &policy)?.contains(of) {
                    found.push(Reader {
                        table: table.clone(),
                        opened: scope.open(&references::object(schema, name)).await?,
                        policy,
                    });
                }
            }
        }
    }
    Ok(found)
}

/// Whether a policy could be run under these terms, were it enabled: one that is disabled must be able to come back.
pub(super) async fn compiles(terms: Terms<'_>, policy: &Policy) -> Result<()> {
    let enabled = Policy {
        enabled: true,
        ..policy.clone()
    };
    compile::compile(terms, &[enabled]).await.map(|_| ())
}

/// What of the policies of a table goes over to one that is made in its place: they are about what must be forgotten,
/// whatever its rows are called now. So are the tags of columns whose names it keeps.
pub(super) async fn carried(
    scope: &Arc<Scope>,
    (schema, table): (&str, &str),
    columns: SchemaRef,
    partition_columns: &[String],
) -> Result<(SchemaRef, BTreeMap<String, String>)> {
    let Some(Relation::Table(_)) = scope.pinned.catalog.relation(schema, table) else {
        return Ok((columns, BTreeMap::new()));
    };
    let opened = scope.open(&references::object(schema, table)).await?;
    let old = &opened.snapshot.schema;
    let tagged = columns.fields().iter().map(|field| {
        let tags = old.field_with_name(field.name()).map(delta::tags);
        let folders = partition_columns.contains(field.name());
        match tags {
            Ok(tags) if folders && tags.contains(&delta::PERSONAL) => Err(Error::invalid(format!(
                "table {} cannot be partitioned by column {}: it is tagged {}, and the names of folders tell \
                 their values",
                opened.name,
                field.name(),
                delta::PERSONAL
            ))),
            Ok(tags) if !tags.is_empty() => {
                let tags: BTreeSet<&str> = tags.into_iter().collect();
                Ok(Arc::new(delta::with_tags(
                    field.as_ref().clone(),
                    &tags,
                )))
            }
            _ => Ok(Arc::clone(field)),
        }
    });
    let columns = Arc::new(Schema::new(tagged.collect::<Result<Vec<FieldRef>>>()?));
    let mut kept = BTreeMap::new();
    let state = scope.state();
    for policy in policies(&opened)? {
        let terms = Terms {
            state: &state,
            table: &opened.name,
            schema: &columns,
            partition_columns,
        };
        compiles(terms, &policy).await.map_err(|error| {
            let name = sql::quoted(&policy.name);
            let told = format!("table {} cannot be replaced", opened.name);
            error.ending(&told).with_hint(format!(
                "a policy stays when its table is replaced; DROP CLEANSE POLICY {name} ON {} first",
                opened.name
            ))
        })?;
        kept.extend([policy::property(&policy)?]);
    }
    Ok((columns, kept))
}

/// Commits a policy. One that says of all rows from this version on that they were cleansed allows none in between.
async fn keep(
    scope: &Arc<Scope>,
    opened: &Opened,
    operation: &'static str,
    policy: &Policy,
    exclusive: bool,
) -> Result<()> {
    let sources = sources(scope, policy)?;
    references::note(scope, &opened.schema, &opened.table, &sources).await?;
    let mut configuration = opened.snapshot.metadata.configuration.clone();
    configuration.extend([policy::property(policy)?]);
    configure(scope, opened, operation, configuration, exclusive).await
}

async fn configure(
    scope: &Arc<Scope>,
    opened: &Opened,
    operation: &'static str,
    configuration: BTreeMap<String, String>,
    exclusive: bool,
) -> Result<()> {
    let mut metadata = (*opened.snapshot.metadata).clone();
    metadata.configuration = configuration;
    let new = NewTable {
        protocol: (*opened.snapshot.protocol).clone(),
        metadata,
    };
    amend(scope, opened, operation, new, exclusive).await
}

/// What SHOW CLEANSE POLICIES answers: a row per policy.
pub(super) fn shown() -> Columns<(String, Policy)> {
    Columns::new()
        .text("table", |(table, _): &(String, Policy)| Some(table.clone()))
        .text("policy", |(_, policy)| Some(policy.name.clone()))
        .text("definition", |(_, policy)| Some(sql::policy_clause(policy)))
        .truth("enabled", |(_, policy)| Some(policy.enabled))
        .number("since_version", |(_, policy)| {
            i64::try_from(policy.since_version).ok()
        })
        .text("author", |(_, policy)| policy.author.clone())
}

/// SHOW CLEANSE POLICIES [ON t].
pub(super) async fn list(scope: &Arc<Scope>, table: Option<ObjectName>) -> Result<Answer> {
    let mut rows = Vec::new();
    let mut tell = |opened: &Opened| -> Result<()> {
        let of_table = policies(opened)?.into_iter();
        rows.extend(of_table.map(|policy| (opened.name.clone(), policy)));
        Ok(())
    };
    match table {
        Some(table) => tell(&scope.open(&table).await?)?,
        None => {
            for (schema, content) in &scope.pinned.catalog.schemas {
                for (name, relation) in &content.relations {
                    if matches!(relation, Relation::Table(_)) {
                        tell(&scope.open(&references::object(schema, name)).await?)?;
                    }
                }
            }
        }
    }
    show::answer(&shown(), &rows)
}

/// The statements that give a table again its tags and policies, for SHOW CREATE TABLE.
pub(super) fn statements(full: &str, opened: &Opened) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    for field in opened.snapshot.schema.fields() {
        let column = sql::quoted(field.name());
        let tags = delta::tags(field).into_iter();
        statements.extend(tags.map(|tag| {
            let tag = sql::quoted(tag);
            format!("ALTER TABLE {full} ALTER COLUMN {column} SET TAG {tag}")
        }));
    }
    for policy in policies(opened)? {
        let name = sql::quoted(&policy.name);
        let clause = sql::policy_clause(&policy);
        statements.push(format!("CREATE CLEANSE POLICY {name} ON {full} {clause}"));
        // A policy is enabled when it is made.
        if !policy.enabled {
            statements.push(format!("ALTER CLEANSE POLICY {name} ON {full} DISABLE"));
        }
    }
    Ok(statements)
}

//! CREATE: tables, schemas, views, and names for what lies elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::ObjectName;

use super::columns::{declared, stored_columns};
use super::dependents::{self, Object};
use super::insert::Assignment;
use super::scope::Scope;
use super::site::{Site, Spec, empty, filled};
use super::{constraint, files, journal, policy, properties, references, rename};
use crate::answer::Answer;
use crate::catalog::INFORMATION_SCHEMA;
use crate::catalog::entry::{Catalog, Change, FilesEntry, Relation, TableEntry, ViewEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::expr;
use crate::sql::{self, CreateExternalTable, CreateTable, CreateView, FileFormat};
use crate::table::{mapping, schema as delta};

/// Name of the operation, in the log and in the answer.
pub(super) const TABLE_CREATED: &str = "CREATE TABLE";

/// CREATE TABLE, with or without AS.
pub(super) async fn table(scope: &Arc<Scope>, create: CreateTable) -> Result<Answer> {
    let (schema, table) = scope.place(&create.name)?;
    if let Some(answer) = taken(
        scope,
        &schema,
        &table,
        create.if_not_exists,
        create.or_replace,
    )? {
        return Ok(answer);
    }
    let replaces = matches!(
        scope.pinned.catalog.relation(&schema, &table),
        Some(Relation::Table(_))
    );
    let (spec, source) = described(scope, schema, table, create).await?;
    if replaces {
        let Spec { schema, table, .. } = &spec;
        let columns = &spec.declared()?;
        dependents::survive_columns(scope, schema, table, columns).await?;
        let what = format!("table {schema}.{table} cannot be replaced");
        references::survive(scope, schema, table, columns, &what).await?;
        let targets = references::targets(scope, &spec.name(), &spec.configuration)?;
        references::note(scope, schema, table, &targets).await?;
    }
    match (spec, source) {
        (spec, None) => {
            empty(scope, &spec).await?;
            Ok(Answer::Done(TABLE_CREATED.to_owned()))
        }
        (spec, Some(source)) => {
            let assignment = Assignment::Positions(Vec::new());
            filled(scope, &spec, source, &assignment)
                .await
                .map(Answer::Written)
        }
    }
}

/// The write of a CREATE TABLE AS, for EXPLAIN. Nothing is made.
pub(super) async fn plan(scope: &Arc<Scope>, create: CreateTable) -> Result<LogicalPlan> {
    let (schema, table) = scope.place(&create.name)?;
    taken(scope, &schema, &table, false, create.or_replace)?;
    let (spec, source) = described(scope, schema, table, create).await?;
    let source = source.ok_or_else(|| {
        Error::invalid("CREATE TABLE without AS writes no rows, so it has no plan")
            .with_hint("EXPLAIN a query or a write")
    })?;
    let site = Site::prepare(scope, &spec).await?;
    site.write(scope, &spec, source, &Assignment::Positions(Vec::new()))
}

/// What a statement asks for, checked, and where its rows come from.
async fn described(
    scope: &Arc<Scope>,
    schema: String,
    table: String,
    create: CreateTable,
) -> Result<(Spec, Option<LogicalPlan>)> {
    let name = format!("{schema}.{table}");
    let source = match create.query {
        Some(query) => Some(scope.plan_query(*query).await?),
        None => None,
    };
    let columns = match (&source, create.columns.is_empty()) {
        (Some(source), true) => stored_columns(&expr::columns(&scope.state(), source))?,
        _ => declared(scope, &name, &create.columns).await?,
    };
    let mut configuration = BTreeMap::new();
    for (key, value) in create.properties {
        properties::check(&name, &key, &value)?;
        if configuration.insert(key.clone(), value).is_some() {
            return Err(Error::invalid(format!(
                "table {name}: property {key} is given twice"
            )));
        }
    }
    let partitioned_by: Vec<String> = create.partitioned_by.iter().map(sql::fold).collect();
    let place = (schema.as_str(), table.as_str());
    let (columns, policies) = policy::carried(scope, place, columns, &partitioned_by).await?;
    configuration.extend(policies);
    // What is stored of a journal is more than what is declared; all that is said of rows is about what is declared.
    let (mut stored, partitions) = match &create.journal {
        Some(clause) => {
            let options = &mut configuration;
            journal::described(scope, &name, &columns, clause, &partitioned_by, options)?
        }
        None => {
            journal::fits(&name, &configuration)?;
            (Arc::clone(&columns), partitioned_by.clone())
        }
    };
    if configuration.contains_key(mapping::MODE) {
        let (mapped, max_id) = with_mapping(scope, &stored);
        stored = mapped;
        configuration.insert(mapping::MAX_ID.to_owned(), max_id.to_string());
    }
    delta::check_names(stored.fields(), "")?;
    let version = match create.rules.is_empty() {
        true => 0,
        false => first_version(scope, &schema, &table).await?,
    };
    let (checks, rules) = (create.checks, create.rules);
    configuration.extend(constraint::checks(scope, &name, &columns, &checks)?);
    for rule in rules {
        let rule = constraint::define(scope, &name, &columns, &partitioned_by, rule).await?;
        constraint::declare(scope, &name, rule, version, &mut configuration)?;
    }
    constraint::quarantinable(&name, &columns, &configuration)?;
    let spec = Spec {
        schema,
        table,
        columns: stored,
        partitioned_by: partitions,
        configuration,
        comment: create.comment,
        or_replace: create.or_replace,
        snapshots: create.snapshots,
    };
    Ok((spec, source))
}

/// The version in which a table begins, or begins anew.
async fn first_version(scope: &Scope, schema: &str, table: &str) -> Result<u64> {
    match scope.pinned.catalog.relation(schema, table) {
        Some(Relation::Table(entry)) => {
            let handle = scope.engine.table(entry)?;
            let base = handle.pin(&format!("{schema}.{table}")).await?;
            Ok(base.version + 1)
        }
        _ => Ok(0),
    }
}

/// The columns of a new table with column mapping, and the highest of their ids.
fn with_mapping(scope: &Scope, columns: &SchemaRef) -> (SchemaRef, i32) {
    let mut max_id = 0;
    let ambient = &scope.engine.ambient;
    let fields = mapping::assign(columns.fields(), &mut max_id, &mut |_| {
        mapping::new_name(ambient.id())
    });
    (Arc::new(Schema::new(fields)), max_id)
}

/// `Some` when there is nothing to do; an error when the name is taken.
fn taken(
    scope: &Scope,
    schema: &str,
    name: &str,
    if_not_exists: bool,
    or_replace: bool,
) -> Result<Option<Answer>> {
    must_have_schema(scope, schema)?;
    match scope.pinned.catalog.relation(schema, name) {
        None => Ok(None),
        Some(_) if if_not_exists => Ok(Some(Answer::Done(format!(
            "{schema}.{name} already exists"
        )))),
        Some(_) if or_replace => Ok(None),
        Some(relation) => Err(exists(schema, name, relation)),
    }
}

pub(super) fn exists(schema: &str, name: &str, relation: &Relation) -> Error {
    let kind = match relation {
        Relation::View(_) => "view",
        Relation::Table(_) | Relation::Files(_) => "table",
    };
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{kind} {schema}.{name} already exists"),
    )
}

pub(super) fn must_have_schema(scope: &Scope, schema: &str) -> Result<()> {
    if schema == INFORMATION_SCHEMA {
        return Err(Error::invalid(format!(
            "schema {schema} is made up from the others and holds no tables of its own"
        )));
    }
    if scope.pinned.catalog.schemas.contains_key(schema) {
        return Ok(());
    }
    Err(scope.no_such_schema(schema))
}

pub(super) fn still_there(catalog: &Catalog, schema: &str) -> Result<()> {
    if catalog.schemas.contains_key(schema) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!("schema {schema} was dropped in the meantime"),
    ))
}

/// CREATE SCHEMA.
pub(super) async fn schema(
    scope: &Arc<Scope>,
    name: &ObjectName,
    if_not_exists: bool,
) -> Result<Answer> {
    let schema = schema_name(name)?;
    if schema == INFORMATION_SCHEMA {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("schema {schema} already exists"),
        ));
    }
    scope
        .engine
        .catalog
        .change(|catalog| match catalog.schemas.contains_key(&schema) {
            true if if_not_exists => Ok(Vec::new()),
            true => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("schema {schema} already exists"),
            )),
            false => Ok(vec![Change::PutSchema {
                schema: schema.clone(),
            }]),
        })
        .await?;
    Ok(Answer::Done("CREATE SCHEMA".to_owned()))
}

/// A schema's name, with or without the catalog before it.
pub(super) fn schema_name(name: &ObjectName) -> Result<String> {
    let parts: Vec<String> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident().map(sql::fold))
        .collect();
    match parts.as_slice() {
        [schema] => Ok(schema.clone()),
        [catalog, schema] if catalog == crate::catalog::NAME => Ok(schema.clone()),
        _ => Err(Error::invalid(format!(
            "{name} is not the name of a schema"
        ))),
    }
}

/// CREATE VIEW.
pub(super) async fn view(scope: &Arc<Scope>, create: CreateView) -> Result<Answer> {
    let (schema, name) = scope.place(&create.name)?;
    if let Some(answer) = taken(
        scope,
        &schema,
        &name,
        create.if_not_exists,
        create.or_replace,
    )? {
        return Ok(answer);
    }
    let columns: Vec<String> = create.columns.iter().map(sql::fold).collect();
    // Planned once now, so that a view that cannot work is refused when it is made.
    let object = Object::relation(&schema, &name);
    let inside = scope.within(object.clone(), scope.search_schema());
    let plan = inside.plan_query(*create.query).await?;
    rename::columns(plan, &columns)?;
    let relation = Relation::View(ViewEntry {
        query: create.text,
        columns,
        search_schema: scope.search_schema().to_owned(),
    });
    let change = Change::Put {
        schema: schema.clone(),
        name: name.clone(),
        relation,
    };
    if let Some(Relation::View(_)) = scope.pinned.catalog.relation(&schema, &name) {
        dependents::survive(scope, &object, &change).await?;
    }
    scope
        .engine
        .catalog
        .change(|catalog| {
            still_there(catalog, &schema)?;
            match catalog.relation(&schema, &name) {
                None | Some(Relation::View(_)) if create.or_replace => {}
                None => {}
                Some(_) if create.or_replace => {
                    return Err(Error::invalid(format!(
                        "{schema}.{name} is a table, so no view can replace it"
                    )));
                }
                Some(taken) => return Err(exists(&schema, &name, taken)),
            }
            Ok(vec![change.clone()])
        })
        .await?;
    Ok(Answer::Done("CREATE VIEW".to_owned()))
}

/// CREATE EXTERNAL TABLE.
pub(super) async fn external(scope: &Arc<Scope>, create: CreateExternalTable) -> Result<Answer> {
    let (schema, name) = scope.place(&create.name)?;
    scope.may_use_files("CREATE EXTERNAL TABLE")?;
    if let Some(answer) = taken(scope, &schema, &name, create.if_not_exists, false)? {
        return Ok(answer);
    }
    let full = format!("{schema}.{name}");
    let location = absolute(&create.location, create.format)?;
    let relation = match create.format {
        FileFormat::Delta => {
            if let Some((option, _)) = create.options.first() {
                return Err(Error::invalid(format!(
                    "a Delta table has no option {option}"
                )));
            }
            if !create.columns.is_empty() {
                return Err(Error::invalid(format!(
                    "table {full}: a Delta table says its columns itself"
                )));
            }
            let handle = scope.engine.open_table(&location)?;
            let snapshot = handle.latest().await?.ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("there is no Delta table at {}", create.location),
                )
            })?;
            let properties = &snapshot.metadata.configuration;
            Relation::Table(TableEntry {
                id: snapshot.metadata.id.clone(),
                location,
                external: true,
                refers_to: references::targets(scope, &full, properties)?,
            })
        }
        format => {
            let declared = match create.columns.is_empty() {
                true => None,
                false => Some(delta::to_delta(
                    &*declared(scope, &full, &create.columns).await?,
                )?),
            };
            let entry = FilesEntry {
                format: format.to_string(),
                location,
                options: create.options.into_iter().collect(),
                schema: declared,
            };
            // Looked at once now, so that a location without files is refused when it is named.
            files::of_entry(&scope.state(), &full, &entry).await?;
            Relation::Files(entry)
        }
    };
    scope
        .engine
        .catalog
        .change(|catalog| {
            still_there(catalog, &schema)?;
            if let Some(taken) = catalog.relation(&schema, &name) {
                return Err(exists(&schema, &name, taken));
            }
            Ok(vec![Change::Put {
                schema: schema.clone(),
                name: name.clone(),
                relation: relation.clone(),
            }])
        })
        .await?;
    Ok(Answer::Done("CREATE EXTERNAL TABLE".to_owned()))
}

/// A location that means the same whatever folder a later program runs in: a URL, or an absolute path
/// where files are read (their reader knows patterns in paths).
fn absolute(location: &str, format: FileFormat) -> Result<String> {
    if location.contains("://") {
        return Ok(location.to_owned());
    }
    let wrong = || Error::invalid(format!("{location} is not a location"));
    let path = std::path::absolute(location).map_err(|error| wrong().with_source(error))?;
    if format == FileFormat::Delta {
        return Ok(url::Url::from_file_path(&path)
            .map_err(|()| wrong())?
            .into());
    }
    let mut text = path.to_str().ok_or_else(wrong)?.to_owned();
    if location.ends_with('/') && !text.ends_with('/') {
        text.push('/');
    }
    Ok(text)
}

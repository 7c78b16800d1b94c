//! What stands on what: views and functions are kept as text, so what they use is read from it.
//!
//! Two rules. What something else uses is not dropped or renamed, unless CASCADE drops that too. What is replaced
//! must leave everything that uses it working. A view or function that is broken already stands in nobody's way of
//! being replaced.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::empty::EmptyTable;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, ObjectName, Query, SelectItem, TableFactor, Visit, Visitor,
};

use super::scope::Scope;
use super::{functions, syntax};
use crate::catalog::entry::{Catalog, Change, Relation, ReturnsEntry};
use crate::error::{Error, Result};
use crate::sql::{self, Statement};

/// A name that something may stand on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    kind: Kind,
    schema: String,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// A table or a view: they share their names.
    Relation,
    Function,
}

impl Object {
    pub(super) fn relation(schema: &str, name: &str) -> Self {
        Self {
            kind: Kind::Relation,
            schema: schema.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(super) fn function(schema: &str, name: &str) -> Self {
        Self {
            kind: Kind::Function,
            ..Self::relation(schema, name)
        }
    }

    /// Schema and name, if it is a table or a view.
    pub(super) fn as_relation(&self) -> Option<(&str, &str)> {
        (self.kind == Kind::Relation).then_some((self.schema.as_str(), self.name.as_str()))
    }

    /// What it is to people: `view shop.orders`.
    pub(super) fn told(&self, catalog: &Catalog) -> String {
        let kind = match (self.kind, catalog.relation(&self.schema, &self.name)) {
            (Kind::Function, _) => "function",
            (Kind::Relation, Some(Relation::View(_))) => "view",
            (Kind::Relation, _) => "table",
        };
        format!("{kind} {}.{}", self.schema, self.name)
    }

    fn drop(self) -> Change {
        let Self { kind, schema, name } = self;
        match kind {
            Kind::Relation => Change::Drop { schema, name },
            Kind::Function => Change::DropFunction { schema, name },
        }
    }
}

/// The changes that drop `object`, and with CASCADE what stands on it.
pub(super) fn dropped(catalog: &Catalog, object: Object, cascade: bool) -> Result<Vec<Change>> {
    let users = unused(catalog, std::slice::from_ref(&object), cascade, "dropped")?;
    let all = users.into_iter().chain([object]);
    Ok(all.map(Object::drop).collect())
}

/// The changes that drop what stands on a schema's content from outside of it.
pub(super) fn dropped_with(catalog: &Catalog, schema: &str, cascade: bool) -> Result<Vec<Change>> {
    let content = catalog.schemas.get(schema);
    let relations = content
        .into_iter()
        .flat_map(|content| content.relations.keys());
    let functions = content
        .into_iter()
        .flat_map(|content| content.functions.keys());
    let going: Vec<Object> = relations
        .map(|name| Object::relation(schema, name))
        .chain(functions.map(|name| Object::function(schema, name)))
        .collect();
    let users = unused(catalog, &going, cascade, "dropped")?;
    Ok(users.into_iter().map(Object::drop).collect())
}

/// Refuses to rename what something else knows by its name.
pub(super) fn renamed(catalog: &Catalog, object: &Object) -> Result<()> {
    unused(catalog, std::slice::from_ref(object), false, "renamed").map(drop)
}

/// What uses any of `going` and is not among them: all of it with CASCADE, else there must be none.
fn unused(catalog: &Catalog, going: &[Object], cascade: bool, what: &str) -> Result<Vec<Object>> {
    if cascade {
        return Ok(users_of_users(catalog, going));
    }
    for object in going {
        let users: Vec<String> = users(catalog, object)
            .into_iter()
            .filter(|user| !going.contains(user))
            .map(|user| user.told(catalog))
            .collect();
        if users.is_empty() {
            continue;
        }
        let told = object.told(catalog);
        let error = match users.as_slice() {
            [one] => Error::invalid(format!("{told} cannot be {what}: {one} uses it")),
            all => Error::invalid(format!(
                "{told} cannot be {what}: {} others use it",
                all.len()
            ))
            .with_detail(all.join(", ")),
        };
        return Err(match what {
            "dropped" => error.with_hint("change them first, or DROP .. CASCADE drops them too"),
            _ => error.with_hint("change them first"),
        });
    }
    Ok(Vec::new())
}

pub(super) fn users_of_users(catalog: &Catalog, of: &[Object]) -> Vec<Object> {
    let mut found: Vec<Object> = Vec::new();
    let mut next = of.to_vec();
    while let Some(object) = next.pop() {
        for user in users(catalog, &object) {
            if !found.contains(&user) && !of.contains(&user) {
                found.push(user.clone());
                next.push(user);
            }
        }
    }
    found
}

/// Views and functions whose text names `object`.
fn users(catalog: &Catalog, object: &Object) -> Vec<Object> {
    // Most texts do not hold the name at all, and need no reading. A quote in a name is written twice.
    let word = object.name.to_lowercase();
    let may = |text: &str| word.contains('"') || text.to_lowercase().contains(&word);
    let mut users = Vec::new();
    for (schema, content) in &catalog.schemas {
        for (name, relation) in &content.relations {
            if let Relation::View(view) = relation
                && may(&view.query)
                && let Ok(Statement::Query(query)) = sql::parse(&view.query)
                && uses(catalog, *query, &view.search_schema).contains(object)
            {
                users.push(Object::relation(schema, name));
            }
        }
        for (name, function) in &content.functions {
            if !may(&function.body) {
                continue;
            }
            let query = match function.returns {
                ReturnsEntry::Rows { .. } => match sql::parse(&function.body) {
                    Ok(Statement::Query(query)) => *query,
                    _ => continue,
                },
                ReturnsEntry::Value { .. } => {
                    let value = sql::parse_value(&function.body);
                    let value = value.map(|value| vec![SelectItem::UnnamedExpr(value)]);
                    match value.and_then(|value| syntax::select(value, vec![], None)) {
                        Ok(query) => query,
                        Err(_) => continue,
                    }
                }
            };
            if uses(catalog, query, &function.search_schema).contains(object) {
                users.push(Object::function(schema, name));
            }
        }
    }
    users
}

/// Tables, views and functions that a query names.
fn uses(catalog: &Catalog, query: Query, search_schema: &str) -> BTreeSet<Object> {
    let mut named = Named {
        catalog,
        search_schema,
        found: BTreeSet::new(),
    };
    let ControlFlow::Continue(()) = query.visit(&mut named);
    let mut found = named.found;
    let statement = DfStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
    if let Ok((tables, _)) = resolve_table_references(&statement, true) {
        let tables = tables.iter();
        found.extend(
            tables.map(|table| {
                Object::relation(table.schema().unwrap_or(search_schema), table.table())
            }),
        );
    }
    found
}

struct Named<'a> {
    catalog: &'a Catalog,
    search_schema: &'a str,
    found: BTreeSet<Object>,
}

impl Named<'_> {
    fn call(&mut self, name: &ObjectName) {
        let parts = sql::folded(name);
        let (schema, name) = match parts.as_slice() {
            [name] => (self.search_schema, name),
            [.., schema, name] => (schema.as_str(), name),
            [] => return,
        };
        if self.catalog.function(schema, name).is_some() {
            self.found.insert(Object::function(schema, name));
        }
    }

    /// The table of `flatten('table')` is a text to everyone else.
    fn flattened(&mut self, argument: &FunctionArg) {
        let (FunctionArg::Unnamed(value) | FunctionArg::Named { arg: value, .. }) = argument else {
            return;
        };
        if let FunctionArgExpr::Expr(value) = value
            && let Some(text) = functions::written(value)
            && let Ok(query) = sql::parse_relation(&text)
        {
            let uses = uses(self.catalog, *query, self.search_schema);
            self.found.extend(uses);
        }
    }
}

impl Visitor for Named<'_> {
    type Break = std::convert::Infallible;

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Self::Break> {
        if let ast::Expr::Function(call) = expr {
            self.call(&call.name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table {
            name,
            args: Some(arguments),
            ..
        } = factor
        {
            self.call(name);
            if sql::folded(name) == [functions::FLATTEN] {
                arguments.args.iter().for_each(|one| self.flattened(one));
            }
        }
        ControlFlow::Continue(())
    }
}

/// Refuses a change of `object` after which something that uses it would not work, though it does now. What is
/// made at the same time by others is not seen; it then fails when it is used, with the reason.
pub(super) async fn survive(scope: &Arc<Scope>, object: &Object, change: &Change) -> Result<()> {
    let mut catalog = (*scope.pinned.catalog).clone();
    catalog.apply(change.clone());
    outlive(scope, &scope.over(catalog), object).await
}

/// Refuses other columns for a table, as [`survive`] refuses another view.
pub(super) async fn survive_columns(
    scope: &Arc<Scope>,
    schema: &str,
    table: &str,
    columns: &SchemaRef,
) -> Result<()> {
    let after = scope.over((*scope.pinned.catalog).clone());
    let stand_in = EmptyTable::new(Arc::clone(columns));
    after.stand_in(schema, table, Arc::new(stand_in));
    outlive(scope, &after, &Object::relation(schema, table)).await
}

async fn outlive(scope: &Arc<Scope>, after: &Arc<Scope>, object: &Object) -> Result<()> {
    for user in users_of_users(&scope.pinned.catalog, std::slice::from_ref(object)) {
        let now = &scope.pinned.catalog;
        if let Err(error) = works(after, &user).await
            && works(scope, &user).await.is_ok()
        {
            return Err(Error::invalid(format!(
                "{} cannot be replaced: {} would no longer work",
                object.told(now),
                user.told(now),
            ))
            .with_detail(error.message().to_owned())
            .with_hint("change or drop it first"));
        }
    }
    Ok(())
}

pub(super) async fn works(scope: &Arc<Scope>, object: &Object) -> Result<()> {
    let Object { kind, schema, name } = object;
    match kind {
        Kind::Relation => scope.relation(schema, name).await.map(drop),
        Kind::Function => match scope.pinned.catalog.function(schema, name) {
            Some(entry) => functions::still_works(scope, schema, name, entry).await,
            None => Ok(()),
        },
    }
}

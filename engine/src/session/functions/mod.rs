//! Functions kept in the lake: CREATE FUNCTION, its calls, DROP FUNCTION.
//!
//! A function is a macro over plans. Its body is planned as a query over one row of its parameters, so names in it
//! mean what they mean in any correlated query: a column of a table it reads comes before a parameter. A call is
//! that plan with the arguments in place of the parameters. Nothing is put together as text, so a name in an
//! argument never means something else inside the body.
//!
//! - `calls`: finds the calls in a query, and gives each the arguments it means.
//! - `body`: the text of a function to a plan over its parameters.
//! - `bind`: arguments in place of parameters.
//! - `fit`: which values go where another type is declared.
//! - `flatten`: the table function that spreads structs out.

mod bind;
mod body;
mod calls;
mod fit;
mod flatten;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::ObjectName;

use super::columns;
use super::create::{must_have_schema, still_there};
use super::dependents::{self, Object};
use super::scope::Scope;
use super::types::sql_name;
use crate::answer::Answer;
use crate::catalog::entry::{Change, FunctionEntry, ReturnsEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::{self, CreateFunction, Drop, FunctionBody, Parameter, Returns};
use crate::table::schema as delta;

pub(super) use bind::expand;
pub(super) use body::check as still_works;
pub(super) use calls::prepare;
pub(super) use flatten::{NAME as FLATTEN, text as written};

/// A function of the lake, its types read.
#[derive(Debug, Clone)]
struct Function {
    /// `schema.name`
    full: String,
    name: String,
    parameters: SchemaRef,
    gives: Gives,
}

#[derive(Debug, Clone)]
enum Gives {
    Value(DataType),
    Rows(Option<SchemaRef>),
}

impl Function {
    fn read(schema: &str, name: &str, entry: &FunctionEntry) -> Result<Self> {
        let gives = match &entry.returns {
            ReturnsEntry::Value { schema: text } => {
                let fields = delta::to_arrow(text)?;
                let field = fields.fields().first();
                let field = field.ok_or_else(|| {
                    Error::corrupt(format!("function {schema}.{name} has no result"))
                })?;
                Gives::Value(field.data_type().clone())
            }
            ReturnsEntry::Rows { schema } => {
                Gives::Rows(schema.as_deref().map(delta::to_arrow).transpose()?)
            }
        };
        Ok(Self {
            full: format!("{schema}.{name}"),
            name: name.to_owned(),
            parameters: delta::to_arrow(&entry.parameters)?,
            gives,
        })
    }

    /// `(a BIGINT, b TEXT)`
    fn parameter_list(&self) -> String {
        list(&self.parameters)
    }

    /// `BIGINT`, `TABLE`, `TABLE (a BIGINT)`
    fn result(&self) -> String {
        match &self.gives {
            Gives::Value(data_type) => sql_name(data_type),
            Gives::Rows(None) => "TABLE".to_owned(),
            Gives::Rows(Some(columns)) => format!("TABLE {}", list(columns)),
        }
    }
}

fn list(fields: &Schema) -> String {
    let fields = fields.fields().iter().map(|field| {
        let name = sql::quoted(field.name());
        format!("{name} {}", sql_name(field.data_type()))
    });
    format!("({})", fields.collect::<Vec<_>>().join(", "))
}

/// `name(a BIGINT) -> TEXT`, as SHOW FUNCTIONS tells it.
pub(super) fn signature(schema: &str, name: &str, entry: &FunctionEntry) -> Result<String> {
    let function = Function::read(schema, name, entry)?;
    let (takes, gives) = (function.parameter_list(), function.result());
    Ok(format!("{}{takes} -> {gives}", sql::quoted(name)))
}

/// The statement that would make a function again.
pub(super) fn text(schema: &str, name: &str, entry: &FunctionEntry) -> Result<String> {
    let function = Function::read(schema, name, entry)?;
    let (takes, gives) = (function.parameter_list(), function.result());
    let comment = match &entry.comment {
        Some(comment) => format!(" COMMENT '{}'", comment.replace('\'', "''")),
        None => String::new(),
    };
    Ok(format!(
        "CREATE FUNCTION {}.{}{takes} RETURNS {gives}{comment} RETURN {}",
        sql::quoted(schema),
        sql::quoted(name),
        entry.body
    ))
}

/// CREATE FUNCTION.
pub(super) async fn create(scope: &Arc<Scope>, create: CreateFunction) -> Result<Answer> {
    let (schema, name) = scope.place(&create.name)?;
    let full = format!("{schema}.{name}");
    let done = Answer::Done("CREATE FUNCTION".to_owned());
    must_have_schema(scope, &schema)?;
    let known = scope.pinned.catalog.function(&schema, &name).is_some();
    match known {
        true if create.if_not_exists => {
            return Ok(Answer::Done(format!("{full} already exists")));
        }
        true if !create.or_replace => return Err(exists(&full)),
        _ => {}
    }
    if built_in(scope, &name) {
        let taken = format!("{name} is a function of the engine, so the lake cannot have its own");
        return Err(
            Error::new(ErrorKind::AlreadyExists, taken).with_hint("give the function another name")
        );
    }
    let entry = entry(scope, &full, &create).await?;
    let function = Function::read(&schema, &name, &entry)?;
    // Planned once now, so that a function that cannot work is refused when it is made.
    let inside = scope.within(Object::function(&schema, &name), scope.search_schema());
    match create.body {
        FunctionBody::Value(expr) => drop(body::value(&inside, &function, *expr).await?),
        FunctionBody::Rows(query) => drop(body::rows(&inside, &function, query).await?),
    }
    let change = Change::PutFunction {
        schema: schema.clone(),
        name: name.clone(),
        function: entry,
    };
    if known {
        dependents::survive(scope, &Object::function(&schema, &name), &change).await?;
    }
    scope
        .engine
        .catalog
        .change(|catalog| {
            still_there(catalog, &schema)?;
            if catalog.function(&schema, &name).is_some() && !create.or_replace {
                return Err(exists(&full));
            }
            Ok(vec![change.clone()])
        })
        .await?;
    Ok(done)
}

fn exists(full: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("function {full} already exists"),
    )
    .with_hint("CREATE OR REPLACE FUNCTION puts another in its place")
}

/// Whether the engine, or the program around it, has a function of that name.
fn built_in(scope: &Arc<Scope>, name: &str) -> bool {
    let state = scope.state();
    state.scalar_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.table_functions().contains_key(name)
        || name == FLATTEN
}

async fn entry(scope: &Arc<Scope>, full: &str, create: &CreateFunction) -> Result<FunctionEntry> {
    let returns = match &create.returns {
        Returns::Value(data_type) => {
            let what = format!("the result of function {full}");
            let value = columns::stored_type(scope, &what, "value", data_type).await?;
            let field = Field::new("value", value, true);
            ReturnsEntry::Value {
                schema: delta::to_delta(&Schema::new(vec![field]))?,
            }
        }
        Returns::Rows(columns) => ReturnsEntry::Rows {
            schema: match columns.is_empty() {
                true => None,
                false => Some(fields(scope, full, "column", columns).await?),
            },
        },
    };
    Ok(FunctionEntry {
        parameters: fields(scope, full, "parameter", &create.parameters).await?,
        returns,
        body: create.text.clone(),
        search_schema: scope.search_schema().to_owned(),
        comment: create.comment.clone(),
    })
}

async fn fields(
    scope: &Arc<Scope>,
    full: &str,
    kind: &str,
    declared: &[Parameter],
) -> Result<String> {
    let mut fields = Vec::with_capacity(declared.len());
    for Parameter { name, data_type } in declared {
        let name = sql::fold(name);
        let what = format!("{kind} {name} of function {full}");
        let stored = columns::stored_type(scope, &what, &name, data_type).await?;
        fields.push(Field::new(name, stored, true));
    }
    delta::to_delta(&Schema::new(fields))
}

/// DROP FUNCTION.
pub(super) async fn remove(scope: &Arc<Scope>, drop: &Drop) -> Result<Answer> {
    let (schema, name) = scope.place(&drop.name)?;
    let object = Object::function(&schema, &name);
    scope
        .engine
        .catalog
        .change(|catalog| {
            if catalog.function(&schema, &name).is_none() {
                return match drop.if_exists {
                    true => Ok(Vec::new()),
                    false if built_in(scope, &name) => Err(Error::invalid(format!(
                        "{name} is a function of the engine and cannot be dropped"
                    ))),
                    false => Err(missing(scope, &drop.name)),
                };
            }
            dependents::dropped(catalog, object.clone(), drop.cascade)
        })
        .await?;
    Ok(Answer::Done("DROP FUNCTION".to_owned()))
}

/// "Not found", with the nearest name there is.
pub(super) fn missing(scope: &Arc<Scope>, name: &ObjectName) -> Error {
    let parts = sql::folded(name);
    let shown = parts.join(".");
    let error = Error::new(
        ErrorKind::NotFound,
        format!("function {shown} does not exist"),
    );
    let error = match name.0.first().and_then(|part| part.as_ident()) {
        Some(first) => match sql::position(first.span.start) {
            Some(position) => error.with_position(position),
            None => error,
        },
        None => error,
    };
    match nearest(scope, &parts) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error.with_hint("SHOW FUNCTIONS lists what is there"),
    }
}

fn nearest(scope: &Arc<Scope>, parts: &[String]) -> Option<String> {
    let schemas = &scope.pinned.catalog.schemas;
    let (name, schema) = match parts {
        [name] => (name, scope.search_schema()),
        [.., schema, name] => (name, schema.as_str()),
        [] => return None,
    };
    let here = schemas.get(schema).map(|schema| &schema.functions);
    let here = here.into_iter().flatten().map(|(name, _)| name.clone());
    if parts.len() > 1 {
        if let Some(near) = sql::nearest(name, here) {
            return Some(format!("{schema}.{}", sql::quoted(&near)));
        }
    } else {
        let state = scope.state();
        let engine = [
            state.scalar_functions().keys().cloned().collect::<Vec<_>>(),
            state.aggregate_functions().keys().cloned().collect(),
            state.window_functions().keys().cloned().collect(),
        ];
        if let Some(near) = sql::nearest(name, here.chain(engine.into_iter().flatten())) {
            return Some(near);
        }
    }
    let (elsewhere, _) = schemas
        .iter()
        .find(|(_, other)| other.functions.contains_key(name))?;
    Some(format!("{elsewhere}.{name}"))
}

//! `flatten('table' [, 'separator'])`: the rows of a table, with a column for each field of its structs.
//!
//! A field becomes `struct_field`, at every depth. Lists and maps stay as they are, because a row would become
//! many or none. The table is named as FROM names it, with a version or not.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, FunctionArg};

use super::calls::by_name;
use crate::error::{Error, Result};
use crate::session::scope::Scope;
use crate::sql;

/// The name of the function.
pub(in crate::session) const NAME: &str = "flatten";

const SEPARATOR: &str = "_";

pub(super) async fn plan(scope: &Arc<Scope>, arguments: Vec<FunctionArg>) -> Result<LogicalPlan> {
    let form = "flatten('table'), or flatten('table', 'separator')";
    let count = arguments.len();
    let mut places = by_name("flatten", &["table", "separator"], arguments)?.into_iter();
    let (Some(Some(table)), separator, true) = (places.next(), places.next().flatten(), count <= 2)
    else {
        return Err(
            Error::invalid(format!("flatten does not take {count} arguments")).with_hint(form),
        );
    };
    let table = text(&table).ok_or_else(|| {
        Error::invalid(format!("flatten: {table} is not a table's name in quotes")).with_hint(form)
    })?;
    let separator = match &separator {
        None => SEPARATOR.to_owned(),
        Some(value) => text(value).ok_or_else(|| {
            Error::invalid(format!("flatten: {value} is not a text in quotes")).with_hint(form)
        })?,
    };
    let within = |error: Error| match error.detail() {
        None => error.with_detail(format!("in flatten('{table}')")),
        Some(_) => error,
    };
    let query = sql::parse_relation(&table).map_err(within)?;
    let plan = scope.plan_query(*query).await.map_err(within)?;
    let mut columns = Columns {
        separator,
        flat: Vec::new(),
    };
    for (relation, field) in plan.schema().iter() {
        let column = Expr::from((relation, field));
        columns.add(
            column,
            field.name().clone(),
            field.name().clone(),
            field.data_type(),
        );
    }
    columns.differ(&table)?;
    let flat = columns.flat.into_iter();
    let flat = flat.map(|(expr, name, _)| expr.alias(name));
    Ok(LogicalPlanBuilder::from(plan).project(flat)?.build()?)
}

/// The text that is written there.
pub(in crate::session) fn text(value: &ast::Expr) -> Option<String> {
    match value {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

struct Columns {
    separator: String,
    /// Value, name, and the path it comes from.
    flat: Vec<(Expr, String, String)>,
}

impl Columns {
    fn add(&mut self, value: Expr, name: String, path: String, data_type: &DataType) {
        let DataType::Struct(fields) = data_type else {
            self.flat.push((value, name, path));
            return;
        };
        for field in fields {
            self.add(
                get_field(value.clone(), field.name().as_str()),
                format!("{name}{}{}", self.separator, field.name()),
                format!("{path}.{}", field.name()),
                field.data_type(),
            );
        }
    }

    fn differ(&self, table: &str) -> Result<()> {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for (_, name, path) in &self.flat {
            if let Some(before) = seen.insert(name, path) {
                return Err(Error::invalid(format!(
                    "flatten('{table}'): {before} and {path} would both become column {name}"
                ))
                .with_hint(format!("use another separator: flatten('{table}', '__')")));
            }
        }
        Ok(())
    }
}

//! SHOW FUNCTIONS: the functions of the lake and of the engine, each with what it takes, what it does and an example.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{Scalar, StringArray};
use datafusion::arrow::compute::kernels::comparison::like as is_like;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Documentation;

use super::scope::Scope;
use super::{functions, show};
use crate::answer::Answer;
use crate::error::Result;
use crate::sql::{self, Statement};
use crate::table::meta::Columns;

/// What is told of one function.
#[derive(Default)]
pub(super) struct Told {
    signature: Option<String>,
    description: Option<String>,
    example: Option<String>,
}

/// What SHOW FUNCTIONS answers: a row per name.
pub(super) fn columns() -> Columns<(String, Told)> {
    Columns::new()
        .text("name", |(name, _): &(String, Told)| Some(name.clone()))
        .text("signature", |(_, told)| told.signature.clone())
        .text("description", |(_, told)| told.description.clone())
        .text("example", |(_, told)| told.example.clone())
}

pub(super) async fn functions(scope: &Arc<Scope>, like: Option<String>) -> Result<Answer> {
    let mut told = of_the_engine(scope);
    for (schema, content) in &scope.pinned.catalog.schemas {
        for (name, entry) in &content.functions {
            let shown = match schema == scope.search_schema() {
                true => sql::quoted(name),
                false => format!("{}.{}", sql::quoted(schema), sql::quoted(name)),
            };
            let one = Told {
                signature: Some(functions::signature(schema, name, entry)?),
                description: entry.comment.clone(),
                example: None,
            };
            told.insert(shown, one);
        }
    }
    if let Some(pattern) = like {
        told = matching(told, pattern)?;
    }
    for one in told.values_mut() {
        // Those that come with the planner are written for tables of its own.
        if let Some(example) = &one.example
            && !runs(scope, example).await
        {
            one.example = None;
        }
    }
    let told: Vec<(String, Told)> = told.into_iter().collect();
    show::answer(&columns(), &told)
}

fn matching(told: BTreeMap<String, Told>, pattern: String) -> Result<BTreeMap<String, Told>> {
    let names: StringArray = told.keys().map(|name| Some(name.as_str())).collect();
    let pattern = Scalar::new(StringArray::from(vec![pattern]));
    let matches = is_like(&names, &pattern).map_err(DataFusionError::from)?;
    let told = told.into_iter().zip(&matches);
    let told = told.filter(|(_, matches)| *matches == Some(true));
    Ok(told.map(|(one, _)| one).collect())
}

async fn runs(scope: &Arc<Scope>, example: &str) -> bool {
    match sql::parse(example) {
        Ok(Statement::Query(query)) => scope.plan_query(*query).await.is_ok(),
        _ => false,
    }
}

fn of_the_engine(scope: &Arc<Scope>) -> BTreeMap<String, Told> {
    let state = scope.state();
    let scalars = state.scalar_functions().iter();
    let scalars = scalars.map(|(name, function)| (name, function.documentation()));
    let aggregates = state.aggregate_functions().iter();
    let aggregates = aggregates.map(|(name, function)| (name, function.documentation()));
    let windows = state.window_functions().iter();
    let windows = windows.map(|(name, function)| (name, function.documentation()));
    let higher = state.higher_order_functions().iter();
    let higher = higher.map(|(name, function)| (name, function.documentation()));
    let tables = state.table_functions().keys().map(|name| (name, None));
    let mut all: BTreeMap<String, Told> = scalars
        .chain(aggregates)
        .chain(windows)
        .chain(higher)
        .chain(tables)
        .map(|(name, documentation)| (name.clone(), documentation.map(read).unwrap_or_default()))
        .collect();
    all.insert(functions::FLATTEN.to_owned(), flatten());
    all
}

fn read(documentation: &Documentation) -> Told {
    let example = documentation.sql_example.as_deref();
    Told {
        signature: Some(documentation.syntax_example.clone()),
        description: Some(documentation.description.trim().to_owned()),
        example: example.map(|text| example_of(text).to_owned()),
    }
}

/// The statement of an example, out of the session that it is shown in: a fence, a prompt, a table of results.
fn example_of(text: &str) -> &str {
    let text = text.trim().trim_start_matches("```sql").trim_start();
    let text = text.strip_prefix('>').unwrap_or(text).trim_start();
    let end = ["\n+", "\n>", "\n```", ";\n"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min();
    text[..end.unwrap_or(text.len())]
        .trim_end_matches([';', '`'])
        .trim_end()
}

fn flatten() -> Told {
    Told {
        signature: Some("flatten(array), or flatten('table' [, 'separator']) -> TABLE".to_owned()),
        description: Some(
            "In FROM: the rows of a table or view with a column for each field of its structs, named struct_field, at every depth. Elsewhere: an array of arrays as one array."
                .to_owned(),
        ),
        example: Some("SELECT flatten([[1, 2], [3, 4]])".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::example_of;

    #[test]
    fn an_example_is_one_statement() {
        let fenced = "```sql\n> SELECT abs(-5);\n+----------+\n| abs(-5)  |\n+----------+\n```";
        assert_eq!(example_of(fenced), "SELECT abs(-5)");
        let two = "```sql\n> select a\nfrom t;\n+---+\n> select b;\n```";
        assert_eq!(example_of(two), "select a\nfrom t");
        assert_eq!(
            example_of("SELECT is_ip('x') -- false"),
            "SELECT is_ip('x') -- false"
        );
    }
}

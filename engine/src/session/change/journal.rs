//! DELETE, UPDATE, TRUNCATE and MERGE of a journal: what they make of its current rows is true from an instant on.
//!
//! ```text
//! statement -> SELECT declared columns.., delete, keep FROM current rows, other tables -> the journal's own step
//! ```
//!
//! A statement that does not say when acts at its own instant, which the sequence column of each row then says too. A
//! DATE can only say the beginning of that day, so where a key has changed on it already, such a statement comes late,
//! which is an error of every statement on what is true now.
//! A key that gets another value is two things that happen: the old one ends, and the new one begins.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::{Expr as Planned, LogicalPlan, ScalarUDF};
use datafusion::sql::sqlparser::ast::{self, Expr, SelectItem, TableWithJoins, Value};

use super::assign::{self, as_column};
use super::{Target, syntax};
use crate::error::{Error, Result};
use crate::journal::event::{DELETE, KEEP};
use crate::journal::shape::Shape;
use crate::session::insert;
use crate::sql;
use crate::table::mapping;
use crate::write::target::JournalMode;

/// Begins the names of the columns that hold the key a row had before; its place in the table follows.
const OLD: &str = "__selvedge_old_";

/// The rows of DELETE and TRUNCATE: only keys are read of them.
pub(super) async fn delete(
    target: &Target<'_>,
    using: Vec<TableWithJoins>,
    predicate: Option<Expr>,
    operation: &'static str,
) -> Result<LogicalPlan> {
    let shape = shape(target)?;
    let fields = target.fields().iter().enumerate();
    let projection =
        fields.map(|(at, field)| syntax::named(ended(target, &shape, at), field.name()));
    let projection = projection.chain(riders(truth(true)));
    let from = [target.relation()].into_iter().chain(using);
    let query = syntax::select(projection.collect(), from.collect(), predicate)?;
    let rows = planned(target, query).await?;
    write(target, rows, operation, false)
}

/// The rows of UPDATE, where `values` are the new ones of the columns that get any.
pub(super) async fn update(
    target: &Target<'_>,
    mut values: HashMap<usize, Expr>,
    from: Vec<TableWithJoins>,
    predicate: Option<Expr>,
) -> Result<LogicalPlan> {
    let shape = shape(target)?;
    let moves = shape.keys.iter().any(|key| values.contains_key(key));
    if let Some(sequence) = shape.sequence {
        values.entry(sequence).or_insert_with(assign::instant);
    }
    let fields = target.fields().iter().enumerate();
    let columns = fields.map(|(at, field)| {
        let value = match values.remove(&at) {
            // Rows of several queries become one there, so that each must have the type of its column before.
            Some(value) if moves => as_column(value, at),
            Some(value) => value,
            None => target.column(field.name()),
        };
        syntax::named(value, field.name())
    });
    let mut projection: Vec<SelectItem> = columns.chain(riders(truth(false))).collect();
    if moves {
        projection.extend(old_keys(&shape, |at| key(target, at)));
    }
    let from = [target.relation()].into_iter().chain(from);
    let query = syntax::select(projection, from.collect(), predicate)?;
    let rows = planned(target, query).await?;
    let rows = match moves {
        true => moved(target, &shape, rows, "UPDATE").await?,
        false => rows,
    };
    write(target, rows, "UPDATE", moves)
}

/// What the write of `rows` is: declared columns and riders. `moves`: they are those of [`moved`].
pub(super) fn write(
    target: &Target<'_>,
    rows: LogicalPlan,
    operation: &'static str,
    moves: bool,
) -> Result<LogicalPlan> {
    insert::change_rows(
        target.scope,
        &target.opened,
        rows,
        operation,
        JournalMode::Dml,
        moves,
    )
}

pub(super) fn shape(target: &Target<'_>) -> Result<Arc<Shape>> {
    let shape = target.shape.as_ref().map(Arc::clone);
    shape.ok_or_else(|| Error::internal(format!("table {} is no journal", target.opened.name)))
}

/// The key column at that place, as it was before.
pub(super) fn key(target: &Target<'_>, at: usize) -> Expr {
    match target.fields().get(at) {
        Some(field) => target.column(field.name()),
        None => syntax::null(),
    }
}

/// What a row says of a column when it says that its key ends.
pub(super) fn ended(target: &Target<'_>, shape: &Shape, at: usize) -> Expr {
    if shape.keys.contains(&at) {
        key(target, at)
    } else if shape.sequence == Some(at) {
        assign::instant()
    } else {
        as_column(syntax::null(), at)
    }
}

/// What is said of each row beside its columns. In rows of these statements NULL is a value like any other.
pub(super) fn riders(delete: Expr) -> [SelectItem; 2] {
    let nothing = Expr::Value(Value::HexStringLiteral(String::new()).into());
    [syntax::named(delete, DELETE), syntax::named(nothing, KEEP)]
}

pub(super) fn truth(value: bool) -> Expr {
    Expr::Value(Value::Boolean(value).into())
}

/// The keys that rows had before, for [`moved`].
pub(super) fn old_keys(shape: &Shape, key: impl Fn(usize) -> Expr) -> Vec<SelectItem> {
    let keys = shape.keys.iter();
    keys.map(|at| syntax::named(key(*at), &old(*at))).collect()
}

fn old(at: usize) -> String {
    format!("{OLD}{at}")
}

/// Plans a query over the current rows, which may use the functions of these statements.
pub(super) async fn planned(target: &Target<'_>, query: ast::Query) -> Result<LogicalPlan> {
    let functions = functions(target)?;
    target.scope.plan_with(query, functions).await
}

fn functions(target: &Target<'_>) -> Result<Vec<ScalarUDF>> {
    let columns = mapping::logical(&target.columns);
    let mut functions = assign::functions(columns.fields());
    if let Some(sequence) = target.shape.as_ref().and_then(|shape| shape.sequence) {
        let opened = &target.opened;
        let micros = Shape::instant(target.scope.batch_id, Some(&opened.snapshot));
        let instant = ScalarValue::TimestampMicrosecond(Some(micros), None);
        let instant = instant.cast_to(columns.field(sequence).data_type())?;
        functions.push(assign::instant_function(instant));
    }
    Ok(functions)
}

/// The events of rows whose keys may be others than before, which `rows` have behind their riders (NULL: there was no
/// row). In the order of the query:
/// - each row as it is now
/// - the end of each key that no row has any more
/// - of a key that is taken by a row which stays as it is, that row at the same instant: two rows for one key and
///   one instant are refused, and what the table says of a key is never taken over by another
///
/// Each of them counts on all the others being there, so that the write takes them all or none.
pub(super) async fn moved(
    target: &Target<'_>,
    shape: &Shape,
    rows: LogicalPlan,
    statement: &str,
) -> Result<LogicalPlan> {
    if volatile(&rows)? {
        return Err(Error::unsupported(format!(
            "{statement} of table {} gives keys other values, for which its rows are read several times, and a \
             function in it answers otherwise each time",
            target.opened.name
        ))
        .with_hint("write what it answers into a table first"));
    }
    let changed = format!("{}@changed", target.opened.name);
    target
        .scope
        .bind(&changed, Arc::new(ViewTable::new(rows, None)));
    let names = Names {
        columns: target
            .fields()
            .iter()
            .map(|field| sql::quoted(field.name()))
            .collect(),
        changed: sql::quoted(&changed),
        current: sql::quoted(&target.internal),
    };
    let text = names.query(shape);
    let sql::Statement::Query(query) = sql::parse(&text)? else {
        return Err(Error::internal("the events of keys are not a query"));
    };
    planned(target, *query).await
}

fn volatile(rows: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    rows.apply_with_subqueries(|node| {
        found |= node.expressions().iter().any(Planned::is_volatile);
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// The names in the query of [`moved`], each quoted where it must be.
struct Names {
    columns: Vec<String>,
    changed: String,
    current: String,
}

impl Names {
    fn query(&self, shape: &Shape) -> String {
        let Self {
            changed, current, ..
        } = self;
        let columns = |value: &dyn Fn(usize, &str) -> String| -> String {
            let each = self.columns.iter().enumerate();
            let each = each.map(|(at, name)| format!("{} AS {name}", value(at, name)));
            each.collect::<Vec<_>>().join(", ")
        };
        let riders = |delete: &str| format!("{delete} AS {DELETE}, X'' AS {KEEP}");
        // Whether the keys of two relations are the same, as they are now or were before.
        let same = |one: (&str, bool), other: (&str, bool)| -> String {
            let side = |(relation, before): (&str, bool), at: usize| match before {
                true => format!("{relation}.{}", old(at)),
                false => format!("{relation}.{}", self.name(at)),
            };
            let keys = shape.keys.iter();
            let keys = keys.map(|at| format!("{} = {}", side(one, *at), side(other, *at)));
            keys.collect::<Vec<_>>().join(" AND ")
        };
        let was = |relation: &str| -> String {
            let first = shape.keys.first().copied().unwrap_or_default();
            format!("{relation}.{} IS NOT NULL", old(first))
        };
        let now = columns(&|_, name| format!("c.{name}"));
        let ended = columns(&|at, name| {
            if shape.keys.contains(&at) {
                format!("c.{}", old(at))
            } else if shape.sequence == Some(at) {
                format!("c.{name}")
            } else {
                format!("__selvedge_as_{at}(NULL)")
            }
        });
        let taken = columns(&|at, name| match shape.sequence == Some(at) {
            true => format!("c.{name}"),
            false => format!("t.{name}"),
        });
        format!(
            "SELECT {now}, {kept} FROM {changed} AS c WHERE NOT c.{DELETE} \
             UNION ALL SELECT {ended}, {gone} FROM {changed} AS c WHERE {was} \
             AND NOT EXISTS (SELECT 1 FROM {changed} AS n WHERE NOT n.{DELETE} AND {has}) \
             UNION ALL SELECT {taken}, {kept} FROM {changed} AS c JOIN {current} AS t ON {meets} \
             WHERE NOT c.{DELETE} AND {was} \
             AND NOT EXISTS (SELECT 1 FROM {changed} AS n WHERE {left})",
            kept = riders("false"),
            gone = riders("true"),
            was = was("c"),
            has = same(("n", false), ("c", true)),
            meets = same(("c", false), ("t", false)),
            left = same(("n", true), ("t", false)),
        )
    }

    fn name(&self, at: usize) -> &str {
        self.columns.get(at).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;
    use crate::journal::definition::Definition;

    #[test]
    fn the_events_of_keys_are_one_query() {
        let definition = Definition::plain(&["client_id", "Region"], Some("seen_on"));
        let instant = DataType::Timestamp(TimeUnit::Microsecond, None);
        let declared = Arc::new(Schema::new(vec![
            Field::new("client_id", DataType::Int64, true),
            Field::new("seen_on", instant, true),
            Field::new("Region", DataType::Utf8View, true),
            Field::new("amount", DataType::Int64, true),
        ]));
        let stored = Shape::with_period(&declared, &definition.columns).unwrap();
        let shape = Shape::new("s.t", definition, &stored).unwrap();
        let names = Names {
            columns: declared
                .fields()
                .iter()
                .map(|field| sql::quoted(field.name()))
                .collect(),
            changed: "\"s.t@changed\"".into(),
            current: "\"s.t@rows\"".into(),
        };
        let text = names.query(&shape);
        let parts: Vec<&str> = text.split(" UNION ALL ").collect();
        assert_eq!(
            parts,
            [
                "SELECT c.client_id AS client_id, c.seen_on AS seen_on, c.\"Region\" AS \"Region\", \
                 c.amount AS amount, false AS __selvedge_delete, \
                 X'' AS __selvedge_keep FROM \"s.t@changed\" AS c WHERE NOT c.__selvedge_delete",
                "SELECT c.__selvedge_old_0 AS client_id, c.seen_on AS seen_on, c.__selvedge_old_2 AS \"Region\", \
                 __selvedge_as_3(NULL) AS amount, true AS __selvedge_delete, X'' AS __selvedge_keep \
                 FROM \"s.t@changed\" AS c WHERE c.__selvedge_old_0 IS NOT NULL AND NOT EXISTS \
                 (SELECT 1 FROM \"s.t@changed\" AS n WHERE NOT n.__selvedge_delete AND n.client_id = c.__selvedge_old_0 \
                 AND n.\"Region\" = c.__selvedge_old_2)",
                "SELECT t.client_id AS client_id, c.seen_on AS seen_on, t.\"Region\" AS \"Region\", \
                 t.amount AS amount, false AS __selvedge_delete, \
                 X'' AS __selvedge_keep FROM \"s.t@changed\" AS c JOIN \"s.t@rows\" AS t \
                 ON c.client_id = t.client_id AND c.\"Region\" = t.\"Region\" WHERE NOT c.__selvedge_delete AND \
                 c.__selvedge_old_0 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM \"s.t@changed\" AS n \
                 WHERE n.__selvedge_old_0 = t.client_id AND n.__selvedge_old_2 = t.\"Region\")",
            ]
        );
        assert!(matches!(
            sql::parse(&text).unwrap(),
            sql::Statement::Query(_)
        ));
    }
}

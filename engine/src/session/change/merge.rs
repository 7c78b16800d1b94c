//! MERGE INTO: a join of the source with the located table; the first clause that fits decides what becomes of a row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, SelectItem, TableFactor,
    TableWithJoins, Value, Visit, Visitor, WildcardAdditionalOptions,
};

use super::assign::{self, as_column};
use super::scoped::Side;
use super::{Target, Terms, syntax};
use crate::error::{Error, ErrorKind, Result};
use crate::session::scope::Scope;
use crate::shown::HIDDEN;
use crate::sql::{self, Assignment, Merge, MergeAction, MergeClause, MergeWhen};
use crate::table::schema::personal;
use crate::table::{located, mapping};
use crate::write::change::{CHANGE, KEY, Kind};

/// Column of the source that is there when there is a row of it.
const SOURCE: &str = "__selvedge_source";

/// `MERGE INTO t USING s ON c WHEN ..`
pub(in crate::session) async fn merge(scope: &Arc<Scope>, merge: Merge) -> Result<LogicalPlan> {
    let target = Target::open(scope, &merge.table, merge.alias).await?;
    let source = Source::plan(scope, merge.source).await?;
    if sql::fold(&source.alias) == sql::fold(&target.alias) {
        return Err(Error::invalid(format!(
            "the source and the table of MERGE are both called {}",
            target.alias
        ))
        .with_hint("give one of them an alias: MERGE INTO t USING s AS changes ON .."));
    }
    let keys = keys(&target, &merge.on);
    let has = |when| merge.clauses.iter().any(|clause| clause.when == when);
    let (inserts, by_source) = (
        has(MergeWhen::NotMatched),
        has(MergeWhen::NotMatchedBySource),
    );
    let on = JoinConstraint::On(merge.on);
    let join = match (inserts, by_source) {
        (false, false) => JoinOperator::Inner(on),
        (true, false) => JoinOperator::LeftOuter(on),
        (false, true) => JoinOperator::RightOuter(on),
        (true, true) => JoinOperator::FullOuter(on),
    };
    let from = TableWithJoins {
        relation: source.relation.clone(),
        joins: vec![Join {
            relation: target.relation().relation,
            global: false,
            join_operator: join,
        }],
    };
    // Only rows that a condition-less DELETE names may be named twice: it does the same to them each time.
    let repeats = merge
        .clauses
        .iter()
        .filter(|clause| clause.when == MergeWhen::Matched)
        .all(|clause| matches!(clause.action, MergeAction::Delete) && clause.condition.is_none());
    let branches = merge
        .clauses
        .into_iter()
        .map(|clause| Branch::new(&target, &source, clause))
        .collect::<Result<Vec<_>>>()?;
    let acts = branches
        .iter()
        .map(|branch| branch.when.clone())
        .reduce(syntax::or)
        .ok_or_else(|| Error::internal("a MERGE does nothing"))?;
    let mut projection = columns(&target, &branches);
    projection.extend(target.places());
    projection.push(syntax::named(
        syntax::case(
            branches
                .iter()
                .map(|branch| (branch.when.clone(), syntax::number(branch.kind as u8))),
        ),
        CHANGE,
    ));
    projection.extend(keys.iter().map(|key| {
        let named = format!("{KEY}{key}");
        let field = target.opened.snapshot.schema.field_with_name(key);
        let shown = match field.is_ok_and(personal) {
            true => syntax::text(HIDDEN),
            false => target.column(key),
        };
        syntax::named(shown, &named)
    }));
    let query = syntax::select(projection, vec![from], Some(acts))?;
    let input = scope
        .plan_with(
            query,
            assign::functions(mapping::logical(&target.opened.snapshot.schema).fields()),
        )
        .await?;
    target.write(
        input,
        Terms {
            node: "Merge",
            statement: "MERGE",
            operation: "MERGE",
            repeats,
            absence: inserts,
            condition: None,
        },
    )
}

/// The source of a MERGE with a column that tells its rows from those that a join made up.
struct Source {
    relation: TableFactor,
    alias: Ident,
    columns: Vec<String>,
}

impl Source {
    async fn plan(scope: &Arc<Scope>, source: TableFactor) -> Result<Self> {
        let alias = alias_of(&source)?;
        let all = || SelectItem::Wildcard(WildcardAdditionalOptions::default());
        let from = || {
            vec![TableWithJoins {
                relation: source.clone(),
                joins: vec![],
            }]
        };
        let plain = scope
            .plan_query(syntax::select(vec![all()], from(), None)?)
            .await?;
        let columns = plain.schema().fields().iter();
        let there = Expr::Value(Value::Boolean(true).into());
        let query = syntax::select(vec![all(), syntax::named(there, SOURCE)], from(), None)?;
        Ok(Self {
            columns: columns.map(|field| field.name().clone()).collect(),
            relation: syntax::derived(query, alias.clone()),
            alias,
        })
    }

    fn column(&self, name: &str) -> Expr {
        syntax::column(&self.alias, name)
    }

    /// The column that `*` takes for a column of the table.
    fn same(&self, target: &Target<'_>, name: &str, clause: &str) -> Result<Expr> {
        let exact = self.columns.iter().find(|column| *column == name);
        let found = exact.or_else(|| {
            let mut alike = self.columns.iter();
            alike.find(|column| column.eq_ignore_ascii_case(name))
        });
        found.map(|column| self.column(column)).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "{clause} takes each column of table {} from the source, which has no column {name}",
                    target.opened.name
                ),
            )
            .with_hint(format!("its columns are {}", self.columns.join(", ")))
        })
    }
}

fn alias_of(source: &TableFactor) -> Result<Ident> {
    let missing = || {
        Error::invalid("the source of MERGE needs an alias")
            .with_hint("MERGE INTO t USING (..) AS changes ON ..")
    };
    let last = |name: &ObjectName| name.0.last().and_then(|part| part.as_ident()).cloned();
    match source {
        TableFactor::Table {
            alias: Some(alias), ..
        }
        | TableFactor::Derived {
            alias: Some(alias), ..
        }
        | TableFactor::Function {
            alias: Some(alias), ..
        } => Ok(alias.name.clone()),
        TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => {
            last(name).ok_or_else(missing)
        }
        _ => Err(missing()),
    }
}

/// One WHEN clause: when it acts, and what it makes of each column it sets.
struct Branch {
    when: Expr,
    kind: Kind,
    values: HashMap<usize, Expr>,
}

impl Branch {
    fn new(target: &Target<'_>, source: &Source, clause: MergeClause) -> Result<Self> {
        let in_source = || source.column(SOURCE);
        let in_table = || target.column(located::ROW);
        let (there, words) = match clause.when {
            MergeWhen::Matched => (
                syntax::and(
                    syntax::is_not_null(in_source()),
                    syntax::is_not_null(in_table()),
                ),
                "WHEN MATCHED",
            ),
            MergeWhen::NotMatched => (syntax::is_null(in_table()), "WHEN NOT MATCHED"),
            MergeWhen::NotMatchedBySource => {
                (syntax::is_null(in_source()), "WHEN NOT MATCHED BY SOURCE")
            }
        };
        let fields = target.opened.snapshot.schema.fields();
        let own: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
        let side = match clause.when {
            MergeWhen::Matched => None,
            MergeWhen::NotMatched => Some(Side {
                name: &source.alias,
                columns: &source.columns,
                other: &target.alias,
                clause: words,
            }),
            MergeWhen::NotMatchedBySource => Some(Side {
                name: &target.alias,
                columns: &own,
                other: &source.alias,
                clause: words,
            }),
        };
        let qualify = |mut expr: Expr| {
            if let Some(side) = &side {
                side.qualify(&mut expr)?;
            }
            Ok::<_, Error>(expr)
        };
        let when = match clause.condition {
            Some(condition) => syntax::and(there, qualify(condition)?),
            None => there,
        };
        let mut values = HashMap::new();
        let kind = match clause.action {
            MergeAction::Delete => Kind::Delete,
            MergeAction::Update(assignments) => {
                for Assignment { column, value } in assignments {
                    let at = target.find(&column)?;
                    values.insert(at, qualify(target.value(at, value)?)?);
                }
                for (at, field) in fields.iter().enumerate() {
                    let old = || target.column(field.name());
                    values.entry(at).or_insert_with(old);
                }
                Kind::Update
            }
            MergeAction::UpdateAll => {
                for (at, field) in fields.iter().enumerate() {
                    values.insert(at, source.same(target, field.name(), "UPDATE SET *")?);
                }
                Kind::Update
            }
            MergeAction::InsertAll => {
                for (at, field) in fields.iter().enumerate() {
                    values.insert(at, source.same(target, field.name(), "INSERT *")?);
                }
                Kind::Insert
            }
            MergeAction::Insert {
                columns,
                values: given,
            } => {
                let places = match columns.is_empty() {
                    true => (0..fields.len()).collect::<Vec<_>>(),
                    false => columns
                        .iter()
                        .map(|column| target.find(column))
                        .collect::<Result<_>>()?,
                };
                if places.len() != given.len() {
                    return Err(Error::invalid(format!(
                        "INSERT of MERGE takes {} columns of table {}, but {} values are given",
                        places.len(),
                        target.opened.name,
                        given.len()
                    )));
                }
                for (at, value) in places.into_iter().zip(given) {
                    values.insert(at, qualify(target.value(at, value)?)?);
                }
                for at in 0..fields.len() {
                    if let Entry::Vacant(missing) = values.entry(at) {
                        missing.insert(target.value(at, None)?);
                    }
                }
                Kind::Insert
            }
        };
        Ok(Self { when, kind, values })
    }
}

/// The new value of each column, by the first branch that acts.
fn columns(target: &Target<'_>, branches: &[Branch]) -> Vec<SelectItem> {
    let fields = target.opened.snapshot.schema.fields().iter().enumerate();
    let column = |(at, field): (usize, &Arc<datafusion::arrow::datatypes::Field>)| {
        let value = |branch: &Branch| match branch.values.get(&at) {
            Some(value) => (branch.when.clone(), as_column(value.clone(), at)),
            // A deleted row has no new values, but it is decided: later branches must not see it.
            None => (branch.when.clone(), syntax::null()),
        };
        let value = syntax::case(branches.iter().map(value));
        syntax::named(value, field.name())
    };
    fields.map(column).collect()
}

/// Columns of the table that the join names: by them a person knows a row.
fn keys(target: &Target<'_>, on: &Expr) -> Vec<String> {
    struct Keys<'a> {
        target: &'a Target<'a>,
        found: Vec<String>,
    }
    impl Visitor for Keys<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> std::ops::ControlFlow<()> {
            let column = match expr {
                Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                    [table, column] if sql::fold(table) == sql::fold(&self.target.alias) => column,
                    _ => return std::ops::ControlFlow::Continue(()),
                },
                Expr::Identifier(column) => column,
                _ => return std::ops::ControlFlow::Continue(()),
            };
            let name = sql::fold(column);
            let schema = &self.target.opened.snapshot.schema;
            if schema.index_of(&name).is_ok() && !self.found.contains(&name) {
                self.found.push(name);
            }
            std::ops::ControlFlow::Continue(())
        }
        fn pre_visit_query(&mut self, _: &ast::Query) -> std::ops::ControlFlow<()> {
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut keys = Keys {
        target,
        found: Vec::new(),
    };
    let _ = on.visit(&mut keys);
    keys.found
}

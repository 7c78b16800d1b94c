//! MERGE INTO: a join of the source with the located table; the first clause that fits decides what becomes of a row.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, SelectItem,
    TableFactor, TableWithJoins, Value, Visit, Visitor, WildcardAdditionalOptions,
};

use super::assign::{self, as_column};
use super::scoped::Side;
use super::{Target, Terms, journal, syntax};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::shape::Shape;
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
    let shape = target.shape.as_ref().map(Arc::clone);
    let keys = keys(&target, &merge.on);
    let same = Same::of(&target, &merge.on);
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
    if let Some(shape) = shape {
        projection.extend(journal::riders(by_branch(&branches, |branch| {
            journal::truth(branch.kind == Kind::Delete)
        })));
        let moves = branches
            .iter()
            .any(|branch| branch.moves(&target, &shape, &same));
        if moves {
            projection.extend(journal::old_keys(&shape, |at| {
                by_branch(&branches, |branch| match branch.kind {
                    Kind::Insert => syntax::null(),
                    Kind::Update | Kind::Delete => as_column(journal::key(&target, at), at),
                })
            }));
        }
        let query = syntax::select(projection, vec![from], Some(acts))?;
        let rows = journal::planned(&target, query).await?;
        let rows = match moves {
            true => journal::moved(&target, &shape, rows, "MERGE").await?,
            false => rows,
        };
        return journal::write(&target, rows, "MERGE", moves);
    }
    projection.extend(target.places());
    projection.push(syntax::named(
        by_branch(&branches, |branch| syntax::number(branch.kind as u8)),
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
            assign::functions(mapping::logical(&target.columns).fields()),
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
        let in_table = || target.column(&there(target));
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
        let fields = target.fields();
        let shape = target.shape.as_deref();
        // When a row of a journal changes says the statement, or it is now.
        let now = |at: usize| shape.is_some_and(|shape| shape.sequence == Some(at));
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
            MergeAction::Delete => {
                if let Some(shape) = shape {
                    let columns = 0..fields.len();
                    values.extend(columns.map(|at| (at, journal::ended(target, shape, at))));
                }
                Kind::Delete
            }
            MergeAction::Update(assignments) => {
                for Assignment { column, value } in assignments {
                    let at = target.find(&column)?;
                    values.insert(at, qualify(target.value(at, value)?)?);
                }
                for (at, field) in fields.iter().enumerate() {
                    let old = || match now(at) {
                        true => assign::instant(),
                        false => target.column(field.name()),
                    };
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
                        missing.insert(match now(at) {
                            true => assign::instant(),
                            false => target.value(at, None)?,
                        });
                    }
                }
                Kind::Insert
            }
        };
        Ok(Self { when, kind, values })
    }

    /// Whether a row of a journal may have another key after it.
    fn moves(&self, target: &Target<'_>, shape: &Shape, same: &Same) -> bool {
        let stays = |at: &usize| {
            let own = target.fields().get(*at).map(|field| field.name());
            let value = self.values.get(at).and_then(name);
            match (own, value) {
                (Some(own), Some(value)) => same.holds(target, own, &value),
                _ => false,
            }
        };
        self.kind == Kind::Update && !shape.keys.iter().all(stays)
    }
}

/// A column that tells whether there is a row of the table: it has no NULL.
fn there(target: &Target<'_>) -> String {
    let key = target
        .shape
        .as_ref()
        .and_then(|shape| shape.key_names().next());
    key.unwrap_or(located::ROW).to_owned()
}

/// What each branch says, by the first that acts.
fn by_branch(branches: &[Branch], says: impl Fn(&Branch) -> Expr) -> Expr {
    syntax::case(
        branches
            .iter()
            .map(|branch| (branch.when.clone(), says(branch))),
    )
}

/// Table and column, folded.
type Name = (String, String);

fn name(expr: &Expr) -> Option<Name> {
    match expr {
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [table, column] => Some((sql::fold(table), sql::fold(column))),
            _ => None,
        },
        Expr::Nested(inner) => name(inner),
        _ => None,
    }
}

/// Columns of the source that the condition of a MERGE holds equal to columns of the table.
struct Same(Vec<(String, Name)>);

impl Same {
    fn of(target: &Target<'_>, on: &Expr) -> Self {
        fn each(expr: &Expr, table: &str, found: &mut Vec<(String, Name)>) {
            match expr {
                Expr::Nested(inner) => each(inner, table, found),
                Expr::BinaryOp { left, op, right } if *op == BinaryOperator::And => {
                    each(left, table, found);
                    each(right, table, found);
                }
                Expr::BinaryOp { left, op, right } if *op == BinaryOperator::Eq => {
                    if let (Some(left), Some(right)) = (name(left), name(right)) {
                        for (own, other) in [(&left, &right), (&right, &left)] {
                            if own.0 == table {
                                found.push((own.1.clone(), other.clone()));
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        each(on, &sql::fold(&target.alias), &mut found);
        Self(found)
    }

    /// Whether `value` is the column of the table, or held equal to it.
    fn holds(&self, target: &Target<'_>, column: &str, value: &Name) -> bool {
        let own = value.0 == sql::fold(&target.alias) && value.1 == column;
        own || self
            .0
            .iter()
            .any(|(key, other)| key == column && other == value)
    }
}

/// The new value of each column, by the first branch that acts.
fn columns(target: &Target<'_>, branches: &[Branch]) -> Vec<SelectItem> {
    let fields = target.fields().iter().enumerate();
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
            let schema = &self.target.columns;
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

//! What a journal tells of time itself: `HISTORY OF (query)` and `valid_time_changes('t', a, b)`.
//!
//! Both are planned as SQL over all intervals of the journal, so that they are pruned, sorted and spilled as queries
//! are. The history of an aggregate is told in one pass: each interval counts from its first instant and no longer from
//! its last one, and the running sums of these differences are the values of the aggregate.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    GroupByExpr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableFactor, Value,
};

use crate::error::{Error, Result};
use crate::expr;
use crate::journal::event::{FROM, TO};
use crate::journal::shape::Shape;
use crate::session::scope::Scope;
use crate::shown::sql_name;
use crate::sql::{self, Statement};
use crate::table::journal;

const CHANGE_TYPE: &str = "_change_type";
const VALID_AT: &str = "_valid_at";

/// The rows that began and ended to be true from `from` on and before `to`. A row of a key that ends where another
/// one begins is an update, told as it was and as it is.
pub(in crate::session) async fn changes(
    scope: &Arc<Scope>,
    table: &ObjectName,
    from: Expr,
    to: Expr,
) -> Result<Arc<dyn TableProvider>> {
    let found = scope.journal(table, "valid_time_changes", None).await?;
    let shape = found.shape;
    for own in [CHANGE_TYPE, VALID_AT] {
        if shape.stored.index_of(own).is_ok() {
            return Err(Error::invalid(format!(
                "valid_time_changes: table {} has a column {own} of its own",
                shape.table
            ))
            .with_hint(format!(
                "ALTER TABLE {} RENAME COLUMN {own} TO another name",
                shape.table
            )));
        }
    }
    let (first, end) = scope.bounds(&shape.table, from, to).await?;
    if first > end {
        tracing::warn!(
            table = shape.table,
            "valid_time_changes ends before it begins, so it has no rows"
        );
    }
    let spans = bound(scope, &shape, journal::spans(found.raw, &shape)?);
    let (first, end) = (instant(first), instant(end));
    let names = shape.declared.fields().iter();
    let columns = names.map(|field| exact(field.name())).collect::<Vec<_>>();
    let columns = columns.join(", ");
    let keys = shape.key_names().map(exact).collect::<Vec<_>>().join(", ");
    let [from, to] = [FROM, TO].map(exact);
    let window = format!("OVER (PARTITION BY {keys} ORDER BY {from})");
    // Of a key, intervals that meet the period are all those between two others, so none is missing among them.
    let rows = query(&format!(
        "WITH near AS (SELECT * FROM {spans} WHERE {from} < {end} AND ({to} IS NULL OR {to} >= {first})), \
         beside AS (SELECT *, lag({to}) {window} AS __before, lead({from}) {window} AS __after FROM near) \
         SELECT {columns}, CASE WHEN __before = {from} THEN 'update_postimage' ELSE 'insert' END AS {CHANGE_TYPE}, \
         {from} AS {VALID_AT} FROM beside WHERE {from} >= {first} \
         UNION ALL \
         SELECT {columns}, CASE WHEN __after = {to} THEN 'update_preimage' ELSE 'delete' END AS {CHANGE_TYPE}, \
         {to} AS {VALID_AT} FROM beside WHERE {to} >= {first} AND {to} < {end}"
    ))?;
    Ok(view(planned(scope, rows).await?))
}

/// The aggregates of `query` over the journal it reads, through all of time: from when to when each group had which.
/// Instants at which it has no row are left out; an end that has not come is NULL.
pub(in crate::session) async fn of(
    scope: &Arc<Scope>,
    table: &ObjectName,
    query: Query,
) -> Result<Arc<dyn TableProvider>> {
    let found = scope.journal(table, "HISTORY OF", None).await?;
    let shape = found.shape;
    // The same of the current rows: the planner tells what is wrong with it, and the types of its columns.
    let now = planned(scope, query.clone()).await?;
    let now = expr::columns(&scope.state(), &now);
    let parts = Parts::of(&query, &shape)?;
    let arguments = parts.arguments(scope).await?;
    let history = History {
        parts: &parts,
        arguments,
        results: now
            .fields()
            .iter()
            .map(|field| (field.name().clone(), field.data_type().clone()))
            .collect(),
        period: [&shape.definition.columns.from, &shape.definition.columns.to],
    };
    let spans = bound(scope, &shape, journal::spans(found.raw, &shape)?);
    let told = self::query(&history.sql(&spans)?)?;
    Ok(view(planned(scope, told).await?))
}

/// The query of a HISTORY OF, taken apart.
struct Parts {
    /// `t`, and the name by which expressions know it.
    from: (String, Ident),
    filter: Option<String>,
    groups: Vec<String>,
    columns: Vec<Told>,
}

/// A column of the query.
enum Told {
    /// The group expression of this number.
    Group(usize),
    Aggregate(Aggregate),
}

struct Aggregate {
    kind: Kind,
    /// None: `count(*)`.
    argument: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Count,
    Sum,
    Avg,
}

fn refused(what: impl std::fmt::Display) -> Error {
    Error::unsupported(format!("HISTORY OF {what}")).with_hint(
        "its columns are GROUP BY expressions, count, sum and avg by themselves; compute with them outside of it",
    )
}

impl Parts {
    fn of(query: &Query, shape: &Shape) -> Result<Self> {
        let SetExpr::Select(select) = query.body.as_ref() else {
            return Err(refused("takes a SELECT, and no set operation"));
        };
        let from = relation(select)?;
        let items = select.projection.iter().map(|item| match item {
            SelectItem::UnnamedExpr(expr) => Ok((expr, None)),
            SelectItem::ExprWithAlias { expr, alias } => Ok((expr, Some(alias))),
            other => Err(refused(format!("cannot have the column {other}"))),
        });
        let items: Vec<(&Expr, Option<&Ident>)> = items.collect::<Result<_>>()?;
        let names = Names {
            alias: &from.1,
            shape,
        };
        let groups = names.groups(select, &items)?;
        let columns = items.iter().map(|(expr, _)| {
            let text = names.text(expr);
            match groups.iter().position(|group| *group == text) {
                Some(group) => Ok(Told::Group(group)),
                None => aggregate(expr).map(Told::Aggregate),
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        if !columns
            .iter()
            .any(|told| matches!(told, Told::Aggregate(_)))
        {
            return Err(refused(format!(
                "of table {} has no aggregate to follow",
                shape.table
            )));
        }
        Ok(Self {
            from,
            filter: select.selection.as_ref().map(Expr::to_string),
            groups,
            columns,
        })
    }

    fn aggregates(&self) -> impl Iterator<Item = &Aggregate> {
        self.columns.iter().filter_map(|told| match told {
            Told::Aggregate(aggregate) => Some(aggregate),
            Told::Group(_) => None,
        })
    }

    /// ` WHERE ..`, if it has one.
    fn condition(&self) -> String {
        match &self.filter {
            Some(filter) => format!(" WHERE {filter}"),
            None => String::new(),
        }
    }

    /// The types of what is summed, one for each aggregate.
    async fn arguments(&self, scope: &Arc<Scope>) -> Result<Vec<DataType>> {
        let arguments = self.aggregates().enumerate().map(|(at, aggregate)| {
            let argument = aggregate.argument.as_deref().unwrap_or("1");
            format!("{argument} AS a{at}")
        });
        let arguments = arguments.collect::<Vec<_>>().join(", ");
        let (table, alias) = &self.from;
        let typed = query(&format!("SELECT {arguments} FROM {table} AS {alias}"))?;
        let typed = planned(scope, typed).await?;
        let typed = expr::columns(&scope.state(), &typed);
        let types = typed.fields().iter();
        Ok(types.map(|field| field.data_type().clone()).collect())
    }
}

/// The one table that is read, and the name that expressions have for it.
fn relation(select: &Select) -> Result<(String, Ident)> {
    let [from] = select.from.as_slice() else {
        return Err(refused("reads one table"));
    };
    let TableFactor::Table { name, alias, .. } = &from.relation else {
        return Err(refused("reads a table by its name"));
    };
    let alias = match alias {
        Some(alias) if !alias.columns.is_empty() => {
            return Err(refused("cannot give columns of its table other names"));
        }
        Some(alias) => Some(alias.name.clone()),
        None => name.0.last().and_then(|part| part.as_ident()).cloned(),
    };
    match alias {
        Some(alias) => Ok((name.to_string(), alias)),
        None => Err(refused("reads a table by its name")),
    }
}

/// What names in the query mean.
struct Names<'a> {
    /// The name of its table.
    alias: &'a Ident,
    shape: &'a Shape,
}

impl Names<'_> {
    /// An expression as text, in which a column is spelled in one way.
    fn text(&self, expr: &Expr) -> String {
        match expr {
            Expr::Identifier(name) => exact(&sql::fold(name)),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, name] if sql::fold(table) == sql::fold(self.alias) => {
                    exact(&sql::fold(name))
                }
                _ => expr.to_string(),
            },
            _ => expr.to_string(),
        }
    }

    /// The expressions of GROUP BY, of which some may be said by the place or the name of a column of the query.
    fn groups(&self, select: &Select, items: &[(&Expr, Option<&Ident>)]) -> Result<Vec<String>> {
        let grouped = match &select.group_by {
            GroupByExpr::Expressions(grouped, modifiers) if modifiers.is_empty() => grouped,
            other => return Err(refused(format!("cannot hold {other}"))),
        };
        let mut groups = Vec::with_capacity(grouped.len());
        for group in grouped {
            let column = match group {
                Expr::Value(value) => match &value.value {
                    Value::Number(place, _) => {
                        let place = place.parse::<usize>().ok();
                        place.and_then(|place| items.get(place.checked_sub(1)?))
                    }
                    _ => None,
                },
                // A column of the table comes before one of the query.
                Expr::Identifier(name)
                    if self.shape.declared.index_of(&sql::fold(name)).is_err() =>
                {
                    items.iter().find(|(_, alias)| {
                        alias.is_some_and(|alias| sql::fold(alias) == sql::fold(name))
                    })
                }
                Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => {
                    return Err(refused(format!("cannot group by {group}")));
                }
                _ => None,
            };
            groups.push(self.text(column.map_or(group, |(expr, _)| expr)));
        }
        Ok(groups)
    }
}

/// The aggregate that an expression is, if its value follows from what comes and goes.
fn aggregate(expr: &Expr) -> Result<Aggregate> {
    let unknown = || {
        refused(format!(
            "cannot follow {expr}: it is neither a GROUP BY expression nor count, sum or avg by itself"
        ))
    };
    let Expr::Function(Function {
        name,
        args:
            FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment,
                args,
                clauses,
            }),
        filter,
        null_treatment: None,
        over: None,
        within_group,
        ..
    }) = expr
    else {
        return Err(unknown());
    };
    let kind = match sql::folded(name).as_slice() {
        [name] if name == "count" => Kind::Count,
        [name] if name == "sum" => Kind::Sum,
        [name] if name == "avg" => Kind::Avg,
        _ => return Err(unknown()),
    };
    if duplicate_treatment.is_some() {
        return Err(refused(format!(
            "cannot follow {expr}: a value that goes may be there in another row"
        )));
    }
    if filter.is_some() || !within_group.is_empty() || !clauses.is_empty() {
        return Err(unknown());
    }
    let argument = match args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] if kind == Kind::Count => None,
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] => Some(argument.to_string()),
        _ => return Err(unknown()),
    };
    Ok(Aggregate { kind, argument })
}

/// The history of a query, as SQL over the intervals of its table.
struct History<'a> {
    parts: &'a Parts,
    /// The types of the arguments of its aggregates.
    arguments: Vec<DataType>,
    /// Its columns.
    results: Vec<(String, DataType)>,
    period: [&'a String; 2],
}

impl History<'_> {
    fn sql(&self, spans: &str) -> Result<String> {
        let parts = self.parts;
        let groups: Vec<String> = (0..parts.groups.len()).map(|at| format!("g{at}")).collect();
        let (mut given, mut sums) = (Vec::new(), vec!["n".to_owned()]);
        for (group, name) in parts.groups.iter().zip(&groups) {
            given.push(format!("{group} AS {name}"));
        }
        for (at, (aggregate, of)) in parts.aggregates().zip(&self.arguments).enumerate() {
            let Some(argument) = &aggregate.argument else {
                continue;
            };
            given.push(format!(
                "CASE WHEN ({argument}) IS NULL THEN 0 ELSE 1 END AS c{at}"
            ));
            sums.push(format!("c{at}"));
            if aggregate.kind != Kind::Count {
                let exact = exactly(argument, of)?;
                given.push(format!("{exact} AS s{at}"));
                sums.push(format!("s{at}"));
            }
        }
        let each = |of: &dyn Fn(&str) -> String| {
            let each = sums.iter().map(|sum| of(sum));
            groups
                .iter()
                .cloned()
                .chain(each)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let by = |more: &str| {
            let by = groups.iter().map(String::as_str).chain([more]);
            by.collect::<Vec<_>>().join(", ")
        };
        let window = match groups.is_empty() {
            true => "ORDER BY __at".to_owned(),
            false => format!("PARTITION BY {} ORDER BY __at", groups.join(", ")),
        };
        let values = self.values();
        let names: Vec<String> = (0..values.len()).map(|at| format!("v{at}")).collect();
        let list = |of: &dyn Fn(&str) -> String| {
            let each = names.iter().map(|name| of(name));
            each.collect::<Vec<_>>().join(", ")
        };
        let valued = values.iter().zip(&names);
        let valued = valued.map(|(value, name)| format!("{value} AS {name}"));
        let differs = names
            .iter()
            .map(|name| format!("{name} IS DISTINCT FROM b_{name}"));
        let [from, to] = [FROM, TO].map(exact);
        Ok(format!(
            "WITH given AS (SELECT {from} AS __from, {to} AS __to, 1 AS n{given} FROM {spans} AS {alias}{condition}), \
             ends AS (SELECT __from AS __at, {come} FROM given UNION ALL \
             SELECT __to AS __at, {gone} FROM given WHERE __to IS NOT NULL), \
             instants AS (SELECT __at, {summed} FROM ends GROUP BY {by_instant}), \
             running AS (SELECT __at, {running} FROM instants), \
             valued AS (SELECT __at, {groups_n}, {valued} FROM running), \
             beside AS (SELECT *, lag(n) OVER ({window}) AS b_n, {lagged} FROM valued), \
             turns AS (SELECT * FROM beside WHERE b_n IS NULL OR (b_n = 0) <> (n = 0) OR (n > 0 AND ({differs}))), \
             told AS (SELECT *, lead(__at) OVER ({window}) AS __until FROM turns) \
             SELECT __at AS {first}, __until AS {end}, {columns} FROM told WHERE n > 0",
            given = given
                .iter()
                .map(|one| format!(", {one}"))
                .collect::<String>(),
            alias = parts.from.1,
            condition = parts.condition(),
            come = each(&|sum| sum.to_owned()),
            gone = each(&|sum| format!("-{sum} AS {sum}")),
            summed = each(&|sum| format!("sum({sum}) AS {sum}")),
            by_instant = by("__at"),
            running = each(&|sum| format!(
                "sum({sum}) OVER ({window} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS {sum}"
            )),
            groups_n = by("n"),
            valued = valued.collect::<Vec<_>>().join(", "),
            lagged = list(&|name| format!("lag({name}) OVER ({window}) AS b_{name}")),
            differs = differs.collect::<Vec<_>>().join(" OR "),
            first = exact(self.period[0]),
            end = exact(self.period[1]),
            columns = self.columns()?,
        ))
    }

    /// What each aggregate is, from the running sums.
    fn values(&self) -> Vec<String> {
        let results = self.parts.columns.iter().zip(&self.results);
        let results = results.filter_map(|(told, (_, of))| match told {
            Told::Aggregate(aggregate) => Some((aggregate, of)),
            Told::Group(_) => None,
        });
        let values = results.enumerate().map(|(at, (aggregate, of))| {
            let value = match (aggregate.kind, &aggregate.argument) {
                (Kind::Count, None) => "n".to_owned(),
                (Kind::Count, Some(_)) => format!("c{at}"),
                // Of no values there is no sum.
                (Kind::Sum, _) => format!("CASE WHEN c{at} > 0 THEN s{at} END"),
                (Kind::Avg, _) if of.is_decimal() => {
                    format!("CASE WHEN c{at} > 0 THEN s{at} / CAST(c{at} AS DECIMAL(20, 0)) END")
                }
                (Kind::Avg, _) => format!(
                    "CASE WHEN c{at} > 0 THEN CAST(s{at} AS DOUBLE) / CAST(c{at} AS DOUBLE) END"
                ),
            };
            format!("arrow_cast({value}, '{of}')")
        });
        values.collect()
    }

    /// The columns of the query, by their names.
    fn columns(&self) -> Result<String> {
        let mut aggregates = 0;
        let mut columns = Vec::with_capacity(self.results.len());
        for (told, (name, _)) in self.parts.columns.iter().zip(&self.results) {
            if self.period.contains(&name) {
                return Err(Error::invalid(format!(
                    "HISTORY OF tells {name} itself, so no column of its query can have that name"
                )));
            }
            let value = match told {
                Told::Group(group) => format!("g{group}"),
                Told::Aggregate(_) => {
                    aggregates += 1;
                    format!("v{}", aggregates - 1)
                }
            };
            columns.push(format!("{value} AS {}", exact(name)));
        }
        Ok(columns.join(", "))
    }
}

/// What an argument adds to a sum, as a number from which it can be taken again without a trace.
fn exactly(argument: &str, of: &DataType) -> Result<String> {
    let scale = match of {
        whole if whole.is_integer() => 0,
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale) => *scale,
        other => {
            let error = Error::unsupported(format!(
                "HISTORY OF cannot follow {argument}, which is {}: what is taken from a sum of such values leaves a trace",
                sql_name(other)
            ));
            return Err(error.with_hint(format!("CAST({argument} AS DECIMAL(38, 6))")));
        }
    };
    Ok(format!(
        "COALESCE(CAST({argument} AS DECIMAL(38, {scale})), CAST(0 AS DECIMAL(38, {scale})))"
    ))
}

/// Makes the intervals of a journal known to the queries here. The name they have for them.
fn bound(scope: &Scope, shape: &Shape, spans: Arc<dyn TableProvider>) -> String {
    let name = format!("{}@intervals", shape.table);
    scope.bind(&name, spans);
    exact(&name)
}

/// A name that stays as it is.
fn exact(name: &str) -> String {
    Ident::with_quote('"', name).to_string()
}

/// An instant, in microseconds since the epoch, that no zone of a session reads otherwise.
fn instant(micros: i64) -> String {
    format!("arrow_cast({micros}, 'Timestamp(Microsecond, Some(\"UTC\"))')")
}

fn query(text: &str) -> Result<Query> {
    match sql::parse(text)? {
        Statement::Query(query) => Ok(*query),
        _ => Err(Error::internal("the query of a history is none")),
    }
}

async fn planned(scope: &Arc<Scope>, query: Query) -> Result<LogicalPlan> {
    // These queries are planned while another one is.
    Box::pin(scope.plan_query(query)).await
}

fn view(plan: LogicalPlan) -> Arc<dyn TableProvider> {
    Arc::new(ViewTable::new(plan, None))
}

//! Fails closed: refuses each clause that the planner would read past.
//!
//! DataFusion takes from a syntax tree what it plans and, in many places, leaves the rest without a
//! word: a row lock, a sample, a CTE's MATERIALIZED, the window that an OVER clause builds on. Here each
//! node is taken apart without `..`, so a field that a later sqlparser adds must be decided on before
//! the engine builds again. What the planner itself refuses is let through to it, unless its words would
//! not name the clause.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Function, FunctionArguments, GroupByExpr, GroupByWithModifier, Ident, Join,
    JsonTableColumn, LimitClause, NamedWindowExpr, ObjectName, ObjectNamePart, OrderBy,
    OrderByKind, PipeOperator, Query, Select, SetExpr, Spanned, Statement as SqlStatement,
    TableAlias, TableAliasColumnDef, TableFactor, TableFunctionArgs, TableSampleKind,
    TableWithJoins, Visit, Visitor, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::statement::Statement;
use super::syntax::at;
use super::versions::{self, Scopes};
use super::walk::walk;
use super::{changes, history};
use crate::error::{Error, Result};

/// Refuses the statement if any part of it holds a clause that nobody honours.
pub(super) fn check(statement: &Statement) -> Result<()> {
    match walk(statement, &mut Refuse::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Refuses a query that stands in no statement, if any part of it holds such a clause.
pub(super) fn check_query(query: &Query) -> Result<()> {
    match query.visit(&mut Refuse::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Refuses an expression that stands in no statement yet, if any part of it holds such a clause.
pub(super) fn check_expr(expr: &Expr) -> Result<()> {
    match expr.visit(&mut Refuse::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

#[derive(Default)]
struct Refuse {
    scopes: Scopes,
}

impl Visitor for Refuse {
    type Break = Error;

    fn pre_visit_query(&mut self, node: &Query) -> ControlFlow<Error> {
        self.scopes.enter(node);
        go(query(node))
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.scopes.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, node: &Select) -> ControlFlow<Error> {
        go(select(node))
    }

    fn pre_visit_table_factor(&mut self, node: &TableFactor) -> ControlFlow<Error> {
        go(table_factor(node, &self.scopes))
    }

    fn pre_visit_expr(&mut self, node: &Expr) -> ControlFlow<Error> {
        go(expression(node))
    }

    // A query may hold a whole statement: WITH .. INSERT, WITH .. UPDATE.
    fn pre_visit_statement(&mut self, node: &SqlStatement) -> ControlFlow<Error> {
        let (verb, place) = match node {
            SqlStatement::Insert(insert) => ("INSERT", insert.insert_token.0.span.start),
            SqlStatement::Update(update) => ("UPDATE", update.update_token.0.span.start),
            SqlStatement::Delete(delete) => ("DELETE", delete.delete_token.0.span.start),
            SqlStatement::Merge(merge) => ("MERGE", merge.merge_token.0.span.start),
            _ => ("a statement", Location::empty()),
        };
        let hint = match verb {
            "INSERT" => "the WITH clause belongs to the source: INSERT INTO t WITH .. SELECT ..",
            _ => "a subquery holds the WITH clause: (WITH .. SELECT ..) AS s",
        };
        let error = no(&format!("{verb} after WITH or inside a query"), place);
        go(Err(error.with_hint(hint)))
    }
}

fn go(outcome: Result<()>) -> ControlFlow<Error> {
    match outcome {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn no(clause: &str, place: Location) -> Error {
    at(
        Error::unsupported(format!("{clause} is not supported")),
        place,
    )
}

/// Refuses the first clause of the list that is there.
fn refuse(place: Location, clauses: &[(bool, &str)]) -> Result<()> {
    match clauses.iter().find(|(there, _)| *there) {
        Some((_, clause)) => Err(no(clause, place)),
        None => Ok(()),
    }
}

/// Where a query begins. `Spanned::span` would walk all of it, on a stack of its own making, at each
/// query on the way down.
pub(super) fn query_place(query: &Query) -> Location {
    if let Some(with) = &query.with {
        return with.with_token.0.span.start;
    }
    let mut body = &query.body;
    loop {
        body = match body.as_ref() {
            SetExpr::Select(select) => return select.select_token.0.span.start,
            SetExpr::SetOperation { left, .. } => left,
            SetExpr::Query(query) => &query.body,
            _ => return Location::empty(),
        }
    }
}

fn factor_place(factor: &TableFactor) -> Location {
    match factor {
        TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => name.span().start,
        TableFactor::Derived { subquery, .. } => query_place(subquery),
        _ => Location::empty(),
    }
}

fn query(query: &Query) -> Result<()> {
    let Query {
        with,
        body,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    let place = query_place(query);
    for cte in with.iter().flat_map(|with| &with.cte_tables) {
        self::cte(cte)?;
    }
    self::body(body, place)?;
    if let Some(OrderBy { kind, interpolate }) = order_by {
        // Outside a SELECT the planner takes ORDER BY ALL for no order at all.
        let all = matches!(kind, OrderByKind::All(_)) && !matches!(**body, SetExpr::Select(_));
        let fill = match kind {
            OrderByKind::All(_) => false,
            OrderByKind::Expressions(exprs) => exprs.iter().any(|expr| expr.with_fill.is_some()),
        };
        refuse(
            place,
            &[
                (all, "ORDER BY ALL over a set operation"),
                (fill, "ORDER BY .. WITH FILL"),
                (interpolate.is_some(), "ORDER BY .. INTERPOLATE"),
            ],
        )?;
    }
    if let Some(LimitClause::LimitOffset { limit_by, .. }) = limit_clause {
        refuse(place, &[(!limit_by.is_empty(), "LIMIT .. BY")])?;
    }
    if let Some(fetch) = fetch {
        refuse(
            place,
            &[
                (fetch.with_ties, "FETCH .. WITH TIES"),
                (fetch.percent, "FETCH .. PERCENT"),
                (true, "FETCH beside LIMIT"),
            ],
        )?;
    }
    refuse(
        place,
        &[
            (!locks.is_empty(), "FOR UPDATE or FOR SHARE"),
            (for_clause.is_some(), "FOR XML or FOR JSON"),
            (settings.is_some(), "SETTINGS"),
            (format_clause.is_some(), "FORMAT"),
        ],
    )?;
    for operator in pipe_operators {
        match operator {
            PipeOperator::Join(join) => self::join(join)?,
            PipeOperator::TableSample { .. } => return Err(no("TABLESAMPLE", place)),
            _ => {}
        }
    }
    Ok(())
}

fn cte(cte: &Cte) -> Result<()> {
    let Cte {
        alias,
        query: _,
        from,
        materialized,
        closing_paren_token: _,
    } = cte;
    table_alias(Some(alias))?;
    refuse(
        alias.name.span.start,
        &[
            (from.is_some(), "FROM after a common table expression"),
            (materialized.is_some(), "MATERIALIZED or NOT MATERIALIZED"),
        ],
    )
}

fn body(body: &SetExpr, place: Location) -> Result<()> {
    match body {
        SetExpr::SetOperation {
            left,
            op: _,
            set_quantifier: _,
            right,
        } => {
            self::body(left, place)?;
            self::body(right, place)
        }
        SetExpr::Table(table) => {
            Err(no(&table.to_string(), place).with_hint("SELECT * FROM t reads a table"))
        }
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        // Refused when the statement inside is visited.
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => Ok(()),
    }
}

fn select(select: &Select) -> Result<()> {
    let Select {
        select_token,
        optimizer_hints,
        distinct: _,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection: _,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having: _,
        named_window,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor: _,
    } = select;
    let place = select_token.0.span.start;
    refuse(
        place,
        &[
            (!optimizer_hints.is_empty(), "an optimizer hint"),
            (select_modifiers.is_some(), "a modifier of SELECT"),
            (top.is_some(), "TOP"),
            (exclude.is_some(), "EXCLUDE after the select list"),
            (into.is_some(), "SELECT INTO"),
            (!lateral_views.is_empty(), "LATERAL VIEW"),
            (prewhere.is_some(), "PREWHERE"),
            (!connect_by.is_empty(), "CONNECT BY or START WITH"),
            (!cluster_by.is_empty(), "CLUSTER BY"),
            (!distribute_by.is_empty(), "DISTRIBUTE BY"),
            (!sort_by.is_empty(), "SORT BY"),
            (value_table_mode.is_some(), "SELECT AS STRUCT or AS VALUE"),
        ],
    )?;
    let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = group_by;
    if let Some(modifier) = modifiers.first() {
        let (clause, hint) = match modifier {
            GroupByWithModifier::Rollup => ("GROUP BY .. WITH ROLLUP", "use GROUP BY ROLLUP (..)"),
            GroupByWithModifier::Cube => ("GROUP BY .. WITH CUBE", "use GROUP BY CUBE (..)"),
            GroupByWithModifier::Totals => ("GROUP BY .. WITH TOTALS", "use GROUP BY ROLLUP (..)"),
            GroupByWithModifier::GroupingSets(_) => (
                "GROUP BY .. GROUPING SETS beside other columns",
                "name all columns inside GROUPING SETS (..)",
            ),
        };
        return Err(no(clause, place).with_hint(hint));
    }
    for definition in named_window {
        if let NamedWindowExpr::WindowSpec(spec) = &definition.1 {
            window_base(spec.window_name.as_ref())?;
        }
    }
    from.iter().try_for_each(joins)
}

pub(super) fn joins(tables: &TableWithJoins) -> Result<()> {
    tables.joins.iter().try_for_each(join)
}

fn join(join: &Join) -> Result<()> {
    let Join {
        relation,
        global,
        join_operator: _,
    } = join;
    refuse(factor_place(relation), &[(*global, "GLOBAL JOIN")])
}

fn table_factor(factor: &TableFactor, scopes: &Scopes) -> Result<()> {
    let place = factor_place(factor);
    let unplanned = match factor {
        TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            refuse(
                place,
                &[
                    (!with_hints.is_empty(), "WITH (hints) on a table"),
                    (*with_ordinality, "WITH ORDINALITY"),
                    (!partitions.is_empty(), "PARTITION (..) on a table"),
                    (json_path.is_some(), "a path into a table's value"),
                    (sample.is_some(), "TABLESAMPLE"),
                    (!index_hints.is_empty(), "an index hint"),
                ],
            )?;
            if let Some(args) = args {
                table_function(name, args, place, scopes)?;
            }
            if let Some(version) = version {
                versions::check(version, name, args.is_some(), scopes)?;
            }
            plain_name(name, place)?;
            return table_alias(alias.as_ref());
        }
        TableFactor::Derived {
            lateral: _,
            subquery: _,
            alias,
            sample,
        } => {
            table_alias(alias.as_ref())?;
            return sampled(sample.as_ref(), place);
        }
        TableFactor::Function {
            lateral: _,
            name,
            args: _,
            with_ordinality,
            alias,
        } => {
            refuse(
                place,
                &[
                    (*with_ordinality, "WITH ORDINALITY"),
                    (name.0.len() > 1, "a qualified name of a table function"),
                ],
            )?;
            plain_name(name, place)?;
            return table_alias(alias.as_ref());
        }
        TableFactor::UNNEST {
            alias,
            array_exprs: _,
            with_offset,
            with_offset_alias: _,
            with_ordinality,
        } => {
            table_alias(alias.as_ref())?;
            return refuse(
                place,
                &[
                    (*with_offset, "UNNEST .. WITH OFFSET"),
                    (*with_ordinality, "UNNEST .. WITH ORDINALITY"),
                ],
            );
        }
        TableFactor::NestedJoin {
            table_with_joins,
            alias,
        } => {
            joins(table_with_joins)?;
            return table_alias(alias.as_ref());
        }
        TableFactor::TableFunction { expr: _, alias: _ } => "TABLE (..) in FROM",
        TableFactor::JsonTable { columns, .. } => json_table(columns),
        TableFactor::OpenJsonTable { .. } => "OPENJSON",
        TableFactor::XmlTable { .. } => "XMLTABLE",
        TableFactor::Pivot { .. } => "PIVOT",
        TableFactor::Unpivot { .. } => "UNPIVOT",
        TableFactor::MatchRecognize { .. } => "MATCH_RECOGNIZE",
        TableFactor::SemanticView { .. } => "SEMANTIC_VIEW",
    };
    Err(no(unplanned, place))
}

fn json_table(_: &[JsonTableColumn]) -> &'static str {
    "JSON_TABLE"
}

fn table_function(
    name: &ObjectName,
    args: &TableFunctionArgs,
    place: Location,
    scopes: &Scopes,
) -> Result<()> {
    if changes::called(name, Some(args)) {
        changes::read(name, args)?;
    }
    if history::called(name, Some(args)) {
        let (table, _) = history::read(name, args)?;
        if scopes.names(&table) {
            let what = format!("HISTORY OF the common table expression {table}");
            return Err(no(&what, place).with_hint("it follows a journal table of the lake"));
        }
    }
    let TableFunctionArgs { args: _, settings } = args;
    refuse(
        place,
        &[(settings.is_some(), "SETTINGS of a table function")],
    )
}

fn sampled(sample: Option<&TableSampleKind>, place: Location) -> Result<()> {
    refuse(place, &[(sample.is_some(), "TABLESAMPLE")])
}

fn plain_name(name: &ObjectName, place: Location) -> Result<()> {
    let computed = name
        .0
        .iter()
        .any(|part| matches!(part, ObjectNamePart::Function(_)));
    refuse(place, &[(computed, "a computed name")])
}

fn table_alias(alias: Option<&TableAlias>) -> Result<()> {
    let Some(TableAlias {
        explicit: _,
        name,
        columns,
        at,
    }) = alias
    else {
        return Ok(());
    };
    let typed = columns
        .iter()
        .any(|TableAliasColumnDef { name: _, data_type }| data_type.is_some());
    refuse(
        name.span.start,
        &[
            (typed, "a type in a list of column aliases"),
            (at.is_some(), "AT after an alias"),
        ],
    )
}

fn expression(expr: &Expr) -> Result<()> {
    let Expr::Function(Function {
        name,
        uses_odbc_syntax: _,
        parameters,
        args,
        filter: _,
        null_treatment: _,
        over,
        within_group: _,
    }) = expr
    else {
        return Ok(());
    };
    let place = name.span().start;
    plain_name(name, place)?;
    refuse(
        place,
        &[
            (
                *parameters != FunctionArguments::None,
                "a second list of arguments of a function",
            ),
            (
                matches!(args, FunctionArguments::Subquery(_)),
                "a query as the argument of a function, without its own parentheses,",
            ),
        ],
    )?;
    match over {
        Some(WindowType::WindowSpec(spec)) => window_base(spec.window_name.as_ref()),
        Some(WindowType::NamedWindow(_)) | None => Ok(()),
    }
}

/// `OVER (w ORDER BY x)`: the planner would forget the partitions and the order of `w`.
fn window_base(base: Option<&Ident>) -> Result<()> {
    match base {
        Some(base) => Err(no("a window built on a named one", base.span.start)
            .with_hint("write out its PARTITION BY and ORDER BY")),
        None => Ok(()),
    }
}

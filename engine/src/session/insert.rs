//! INSERT: a source of rows, brought into the order of the table's columns, and handed to the table.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{
    DmlStatement, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, WriteOp,
};
use datafusion::sql::sqlparser::ast::{self, Ident, SetExpr};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::change::{self, ChangeRows};
use super::scope::{Opened, Scope};
use super::zone;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::shape::Shape;
use crate::sql::{self, Insert, InsertMode, InsertSource};
use crate::table::schema;
use crate::table::versioned::VersionedTable;
use crate::write::target::JournalMode;

/// How the columns of a source find those of the table.
pub(super) enum Assignment {
    /// By position, to these columns; to all of them when none are named.
    Positions(Vec<String>),
    /// By name.
    Names,
}

/// Plans an INSERT statement.
pub(super) async fn plan(scope: &Arc<Scope>, insert: Insert) -> Result<LogicalPlan> {
    plan_over(scope, insert, Ok).await
}

/// Plans an INSERT statement whose source `rewrite` changes once its defaults are filled in.
pub(super) async fn plan_over(
    scope: &Arc<Scope>,
    insert: Insert,
    rewrite: impl FnOnce(ast::Query) -> Result<ast::Query>,
) -> Result<LogicalPlan> {
    let opened = scope.open(&insert.table).await?;
    let journaled = match opened.shape()? {
        Some(shape) => Some(journaled(&shape, &insert, &opened)?),
        None if insert.snapshots => return Err(not_a_journal(&opened, "AS SNAPSHOTS")),
        None => None,
    };
    let columns: Vec<String> = insert.columns.iter().map(sql::fold).collect();
    let source = match insert.source {
        InsertSource::Query(query) => {
            let mut query = rewrite(with_defaults(*query, &opened, &columns)?)?;
            if !insert.by_name {
                name_columns(&mut query.body);
            }
            scope.plan_query(query).await?
        }
        // No column is named by the source, so each gets its default.
        InsertSource::DefaultValues => LogicalPlanBuilder::empty(true).build()?,
    };
    let assignment = match (insert.by_name, source.schema().fields().is_empty()) {
        (true, _) | (_, true) => Assignment::Names,
        (false, false) => Assignment::Positions(columns),
    };
    if let Some((op, mode)) = journaled {
        let table = scope.writable(&opened, "WRITE")?.journaling(mode, false);
        return fill(scope, &opened, table, source, &assignment, op);
    }
    if let Some(condition) = insert.replace {
        let table = opened.rows()?;
        let name = TableReference::partial(opened.schema.as_str(), opened.table.as_str());
        let source = arrange(scope, &name, &table, source, &assignment)?;
        return change::replace(scope, &insert.table, source, condition).await;
    }
    let op = op(insert.mode, &opened)?;
    into(scope, &opened, source, &assignment, op)
}

fn op(mode: InsertMode, opened: &Opened) -> Result<InsertOp> {
    let partitioned = !opened.snapshot.partition_columns().is_empty();
    let dynamic = opened.snapshot.property(super::properties::OVERWRITE) == Some("partitions");
    match mode {
        InsertMode::Append => Ok(InsertOp::Append),
        InsertMode::Overwrite if dynamic && partitioned => Ok(InsertOp::Replace),
        InsertMode::Overwrite => Ok(InsertOp::Overwrite),
        InsertMode::OverwritePartitions if partitioned => Ok(InsertOp::Replace),
        InsertMode::OverwritePartitions => Err(Error::invalid(format!(
            "table {} is not partitioned, so it has no partitions to overwrite",
            opened.name
        ))
        .with_hint("INSERT OVERWRITE replaces all of its rows")),
    }
}

/// What the rows of an INSERT are to a journal.
fn journaled(shape: &Shape, insert: &Insert, opened: &Opened) -> Result<(InsertOp, JournalMode)> {
    let table = &opened.name;
    let refused = |what: &str| {
        let error = Error::unsupported(format!(
            "{what} of table {table}: it is a journal table, whose history is not replaced"
        ));
        error.with_hint("INSERT OVERWRITE gives a full snapshot: keys missing in it are closed")
    };
    if insert.replace.is_some() {
        return Err(refused("INSERT .. REPLACE WHERE"));
    }
    let by_partition = opened.snapshot.property(super::properties::OVERWRITE);
    let overwrites = match insert.mode {
        InsertMode::Append => false,
        InsertMode::Overwrite if by_partition == Some("partitions") => {
            return Err(refused(
                "INSERT OVERWRITE by partitions, as its property says,",
            ));
        }
        InsertMode::Overwrite => true,
        InsertMode::OverwritePartitions => return Err(refused("INSERT OVERWRITE PARTITIONS")),
    };
    match (insert.snapshots, overwrites) {
        (false, false) => Ok((InsertOp::Append, JournalMode::Changes)),
        (false, true) => Ok((InsertOp::Overwrite, JournalMode::Changes)),
        (true, false) if shape.sequence.is_some() => Ok((InsertOp::Append, JournalMode::Snapshots)),
        (true, false) => Err(Error::invalid(format!(
            "AS SNAPSHOTS of table {table}: it has no SEQUENCE BY, so nothing tells its snapshots apart"
        ))
        .with_hint(format!("INSERT OVERWRITE {table} gives one snapshot at a time"))),
        (true, true) => Err(Error::invalid(format!(
            "INSERT OVERWRITE {table} AS SNAPSHOTS: OVERWRITE is one snapshot, AS SNAPSHOTS several"
        ))
        .with_hint(format!("write INSERT INTO {table} AS SNAPSHOTS"))),
    }
}

fn not_a_journal(opened: &Opened, what: &str) -> Error {
    Error::invalid(format!(
        "{what} of table {}: it is not a journal table",
        opened.name
    ))
    .with_hint("CREATE TABLE .. JOURNAL KEYS (..) makes one")
}

/// The write of changes that a statement has made out itself. `input` has the declared columns, and behind them what
/// becomes of each row: whether its key ends, and perhaps which columns it says nothing of. `moves`: some of them are keys
/// that rows leave, or get.
pub(super) fn change_rows(
    scope: &Arc<Scope>,
    opened: &Opened,
    input: LogicalPlan,
    operation: &'static str,
    mode: JournalMode,
    moves: bool,
) -> Result<LogicalPlan> {
    let table = scope.writable(opened, operation)?;
    let mut table = table.journaling(mode, moves);
    if table.shape().is_none() {
        return Err(not_a_journal(opened, operation));
    }
    if change::reads(&input, &opened.handle.root)? {
        table = table.reading_itself();
    }
    let zone = scope.zone()?;
    let input = zone::assign(input, &opened.columns(), zone.as_ref())?;
    Ok(ChangeRows::plan("JournalChanges", table, input))
}

/// The write of `source` into an open table.
pub(super) fn into(
    scope: &Arc<Scope>,
    opened: &Opened,
    source: LogicalPlan,
    assignment: &Assignment,
    op: InsertOp,
) -> Result<LogicalPlan> {
    let table = scope.writable(opened, "WRITE")?;
    fill(scope, opened, table, source, assignment, op)
}

fn fill(
    scope: &Arc<Scope>,
    opened: &Opened,
    mut table: VersionedTable,
    source: LogicalPlan,
    assignment: &Assignment,
    op: InsertOp,
) -> Result<LogicalPlan> {
    if change::reads(&source, &opened.handle.root)? {
        table = table.reading_itself();
    }
    let name = TableReference::partial(opened.schema.as_str(), opened.table.as_str());
    write(scope, name, table, source, assignment, op)
}

/// The write of `source` into any table of ours, through the table itself.
pub(super) fn write(
    scope: &Arc<Scope>,
    name: TableReference,
    table: VersionedTable,
    source: LogicalPlan,
    assignment: &Assignment,
    op: InsertOp,
) -> Result<LogicalPlan> {
    let input = arrange(scope, &name, &table, source, assignment)?;
    let target = provider_as_source(Arc::new(table));
    let op = WriteOp::Insert(op);
    Ok(LogicalPlan::Dml(DmlStatement::new(
        name,
        target,
        op,
        Arc::new(input),
    )))
}

/// Projects `source` to the table's columns in order: assigned, default or NULL.
fn arrange(
    scope: &Arc<Scope>,
    name: &TableReference,
    table: &VersionedTable,
    source: LogicalPlan,
    assignment: &Assignment,
) -> Result<LogicalPlan> {
    let target = table.schema();
    let names: Vec<&str> = target
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let find = |wanted: &str| {
        names
            .iter()
            .position(|name| *name == wanted)
            .ok_or_else(|| {
                let missing = Error::new(
                    ErrorKind::NotFound,
                    format!("table {name} has no column {wanted}"),
                );
                match sql::nearest(wanted, names.iter().copied()) {
                    Some(near) => missing.with_hint(format!("did you mean {near}?")),
                    None => missing.with_hint(format!("its columns are {}", names.join(", "))),
                }
            })
    };
    let given: Vec<Expr> = source
        .schema()
        .iter()
        .map(|(qualifier, field)| Expr::Column(Column::new(qualifier.cloned(), field.name())))
        .collect();
    let places: Vec<usize> = match assignment {
        Assignment::Names => source
            .schema()
            .fields()
            .iter()
            .map(|field| match find(field.name()) {
                Ok(place) => Ok(place),
                // Names that differ in case alone cannot both be columns of a Delta table.
                Err(missing) => names
                    .iter()
                    .position(|name| name.eq_ignore_ascii_case(field.name()))
                    .ok_or(missing),
            })
            .collect::<Result<_>>()?,
        Assignment::Positions(columns) if columns.is_empty() => (0..names.len()).collect(),
        Assignment::Positions(columns) => columns
            .iter()
            .map(|column| find(column))
            .collect::<Result<_>>()?,
    };
    if places.len() != given.len() {
        return Err(Error::invalid(format!(
            "table {name} takes {} columns here, but {} are given",
            places.len(),
            given.len()
        ))
        .with_hint(
            "name the columns: INSERT INTO table (column, ..), or INSERT INTO table BY NAME",
        ));
    }
    let mut assigned: HashMap<usize, Expr> = HashMap::with_capacity(places.len());
    for (place, expr) in places.into_iter().zip(given) {
        if assigned.insert(place, expr).is_some() {
            return Err(Error::invalid(format!(
                "column {} of table {name} is given twice",
                names[place]
            )));
        }
    }
    let state = scope.state();
    let zone = scope.zone()?;
    let mut columns = Vec::with_capacity(names.len());
    for (place, field) in target.fields().iter().enumerate() {
        let expr = match (assigned.remove(&place), schema::column_default(field)) {
            (Some(expr), _) => expr,
            (None, None) if must_be_given(table, place) => {
                return Err(Error::invalid(format!(
                    "INSERT INTO journal table {name} leaves out column {}: a change is a whole row",
                    field.name()
                ))
                .with_hint(format!(
                    "give it, or make the table with IGNORE NULL UPDATES ON ({}), where NULL keeps the old value",
                    sql::quoted(field.name())
                )));
            }
            (None, Some(text)) => state.create_logical_expr(text, &DFSchema::empty())?,
            (None, None) if field.is_nullable() => {
                Expr::Literal(ScalarValue::try_from(field.data_type())?, None)
            }
            (None, None) => {
                return Err(Error::rejected(format!(
                    "column {} of table {name} is NOT NULL, has no default, and is not given",
                    field.name()
                )));
            }
        };
        let given = expr.get_type(source.schema())?;
        let expr = zone::assigned(expr, &given, field.data_type(), zone.as_ref());
        columns.push(expr.alias(field.name()));
    }
    Ok(LogicalPlanBuilder::from(source).project(columns)?.build()?)
}

/// Whether a change would say NULL of a column only because nobody spoke of it. NULL of keys and NOT NULL columns is
/// refused for what it is.
fn must_be_given(table: &VersionedTable, column: usize) -> bool {
    table.shape().is_some_and(|shape| {
        shape.declared.field(column).is_nullable()
            && !shape.keeps_null.get(column).is_some_and(|keeps| *keeps)
    })
}

/// Puts the columns' defaults where VALUES says DEFAULT, and types text where other rows of its column are typed:
/// the planner wants one type per column, people write `DATE '2026-01-01'` in one row and `'2026-01-02'` in the next.
fn with_defaults(mut query: ast::Query, opened: &Opened, columns: &[String]) -> Result<ast::Query> {
    let SetExpr::Values(values) = query.body.as_mut() else {
        return Ok(query);
    };
    let fields = opened.columns().fields().clone();
    let width = values
        .rows
        .iter()
        .map(|row| row.content.len())
        .max()
        .unwrap_or(0);
    for position in 0..width {
        let field = match columns.get(position) {
            Some(column) => fields.iter().find(|field| field.name() == column),
            None if columns.is_empty() => fields.get(position),
            None => None,
        };
        let mut cells: Vec<&mut ast::Expr> = values
            .rows
            .iter_mut()
            .filter_map(|row| row.content.get_mut(position))
            .collect();
        for cell in cells.iter_mut().filter(|cell| is_default(cell)) {
            **cell = match field.and_then(|field| schema::column_default(field)) {
                Some(text) => sql::parse_expr(text)?,
                None => ast::Expr::Value(ast::Value::Null.into()),
            };
        }
        let Some(data_type) = field.map(|field| field.data_type()) else {
            continue;
        };
        let text = cells.iter().filter(|cell| is_text(cell)).count();
        let null = cells.iter().filter(|cell| is_null(cell)).count();
        if text > 0 && text + null < cells.len() {
            for cell in &mut cells {
                untangle(cell, data_type);
            }
        }
        // One float among decimals would make all of them decimals.
        let floats = |cell: &&mut ast::Expr| {
            matches!(
                cell,
                ast::Expr::Cast {
                    data_type: ast::DataType::Double(_),
                    ..
                }
            ) || number(cell).is_some_and(has_exponent)
        };
        if data_type.is_floating() && cells.iter().any(floats) {
            for cell in &mut cells {
                if number(cell).is_some() {
                    **cell = cast_to(
                        (**cell).clone(),
                        ast::DataType::Double(ast::ExactNumberInfo::None),
                    );
                }
            }
        }
        // Nor may it make floats of what goes to decimals.
        let exact = |cell: &&mut ast::Expr| {
            number(cell).is_some_and(|digits| digits.contains('.') && !has_exponent(digits))
        };
        if data_type.is_decimal() && cells.iter().any(floats) && cells.iter().any(exact) {
            for cell in &mut cells {
                if number(cell).is_some_and(has_exponent) {
                    **cell = cast_to(
                        (**cell).clone(),
                        ast::DataType::Decimal(ast::ExactNumberInfo::PrecisionAndScale(30, 15)),
                    );
                }
            }
        }
    }
    Ok(query)
}

/// Names the columns of a source that go by position, so that two of them may be the same expression.
fn name_columns(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) if select.distinct.is_none() => {
            for (index, item) in select.projection.iter_mut().enumerate() {
                if let ast::SelectItem::UnnamedExpr(expr) = item
                    && !matches!(
                        expr,
                        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_)
                    )
                {
                    // No name that a relation below gives its columns, as VALUES gives column1.
                    let alias = Ident::with_quote('"', format!("expression {}", index + 1));
                    *item = ast::SelectItem::ExprWithAlias {
                        expr: expr.clone(),
                        alias,
                    };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_columns(left);
            name_columns(right);
        }
        SetExpr::Query(query) => name_columns(&mut query.body),
        _ => {}
    }
}

fn is_text(cell: &ast::Expr) -> bool {
    matches!(
        cell,
        ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::SingleQuotedString(_),
            ..
        })
    )
}

fn is_null(cell: &ast::Expr) -> bool {
    matches!(
        cell,
        ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::Null,
            ..
        })
    )
}

/// Gives a cell of a column of text and other things a type that leaves its value alone: text stays text in a column
/// of text and so do the digits of numbers; elsewhere text becomes what the column holds, whole or not at all.
fn untangle(cell: &mut ast::Expr, data_type: &DataType) {
    let textual = matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    if textual {
        let sign = match cell {
            ast::Expr::UnaryOp {
                op: ast::UnaryOperator::Minus,
                ..
            } => "-",
            _ => "",
        };
        let shown = match (number(cell), &*cell) {
            (Some(digits), _) => Some(format!("{sign}{digits}")),
            (
                None,
                ast::Expr::Value(ast::ValueWithSpan {
                    value: ast::Value::Boolean(value),
                    ..
                }),
            ) => Some(value.to_string()),
            _ => None,
        };
        *cell = match shown {
            Some(text) => ast::Expr::Value(ast::Value::SingleQuotedString(text).into()),
            None if is_text(cell) || is_null(cell) => return,
            None => cast_to(cell.clone(), ast::DataType::Text),
        };
        return;
    }
    let ast::Expr::Value(ast::ValueWithSpan {
        value: ast::Value::SingleQuotedString(text),
        span,
    }) = cell
    else {
        return;
    };
    let typed = match data_type {
        DataType::Boolean => ast::DataType::Boolean,
        DataType::Date32 => ast::DataType::Date,
        DataType::Timestamp(_, None) => ast::DataType::Timestamp(None, ast::TimezoneInfo::None),
        DataType::Timestamp(_, Some(_)) => {
            ast::DataType::Timestamp(None, ast::TimezoneInfo::WithTimeZone)
        }
        numeric if numeric.is_numeric() => match plain_number(text.trim(), *span) {
            Some(value) => {
                *cell = value;
                return;
            }
            // `NaN`, `1e5`, or no number at all, which the cast says.
            None => ast::DataType::Double(ast::ExactNumberInfo::None),
        },
        _ => return,
    };
    *cell = cast_to(cell.clone(), typed);
}

/// Digits with at most one point, as the number they are.
fn plain_number(digits: &str, span: Span) -> Option<ast::Expr> {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    let plain = unsigned.starts_with(|c: char| c.is_ascii_digit())
        && unsigned.chars().all(|c| c.is_ascii_digit() || c == '.')
        && unsigned.matches('.').count() <= 1;
    if !plain {
        return None;
    }
    let value = ast::Value::Number(unsigned.to_owned(), false);
    let value = ast::Expr::Value(ast::ValueWithSpan { value, span });
    Some(match digits.starts_with('-') {
        true => ast::Expr::UnaryOp {
            op: ast::UnaryOperator::Minus,
            expr: Box::new(value),
        },
        false => value,
    })
}

fn cast_to(expr: ast::Expr, data_type: ast::DataType) -> ast::Expr {
    ast::Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// The digits of a number, with or without a sign.
fn number(cell: &ast::Expr) -> Option<&str> {
    match cell {
        ast::Expr::Value(ast::ValueWithSpan {
            value: ast::Value::Number(digits, _),
            ..
        }) => Some(digits),
        ast::Expr::UnaryOp {
            op: ast::UnaryOperator::Minus | ast::UnaryOperator::Plus,
            expr,
        } => number(expr),
        _ => None,
    }
}

fn has_exponent(digits: &str) -> bool {
    digits.contains(['e', 'E'])
}

fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(Ident { value, quote_style: None, .. }) if value.eq_ignore_ascii_case("default"))
}

/// Types of the parameters that stand alone in a VALUES row, told by the columns they go to.
pub(super) fn parameter_types(insert: &Insert, opened: &Opened) -> HashMap<String, DataType> {
    let mut types = HashMap::new();
    let InsertSource::Query(query) = &insert.source else {
        return types;
    };
    let SetExpr::Values(values) = query.body.as_ref() else {
        return types;
    };
    let columns: Vec<String> = insert.columns.iter().map(sql::fold).collect();
    let fields = opened.columns().fields().clone();
    for row in &values.rows {
        for (position, cell) in row.iter().enumerate() {
            let ast::Expr::Value(ast::ValueWithSpan {
                value: ast::Value::Placeholder(name),
                ..
            }) = cell
            else {
                continue;
            };
            let field = match columns.get(position) {
                Some(column) => fields.iter().find(|field| field.name() == column),
                None => fields.get(position),
            };
            if let Some(field) = field {
                types
                    .entry(name.clone())
                    .or_insert_with(|| field.data_type().clone());
            }
        }
    }
    types
}

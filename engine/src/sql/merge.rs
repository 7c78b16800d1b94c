//! `MERGE INTO`.

use datafusion::sql::sqlparser::ast::TableFactor;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::dml::{assignments, refuse_modifiers, refuse_rest, row_expr, value};
use super::reader::Reader;
use super::statement::{Merge, MergeAction, MergeClause, MergeWhen, Statement};
use super::target::{Target, distinct};
use crate::error::{Error, Result};

/// `MERGE INTO t [[AS] alias] USING source ON condition WHEN .. THEN .. [WHEN .. THEN ..]..`
pub(super) fn merge(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["MERGE"])?;
    if reader.sees(&["WITH", "SCHEMA", "EVOLUTION"]) {
        return Err(reader.unsupported("MERGE WITH SCHEMA EVOLUTION").with_hint(
            "ALTER TABLE t ADD COLUMN .. adds the columns that the source has and t lacks",
        ));
    }
    refuse_modifiers(reader, "MERGE")?;
    if !reader.take(&["INTO"]) {
        return Err(reader
            .expected("INTO")
            .with_hint("MERGE INTO t USING source ON condition WHEN .. THEN .."));
    }
    let target = Target::read(reader)?;
    reader.expect(&["USING"])?;
    let source = source(reader)?;
    reader.expect(&["ON"])?;
    let on = row_expr(reader, "the ON condition of MERGE")?;
    let mut clauses: Vec<MergeClause> = Vec::new();
    // Kinds of which a clause takes all rows that are left.
    let mut taken: Vec<MergeWhen> = Vec::new();
    // At least one: a MERGE without any would do nothing.
    while clauses.is_empty() || reader.sees(&["WHEN"]) {
        let place = reader.position();
        let clause = clause(reader, &target)?;
        if taken.contains(&clause.when) {
            let name = clause.when.name();
            let error = Error::invalid(format!(
                "this {name} is never reached: one before it takes all rows"
            ))
            .with_hint(format!(
                "give the ones before it a condition: {name} AND .. THEN .."
            ));
            return Err(error.with_position(place));
        }
        if clause.condition.is_none() {
            taken.push(clause.when);
        }
        clauses.push(clause);
    }
    refuse_rest(reader, "MERGE")?;
    Ok(Statement::Merge(Merge {
        table: target.table,
        alias: target.alias,
        source,
        on,
        clauses,
    }))
}

fn source(reader: &mut Reader<'_>) -> Result<TableFactor> {
    let place = reader.position();
    let source = reader.parse(Parser::parse_table_factor)?;
    let refused = match &source {
        TableFactor::Derived {
            lateral: false,
            alias: None,
            ..
        } => Err(
            Error::invalid("a subquery as the source of MERGE needs an alias")
                .with_hint("USING (SELECT ..) AS s"),
        ),
        TableFactor::Derived { lateral: true, .. }
        | TableFactor::Function { lateral: true, .. } => Err(Error::unsupported(
            "LATERAL in the source of MERGE is not supported",
        )),
        TableFactor::NestedJoin { .. } => Err(several()),
        // What is no table is refused where every statement's relations are.
        _ => Ok(()),
    };
    refused.map_err(|error| error.with_position(place))?;
    const MORE: [&str; 7] = ["JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL"];
    if reader.sees_symbol(0, &Token::Comma) || MORE.iter().any(|word| reader.sees(&[word])) {
        return Err(several().with_position(reader.position()));
    }
    Ok(source)
}

fn several() -> Error {
    Error::unsupported("a join as the source of MERGE is not supported")
        .with_hint("make it a subquery: USING (SELECT .. FROM a JOIN b ..) AS s")
}

/// `WHEN {MATCHED | NOT MATCHED [BY {TARGET | SOURCE}]} [AND condition] THEN action`
fn clause(reader: &mut Reader<'_>, target: &Target) -> Result<MergeClause> {
    reader.expect(&["WHEN"])?;
    let when = when(reader)?;
    let condition = if reader.take(&["AND"]) {
        Some(row_expr(reader, "a condition of MERGE")?)
    } else {
        None
    };
    reader.expect(&["THEN"])?;
    let action = action(reader, when, target)?;
    if reader.sees(&["WHERE"]) || reader.sees(&["DELETE", "WHERE"]) {
        return Err(reader
            .unsupported("WHERE after an action of MERGE")
            .with_hint(format!("{} AND condition THEN ..", when.name())));
    }
    Ok(MergeClause {
        when,
        condition,
        action,
    })
}

fn when(reader: &mut Reader<'_>) -> Result<MergeWhen> {
    if reader.take(&["MATCHED"]) {
        return Ok(MergeWhen::Matched);
    }
    if !reader.take(&["NOT", "MATCHED"]) {
        return Err(reader.expected("MATCHED or NOT MATCHED"));
    }
    if reader.take(&["BY", "SOURCE"]) {
        return Ok(MergeWhen::NotMatchedBySource);
    }
    if !reader.take(&["BY", "TARGET"]) && reader.sees(&["BY"]) {
        return Err(reader.expected("BY TARGET or BY SOURCE"));
    }
    Ok(MergeWhen::NotMatched)
}

impl MergeWhen {
    fn name(self) -> &'static str {
        match self {
            Self::Matched => "WHEN MATCHED",
            Self::NotMatched => "WHEN NOT MATCHED",
            Self::NotMatchedBySource => "WHEN NOT MATCHED BY SOURCE",
        }
    }
}

fn action(reader: &mut Reader<'_>, when: MergeWhen, target: &Target) -> Result<MergeAction> {
    const THEIRS: &str = "WHEN NOT MATCHED THEN INSERT .. is for rows that the table lacks";
    const OURS: &str =
        "WHEN MATCHED and WHEN NOT MATCHED BY SOURCE are for rows that the table has";
    let place = reader.position();
    let wrong = |why: &str, hint: &str| {
        let error = Error::invalid(format!("{} {why}", when.name())).with_hint(hint);
        Err(error.with_position(place))
    };
    if reader.sees(&["DO", "NOTHING"]) {
        return Err(reader
            .unsupported("DO NOTHING")
            .with_hint("rows that no WHEN clause takes stay as they are"));
    }
    if reader.take(&["INSERT"]) {
        return match when {
            MergeWhen::NotMatched => insert(reader, target),
            MergeWhen::Matched => wrong("has a row of the table already: it cannot INSERT", THEIRS),
            MergeWhen::NotMatchedBySource => wrong("has no row of the source to INSERT", THEIRS),
        };
    }
    if reader.take(&["UPDATE"]) {
        if when == MergeWhen::NotMatched {
            return wrong("has no row of the table to UPDATE", OURS);
        }
        reader.expect(&["SET"])?;
        if !reader.take_symbol(&Token::Mul) {
            return assignments(reader, target).map(MergeAction::Update);
        }
        refuse_exceptions(reader)?;
        return match when {
            MergeWhen::NotMatchedBySource => wrong(
                "has no row of the source for SET *",
                "name columns and values: UPDATE SET column = value",
            ),
            _ => Ok(MergeAction::UpdateAll),
        };
    }
    if reader.take(&["DELETE"]) {
        return match when {
            MergeWhen::NotMatched => wrong("has no row of the table to DELETE", OURS),
            _ => Ok(MergeAction::Delete),
        };
    }
    Err(reader.expected(match when {
        MergeWhen::NotMatched => "INSERT",
        MergeWhen::Matched | MergeWhen::NotMatchedBySource => "UPDATE SET or DELETE",
    }))
}

/// `INSERT *`, `INSERT [(columns)] VALUES (values)`
fn insert(reader: &mut Reader<'_>, target: &Target) -> Result<MergeAction> {
    if reader.take_symbol(&Token::Mul) {
        refuse_exceptions(reader)?;
        return Ok(MergeAction::InsertAll);
    }
    if reader.sees(&["ROW"]) {
        return Err(reader
            .unsupported("INSERT ROW")
            .with_hint("INSERT * takes each column from the source's of its name"));
    }
    if reader.sees(&["DEFAULT", "VALUES"]) {
        return Err(reader
            .unsupported("INSERT DEFAULT VALUES in MERGE")
            .with_hint("INSERT (column) VALUES (DEFAULT)"));
    }
    let columns = if reader.sees_symbol(0, &Token::LParen) {
        distinct(reader, |reader| target.column(reader))?
    } else {
        vec![]
    };
    reader.expect(&["VALUES"])?;
    let place = reader.position();
    let values = reader.list(|reader| value(reader, "a value of INSERT"))?;
    if !columns.is_empty() && columns.len() != values.len() {
        let error = Error::invalid(format!(
            "INSERT names {} columns, but {} values are given",
            columns.len(),
            values.len()
        ));
        return Err(error.with_position(place));
    }
    if reader.sees_symbol(0, &Token::Comma) {
        return Err(reader
            .unsupported("more than one row of VALUES in MERGE")
            .with_hint("each row of the source makes one row"));
    }
    Ok(MergeAction::Insert { columns, values })
}

fn refuse_exceptions(reader: &Reader<'_>) -> Result<()> {
    for word in ["EXCEPT", "EXCLUDE"] {
        if reader.sees(&[word]) {
            return Err(reader
                .unsupported(&format!("* {word}"))
                .with_hint("name the columns that are to be written"));
        }
    }
    Ok(())
}

//! `UPDATE`, `DELETE` and `TRUNCATE`.

use datafusion::sql::sqlparser::ast::{Expr, TableWithJoins};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::reader::Reader;
use super::statement::{Assignment, Delete, Statement, Update};
use super::target::{self, Columns, Target};
use super::{confine, refuse};
use crate::error::Result;

/// `UPDATE t [[AS] alias] SET column = value, .. [FROM tables] [WHERE predicate]`
pub(super) fn update(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["UPDATE"])?;
    refuse_modifiers(reader, "UPDATE")?;
    let target = Target::read(reader)?;
    if joined(reader) {
        return Err(reader
            .unsupported("UPDATE of a join")
            .with_hint("UPDATE t SET .. FROM u WHERE .. takes rows of other tables"));
    }
    reader.expect(&["SET"])?;
    let assignments = assignments(reader, &target)?;
    refuse_rest(reader, "UPDATE")?;
    let from = if reader.take(&["FROM"]) {
        relations(reader)?
    } else {
        vec![]
    };
    let predicate = predicate(reader, "UPDATE")?;
    Ok(Statement::Update(Update {
        table: target.table,
        alias: target.alias,
        assignments,
        from,
        predicate,
    }))
}

/// `DELETE FROM t [[AS] alias] [USING tables] [WHERE predicate]`
pub(super) fn delete(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["DELETE"])?;
    refuse_modifiers(reader, "DELETE")?;
    if !reader.take(&["FROM"]) {
        return Err(reader
            .expected("FROM")
            .with_hint("DELETE FROM t WHERE .. deletes rows of t"));
    }
    let target = Target::read(reader)?;
    if joined(reader) {
        return Err(reader
            .unsupported("DELETE from a join")
            .with_hint("DELETE FROM t USING u WHERE .. looks at rows of other tables"));
    }
    let using = if reader.take(&["USING"]) {
        relations(reader)?
    } else {
        vec![]
    };
    let predicate = predicate(reader, "DELETE")?;
    Ok(Statement::Delete(Delete {
        table: target.table,
        alias: target.alias,
        using,
        predicate,
    }))
}

/// `TRUNCATE [TABLE] t`
pub(super) fn truncate(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["TRUNCATE"])?;
    let table = target::whole_table(reader)?;
    target::refuse_clauses(reader)?;
    for foreign in ["CASCADE", "RESTRICT", "RESTART", "CONTINUE"] {
        if reader.sees(&[foreign]) {
            return Err(reader
                .unsupported(&format!("TRUNCATE .. {foreign}"))
                .with_hint("TRUNCATE TABLE t deletes all rows of t, and no others"));
        }
    }
    if reader.sees_symbol(0, &Token::Comma) {
        return Err(reader
            .unsupported("TRUNCATE of several tables")
            .with_hint("truncate them one at a time"));
    }
    Ok(Statement::Truncate { table })
}

/// `column = value, ..`, no column twice.
pub(super) fn assignments(reader: &mut Reader<'_>, target: &Target) -> Result<Vec<Assignment>> {
    let mut assignments = Vec::new();
    let mut seen = Columns::default();
    loop {
        if reader.sees_symbol(0, &Token::LParen) {
            return Err(reader
                .unsupported("assignment to a list of columns")
                .with_hint("assign them one by one: SET a = .., b = .."));
        }
        let place = reader.position();
        let column = target.column(reader)?;
        seen.add(&column, "assigned", place)?;
        reader.expect_symbol(&Token::Eq)?;
        let value = value(reader, "a value of SET")?;
        assignments.push(Assignment { column, value });
        if !reader.take_symbol(&Token::Comma) {
            return Ok(assignments);
        }
    }
}

/// A value for one column; None for DEFAULT.
pub(super) fn value(reader: &mut Reader<'_>, what: &str) -> Result<Option<Expr>> {
    if reader.take(&["DEFAULT"]) {
        return Ok(None);
    }
    row_expr(reader, what).map(Some)
}

/// An expression that is evaluated for each row that a statement looks at.
pub(super) fn row_expr(reader: &mut Reader<'_>, what: &str) -> Result<Expr> {
    let expr = reader.expr()?;
    confine::per_row(&expr, what)?;
    Ok(expr)
}

/// Tables beside the target, listed or joined.
fn relations(reader: &mut Reader<'_>) -> Result<Vec<TableWithJoins>> {
    let relations =
        reader.parse(|parser| parser.parse_comma_separated(Parser::parse_table_and_joins))?;
    relations.iter().try_for_each(refuse::joins)?;
    Ok(relations)
}

/// `[WHERE predicate]`, where nothing else may stand.
fn predicate(reader: &mut Reader<'_>, verb: &str) -> Result<Option<Expr>> {
    refuse_rest(reader, verb)?;
    if !reader.take(&["WHERE"]) {
        return Ok(None);
    }
    if reader.sees(&["CURRENT", "OF"]) {
        return Err(reader
            .unsupported("WHERE CURRENT OF")
            .with_hint("there are no cursors: name the rows by their values"));
    }
    let predicate = row_expr(reader, &format!("the predicate of {verb}"))?;
    refuse_rest(reader, verb)?;
    Ok(Some(predicate))
}

/// Words of other systems between the verb and the table.
pub(super) fn refuse_modifiers(reader: &Reader<'_>, verb: &str) -> Result<()> {
    for modifier in ["OR", "TOP", "IGNORE", "LOW_PRIORITY", "QUICK"] {
        if target::before_name(reader, modifier) || reader.sees(&[modifier, "FROM"]) {
            return Err(reader
                .unsupported(&format!("{verb} {modifier}"))
                .with_hint("leave it out: a write changes all the rows that it names, or none"));
        }
    }
    Ok(())
}

/// Clauses of other systems after those that we read.
pub(super) fn refuse_rest(reader: &Reader<'_>, verb: &str) -> Result<()> {
    const ANSWER: &str = "a write answers with its counts; SELECT the rows first";
    const CHOICE: &str = "choose the rows in WHERE: key IN (SELECT key FROM t ORDER BY .. LIMIT n)";
    let clauses: [(&[&str], &str); 6] = [
        (&["RETURNING"], ANSWER),
        (&["OUTPUT"], ANSWER),
        (&["ORDER", "BY"], CHOICE),
        (&["LIMIT"], CHOICE),
        (&["OFFSET"], CHOICE),
        (&["FETCH"], CHOICE),
    ];
    for (clause, hint) in clauses {
        if reader.sees(clause) {
            let clause = clause.join(" ");
            return Err(reader
                .unsupported(&format!("{verb} .. {clause}"))
                .with_hint(hint));
        }
    }
    Ok(())
}

/// Whether other tables follow the target at once.
fn joined(reader: &Reader<'_>) -> bool {
    const JOINS: [&str; 8] = [
        "JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL", "FROM",
    ];
    reader.sees_symbol(0, &Token::Comma) || JOINS.iter().any(|word| reader.sees(&[word]))
}

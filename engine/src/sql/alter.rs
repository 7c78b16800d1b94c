//! `ALTER TABLE` and `DROP`.

use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cleanse;
use super::confine::row_expression;
use super::constraint::{rule, sees_rule};
use super::create::{column, constraint};
use super::policy;
use super::reader::Reader;
use super::statement::{
    AddColumn, AlterAction, Check, ColumnChange, ColumnPlace, Drop, DropKind, Statement,
};
use crate::error::{Error, Result};

pub(super) fn alter(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["ALTER"])?;
    if reader.sees(&["CLEANSE"]) {
        return cleanse::alter(reader);
    }
    if !reader.take(&["TABLE"]) {
        return Err(match reader.peek_word(0) {
            Some(object) => reader.unsupported(&format!("ALTER {object}")),
            None => reader.expected("TABLE or CLEANSE POLICY"),
        });
    }
    if reader.sees(&["IF", "EXISTS"]) || reader.sees(&["ONLY"]) {
        return Err(reader.unsupported("ALTER TABLE with IF EXISTS or ONLY"));
    }
    let name = reader.object_name()?;
    let action = action(reader)?;
    Ok(Statement::AlterTable { name, action })
}

fn action(reader: &mut Reader<'_>) -> Result<AlterAction> {
    if reader.take(&["SET", "TBLPROPERTIES"]) {
        return Ok(AlterAction::SetProperties(reader.options()?));
    }
    if reader.take(&["UNSET", "TBLPROPERTIES"]) {
        let if_exists = reader.take(&["IF", "EXISTS"]);
        let keys = reader.list(Reader::option_key)?;
        return Ok(AlterAction::UnsetProperties { keys, if_exists });
    }
    if reader.take(&["RENAME", "TO"]) {
        return Ok(AlterAction::RenameTo(reader.object_name()?));
    }
    if reader.take(&["DROP", "CONSTRAINT"]) {
        let if_exists = reader.take(&["IF", "EXISTS"]);
        let name = reader.identifier()?;
        return Ok(AlterAction::DropConstraint { name, if_exists });
    }
    for (verb, enabled) in [("ENABLE", true), ("DISABLE", false)] {
        if reader.take(&[verb, "CONSTRAINT"]) {
            let name = reader.identifier()?;
            return Ok(AlterAction::SwitchConstraint { name, enabled });
        }
    }
    if reader.take(&["RENAME", "COLUMN"]) {
        let column = path(reader)?;
        reader.expect(&["TO"])?;
        let to = reader.identifier()?;
        return Ok(AlterAction::RenameColumn { column, to });
    }
    if reader.take(&["DROP", "COLUMN"]) {
        let if_exists = reader.take(&["IF", "EXISTS"]);
        let column = path(reader)?;
        return Ok(AlterAction::DropColumn { column, if_exists });
    }
    if reader.take(&["ALTER"]) {
        reader.take(&["COLUMN"]);
        let column = path(reader)?;
        let change = change(reader)?;
        return Ok(AlterAction::AlterColumn { column, change });
    }
    // A column may have the name: ADD journal TEXT.
    const JOURNAL: [&[&str]; 4] = [
        &["JOURNAL"],
        &["SET", "JOURNAL"],
        &["ADD", "JOURNAL", "KEYS"],
        &["DROP", "JOURNAL"],
    ];
    if JOURNAL.iter().any(|words| reader.sees(words)) {
        return Err(reader
            .unsupported("ALTER TABLE .. JOURNAL")
            .with_hint("CREATE TABLE .. JOURNAL KEYS (..) AS SELECT makes a journal of rows"));
    }
    if reader.take(&["ADD"]) {
        return add(reader);
    }
    Err(match (reader.peek_word(0), reader.peek_word(1)) {
        (Some(verb), Some(object)) => {
            reader.unsupported(&format!("ALTER TABLE .. {verb} {object}"))
        }
        _ => reader.expected("ADD, ALTER COLUMN, DISABLE, DROP, ENABLE, RENAME, SET or UNSET"),
    })
}

/// The names on the way to a column: one, or those of the structs around it first.
fn path(reader: &mut Reader<'_>) -> Result<Vec<Ident>> {
    let mut path = vec![reader.identifier()?];
    while reader.take_symbol(&Token::Period) {
        path.push(reader.identifier()?);
    }
    Ok(path)
}

/// `FIRST` or `AFTER sibling`, if it is there.
fn place(reader: &mut Reader<'_>) -> Result<Option<ColumnPlace>> {
    if reader.take(&["FIRST"]) {
        return Ok(Some(ColumnPlace::First));
    }
    if reader.take(&["AFTER"]) {
        return Ok(Some(ColumnPlace::After(reader.identifier()?)));
    }
    Ok(None)
}

fn change(reader: &mut Reader<'_>) -> Result<ColumnChange> {
    if reader.take(&["TYPE"]) || reader.take(&["SET", "DATA", "TYPE"]) {
        let data_type = reader.data_type()?;
        if reader.sees(&["USING"]) {
            return Err(reader
                .unsupported("ALTER COLUMN .. TYPE .. USING")
                .with_hint("add a column, UPDATE it from this one, and drop this one"));
        }
        return Ok(ColumnChange::Type(data_type));
    }
    if reader.take(&["SET", "NOT", "NULL"]) {
        return Ok(ColumnChange::Nullable(false));
    }
    if reader.take(&["DROP", "NOT", "NULL"]) {
        return Ok(ColumnChange::Nullable(true));
    }
    if reader.take(&["SET", "DEFAULT"]) {
        let place = reader.position();
        let default = reader.expr()?;
        row_expression(&default, "a DEFAULT").map_err(|error| match error.position() {
            Some(_) => error,
            None => error.with_position(place),
        })?;
        return Ok(ColumnChange::Default(Some(Box::new(default))));
    }
    if reader.take(&["DROP", "DEFAULT"]) {
        return Ok(ColumnChange::Default(None));
    }
    if reader.take(&["COMMENT"]) {
        return Ok(ColumnChange::Comment(reader.string()?));
    }
    if let Some(place) = place(reader)? {
        return Ok(ColumnChange::Place(place));
    }
    if reader.take(&["SET", "TAG"]) {
        return Ok(ColumnChange::SetTag(policy::tag(reader)?));
    }
    if reader.take(&["UNSET", "TAG"]) {
        return Ok(ColumnChange::UnsetTag(policy::tag(reader)?));
    }
    if reader.sees(&["SET", "TAGS"]) || reader.sees(&["UNSET", "TAGS"]) {
        return Err(reader
            .unsupported("ALTER COLUMN .. TAGS")
            .with_hint("SET TAG name and UNSET TAG name are for one tag, which has no value"));
    }
    Err(reader.expected(
        "TYPE, SET NOT NULL, DROP NOT NULL, SET DEFAULT, DROP DEFAULT, SET TAG, UNSET TAG, COMMENT, FIRST or AFTER",
    ))
}

fn add(reader: &mut Reader<'_>) -> Result<AlterAction> {
    if sees_rule(reader) {
        let rule = rule(reader)?;
        let not_valid = reader.take(&["NOT", "VALID"]);
        if not_valid
            && ["PER", "OVER", "ON"]
                .iter()
                .any(|word| reader.sees(&[word]))
        {
            return Err(reader
                .expected("the end of the statement")
                .with_hint("NOT VALID stands after the clauses of the rule"));
        }
        return Ok(AlterAction::AddRule { rule, not_valid });
    }
    if reader.sees(&["CONSTRAINT"]) || reader.sees(&["CHECK"]) {
        let place = reader.position();
        let Check { name, expr } = constraint(reader)?;
        let Some(name) = name else {
            let error = Error::invalid("a CHECK added to a table needs a name")
                .with_hint("ALTER TABLE t ADD CONSTRAINT name CHECK (..)");
            return Err(error.with_position(place));
        };
        let not_valid = reader.take(&["NOT", "VALID"]);
        return Ok(AlterAction::AddCheck {
            name,
            expr,
            not_valid,
        });
    }
    for keys in [["PRIMARY", "KEY"], ["FOREIGN", "KEY"]] {
        if reader.sees(&keys) {
            constraint(reader)?;
        }
    }
    if reader.sees(&["COLUMNS"]) {
        return Err(reader
            .unsupported("ADD COLUMNS")
            .with_hint("ADD COLUMN adds one column"));
    }
    reader.take(&["COLUMN"]);
    let if_not_exists = reader.take(&["IF", "NOT", "EXISTS"]);
    let mut parent = Vec::new();
    while reader.sees_name(0) && reader.sees_symbol(1, &Token::Period) {
        parent.push(reader.identifier()?);
        reader.take_symbol(&Token::Period);
    }
    let column = column(reader, None)?;
    let place = place(reader)?;
    Ok(AlterAction::AddColumn(AddColumn {
        parent,
        column,
        place,
        if_not_exists,
    }))
}

pub(super) fn drop(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["DROP"])?;
    if reader.sees(&["CLEANSE"]) {
        return cleanse::drop(reader);
    }
    let kind = if reader.take(&["TABLE"]) {
        DropKind::Table
    } else if reader.take(&["VIEW"]) {
        DropKind::View
    } else if reader.take(&["SCHEMA"]) {
        DropKind::Schema
    } else if reader.take(&["FUNCTION"]) {
        DropKind::Function
    } else {
        return Err(match reader.peek_word(0) {
            Some(object) => reader.unsupported(&format!("DROP {object}")),
            None => reader.expected("TABLE, VIEW, FUNCTION, SCHEMA or CLEANSE POLICY"),
        });
    };
    let if_exists = reader.take(&["IF", "EXISTS"]);
    let name = reader.object_name()?;
    if kind == DropKind::Function && reader.sees_symbol(0, &Token::LParen) {
        return Err(reader
            .unsupported("a list of types after the name of a function")
            .with_hint("a name stands for one function: DROP FUNCTION name"));
    }
    let cascade = reader.take(&["CASCADE"]);
    if !cascade {
        // What RESTRICT asks for is what happens without it.
        reader.take(&["RESTRICT"]);
    }
    for other in ["PURGE", "SYNC"] {
        if reader.sees(&[other]) {
            return Err(reader.unsupported(&format!("DROP .. {other}")));
        }
    }
    Ok(Statement::Drop(Drop {
        kind,
        name,
        if_exists,
        cascade,
    }))
}

//! `ALTER TABLE` and `DROP`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::create::{column, constraint};
use super::reader::Reader;
use super::statement::{AlterAction, Check, Drop, DropKind, Statement};
use crate::error::{Error, Result};

pub(super) fn alter(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["ALTER"])?;
    if !reader.take(&["TABLE"]) {
        return Err(match reader.peek_word(0) {
            Some(object) => reader.unsupported(&format!("ALTER {object}")),
            None => reader.expected("TABLE"),
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
    if reader.take(&["ADD"]) {
        return add(reader);
    }
    Err(match (reader.peek_word(0), reader.peek_word(1)) {
        (Some(verb), Some(object)) => {
            reader.unsupported(&format!("ALTER TABLE .. {verb} {object}"))
        }
        _ => reader.expected("ADD, SET, UNSET, RENAME TO or DROP CONSTRAINT"),
    })
}

fn add(reader: &mut Reader<'_>) -> Result<AlterAction> {
    if reader.sees(&["CONSTRAINT"]) || reader.sees(&["CHECK"]) {
        let place = reader.position();
        let Check { name, expr } = constraint(reader)?;
        let Some(name) = name else {
            let error = Error::invalid("a CHECK added to a table needs a name")
                .with_hint("ALTER TABLE t ADD CONSTRAINT name CHECK (..)");
            return Err(error.with_position(place));
        };
        if reader.sees(&["NOT", "VALID"]) {
            return Err(reader.unsupported("ADD CONSTRAINT .. NOT VALID"));
        }
        return Ok(AlterAction::AddCheck { name, expr });
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
    if reader.sees(&["IF", "NOT", "EXISTS"]) {
        return Err(reader.unsupported("ADD COLUMN IF NOT EXISTS"));
    }
    let column = column(reader, None)?;
    for place in ["FIRST", "AFTER"] {
        if reader.sees(&[place]) {
            return Err(reader
                .unsupported(&format!("ADD COLUMN .. {place}"))
                .with_hint("a new column comes last"));
        }
    }
    Ok(AlterAction::AddColumn(column))
}

pub(super) fn drop(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["DROP"])?;
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
            None => reader.expected("TABLE, VIEW, FUNCTION or SCHEMA"),
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

//! Statements about the session itself: variables, prepared statements, transactions.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::confine::constant;
use super::parser::statement;
use super::reader::Reader;
use super::statement::{Prepare, Statement, Transaction};
use crate::error::{Error, Result};

/// `SET [SESSION] name {= | TO} value`, `SET TIME ZONE value`
pub(super) fn set(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["SET"])?;
    for foreign in [
        "LOCAL",
        "GLOBAL",
        "TRANSACTION",
        "ROLE",
        "NAMES",
        "CONSTRAINTS",
    ] {
        // A variable may have such a name; then a sign follows it.
        if reader.sees(&[foreign])
            && (reader.peek_word(1).is_some() && !reader.sees(&[foreign, "TO"]))
        {
            return Err(reader.unsupported(&format!("SET {foreign}")));
        }
    }
    if reader.peek_word(1).is_some() && !reader.sees(&["SESSION", "TO"]) {
        reader.take(&["SESSION"]);
    }
    for foreign in ["CHARACTERISTICS", "AUTHORIZATION"] {
        if reader.sees(&[foreign]) {
            return Err(reader.unsupported(&format!("SET SESSION {foreign}")));
        }
    }
    let name = if reader.take(&["TIME", "ZONE"]) {
        // Here the sign may be left out.
        if !reader.take_symbol(&Token::Eq) {
            reader.take(&["TO"]);
        }
        "timezone".to_owned()
    } else {
        let name = reader.dotted_name()?.to_lowercase();
        if !reader.take_symbol(&Token::Eq) && !reader.take(&["TO"]) {
            return Err(reader.expected("= or TO"));
        }
        name
    };
    if reader.take(&["DEFAULT"]) {
        return Ok(Statement::Reset { name });
    }
    let value = reader.value()?;
    Ok(Statement::Set { name, value })
}

pub(super) fn reset(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["RESET"])?;
    if reader.sees(&["ALL"]) {
        return Err(reader.unsupported("RESET ALL"));
    }
    let name = if reader.take(&["TIME", "ZONE"]) {
        "timezone".to_owned()
    } else {
        reader.dotted_name()?.to_lowercase()
    };
    Ok(Statement::Reset { name })
}

pub(super) fn use_schema(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["USE"])?;
    if reader.sees_name(1) && !reader.take(&["SCHEMA"]) {
        reader.take(&["DATABASE"]);
    }
    Ok(Statement::Use {
        schema: reader.object_name()?,
    })
}

/// `PREPARE name [(types)] AS statement`
pub(super) fn prepare(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["PREPARE"])?;
    let name = reader.identifier()?;
    let types = if reader.sees_symbol(0, &Token::LParen) {
        reader.list(Reader::data_type)?
    } else {
        vec![]
    };
    reader.expect(&["AS"])?;
    let error = Error::invalid("PREPARE takes a query, INSERT, UPDATE, DELETE, MERGE or TRUNCATE")
        .with_position(reader.position());
    // Looked at before it is read: PREPARE p AS PREPARE .. would nest as deep as the text is long.
    // REPLAY has no plan that could be kept.
    if ["EXPLAIN", "PREPARE", "REPLAY"]
        .iter()
        .any(|verb| reader.sees(&[verb]))
    {
        return Err(error);
    }
    let statement = statement(reader)?;
    if !matches!(statement, Statement::Query(_)) && statement.changed_table().is_none() {
        return Err(error);
    }
    Ok(Statement::Prepare(Prepare {
        name,
        types,
        statement: Box::new(statement),
    }))
}

/// `EXECUTE name [(value, ..)]`
pub(super) fn execute(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["EXECUTE"])?;
    let name = reader.identifier()?;
    let mut arguments = vec![];
    if reader.sees_symbol(0, &Token::LParen) {
        if reader.sees_symbol(1, &Token::RParen) {
            reader.take_symbol(&Token::LParen);
            reader.take_symbol(&Token::RParen);
        } else {
            arguments = reader.list(|reader| {
                let expr = reader.expr()?;
                constant(&expr, "an argument of EXECUTE")?;
                Ok(expr)
            })?;
        }
    }
    if reader.sees(&["USING"]) {
        return Err(reader.unsupported("EXECUTE .. USING"));
    }
    Ok(Statement::Execute { name, arguments })
}

pub(super) fn deallocate(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["DEALLOCATE"])?;
    if reader.sees_name(1) {
        reader.take(&["PREPARE"]);
    }
    let name = if reader.take(&["ALL"]) {
        None
    } else {
        Some(reader.identifier()?)
    };
    Ok(Statement::Deallocate { name })
}

/// `BEGIN`, `START TRANSACTION`, `COMMIT`, `ROLLBACK`. Modes and savepoints are not read, and so refused.
pub(super) fn transaction(reader: &mut Reader<'_>) -> Result<Statement> {
    let transaction = if reader.take(&["START"]) {
        reader.expect(&["TRANSACTION"])?;
        return Ok(Statement::Transaction(Transaction::Begin));
    } else if reader.take(&["BEGIN"]) {
        Transaction::Begin
    } else if reader.take(&["COMMIT"]) {
        Transaction::Commit
    } else {
        reader.expect(&["ROLLBACK"])?;
        Transaction::Rollback
    };
    if !reader.take(&["TRANSACTION"]) {
        reader.take(&["WORK"]);
    }
    Ok(Statement::Transaction(transaction))
}

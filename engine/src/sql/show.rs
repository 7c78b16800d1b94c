//! `SHOW` and `DESCRIBE`: what is there.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::cleanse;
use super::reader::Reader;
use super::statement::{Show, Statement};
use crate::error::Result;

pub(super) fn show(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["SHOW"])?;
    let show = if reader.take(&["TABLES"]) {
        Show::Tables {
            schema: if takes_in(reader) {
                Some(reader.object_name()?)
            } else {
                None
            },
            like: like(reader)?,
        }
    } else if reader.take(&["SCHEMAS"]) || reader.take(&["DATABASES"]) {
        Show::Schemas {
            like: like(reader)?,
        }
    } else if reader.take(&["FUNCTIONS"]) {
        Show::Functions {
            like: like(reader)?,
        }
    } else if reader.take(&["COLUMNS"]) {
        if !takes_in(reader) {
            return Err(reader.expected("FROM and a table"));
        }
        Show::Columns {
            table: reader.object_name()?,
        }
    } else if reader.take(&["CREATE", "TABLE"]) || reader.take(&["CREATE", "VIEW"]) {
        Show::Create {
            name: reader.object_name()?,
        }
    } else if reader.take(&["CREATE", "FUNCTION"]) {
        Show::CreateFunction {
            name: reader.object_name()?,
        }
    } else if reader.sees(&["CREATE"]) {
        return Err(reader.expected("CREATE TABLE, CREATE VIEW or CREATE FUNCTION"));
    } else if reader.sees(&["CLEANSE"]) && reader.sees_name(1) {
        cleanse::show(reader)?
    } else if reader.take(&["ALL"]) {
        Show::AllVariables
    } else if reader.take(&["TIME", "ZONE"]) {
        Show::Variable("timezone".to_owned())
    } else {
        for foreign in [
            "FULL", "EXTENDED", "TERSE", "EXTERNAL", "VIEWS", "CATALOGS", "GRANTS",
        ] {
            if reader.sees(&[foreign]) {
                return Err(reader.unsupported(&format!("SHOW {foreign}")));
            }
        }
        Show::Variable(reader.dotted_name()?.to_lowercase())
    };
    Ok(Statement::Show(show))
}

fn takes_in(reader: &mut Reader<'_>) -> bool {
    reader.take(&["IN"]) || reader.take(&["FROM"])
}

fn like(reader: &mut Reader<'_>) -> Result<Option<String>> {
    if reader.sees(&["WHERE"]) || reader.sees(&["ILIKE"]) {
        return Err(reader.unsupported("SHOW .. WHERE or ILIKE").with_hint(
            "SHOW .. LIKE 'pattern' filters; the views of information_schema answer any query",
        ));
    }
    if reader.take(&["LIKE"]) {
        return Ok(Some(reader.string()?));
    }
    Ok(None)
}

/// `DESCRIBE [TABLE] t`, `DESCRIBE HISTORY t`, `DESCRIBE query`
pub(super) fn describe(reader: &mut Reader<'_>) -> Result<Statement> {
    // The verb: DESCRIBE or DESC.
    reader.identifier()?;
    let query = ["SELECT", "WITH", "FROM", "VALUES"]
        .iter()
        .any(|verb| reader.sees(&[verb]));
    if query || reader.sees_symbol(0, &Token::LParen) {
        return Ok(Statement::DescribeQuery(reader.query()?));
    }
    let name_follows = reader.sees_name(1);
    for foreign in ["EXTENDED", "FORMATTED", "DETAIL", "SCHEMA", "FUNCTION"] {
        if name_follows && reader.sees(&[foreign]) {
            return Err(reader.unsupported(&format!("DESCRIBE {foreign}")));
        }
    }
    if name_follows && reader.take(&["HISTORY"]) {
        return Ok(Statement::DescribeHistory(reader.object_name()?));
    }
    if name_follows {
        reader.take(&["TABLE"]);
    }
    Ok(Statement::Describe(reader.object_name()?))
}

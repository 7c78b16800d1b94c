//! `CREATE FUNCTION`: an expression or a query under a name, with typed parameters.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::create::{Once, if_not_exists};
use super::reader::Reader;
use super::statement::{CreateFunction, FunctionBody, Parameter, Returns, Statement, fold};
use crate::error::{Error, Result};

const FORM: &str = "CREATE FUNCTION name (parameter TYPE, ..) RETURNS { TYPE | TABLE [(column TYPE, ..)] } [COMMENT 'text'] RETURN { expression | query }";

pub(super) fn create(reader: &mut Reader<'_>, or_replace: bool) -> Result<Statement> {
    let if_not_exists = if_not_exists(reader, or_replace)?;
    let name = reader.object_name()?;
    let parameters = typed(reader, "parameter")?;
    if !reader.take(&["RETURNS"]) {
        return Err(reader.expected("RETURNS and a type").with_hint(FORM));
    }
    let table = reader.take(&["TABLE"]);
    let returns = if !table {
        Returns::Value(reader.data_type()?)
    } else if reader.sees_symbol(0, &Token::LParen) {
        Returns::Rows(typed(reader, "column")?)
    } else {
        Returns::Rows(vec![])
    };
    let mut comment = None;
    let mut seen = Once::default();
    loop {
        if reader.sees(&["COMMENT"]) {
            seen.first("COMMENT", reader)?;
            reader.take(&["COMMENT"]);
            comment = Some(reader.string()?);
        } else if reader.sees(&["LANGUAGE"]) {
            seen.first("LANGUAGE", reader)?;
            reader.take(&["LANGUAGE"]);
            if !reader.take(&["SQL"]) {
                return Err(reader.unsupported("a function in another language than SQL"));
            }
        } else {
            break;
        }
    }
    if !reader.take(&["RETURN"]) {
        return Err(reader.expected("RETURN").with_hint(FORM));
    }
    let query = ["SELECT", "WITH", "FROM", "VALUES"]
        .iter()
        .any(|verb| reader.sees(&[verb]));
    let (body, text) = if table {
        let (query, text) = reader.query_with_text()?;
        (FunctionBody::Rows(query), text)
    } else if query {
        return Err(reader
            .expected("an expression")
            .with_hint("a query that gives one value stands in parentheses: RETURN (SELECT ..)"));
    } else {
        let (expr, text) = reader.expr_with_text()?;
        (FunctionBody::Value(Box::new(expr)), text)
    };
    Ok(Statement::CreateFunction(CreateFunction {
        name,
        or_replace,
        if_not_exists,
        parameters,
        returns,
        comment,
        body,
        text,
    }))
}

/// `(name TYPE, ..)`, which may be empty; `what` each of them is.
fn typed(reader: &mut Reader<'_>, what: &str) -> Result<Vec<Parameter>> {
    let mut all: Vec<Parameter> = Vec::new();
    if reader.sees_symbol(0, &Token::LParen) && reader.sees_symbol(1, &Token::RParen) {
        reader.expect_symbol(&Token::LParen)?;
        reader.expect_symbol(&Token::RParen)?;
        return Ok(all);
    }
    reader.list(|reader| {
        let place = reader.position();
        let name = reader.identifier()?;
        if reader.sees_symbol(0, &Token::Comma) || reader.sees_symbol(0, &Token::RParen) {
            let error = Error::invalid(format!("{what} {name} has no type")).with_hint(FORM);
            return Err(error.with_position(place));
        }
        if all.iter().any(|seen| fold(&seen.name) == fold(&name)) {
            let error = Error::invalid(format!("{what} {name} is declared twice"));
            return Err(error.with_position(place));
        }
        let data_type = reader.data_type()?;
        if reader.sees(&["DEFAULT"]) || reader.sees_symbol(0, &Token::Eq) {
            return Err(reader.unsupported("DEFAULT on a parameter"));
        }
        all.push(Parameter { name, data_type });
        Ok(())
    })?;
    Ok(all)
}

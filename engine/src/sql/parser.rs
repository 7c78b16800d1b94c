//! The text of one statement to a [`Statement`], checked for clauses that nobody would honour.

use datafusion::sql::sqlparser::ast::{Expr, Query, SetExpr, TableFactor};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::reader::Reader;
use super::statement::Statement;
use super::suggest::nearest;
use super::syntax::VERSION_PLACE;
use super::{
    alter, cleanse, confine, copy, create, dml, explain, history, insert, journal, maintenance,
    merge, parameters, plain, quality, refuse, session, show,
};
use crate::error::{Error, Result};

/// Reads exactly one statement; a final semicolon is welcome.
pub(crate) fn parse(sql: &str) -> Result<Statement> {
    let mut reader = Reader::new(sql)?;
    while reader.take_symbol(&Token::SemiColon) {}
    if reader.done() {
        return Err(Error::invalid("there is no statement in the text"));
    }
    let mut parsed = statement(&mut reader)?;
    finish(&reader)?;
    while reader.take_symbol(&Token::SemiColon) {}
    if !reader.done() {
        let error = Error::invalid("the text holds more than one statement")
            .with_hint("run them one at a time");
        return Err(error.with_position(reader.position()));
    }
    plain::rewrite(&mut parsed);
    refuse::check(&parsed)?;
    parameters::check(&parsed)?;
    Ok(parsed)
}

/// Reads a row expression, such as the text of a CHECK kept in a table's metadata.
pub(crate) fn parse_expr(sql: &str) -> Result<Expr> {
    let mut reader = Reader::new(sql)?;
    let expr = reader.expr()?;
    if !reader.done() {
        return Err(reader.expected("the end of the expression"));
    }
    confine::row_expression(&expr, "a CHECK")?;
    Ok(expr)
}

/// Reads the text of a kept function that gives a value.
pub(crate) fn parse_value(sql: &str) -> Result<Expr> {
    let mut reader = Reader::new(sql)?;
    let expr = reader.expr()?;
    if !reader.done() {
        return Err(reader.expected("the end of the expression"));
    }
    refuse::check_expr(&expr)?;
    Ok(expr)
}

/// Reads a table or view as a FROM clause names it, with a version or not: all of its columns, as a query.
pub(crate) fn parse_relation(sql: &str) -> Result<Box<Query>> {
    let mut reader = Reader::new(sql)?;
    let table = reader.parse(Parser::parse_table_factor)?;
    if !reader.done() {
        return Err(reader.expected("the end of a table's name"));
    }
    let TableFactor::Table {
        args: None,
        alias: None,
        ..
    } = &table
    else {
        return Err(Error::invalid(format!(
            "'{sql}' is not the name of a table"
        )));
    };
    let statement = Statement::Query(all_of(&table)?);
    refuse::check(&statement)?;
    match statement {
        Statement::Query(query) => Ok(query),
        _ => Err(Error::internal("a template is not a query")),
    }
}

/// All columns of a relation.
pub(super) fn all_of(table: &TableFactor) -> Result<Box<Query>> {
    let Statement::Query(mut query) = parse("SELECT * FROM t")? else {
        return Err(Error::internal("a template is not a query"));
    };
    if let SetExpr::Select(select) = query.body.as_mut() {
        for from in &mut select.from {
            from.relation.clone_from(table);
        }
    }
    Ok(query)
}

/// Words that begin a statement we run.
pub(super) const VERBS: [&str; 38] = [
    "SELECT",
    "WITH",
    "FROM",
    "VALUES",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "TRUNCATE",
    "CREATE",
    "DROP",
    "ALTER",
    "COPY",
    "OPTIMIZE",
    "VACUUM",
    "RESTORE",
    "ANALYZE",
    "CHECK",
    "CORRECT",
    "HISTORY",
    "REPLAY",
    "SUGGEST",
    "CLEANSE",
    "VERIFY",
    "EXPLAIN",
    "DESCRIBE",
    "DESC",
    "SHOW",
    "SET",
    "RESET",
    "USE",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
];

/// Words that begin a statement of other systems or of SQL that we do not run.
const FOREIGN_VERBS: [&str; 44] = [
    "ABORT",
    "ASSERT",
    "ATTACH",
    "CACHE",
    "CALL",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTER",
    "COMMENT",
    "DECLARE",
    "DENY",
    "DETACH",
    "DISCARD",
    "DO",
    "EXEC",
    "EXPORT",
    "FETCH",
    "FLUSH",
    "GRANT",
    "IMPORT",
    "INSTALL",
    "KILL",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MSCK",
    "NOTIFY",
    "OPEN",
    "PRAGMA",
    "PURGE",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RENAME",
    "REPAIR",
    "REPLACE",
    "REVOKE",
    "SAVEPOINT",
    "TABLE",
    "UNCACHE",
    "UNLISTEN",
    "UNLOAD",
    "UNLOCK",
    "UPSERT",
];

/// Reads a statement up to the clause it does not know.
pub(super) fn statement(reader: &mut Reader<'_>) -> Result<Statement> {
    if reader.sees_symbol(0, &Token::LParen) {
        return Ok(Statement::Query(reader.query()?));
    }
    let Some(verb) = reader.peek_word(0) else {
        return Err(reader.expected("a statement"));
    };
    match verb.as_str() {
        "SELECT" | "WITH" | "FROM" | "VALUES" => Ok(Statement::Query(reader.query()?)),
        "INSERT" => insert::insert(reader),
        "UPDATE" => dml::update(reader),
        "DELETE" => dml::delete(reader),
        "MERGE" => merge::merge(reader),
        "TRUNCATE" => dml::truncate(reader),
        "CREATE" => create::create(reader),
        "DROP" => alter::drop(reader),
        "ALTER" => alter::alter(reader),
        "COPY" => copy::copy(reader),
        "OPTIMIZE" => maintenance::optimize(reader),
        "VACUUM" => maintenance::vacuum(reader),
        "RESTORE" => maintenance::restore(reader),
        "ANALYZE" => maintenance::analyze(reader),
        "CHECK" if reader.sees(&["CHECK", "JOURNAL"]) => journal::check(reader),
        "CHECK" => quality::check(reader),
        "CORRECT" => journal::correct(reader),
        "HISTORY" => Err(history::unread(reader)),
        verb if history::begins(verb) => history::statement(reader),
        "REPLAY" => quality::replay(reader),
        "SUGGEST" => quality::suggest(reader),
        "CLEANSE" => cleanse::cleanse(reader),
        "VERIFY" => cleanse::verify(reader),
        "EXPLAIN" => explain::explain(reader),
        "DESCRIBE" | "DESC" => show::describe(reader),
        "SHOW" => show::show(reader),
        "SET" => session::set(reader),
        "RESET" => session::reset(reader),
        "USE" => session::use_schema(reader),
        "PREPARE" => session::prepare(reader),
        "EXECUTE" => session::execute(reader),
        "DEALLOCATE" => session::deallocate(reader),
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" => session::transaction(reader),
        _ => Err(foreign(reader, &verb)),
    }
}

fn foreign(reader: &Reader<'_>, verb: &str) -> Error {
    if FOREIGN_VERBS.contains(&verb) {
        return reader.unsupported(verb);
    }
    let error = reader.expected("a statement");
    match nearest(verb, VERBS) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error,
    }
}

/// Words that begin a clause which other systems allow after what we have read.
const FOREIGN_CLAUSES: [(&str, &str); 17] = [
    ("RETURNING", "RETURNING"),
    ("OUTPUT", "OUTPUT"),
    (
        "ON",
        "an ON clause (CONFLICT, DUPLICATE KEY, COMMIT, CLUSTER) here",
    ),
    ("CLUSTER", "CLUSTER BY"),
    ("CLUSTERED", "CLUSTERED BY"),
    ("DISTRIBUTE", "DISTRIBUTE BY"),
    ("SORT", "SORT BY"),
    ("SORTED", "SORTED BY"),
    ("ENGINE", "ENGINE"),
    ("INHERITS", "INHERITS"),
    ("LIKE", "LIKE here"),
    ("CLONE", "CLONE"),
    ("SHALLOW", "SHALLOW CLONE"),
    ("DEEP", "DEEP CLONE"),
    ("TABLESPACE", "TABLESPACE"),
    ("TABLESAMPLE", "TABLESAMPLE"),
    ("STRICT", "STRICT"),
];

/// Everything must have been read: what is left is a clause that nobody honours.
fn finish(reader: &Reader<'_>) -> Result<()> {
    if reader.done() || reader.sees_symbol(0, &Token::SemiColon) {
        return Ok(());
    }
    let version = ["VERSION", "TIMESTAMP"]
        .iter()
        .any(|word| reader.sees(&[word, "AS", "OF"]))
        || reader.sees(&["AT"]) && reader.sees_symbol(1, &Token::LParen);
    if version {
        return Err(reader
            .expected("the end of the statement")
            .with_hint(VERSION_PLACE));
    }
    let word = reader.peek_word(0);
    let clause = FOREIGN_CLAUSES
        .iter()
        .find(|(first, _)| word.as_deref() == Some(first));
    Err(match clause {
        Some((_, name)) => reader.unsupported(name),
        None => reader.expected("the end of the statement"),
    })
}

//! `CREATE TABLE`, `EXTERNAL TABLE`, `SCHEMA` and `VIEW`; `FUNCTION` has a room of its own.

use datafusion::sql::sqlparser::ast::{
    CheckConstraint, ColumnDef, ColumnOption, ColumnOptionDef, Ident, TableConstraint,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::cleanse;
use super::confine::row_expression;
use super::constraint::{rule, sees_rule};
use super::function;
use super::journal;
use super::reader::Reader;
use super::statement::{
    Check, Column, CreateExternalTable, CreateTable, CreateView, FileFormat, Statement, fold,
};
use super::suggest::nearest;
use super::syntax;
use crate::error::{Error, Result};

pub(super) fn create(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["CREATE"])?;
    let or_replace = reader.take(&["OR", "REPLACE"]);
    if reader.take(&["TABLE"]) {
        return table(reader, or_replace, false);
    }
    if reader.take(&["JOURNAL"]) {
        // CREATE JOURNAL t, without TABLE, is as clear.
        if reader.sees_name(1) {
            reader.take(&["TABLE"]);
        }
        return table(reader, or_replace, true);
    }
    if reader.take(&["VIEW"]) {
        return view(reader, or_replace);
    }
    if reader.take(&["FUNCTION"]) {
        return function::create(reader, or_replace);
    }
    if reader.sees(&["CLEANSE"]) {
        return cleanse::create(reader, or_replace);
    }
    if or_replace && (reader.sees(&["EXTERNAL"]) || reader.sees(&["SCHEMA"])) {
        return Err(reader.unsupported(
            "CREATE OR REPLACE of anything but a table, a view, a function or a cleanse policy",
        ));
    }
    if reader.take(&["EXTERNAL", "TABLE"]) {
        return external_table(reader);
    }
    if reader.take(&["SCHEMA"]) {
        let if_not_exists = reader.take(&["IF", "NOT", "EXISTS"]);
        let name = reader.object_name()?;
        return Ok(Statement::CreateSchema {
            name,
            if_not_exists,
        });
    }
    Err(foreign(reader))
}

/// Names the statement up to its object: `CREATE TEMPORARY TABLE`.
fn foreign(reader: &Reader<'_>) -> Error {
    const OBJECTS: [&str; 6] = ["TABLE", "VIEW", "SCHEMA", "FUNCTION", "CLEANSE", "INDEX"];
    const KNOWN: &str = "TABLE, EXTERNAL TABLE, VIEW, FUNCTION, SCHEMA or CLEANSE POLICY";
    let Some(first) = reader.peek_word(0) else {
        return reader.expected(KNOWN);
    };
    let second = reader
        .peek_word(1)
        .filter(|word| OBJECTS.contains(&word.as_str()));
    let error = match (&second, nearest(&first, OBJECTS)) {
        (None, Some(near)) if near != first => {
            return reader
                .expected(KNOWN)
                .with_hint(format!("did you mean {near}?"));
        }
        (None, _) => reader.unsupported(&format!("CREATE {first}")),
        (Some(second), _) => reader.unsupported(&format!("CREATE {first} {second}")),
    };
    match first.as_str() {
        "DATABASE" => error.with_hint("a lake is one database: use CREATE SCHEMA"),
        "POLICY" => error.with_hint("CREATE CLEANSE POLICY name ON t says what t must forget"),
        "MACRO" => error.with_hint("CREATE FUNCTION makes one, with types"),
        "UNIQUE" | "INDEX" => error.with_hint(
            "files are skipped by partition and by their statistics; there is no index to create",
        ),
        _ => error,
    }
}

/// With `journal`, the statement says before the name of the table that it keeps one.
fn table(reader: &mut Reader<'_>, or_replace: bool, journal: bool) -> Result<Statement> {
    let if_not_exists = if_not_exists(reader, or_replace)?;
    let name = reader.object_name()?;
    let mut table = CreateTable {
        name,
        if_not_exists,
        or_replace,
        columns: vec![],
        checks: vec![],
        rules: vec![],
        partitioned_by: vec![],
        journal: None,
        properties: vec![],
        comment: None,
        snapshots: false,
        query: None,
    };
    let mut seen = Once::default();
    if reader.sees_symbol(0, &Token::LParen) {
        reader.list(|reader| item(reader, &mut table))?;
    }
    loop {
        if reader.sees(&["PARTITIONED", "BY"]) {
            seen.first("PARTITIONED BY", reader)?;
            reader.take(&["PARTITIONED", "BY"]);
            table.partitioned_by = reader.list(partition_column)?;
        } else if reader.sees(&["JOURNAL"]) {
            seen.first("JOURNAL KEYS", reader)?;
            table.journal = Some(journal::clause(reader)?);
        } else if reader.sees(&["TBLPROPERTIES"])
            || reader.sees(&["WITH"]) && reader.sees_symbol(1, &Token::LParen)
        {
            seen.first("TBLPROPERTIES (or WITH)", reader)?;
            reader.identifier()?;
            table.properties = reader.options()?;
        } else if reader.sees(&["COMMENT"]) {
            seen.first("COMMENT", reader)?;
            reader.take(&["COMMENT"]);
            reader.take_symbol(&Token::Eq);
            table.comment = Some(reader.string()?);
        } else if reader.sees(&["USING"]) {
            seen.first("USING", reader)?;
            reader.take(&["USING"]);
            let place = reader.position();
            if reader.file_format()? != FileFormat::Delta {
                let error = Error::unsupported("tables of the lake are DELTA tables")
                    .with_hint("CREATE EXTERNAL TABLE reads files of other formats");
                return Err(error.with_position(place));
            }
        } else if reader.take(&["AS"]) {
            if reader.sees(&["SNAPSHOTS"]) {
                journal::snapshots_of(table.journal.as_ref(), reader)?;
                table.snapshots = reader.take(&["SNAPSHOTS"]);
            }
            table.query = Some(reader.query()?);
            break;
        } else if reader.sees(&["LOCATION"]) || reader.sees(&["STORED"]) {
            return Err(reader
                .unsupported("CREATE TABLE .. LOCATION or STORED AS")
                .with_hint("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '..' registers a table where it is"));
        } else {
            break;
        }
    }
    if journal && table.journal.is_none() {
        return Err(reader.expected("JOURNAL KEYS").with_hint(
            "CREATE JOURNAL TABLE t (..) JOURNAL KEYS (..) says whose history is kept",
        ));
    }
    check_table(&table, reader)?;
    Ok(Statement::CreateTable(table))
}

pub(super) fn if_not_exists(reader: &mut Reader<'_>, or_replace: bool) -> Result<bool> {
    let place = reader.position();
    let if_not_exists = reader.take(&["IF", "NOT", "EXISTS"]);
    if if_not_exists && or_replace {
        let error = Error::invalid("OR REPLACE and IF NOT EXISTS exclude each other");
        return Err(error.with_position(place));
    }
    Ok(if_not_exists)
}

/// A column, a table constraint or a rule.
fn item(reader: &mut Reader<'_>, table: &mut CreateTable) -> Result<()> {
    const CONSTRAINTS: [&[&str]; 5] = [
        &["CONSTRAINT"],
        &["PRIMARY", "KEY"],
        &["FOREIGN", "KEY"],
        &["UNIQUE", "KEY"],
        &["UNIQUE", "INDEX"],
    ];
    if sees_rule(reader) {
        table.rules.push(rule(reader)?);
        return refuse_not_valid(reader);
    }
    let constraint = CONSTRAINTS.iter().any(|words| reader.sees(words))
        || (reader.sees(&["CHECK"]) || reader.sees(&["UNIQUE"]))
            && reader.sees_symbol(1, &Token::LParen);
    if constraint {
        table.checks.push(self::constraint(reader)?);
        return refuse_not_valid(reader);
    }
    if reader.sees(&["LIKE"]) {
        return Err(reader.unsupported("CREATE TABLE .. LIKE"));
    }
    let place = reader.position();
    let column = column(reader, Some(&mut table.checks))?;
    if table
        .columns
        .iter()
        .any(|seen| fold(&seen.name) == fold(&column.name))
    {
        let error = Error::invalid(format!("column {} is declared twice", column.name));
        return Err(error.with_position(place));
    }
    table.columns.push(column);
    Ok(())
}

fn refuse_not_valid(reader: &Reader<'_>) -> Result<()> {
    if reader.sees(&["NOT", "VALID"]) {
        return Err(reader
            .unsupported("NOT VALID in CREATE TABLE")
            .with_hint("leave it out: a new table has no rows that were not asked"));
    }
    Ok(())
}

/// A table constraint: only CHECK is one that we keep.
pub(super) fn constraint(reader: &mut Reader<'_>) -> Result<Check> {
    let place = reader.position();
    let constraint = reader.parse(Parser::parse_optional_table_constraint)?;
    let other = match constraint {
        Some(TableConstraint::Check(check)) => return self::check(check, None),
        Some(TableConstraint::PrimaryKey(_) | TableConstraint::PrimaryKeyUsingIndex(_)) => {
            "PRIMARY KEY"
        }
        Some(TableConstraint::Unique(_) | TableConstraint::UniqueUsingIndex(_)) => "UNIQUE",
        Some(TableConstraint::ForeignKey(_)) => "FOREIGN KEY",
        Some(TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_)) => "INDEX",
        None => return Err(reader.expected("a constraint")),
    };
    Err(unenforced(other).with_position(place))
}

/// Keys are refused because nothing would enforce them.
fn unenforced(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported: nothing would enforce it"))
        .with_hint("CHECK and NOT NULL are enforced on every write")
}

fn check(constraint: CheckConstraint, column_name: Option<Ident>) -> Result<Check> {
    let CheckConstraint {
        name,
        expr,
        enforced,
    } = constraint;
    if enforced == Some(false) {
        return Err(Error::unsupported("CHECK .. NOT ENFORCED is not supported")
            .with_hint("leave the check out: every check that is there is enforced"));
    }
    row_expression(&expr, "a CHECK")?;
    Ok(Check {
        name: column_name.or(name),
        expr: *expr,
    })
}

/// A column's declaration. Its own checks go to `checks`, where it may have any.
pub(super) fn column(
    reader: &mut Reader<'_>,
    mut checks: Option<&mut Vec<Check>>,
) -> Result<Column> {
    let place = reader.position();
    if reader.sees_symbol(1, &Token::Comma) || reader.sees_symbol(1, &Token::RParen) {
        let name = reader.identifier()?;
        let error = Error::invalid(format!("column {name} has no type"))
            .with_hint("to name the columns of CREATE TABLE .. AS, give them aliases in the query");
        return Err(error.with_position(place));
    }
    if !reader.sees_name(0) {
        return Err(reader.expected("a column's name"));
    }
    let definition = reader.parse(Parser::parse_column_def);
    if reader.sees(&["EXPECT"]) {
        return Err(reader
            .unsupported("EXPECT as part of a column")
            .with_hint("a rule stands by itself, after a comma: CONSTRAINT name EXPECT (..)"));
    }
    let ColumnDef {
        name,
        data_type,
        options,
    } = definition?;
    let mut column = Column {
        name,
        data_type,
        nullable: true,
        default: None,
        comment: None,
    };
    let mut seen = Once::default();
    for ColumnOptionDef { name, option } in options {
        let named = name.is_some();
        let clause = match option {
            ColumnOption::Check(constraint) if checks.is_some() => {
                if let Some(checks) = &mut checks {
                    checks.push(check(constraint, name).map_err(|e| or_at(e, place))?);
                }
                continue;
            }
            ColumnOption::NotNull => {
                column.nullable = false;
                "NULL or NOT NULL"
            }
            ColumnOption::Null => "NULL or NOT NULL",
            ColumnOption::Default(expr) => {
                row_expression(&expr, "a DEFAULT")?;
                column.default = Some(expr);
                "DEFAULT"
            }
            ColumnOption::Comment(text) => {
                column.comment = Some(text);
                "COMMENT"
            }
            ColumnOption::PrimaryKey(_) => {
                return Err(unenforced("PRIMARY KEY").with_position(place));
            }
            ColumnOption::Unique(_) => return Err(unenforced("UNIQUE").with_position(place)),
            ColumnOption::ForeignKey(_) => {
                return Err(unenforced("REFERENCES").with_position(place));
            }
            other => {
                let error = Error::unsupported(format!(
                    "{} on column {} is not supported",
                    option_name(&other),
                    column.name
                ));
                return Err(error.with_position(place));
            }
        };
        if named {
            let error = Error::unsupported(format!(
                "a constraint name for {clause} on column {} is not supported",
                column.name
            ));
            return Err(error.with_position(place));
        }
        if !seen.insert(clause) {
            let error = Error::invalid(format!("column {} has {clause} twice", column.name));
            return Err(error.with_position(place));
        }
    }
    Ok(column)
}

fn or_at(error: Error, place: crate::error::Position) -> Error {
    match error.position() {
        Some(_) => error,
        None => error.with_position(place),
    }
}

/// The clause's name for the reader. Every option is named, so that a new one must be decided on.
fn option_name(option: &ColumnOption) -> &'static str {
    match option {
        ColumnOption::Null | ColumnOption::NotNull => "NULL",
        ColumnOption::Default(_) => "DEFAULT",
        ColumnOption::Check(_) => "CHECK",
        ColumnOption::Comment(_) => "COMMENT",
        ColumnOption::PrimaryKey(_) => "PRIMARY KEY",
        ColumnOption::Unique(_) => "UNIQUE",
        ColumnOption::ForeignKey(_) => "REFERENCES",
        ColumnOption::Materialized(_) => "MATERIALIZED",
        ColumnOption::Ephemeral(_) => "EPHEMERAL",
        ColumnOption::Alias(_) => "ALIAS",
        ColumnOption::DialectSpecific(_) => "AUTO_INCREMENT (or a like option)",
        ColumnOption::CharacterSet(_) => "CHARACTER SET",
        ColumnOption::Collation(_) => "COLLATE",
        ColumnOption::OnUpdate(_) => "ON UPDATE",
        ColumnOption::Generated { .. } => "GENERATED",
        ColumnOption::Options(_) => "OPTIONS",
        ColumnOption::Identity(_) => "IDENTITY",
        ColumnOption::OnConflict(_) => "ON CONFLICT",
        ColumnOption::Policy(_) => "a policy",
        ColumnOption::Tags(_) => "TAG",
        ColumnOption::Srid(_) => "SRID",
        ColumnOption::Invisible => "INVISIBLE",
    }
}

/// Hive declares partition columns here, with types; Delta names columns of the table.
fn partition_column(reader: &mut Reader<'_>) -> Result<Ident> {
    let name = reader.identifier()?;
    if reader.sees_symbol(0, &Token::Comma) || reader.sees_symbol(0, &Token::RParen) {
        return Ok(name);
    }
    Err(reader.expected(", or )").with_hint(
        "PARTITIONED BY names columns that are declared in the table's list, with their types",
    ))
}

fn check_table(table: &CreateTable, reader: &Reader<'_>) -> Result<()> {
    if table.columns.is_empty() && table.query.is_none() {
        return Err(reader.expected("a list of columns or AS and a query"));
    }
    for (i, name) in table.partitioned_by.iter().enumerate() {
        let wanted = fold(name);
        let earlier = &table.partitioned_by[..i];
        let error = if earlier.iter().any(|seen| fold(seen) == wanted) {
            Error::invalid(format!("PARTITIONED BY names column {name} twice"))
        } else if table.columns.is_empty()
            || table
                .columns
                .iter()
                .any(|column| fold(&column.name) == wanted)
        {
            continue;
        } else {
            let columns = table.columns.iter().map(|column| fold(&column.name));
            let error = Error::invalid(format!(
                "PARTITIONED BY names column {name}, which the table does not have"
            ));
            match nearest(&wanted, columns) {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error,
            }
        };
        return Err(syntax::at(error, name.span.start));
    }
    Ok(())
}

fn external_table(reader: &mut Reader<'_>) -> Result<Statement> {
    let if_not_exists = reader.take(&["IF", "NOT", "EXISTS"]);
    let name = reader.object_name()?;
    let mut columns: Vec<Column> = Vec::new();
    if reader.sees_symbol(0, &Token::LParen) {
        reader.list(|reader| external_column(reader, &mut columns))?;
    }
    let (mut format, mut location, mut options) = (None, None, vec![]);
    let mut seen = Once::default();
    loop {
        if reader.sees(&["STORED", "AS"]) {
            seen.first("STORED AS", reader)?;
            reader.take(&["STORED", "AS"]);
            format = Some(reader.file_format()?);
        } else if reader.sees(&["LOCATION"]) {
            seen.first("LOCATION", reader)?;
            reader.take(&["LOCATION"]);
            location = Some(reader.string()?);
        } else if reader.sees(&["OPTIONS"]) {
            seen.first("OPTIONS", reader)?;
            reader.take(&["OPTIONS"]);
            options = reader.options()?;
        } else if reader.sees(&["PARTITIONED"]) || reader.sees(&["WITH", "ORDER"]) {
            return Err(reader.unsupported("PARTITIONED BY or WITH ORDER of an external table"));
        } else if reader.sees(&["JOURNAL"]) {
            return Err(reader
                .unsupported("JOURNAL KEYS of an external table")
                .with_hint("a journal is a table of the lake: CREATE TABLE .. JOURNAL KEYS (..)"));
        } else {
            break;
        }
    }
    let (Some(format), Some(location)) = (format, location) else {
        return Err(reader.expected("STORED AS a format and LOCATION 'path'"));
    };
    Ok(Statement::CreateExternalTable(CreateExternalTable {
        name,
        if_not_exists,
        format,
        location,
        columns,
        options,
    }))
}

/// A column of files that are there already: it has a name, a type and NOT NULL, nothing to write by.
fn external_column(reader: &mut Reader<'_>, columns: &mut Vec<Column>) -> Result<()> {
    if sees_rule(reader) {
        return Err(reader
            .unsupported("EXPECT on an external table")
            .with_hint("rules are asked of rows on their way into a table of the lake"));
    }
    let place = reader.position();
    let column = column(reader, None)?;
    if column.default.is_some() {
        let error = Error::unsupported("DEFAULT on a column of an external table is not supported");
        return Err(error.with_position(place));
    }
    if columns
        .iter()
        .any(|seen| fold(&seen.name) == fold(&column.name))
    {
        let error = Error::invalid(format!("column {} is declared twice", column.name));
        return Err(error.with_position(place));
    }
    columns.push(column);
    Ok(())
}

fn view(reader: &mut Reader<'_>, or_replace: bool) -> Result<Statement> {
    let if_not_exists = if_not_exists(reader, or_replace)?;
    let name = reader.object_name()?;
    let columns = if reader.sees_symbol(0, &Token::LParen) {
        reader.list(Reader::identifier)?
    } else {
        vec![]
    };
    reader.expect(&["AS"])?;
    let (query, text) = reader.query_with_text()?;
    Ok(Statement::CreateView(CreateView {
        name,
        or_replace,
        if_not_exists,
        columns,
        query,
        text,
    }))
}

/// Clauses seen so far, each of which may stand once.
#[derive(Default)]
pub(super) struct Once(Vec<&'static str>);

impl Once {
    pub(super) fn first(&mut self, clause: &'static str, reader: &Reader<'_>) -> Result<()> {
        if self.insert(clause) {
            return Ok(());
        }
        let error = Error::invalid(format!("{clause} is given twice"));
        Err(error.with_position(reader.position()))
    }

    fn insert(&mut self, clause: &'static str) -> bool {
        let new = !self.0.contains(&clause);
        if new {
            self.0.push(clause);
        }
        new
    }
}

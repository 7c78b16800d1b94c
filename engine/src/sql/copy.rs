//! `COPY .. TO` a file and `COPY INTO` a table.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::create::Once;
use super::reader::Reader;
use super::statement::{CopyInto, CopySource, CopyTo, FileFormat, Statement};
use crate::error::{Error, Position, Result};

pub(super) fn copy(reader: &mut Reader<'_>) -> Result<Statement> {
    reader.expect(&["COPY"])?;
    if reader.take(&["INTO"]) {
        return copy_into(reader);
    }
    let source = if reader.take_symbol(&Token::LParen) {
        let query = reader.query()?;
        reader.expect_symbol(&Token::RParen)?;
        CopySource::Query(query)
    } else {
        CopySource::Table(reader.object_name()?)
    };
    if reader.sees(&["FROM"]) {
        return Err(reader
            .unsupported("COPY t FROM")
            .with_hint("COPY INTO t FROM 'files' loads files"));
    }
    if matches!(source, CopySource::Table(_)) && !reader.sees(&["TO"]) {
        return Err(reader.expected("TO").with_hint(
            "COPY (SELECT .. FROM t) TO 'file' writes chosen columns, rows or versions",
        ));
    }
    reader.expect(&["TO"])?;
    let target = reader.string()?;
    let clauses = clauses(reader)?;
    if let Some(place) = clauses.debezium {
        let error = Error::unsupported("COPY .. TO a file as DEBEZIUM is not supported")
            .with_hint("COPY INTO t FROM 'files' FORMAT DEBEZIUM reads changes of a journal");
        return Err(error.with_position(place));
    }
    Ok(Statement::CopyTo(CopyTo {
        source,
        target,
        format: clauses.format,
        options: clauses.options,
    }))
}

fn copy_into(reader: &mut Reader<'_>) -> Result<Statement> {
    let table = reader.object_name()?;
    let columns = if reader.sees_symbol(0, &Token::LParen) {
        reader.list(Reader::identifier)?
    } else {
        vec![]
    };
    reader.expect(&["FROM"])?;
    if reader.sees_symbol(0, &Token::LParen) && reader.peek_word(1).is_some() {
        return Err(reader
            .unsupported("COPY INTO .. FROM (query)")
            .with_hint("INSERT INTO t SELECT .. FROM 'files' loads the answer of a query"));
    }
    let files = if reader.sees_symbol(0, &Token::LParen) {
        reader.list(Reader::string)?
    } else {
        vec![reader.string()?]
    };
    let clauses = clauses(reader)?;
    if let (Some(place), false) = (clauses.debezium, columns.is_empty()) {
        let error = Error::invalid("FORMAT DEBEZIUM and a list of columns exclude each other")
            .with_hint("the fields of a change are found by their names");
        return Err(error.with_position(place));
    }
    Ok(Statement::CopyInto(CopyInto {
        table,
        columns,
        files,
        format: clauses.format,
        debezium: clauses.debezium.is_some(),
        options: clauses.options,
    }))
}

#[derive(Default)]
struct Clauses {
    format: Option<FileFormat>,
    /// Where it is named. Not a format of files: lines that say what changed.
    debezium: Option<Position>,
    options: Vec<(String, String)>,
}

/// `{STORED AS | FORMAT | FILEFORMAT} format` and `OPTIONS (..)`, in any order.
fn clauses(reader: &mut Reader<'_>) -> Result<Clauses> {
    let mut clauses = Clauses::default();
    let mut seen = Once::default();
    loop {
        let place = reader.position();
        if reader.sees(&["OPTIONS"]) {
            seen.first("OPTIONS", reader)?;
            reader.take(&["OPTIONS"]);
            clauses.options = reader.options()?;
        } else if reader.take(&["STORED", "AS"])
            || reader.take(&["FORMAT"])
            || reader.take(&["FILEFORMAT"])
        {
            seen.first("the file format", reader)?;
            reader.take_symbol(&Token::Eq);
            if reader.take(&["DEBEZIUM"]) {
                clauses.debezium = Some(place);
                continue;
            }
            let named = reader.file_format()?;
            if named == FileFormat::Delta {
                let error = Error::unsupported("COPY reads and writes files, not DELTA tables")
                    .with_hint("CREATE EXTERNAL TABLE .. STORED AS DELTA registers a DELTA table");
                return Err(error.with_position(place));
            }
            clauses.format = Some(named);
        } else if reader.sees(&["PARTITIONED"]) {
            return Err(reader.unsupported("COPY .. PARTITIONED BY"));
        } else {
            return Ok(clauses);
        }
    }
}

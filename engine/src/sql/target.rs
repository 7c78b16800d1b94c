//! The table that a statement changes, and the columns that it names there.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::reader::Reader;
use super::statement::{fold, folded};
use crate::error::{Error, Position, Result};

/// The target of a statement that may give it another name.
pub(super) struct Target {
    pub(super) table: ObjectName,
    pub(super) alias: Option<Ident>,
}

impl Target {
    /// `t [[AS] alias]`
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        refuse_only(reader)?;
        let table = reader.object_name()?;
        refuse_clauses(reader)?;
        let alias = reader.alias()?;
        refuse_clauses(reader)?;
        Ok(Self { table, alias })
    }

    /// A column of the target. The alias or the table's name may stand before it; any other name there
    /// is that of a column whose field is meant.
    pub(super) fn column(&self, reader: &mut Reader<'_>) -> Result<Ident> {
        let place = reader.position();
        let mut column = reader.identifier()?;
        let mut qualifier = Vec::new();
        while reader.take_symbol(&Token::Period) {
            qualifier.push(std::mem::replace(&mut column, reader.identifier()?));
        }
        if reader.sees_symbol(0, &Token::LBracket) {
            return Err(reader
                .unsupported("a place inside a column's value")
                .with_hint("assign the whole column"));
        }
        if self.owns(&qualifier) {
            return Ok(column);
        }
        let name = self.alias.clone().map_or_else(
            || self.table.to_string(),
            |alias| ObjectName::from(vec![alias]).to_string(),
        );
        qualifier.push(column);
        let field = ObjectName::from(qualifier);
        let error = Error::unsupported(format!("the nested field {field} as a target is not supported"))
            .with_hint(format!("assign the whole column; the columns of the table itself are named alone or after {name}"));
        Err(error.with_position(place))
    }

    /// Whether these words before a column name the target. None do, always.
    fn owns(&self, qualifier: &[Ident]) -> bool {
        let qualifier: Vec<String> = qualifier.iter().map(fold).collect();
        let alias = self.alias.as_ref().map(fold);
        folded(&self.table).ends_with(&qualifier) || qualifier.iter().eq(&alias)
    }
}

/// `[TABLE] t`, in a statement about the whole table.
pub(super) fn whole_table(reader: &mut Reader<'_>) -> Result<ObjectName> {
    if reader.sees_name(1) {
        reader.take(&["TABLE"]);
    }
    named_table(reader)
}

/// `t`, in a statement about the whole table.
pub(super) fn named_table(reader: &mut Reader<'_>) -> Result<ObjectName> {
    if reader.sees(&["IF", "EXISTS"]) {
        return Err(reader
            .unsupported("IF EXISTS here")
            .with_hint("only CREATE and DROP may find their table there or not"));
    }
    refuse_only(reader)?;
    reader.object_name()
}

/// `( column, column, .. )`, no column twice.
pub(super) fn distinct<'a>(
    reader: &mut Reader<'a>,
    mut column: impl FnMut(&mut Reader<'a>) -> Result<Ident>,
) -> Result<Vec<Ident>> {
    let mut seen = Columns::default();
    reader.list(|reader| {
        let place = reader.position();
        let column = column(reader)?;
        seen.add(&column, "named", place)?;
        Ok(column)
    })
}

/// The columns of a list so far, each of which may stand once.
#[derive(Default)]
pub(super) struct Columns(HashSet<String>);

impl Columns {
    pub(super) fn add(&mut self, column: &Ident, done: &str, place: Position) -> Result<()> {
        if self.0.insert(fold(column)) {
            return Ok(());
        }
        Err(Error::invalid(format!("column {column} is {done} twice")).with_position(place))
    }
}

/// Whether the next token is this word and the name of a table comes after it. A table may have the
/// word for its name; then the statement goes on.
pub(super) fn before_name(reader: &Reader<'_>, word: &str) -> bool {
    let name = reader.sees_alias(1) && !reader.sees(&[word, "AS"]);
    reader.sees(&[word]) && (name || reader.sees_symbol(1, &Token::LParen))
}

fn refuse_only(reader: &Reader<'_>) -> Result<()> {
    if before_name(reader, "ONLY") {
        return Err(reader
            .unsupported("ONLY")
            .with_hint("leave it out: no table has others below it"));
    }
    Ok(())
}

/// Refuses clauses that may stand on a table which is read.
pub(super) fn refuse_clauses(reader: &Reader<'_>) -> Result<()> {
    if reader.sees(&["FOR", "PORTION", "OF"]) {
        return Err(reader
            .unsupported("FOR PORTION OF")
            .with_hint("name the rows in WHERE"));
    }
    let version = ["VERSION", "TIMESTAMP"]
        .iter()
        .any(|word| reader.sees(&[word, "AS", "OF"]))
        || reader.sees(&["FOR"])
        || ["AT", "BEFORE"].iter().any(|word| reader.sees(&[word]))
            && reader.sees_symbol(1, &Token::LParen);
    if version {
        let error = Error::invalid("a version clause cannot stand on the table that is written")
            .with_hint("rows are always written to the newest version");
        return Err(error.with_position(reader.position()));
    }
    if reader.sees(&["PARTITION"]) {
        return Err(reader
            .unsupported("PARTITION (..) on the table that is written")
            .with_hint("partition columns are columns: DELETE, UPDATE and MERGE find them in their conditions"));
    }
    Ok(())
}

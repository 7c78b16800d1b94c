//! From what a statement says of a journal to what its table keeps of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::journal::definition::{
    self, COLUMNS, Definition, MAX_DELETE_FRACTION, OPEN_END, OpenEnd, PROPERTY, PeriodColumns,
};
use crate::journal::shape::Shape;
use crate::quality::check;
use crate::session::properties::{APPEND_ONLY, OVERWRITE};
use crate::session::scope::Scope;
use crate::session::site::DELETION_VECTORS;
use crate::sql::{self, JournalClause};

/// The columns of a journal that a statement makes with `declared` ones, and by which of them it is partitioned. What
/// else it keeps of it goes to the properties.
pub(in crate::session) fn described(
    scope: &Arc<Scope>,
    table: &str,
    declared: &SchemaRef,
    clause: &JournalClause,
    partitioned_by: &[String],
    properties: &mut BTreeMap<String, String>,
) -> Result<(SchemaRef, Vec<String>)> {
    let definition = define(scope, table, declared, clause, properties)?;
    let flag = definition.columns.current.clone();
    if !partitioned_by.is_empty() {
        return Err(Error::invalid(format!(
            "table {table}: PARTITIONED BY of a journal table: it is partitioned by {flag}"
        ))
        .with_hint(
            "leave it out: rows lie in the order of their keys, by which files are skipped",
        ));
    }
    let stored = Shape::with_period(declared, &definition.columns)?;
    properties.extend([definition::property(&definition)?]);
    // Rows that end are marked in files that stay, from the first write on.
    properties.insert(DELETION_VECTORS.to_owned(), "true".to_owned());
    fits(table, properties)?;
    Ok((stored, vec![flag]))
}

/// The definition that a clause and the options beside it make. Everything wrong with it is told.
fn define(
    scope: &Arc<Scope>,
    table: &str,
    declared: &SchemaRef,
    clause: &JournalClause,
    properties: &BTreeMap<String, String>,
) -> Result<Definition> {
    let columns = properties.get(COLUMNS).map(|text| period(table, text));
    let open_end = properties.get(OPEN_END).map(|text| {
        OpenEnd::named(text).ok_or_else(|| {
            Error::invalid(format!(
                "table {table}: property {OPEN_END} = '{text}' must be null or far_future"
            ))
        })
    });
    let definition = Definition {
        columns: columns.transpose()?.unwrap_or_default(),
        open_end: open_end.transpose()?.unwrap_or_default(),
        ..clause.definition()
    };
    let stored = Shape::with_period(declared, &definition.columns)
        .map_err(|error| error.ending(&format!("table {table}")))?;
    let shape = Shape::new(table, definition, &stored)?;
    if let Some(text) = &shape.definition.delete_when {
        deletes(scope, table, text, &shape.declared)?;
    }
    Ok(shape.definition)
}

/// Refuses a predicate that could not tell of a row whether it ends something.
fn deletes(scope: &Arc<Scope>, table: &str, text: &str, declared: &SchemaRef) -> Result<()> {
    const NAME: &str = "APPLY AS DELETE";
    let compiled = check::compile(&scope.state(), table, NAME, text, declared);
    compiled.map(drop).map_err(|error| {
        let said = error.message();
        let said = said.replacen(&format!("CHECK {NAME}"), "APPLY AS DELETE WHEN", 1);
        error.reworded(said)
    })
}

/// What the period columns are called.
fn period(table: &str, text: &str) -> Result<PeriodColumns> {
    PeriodColumns::named(text).ok_or_else(|| {
        let presets: Vec<&str> = PeriodColumns::presets().collect();
        let error = Error::invalid(format!(
            "table {table}: property {COLUMNS} = '{text}' must be {} or three names: 'from,to,current'",
            presets.join(", ")
        ));
        match sql::nearest(text, presets) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error,
        }
    })
}

/// Refuses options of a journal on a table that is none, and on a journal those under which it could not be kept.
pub(in crate::session) fn fits(table: &str, properties: &BTreeMap<String, String>) -> Result<()> {
    if !properties.contains_key(PROPERTY) {
        let options = [COLUMNS, OPEN_END, MAX_DELETE_FRACTION];
        return match options
            .into_iter()
            .find(|key| properties.contains_key(*key))
        {
            Some(key) => Err(Error::invalid(format!(
                "table {table}: {key} of a table without JOURNAL KEYS"
            ))
            .with_hint("CREATE TABLE t (..) JOURNAL KEYS (client_id) makes a journal table")),
            None => Ok(()),
        };
    }
    let refused = [
        (
            APPEND_ONLY,
            "true",
            "an interval that ends is a row that goes",
        ),
        (
            OVERWRITE,
            "partitions",
            "INSERT OVERWRITE of a journal is a snapshot of all its keys",
        ),
    ];
    for (key, value, why) in refused {
        if properties.get(key).is_some_and(|set| set == value) {
            return Err(Error::invalid(format!(
                "table {table}: a journal table cannot have {key} = '{value}': {why}"
            )));
        }
    }
    Ok(())
}

/// Refuses to set or unset what the files of a journal are written by.
pub(in crate::session) fn settable(table: &str, key: &str) -> Result<()> {
    if ![PROPERTY, COLUMNS, OPEN_END].contains(&key) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "table {table}: {key} is fixed when the table is made"
    ))
    .with_hint("CREATE TABLE .. JOURNAL KEYS (..) AS SELECT makes another journal of the rows"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn options_of_a_journal_need_one() {
        for key in [COLUMNS, OPEN_END, MAX_DELETE_FRACTION] {
            let error = fits("s.t", &properties(&[(key, "1")])).unwrap_err();
            assert_eq!(
                error.message(),
                format!("table s.t: {key} of a table without JOURNAL KEYS")
            );
        }
        let journal = [(PROPERTY, "{}"), (MAX_DELETE_FRACTION, "1")];
        assert!(fits("s.t", &properties(&journal)).is_ok());
    }

    #[test]
    fn a_journal_refuses_what_would_break_it() {
        let error = fits(
            "s.t",
            &properties(&[(PROPERTY, "{}"), (APPEND_ONLY, "true")]),
        )
        .unwrap_err();
        assert!(
            error
                .message()
                .starts_with("table s.t: a journal table cannot have delta.appendOnly = 'true'"),
            "{error}"
        );
        assert!(settable("s.t", MAX_DELETE_FRACTION).is_ok());
        let error = settable("s.t", COLUMNS).unwrap_err();
        assert_eq!(
            error.message(),
            "table s.t: selvedge.journal.columns is fixed when the table is made"
        );
    }

    #[test]
    fn names_of_period_columns_are_presets_or_three_names() {
        assert_eq!(period("s.t", "dbt").unwrap().from, "dbt_valid_from");
        let error = period("s.t", "stichfix").unwrap_err();
        assert_eq!(error.hint(), Some("did you mean stitchfix?"));
    }
}

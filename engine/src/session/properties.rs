//! Properties a table may be given, and what each must say.

use super::constraint;
use crate::cleanse::policy;
use crate::error::{Error, Result};
use crate::journal::definition;
use crate::maintenance::auto;
use crate::quality::rule;
use crate::sql;
use crate::table::{mapping, retention, widening};

/// What INSERT OVERWRITE replaces: `table` (the default) or only the `partitions` present in the rows.
pub(super) const OVERWRITE: &str = "selvedge.overwrite";

/// Whether rows may only come, and never go.
pub(super) const APPEND_ONLY: &str = "delta.appendOnly";

enum Form {
    Boolean,
    /// A whole number from this one on.
    Number(i64),
    /// Names, separated by commas.
    Columns,
    /// An interval without months.
    Duration,
    /// A number from 0 to 1.
    Fraction,
    /// What only the statement that makes the table can tell.
    Any,
    OneOf(&'static [&'static str]),
}

const KNOWN: [(&str, Form); 17] = [
    (APPEND_ONLY, Form::Boolean),
    ("delta.checkpointInterval", Form::Number(1)),
    (mapping::MODE, Form::OneOf(&["name"])),
    ("delta.dataSkippingNumIndexedCols", Form::Number(-1)),
    ("delta.dataSkippingStatsColumns", Form::Columns),
    (widening::ENABLED, Form::Boolean),
    (retention::DELETED_FILES, Form::Duration),
    (retention::LOG_CLEANUP, Form::Boolean),
    (retention::LOG, Form::Duration),
    (auto::PROPERTY, Form::Boolean),
    (OVERWRITE, Form::OneOf(&["table", "partitions"])),
    (rule::PROFILE, Form::Boolean),
    (rule::QUARANTINE_INVALID, Form::Boolean),
    (retention::QUARANTINE, Form::Duration),
    (definition::COLUMNS, Form::Any),
    (definition::OPEN_END, Form::OneOf(&["null", "far_future"])),
    (definition::MAX_DELETE_FRACTION, Form::Fraction),
];

/// Refuses properties nobody would honour.
pub(super) fn check(table: &str, key: &str, value: &str) -> Result<()> {
    let Some((_, form)) = KNOWN.iter().find(|(known, _)| *known == key) else {
        return Err(unknown(table, key));
    };
    let wrong = |must: &str| {
        Err(Error::invalid(format!(
            "table {table}: property {key} = '{value}' must be {must}"
        )))
    };
    match form {
        Form::Boolean if !matches!(value, "true" | "false") => wrong("true or false"),
        Form::Number(least) => match value.parse::<i64>() {
            Ok(number) if number >= *least => Ok(()),
            _ => wrong(&format!("a whole number from {least} on")),
        },
        Form::Columns if value.trim().is_empty() => wrong("a list of columns"),
        Form::Duration if retention::parse(value).is_none() => {
            wrong("a duration like 'interval 7 days'")
        }
        Form::Fraction if definition::fraction(value).is_none() => wrong("a number from 0 to 1"),
        Form::OneOf(values) if !values.contains(&value) => wrong(&values.join(" or ")),
        _ => Ok(()),
    }
}

/// Refuses names that are no property a user sets.
pub(super) fn known(table: &str, key: &str) -> Result<()> {
    match KNOWN.iter().any(|(known, _)| *known == key) {
        true => Ok(()),
        false => Err(unknown(table, key)),
    }
}

fn unknown(table: &str, key: &str) -> Error {
    if key.starts_with(policy::PROPERTY) {
        return Error::invalid(format!(
            "table {table}: {key} is a cleanse policy, not a property to set or unset"
        ))
        .with_hint("CREATE CLEANSE POLICY checks it first, DROP CLEANSE POLICY takes it away");
    }
    if key == definition::PROPERTY {
        return Error::invalid(format!(
            "table {table}: {key} is the definition of a journal, not a property to set or unset"
        ))
        .with_hint("CREATE TABLE .. JOURNAL KEYS (..) makes a journal table");
    }
    if [constraint::CHECK, rule::PROPERTY]
        .iter()
        .any(|prefix| key.starts_with(prefix))
    {
        return Error::invalid(format!(
            "table {table}: {key} is a constraint, not a property to set or unset"
        ))
        .with_hint("ALTER TABLE .. ADD CONSTRAINT checks it first, ALTER TABLE .. DROP CONSTRAINT takes it away");
    }
    let names = || KNOWN.iter().map(|(name, _)| *name);
    let error = Error::invalid(format!("table {table}: there is no property {key}"));
    match sql::nearest(key, names()) {
        Some(near) => error.with_hint(format!("did you mean {near}?")),
        None => error.with_hint(format!(
            "properties: {}",
            names().collect::<Vec<_>>().join(", ")
        )),
    }
}

//! What is wrong with a quarantined row, and the columns in which quarantine keeps it.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, ListBuilder, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use super::rule::Rule;
use crate::error::{Error, Result};

/// Column that names one row for good: its file, and its position in it.
pub(crate) const ID: &str = "_id";
/// Column that holds the version whose write a row was part of.
pub(crate) const VERSION: &str = "_version";
/// Column that holds the instant of that version.
pub(crate) const WRITTEN_AT: &str = "_written_at";
/// Column that holds all that is wrong with a row.
pub(crate) const FAILURES: &str = "_failures";
/// Column that holds a row as it came, as JSON, where it did not fit the table.
pub(crate) const ROW: &str = "_row";
/// Column that says whether a row was to take the place of one of the table, which has stayed as it was.
pub(crate) const REPLACES: &str = "_replaces";
/// Column of files alone, with the names, as files have them, of the columns that a value of the row did not fit.
pub(crate) const UNFIT: &str = "__selvedge_unfit";

/// The names that a quarantine has for columns of its own.
const RESERVED: [&str; 7] = [ID, VERSION, WRITTEN_AT, FAILURES, ROW, REPLACES, UNFIT];

/// The columns that files of quarantine have before those of the table.
pub(crate) const OWN: [&str; 4] = [FAILURES, ROW, REPLACES, UNFIT];

/// Refuses a table with a column whose name quarantined rows have for something else.
pub(crate) fn quarantinable(table: &str, columns: &Schema) -> Result<()> {
    match reserved(columns) {
        None => Ok(()),
        Some(column) => Err(Error::invalid(format!(
            "table {table} cannot have both a quarantine and a column {column}: quarantined rows have a {column} of their own"
        ))
        .with_hint("give the column another name")),
    }
}

/// The first column of a table whose name a quarantine has for one of its own, so that the table can have none.
fn reserved(table: &Schema) -> Option<&str> {
    let mut names = table.fields().iter().map(|field| field.name().as_str());
    names.find(|name| RESERVED.contains(name))
}

/// One thing that is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Name of the rule, or of what the table itself demands: `not null(id)`, `cast(amount)`, `check positive`.
    pub rule: String,
    pub fingerprint: Option<String>,
    pub message: String,
    /// The values that were asked: `amount = -5.00`.
    pub value: String,
    pub columns: Vec<String>,
}

impl Failure {
    pub(super) fn of_rule(
        rule: &Rule,
        message: String,
        value: String,
        columns: Vec<String>,
    ) -> Self {
        Self {
            rule: rule.name.clone(),
            fingerprint: Some(rule.fingerprint.clone()),
            message,
            value,
            columns,
        }
    }
}

/// A failure as it is kept.
static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let columns = Field::new_list_field(DataType::Utf8, true);
    Fields::from(vec![
        text("rule"),
        text("fingerprint"),
        text("message"),
        text("value"),
        Field::new("columns", DataType::List(Arc::new(columns)), true),
    ])
});

/// The type of [`FAILURES`].
pub(crate) fn failures_type() -> DataType {
    let failure = Field::new_list_field(DataType::Struct(FIELDS.clone()), true);
    DataType::List(Arc::new(failure))
}

/// The type of [`UNFIT`].
pub(crate) fn unfit_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// What files of quarantine call a column that the table's own files call `name`. A column that was renamed keeps
/// its name in files, which may be one that quarantine has for itself; no name that SQL gives has a blank there.
pub(crate) fn kept_as(name: &str) -> Cow<'_, str> {
    match RESERVED.contains(&name) {
        true => Cow::Owned(format!("{name} of the table")),
        false => Cow::Borrowed(name),
    }
}

/// The columns of a file of quarantine beside a table of these columns.
pub(crate) fn quarantine_schema(table: &Schema) -> SchemaRef {
    let own = [
        Field::new(FAILURES, failures_type(), true),
        Field::new(ROW, DataType::Utf8, true),
        Field::new(REPLACES, DataType::Boolean, true),
        Field::new(UNFIT, unfit_type(), true),
    ];
    let columns = table.fields().iter().map(|field| {
        // What made the row invalid may be just that a value is missing.
        Field::new(kept_as(field.name()), field.data_type().clone(), true)
    });
    Arc::new(Schema::new(
        own.into_iter().chain(columns).collect::<Vec<_>>(),
    ))
}

/// The failures of some rows as a column.
pub(crate) fn column<'a>(rows: impl Iterator<Item = &'a [Failure]>) -> ArrayRef {
    let text = || Box::new(StringBuilder::new()) as Box<dyn arrow::array::ArrayBuilder>;
    let columns = ListBuilder::new(StringBuilder::new());
    let failure = StructBuilder::new(
        FIELDS.clone(),
        vec![text(), text(), text(), text(), Box::new(columns)],
    );
    let mut list = ListBuilder::new(failure);
    for failures in rows {
        for failure in failures {
            let into = list.values();
            let texts = [
                Some(&failure.rule),
                failure.fingerprint.as_ref(),
                Some(&failure.message),
                Some(&failure.value),
            ];
            for (at, text) in texts.into_iter().enumerate() {
                if let Some(field) = into.field_builder::<StringBuilder>(at) {
                    field.append_option(text);
                }
            }
            if let Some(names) = into.field_builder::<ListBuilder<StringBuilder>>(texts.len()) {
                for name in &failure.columns {
                    names.values().append_value(name);
                }
                names.append(true);
            }
            into.append(true);
        }
        list.append(true);
    }
    Arc::new(list.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str]) -> Schema {
        let fields = names
            .iter()
            .map(|name| Field::new(*name, DataType::Int64, false));
        Schema::new(fields.collect::<Vec<_>>())
    }

    #[test]
    fn names_of_its_own_are_reserved_and_never_there_twice() {
        assert_eq!(reserved(&table(&["a", "_rows", "_ID"])), None);
        assert_eq!(reserved(&table(&["a", "_row", "_id"])), Some("_row"));
        for name in RESERVED {
            assert_eq!(reserved(&table(&["a", name])), Some(name));
        }
        let all: Vec<&str> = RESERVED.into_iter().chain(["a"]).collect();
        let schema = quarantine_schema(&table(&all));
        let mut names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names[..OWN.len()], OWN);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OWN.len() + all.len());
    }
}

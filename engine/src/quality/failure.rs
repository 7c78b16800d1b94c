//! What is wrong with a quarantined row, and the columns in which quarantine keeps it.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, ListBuilder, StringBuilder, StructBuilder};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use super::rule::Rule;

/// Column that holds all that is wrong with a row.
pub(crate) const FAILURES: &str = "_failures";
/// Column that holds a row as it came, as JSON, where it did not fit the table.
pub(crate) const ROW: &str = "_row";

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

/// The columns of a file of quarantine beside a table of these columns.
pub(crate) fn quarantine_schema(table: &Schema) -> SchemaRef {
    let own = [
        Field::new(FAILURES, failures_type(), true),
        Field::new(ROW, DataType::Utf8, true),
    ];
    let columns = table.fields().iter().map(|field| {
        // What made the row invalid may be just that a value is missing.
        Field::new(field.name(), field.data_type().clone(), true)
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

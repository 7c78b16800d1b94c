//! Values and types as messages show them.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::table::schema::personal;

/// How many offending values an error shows.
pub(crate) const SHOWN_VALUES: usize = 3;
/// How many characters of each.
const SHOWN_CHARACTERS: usize = 60;

/// The first few of `rows` as text, each cut to a readable length.
pub(crate) fn shown(array: &ArrayRef, rows: &[usize]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let Ok(formatter) = ArrayFormatter::try_new(array, &options) else {
        return Vec::new();
    };
    let quoted = matches!(
        array.data_type(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    );
    rows.iter()
        .take(SHOWN_VALUES)
        .map(|row| {
            let text = formatter.value(*row).to_string();
            let mut short: String = text.chars().take(SHOWN_CHARACTERS).collect();
            if short.len() < text.len() {
                short.push_str("...");
            }
            if quoted && array.is_valid(*row) {
                format!("'{short}'")
            } else {
                short
            }
        })
        .collect()
}

/// Stands for a value that is not shown.
pub(crate) const HIDDEN: &str = "***";

/// The same for values of a column: those that tell something of a person are not shown.
pub(crate) fn shown_of(column: &Field, array: &ArrayRef, rows: &[usize]) -> Vec<String> {
    let shown = shown(array, rows);
    match personal(column) {
        true => vec![HIDDEN.to_owned(); shown.len()],
        false => shown,
    }
}

/// A type as it is written in SQL.
pub(crate) fn sql_name(of: &DataType) -> String {
    use DataType::*;
    match of {
        Boolean => "BOOLEAN".into(),
        Int8 => "TINYINT".into(),
        Int16 => "SMALLINT".into(),
        Int32 => "INT".into(),
        Int64 => "BIGINT".into(),
        Float32 => "REAL".into(),
        Float64 => "DOUBLE".into(),
        Decimal32(precision, scale)
        | Decimal64(precision, scale)
        | Decimal128(precision, scale)
        | Decimal256(precision, scale) => format!("DECIMAL({precision},{scale})"),
        Utf8 | LargeUtf8 | Utf8View => "TEXT".into(),
        Binary | LargeBinary | BinaryView => "BINARY".into(),
        Date32 | Date64 => "DATE".into(),
        Timestamp(_, None) => "TIMESTAMP".into(),
        Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE".into(),
        Dictionary(_, values) => sql_name(values),
        List(field) | LargeList(field) | FixedSizeList(field, _) => {
            format!("ARRAY<{}>", sql_name(field.data_type()))
        }
        Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), sql_name(field.data_type())))
                .collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        Map(entries, _) => match entries.data_type() {
            Struct(parts) if parts.len() == 2 => format!(
                "MAP<{}, {}>",
                sql_name(parts[0].data_type()),
                sql_name(parts[1].data_type())
            ),
            _ => "MAP".into(),
        },
        other => other.to_string(),
    }
}

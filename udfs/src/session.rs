//! `current_schema()`, `current_database()` and their kin: the names a session resolves against.

use std::sync::Arc;

use datafusion::arrow::array::StringArray;
use datafusion::arrow::datatypes::DataType;
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::ScalarUDF;

use crate::scalar::{Told, stable};

/// The functions of this room.
pub fn functions() -> Vec<ScalarUDF> {
    // Stable: the same within a statement, another after USE.
    let text = |name, about, example, read: fn(&ConfigOptions) -> &str| {
        let told = Told {
            name,
            parameters: &[],
            returns: DataType::Utf8,
            about,
            example,
        };
        stable(told, move |call| {
            Ok(Arc::new(StringArray::from(vec![read(call.options)])))
        })
    };
    vec![
        text(
            "current_schema",
            "The schema that unqualified names mean.",
            "SELECT current_schema() -- public",
            |options| &options.catalog.default_schema,
        ),
        text(
            "current_database",
            "The catalog, under the name that drivers of other systems ask for.",
            "SELECT current_database() -- lake",
            |options| &options.catalog.default_catalog,
        ),
        text(
            "current_catalog",
            "The catalog.",
            "SELECT current_catalog -- lake",
            |options| &options.catalog.default_catalog,
        ),
        text(
            "version",
            "Name and version of this engine.",
            concat!("SELECT version() -- Selvedge ", env!("CARGO_PKG_VERSION")),
            |_| concat!("Selvedge ", env!("CARGO_PKG_VERSION")),
        ),
    ]
}

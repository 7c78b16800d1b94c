//! `current_schema()`, `current_database()` and their kin: the names a session resolves against.

use std::fmt;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The functions of this room.
pub fn functions() -> Vec<ScalarUDF> {
    let all: [(&'static str, Read); 4] = [
        ("current_schema", |options| {
            options.catalog.default_schema.clone()
        }),
        ("current_database", |options| {
            options.catalog.default_catalog.clone()
        }),
        ("current_catalog", |options| {
            options.catalog.default_catalog.clone()
        }),
        ("version", |_| {
            concat!("Selvedge ", env!("CARGO_PKG_VERSION")).to_owned()
        }),
    ];
    all.into_iter()
        .map(|(name, read)| ScalarUDF::from(SessionText::new(name, read)))
        .collect()
}

type Read = fn(&ConfigOptions) -> String;

/// A text without arguments that the session's options hold.
struct SessionText {
    name: &'static str,
    read: Read,
    signature: Signature,
}

impl SessionText {
    fn new(name: &'static str, read: Read) -> Self {
        // Stable: the same within a statement, another after USE.
        let signature = Signature::exact(Vec::new(), Volatility::Stable);
        Self {
            name,
            read,
            signature,
        }
    }
}

impl ScalarUDFImpl for SessionText {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let text = (self.read)(&call.config_options);
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))))
    }
}

// The name alone tells these functions apart.
impl PartialEq for SessionText {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SessionText {}

impl std::hash::Hash for SessionText {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for SessionText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionText")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

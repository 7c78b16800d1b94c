//! A journal without SEQUENCE BY cannot keep several changes of one key in one write.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;
use crate::journal::shape::Shape;

/// True for the first change of a key; a second one is an error.
pub(super) fn of(shape: &Shape) -> ScalarUDF {
    let keys: Vec<&str> = shape.key_names().collect();
    ScalarUDF::from(Once {
        // Volatile, so that nobody asks it of rows that are none, or not at all.
        signature: Signature::exact(vec![DataType::UInt64], Volatility::Volatile),
        table: shape.table.clone(),
        keys: keys.join(", "),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Once {
    signature: Signature,
    table: String,
    keys: String,
}

impl ScalarUDFImpl for Once {
    fn name(&self) -> &str {
        "__selvedge_once"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let numbers = ColumnarValue::values_to_arrays(&args.args)?;
        let numbers = numbers
            .first()
            .map(|numbers| numbers.as_primitive::<UInt64Type>());
        let again = numbers.map_or(0, |numbers| {
            numbers
                .iter()
                .flatten()
                .filter(|number| *number == 2)
                .count()
        });
        if again > 0 {
            let (table, keys) = (&self.table, &self.keys);
            return Err(Error::rejected(format!(
                "table {table}: {again} or more values of its key ({keys}) have several changes in one load, and it has no SEQUENCE BY to keep their order"
            ))
            .with_hint("make the table with SEQUENCE BY, or load the changes of a key one at a time")
            .into());
        }
        Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))
    }
}

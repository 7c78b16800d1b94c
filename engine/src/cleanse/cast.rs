//! Values in the type that others are compared in.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::DataType;

/// The values in that type, NULL where they do not fit it: what is no value of a column equals no key of it.
pub(crate) fn fit(values: &ArrayRef, to: &DataType) -> ArrayRef {
    if values.data_type() == to {
        return Arc::clone(values);
    }
    let none = || new_null_array(to, values.len());
    if !can_cast_types(values.data_type(), to) {
        return none();
    }
    let safe = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    cast_with_options(values, to, &safe).unwrap_or_else(|_| none())
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn what_does_not_fit_is_null() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), Some("many"), None]));
        let numbers = fit(&texts, &DataType::Int64);
        let numbers: Vec<_> = numbers.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(numbers, [Some(7), None, None]);
        let field = arrow::datatypes::Field::new("a", DataType::Int64, true);
        let nested = DataType::Struct(vec![field].into());
        assert_eq!(fit(&texts, &nested).null_count(), 3);
    }
}

//! Arguments row by row, whatever array they come in. A constant stays one value.

use datafusion::arrow::array::{
    Array, AsArray, BinaryArray, BinaryViewArray, LargeBinaryArray, LargeStringArray, StringArray,
    StringViewArray,
};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::ColumnarValue;

/// An argument of text.
pub(crate) enum Texts<'a> {
    Same(Option<&'a str>),
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
}

impl<'a> Texts<'a> {
    pub(crate) fn of(value: &'a ColumnarValue) -> Result<Self> {
        let array = match value {
            ColumnarValue::Scalar(ScalarValue::Null) => return Ok(Self::Same(None)),
            ColumnarValue::Scalar(scalar) => {
                return match scalar.try_as_str() {
                    Some(text) => Ok(Self::Same(text)),
                    None => exec_err!("expected text, found {}", scalar.data_type()),
                };
            }
            ColumnarValue::Array(array) => array,
        };
        match array.data_type() {
            DataType::Utf8 => Ok(Self::Utf8(array.as_string())),
            DataType::LargeUtf8 => Ok(Self::LargeUtf8(array.as_string())),
            DataType::Utf8View => Ok(Self::Utf8View(array.as_string_view())),
            DataType::Null => Ok(Self::Same(None)),
            other => exec_err!("expected text, found {other}"),
        }
    }

    pub(crate) fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Same(text) => *text,
            Self::Utf8(array) => array.is_valid(row).then(|| array.value(row)),
            Self::LargeUtf8(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Utf8View(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

/// An argument of text or bytes.
pub(crate) enum Bytes<'a> {
    Same(Option<&'a [u8]>),
    Texts(Texts<'a>),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    BinaryView(&'a BinaryViewArray),
}

impl<'a> Bytes<'a> {
    pub(crate) fn of(value: &'a ColumnarValue) -> Result<Self> {
        use ScalarValue::{Binary, BinaryView, LargeBinary};
        let array = match value {
            ColumnarValue::Scalar(scalar) => {
                return match scalar {
                    Binary(bytes) | LargeBinary(bytes) | BinaryView(bytes) => {
                        Ok(Self::Same(bytes.as_deref()))
                    }
                    _ => match Texts::of(value)? {
                        Texts::Same(text) => Ok(Self::Same(text.map(str::as_bytes))),
                        texts => Ok(Self::Texts(texts)),
                    },
                };
            }
            ColumnarValue::Array(array) => array,
        };
        match array.data_type() {
            DataType::Binary => Ok(Self::Binary(array.as_binary())),
            DataType::LargeBinary => Ok(Self::LargeBinary(array.as_binary())),
            DataType::BinaryView => Ok(Self::BinaryView(array.as_binary_view())),
            _ => Ok(Self::Texts(Texts::of(value)?)),
        }
    }

    pub(crate) fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Self::Same(bytes) => *bytes,
            Self::Texts(texts) => texts.get(row).map(str::as_bytes),
            Self::Binary(array) => array.is_valid(row).then(|| array.value(row)),
            Self::LargeBinary(array) => array.is_valid(row).then(|| array.value(row)),
            Self::BinaryView(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

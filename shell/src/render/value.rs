//! One value as text, the same in every format but JSON's own.

use arrow::array::{Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// SQL's way to write instants, not Arrow's `T` and `Z`. A value without a text is an error, never a text of its own.
const OPTIONS: FormatOptions<'static> = FormatOptions::new()
    .with_display_error(false)
    .with_null("NULL")
    .with_datetime_format(Some("%F %T%.f"))
    .with_timestamp_format(Some("%F %T%.f"))
    .with_timestamp_tz_format(Some("%F %T%.f%:z"));

/// The values of one column of one batch.
pub(super) struct Values<'a> {
    text: Text<'a>,
    /// Logical: a dictionary may hold NULL among its values.
    nulls: Option<NullBuffer>,
}

enum Text<'a> {
    Display(ArrayFormatter<'a>),
    Json(NullableEncoder<'a>, Vec<u8>),
}

/// How lists, structs and maps are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nested {
    /// `[a, b]`, for people.
    Plain,
    /// `["a","b"]`, for programs: only this can be read back.
    Json,
}

/// The columns of a batch; `json` outlives them because the encoders borrow it.
pub(super) fn columns<'a>(
    batch: &'a RecordBatch,
    nested: Nested,
    json: &'a EncoderOptions,
) -> Result<Vec<Values<'a>>, ArrowError> {
    let fields = batch.schema_ref().fields().iter();
    fields
        .zip(batch.columns())
        .map(|(field, array)| Values::new(field, array, nested, json))
        .collect()
}

/// Nested values are written whole: a NULL in them is a NULL, not a missing key.
pub(super) fn json_options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true)
}

impl<'a> Values<'a> {
    fn new(
        field: &'a FieldRef,
        array: &'a dyn Array,
        nested: Nested,
        json: &'a EncoderOptions,
    ) -> Result<Self, ArrowError> {
        let text = match nested == Nested::Json && is_nested(field.data_type()) {
            true => Text::Json(make_encoder(field, array, json)?, Vec::new()),
            false => Text::Display(ArrayFormatter::try_new(array, &OPTIONS)?),
        };
        Ok(Self {
            text,
            nulls: array.logical_nulls(),
        })
    }

    /// Replaces `into` by the text of a value; `false` means that it is NULL.
    pub(super) fn read(&mut self, row: usize, into: &mut String) -> Result<bool, ArrowError> {
        into.clear();
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Ok(false);
        }
        match &mut self.text {
            Text::Display(formatter) => formatter.value(row).write(into)?,
            Text::Json(encoder, buffer) => {
                buffer.clear();
                encoder.encode(row, buffer);
                into.push_str(&String::from_utf8_lossy(buffer));
            }
        }
        Ok(true)
    }
}

fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_nested(values),
        // A union has no JSON of Arrow's.
        DataType::Union(..) => false,
        other => other.is_nested(),
    }
}

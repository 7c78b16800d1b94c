//! Types every client can read: the engine's rows in plain Arrow types, and the schema that says so.
//!
//! Clients compare the schema of `FlightInfo` with that of `DoGet` field by field, so both come from [`plain_schema`],
//! and every batch is brought to it: also in nullability, where plans and their execution may disagree.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, StringBuilder,
    StructArray, UnionArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use selvedge_engine::{Error, ErrorKind};
use tonic::Status;

use crate::status::refusal;

/// The schema a client sees for rows of `schema`.
pub(crate) fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(plain_field).collect();
    let plain = Schema::new_with_metadata(fields, schema.metadata().clone());
    sent_schema(Arc::new(plain))
}

/// The encoder may change a schema once more; what it will send is what must be advertised.
pub(crate) fn sent_schema(schema: SchemaRef) -> SchemaRef {
    FlightDataEncoderBuilder::new()
        .with_schema(Arc::clone(&schema))
        .build(futures::stream::empty())
        .known_schema()
        .unwrap_or(schema)
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let plain = plain_type(field.data_type());
    if plain == *field.data_type() {
        Arc::clone(field)
    } else {
        Arc::new(field.as_ref().clone().with_data_type(plain))
    }
}

/// Views, dictionaries, runs, 64-bit lists, narrow decimals and unions are unknown to many clients.
fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::Union(..) => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(plain_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        plain => plain.clone(),
    }
}

/// Brings a batch to `schema`, which [`plain_schema`] made for rows of its kind.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.num_columns() != schema.fields().len() {
        return Err(ArrowError::SchemaError(format!(
            "the plan returned {} columns, {} were announced",
            batch.num_columns(),
            schema.fields().len()
        )));
    }
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| conform_array(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

fn conform_array(array: &ArrayRef, plain: &DataType) -> Result<ArrayRef, ArrowError> {
    match (array.data_type(), plain) {
        (given, plain) if given == plain => Ok(Arc::clone(array)),
        (DataType::Union(..), DataType::Utf8) => union_text(array.as_union()),
        // Arrow's cast would look for a text child in a nested union and drop the values of all others.
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let array = array.as_struct();
            let columns = array
                .columns()
                .iter()
                .zip(fields)
                .map(|(column, field)| conform_array(column, field.data_type()))
                .collect::<Result<Vec<_>, _>>()?;
            let fields = fields.clone();
            Ok(Arc::new(StructArray::try_new_with_length(
                fields,
                columns,
                array.nulls().cloned(),
                array.len(),
            )?))
        }
        (DataType::List(_), DataType::List(item)) => {
            let array = array.as_list::<i32>();
            Ok(Arc::new(ListArray::try_new(
                Arc::clone(item),
                array.offsets().clone(),
                conform_array(array.values(), item.data_type())?,
                array.nulls().cloned(),
            )?))
        }
        // Anything else would change values on their way out: what was announced must be what was planned.
        (given, plain) if plain_type(given) != *plain => Err(ArrowError::SchemaError(format!(
            "the plan returned {given}, {plain} was announced"
        ))),
        (_, plain) => {
            let lossless = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            cast_with_options(array, plain, &lossless)
        }
    }
}

/// The text of each value of a union, without the name of the child that holds it.
fn union_text(array: &UnionArray) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let DataType::Union(fields, _) = array.data_type() else {
        return Err(ArrowError::CastError("not a union".to_owned()));
    };
    // Type ids are at most 127, and few: a plain vector finds the child's formatter.
    let mut children = (0..128).map(|_| None).collect::<Vec<_>>();
    for (id, _) in fields.iter() {
        let child = array.child(id);
        let formatter = ArrayFormatter::try_new(child.as_ref(), &options)?;
        children[usize::from(id.unsigned_abs())] = Some((child, formatter));
    }
    let mut text = StringBuilder::with_capacity(array.len(), 16 * array.len());
    for row in 0..array.len() {
        let place = array.value_offset(row);
        match &children[usize::from(array.type_id(row).unsigned_abs())] {
            Some((child, formatter)) if !child.is_null(place) => {
                text.append_value(formatter.value(place).try_to_string()?);
            }
            _ => text.append_null(),
        }
    }
    Ok(Arc::new(text.finish()))
}

/// Rows as a client reads them. Nothing runs before the first message is asked for; dropping the stream stops it.
pub(crate) fn encode(
    schema: SchemaRef,
    rows: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static,
) -> BoxStream<'static, Result<FlightData, Status>> {
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(rows.map_err(Into::into))
        .map_err(Status::from)
        .boxed()
}

/// Messages of a client as rows and schemas, validated; descriptors without data are passed over.
pub(crate) fn decode(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> impl Stream<Item = Result<DecodedPayload, Status>> + Send + Unpin {
    let messages = messages
        .try_filter(|message| std::future::ready(!message.data_header.is_empty()))
        .map_err(FlightError::from);
    FlightDataDecoder::new(messages).map(|decoded| match decoded {
        Ok(data) => Ok(data.payload),
        Err(FlightError::Tonic(status)) => Err(*status),
        Err(error) => Err(undecodable(&error)),
    })
}

fn undecodable(error: &dyn std::fmt::Display) -> Status {
    refusal(Error::new(
        ErrorKind::Invalid,
        format!("the Arrow data of the request could not be read: {error}"),
    ))
}

/// A schema as the bytes that `FlightInfo` and its relatives carry.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &Default::default())
        .try_into()
        .map_err(|error: ArrowError| unsendable(&error))?;
    Ok(bytes)
}

/// Rows that cannot be brought to the announced schema: our defect, not the client's.
pub(crate) fn unsendable(error: &ArrowError) -> Status {
    Status::internal(format!("rows could not be sent: {error}"))
}

/// A field that is never null.
pub(crate) fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        DictionaryArray, Int32Array, Int64Array, LargeListArray, StringArray, StringViewArray,
    };
    use arrow::buffer::ScalarBuffer;
    use arrow::datatypes::{Fields, Int8Type, Int32Type, UnionFields};

    fn batch(name: &str, array: ArrayRef) -> RecordBatch {
        let field = Field::new(name, array.data_type().clone(), true);
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap()
    }

    fn plain(batch: &RecordBatch) -> RecordBatch {
        conform(batch, &plain_schema(&batch.schema())).unwrap()
    }

    #[test]
    fn views_dictionaries_and_large_lists_become_plain() {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some("a"),
            None,
            Some("a text that does not fit inline"),
        ]));
        let out = plain(&batch("v", view));
        assert_eq!(
            out.column(0).as_string::<i32>(),
            &StringArray::from(vec![
                Some("a"),
                None,
                Some("a text that does not fit inline")
            ])
        );

        let dictionary: DictionaryArray<Int8Type> = vec!["x", "y", "x"].into_iter().collect();
        let out = plain(&batch("d", Arc::new(dictionary)));
        assert_eq!(
            out.column(0).as_string::<i32>(),
            &StringArray::from(vec!["x", "y", "x"])
        );

        let list = LargeListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
        ]);
        let out = plain(&batch("l", Arc::new(list)));
        let expected = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
        ]);
        assert_eq!(out.column(0).as_list::<i32>(), &expected);
    }

    #[test]
    fn views_inside_structs_become_plain() {
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
        let inner = Fields::from(vec![Field::new("s", DataType::Utf8View, true)]);
        let out = plain(&batch(
            "st",
            Arc::new(StructArray::new(inner, vec![view], None)),
        ));
        let plain_inner = Fields::from(vec![Field::new("s", DataType::Utf8, true)]);
        assert_eq!(
            out.schema().field(0).data_type(),
            &DataType::Struct(plain_inner)
        );
    }

    fn union() -> UnionArray {
        let fields = UnionFields::try_new(
            vec![0, 5],
            vec![
                Field::new("int", DataType::Int32, true),
                Field::new("str", DataType::Utf8, true),
            ],
        )
        .unwrap();
        UnionArray::try_new(
            fields,
            ScalarBuffer::from(vec![0_i8, 5, 5]),
            Some(ScalarBuffer::from(vec![0, 0, 1])),
            vec![
                Arc::new(Int32Array::from(vec![7])),
                Arc::new(StringArray::from(vec![Some("seven"), None])),
            ],
        )
        .unwrap()
    }

    #[test]
    fn unions_become_the_text_of_their_values() {
        let expected = StringArray::from(vec![Some("7"), Some("seven"), None]);
        let out = plain(&batch("u", Arc::new(union())));
        assert_eq!(out.column(0).as_string::<i32>(), &expected);

        let union = union();
        let inner = Fields::from(vec![Field::new("u", union.data_type().clone(), true)]);
        let nested = StructArray::new(inner, vec![Arc::new(union)], None);
        let out = plain(&batch("st", Arc::new(nested)));
        assert_eq!(
            out.column(0).as_struct().column(0).as_string::<i32>(),
            &expected
        );
    }

    #[test]
    fn announced_nullability_wins() {
        let announced = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let given = batch("n", Arc::new(Int64Array::from(vec![1, 2])));
        assert_eq!(conform(&given, &announced).unwrap().schema(), announced);
        let with_null = batch("n", Arc::new(Int64Array::from(vec![Some(1), None])));
        assert!(conform(&with_null, &announced).is_err());
    }

    #[test]
    fn a_plain_schema_is_what_the_encoder_sends() {
        let schema = Schema::new(vec![
            Field::new(
                "l",
                DataType::LargeList(Arc::new(Field::new("item", DataType::Utf8View, true))),
                true,
            ),
            Field::new("n", DataType::Null, true),
        ]);
        let plain = plain_schema(&schema);
        assert_eq!(plain_schema(&plain), plain);
        let bytes = schema_bytes(&plain).unwrap();
        assert_eq!(
            Schema::try_from(IpcMessage(bytes)).unwrap(),
            plain.as_ref().clone()
        );
    }

    #[test]
    fn rows_without_columns_keep_their_number() {
        let schema = Arc::new(Schema::empty());
        let options = RecordBatchOptions::new().with_row_count(Some(3));
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
        assert_eq!(conform(&batch, &schema).unwrap().num_rows(), 3);
    }
}

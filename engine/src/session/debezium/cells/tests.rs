use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;

fn reading() -> Reading {
    Reading {
        unavailable: "__debezium_unavailable_value".into(),
        unit: None,
        bytes: Bytes::Base64,
    }
}

fn kind(data_type: DataType) -> Kind {
    Kind::of("s.t", &Field::new("c", data_type, true)).unwrap()
}

fn text(data_type: DataType, hint: Option<Hint>, value: &str) -> Result<String> {
    let kind = kind(data_type);
    let mut cells = Cells::new(&kind);
    cells.push(&kind, hint, value, &reading())?;
    let array = cells.finish()?;
    let options = FormatOptions::default().with_null("NULL");
    let shown = ArrayFormatter::try_new(&array, &options).unwrap();
    Ok(shown.value(0).to_string())
}

#[test]
fn values_keep_what_they_say() {
    use DataType::*;
    let ntz = || Timestamp(datafusion::arrow::datatypes::TimeUnit::Microsecond, None);
    let zoned = || {
        let unit = datafusion::arrow::datatypes::TimeUnit::Microsecond;
        Timestamp(unit, Some("UTC".into()))
    };
    let time = |unit| Some(Hint::Time(unit));
    for (data_type, hint, value, expected) in [
        (Utf8View, None, r#""a\"b""#, "a\"b"),
        (Utf8, None, "1.50", "1.50"),
        (Int64, None, "9007199254740993", "9007199254740993"),
        (
            Decimal128(38, 10),
            None,
            "0.12345678901234567890",
            "0.12345678901234567890",
        ),
        (Decimal128(5, 2), None, r#""1.50""#, "1.50"),
        (
            Decimal128(5, 2),
            Some(Hint::Decimal(2)),
            r#""AJY=""#,
            "1.50",
        ),
        // Digits that would be a number are one in base64 where the schema says so.
        (
            Decimal128(9, 2),
            Some(Hint::Decimal(2)),
            r#""1234""#,
            "-26588.24",
        ),
        (Decimal128(5, 2), Some(Hint::Decimal(2)), "1.50", "1.50"),
        (Utf8, Some(Hint::Decimal(2)), r#""AJY=""#, "1.50"),
        (
            Decimal128(9, 3),
            Some(Hint::ScaledDecimal),
            r#"{"scale": 3, "value": "/w=="}"#,
            "-0.001",
        ),
        (
            Decimal128(5, 2),
            None,
            r#"{"value": "AJY=", "scale": 2}"#,
            "1.50",
        ),
        (Float64, None, r#""NaN""#, "NaN"),
        (Boolean, None, "true", "true"),
        (Int64, None, "null", "NULL"),
        (Date32, None, "19000", "2022-01-08"),
        (Date32, time(Unit::Millis), "86400000", "1970-01-02"),
        (
            Date32,
            time(Unit::Millis),
            "1",
            "1970-01-01T00:00:00.001000",
        ),
        (
            ntz(),
            time(Unit::Millis),
            "1500",
            "1970-01-01T00:00:01.500000",
        ),
        (
            zoned(),
            time(Unit::Micros),
            "1",
            "1970-01-01T00:00:00.000001Z",
        ),
        (
            zoned(),
            time(Unit::Nanos),
            "2000",
            "1970-01-01T00:00:00.000002Z",
        ),
        (
            zoned(),
            None,
            r#""2026-01-01T00:00:00Z""#,
            "2026-01-01T00:00:00Z",
        ),
    ] {
        assert_eq!(text(data_type, hint, value).unwrap(), expected, "{value}");
    }
}

#[test]
fn what_would_be_guessed_is_refused() {
    use DataType::*;
    let ntz = Timestamp(datafusion::arrow::datatypes::TimeUnit::Microsecond, None);
    for (data_type, hint, value, what) in [
        (Decimal128(5, 2), None, r#""AJY=""#, "decimal.handling.mode"),
        (
            Decimal128(5, 2),
            Some(Hint::Decimal(2)),
            r#""12.34""#,
            "not written in base64",
        ),
        (
            Decimal128(5, 2),
            None,
            r#"{"scale": 2, "value": "AJY=", "x": 1}"#,
            "decimal.handling.mode",
        ),
        (
            Binary,
            Some(Hint::Decimal(2)),
            r#""AJY=""#,
            "decimal.handling.mode",
        ),
        (
            List(Arc::new(Field::new_list_field(Decimal128(5, 2), true))),
            Some(Hint::DecimalParts),
            r#"["1234"]"#,
            "decimal.handling.mode",
        ),
        (ntz.clone(), None, "1500", "timestamp_unit"),
        (
            ntz.clone(),
            Some(Hint::Time(Unit::Nanos)),
            "1",
            "finer than a microsecond",
        ),
        (
            ntz.clone(),
            Some(Hint::Time(Unit::Millis)),
            "9223372036854775807",
            "out of range",
        ),
        (
            ntz,
            Some(Hint::Time(Unit::Millis)),
            "1.5",
            "not a whole number",
        ),
        (Utf8, None, r#"{"a": 1}"#, "is an object"),
        (Binary, None, r#""!""#, "not base64"),
        (Binary, None, "5", "is a number, not bytes"),
        (
            List(Arc::new(Field::new_list_field(Int64, true))),
            None,
            r#""x""#,
            "is a text, not an array",
        ),
    ] {
        let error = text(data_type, hint, value).unwrap_err().to_string();
        assert!(error.contains(what), "{value}: {error}");
    }
    let bytes = List(Arc::new(Field::new_list_field(Binary, true)));
    let error = Kind::of("s.t", &Field::new("c", bytes, true)).unwrap_err();
    assert!(error.message().contains("bytes inside column c"), "{error}");
}

#[test]
fn markers_are_found_wherever_databases_write_them() {
    let marker = r#""__debezium_unavailable_value""#;
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let encoded = format!("\"{}\"", STANDARD.encode("__debezium_unavailable_value"));
    let entry = DataType::Struct(Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]));
    let map = DataType::Map(Arc::new(Field::new("entries", entry, false)), false);
    for (data_type, value) in [
        (DataType::Utf8, marker.to_owned()),
        (DataType::Int64, marker.to_owned()),
        (DataType::Binary, encoded),
        (list.clone(), format!("[{marker}]")),
        (
            list,
            format!("{:?}", "__debezium_unavailable_value".as_bytes()),
        ),
        (DataType::Decimal128(9, 2), marker.to_owned()),
        (map, format!("{{{marker}: {marker}}}")),
    ] {
        let kind = kind(data_type);
        let mut cells = Cells::new(&kind);
        let given = cells.push(&kind, None, &value, &reading()).unwrap();
        assert_eq!(given, Given::Unavailable, "{value}");
        assert!(cells.finish().unwrap().is_null(0));
    }
}

#[test]
fn nested_values_are_read_in_texts_and_nothing_is_left_out() {
    let parts = Fields::from(vec![
        Field::new("n", DataType::Decimal128(20, 4), true),
        Field::new("t", DataType::Utf8View, true),
    ]);
    let kind = kind(DataType::Struct(parts));
    let mut cells = Cells::new(&kind);
    for value in [r#"{"n": 1.2300, "t": "x"}"#, "null", r#"{"t": null}"#] {
        cells.push(&kind, None, value, &reading()).unwrap();
    }
    let array = cells.finish().unwrap();
    let rows = array.as_struct();
    let numbers = rows.column(0).as_string::<i32>();
    assert_eq!(numbers.value(0), "1.2300");
    assert_eq!(
        (rows.len(), rows.is_null(1), numbers.is_null(2)),
        (3, true, true)
    );
    let mut cells = Cells::new(&kind);
    cells.push(&kind, None, r#"{"x": 1}"#, &reading()).unwrap();
    let error = cells.finish().unwrap_err();
    assert!(error.message().contains("'x'"), "{error}");
}

#[test]
fn bytes_are_written_in_two_ways() {
    assert_eq!(hex("00ffA1"), Some(vec![0, 255, 161]));
    assert_eq!((hex("0"), hex("0g")), (None, None));
    assert_eq!(decoded(r#""AP8=""#, &reading()).unwrap(), [0, 255]);
    assert_eq!(decoded(r#""_-8=""#, &reading()).unwrap(), [255, 239]);
}

#[test]
fn sequences_are_instants() {
    let read = |value, hint, days| sequence(value, hint, days, &reading());
    let second = Some(1_000_000);
    assert_eq!(
        read(r#""1970-01-01T00:00:01Z""#, None, false).unwrap(),
        second
    );
    assert_eq!(
        read(r#""1970-01-01 00:00:01""#, None, false).unwrap(),
        second
    );
    assert_eq!(read("1", None, true).unwrap(), Some(MICROS_PER_DAY));
    assert_eq!(read("null", None, false).unwrap(), None);
    let time = Some(Hint::Time(Unit::Millis));
    assert_eq!(read("1000", time, false).unwrap(), second);
    assert!(read(r#""soon""#, None, false).is_err());
    assert_eq!(
        spelled(1_000_000, false, true).unwrap(),
        "1970-01-01T00:00:01.000000Z"
    );
}

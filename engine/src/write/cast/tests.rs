//! Which values pass, which are refused, and that nothing ever changes on the way.

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Field, Fields, Schema, i256};

use super::*;

const SECONDS: [DataType; 2] = [
    DataType::Timestamp(TimeUnit::Second, None),
    DataType::Timestamp(TimeUnit::Microsecond, None),
];

fn zoned(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, Some("UTC".into()))
}

fn cast(array: impl Array + 'static, to: DataType) -> Result<ArrayRef, CastFailure> {
    let array: ArrayRef = Arc::new(array);
    let cast = lossless(&array, &to);
    if let Ok(cast) = &cast {
        assert_eq!(cast.data_type(), &to);
        assert_eq!(cast.len(), array.len());
        assert_eq!(cast.logical_null_count(), array.logical_null_count());
    }
    cast
}

/// The values that `texts` become, each alone; `None` where it is refused.
fn fits(texts: &[&str], to: DataType) -> Vec<Option<String>> {
    texts
        .iter()
        .map(|text| {
            let array = cast(StringArray::from(vec![*text]), to.clone()).ok()?;
            shown(&array, &[0]).pop()
        })
        .collect()
}

#[test]
fn text_to_decimal_is_exact() {
    let to = DataType::Decimal128(12, 2);
    let texts = [
        "1.005",
        "1.50",
        "1.500",
        "-0.01",
        "9999999999.99",
        "10000000000",
        "1e2",
        "",
        "x",
    ];
    let values: Vec<_> = fits(&texts, to);
    let text = |value: &str| Some(value.to_string());
    assert_eq!(
        values,
        [
            None,
            text("1.50"),
            text("1.50"),
            text("-0.01"),
            text("9999999999.99"),
            None,
            text("100.00"),
            None,
            None
        ]
    );
    assert!(cast(StringArray::from(vec!["1.50"]), DataType::Decimal128(12, 1)).is_ok());
}

#[test]
fn a_failure_names_every_row_the_first_values_and_the_reason() {
    let texts = StringViewArray::from(vec![Some("1"), Some("x"), None, Some("2.5"), Some("300")]);
    let failure = cast(texts, DataType::Int8).unwrap_err();
    assert_eq!(
        failure,
        CastFailure {
            rows: vec![1, 3, 4],
            first: vec!["'x'".into(), "'2.5'".into(), "'300'".into()],
            reason: "not a number".into(),
            path: String::new(),
            to: "TINYINT".into(),
        }
    );
}

#[test]
fn numbers_never_wrap_truncate_or_round() {
    assert_eq!(
        cast(Int64Array::from(vec![1, 1 << 40]), DataType::Int32)
            .unwrap_err()
            .rows,
        [1]
    );
    assert_eq!(
        cast(UInt64Array::from(vec![u64::MAX]), DataType::Int64)
            .unwrap_err()
            .first,
        ["18446744073709551615"]
    );
    assert!(
        cast(
            UInt64Array::from(vec![u64::MAX]),
            DataType::Decimal128(20, 0)
        )
        .is_ok()
    );
    assert!(cast(UInt8Array::from(vec![255]), DataType::Int16).is_ok());
    assert!(cast(UInt32Array::from(vec![u32::MAX]), DataType::Int64).is_ok());
    assert!(cast(Float64Array::from(vec![1.0, f64::NAN]), DataType::Int64).is_err());
    assert!(cast(Float64Array::from(vec![2.5]), DataType::Int64).is_err());
    assert!(cast(Int64Array::from(vec![(1 << 53) + 1]), DataType::Float64).is_err());
    assert!(cast(Int32Array::from(vec![16_777_217]), DataType::Float32).is_err());
    assert!(
        cast(
            Float64Array::from(vec![1.1, f64::NAN, f64::INFINITY]),
            DataType::Float32
        )
        .is_ok()
    );
    assert!(cast(Float64Array::from(vec![1.005]), DataType::Decimal128(12, 2)).is_err());
    assert!(cast(Float64Array::from(vec![1.05]), DataType::Decimal128(12, 2)).is_ok());

    let decimals = |values: Vec<i128>| {
        Decimal128Array::from(values)
            .with_precision_and_scale(20, 4)
            .unwrap()
    };
    assert!(cast(decimals(vec![15_000]), DataType::Decimal128(3, 1)).is_ok());
    assert!(cast(decimals(vec![15_500]), DataType::Decimal128(3, 1)).is_err());
    assert!(cast(decimals(vec![10_000_000_000]), DataType::Decimal128(7, 1)).is_err());
    assert!(cast(decimals(vec![70_000]), DataType::Int8).is_ok());
    assert!(cast(decimals(vec![70_001]), DataType::Int8).is_err());
    assert!(cast(decimals(vec![1]), DataType::Float64).is_ok());

    let wide = |value: i256| {
        Decimal256Array::from(vec![value])
            .with_precision_and_scale(60, 20)
            .unwrap()
    };
    let ten_to_the = |power: u32| i256::from(10).checked_pow(power).unwrap();
    assert!(cast(wide(ten_to_the(20)), DataType::Int8).is_ok());
    assert!(cast(wide(ten_to_the(57)), DataType::Decimal128(38, 0)).is_ok());
    assert!(cast(wide(ten_to_the(58)), DataType::Decimal128(38, 0)).is_err());
    assert!(cast(wide(ten_to_the(57)), DataType::Decimal128(38, 1)).is_err());
}

/// Whatever comes through is the same number; whatever is refused would not have been.
#[test]
fn random_numbers_come_back_as_they_went() {
    let types = [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(9, 3),
        DataType::Decimal128(38, 0),
    ];
    let mut seed = 3_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 8
    };
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..4_000 {
        let bits = next() % 56;
        let value = (next() << 8 | next() & 0xff) as i64 >> (8 + bits);
        for from in &types {
            let Ok(start) = cast(Int64Array::from(vec![value]), from.clone()) else {
                continue;
            };
            for to in &types {
                let there = match lossless(&start, to) {
                    Ok(there) => there,
                    Err(_) => {
                        refused += 1;
                        continue;
                    }
                };
                passed += 1;
                let back = lossless(&there, &DataType::Int64).expect("an integer it was");
                assert_eq!(
                    back.as_primitive::<Int64Type>().value(0),
                    value,
                    "{from} {to}"
                );
            }
        }
    }
    assert!(passed > 10_000 && refused > 10_000, "{passed} {refused}");
}

#[test]
fn identical_types_and_views_cost_nothing() {
    let array: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(Arc::ptr_eq(
        &array,
        &lossless(&array, &DataType::Int64).unwrap()
    ));

    let long = "a text that is too long to be kept inside a view";
    let texts = StringArray::from(vec![long]);
    let buffer = texts.values().as_ptr();
    let views = cast(texts, DataType::Utf8View).unwrap();
    assert_eq!(views.as_string_view().data_buffers()[0].as_ptr(), buffer);
    assert!(cast(LargeStringArray::from(vec![long]), DataType::Utf8View).is_ok());
}

#[test]
fn dictionaries_become_their_values() {
    let texts: DictionaryArray<Int32Type> = vec![Some("1"), None, Some("x")].into_iter().collect();
    let views = cast(texts.clone(), DataType::Utf8View).unwrap();
    assert_eq!(views.as_string_view().value(2), "x");
    assert_eq!(cast(texts, DataType::Int32).unwrap_err().rows, [2]);
}

#[test]
fn a_value_behind_no_dictionary_key_is_not_looked_at() {
    let keys = Int32Array::from(vec![0, 0]);
    let values: ArrayRef = Arc::new(StringArray::from(vec!["7", "not a number"]));
    let texts = DictionaryArray::new(keys, values);
    assert!(cast(texts, DataType::Int32).is_ok());
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let bytes = BinaryArray::from(vec![&b"ok"[..], &[0xff, 0xfe]]);
    let failure = cast(bytes, DataType::Utf8View).unwrap_err();
    assert_eq!(
        (failure.rows, failure.first),
        (vec![1], vec!["fffe".to_string()])
    );
    assert!(cast(StringArray::from(vec!["é"]), DataType::BinaryView).is_ok());
    let fixed = FixedSizeBinaryArray::try_from_iter([[1_u8, 2]].iter()).unwrap();
    assert!(cast(fixed, DataType::BinaryView).is_ok());
}

#[test]
fn instants_keep_their_fraction_and_their_zone() {
    let [seconds, micros] = SECONDS;
    assert!(cast(TimestampSecondArray::from(vec![1]), micros.clone()).is_ok());
    assert!(cast(TimestampSecondArray::from(vec![i64::MAX]), micros.clone()).is_err());
    assert!(cast(TimestampNanosecondArray::from(vec![1_000]), micros.clone()).is_ok());
    let failure = cast(TimestampNanosecondArray::from(vec![1_001]), micros.clone()).unwrap_err();
    assert_eq!(failure.reason, "finer than a microsecond");

    let utc = zoned(TimeUnit::Microsecond);
    let offset = TimestampMicrosecondArray::from(vec![5]).with_timezone("+02:00");
    let same = cast(offset, utc.clone()).unwrap();
    assert_eq!(same.as_primitive::<TimestampMicrosecondType>().value(0), 5);
    assert!(
        cast(
            TimestampMillisecondArray::from(vec![5]).with_timezone("UTC"),
            utc.clone()
        )
        .is_ok()
    );
    for (from, to) in [
        (&seconds, &utc),
        (&utc, &micros),
        (&DataType::Date32, &utc),
        (&utc, &DataType::Date32),
    ] {
        assert!(
            Cast::plan(from, to).unwrap_err().contains("AT TIME ZONE"),
            "{from} {to}"
        );
    }
    assert!(cast(StringArray::from(vec!["2024-01-01T00:00:00+02:00"]), utc).is_ok());
    assert!(
        cast(
            StringArray::from(vec!["2024-01-01T00:00:00+02:00"]),
            micros.clone()
        )
        .is_err()
    );
    assert!(cast(Date32Array::from(vec![1]), micros).is_ok());
    assert!(cast(TimestampSecondArray::from(vec![86_400]), DataType::Date32).is_ok());
    assert!(cast(TimestampSecondArray::from(vec![86_401]), DataType::Date32).is_err());
    assert!(cast(Date64Array::from(vec![86_400_000]), DataType::Date32).is_ok());
    assert!(cast(Date64Array::from(vec![86_400_001]), DataType::Date32).is_err());
}

#[test]
fn an_instant_with_zone_has_a_text() {
    let utc = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
    assert_eq!(
        shown(&cast(utc, DataType::Utf8View).unwrap(), &[0]),
        ["'1970-01-01T00:00:00Z'"]
    );
}

#[test]
fn truth_values_are_not_numbers() {
    assert!(Cast::plan(&DataType::Boolean, &DataType::Int32).is_err());
    assert!(Cast::plan(&DataType::Int32, &DataType::Boolean).is_err());
    let texts = StringArray::from(vec!["true", "F", "maybe"]);
    assert_eq!(cast(texts, DataType::Boolean).unwrap_err().rows, [2]);
}

#[test]
fn types_without_a_lossless_meaning_are_refused_by_name() {
    for (from, to) in [
        (DataType::Boolean, DataType::Date32),
        (DataType::Int64, DataType::Date32),
        (DataType::Int64, DataType::BinaryView),
        (
            DataType::Interval(arrow::datatypes::IntervalUnit::DayTime),
            DataType::Utf8View,
        ),
        (
            DataType::new_list(DataType::Int64, true),
            DataType::Utf8View,
        ),
        (DataType::Int64, DataType::new_list(DataType::Int64, true)),
    ] {
        let reason = Cast::plan(&from, &to).unwrap_err();
        assert!(reason.contains(&sql_name(&from)), "{reason}");
        assert!(reason.contains(&sql_name(&to)), "{reason}");
    }
    assert!(Cast::plan(&DataType::Null, &DataType::Date32).is_ok());
    assert!(Cast::plan(&DataType::Time64(TimeUnit::Nanosecond), &DataType::Utf8View).is_ok());
}

fn fields(fields: &[(&str, DataType, bool)]) -> Fields {
    fields
        .iter()
        .map(|(name, of, nullable)| Field::new(*name, of.clone(), *nullable))
        .collect()
}

#[test]
fn struct_fields_go_by_name() {
    let old = fields(&[("b", DataType::Int64, true), ("a", DataType::Utf8, true)]);
    let array = StructArray::new(
        old.clone(),
        vec![
            Arc::new(Int64Array::from(vec![Some(1), Some(500), Some(900)])),
            Arc::new(StringArray::from(vec![Some("x"), None, Some("hidden")])),
        ],
        Some(vec![true, true, false].into()),
    );
    let to = |new: &[(&str, DataType, bool)]| DataType::Struct(fields(new));

    let wide = to(&[
        ("a", DataType::Utf8View, true),
        ("b", DataType::Int16, true),
        ("c", DataType::Date32, true),
    ]);
    let cast_array = cast(array.clone(), wide).unwrap();
    let cast_array = cast_array.as_struct();
    assert_eq!(
        cast_array.column(1).as_primitive::<Int16Type>().value(1),
        500
    );
    assert_eq!(cast_array.column(2).null_count(), 3);

    // 900 stands under a NULL struct: only 500 is refused.
    let narrow = to(&[("a", DataType::Utf8View, true), ("b", DataType::Int8, true)]);
    let failure = cast(array.clone(), narrow).unwrap_err();
    assert_eq!(
        (failure.rows, failure.path.as_str(), failure.to.as_str()),
        (vec![1], ".b", "TINYINT")
    );

    let required = to(&[
        ("a", DataType::Utf8View, false),
        ("b", DataType::Int8, true),
    ]);
    let failure = cast(array, required).unwrap_err();
    assert_eq!(
        (failure.rows, failure.path.as_str(), failure.reason.as_str()),
        (vec![1], ".a", "NOT NULL")
    );

    let from = DataType::Struct(old);
    assert!(
        Cast::plan(&from, &to(&[("a", DataType::Utf8View, true)]))
            .unwrap_err()
            .contains("field b does not exist")
    );
    let missing = to(&[
        ("a", DataType::Utf8View, true),
        ("b", DataType::Int64, true),
        ("c", DataType::Int64, false),
    ]);
    assert!(
        Cast::plan(&from, &missing)
            .unwrap_err()
            .contains("field c is missing")
    );
}

#[test]
fn list_failures_are_rows_of_the_list() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(1),
        Some(999),
        Some(2),
        None,
        Some(998),
        Some(997),
    ]));
    let element = Arc::new(Field::new("item", DataType::Int64, true));
    // [1], NULL over 999, [], [2, NULL], [998, 997]
    let list = ListArray::new(
        element,
        OffsetBuffer::new(vec![0, 1, 2, 2, 4, 6].into()),
        values,
        Some(vec![true, false, true, true, true].into()),
    );
    let to = |of, nullable| DataType::List(Arc::new(Field::new("element", of, nullable)));
    let failure = cast(list.clone(), to(DataType::Int8, true)).unwrap_err();
    assert_eq!((failure.rows, failure.path.as_str()), (vec![4], "[]"));
    assert_eq!(failure.first, ["998", "997"]);
    let failure = cast(list.clone(), to(DataType::Int64, false)).unwrap_err();
    assert_eq!(
        (failure.rows, failure.reason.as_str()),
        (vec![3], "NOT NULL")
    );

    let front = cast(list.slice(1, 3), to(DataType::Int8, true)).unwrap();
    assert_eq!(front.as_list::<i32>().value(2).len(), 2);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(
        [Some(vec![Some(1), Some(2)])],
        2,
    );
    assert!(cast(fixed, to(DataType::Int8, true)).is_ok());
    let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None]);
    assert!(cast(large, to(DataType::Utf8View, true)).is_ok());
}

#[test]
fn map_entries_go_by_place() {
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    builder.keys().append_value("a");
    builder.values().append_value(1);
    builder.append(true).unwrap();
    builder.append(false).unwrap();
    builder.keys().append_value("b");
    builder.values().append_value(300);
    builder.append(true).unwrap();
    let map = builder.finish();
    let to = |of| {
        let entries = fields(&[("key", DataType::Utf8View, false), ("value", of, true)]);
        DataType::Map(
            Arc::new(Field::new("key_value", DataType::Struct(entries), false)),
            false,
        )
    };
    let cast_map = cast(map.clone(), to(DataType::Int16)).unwrap();
    assert_eq!(cast_map.as_map().value_length(1), 0);
    let failure = cast(map, to(DataType::Int8)).unwrap_err();
    assert_eq!((failure.rows, failure.path.as_str()), (vec![2], ".value"));
}

#[test]
fn cast_results_make_a_batch_of_the_schema_asked_for() {
    let schema = Arc::new(Schema::new(vec![Field::new(
        "t",
        zoned(TimeUnit::Microsecond),
        false,
    )]));
    let array: ArrayRef = Arc::new(StringArray::from(vec!["2024-02-29"]));
    let array = lossless(&array, schema.field(0).data_type()).unwrap();
    assert!(RecordBatch::try_new(schema, vec![array]).is_ok());
}

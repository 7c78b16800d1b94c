use delta_kernel::schema::StructType;
use serde_json::json;

use super::*;
use crate::error::ErrorKind;

fn delta(fields: Value) -> String {
    json!({"type": "struct", "fields": fields}).to_string()
}

fn every_type() -> String {
    let mut fields: Vec<Value> = [
        "string",
        "long",
        "integer",
        "short",
        "byte",
        "float",
        "double",
        "boolean",
        "binary",
        "date",
        "timestamp",
        "timestamp_ntz",
        "decimal(38,10)",
    ]
    .iter()
    .map(|t| {
        let name = t.split('(').next();
        json!({"name": name, "type": t, "nullable": true, "metadata": {}})
    })
    .collect();
    fields.push(
        json!({"name": "nested", "nullable": false, "metadata": {}, "type": {
        "type": "struct", "fields": [
            {"name": "a", "type": "string", "nullable": false, "metadata": {"comment": "inner"}},
            {"name": "l", "nullable": true, "metadata": {}, "type":
                {"type": "array", "elementType": "integer", "containsNull": false}},
            {"name": "m", "nullable": true, "metadata": {}, "type":
                {"type": "map", "keyType": "string", "valueContainsNull": true, "valueType":
                    {"type": "array", "elementType": "timestamp_ntz", "containsNull": true}}}
        ]}}),
    );
    delta(Value::Array(fields))
}

#[test]
fn every_type_goes_both_ways() {
    let text = every_type();
    let arrow = to_arrow(&text).unwrap();
    let back = to_delta(&arrow).unwrap();
    let [before, after]: [Value; 2] = [&text, &back].map(|t| serde_json::from_str(t).unwrap());
    assert_eq!(before, after);
    assert_eq!(arrow.field(0).data_type(), &DataType::Utf8View);
    assert_eq!(
        arrow.field_with_name("timestamp").unwrap().data_type(),
        &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    );
    assert!(uses_timestamp_ntz(&arrow));
    assert!(!uses_timestamp_ntz(&Schema::new(
        arrow.fields()[..11].to_vec()
    )));
}

#[test]
fn the_kernel_reads_what_we_write() {
    let kernel: StructType =
        serde_json::from_str(&to_delta(&to_arrow(&every_type()).unwrap()).unwrap()).unwrap();
    assert_eq!(kernel.num_fields(), 14);
}

#[test]
fn metadata_keeps_its_json_types() {
    let text = delta(
        json!([{"name": "a", "type": "long", "nullable": true, "metadata": {
            "comment": "1", "CURRENT_DEFAULT": "now()", "delta.columnMapping.id": 1,
            "x": {"y": [true, null]}, "s": "{}"
        }}]),
    );
    let arrow = to_arrow(&text).unwrap();
    assert_eq!(comment(arrow.field(0)), Some("1"));
    assert_eq!(column_default(arrow.field(0)), Some("now()"));
    let back: Value = serde_json::from_str(&to_delta(&arrow).unwrap()).unwrap();
    assert_eq!(back, serde_json::from_str::<Value>(&text).unwrap());
}

#[test]
fn defaults_and_comments_are_set_and_unset() {
    let field = with_default(Field::new("a", DataType::Int32, true), Some("1 + 1"));
    let field = with_comment(field, Some("two"));
    assert_eq!(
        (column_default(&field), comment(&field)),
        (Some("1 + 1"), Some("two"))
    );
    let field = with_comment(with_default(field, None), None);
    assert!(field.metadata().is_empty());
}

#[test]
fn unknown_types_name_the_column() {
    for (t, shown) in [
        (json!("variant"), "variant"),
        (json!("void"), "void"),
        (json!("decimal(39,0)"), "decimal(39,0)"),
        (json!("decimal(4,5)"), "decimal(4,5)"),
        (json!({"type": "udt", "class": "x"}), "udt"),
    ] {
        let inner = json!({"type": "struct", "fields":
            [{"name": "b", "type": t, "nullable": true, "metadata": {}}]});
        let text = delta(json!([{"name": "a", "type": inner, "nullable": true, "metadata": {}}]));
        let error = to_arrow(&text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error
                .message()
                .contains(&format!("column a.b has the Delta type {shown}")),
            "{error}"
        );
    }
    assert_eq!(to_arrow("[]").unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn query_types_become_stored_types() {
    use DataType::*;
    let item = |t| Arc::new(Field::new("item", t, true));
    for (given, stored) in [
        (UInt8, Int16),
        (UInt16, Int32),
        (UInt32, Int64),
        (UInt64, Decimal128(20, 0)),
        (Float16, Float32),
        (
            Timestamp(TimeUnit::Nanosecond, Some("+02:00".into())),
            Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ),
        (
            Timestamp(TimeUnit::Second, None),
            Timestamp(TimeUnit::Microsecond, None),
        ),
        (Dictionary(Box::new(Int32), Box::new(Utf8)), Utf8View),
        (LargeUtf8, Utf8View),
        (FixedSizeBinary(16), BinaryView),
        (LargeBinary, BinaryView),
        (Decimal256(38, 3), Decimal128(38, 3)),
        (Decimal32(9, 2), Decimal128(9, 2)),
        (Decimal128(3, -2), Decimal128(5, 0)),
        (LargeList(item(UInt8)), list_of(Int16, true)),
        (FixedSizeList(item(Utf8), 3), list_of(Utf8View, true)),
        (ListView(item(Int32)), list_of(Int32, true)),
    ] {
        assert_eq!(normalize("c", &given).unwrap(), stored, "{given}");
    }
    for refused in [
        Null,
        Time64(TimeUnit::Microsecond),
        Duration(TimeUnit::Second),
        Decimal256(60, 2),
        Struct(Fields::empty()),
    ] {
        let error = normalize("c", &list_of(refused, true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().starts_with("column c.element: "), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn names_delta_cannot_hold_are_refused() {
    let int = |name: &str| Field::new(name, DataType::Int32, true);
    let twice = to_delta(&Schema::new(vec![int("id"), int("ID")])).unwrap_err();
    assert_eq!(twice.message(), "column ID is named twice");
    let spaced = Schema::new(vec![int("a b")]);
    let error = to_delta(&spaced).unwrap_err();
    assert_eq!(
        error.message(),
        "column \"a b\": a column name cannot hold ' '"
    );
    assert_eq!(
        error.hint(),
        Some(
            "rename it, for example to \"a_b\", or make the table with TBLPROPERTIES ('delta.columnMapping.mode' = 'name')"
        )
    );
    let nested = DataType::Struct(vec![int("x;y")].into());
    let list = Schema::new(vec![Field::new("l", list_of(nested, true), true)]);
    assert!(
        to_delta(&list)
            .unwrap_err()
            .message()
            .contains("l.element.x;y")
    );
    let mapped =
        int("a b").with_metadata([("delta.columnMapping.physicalName".into(), "c1".into())].into());
    assert!(to_delta(&Schema::new(vec![mapped])).is_ok());
}

#[test]
fn a_query_s_schema_leaves_foreign_metadata_behind() {
    let field = with_default(
        with_comment(Field::new("a", DataType::Utf8, true), Some("c")),
        Some("1"),
    );
    let schema = normalize_schema(&Schema::new(vec![field])).unwrap();
    assert_eq!(comment(schema.field(0)), Some("c"));
    assert_eq!(column_default(schema.field(0)), None);
}

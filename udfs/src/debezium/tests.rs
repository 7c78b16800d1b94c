use super::envelope::{Op, Times, parse};
use super::*;
use crate::tests::{context, rows};

fn event(text: &str) -> Event<'_> {
    match parse(text).unwrap() {
        Message::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_op_is_read_with_its_images() {
    for (op, letter, before, after) in [
        (Op::Create, "c", "null", r#"{"id": 1}"#),
        (Op::Read, "r", "null", r#"{"id": 1}"#),
        (Op::Update, "u", r#"{"id": 1}"#, r#"{"id": 2}"#),
        (Op::Delete, "d", r#"{"id": 1}"#, "null"),
        (Op::Truncate, "t", "null", "null"),
        (Op::Message, "m", "null", "null"),
    ] {
        let text = format!(
            r#"{{"before": {before}, "after": {after}, "source": {{"lsn": 33, "ts_ms": 5, "db": "x"}}, "op": "{letter}", "ts_ms": 7, "ts_us": 7001, "ts_ns": 7001002, "transaction": null}}"#
        );
        let event = event(&text);
        assert_eq!((event.op, op.name()), (op, letter));
        assert_eq!(event.before, json::present(before));
        assert_eq!(event.after, json::present(after));
        assert_eq!(event.lsn, Some(33));
        let times = Times {
            source_ms: Some(5_000),
            source_us: None,
            seen_ms: Some(7_000),
            seen_us: Some(7_001),
        };
        assert_eq!(event.times, times);
        assert_eq!(times.best(), Some(5_000));
    }
}

#[test]
fn an_instant_of_zero_is_none() {
    let text = r#"{"op": "r", "after": {}, "source": {"ts_ms": 0, "ts_us": 0}, "ts_ms": 7}"#;
    assert_eq!(event(text).times.best(), Some(7_000));
}

#[test]
fn a_schema_around_it_changes_nothing() {
    let inner = r#"{"op": "c", "after": {"a": 1.50}, "ts_ms": 1}"#;
    let wrapped = format!(r#"{{"schema": {{"type": "struct"}}, "payload": {inner}}}"#);
    let wrapped = event(&wrapped);
    assert_eq!(wrapped.schema, Some(r#"{"type": "struct"}"#));
    assert_eq!(wrapped.after, Some(r#"{"a": 1.50}"#));
    let bare = event(inner);
    assert_eq!((bare.after, bare.schema), (wrapped.after, None));
    for tombstone in ["null", " null ", r#"{"schema": null, "payload": null}"#] {
        assert_eq!(parse(tombstone), Ok(Message::Tombstone), "{tombstone}");
    }
    let begin = r#"{"status": "BEGIN", "id": "571:53195829", "event_count": null, "data_collections": null, "ts_ms": 4}"#;
    let times = Times {
        seen_ms: Some(4_000),
        ..Times::default()
    };
    assert_eq!(parse(begin), Ok(Message::Transaction("BEGIN", times)));
}

#[test]
fn what_is_not_known_is_refused() {
    for (text, flaw) in [
        ("{", "is not JSON"),
        ("7", "is a number, not the envelope of a change"),
        ("[]", "is an array, not the envelope"),
        (r#"{"id": 1}"#, "has the unknown field id"),
        (r#"{"after": {"id": 1}}"#, "has no op"),
        (r#"{"op": "x"}"#, "has the unknown op x"),
        (r#"{"op": 5}"#, "has no op"),
        (r#"{"op": "c", "after": null}"#, "has op c and no after"),
        (r#"{"op": "u", "before": {}}"#, "has op u and no after"),
        (r#"{"op": "c", "after": [1]}"#, "has an array as its after"),
        (r#"{"op": "c", "op": "d"}"#, "has the field op twice"),
        (
            r#"{"op": "c", "after": {}, "ts_ms": "x"}"#,
            "has a ts_ms that is a text, not a whole number",
        ),
        (
            r#"{"op": "c", "after": {}, "ts_ms": 9223372036854775807}"#,
            "has a ts_ms that is out of range",
        ),
        (r#"{"op": "c", "after": {}, "ddl": "x"}"#, "field ddl"),
        (r#"{"payload": null, "x": 1}"#, "unknown field x beside"),
        (r#"{"status": "ABORT"}"#, "neither BEGIN nor END"),
        (r#"{"status": "END", "x": 1}"#, "unknown field x"),
    ] {
        let found = parse(text).unwrap_err();
        assert!(found.contains(flaw), "{text}: {found}");
    }
}

#[tokio::test]
async fn a_query_unpacks_envelopes() {
    let context = context();
    let values = r#"(VALUES
        ('{"op": "u", "before": {"id": 1}, "after": {"id": 2}, "source": {"ts_us": 1500000, "ts_ms": 1500, "lsn": 9}, "ts_ms": 3000}', '{"schema": null, "payload": {"id": 2}}'),
        ('{"op": "d", "before": {"id": 1}, "after": null, "ts_ms": 3000}', NULL),
        ('{"status": "END", "id": "1", "ts_ms": 1000}', 'null'),
        ('null', '{"id": 1}'),
        (NULL, NULL)) AS t(v, k)"#;
    for (field, expected) in [
        ("op", ["u", "d", "END", "NULL", "NULL"]),
        (
            "before",
            [r#"{"id": 1}"#, r#"{"id": 1}"#, "NULL", "NULL", "NULL"],
        ),
        ("after", [r#"{"id": 2}"#, "NULL", "NULL", "NULL", "NULL"]),
        ("key", [r#"{"id": 2}"#, "NULL", "NULL", "NULL", "NULL"]),
        (
            "ts",
            [
                "1970-01-01T00:00:01.500",
                "1970-01-01T00:00:03",
                "1970-01-01T00:00:01",
                "NULL",
                "NULL",
            ],
        ),
        ("lsn", ["9", "NULL", "NULL", "NULL", "NULL"]),
    ] {
        let sql = format!("SELECT get_field(debezium(v, k), '{field}') FROM {values}");
        assert_eq!(rows(&context, &sql).await.unwrap(), expected, "{sql}");
    }
    let sql = format!("SELECT debezium(v) IS NULL FROM {values}");
    let expected = ["false", "false", "false", "true", "true"];
    assert_eq!(rows(&context, &sql).await.unwrap(), expected);
}

#[tokio::test]
async fn what_a_query_cannot_unpack_is_an_error_with_its_beginning() {
    let context = context();
    let long = format!(
        r#"{{"op": "z", "after": {{"text": "{}"}}}}"#,
        "x".repeat(500)
    );
    for (call, what) in [
        (format!("debezium('{long}')"), "has the unknown op z"),
        ("debezium('nope')".to_owned(), "'nope' is not JSON"),
        (
            r#"debezium('{"op": "m"}', '{')"#.to_owned(),
            "has a key that is not JSON",
        ),
        ("debezium(42)".to_owned(), "debezium"),
        ("debezium()".to_owned(), "debezium"),
    ] {
        // A column, because what fails in a constant may be told at another time.
        let sql = format!("SELECT {call} FROM (VALUES (1)) AS t(x)");
        let error = rows(&context, &sql).await.unwrap_err().strip_backtrace();
        assert!(error.contains(what), "{call}: {error}");
        assert!(!error.contains(&"x".repeat(200)), "{error}");
    }
}

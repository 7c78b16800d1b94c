//! What Debezium captures of a database, loaded from files.

use std::path::PathBuf;

use selvedge_engine::{Session, WriteReport};
use serde_json::{Value, json};

use super::{checked, lines, newest, orders, session};
use crate::support::query;

/// Midnight of the first of January 2026, in milliseconds.
const FIRST: i64 = 1_767_225_600_000;
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// An event of a day of January 2026, as the database dates it.
fn event(op: &str, before: Value, after: Value, day: i64) -> Value {
    let at = FIRST + (day - 1) * 86_400_000;
    json!({
        "before": before, "after": after, "op": op, "ts_ms": at + 5_000, "transaction": null,
        "source": {"connector": "postgresql", "db": "shop", "table": "t", "ts_ms": at, "lsn": 24_023_128 + day},
    })
}

fn row(id: i64, name: &str, note: &str) -> Value {
    json!({"id": id, "name": name, "note": note})
}

/// A table of changes, and a place for files.
struct Place {
    session: Session,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new(clauses: &str) -> Self {
        let session = session().await;
        query::run(
            &session,
            &format!(
                "CREATE TABLE t (id BIGINT, name TEXT, note TEXT, at TIMESTAMP WITH TIME ZONE) \
                 JOURNAL KEYS (id) SEQUENCE BY at {clauses}"
            ),
        )
        .await;
        let folder = tempfile::tempdir().unwrap();
        Self { session, folder }
    }

    fn file(&self, events: &[Value]) -> PathBuf {
        let text: String = events.iter().map(|event| format!("{event}\n")).collect();
        let path = self.folder.path().join("events.json");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn copy(&self, table: &str, events: &[Value]) -> String {
        let file = self.file(events);
        format!(
            "COPY INTO {table} FROM '{}' FORMAT DEBEZIUM",
            file.display()
        )
    }

    async fn load(&self, events: &[Value]) -> WriteReport {
        query::write(&self.session, &self.copy("t", events)).await
    }

    async fn refused(&self, events: &[Value]) -> String {
        query::error(&self.session, &self.copy("t", events)).await
    }

    async fn history(&self) -> Vec<String> {
        let sql = "SELECT id, name, note, CAST(valid_from AS DATE) AS since, CAST(valid_to AS DATE) AS until FROM \"t$journal\" ORDER BY id, valid_from";
        let rows = lines(&self.session, sql).await;
        rows.iter().map(|row| row.replace("2026-01-", "")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_every_operation_of_an_envelope() {
    let place = Place::new("").await;
    let events = [
        json!({"status": "BEGIN", "id": "571:53195829", "ts_ms": FIRST, "event_count": null, "data_collections": null}),
        // A row that was there, and one that came.
        event("r", Value::Null, row(1, "a", "n"), 1),
        event("c", Value::Null, row(2, "x", "n"), 1),
        json!({"status": "END", "id": "571:53195829", "ts_ms": FIRST, "event_count": 2, "data_collections": []}),
        // A change, within the schema that some converters write around it.
        json!({"schema": null, "payload": event("u", row(1, "a", "n"), row(1, "b", "n"), 2)}),
        // A delete whose row is told by its key alone, and what the broker is told after it.
        json!({"key": {"id": 2}, "value": event("d", Value::Null, Value::Null, 3)}),
        json!({"key": {"id": 2}, "value": null}),
        event("m", Value::Null, Value::Null, 3),
        // Another key is another thing.
        event("u", row(1, "b", "n"), row(5, "b", "n"), 4),
        // The database did not say what the note is.
        event("u", Value::Null, row(5, "c", UNAVAILABLE), 5),
        event("u", Value::Null, row(5, "c", UNAVAILABLE), 6),
    ];
    place.load(&events).await;
    let expected = [
        "1 a n 01 02",
        "1 b n 02 04",
        "2 x n 01 03",
        "5 b n 04 05",
        "5 c n 05 NULL",
    ];
    assert_eq!(place.history().await, expected);
    checked(&place.session, "t").await;
    // What is sent again, which connectors do, is no change.
    let before = newest(&place.session).await;
    let report = place.load(&events).await;
    assert_eq!(report.version, None, "{report:?}");
    assert_eq!(newest(&place.session).await, before);
    assert_eq!(place.history().await, expected);
    // All rows went, at one instant, by themselves.
    place.load(&[event("t", Value::Null, Value::Null, 9)]).await;
    assert_eq!(query::rows(&place.session, "SELECT * FROM t").await, 0);
    assert_eq!(place.history().await.last().unwrap(), "5 c n 05 09");
    checked(&place.session, "t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_what_is_not_known_is_an_error() {
    let place = Place::new("").await;
    place
        .load(&[event("c", Value::Null, row(1, "a", "n"), 1)])
        .await;
    let good = event("c", Value::Null, row(7, "a", "n"), 2);
    let mut strange = event("u", Value::Null, row(1, "b", "n"), 2);
    strange["afterr"] = json!({});
    for (event, part) in [
        (event("x", Value::Null, row(1, "b", "n"), 2), "op x"),
        (strange, "afterr"),
        (event("u", Value::Null, Value::Null, 2), "after"),
        (
            event(
                "u",
                Value::Null,
                json!({"id": 1, "nam": "b", "note": "n"}),
                2,
            ),
            "name",
        ),
        (
            event("u", Value::Null, json!({"id": 1, "name": "b"}), 2),
            "note",
        ),
        (
            event(
                "u",
                Value::Null,
                json!({"id": "one", "name": "b", "note": "n"}),
                2,
            ),
            "id",
        ),
        (json!([1, 2]), "envelope"),
        (json!({"id": 1}), "id"),
        // With others, nobody knows which of them it takes.
        (event("t", Value::Null, Value::Null, 3), "op t"),
    ] {
        let error = place.refused(&[good.clone(), event.clone()]).await;
        assert!(
            error.to_lowercase().contains(part),
            "{event} should be refused for {part}: {error}"
        );
        assert_eq!(place.history().await, ["1 a n 01 NULL"], "{event}");
    }
    query::run(&place.session, "CREATE TABLE plain (id BIGINT, name TEXT)").await;
    let error = query::error(&place.session, &place.copy("plain", &[good])).await;
    assert!(
        error.contains("FORMAT DEBEZIUM needs a journal table"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_a_column_that_keeps_its_value_may_be_left_out() {
    let place = Place::new("IGNORE NULL UPDATES ON (note)").await;
    place
        .load(&[
            event("c", Value::Null, row(1, "a", "first"), 1),
            event("u", Value::Null, json!({"id": 1, "name": "b"}), 2),
            event(
                "u",
                Value::Null,
                json!({"id": 1, "name": "c", "note": null}),
                3,
            ),
            event("u", Value::Null, row(1, "c", "second"), 4),
        ])
        .await;
    assert_eq!(
        place.history().await,
        [
            "1 a first 01 02",
            "1 b first 02 03",
            "1 c first 03 04",
            "1 c second 04 NULL"
        ]
    );
    checked(&place.session, "t").await;
}

/// A marker of another name, and instants from where the statement says.
#[tokio::test(flavor = "multi_thread")]
async fn o5_options_say_what_the_connector_was_told() {
    let place = Place::new("").await;
    let events = [
        event("c", Value::Null, row(1, "a", "kept"), 1),
        event("u", Value::Null, row(1, "b", "?"), 2),
    ];
    let copy = place.copy("t", &events);
    let report = query::write(
        &place.session,
        &format!("{copy} OPTIONS (unavailable = '?', sequence = 'ts_ms')"),
    )
    .await;
    assert_eq!(report.rows_accepted, 2, "{report:?}");
    let seen = "SELECT note, valid_from FROM \"t$journal\" ORDER BY valid_from";
    assert_eq!(
        lines(&place.session, seen).await,
        ["kept 2026-01-01T00:00:05Z", "kept 2026-01-02T00:00:05Z"]
    );
    let error = query::error(
        &place.session,
        &format!("{copy} OPTIONS (unavailible = '?')"),
    )
    .await;
    assert!(
        error.contains("unavailible") && error.contains("unavailable"),
        "{error}"
    );
}

/// Events that come in another order than they happened, split over two loads.
#[tokio::test(flavor = "multi_thread")]
async fn o5_files_may_come_in_any_order_inside_the_horizon() {
    let events = [
        event("c", Value::Null, row(1, "a", "n"), 1),
        event("u", Value::Null, row(1, "b", "n"), 3),
        event("d", row(1, "b", "n"), Value::Null, 5),
        event("c", Value::Null, row(1, "b", "n"), 7),
    ];
    for order in orders(&[0_usize, 1, 2, 3]) {
        let place = Place::new("LATE APPLY AFTER INTERVAL '300 days'").await;
        let shuffled: Vec<Value> = order.iter().map(|place| events[*place].clone()).collect();
        let (first, second) = shuffled.split_at(2);
        place.load(first).await;
        place.load(second).await;
        assert_eq!(
            place.history().await,
            ["1 a n 01 03", "1 b n 03 05", "1 b n 07 NULL"],
            "{order:?}"
        );
    }
}

/// TRUNCATE, and what is inserted behind it in the same transaction.
#[tokio::test(flavor = "multi_thread")]
async fn o5_an_emptied_table_is_filled_again() {
    let place = Place::new("").await;
    let come = |id: i64, name: &str, day: i64| event("c", Value::Null, row(id, name, "n"), day);
    place.load(&[come(1, "a", 1), come(2, "b", 1)]).await;
    let events = [
        event("t", Value::Null, Value::Null, 3),
        // What was there and is there again was never gone.
        come(2, "b", 3),
        come(3, "c", 4),
    ];
    place.load(&events).await;
    let expected = ["1 a n 01 03", "2 b n 01 NULL", "3 c n 04 NULL"];
    assert_eq!(place.history().await, expected);
    checked(&place.session, "t").await;
    let report = place.load(&events).await;
    assert_eq!(report.version, None, "{report:?}");
    let error = place.refused(&[events[0].clone(), come(9, "z", 2)]).await;
    assert!(error.contains("older than the event"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_a_tombstone_may_come_with_a_later_load() {
    let place = Place::new("").await;
    let pair = |id: i64, value: Value| json!({"key": {"id": id}, "value": value});
    let come = |id: i64| pair(id, event("c", Value::Null, row(id, "a", "n"), 1));
    place.load(&[come(1), come(2)]).await;
    let gone = event("d", Value::Null, Value::Null, 2);
    place.load(&[pair(1, gone)]).await;
    let before = newest(&place.session).await;
    let report = place.load(&[pair(1, Value::Null)]).await;
    assert_eq!(report.version, None, "{report:?}");
    let error = place
        .refused(&[pair(1, Value::Null), pair(2, Value::Null)])
        .await;
    assert!(
        error.contains("line 2: a tombstone follows no delete") && error.contains("id = 2"),
        "{error}"
    );
    assert_eq!(newest(&place.session).await, before);
    assert_eq!(place.history().await, ["1 a n 01 02", "2 a n 01 NULL"]);
}

/// A key that is told in bytes, or by a number that counts, is what its own schema says.
#[tokio::test(flavor = "multi_thread")]
async fn o5_a_tombstone_is_read_by_the_schema_of_its_key() {
    let place = Place::new("").await;
    query::run(
        &place.session,
        "CREATE TABLE k (price DECIMAL(10, 2), since TIMESTAMP WITH TIME ZONE, at TIMESTAMP WITH TIME ZONE) \
         JOURNAL KEYS (price, since) SEQUENCE BY at",
    )
    .await;
    let come = |price: &str| {
        let after = json!({"price": price, "since": "2026-01-01T00:00:00Z"});
        event("c", Value::Null, after, 1)
    };
    let copy = place.copy("k", &[come("1234"), come("10")]);
    query::write(&place.session, &copy).await;
    let schema = json!({"type": "struct", "fields": [
        {
            "field": "price", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal",
            "parameters": {"scale": "2"},
        },
        {"field": "since", "type": "int64", "name": "io.debezium.time.MicroTimestamp"},
    ]});
    let tombstone = |price: &str| {
        let payload = json!({"price": price, "since": FIRST * 1_000});
        json!({"key": {"schema": schema, "payload": payload}, "value": null})
    };
    // In base64 the digits are bytes as well: -26588.24, which the table does not hold.
    let report = query::write(&place.session, &place.copy("k", &[tombstone("1234")])).await;
    assert_eq!(report.version, None, "{report:?}");
    // 03 e8: 10.00.
    let error = query::error(&place.session, &place.copy("k", &[tombstone("A+g=")])).await;
    assert!(
        error.contains("a tombstone follows no delete, and table public.k holds the key"),
        "{error}"
    );
}

/// The table writes keys in its own way, and the database in another one.
#[tokio::test(flavor = "multi_thread")]
async fn o5_an_emptied_table_knows_its_keys_however_they_are_written() {
    let place = Place::new("").await;
    query::run(
        &place.session,
        "CREATE TABLE k (price DECIMAL(10, 2), since TIMESTAMP WITH TIME ZONE, name TEXT, at TIMESTAMP WITH TIME ZONE) \
         JOURNAL KEYS (price, since) SEQUENCE BY at",
    )
    .await;
    let come = |day: i64| {
        let after = json!({"price": 7.5, "since": "2026-01-01T00:00:00.000000Z", "name": "a"});
        event("c", Value::Null, after, day)
    };
    query::write(&place.session, &place.copy("k", &[come(1)])).await;
    let events = [event("t", Value::Null, Value::Null, 3), come(3)];
    query::run(&place.session, &place.copy("k", &events)).await;
    let sql =
        "SELECT price, name, CAST(valid_from AS DATE), CAST(valid_to AS DATE) FROM \"k$journal\"";
    let found = lines(&place.session, sql).await;
    assert_eq!(found, ["7.5 a 2026-01-01 NULL"]);
}

/// `decimal.handling.mode = precise`, which needs the schema.
#[tokio::test(flavor = "multi_thread")]
async fn o5_decimals_in_bytes_are_read_exactly() {
    let place = Place::new("").await;
    query::run(
        &place.session,
        "CREATE TABLE d (id BIGINT, price DECIMAL(10, 2), loose DECIMAL(10, 3), at TIMESTAMP WITH TIME ZONE) \
         JOURNAL KEYS (id) SEQUENCE BY at",
    )
    .await;
    let decimal = json!({
        "field": "price", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
        "parameters": {"scale": "2", "connect.decimal.precision": "10"},
    });
    let loose = json!({
        "field": "loose", "type": "struct", "name": "io.debezium.data.VariableScaleDecimal",
        "fields": [{"field": "scale", "type": "int32"}, {"field": "value", "type": "bytes"}],
    });
    let fields = json!([{"field": "id", "type": "int64"}, decimal, loose]);
    let schema = json!({
        "type": "struct",
        "fields": [{"field": "after", "type": "struct", "fields": fields}],
    });
    // In base64, digits are bytes as well: d7 6d f8.
    let after = json!({"id": 1, "price": "1234", "loose": {"scale": 3, "value": "/w=="}});
    let payload = event("c", Value::Null, after, 1);
    let events = [json!({"schema": schema, "payload": payload})];
    query::write(&place.session, &place.copy("d", &events)).await;
    let found = lines(&place.session, "SELECT price, loose FROM d").await;
    assert_eq!(found, ["-26588.24 -0.001"]);
}

/// A column of the rows that tells time, and the time of the event.
#[tokio::test(flavor = "multi_thread")]
async fn o5_two_clocks_are_one_too_many() {
    let place = Place::new("").await;
    let mut after = row(1, "a", "n");
    after["at"] = json!("2026-01-05T00:00:00Z");
    // The transaction began before it was committed: the row that came anew is older than the end of the one before.
    let events = [
        event("c", Value::Null, after.clone(), 6),
        event("d", after.clone(), Value::Null, 7),
        event("c", Value::Null, after, 7),
    ];
    let error = place.refused(&events).await;
    assert!(error.contains("two clocks"), "{error}");
    let copy = place.copy("t", &events);
    query::write(
        &place.session,
        &format!("{copy} OPTIONS (sequence = 'event')"),
    )
    .await;
    assert_eq!(place.history().await, ["1 a n 06 NULL"]);
    checked(&place.session, "t").await;
}

/// Two changes of a row in one transaction, of which the second does not say what the first one made of a column.
#[tokio::test(flavor = "multi_thread")]
async fn o5_changes_of_one_transaction_add_up() {
    let place = Place::new("").await;
    place
        .load(&[
            event("c", Value::Null, row(1, "a", "first"), 1),
            event("u", Value::Null, row(1, "a", "second"), 2),
            event("u", Value::Null, row(1, "b", UNAVAILABLE), 2),
        ])
        .await;
    let expected = ["1 a first 01 02", "1 b second 02 NULL"];
    assert_eq!(place.history().await, expected);
}

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::execution::memory_pool::UnboundedMemoryPool;

use super::*;
use crate::journal::definition::{Definition, IgnoreNulls, Late, OpenEnd, PeriodColumns, Track};
use crate::journal::event::keeps;
use crate::session::debezium::cells::{Bytes, Reading};
use crate::session::debezium::terms::Stamp;

const MARKER: &str = r#""__debezium_unavailable_value""#;

/// `client_id BIGINT, city TEXT, note TEXT, updated_at TIMESTAMP`, of which NULL in `note` says nothing.
pub(in crate::session::debezium) fn shape(sequence: Option<&str>, day: bool) -> Arc<Shape> {
    let at = match day {
        true => DataType::Date32,
        false => DataType::Timestamp(TimeUnit::Microsecond, None),
    };
    let declared = Arc::new(Schema::new(vec![
        Field::new("client_id", DataType::Int64, false),
        Field::new("city", DataType::Utf8View, false),
        Field::new("note", DataType::Utf8View, true),
        Field::new("updated_at", at, true),
    ]));
    let definition = Definition {
        keys: vec!["client_id".into()],
        sequence: sequence.map(str::to_owned),
        delete_when: None,
        track: Track::All,
        ignore_nulls: IgnoreNulls::On(vec!["note".into()]),
        late: Late::default(),
        columns: PeriodColumns::default(),
        open_end: OpenEnd::Null,
    };
    let stored = Shape::with_period(&declared, &definition.columns).unwrap();
    Arc::new(Shape::new("s.t", definition, &stored).unwrap())
}

pub(in crate::session::debezium) fn terms(shape: Arc<Shape>, when: When) -> Arc<Terms> {
    let reading = Reading {
        unavailable: "__debezium_unavailable_value".into(),
        unit: None,
        bytes: Bytes::Base64,
    };
    Arc::new(Terms::new(shape, reading, "key".into(), when).unwrap())
}

fn by_row() -> Arc<Terms> {
    let field = When::Field("updated_at".into());
    terms(shape(Some("updated_at"), false), field)
}

fn by_event() -> Arc<Terms> {
    terms(shape(Some("updated_at"), false), When::Event)
}

fn changes_of(terms: Arc<Terms>, emptied: Vec<Emptied>) -> Changes {
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    Changes::new(terms, emptied, &pool)
}

/// An event of this op at a second.
fn event(op: &str, before: &str, after: &str, second: i64) -> String {
    format!(
        r#"{{"op": "{op}", "before": {before}, "after": {after}, "source": {{"ts_ms": {}}}, "ts_ms": 99000}}"#,
        second * 1_000
    )
}

fn image(id: i64, city: &str, second: i64) -> String {
    format!(
        r#"{{"client_id": {id}, "city": "{city}", "note": null, "updated_at": "1970-01-01T00:00:{second:02}Z"}}"#
    )
}

/// The rows of these lines: columns, then `D` where the key ends, and the columns that keep their value.
fn rows(terms: &Arc<Terms>, lines: &[String]) -> Result<Vec<String>> {
    let mut changes = changes_of(Arc::clone(terms), Vec::new());
    for (line, position) in lines.iter().zip((2..).step_by(2)) {
        changes.push(line, position)?;
    }
    let batch = changes.batch()?;
    assert_eq!(changes.rows(), 0);
    let columns = terms.kinds.len();
    let shown = (0..batch.num_rows()).map(|row| {
        let mut cells: Vec<String> = (0..columns)
            .map(|column| {
                let texts = batch.column(column).as_string::<i32>();
                match texts.is_null(row) {
                    true => "-".to_owned(),
                    false => texts.value(row).replace("1970-01-01T00:00:", ""),
                }
            })
            .collect();
        if batch.column(columns).as_boolean().value(row) {
            cells.push("D".into());
        }
        let keep = batch.column(columns + 1).as_binary::<i32>();
        if keep.is_valid(row) {
            let kept = (0..columns).filter(|column| keeps(Some(keep.value(row)), *column));
            cells.push(format!("{:?}", kept.collect::<Vec<_>>()));
        }
        cells.join(" ")
    });
    Ok(shown.collect())
}

fn refused(terms: &Arc<Terms>, lines: &[String]) -> String {
    rows(terms, lines).unwrap_err().to_string()
}

#[test]
fn every_op_does_what_it_says() {
    let lines = [
        event("r", "null", &image(1, "Rome", 1), 50),
        event("c", "null", &image(2, "Oslo", 2), 50),
        event("u", &image(1, "Rome", 1), &image(1, "Bari", 3), 50),
        event("d", &image(2, "Oslo", 2), "null", 50),
        r#"{"op": "m", "message": {"prefix": "x"}, "ts_ms": 1}"#.to_owned(),
        r#"{"status": "BEGIN", "id": "7", "ts_ms": 1}"#.to_owned(),
    ];
    let expected = [
        "1 Rome - 01.000000",
        "2 Oslo - 02.000000",
        "1 Bari - 03.000000",
        // The image is the row as it was, so its instant is not that of the delete.
        "2 - - 50.000000 D",
    ];
    assert_eq!(rows(&by_row(), &lines).unwrap(), expected);
    let truncate = event("t", "null", "null", 60);
    let error = refused(&by_row(), &[lines[0].clone(), truncate]);
    assert!(error.contains("(op t) behind other changes"), "{error}");
}

#[test]
fn a_changed_key_ends_the_old_one() {
    let lines = [event("u", &image(1, "Rome", 5), &image(2, "Rome", 6), 50)];
    let expected = ["1 - - 06.000000 D", "2 Rome - 06.000000"];
    assert_eq!(rows(&by_row(), &lines).unwrap(), expected);
    // Where nobody moved the clock, the old row was true for a moment at least.
    let lines = [event("u", &image(1, "Rome", 5), &image(2, "Rome", 5), 50)];
    let expected = ["1 - - 05.000001 D", "2 Rome - 05.000000"];
    assert_eq!(rows(&by_row(), &lines).unwrap(), expected);
    // Databases that log keys only write nulls, which say nothing of the key.
    let silent = r#"{"client_id": null, "city": null}"#;
    let lines = [event("u", silent, &image(2, "Rome", 6), 50)];
    assert_eq!(rows(&by_row(), &lines).unwrap().len(), 1);
}

#[test]
fn a_delete_is_named_by_its_image_or_its_key() {
    let delete = event("d", "null", "null", 9);
    let scalar = format!(r#"{{"key": 7, "value": {delete}}}"#);
    let wrapped = format!(
        r#"{{"key": {{"schema": {{}}, "payload": {{"client_id": 8}}}}, "value": {{"schema": null, "payload": {delete}}}}}"#
    );
    let found = rows(&by_row(), &[scalar, wrapped]).unwrap();
    assert_eq!(found, ["7 - - 09.000000 D", "8 - - 09.000000 D"]);
    let error = refused(&by_row(), std::slice::from_ref(&delete));
    assert!(error.contains("neither its before nor a key"), "{error}");
    let other = format!(r#"{{"key": {{"city": "Rome"}}, "value": {delete}}}"#);
    let error = refused(&by_row(), &[other]);
    assert!(error.contains("does not hold client_id"), "{error}");
    // A delete in the millisecond of the change before it comes after that change.
    let fine = r#"{"client_id": 1, "updated_at": "1970-01-01T00:00:09.000500Z"}"#;
    let found = rows(&by_row(), &[event("d", fine, "null", 9)]).unwrap();
    assert_eq!(found, ["1 - - 09.000501 D"]);
}

#[test]
fn a_tombstone_follows_its_delete() {
    let pair =
        |id: i64, value: &str| format!(r#"{{"key": {{"client_id": {id}}}, "value": {value}}}"#);
    let delete = |id| pair(id, &event("d", &image(id, "Rome", 1), "null", 5));
    let tombstone = |id| pair(id, "null");
    let lines = [
        tombstone(9),
        delete(1),
        delete(2),
        tombstone(1),
        tombstone(2),
    ];
    let mut changes = changes_of(by_row(), Vec::new());
    for line in &lines {
        changes.push(line, 0).unwrap();
    }
    assert_eq!((changes.rows(), changes.skipped), (2, 3));
    // Whose key it is must be said in columns of the table, so that the table can be asked.
    let other = r#"{"key": {"city": "Rome"}, "value": null}"#.to_owned();
    let error = refused(&by_row(), &[other]);
    assert!(error.contains("does not hold client_id"), "{error}");
    let bare = event("d", &image(1, "Rome", 1), "null", 5);
    assert_eq!(
        rows(&by_row(), &[bare, "null".to_owned()]).unwrap().len(),
        1
    );
    let create = event("c", "null", &image(1, "Rome", 1), 5);
    let error = refused(&by_row(), &[create, "null".to_owned()]);
    assert!(error.contains("does not follow the delete"), "{error}");
}

#[test]
fn values_that_are_not_available_stay_what_they_were() {
    let after = format!(
        r#"{{"client_id": 1, "city": {MARKER}, "note": null, "updated_at": "1970-01-01T00:00:01Z"}}"#
    );
    let found = rows(&by_row(), &[event("u", "null", &after, 50)]).unwrap();
    // `note` keeps its value by the table's definition, which a row that says what it keeps says again.
    assert_eq!(found, ["1 - - 01.000000 [1, 2]"]);
    let whole = rows(&by_row(), &[event("u", "null", &image(1, "Rome", 1), 50)]).unwrap();
    assert_eq!(whole, ["1 Rome - 01.000000"]);
    let after = format!(r#"{{"client_id": {MARKER}, "city": "x", "updated_at": null}}"#);
    let error = refused(&by_row(), &[event("u", "null", &after, 50)]);
    assert!(
        error.contains("key client_id of the change is not available"),
        "{error}"
    );
}

#[test]
fn fields_that_do_not_fit_the_table_are_refused() {
    let after = |fields: &str| event("c", "null", &format!("{{{fields}}}"), 5);
    for (line, what) in [
        (
            after(r#""client_id": 1, "city": "x", "updated_at": null, "citty": "x""#),
            "the change has the field citty, and table s.t no such column\nhint: the nearest column is city",
        ),
        (
            after(r#""client_id": 1, "city": "x", "zip_code": 7"#),
            "hint: ALTER TABLE s.t ADD COLUMN zip_code",
        ),
        (
            after(r#""client_id": 1"#),
            "has no field city, which table s.t has",
        ),
        (after(r#""city": "x""#), "has no field client_id"),
        (
            after(r#""client_id": 1, "city": "x", "city": "y""#),
            "has the field city twice in its after",
        ),
        (
            after(r#""client_id": 1, "city": {"a": 1}"#),
            "field city is an object",
        ),
        (
            after(r#""client_id": 1, "city": "x", "updated_at": 15"#),
            "field updated_at is a number, and nothing says what it counts",
        ),
        (
            r#"{"key": 1, "value": null, "offset": 3}"#.to_owned(),
            "unknown member offset beside key and value",
        ),
        (
            r#"{"client_id": 1}"#.to_owned(),
            "has the unknown field client_id",
        ),
        ("{".to_owned(), "the change is not JSON"),
    ] {
        let error = refused(&by_row(), std::slice::from_ref(&line));
        assert!(error.contains(what), "{line}: {error}");
    }
    // Left out, `note` says as much as NULL does.
    let found = rows(&by_row(), &[after(r#""client_id": 1, "City": "x""#)]).unwrap();
    assert_eq!(found, ["1 x - 05.000000"]);
}

#[test]
fn the_statement_may_say_which_instant_counts() {
    let row = event("u", "null", &image(1, "Rome", 1), 50);
    let delete = event("d", &image(1, "Rome", 1), "null", 50);
    let lines = [row, delete];
    let of = |when| rows(&terms(shape(Some("updated_at"), false), when), &lines);
    let found = of(When::Stamp(Stamp::SourceMillis)).unwrap();
    assert_eq!(found, ["1 Rome - 50.000000", "1 - - 50.000000 D"]);
    let found = of(When::Stamp(Stamp::SeenMillis)).unwrap();
    let seen = "1970-01-01T00:01:39.000000";
    assert_eq!(found[0], format!("1 Rome - {seen}"));
    let error = of(When::Stamp(Stamp::SeenMicros)).unwrap_err();
    assert_eq!(error.message(), "the change has no ts_us");
    let after = r#"{"client_id": 1, "city": "x", "moved": "1970-01-01T00:00:07Z"}"#;
    let moved = [event("c", "null", after, 50)];
    let by_field = terms(
        shape(Some("updated_at"), false),
        When::Field("moved".into()),
    );
    assert_eq!(rows(&by_field, &moved).unwrap(), ["1 x - 07.000000"]);
    // Where the table keeps no sequence the write has one instant, and the column is one like any other.
    let plain = terms(shape(None, false), When::Event);
    let found = rows(&plain, &lines).unwrap();
    assert_eq!(found, ["1 Rome - 01Z", "1 - - - D"]);
    let days = When::Field("updated_at".into());
    let days = terms(shape(Some("updated_at"), true), days);
    assert_eq!(rows(&days, &lines).unwrap()[0], "1 Rome - 1970-01-01");
}

/// The database's clock dates every change, and a second clock has to be chosen.
#[test]
fn one_clock_orders_all_changes() {
    let after = |city: &str| format!(r#"{{"client_id": 1, "city": "{city}"}}"#);
    let before = r#"{"client_id": 1, "city": null, "updated_at": "1970-01-01T00:00:59Z"}"#;
    let lines = [
        event("c", "null", &after("Rome"), 5),
        event("u", "null", &after("Bari"), 7),
        // The row that goes says nothing of when, whatever is in it.
        event("d", before, "null", 7),
        event(
            "c",
            "null",
            r#"{"client_id": 1, "city": "Pisa", "updated_at": null}"#,
            7,
        ),
    ];
    let expected = [
        "1 Rome - 05.000000",
        "1 Bari - 07.000000",
        "1 - - 07.000000 D",
        "1 Pisa - 07.000000",
    ];
    assert_eq!(rows(&by_event(), &lines).unwrap(), expected);
    let own = [event("c", "null", &image(1, "Rome", 1), 5)];
    let error = refused(&by_event(), &own);
    assert!(
        error.contains("the row has its own updated_at, by which table s.t orders"),
        "{error}"
    );
    assert!(error.contains("OPTIONS (sequence = 'event')"), "{error}");
    let chosen = terms(shape(Some("updated_at"), false), When::Stamp(Stamp::Change));
    assert_eq!(rows(&chosen, &own).unwrap(), ["1 Rome - 05.000000"]);
    let silent = format!(r#"{{"op": "c", "after": {}}}"#, after("Rome"));
    let error = refused(&by_event(), &[silent]);
    assert!(error.contains("does not say when it was made"), "{error}");
}

/// Rows that a load brings behind an emptied table are not older than that.
#[test]
fn changes_behind_an_emptied_table_come_after_it() {
    let emptied = Emptied {
        at: Some(6_000_000),
        position: 2,
    };
    let mut changes = changes_of(by_event(), vec![emptied]);
    changes.push(&event("t", "null", "null", 6), 2).unwrap();
    let after = r#"{"client_id": 1, "city": "Rome"}"#;
    changes.push(&event("c", "null", after, 6), 4).unwrap();
    let error = changes.push(&event("c", "null", after, 5), 6).unwrap_err();
    assert!(error.message().contains("older than the event"), "{error}");
    let error = changes.push(&event("t", "null", "null", 7), 8).unwrap_err();
    assert!(error.message().contains("behind other changes"), "{error}");
}

use datafusion::arrow::array::{Array, AsArray, Int64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::change::tests::{shape, terms as terms_of};
use super::lines::tests::file;
use super::terms::POSITION;
use super::*;
use crate::journal::event::{DELETE, KEEP, keeps};

fn row(op: &str, id: i64, city: &str, second: i64) -> String {
    let image = format!(
        r#"{{"client_id": {id}, "city": "{city}", "note": null, "updated_at": "1970-01-01T00:00:{second:02}Z"}}"#
    );
    let (before, after) = match op {
        "d" => (image.as_str(), "null"),
        _ => ("null", image.as_str()),
    };
    format!(
        r#"{{"op": "{op}", "before": {before}, "after": {after}, "ts_ms": {}}}"#,
        second * 1_000
    )
}

fn with_sequence() -> Arc<Terms> {
    let field = When::Field("updated_at".into());
    terms_of(shape(Some("updated_at"), false), field)
}

async fn files_of(contents: &[Vec<String>]) -> Vec<Listed> {
    let mut files = Vec::new();
    for lines in contents {
        files.push(file(lines.join("\n").as_bytes()).await);
    }
    files
}

/// Current rows with these keys.
fn current(keys: &[i64]) -> Arc<dyn TableProvider> {
    let schema = Arc::new(Schema::new(vec![Field::new(
        "client_id",
        DataType::Int64,
        false,
    )]));
    let keys = Arc::new(Int64Array::from(keys.to_vec()));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![keys]).unwrap();
    Arc::new(MemTable::try_new(schema, vec![vec![rows]]).unwrap())
}

/// What reaches the journal, sorted: key, city, sequence, whether it ends, and the columns that keep their value.
async fn written(contents: &[Vec<String>], terms: &Arc<Terms>) -> Result<Vec<String>> {
    written_over(contents, terms, &[]).await
}

/// The same where the table holds rows with these keys.
async fn written_over(
    contents: &[Vec<String>],
    terms: &Arc<Terms>,
    keys: &[i64],
) -> Result<Vec<String>> {
    // Several batches of a file, several partitions.
    let config = SessionConfig::new()
        .with_batch_size(2)
        .with_target_partitions(3);
    let context = SessionContext::new_with_config(config);
    let files = files_of(contents).await;
    let plan = changes(&context.state(), files, terms, &current(keys)).await?;
    let batches = context.execute_logical_plan(plan).await?.collect().await?;
    let mut rows = Vec::new();
    for batch in &batches {
        assert!(batch.column_by_name(POSITION).is_none());
        let text = |name: &str, row| {
            let column = batch.column_by_name(name).unwrap().as_string::<i32>();
            column.value(row).replace("1970-01-01T00:00:", "")
        };
        let ends = batch.column_by_name(DELETE).unwrap().as_boolean();
        let keep = batch.column_by_name(KEEP).unwrap().as_binary::<i32>();
        for row in 0..batch.num_rows() {
            let (id, city) = (text("client_id", row), text("city", row));
            let at = text("updated_at", row);
            let ends = if ends.value(row) { " ends" } else { "" };
            let kept = match keep.is_valid(row) {
                true => {
                    let columns = 0..terms.kinds.len();
                    let kept = columns.filter(|column| keeps(Some(keep.value(row)), *column));
                    format!(" {:?}", kept.collect::<Vec<_>>())
                }
                false => String::new(),
            };
            rows.push(format!("{id} {city} {at}{ends}{kept}"));
        }
    }
    rows.sort();
    Ok(rows)
}

#[tokio::test]
async fn of_several_changes_at_one_instant_the_last_line_is_true() {
    let first = vec![
        row("c", 1, "Rome", 1),
        row("u", 1, "Bari", 1),
        row("u", 1, "Pisa", 2),
        row("c", 2, "Oslo", 1),
        row("c", 3, "Kiel", 1),
        String::new(),
    ];
    // The files follow each other as they are listed.
    let second = vec![row("u", 2, "Bergen", 1), row("u", 1, "Pisa", 2)];
    let found = written(&[first, second], &with_sequence()).await.unwrap();
    let expected = [
        "1 Bari 01.000000",
        "1 Pisa 02.000000",
        "2 Bergen 01.000000",
        "3 Kiel 01.000000",
    ];
    assert_eq!(found, expected);
    let none = written(&[vec![]], &with_sequence()).await.unwrap();
    assert_eq!(none, Vec::<String>::new());
}

#[tokio::test]
async fn without_a_sequence_a_key_changes_once() {
    let plain = terms_of(shape(None, false), When::Event);
    let once = vec![row("c", 1, "Rome", 1), row("d", 2, "Oslo", 1)];
    let found = written(&[once], &plain).await.unwrap();
    assert_eq!(found, ["1 Rome 01Z", "2   ends"]);
    let twice = vec![row("c", 1, "Rome", 1), row("u", 1, "Bari", 2)];
    let error = written(&[twice], &plain).await.unwrap_err().to_string();
    assert!(
        error.contains("key (client_id) have several changes"),
        "{error}"
    );
    assert!(error.contains("SEQUENCE BY"), "{error}");
}

#[tokio::test]
async fn an_error_names_its_line() {
    let bad = vec![row("c", 1, "Rome", 1), row("x", 1, "Rome", 1)];
    let error = written(&[bad], &with_sequence()).await.unwrap_err();
    let told = "/changes.json, line 2: the change has the unknown op x";
    assert!(error.message().contains(told), "{error}");
}

/// The value of a column stays what an earlier change of the same instant made it.
#[tokio::test]
async fn changes_of_one_instant_add_up() {
    let terms = terms_of(shape(Some("updated_at"), false), When::Event);
    let change = |op: &str, id: i64, city: &str, note: &str| {
        format!(
            r#"{{"op": "{op}", "after": {{"client_id": {id}, "city": {city}, "note": {note}}}, "ts_ms": 5000}}"#
        )
    };
    let unsaid = r#""__debezium_unavailable_value""#;
    let delete = |id: i64| {
        format!(r#"{{"op": "d", "before": {{"client_id": {id}}}, "after": null, "ts_ms": 5000}}"#)
    };
    let lines = vec![
        // The city is of the first; of the note, whose NULLs say nothing, nothing is known.
        change("u", 1, r#""Rome""#, "null"),
        change("u", 1, unsaid, "null"),
        // Nothing is said of the city at all.
        change("u", 2, unsaid, r#""n""#),
        change("u", 2, unsaid, "null"),
        // Behind its end a row keeps nothing of what it was.
        delete(3),
        change("c", 3, r#""Oslo""#, "null"),
        change("c", 4, r#""Kiel""#, "null"),
        delete(4),
        change("u", 5, r#""Pisa""#, "null"),
    ];
    let expected = [
        "1 Rome 05.000000 [2]",
        "2  05.000000 [1]",
        "3 Oslo 05.000000 []",
        "4  05.000000 ends",
        "5 Pisa 05.000000",
    ];
    assert_eq!(written(&[lines], &terms).await.unwrap(), expected);
}

#[tokio::test]
async fn a_load_may_begin_with_an_emptied_table() {
    let terms = terms_of(shape(Some("updated_at"), false), When::Event);
    let begin = r#"{"status": "BEGIN", "id": "1", "ts_ms": 1}"#.to_owned();
    let truncate = |second: i64| format!(r#"{{"op": "t", "ts_ms": {}}}"#, second * 1_000);
    let create = |id: i64, second: i64| {
        format!(
            r#"{{"op": "c", "after": {{"client_id": {id}, "city": "Rome", "note": null}}, "ts_ms": {}}}"#,
            second * 1_000
        )
    };
    let load = |contents: Vec<Vec<String>>| {
        let terms = Arc::clone(&terms);
        async move { written_over(&contents, &terms, &[1, 2]).await }
    };
    let alone = vec![vec![begin], vec![truncate(5)]];
    let ended = ["1  05.000000 ends", "2  05.000000 ends"];
    assert_eq!(load(alone).await.unwrap(), ended);
    // Of a row that came in the same transaction the last event is true, as of any other.
    let refilled = vec![vec![truncate(5), create(2, 5), create(3, 6)]];
    let found = load(refilled).await.unwrap();
    let expected = [
        "1  05.000000 ends",
        "2 Rome 05.000000 []",
        "3 Rome 06.000000",
    ];
    assert_eq!(found, expected);
    let twice = vec![vec![truncate(4)], vec![truncate(5)]];
    assert_eq!(load(twice).await.unwrap().len(), 4);
    let error = load(vec![vec![create(3, 4), truncate(5)]])
        .await
        .unwrap_err();
    let told = "/changes.json, line 2: the table was emptied (op t) behind other changes";
    assert!(error.message().starts_with(told), "{error}");
}

/// The delete of a tombstone may lie anywhere, as long as the table does not hold its key.
#[tokio::test]
async fn a_tombstone_may_lie_elsewhere() {
    let terms = with_sequence();
    let tombstone = |id: i64| format!(r#"{{"key": {{"client_id": {id}}}, "value": null}}"#);
    let pair = |op: &str, id: i64| {
        let value = row(op, id, "Rome", 5);
        format!(r#"{{"key": {{"client_id": {id}}}, "value": {value}}}"#)
    };
    for (files, rows) in [
        (vec![vec![pair("d", 1)], vec![tombstone(1)]], 1),
        // Files of several partitions come in any order.
        (vec![vec![tombstone(1)], vec![pair("d", 1)]], 1),
        // The delete was loaded before.
        (vec![vec![pair("c", 3), tombstone(2)]], 1),
        // A stream that is sent again begins somewhere.
        (vec![vec![tombstone(1), pair("c", 1)]], 1),
    ] {
        let found = written_over(&files, &terms, &[1]).await;
        assert_eq!(found.unwrap().len(), rows, "{files:?}");
    }
    for files in [
        vec![vec![pair("c", 3)], vec![pair("c", 4), tombstone(1)]],
        vec![vec![pair("c", 3)], vec![pair("u", 1), tombstone(1)]],
    ] {
        let error = written_over(&files, &terms, &[1]).await.unwrap_err();
        let told = "/changes.json, line 2: a tombstone follows no delete, and table s.t holds the key client_id = 1";
        assert!(error.message().contains(told), "{error}");
    }
}

#[test]
fn options_are_known_or_refused() {
    let read = |name: &str, value: &str| {
        let options = [(name.to_owned(), value.to_owned())];
        with_options(shape(Some("updated_at"), false), &options)
    };
    let when = |value| read("sequence", value).unwrap().when;
    assert_eq!(when("ts_ms"), When::Stamp(Stamp::SeenMillis));
    assert_eq!(when("source.ts_us"), When::Stamp(Stamp::SourceMicros));
    assert_eq!(when("moved_at"), When::Field("moved_at".into()));
    assert_eq!(read("key_field", "k").unwrap().key_field, "k");
    let reading = read("timestamp_unit", "us").unwrap().reading;
    assert_eq!(reading.unit, Some(Unit::Micros));
    assert_eq!(read("binary", "hex").unwrap().reading.bytes, Bytes::Hex);
    for (name, value, what) in [
        ("seqence", "ts_ms", "did you mean sequence?"),
        ("mode", "x", "options: unavailable, key_field"),
        ("timestamp_unit", "minutes", "must be one of ms, us and ns"),
        ("binary", "raw", "must be one of base64 and hex"),
        (
            "key_field",
            "value",
            "names the member that holds the change",
        ),
    ] {
        let error = read(name, value).unwrap_err().to_string();
        assert!(error.contains(what), "{name}: {error}");
    }
    let options = [("sequence".to_owned(), "ts_ms".to_owned())];
    let error = with_options(shape(None, false), &options).unwrap_err();
    assert!(error.message().contains("has no SEQUENCE BY"), "{error}");
}

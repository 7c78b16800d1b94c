use datafusion::arrow::array::AsArray;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::change::tests::{shape, terms as terms_of};
use super::lines::tests::file;
use super::*;

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
    terms_of(shape(Some("updated_at"), false), When::Row)
}

async fn files_of(contents: &[Vec<String>]) -> Vec<Listed> {
    let mut files = Vec::new();
    for lines in contents {
        files.push(file(lines.join("\n").as_bytes()).await);
    }
    files
}

/// What reaches the journal, sorted: key, city, sequence, whether it ends.
async fn written(contents: &[Vec<String>], terms: &Arc<Terms>) -> Result<Vec<String>> {
    let plan = changes(files_of(contents).await, terms)?;
    // Several batches of a file, several partitions.
    let config = SessionConfig::new()
        .with_batch_size(2)
        .with_target_partitions(3);
    let context = SessionContext::new_with_config(config);
    let batches = context.execute_logical_plan(plan).await?.collect().await?;
    let mut rows = Vec::new();
    for batch in &batches {
        assert!(batch.column_by_name(POSITION).is_none());
        let text = |name: &str, row| {
            let column = batch.column_by_name(name).unwrap().as_string::<i32>();
            column.value(row).replace("1970-01-01T00:00:", "")
        };
        let ends = batch.column_by_name(DELETE).unwrap().as_boolean();
        for row in 0..batch.num_rows() {
            let (id, city) = (text("client_id", row), text("city", row));
            let at = text("updated_at", row);
            let ends = if ends.value(row) { " ends" } else { "" };
            rows.push(format!("{id} {city} {at}{ends}"));
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
    let plain = terms_of(shape(None, false), When::Row);
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

#[tokio::test]
async fn an_emptied_table_stands_alone() {
    let emptied_at = |contents: Vec<Vec<String>>| async move {
        emptied(&files_of(&contents).await, &with_sequence()).await
    };
    let begin = r#"{"status": "BEGIN", "id": "1", "ts_ms": 1}"#.to_owned();
    let truncate = r#"{"op": "t", "ts_ms": 5}"#.to_owned();
    let alone = vec![vec![begin.clone()], vec![truncate.clone()]];
    assert_eq!(emptied_at(alone).await.unwrap(), Some(5_000));
    let other = vec![vec![row("c", 1, "Rome", 1)]];
    assert_eq!(emptied_at(other).await.unwrap(), None);
    assert_eq!(emptied_at(vec![vec![begin]]).await.unwrap(), None);
    for beside in [row("c", 1, "Rome", 1), truncate.clone()] {
        let error = emptied_at(vec![vec![truncate.clone(), beside]]).await;
        let error = error.unwrap_err();
        let told = "/changes.json, line 2: the table was emptied (op t), and other changes";
        assert!(error.message().starts_with(told), "{error}");
    }
    // Behind other changes it is met when they are read.
    let behind = vec![vec![row("c", 1, "Rome", 1), truncate]];
    assert_eq!(emptied_at(behind.clone()).await.unwrap(), None);
    let error = written(&behind, &with_sequence()).await.unwrap_err();
    assert!(
        error.message().contains("line 2: the table was emptied"),
        "{error}"
    );
}

#[test]
fn options_are_known_or_refused() {
    let read = |name: &str, value: &str| {
        let options = [(name.to_owned(), value.to_owned())];
        with_options(shape(Some("updated_at"), false), &options)
    };
    let when = |value| read("sequence", value).unwrap().when;
    assert_eq!(when("ts_ms"), When::Event(Stamp::SeenMillis));
    assert_eq!(when("source.ts_us"), When::Event(Stamp::SourceMicros));
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

#[test]
fn the_instant_of_an_emptied_table_has_the_type_of_its_sequence() {
    let day = sequence_of(&DataType::Date32, -1).unwrap();
    assert_eq!(day, ScalarValue::Date32(Some(-1)));
    let local = DataType::Timestamp(TimeUnit::Microsecond, None);
    let instant = sequence_of(&local, 7).unwrap();
    assert_eq!(instant, ScalarValue::TimestampMicrosecond(Some(7), None));
    assert!(sequence_of(&DataType::Int64, 7).is_err());
}

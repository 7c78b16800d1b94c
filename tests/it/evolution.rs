//! Columns that change: what the log says of it, and who else may be at work meanwhile.

use std::path::Path;

use serde_json::Value;

use crate::support::lake::folder;
use crate::support::query;

/// The newest line of its kind in the log of table `t`.
fn newest(lake: &Path, kind: &str) -> Value {
    let log = lake.join("public/t/_delta_log");
    let mut commits: Vec<_> = std::fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    commits.sort();
    let lines = commits.iter().rev().flat_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines
    });
    let mut found = lines.filter_map(|line: Value| line.get(kind).cloned());
    found.next().unwrap()
}

/// The columns as (name, name in files, id).
fn columns(lake: &Path) -> Vec<(String, String, i64)> {
    let metadata = newest(lake, "metaData");
    let schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    let column = |field: &Value| {
        let noted = &field["metadata"];
        (
            field["name"].as_str().unwrap().to_owned(),
            noted["delta.columnMapping.physicalName"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            noted["delta.columnMapping.id"].as_i64().unwrap_or_default(),
        )
    };
    schema["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(column)
        .collect()
}

fn readers_need(lake: &Path) -> Vec<String> {
    let protocol = newest(lake, "protocol");
    let features = protocol["readerFeatures"].as_array();
    features
        .into_iter()
        .flatten()
        .map(|feature| feature.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_table_asks_of_readers_what_its_changes_need_and_no_more() {
    let lake = tempfile::tempdir().unwrap();
    let session = folder(lake.path()).await;
    query::run(&session, "CREATE TABLE t (a INT, b TEXT)").await;
    for harmless in [
        "ADD COLUMN c INT DEFAULT 1",
        "ALTER COLUMN a SET NOT NULL",
        "ALTER COLUMN c FIRST",
        "ALTER COLUMN b COMMENT 'x'",
    ] {
        query::run(&session, &format!("ALTER TABLE t {harmless}")).await;
        assert_eq!(readers_need(lake.path()), [""; 0], "{harmless}");
    }
    query::run(&session, "ALTER TABLE t ALTER COLUMN a TYPE BIGINT").await;
    assert_eq!(readers_need(lake.path()), ["typeWidening"]);
    query::run(&session, "ALTER TABLE t RENAME COLUMN b TO d").await;
    assert_eq!(readers_need(lake.path()), ["columnMapping", "typeWidening"]);
    assert_eq!(newest(lake.path(), "protocol")["minReaderVersion"], 3);
}

#[tokio::test]
async fn names_in_files_stay_and_never_come_again() {
    let lake = tempfile::tempdir().unwrap();
    let session = folder(lake.path()).await;
    query::run(&session, "CREATE TABLE t (a BIGINT, b BIGINT)").await;
    query::write(&session, "INSERT INTO t VALUES (1, 2)").await;
    query::run(&session, "ALTER TABLE t RENAME COLUMN a TO c").await;
    let named = |name: &str, physical: &str, id| (name.to_owned(), physical.to_owned(), id);
    assert_eq!(
        columns(lake.path()),
        [named("c", "a", 1), named("b", "b", 2)]
    );
    query::run(&session, "ALTER TABLE t DROP COLUMN b").await;
    query::run(&session, "ALTER TABLE t ADD COLUMN b BIGINT").await;
    query::run(&session, "ALTER TABLE t ADD COLUMN a BIGINT").await;
    let found = columns(lake.path());
    let [_, (_, b, 3), (_, a, 4)] = &found[..] else {
        panic!("{found:?}")
    };
    assert!(a.starts_with("col-") && b.starts_with("col-") && a != b);
    query::write(&session, "INSERT INTO t VALUES (4, 5, 6)").await;
    let sum = "SELECT sum(c) * 100 + sum(b) * 10 + sum(a) FROM t";
    assert_eq!(query::integers(&session, sum).await, [556]);
    // An engine that has seen nothing yet reads the same from the log.
    let fresh = folder(lake.path()).await;
    assert_eq!(query::integers(&fresh, sum).await, [556]);
}

#[tokio::test]
async fn a_table_outside_the_lake_is_asked_first() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = folder(there.path()).await;
    query::run(&other, "CREATE TABLE t (a INT, b INT)").await;
    query::write(&other, "INSERT INTO t VALUES (1, 2)").await;
    let session = folder(here.path()).await;
    let create = format!(
        "CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{}'",
        there.path().join("public/t").display()
    );
    query::run(&session, &create).await;
    for (change, property) in [
        (
            "RENAME COLUMN a TO c",
            "'delta.columnMapping.mode' = 'name'",
        ),
        ("DROP COLUMN b", "'delta.columnMapping.mode' = 'name'"),
        (
            "ALTER COLUMN a TYPE BIGINT",
            "'delta.enableTypeWidening' = 'true'",
        ),
    ] {
        let error = query::error(&session, &format!("ALTER TABLE t {change}")).await;
        assert!(error.contains(property), "{change}: {error}");
    }
    query::run(&session, "ALTER TABLE t ADD COLUMN d INT").await;
    for change in [
        "SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name', 'delta.enableTypeWidening' = 'true')",
        "RENAME COLUMN a TO c",
        "DROP COLUMN b",
        "ALTER COLUMN c TYPE BIGINT",
    ] {
        query::run(&session, &format!("ALTER TABLE t {change}")).await;
    }
    assert_eq!(query::integers(&session, "SELECT c FROM t").await, [1]);
}

/// Rows that were on their way when a column changed arrive under its new name, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn writers_and_a_changing_table_at_the_same_time() {
    const ROWS: i64 = 20;
    let lake = tempfile::tempdir().unwrap();
    // Two engines, so that neither knows of the other but by the log.
    let (writer, changer) = (folder(lake.path()).await, folder(lake.path()).await);
    query::run(&changer, "CREATE TABLE t (id BIGINT, a INT, gone INT)").await;
    let writes = async {
        for id in 0..ROWS {
            let sql = format!("INSERT INTO t BY NAME SELECT CAST({id} AS BIGINT) AS id");
            query::write(&writer, &sql).await;
            if id % 5 == 4 {
                query::write(&writer, &format!("DELETE FROM t WHERE id = {id}")).await;
            }
        }
    };
    let changes = async {
        for change in [
            "RENAME COLUMN a TO b",
            "ALTER COLUMN b TYPE BIGINT",
            "DROP COLUMN gone",
            "ADD COLUMN a TEXT FIRST",
            "RENAME COLUMN b TO c",
            "ALTER COLUMN id SET NOT NULL",
        ] {
            // A constraint looks at all rows, so that a row in between means looking again.
            while let Err(error) = changer.execute(&format!("ALTER TABLE t {change}")).await {
                let again = error.kind() == selvedge_engine::ErrorKind::Conflict;
                assert!(again, "{change}: {error}");
            }
        }
    };
    tokio::join!(writes, changes);
    let expected: Vec<i64> = (0..ROWS).filter(|id| id % 5 != 4).collect();
    let fresh = folder(lake.path()).await;
    let found = query::integers(&fresh, "SELECT id FROM t ORDER BY id").await;
    assert_eq!(found, expected);
    let names: Vec<_> = columns(lake.path())
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(names, ["a", "id", "c"]);
}

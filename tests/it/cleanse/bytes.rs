//! That a value is left nowhere, in any object of a table.

use std::sync::Arc;

use object_store::memory::InMemory;
use selvedge_engine::Session;

use super::{lines, with_checkpoints};
use crate::support::query;
use crate::support::traces::{contains, holding};

/// What must be gone. Statistics cut long values, so it is at their beginning.
pub(super) const MARKER: &str = "q7marker9z";

/// A folder carries its partition's name, which only goes with its rows.
const FOLDERS: &str = "folders ON t KEY (id, n) IN (SELECT id, 7 FROM asked) DELETE ROWS";

/// Writes, quarantines, updates, deletes and optimizes the marker, so that it is in all kinds of objects.
async fn spread(session: &Session) {
    query::run(session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        session,
        "CREATE TABLE t (id BIGINT, name TEXT, n BIGINT, place STRUCT<city TEXT>, tags TEXT[], part TEXT, \
         CONSTRAINT low EXPECT (n >= 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT last EXPECT (max(name) <> '' AND min(name) <> '') ON VIOLATION WARN, \
         CONSTRAINT named EXPECT (name NOT LIKE '%bad') ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT strict EXPECT (n <> 13)) \
         PARTITIONED BY (part) TBLPROPERTIES ('selvedge.quarantineInvalid' = 'true', 'selvedge.profile' = 'true')",
    )
    .await;
    let row = |id: i64, name: &str, n: &str, part: &str| {
        format!(
            "({id}, '{MARKER}{name}', {n}, {{city: '{MARKER} city'}}, ['{MARKER} tag', 'x'], '{part}')"
        )
    };
    let plain = |id: i64| format!("({id}, 'name {id}', {id}, {{city: 'Basel'}}, ['x'], 'a')");
    for version in 0..6 {
        let base = version * 10 + 100;
        let rows = [
            plain(base),
            row(1, &format!(" v{version}"), "1", "a"),
            row(2, &format!(" q{version}"), "-1", "b"),
            row(3, " bad", "3", "b"),
            plain(base + 1),
        ];
        query::write(
            session,
            &format!("INSERT INTO t VALUES {}", rows.join(", ")),
        )
        .await;
        // A row that does not fit, kept as the text it came as.
        let odd = format!(
            "INSERT INTO t SELECT 1, '{MARKER} odd', CASE WHEN value = 1 THEN 'many' ELSE '5' END, NULL, NULL, 'a' \
             FROM generate_series(1, 2)"
        );
        query::write(session, &odd).await;
        // A write that is refused leaves its record.
        let blocked = format!("INSERT INTO t VALUES {}", row(1, " blocked", "13", "a"));
        query::error(session, &blocked).await;
        query::write(
            session,
            &format!("UPDATE t SET name = '{MARKER} again' WHERE id = 1 AND n = 1"),
        )
        .await;
        query::write(
            session,
            &format!("DELETE FROM t WHERE name = '{MARKER} again' AND n = 1 AND part = 'a'"),
        )
        .await;
    }
    query::write(
        session,
        &format!("INSERT INTO t VALUES {}", row(1, " kept", "7", MARKER)),
    )
    .await;
    query::run(session, "OPTIMIZE t").await;
    query::write(
        session,
        &format!("INSERT INTO t VALUES {}", row(1, " after", "8", "a")),
    )
    .await;
}

/// The table once the policies have been run with ERASE; `altered` comes before they are declared.
async fn after(altered: &[&str], policy: &[&str]) -> (Arc<InMemory>, Session) {
    let disk = Arc::new(InMemory::new());
    let engine = with_checkpoints(disk.clone()).await;
    let session = engine.session();
    spread(&session).await;
    engine.settle().await;
    let held = holding(&*disk, "public/t", MARKER).await;
    // The test would show nothing if it were not everywhere.
    for kind in [
        "_delta_log/",
        "checkpoint",
        "_selvedge/quarantine/",
        "_selvedge/",
        "part=a/",
        ".json",
    ] {
        assert!(
            held.iter().any(|path| path.contains(kind)),
            "{kind}: {held:#?}"
        );
    }
    for change in altered {
        query::run(&session, &format!("ALTER TABLE t {change}")).await;
    }
    for policy in policy {
        query::run(&session, &format!("CREATE CLEANSE POLICY {policy}")).await;
    }
    query::write(&session, "INSERT INTO asked VALUES (1), (2), (3)").await;
    let left = lines(&session, "VERIFY ERASURE OF t").await;
    assert!(left.len() > 3, "{left:#?}");
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    engine.settle().await;
    let session = with_checkpoints(disk.clone()).await.session();
    (disk, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_no_byte_of_a_value_is_left() {
    let (disk, session) = after(
        &[],
        &["gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS"],
    )
    .await;
    assert_eq!(holding(&*disk, "", MARKER).await, [""; 0]);
    assert_eq!(
        lines(&session, "VERIFY ERASURE OF t POLICY gone").await,
        [""; 0]
    );
    // What should stay does.
    let kept = "SELECT count(*), count(DISTINCT id), min(id), max(id), min(part) FROM t";
    assert_eq!(lines(&session, kept).await, ["12 12 100 151 a"]);
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$quarantine\"").await,
        0
    );
    // Written, compacted and checkpointed once more, from what is left.
    query::write(
        &session,
        "INSERT INTO t VALUES (1, 'sent again', 1, NULL, NULL, 'a'), (160, 'name 160', 1, NULL, NULL, 'a')",
    )
    .await;
    query::run(&session, "OPTIMIZE t").await;
    assert_eq!(
        query::integers(&session, "SELECT max(id) FROM t").await,
        [160]
    );
    assert_eq!(lines(&session, "VERIFY ERASURE OF t").await, [""; 0]);
}

/// The key stays, its cells go: from rows, quarantined rows, statistics, records of metrics.
#[tokio::test(flavor = "multi_thread")]
async fn c2_no_byte_of_a_nullified_cell_is_left() {
    let (disk, session) = after(
        &[],
        &[
            "cells ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (name, place, tags)",
            FOLDERS,
        ],
    )
    .await;
    assert_eq!(holding(&*disk, "", MARKER).await, [""; 0]);
    assert_eq!(lines(&session, "VERIFY ERASURE OF t").await, [""; 0]);
    let kept = "SELECT count(*) FROM t WHERE id > 99 AND name = 'name ' || id";
    assert_eq!(query::integers(&session, kept).await, [12]);
    let cells = "SELECT count(*) > 6, count(name), count(place), count(tags), min(part), max(part) FROM t WHERE id < 4";
    assert_eq!(lines(&session, cells).await, ["true 0 0 0 a a"]);
    let aside = "SELECT count(*) > 12, count(name), count(place), count(tags), count(DISTINCT id) FROM \"t$quarantine\"";
    assert_eq!(lines(&session, aside).await, ["true 0 0 0 3"]);
}

/// A value that another one takes the place of is as gone as one that nothing does.
#[tokio::test(flavor = "multi_thread")]
async fn c2_no_byte_of_a_cell_that_was_set_is_left() {
    let (disk, session) = after(
        &[],
        &[
            "named ON t KEY (id) IN (SELECT id FROM asked) SET (name = 'it''s gone')",
            "rest ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (place, tags)",
            FOLDERS,
        ],
    )
    .await;
    assert_eq!(holding(&*disk, "", MARKER).await, [""; 0]);
    assert_eq!(lines(&session, "VERIFY ERASURE OF t").await, [""; 0]);
    let cells = "SELECT count(*) > 6, count(*) FILTER (WHERE name <> 'it''s gone'), count(place), count(tags) \
                 FROM t WHERE id < 4";
    assert_eq!(lines(&session, cells).await, ["true 0 0 0"]);
}

/// Whole columns, of every row there is, listed by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn c2_no_byte_of_a_column_is_left() {
    let (disk, session) = after(
        &[],
        &["whole ON t COLUMNS (name, place, tags) NULLIFY", FOLDERS],
    )
    .await;
    assert_eq!(holding(&*disk, "", MARKER).await, [""; 0]);
    assert_eq!(lines(&session, "VERIFY ERASURE OF t").await, [""; 0]);
    let cells = "SELECT count(*) > 18, count(name), count(place), count(tags) FROM t";
    assert_eq!(lines(&session, cells).await, ["true 0 0 0"]);
}

/// The same by what the columns are tagged with, when that came after their values.
#[tokio::test(flavor = "multi_thread")]
async fn c2_no_byte_of_what_is_tagged_is_left() {
    let (disk, session) = after(
        &[
            "ALTER COLUMN name SET TAG pii",
            "ALTER COLUMN place SET TAG pii",
            "ALTER COLUMN tags SET TAG pii",
        ],
        &[
            "personal ON t KEY (id) IN (SELECT id FROM asked) NULLIFY COLUMNS TAGGED pii",
            FOLDERS,
        ],
    )
    .await;
    assert_eq!(holding(&*disk, "", MARKER).await, [""; 0]);
    assert_eq!(lines(&session, "VERIFY ERASURE OF t").await, [""; 0]);
    let cells = "SELECT count(*) > 6, count(name), count(place), count(tags) FROM t WHERE id < 4";
    assert_eq!(lines(&session, cells).await, ["true 0 0 0"]);
}

/// Records tell of a column by the name that it had then, and spell it as SQL does.
#[tokio::test(flavor = "multi_thread")]
async fn c2_no_byte_of_a_renamed_column_is_left() {
    let disk = Arc::new(InMemory::new());
    let engine = with_checkpoints(disk.clone()).await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, mail TEXT, \"a\"\"b\" TEXT, n BIGINT) \
         TBLPROPERTIES ('selvedge.profile' = 'true')",
    )
    .await;
    for version in 0..4 {
        let rows = format!("(1, '{MARKER} {version}', '{MARKER}', 7), (5, 'a', 'b', {version})");
        query::write(&session, &format!("INSERT INTO t VALUES {rows}")).await;
    }
    query::run(&session, "ALTER TABLE t RENAME COLUMN mail TO email").await;
    query::write(&session, "INSERT INTO t VALUES (6, 'a', 'b', 7)").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY cells ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (email, \"a\"\"b\")",
    )
    .await;
    query::write(&session, "INSERT INTO asked VALUES (1)").await;
    engine.settle().await;
    let places = lines(&session, "VERIFY ERASURE OF t").await.join("\n");
    for metric in ["max(mail)", "max(\"a\"\"b\")"] {
        assert!(places.contains(metric), "{metric} is not named:\n{places}");
    }
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    engine.settle().await;
    assert_eq!(holding(&*disk, "", MARKER).await, [""; 0]);
    assert_eq!(lines(&session, "VERIFY ERASURE OF t").await, [""; 0]);
    let cells = "SELECT count(*), count(email), count(\"a\"\"b\") FROM t";
    assert_eq!(lines(&session, cells).await, ["9 5 5"]);
    // What was said of another column stays.
    let kept = "SELECT count(*) > 0 FROM \"t$metrics\" WHERE metric = 'max(n)'";
    assert_eq!(lines(&session, kept).await, ["true"]);
}

/// Without ERASE the newest version is clean, and the older ones are as they were; VERIFY ERASURE says where.
#[tokio::test(flavor = "multi_thread")]
async fn c2_verify_names_the_places_that_hold_a_value() {
    let disk = Arc::new(InMemory::new());
    let engine = with_checkpoints(disk.clone()).await;
    let session = engine.session();
    spread(&session).await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    query::write(&session, "INSERT INTO asked VALUES (1), (2), (3)").await;
    engine.settle().await;
    query::run(&session, "CLEANSE TABLE t").await;
    engine.settle().await;
    let seen = "SELECT count(*) FROM t WHERE id < 4";
    assert_eq!(query::integers(&session, seen).await, [0]);
    let places = lines(&session, "VERIFY ERASURE OF t POLICY gone")
        .await
        .join("\n");
    for kind in [".parquet", "_delta_log/", "_selvedge/quarantine/"] {
        assert!(places.contains(kind), "{kind} is not named:\n{places}");
    }
    // Every data and quarantine file that holds it is named.
    for path in holding(&*disk, "public/t", MARKER).await {
        let path = path.trim_end_matches(", compressed");
        if path.ends_with(".parquet") && !path.contains("_delta_log") {
            let name = path.rsplit('/').next().unwrap();
            assert!(places.contains(name), "{path} is not named:\n{places}");
        }
    }
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    engine.settle().await;
    assert_eq!(lines(&session, "VERIFY ERASURE OF t").await, [""; 0]);
    assert_eq!(holding(&*disk, "public/t", MARKER).await, [""; 0]);
}

/// A dropped value is looked for by the test as well as it is put there.
#[test]
fn the_marker_is_found_in_any_form() {
    for text in [
        "x q7marker9z",
        "71376d61726b6572397a",
        "71376D61726B6572397A",
    ] {
        assert!(contains(text.as_bytes(), MARKER), "{text}");
    }
    let wide: Vec<u8> = MARKER.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(contains(&wide, MARKER));
    assert!(!contains(b"q7marke", MARKER));
}

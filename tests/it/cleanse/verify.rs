//! VERIFY ERASURE: what it must not pass over, and what it must not take for something that is left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use selvedge_engine::Session;

use super::bytes::MARKER;
use super::{lines, only, open, with_checkpoints};
use crate::support::query;
use crate::support::traces::holding;

const GONE: &str = "bounds of a file that is gone email";

/// Files that no version needs go; the log still says what they held.
async fn vacuum(session: &Session) {
    // What was removed in this very millisecond would stay.
    tokio::time::sleep(Duration::from_millis(20)).await;
    query::run(session, "VACUUM t RETAIN 0 HOURS").await;
}

async fn left(session: &Session) -> String {
    lines(session, "VERIFY ERASURE OF t").await.join("\n")
}

async fn names(session: &Session, expected: &[&str]) {
    let places = left(session).await;
    for place in expected {
        assert!(places.contains(place), "{place} is not named:\n{places}");
    }
}

/// A policy says nothing of what was written before its key was listed.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_asked_for_later_is_looked_for_in_what_was_written_before() {
    let session = open(Arc::new(InMemory::new())).await.session();
    for sql in [
        "SET selvedge.vacuum_retention_check = false",
        "CREATE TABLE asked (id BIGINT)",
        "CREATE TABLE t (id BIGINT, email TEXT) TBLPROPERTIES ('selvedge.profile' = 'true')",
        "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (email)",
        "INSERT INTO t VALUES (7, 'zed@x')",
        "INSERT INTO asked VALUES (7)",
        "CLEANSE TABLE t",
    ] {
        query::run(&session, sql).await;
    }
    vacuum(&session).await;
    names(&session, &[GONE, "metric max(email)"]).await;
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    assert_eq!(left(&session).await, "");

    // What comes after an ERASE is held to the list that it knew.
    query::write(&session, "INSERT INTO t VALUES (7, 'again'), (9, 'c@x')").await;
    query::write(&session, "INSERT INTO t VALUES (8, 'b@x')").await;
    query::run(&session, "OPTIMIZE t").await;
    vacuum(&session).await;
    assert_eq!(left(&session).await, "");

    // Now the list is another one, and this is only the newest version made clean.
    query::write(&session, "INSERT INTO asked VALUES (8)").await;
    query::run(&session, "CLEANSE TABLE t").await;
    vacuum(&session).await;
    names(&session, &[GONE, "metric max(email)"]).await;
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    assert_eq!(left(&session).await, "");
}

/// Rows that came while a policy was disabled were held to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_disabled_policy_let_in_is_not_taken_for_cleansed() {
    let session = open(Arc::new(InMemory::new())).await.session();
    for sql in [
        "SET selvedge.vacuum_retention_check = false",
        "CREATE TABLE asked (id BIGINT)",
        "CREATE TABLE t (id BIGINT, email TEXT)",
        "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (email)",
        "INSERT INTO asked VALUES (7)",
        "INSERT INTO t VALUES (1, 'a@x')",
        "CLEANSE TABLE t ERASE",
        "ALTER CLEANSE POLICY forget ON t DISABLE",
        "INSERT INTO t VALUES (7, 'zed@x')",
        "INSERT OVERWRITE t VALUES (1, 'a@x')",
    ] {
        query::run(&session, sql).await;
    }
    vacuum(&session).await;
    let places = lines(&session, "VERIFY ERASURE OF t POLICY forget").await;
    let places = places.join("\n");
    assert!(places.contains(GONE), "{places}");
    query::run(&session, "ALTER CLEANSE POLICY forget ON t ENABLE").await;
    let places = left(&session).await;
    assert!(places.contains(GONE), "{places}");
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    assert_eq!(left(&session).await, "");
}

/// Whatever the policy does, and where files do not tell bounds of the key.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_a_file_that_is_gone_are_named_for_every_kind_of_policy() {
    for policy in [
        "KEY (id) IN (SELECT id FROM asked) NULLIFY (email)",
        "KEY (id) IN (SELECT id FROM asked) SET (email = 'gone')",
        "KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
        "COLUMNS (email) NULLIFY",
    ] {
        let session = open(Arc::new(InMemory::new())).await.session();
        for sql in [
            "SET selvedge.vacuum_retention_check = false",
            "CREATE TABLE asked (id BIGINT)",
            "INSERT INTO asked VALUES (7)",
            "CREATE TABLE t (id BIGINT, email TEXT)",
            "ALTER TABLE t ALTER COLUMN id SET TAG pii",
            "INSERT INTO t VALUES (7, 'zed@x')",
            "INSERT INTO t VALUES (1, 'a@x')",
            format!("CREATE CLEANSE POLICY forget ON t {policy}").as_str(),
            "CLEANSE TABLE t",
        ] {
            query::run(&session, sql).await;
        }
        vacuum(&session).await;
        let places = left(&session).await;
        assert!(places.contains(GONE), "{policy}:\n{places}");
        query::run(&session, "CLEANSE TABLE t ERASE").await;
        assert_eq!(left(&session).await, "", "{policy}");
    }
}

/// What could not be looked at proves nothing; what holds no values is no concern.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_is_not_known_is_named() {
    let disk = Arc::new(InMemory::new());
    let engine = with_checkpoints(disk.clone()).await;
    let session = engine.session();
    for sql in [
        "CREATE TABLE asked (id BIGINT)",
        "INSERT INTO asked VALUES (7)",
        "CREATE TABLE t (id BIGINT, email TEXT)",
        "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
        "INSERT INTO t SELECT value, 'x' FROM generate_series(1, 100)",
        "CLEANSE TABLE t ERASE",
        // Leaves a deletion vector.
        "DELETE FROM t WHERE id = 50",
        "INSERT INTO t VALUES (101, 'y')",
    ] {
        query::run(&session, sql).await;
    }
    engine.settle().await;
    assert_eq!(left(&session).await, "");
    let put = async |path: &str, bytes: &'static [u8]| {
        let path = Path::from(format!("public/t/{path}"));
        let bytes = Bytes::from_static(bytes);
        disk.put(&path, bytes.into()).await.unwrap();
    };
    put(".part-0.parquet.crc", b"crc\0").await;
    put("folder", b"").await;
    assert_eq!(left(&session).await, "");
    put("export.csv", b"7,zed@x").await;
    put("part-torn.parquet", &[b'x'; 64]).await;
    put("_selvedge/blocked/odd.json", b"{\"email\": \"zed").await;
    let places = lines(&session, "VERIFY ERASURE OF t").await;
    assert_eq!(places.len(), 3, "{places:#?}");
    for (place, expected) in places.iter().zip([
        "_selvedge/blocked/odd.json not readable",
        "export.csv unknown object",
        "part-torn.parquet not readable",
    ]) {
        assert!(place.starts_with(expected), "{place}");
    }
}

/// A key that did not fit its column is in the row as it came, under the name that the column had then.
#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_row_is_found_by_a_key_that_did_not_fit() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    for sql in [
        "CREATE TABLE asked (id BIGINT)",
        "CREATE TABLE t (uid INT, email TEXT) TBLPROPERTIES ('selvedge.quarantineInvalid' = 'true')",
        format!(
            "INSERT INTO t SELECT column1, column2 FROM (VALUES ('3000000000', '{MARKER}'), ('4000000000', 'd@x')) AS v"
        ).as_str(),
        "ALTER TABLE t ALTER COLUMN uid TYPE BIGINT",
        "ALTER TABLE t RENAME COLUMN uid TO id",
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
        "INSERT INTO asked VALUES (3000000000)",
    ] {
        query::run(&session, sql).await;
    }
    let aside = "SELECT email FROM \"t$quarantine\" ORDER BY email";
    assert_eq!(lines(&session, aside).await, ["d@x", MARKER]);
    let places = left(&session).await;
    assert!(places.contains("quarantined row"), "{places}");
    let done = only(&session, "CLEANSE TABLE t ERASE").await;
    assert_eq!(done["quarantine_rows"], 1, "{done:?}");
    engine.settle().await;
    assert_eq!(lines(&session, aside).await, ["d@x"]);
    assert_eq!(holding(&*disk, "", MARKER).await, [""; 0]);
    assert_eq!(left(&session).await, "");
}

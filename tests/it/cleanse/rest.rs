//! CLEANSE TABLE: which files it rewrites, what it leaves as it was, and what nobody is told of it.

use std::sync::Arc;

use object_store::memory::InMemory;
use selvedge_engine::{Engine, Session, Settings};
use serde_json::Value;

use super::{account, lines, only, open, session, with_checkpoints};
use crate::support::delta::Folder;
use crate::support::fault::{FaultStore, Op};
use crate::support::query;

#[tokio::test(flavor = "multi_thread")]
async fn c3_cleansing_is_no_change_that_anyone_is_told_of() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::write(&session, "INSERT INTO asked VALUES (2), (3)").await;
    query::run(&session, "CREATE TABLE t (id BIGINT, email TEXT)").await;
    query::write(
        &session,
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    )
    .await;
    query::write(&session, "UPDATE t SET email = 'bb' WHERE id = 2").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked WHERE id = 2) NULLIFY (email)",
    )
    .await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked WHERE id = 3) DELETE ROWS",
    )
    .await;
    let before = query::integers(&session, "SELECT max(version) FROM \"t$history\"").await[0];
    let changes = "SELECT id, email, _change_type FROM table_changes('t', 0) ORDER BY id, _change_type, email";
    let feed = lines(&session, changes).await;
    query::run(&session, "CLEANSE TABLE t").await;
    assert_eq!(
        lines(&session, "SELECT id, email FROM t ORDER BY id").await,
        ["1 a", "2 NULL"]
    );
    // Nobody who follows the changes hears of it, now or in a longer range: neither what was there nor what is.
    for from in
        before + 1..=query::integers(&session, "SELECT max(version) FROM \"t$history\"").await[0]
    {
        let sql = format!("SELECT * FROM table_changes('t', {from})");
        assert_eq!(query::rows(&session, &sql).await, 0, "{sql}");
    }
    assert_eq!(lines(&session, changes).await, feed);
    // Nor do other readers of the log: every file says that it brings no change.
    let table = Folder {
        store: &*disk,
        path: "public/t",
    };
    let version = u64::try_from(before).unwrap() + 1;
    let info = table.actions(version, "commitInfo").await.remove(0);
    assert_eq!(info["operation"], "CLEANSE");
    for kind in ["add", "remove"] {
        let files = table.actions(version, kind).await;
        assert!(!files.is_empty(), "no {kind} in the commit");
        assert!(
            files
                .iter()
                .all(|file| file["dataChange"] == Value::Bool(false)),
            "{files:?}"
        );
    }
    assert!(table.actions(version, "cdc").await.is_empty());
    // No hook and no rule is asked again: its metrics are not those of a write.
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$metrics\"").await,
        0
    );
    // What the table says of it: who was looked for, and what was found.
    let told = "SELECT count(*) FROM \"t$history\" WHERE operation = 'CLEANSE'";
    assert_eq!(query::integers(&session, told).await, [1]);
}

/// Paths of the files of the table.
async fn paths(session: &Session) -> Vec<String> {
    lines(session, "SELECT path FROM \"t$files\" ORDER BY path").await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_that_hold_a_key_are_read_and_rewritten() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let engine = open(store.clone()).await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, name TEXT) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    for file in 0..20 {
        let sql = format!(
            "INSERT INTO t SELECT {file} * 1000 + value, 'name ' || value FROM generate_series(0, 999)"
        );
        query::write(&session, &sql).await;
    }
    engine.settle().await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (name)",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO asked VALUES (3500), (3501), (17000), (99999)",
    )
    .await;
    let before = paths(&session).await;
    assert_eq!(before.len(), 20);
    let calls = store.history().len();
    let done = only(&session, "CLEANSE TABLE t").await;
    assert_eq!(
        (
            done["keys"],
            done["files_rewritten"],
            done["rows_nullified"],
            done["rows_deleted"]
        ),
        (4, 2, 3, 0)
    );
    let after = paths(&session).await;
    let kept: Vec<_> = before.iter().filter(|path| after.contains(path)).collect();
    assert_eq!((kept.len(), after.len()), (18, 20));
    // The statistics of the log know where the keys cannot be.
    let read = store.history().split_off(calls);
    let mut read: Vec<_> = read
        .iter()
        .filter(|call| call.op == Op::Get)
        .filter(|call| call.path.as_ref().starts_with("public/t/"))
        .filter(|call| call.path.as_ref().ends_with(".parquet"))
        .filter(|call| !call.path.as_ref().contains("_delta_log"))
        .map(|call| call.path.to_string())
        .collect();
    read.sort();
    read.dedup();
    assert!(read.len() <= 4, "read {read:?}");
    // All other cells and the number of rows are what they were.
    let sums = "SELECT count(*), sum(id), count(name) FROM t";
    assert_eq!(lines(&session, sums).await, ["20000 199990000 19997"]);
    assert_eq!(
        lines(&session, "SELECT id FROM t WHERE name IS NULL ORDER BY id").await,
        ["3500", "3501", "17000"]
    );
    let bytes = "SELECT sum(size_bytes) FROM \"t$files\"";
    let all = query::integers(&session, bytes).await[0];
    assert!(
        (1..u64::try_from(all).unwrap() / 5).contains(&done["bytes_written"]),
        "{done:?} of {all} bytes"
    );
    // A second run finds its work done.
    let again = only(&session, "CLEANSE TABLE t").await;
    assert_eq!((again["files_rewritten"], again.get("version")), (0, None));
    assert_eq!(paths(&session).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_keep_their_order_and_their_partition() {
    let mut settings = Settings::default();
    // One reader, so that rows come in the order of their file.
    settings.target_partitions = 1;
    let builder = Engine::builder("memory:///").settings(settings);
    let session = builder.open().await.unwrap().session();
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, n BIGINT, p TEXT) PARTITIONED BY (p) \
         TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    // Sorted by n, not by id.
    query::write(
        &session,
        "INSERT INTO t SELECT (value * 7919) % 10000, value, CASE WHEN value < 5000 THEN 'a b' END \
         FROM generate_series(0, 9999)",
    )
    .await;
    query::write(&session, "DELETE FROM t WHERE n % 100 = 3").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO asked SELECT value * 10 FROM generate_series(0, 99)",
    )
    .await;
    let expected = "SELECT n, p FROM t WHERE id NOT IN (SELECT id FROM asked) ORDER BY n";
    let expected = lines(&session, expected).await;
    query::run(&session, "CLEANSE TABLE t").await;
    assert_eq!(
        lines(&session, "SELECT n, p FROM t ORDER BY n").await,
        expected
    );
    // In the files too.
    for part in ["p = 'a b'", "p IS NULL"] {
        let rows = query::integers(&session, &format!("SELECT n FROM t WHERE {part}")).await;
        assert!(rows.is_sorted(), "{part}");
    }
    let left = "SELECT partition['p'], deleted_rows FROM \"t$partitions\" ORDER BY 1";
    assert_eq!(lines(&session, left).await, ["a b 0", "NULL 0"]);
}

/// A value that is deleted is in the file still, and goes like one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn rows_behind_deletion_vectors_are_cleansed() {
    let session = session().await;
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, name TEXT) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO t SELECT value, 'n' || value FROM generate_series(1, 100)",
    )
    .await;
    query::write(&session, "DELETE FROM t WHERE id = 50").await;
    query::write(&session, "INSERT INTO asked VALUES (50)").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    let done = only(&session, "CLEANSE TABLE t").await;
    assert_eq!(done["files_rewritten"], 1, "{done:?}");
    assert_eq!(
        lines(
            &session,
            "SELECT sum(rows), sum(deleted_rows), count(deletion_vector) FROM \"t$files\""
        )
        .await,
        ["99 0 0"]
    );
    // One whose deleted rows are nobody's business is left alone.
    query::write(&session, "DELETE FROM t WHERE id = 60").await;
    let done = only(&session, "CLEANSE TABLE t").await;
    assert_eq!(done["files_rewritten"], 0, "{done:?}");
}

/// Bounded pieces: a table of more files than one commit takes is done in several, and each is whole.
#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_a_large_table_is_reached() {
    let engine = with_checkpoints(Arc::new(InMemory::new())).await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, p BIGINT) PARTITIONED BY (p) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO t SELECT value, value % 500 FROM generate_series(0, 9999)",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO asked SELECT value FROM generate_series(0, 499)",
    )
    .await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    let done = only(&session, "CLEANSE TABLE t").await;
    assert_eq!((done["files_rewritten"], done["rows_deleted"]), (500, 500));
    assert_eq!(
        lines(&session, "SELECT count(*), min(id) FROM t").await,
        ["9500 500"]
    );
    let done = only(&session, "CLEANSE TABLE t").await;
    assert_eq!(done["files_rewritten"], 0);
}

/// What a dry run says is what happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_happen_and_does_nothing() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let engine = open(store.clone()).await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, n BIGINT, CONSTRAINT low EXPECT (n >= 0) ON VIOLATION QUARANTINE ROW)",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, -3), (4, 4)",
    )
    .await;
    query::write(&session, "INSERT INTO asked VALUES (2), (3), (4)").await;
    for (name, action) in [
        (
            "gone",
            "KEY (id) IN (SELECT id FROM asked WHERE id < 4) DELETE ROWS",
        ),
        (
            "none",
            "KEY (id) IN (SELECT id FROM asked WHERE id = 4) NULLIFY (n)",
        ),
    ] {
        query::run(
            &session,
            &format!("CREATE CLEANSE POLICY {name} ON t {action}"),
        )
        .await;
    }
    engine.settle().await;
    for erase in ["", "ERASE "] {
        let calls = store.history().len();
        let mut dry = account(&session, &format!("CLEANSE TABLE t {erase}DRY RUN")).await;
        let touched: Vec<_> = store.history().split_off(calls);
        let touched: Vec<_> = touched
            .iter()
            .filter(|call| Op::WRITES.contains(&call.op))
            .collect();
        assert!(touched.is_empty(), "{erase}{touched:?}");
        assert_eq!(
            lines(&session, "SELECT * FROM t ORDER BY id").await,
            ["1 1", "2 2", "4 4"]
        );
        assert!(dry.values().all(|one| !one.contains_key("version")));
        if erase.is_empty() {
            continue;
        }
        let mut done = account(&session, "CLEANSE TABLE t ERASE").await;
        for policy in ["gone", "none"] {
            for ignored in ["version", "bytes_written", "files_scanned"] {
                dry.get_mut(policy).unwrap().remove(ignored);
                done.get_mut(policy).unwrap().remove(ignored);
            }
        }
        assert_eq!(dry, done);
    }
    assert_eq!(
        lines(&session, "SELECT * FROM t ORDER BY id").await,
        ["1 1", "4 NULL"]
    );
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$quarantine\"").await,
        0
    );
}

//! Traps of statements that change rows: predicates that get lost, deletes that come undone, rows that match twice.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use selvedge_engine::{Error, Session};
use serde_json::json;

use super::{objects, session, table};
use crate::support::delta::remove;
use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::gate::{Access, Gate};
use crate::support::query;

const ROWS: &str = "SELECT a FROM t ORDER BY a";

async fn rows(disk: &Arc<InMemory>) -> Vec<i64> {
    query::integers(&session(disk.clone()).await, ROWS).await
}

/// A table with the rows 1, 2, 3 in one file, its second commit.
async fn three_rows(session: &Session) {
    query::run(session, "CREATE TABLE t (a BIGINT, b BIGINT)").await;
    query::run(session, "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)").await;
}

/// Planners that hand a table its filters drop what is no filter: every row would be deleted or updated.
#[tokio::test]
async fn trap_predicates_that_are_no_filters() {
    for (predicate, taken) in [
        ("a IN (SELECT 2)", &[2][..]),
        ("a NOT IN (SELECT 2)", &[1, 3]),
        ("EXISTS (SELECT 1 FROM t x WHERE x.a = t.a + 1)", &[1, 2]),
        ("NOT EXISTS (SELECT 1 FROM t x WHERE x.a > t.a)", &[3]),
        ("a = (SELECT max(a) FROM t)", &[3]),
        ("a IN (SELECT a FROM t WHERE false)", &[]),
        ("false", &[]),
        ("NULL", &[]),
        ("a <> 2 AND NULL", &[]),
    ] {
        let session = session(Arc::new(InMemory::new())).await;
        three_rows(&session).await;
        query::run(&session, &format!("UPDATE t SET b = 0 WHERE {predicate}")).await;
        let updated = query::integers(&session, "SELECT a FROM t WHERE b = 0 ORDER BY a").await;
        assert_eq!(updated, taken, "UPDATE WHERE {predicate}");
        query::run(&session, &format!("DELETE FROM t WHERE {predicate}")).await;
        let left: Vec<i64> = (1..=3).filter(|a| !taken.contains(a)).collect();
        assert_eq!(
            query::integers(&session, ROWS).await,
            left,
            "DELETE WHERE {predicate}"
        );
    }
}

/// All assignments see the row as it was.
#[tokio::test]
async fn trap_assignments_that_see_each_other() {
    let session = session(Arc::new(InMemory::new())).await;
    three_rows(&session).await;
    query::run(&session, "UPDATE t SET a = b, b = a").await;
    assert_eq!(query::integers(&session, ROWS).await, [10, 20, 30]);
    let swapped = query::integers(&session, "SELECT b FROM t ORDER BY b").await;
    assert_eq!(swapped, [1, 2, 3]);
}

/// A removal names the vector its file had; without it two copies of the file are live. And a file with a vector says
/// that its bounds are no longer tight, but counts the rows it holds.
#[tokio::test]
async fn trap_second_delete_from_a_file() {
    let disk = Arc::new(InMemory::new());
    let session = session(disk.clone()).await;
    three_rows(&session).await;
    query::run(&session, "DELETE FROM t WHERE a = 3").await;
    query::run(&session, "DELETE FROM t WHERE a = 1").await;
    assert_eq!(rows(&disk).await, [2]);
    let table = table(&*disk);
    let first = table.actions(2, "add").await.remove(0);
    let removed = table.actions(3, "remove").await.remove(0);
    assert!(first["deletionVector"].is_object(), "{first}");
    assert_eq!(removed["deletionVector"], first["deletionVector"]);
    let stats: serde_json::Value = serde_json::from_str(first["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 3, "{stats}");
    assert_eq!(stats["tightBounds"], false, "{stats}");
}

/// A commit of our own that is taken for a rival's would be refused, or apply the change a second time.
#[tokio::test]
async fn trap_own_change_taken_for_a_rivals() {
    for fault in [Fault::AmbiguousExists, Fault::TimeoutAfterApply] {
        for (sql, expected) in [
            ("DELETE FROM t WHERE a = 2", [1, 3].as_slice()),
            ("UPDATE t SET a = a + 100 WHERE a > 1", &[1, 102, 103]),
        ] {
            let disk = Arc::new(InMemory::new());
            let store = FaultStore::new(disk.clone());
            let session = session(store.clone()).await;
            three_rows(&session).await;
            store.arm(Plan::once(1, fault).ops(&[Op::Create]).path("_delta_log"));
            let report = query::write(&session, sql).await;
            assert_eq!((report.version, store.matched()), (Some(2), 1));
            assert_eq!(rows(&disk).await, expected, "{fault:?}: {sql}");
            assert_eq!(query::rows(&session, "DESCRIBE HISTORY t").await, 3);
        }
    }
}

/// Runs `ours` up to its commit of version 2, then `rival` to its end, then lets ours go on. The rows after both.
async fn race(ours: &str, rival: impl AsyncFnOnce(&Arc<InMemory>)) -> Result<Vec<i64>, Error> {
    let disk = Arc::new(InMemory::new());
    three_rows(&session(disk.clone()).await).await;
    let (gate, store) = Gate::before(disk.clone());
    gate.close(|access, path| access == Access::Write && path.as_ref().contains("t/_delta_log"));
    let session = session(store).await;
    let running = async { session.execute(ours).await.map(drop) };
    let meanwhile = async {
        gate.came().await;
        rival(&disk).await;
        gate.open();
    };
    futures::join!(running, meanwhile).0?;
    Ok(rows(&disk).await)
}

/// Two changes end as if one had come after the other: none is lost, none is done twice, nothing comes back. Rows
/// that read nothing may come after a change that was under way.
#[tokio::test]
async fn trap_two_changes_of_one_file() {
    for (ours, rival, expected) in [
        (
            "INSERT INTO t VALUES (4, 0)",
            "DELETE FROM t WHERE a = 2",
            [1, 3, 4].as_slice(),
        ),
        (
            "INSERT INTO t VALUES (4, 0)",
            "UPDATE t SET a = 5 WHERE a = 2",
            &[1, 3, 4, 5],
        ),
        (
            "DELETE FROM t WHERE a = 1",
            "DELETE FROM t WHERE a = 3",
            &[2],
        ),
        (
            "DELETE FROM t WHERE a > 1",
            "DELETE FROM t WHERE a < 3",
            &[],
        ),
        (
            "DELETE FROM t WHERE a = 1",
            "INSERT OVERWRITE t VALUES (9, 0)",
            &[9],
        ),
        ("DELETE FROM t WHERE a = 1", "TRUNCATE TABLE t", &[]),
        (
            "DELETE FROM t WHERE a = 1",
            "UPDATE t SET a = 7 WHERE a = 1",
            &[2, 3, 7],
        ),
        (
            "UPDATE t SET a = a + 100",
            "UPDATE t SET a = a + 1000",
            &[1101, 1102, 1103],
        ),
        (
            "UPDATE t SET a = a + 100",
            "DELETE FROM t WHERE a = 2",
            &[101, 103],
        ),
        (
            "UPDATE t SET a = a + 100",
            "INSERT INTO t VALUES (4, 0)",
            &[4, 101, 102, 103],
        ),
        (
            "INSERT OVERWRITE t VALUES (9, 0)",
            "DELETE FROM t WHERE a = 2",
            &[9],
        ),
    ] {
        let found = race(ours, async |disk: &Arc<InMemory>| {
            query::run(&session(disk.clone()).await, rival).await;
        });
        assert_eq!(found.await.unwrap(), expected, "{ours} while {rival}");
    }
}

/// A rewrite that changes no rows still moves them: a delete that lands on the file as it was is lost, or brings the
/// file back.
#[tokio::test]
async fn trap_delete_while_files_are_rewritten() {
    for ours in [
        "DELETE FROM t WHERE a = 2",
        "UPDATE t SET a = 12 WHERE a = 2",
    ] {
        let found = race(ours, async |disk: &Arc<InMemory>| {
            let table = table(&**disk);
            let old = table.actions(1, "add").await.remove(0);
            let moved = table.file_path("moved.parquet");
            disk.copy(&table.file_path(old["path"].as_str().unwrap()), &moved)
                .await
                .unwrap();
            let mut new = old.clone();
            new["path"] = json!("moved.parquet");
            new["dataChange"] = json!(false);
            let mut gone = remove(&old);
            gone["remove"]["dataChange"] = json!(false);
            table
                .write(2, i64::MAX / 4, &[gone, json!({"add": new})])
                .await;
        });
        let expected: &[i64] = match ours.starts_with("DELETE") {
            true => &[1, 3],
            false => &[1, 3, 12],
        };
        assert_eq!(found.await.unwrap(), expected, "{ours}");
    }
}

/// Matches that are looked for batch by batch are doubled or missed at the first row of the second.
#[tokio::test(flavor = "multi_thread")]
async fn trap_merge_of_more_rows_than_a_batch() {
    let session = session(Arc::new(InMemory::new())).await;
    let numbers = "SELECT value AS a, 0 AS b FROM generate_series(1, 20000)";
    query::run(&session, &format!("CREATE TABLE t AS {numbers}")).await;
    let merge = |source: &str| {
        format!(
            "MERGE INTO t USING ({source}) s ON t.a = s.a WHEN MATCHED THEN UPDATE SET b = t.b + 1 \
             WHEN NOT MATCHED THEN INSERT *"
        )
    };
    let more = "SELECT value AS a, 0 AS b FROM generate_series(5001, 25000)";
    let report = query::write(&session, &merge(more)).await;
    assert_eq!((report.rows_updated, report.rows_inserted), (15_000, 5_000));
    let twice = format!("{more} UNION ALL SELECT 20000, 0");
    let error = query::error(&session, &merge(&twice)).await;
    assert!(error.contains("several rows of the source"), "{error}");
    let sum = query::integers(&session, "SELECT sum(b) FROM t WHERE a <= 20000").await;
    assert_eq!(sum, [15_000]);
    assert_eq!(
        query::integers(&session, "SELECT count(DISTINCT a) FROM t").await,
        [25_000]
    );
}

/// As with INSERT OVERWRITE, a partition's value is escaped for its folder: escaped once too often, MERGE does not
/// find its rows and inserts them again.
#[tokio::test]
async fn trap_merge_into_a_partition_with_a_space() {
    let session = session(Arc::new(InMemory::new())).await;
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT, p TEXT) PARTITIONED BY (p)",
    )
    .await;
    query::run(
        &session,
        "INSERT INTO t VALUES (1, 'a b'), (2, 'a%20b'), (3, 'ü/=')",
    )
    .await;
    for _ in 0..2 {
        query::run(
            &session,
            "MERGE INTO t USING (SELECT DISTINCT p FROM t) s ON t.p = s.p AND t.p <> 'a%20b' \
             WHEN MATCHED THEN UPDATE SET a = t.a + 10",
        )
        .await;
    }
    assert_eq!(query::integers(&session, ROWS).await, [2, 21, 23]);
}

/// EXPLAIN ANALYZE runs what it explains, once and through the same door; EXPLAIN runs nothing.
#[tokio::test]
async fn trap_explain_of_a_change() {
    let disk = Arc::new(InMemory::new());
    let session = session(disk.clone()).await;
    three_rows(&session).await;
    let before = objects(&*disk, "").await;
    let changes = [
        "DELETE FROM t WHERE a = 1",
        "UPDATE t SET a = a + 1 WHERE a = 3",
    ];
    for sql in changes {
        query::batches(&session, &format!("EXPLAIN {sql}")).await;
    }
    assert_eq!(objects(&*disk, "").await, before);
    for sql in changes {
        query::batches(&session, &format!("EXPLAIN ANALYZE {sql}")).await;
    }
    assert_eq!(rows(&disk).await, [2, 4]);
    // Of the two, a file of which most rows are gone may have been rewritten since.
    let changes = "SELECT version FROM \"t$history\" WHERE operation IN ('DELETE', 'UPDATE')";
    assert_eq!(query::rows(&session, changes).await, 2);
}

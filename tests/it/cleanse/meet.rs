//! CLEANSE beside other statements: nothing is lost, nothing comes back, and no row slips between the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use selvedge_engine::Session;

use super::{lines, open};
use crate::support::gate::{Access, Gate};
use crate::support::query;

async fn prepared(session: &Session) {
    query::run(session, "CREATE TABLE asked (id BIGINT)").await;
    query::write(session, "INSERT INTO asked VALUES (2), (12)").await;
    query::run(
        session,
        "CREATE TABLE t (id BIGINT, n BIGINT) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    query::write(session, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").await;
    query::write(session, "INSERT INTO t VALUES (11, 11), (12, 12)").await;
    // The first deletion vector alters the table, which every other statement would have to respect.
    query::write(session, "DELETE FROM t WHERE id = 3").await;
    query::run(
        session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
}

/// `first` stands in front of its commit while `second` is run. The rows after both.
async fn overtaken(first: &'static str, second: &str) -> Vec<String> {
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (gate, store) = Gate::before(Arc::clone(&disk));
    let (slow, fast) = (open(store).await.session(), open(disk).await.session());
    prepared(&fast).await;
    gate.close(|access, path| {
        access == Access::Write
            && path.as_ref().contains("t/_delta_log/")
            && path.as_ref().ends_with(".json")
    });
    let told = Arc::clone(&gate);
    let work = tokio::spawn(async move {
        let outcome = slow.execute(first).await.map(drop);
        told.none_will_come();
        outcome
    });
    assert!(gate.came().await, "{first} did not commit");
    for sql in second.split(';') {
        query::run(&fast, sql).await;
    }
    gate.open();
    work.await
        .unwrap()
        .unwrap_or_else(|error| panic!("{first} overtaken by {second}: {error}"));
    lines(&fast, "SELECT * FROM t ORDER BY id").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cleanse_overtaken_by_others_is_done_again_where_they_were() {
    for (second, rows) in [
        ("INSERT INTO t VALUES (4, 4)", &["1 1", "4 4", "11 11"][..]),
        (
            "INSERT INTO t VALUES (2, 22), (5, 5)",
            &["1 1", "5 5", "11 11"],
        ),
        (
            "UPDATE t SET n = n + 100 WHERE id IN (1, 11)",
            &["1 101", "11 111"],
        ),
        (
            "UPDATE t SET n = n + 100 WHERE id IN (1, 2)",
            &["1 101", "11 11"],
        ),
        ("DELETE FROM t WHERE id = 1", &["11 11"]),
        ("DELETE FROM t WHERE id = 2", &["1 1", "11 11"]),
        ("INSERT OVERWRITE t VALUES (6, 6), (12, 66)", &["6 6"]),
        ("OPTIMIZE t", &["1 1", "11 11"]),
        ("CLEANSE TABLE t", &["1 1", "11 11"]),
        ("CLEANSE TABLE t ERASE", &["1 1", "11 11"]),
    ] {
        for first in ["CLEANSE TABLE t", "CLEANSE TABLE t ERASE"] {
            assert_eq!(
                overtaken(first, second).await,
                rows,
                "{first} overtaken by {second}"
            );
        }
    }
}

/// Rows that left before their key was asked for do not land behind the CLEANSE that took the key away.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c4_a_write_that_began_before_its_key_was_asked_for_is_run_again() {
    for second in [
        "INSERT INTO asked VALUES (9); CLEANSE TABLE t",
        "INSERT INTO asked VALUES (9); CLEANSE TABLE t ERASE",
    ] {
        assert_eq!(
            overtaken("INSERT INTO t VALUES (4, 4), (9, 9)", second).await,
            ["1 1", "4 4", "11 11"],
            "{second}"
        );
    }
}

/// A write that read the rows before they were cleansed does not bring them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_overtaken_by_a_cleanse_brings_nothing_back() {
    for (first, rows) in [
        (
            "UPDATE t SET n = n + 100 WHERE id < 3",
            &["1 101", "11 11"][..],
        ),
        (
            "MERGE INTO t USING (VALUES (2, 7), (4, 4)) AS s(id, n) ON t.id = s.id \
          WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, s.n)",
            &["1 1", "4 4", "11 11"],
        ),
        ("DELETE FROM t WHERE id = 1", &["11 11"]),
        ("OPTIMIZE t", &["1 1", "11 11"]),
    ] {
        for second in ["CLEANSE TABLE t", "CLEANSE TABLE t ERASE"] {
            assert_eq!(
                overtaken(first, second).await,
                rows,
                "{first} overtaken by {second}"
            );
        }
    }
}

/// A policy that comes while a write is on its way is a change of the table that the write must not miss.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_policy_that_comes_during_a_write_holds_for_it() {
    let second = "CREATE CLEANSE POLICY all_n ON t COLUMNS (n) NULLIFY";
    let rows = overtaken("INSERT INTO t VALUES (4, 4), (2, 2)", second).await;
    assert_eq!(rows, ["1 1", "2 2", "4 NULL", "11 11", "12 12"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanse_beside_writers_loses_no_row_and_leaves_no_key() {
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (engine, other) = (open(Arc::clone(&disk)).await, open(disk).await);
    let session = engine.session();
    prepared(&session).await;
    let done = Arc::new(AtomicBool::new(false));
    let upkeep = [
        (engine.session(), "CLEANSE TABLE t"),
        (other.session(), "CLEANSE TABLE t ERASE"),
        (other.session(), "OPTIMIZE t"),
    ]
    .map(|(session, sql)| {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                query::insist(&session, sql).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        })
    });
    let writers: Vec<_> = [engine.session(), engine.session(), other.session()]
        .into_iter()
        .zip(1_i64..)
        .map(|(session, writer)| {
            tokio::spawn(async move {
                for step in 0..20 {
                    let id = writer * 1000 + step;
                    query::insist(
                        &session,
                        &format!("INSERT INTO t VALUES ({id}, 0), (2, 0), ({id} + 500, 0)"),
                    )
                    .await;
                    query::insist(&session, &format!("UPDATE t SET n = n + 1 WHERE id = {id}"))
                        .await;
                    query::insist(&session, &format!("DELETE FROM t WHERE id = {id} + 500")).await;
                    if step % 5 == 0 {
                        query::insist(&session, &format!("INSERT INTO asked VALUES ({id} + 700)"))
                            .await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for task in upkeep {
        task.await.unwrap();
    }
    engine.settle().await;
    other.settle().await;
    query::insist(&session, "CLEANSE TABLE t ERASE").await;
    let rows = "SELECT count(*), count(DISTINCT id), sum(n), count(*) FILTER (WHERE id IN (2, 12)) FROM t WHERE id > 20 OR id IN (2, 12)";
    for session in [session, other.session()] {
        assert_eq!(lines(&session, rows).await, ["60 60 60 0"]);
        assert_eq!(query::rows(&session, "VERIFY ERASURE OF t").await, 0);
    }
}

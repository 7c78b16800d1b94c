//! CLEANSE TABLE .. ERASE: what is left of a table's past, and what is said to those who ask for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use object_store::memory::InMemory;
use selvedge_engine::Session;

use super::bytes::MARKER;
use super::{lines, only, open, with_checkpoints};
use crate::support::lake::with_clock;
use crate::support::query;
use crate::support::traces::{holding, objects};

async fn prepared(session: &Session) {
    query::run(session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(session, "CREATE TABLE t (id BIGINT, name TEXT)").await;
    query::run(
        session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    query::write(
        session,
        &format!("INSERT INTO t VALUES (1, 'a'), (2, '{MARKER}')"),
    )
    .await;
    query::write(
        session,
        &format!("UPDATE t SET name = '{MARKER} two' WHERE id = 2"),
    )
    .await;
    query::write(session, "INSERT INTO t VALUES (3, 'c')").await;
    query::write(session, "INSERT INTO asked VALUES (2)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_versions_that_held_a_row_are_gone_and_say_why() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    prepared(&session).await;
    let before = holding(&*disk, "public/t", MARKER).await;
    assert!(before.len() > 3, "{before:?}");
    let newest = query::integers(&session, "SELECT max(version) FROM \"t$history\"").await[0];
    query::run(&session, "CLEANSE TABLE t POLICY gone ERASE").await;
    engine.settle().await;
    // Commits may keep their places in the log, but nothing of what they said.
    assert_eq!(holding(&*disk, "public/t", MARKER).await, [""; 0]);
    let after = objects(&*disk, "public/t").await;
    for path in before.iter().filter(|path| !path.contains("_delta_log/")) {
        let path = path.trim_end_matches(", compressed");
        let there = after.iter().any(|left| left == path);
        assert!(!there, "{path} is still there");
    }
    // In this engine, which has seen them, and in one that has not.
    for session in [session, open(disk.clone()).await.session()] {
        for version in 0..=newest {
            for sql in [
                format!("SELECT * FROM t VERSION AS OF {version}"),
                format!("SELECT * FROM \"t$quarantine\" VERSION AS OF {version}"),
                format!("SELECT * FROM table_changes('t', {version})"),
                format!("RESTORE TABLE t TO VERSION AS OF {version}"),
            ] {
                if version == newest && sql.contains("changes") {
                    continue;
                }
                let error = query::error(&session, &sql).await;
                for part in ["erased", "CLEANSE TABLE", "ERASE"] {
                    assert!(error.contains(part), "{sql} should name {part}: {error}");
                }
            }
        }
        let rows = "SELECT * FROM t ORDER BY id";
        assert_eq!(lines(&session, rows).await, ["1 a", "3 c"]);
        // What is left to ask for is the version that has no such rows.
        let last = "SELECT max(version) FROM \"t$history\"";
        let last = query::integers(&session, last).await[0];
        assert!(last > newest);
        let sql = format!("SELECT * FROM t VERSION AS OF {last} ORDER BY id");
        assert_eq!(lines(&session, &sql).await, ["1 a", "3 c"]);
    }
}

/// An instant at which an erased version was current is no way around it.
#[tokio::test(flavor = "multi_thread")]
async fn c1_an_instant_before_the_erasure_leads_nowhere() {
    let start = 1_767_225_600_000;
    let clock = Arc::new(AtomicI64::new(start));
    let hand = Arc::clone(&clock);
    let engine = with_clock(move || hand.fetch_add(1000, Ordering::SeqCst)).await;
    let session = engine.session();
    prepared(&session).await;
    clock.store(start + 3_600_000, Ordering::SeqCst);
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    clock.store(start + 2 * 3_600_000, Ordering::SeqCst);
    let error = query::error(
        &session,
        "SELECT * FROM t TIMESTAMP AS OF '2026-01-01T00:30:00Z'",
    )
    .await;
    assert!(error.contains("erased"), "{error}");
    let now = lines(
        &session,
        "SELECT * FROM t TIMESTAMP AS OF '2026-01-01T01:30:00Z' ORDER BY id",
    )
    .await;
    assert_eq!(now, ["1 a", "3 c"]);
}

/// Many versions, with checkpoints and a VACUUM among them, written further afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_erased_table_lives_on() {
    let disk = Arc::new(InMemory::new());
    let engine = with_checkpoints(disk.clone()).await;
    let session = engine.session();
    prepared(&session).await;
    query::run(&session, "SET selvedge.vacuum_retention_check = false").await;
    for round in 0..5 {
        let id = 100 + round;
        query::run(&session, "ALTER CLEANSE POLICY gone ON t DISABLE").await;
        query::write(
            &session,
            &format!("INSERT INTO t VALUES (2, '{MARKER} {round}'), ({id}, 'n')"),
        )
        .await;
        query::run(&session, "ALTER CLEANSE POLICY gone ON t ENABLE").await;
        if round % 2 == 1 {
            query::run(&session, "VACUUM t RETAIN 0 HOURS").await;
        }
        let done = only(&session, "CLEANSE TABLE t ERASE").await;
        assert!(done["rows_deleted"] >= 1, "{done:?}");
        engine.settle().await;
        assert_eq!(holding(&*disk, "", MARKER).await, [""; 0], "round {round}");
        for session in [&session, &with_checkpoints(disk.clone()).await.session()] {
            let rows = "SELECT count(*), max(id) FROM t";
            assert_eq!(lines(session, rows).await, [format!("{} {id}", round + 3)]);
        }
    }
    query::run(&session, "OPTIMIZE t").await;
    query::run(&session, "VACUUM t RETAIN 0 HOURS").await;
    query::write(&session, "DELETE FROM t WHERE id > 100").await;
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM t").await,
        [3]
    );
    assert_eq!(query::rows(&session, "VERIFY ERASURE OF t").await, 0);
}

/// ERASE once more, when there is nothing to rewrite, still ends versions that hold a key.
#[tokio::test(flavor = "multi_thread")]
async fn erase_after_a_cleanse_ends_the_past_alone() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    prepared(&session).await;
    query::run(&session, "CLEANSE TABLE t").await;
    assert!(!holding(&*disk, "public/t", MARKER).await.is_empty());
    let before = lines(&session, "SELECT path FROM \"t$files\" ORDER BY path").await;
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    engine.settle().await;
    assert_eq!(holding(&*disk, "", MARKER).await, [""; 0]);
    // Files that hold nothing of it are not written again.
    let after = lines(&session, "SELECT path FROM \"t$files\" ORDER BY path").await;
    assert_eq!(before, after);
    assert_eq!(
        lines(&session, "SELECT * FROM t ORDER BY id").await,
        ["1 a", "3 c"]
    );
}

/// Another engine that had the table open is told, and does not answer from what it remembers.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_remembers_the_past_is_told() {
    let disk = Arc::new(InMemory::new());
    let (one, two) = (open(disk.clone()).await, open(disk).await);
    let (eraser, reader) = (one.session(), two.session());
    prepared(&eraser).await;
    assert_eq!(query::rows(&reader, "SELECT * FROM t").await, 3);
    assert_eq!(
        query::rows(&reader, "SELECT * FROM t VERSION AS OF 2").await,
        2
    );
    query::run(&eraser, "CLEANSE TABLE t ERASE").await;
    assert_eq!(query::rows(&reader, "SELECT * FROM t").await, 2);
    let error = query::error(&reader, "SELECT * FROM t VERSION AS OF 2").await;
    assert!(error.contains("erased"), "{error}");
    let report = query::write(&reader, "INSERT INTO t VALUES (2, 'x'), (4, 'd')").await;
    assert_eq!((report.rows_written, report.rows_erased), (1, 1));
    assert_eq!(query::rows(&eraser, "SELECT * FROM t").await, 3);
}

//! What becomes visible of a write with rules, and when; and rules that come to rows that are already there.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use selvedge_engine::ErrorKind;

use super::{lines, open, session};
use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::gate::{Access, Gate};
use crate::support::query;
use crate::support::traces::objects;

const TABLE: &str = "CREATE TABLE t (a BIGINT, \
    CONSTRAINT low EXPECT (a > 0) ON VIOLATION QUARANTINE ROW, \
    CONSTRAINT high EXPECT (a < 100), \
    CONSTRAINT counted EXPECT (count(*) >= 0) ON VIOLATION WARN)";

#[tokio::test(flavor = "multi_thread")]
async fn q13_a_blocked_write_leaves_nothing_behind() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let engine = open(store.clone()).await;
    let session = engine.session();
    query::run(&session, TABLE).await;
    query::write(&session, "INSERT INTO t VALUES (1), (-1)").await;
    engine.settle().await;
    let before = objects(&*store, ".parquet").await;
    assert!(
        before
            .iter()
            .any(|path| path.contains("_selvedge/quarantine/")),
        "{before:?}"
    );

    let log = "public/t/_delta_log/";
    let commits = |paths: Vec<String>| paths.iter().filter(|path| path.starts_with(log)).count();
    let versions = commits(objects(&*store, ".json").await);
    // The culprit comes last: files of both kinds may have been written by then.
    let sql = "INSERT INTO t SELECT CASE WHEN value = 50000 THEN 100 WHEN value % 2 = 0 THEN -value ELSE 7 END \
               FROM generate_series(1, 50000)";
    let error = session.execute(sql).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    for part in ["high", "1", "100"] {
        assert!(
            error.to_string().contains(part),
            "should name {part}: {error}"
        );
    }
    engine.settle().await;
    assert_eq!(
        objects(&*store, ".parquet").await,
        before,
        "files of a blocked write"
    );
    assert_eq!(
        commits(objects(&*store, ".json").await),
        versions,
        "a version of a blocked write"
    );
    assert_eq!(query::integers(&session, "SELECT a FROM t").await, [1]);
    assert_eq!(
        query::integers(&session, "SELECT a FROM \"t$quarantine\"").await,
        [-1]
    );
    let record = "SELECT status, outcome, violations FROM \"t$quality\" WHERE rule = 'high' ORDER BY version NULLS LAST";
    assert_eq!(
        lines(&session, record).await,
        ["accepted passed 0", "blocked violated 1"]
    );

    // A quarantine that cannot be written fails the write.
    for fault in [Fault::FailBefore, Fault::TimeoutAfterApply] {
        store.arm(
            Plan::from(1, fault)
                .ops(&Op::WRITES)
                .path("_selvedge/quarantine/"),
        );
        let error = session
            .execute("INSERT INTO t VALUES (2), (-2)")
            .await
            .unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
        assert!(store.matched() > 0, "no rows went to the quarantine");
        store.disarm();
        assert_eq!(query::integers(&session, "SELECT a FROM t").await, [1]);
        assert_eq!(
            query::integers(&session, "SELECT a FROM \"t$quarantine\"").await,
            [-1]
        );
    }
    query::write(&session, "INSERT INTO t VALUES (2), (-2)").await;
    assert_eq!(
        query::integers(&session, "SELECT a FROM t ORDER BY a").await,
        [1, 2]
    );
}

/// `crash.rs` shows the same after a fault and a power loss at each step.
#[tokio::test(flavor = "multi_thread")]
async fn q14_rows_and_quarantine_appear_in_one_instant() {
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (gate, store) = Gate::before(Arc::clone(&disk));
    let writer = open(store).await.session();
    query::run(&writer, TABLE).await;
    query::write(&writer, "INSERT INTO t VALUES (1), (-1)").await;
    let reader = open(Arc::clone(&disk)).await.session();
    let seen = async || {
        let rows = query::integers(&reader, "SELECT a FROM t ORDER BY a").await;
        let aside = query::integers(&reader, "SELECT a FROM \"t$quarantine\" ORDER BY a").await;
        let results = query::integers(&reader, "SELECT count(*) FROM \"t$quality\"").await;
        let metrics = query::integers(&reader, "SELECT count(*) FROM \"t$metrics\"").await;
        (rows, aside, results[0], metrics[0])
    };
    let before = seen().await;
    assert_eq!(
        (before.0.as_slice(), before.1.as_slice()),
        (&[1][..], &[-1][..])
    );

    // Everything is written but the commit.
    gate.close(|access, path| access == Access::Write && path.as_ref().contains("_delta_log/"));
    let write = tokio::spawn(async move {
        query::write(&writer, "INSERT INTO t VALUES (2), (-2), (-3)").await;
    });
    assert!(gate.came().await);
    let waiting = objects(&*disk, ".parquet").await;
    let aside = waiting
        .iter()
        .filter(|path| path.contains("_selvedge/quarantine/"));
    assert!(
        aside.count() >= 2,
        "the quarantine is written before the commit: {waiting:?}"
    );
    assert_eq!(seen().await, before, "a part of an unfinished write");
    gate.open();
    write.await.unwrap();
    let after = seen().await;
    assert_eq!(
        (after.0.as_slice(), after.1.as_slice()),
        (&[1, 2][..], &[-3, -2, -1][..])
    );
    assert_eq!((after.2, after.3), (before.2 * 2, before.3 * 2));
    // And a reader of the version before has it as it was then.
    assert_eq!(
        query::integers(&reader, "SELECT a FROM \"t$quarantine\" VERSION AS OF 1").await,
        [-1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn q15_a_rule_asks_old_rows_or_says_that_it_did_not() {
    let session = session().await;
    query::run(&session, "CREATE TABLE t (id BIGINT, a BIGINT)").await;
    query::write(
        &session,
        "INSERT INTO t VALUES (1, 5), (2, -7), (3, NULL), (4, -9)",
    )
    .await;
    let add = "ALTER TABLE t ADD CONSTRAINT low EXPECT (a > 0) ON VIOLATION QUARANTINE ROW";
    let error = session.execute(add).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    // Which rule, how many rows, some of them, and the way out.
    for part in ["low", "2 rows", "-7", "NOT VALID"] {
        assert!(
            error.to_string().contains(part),
            "should say {part}: {error}"
        );
    }
    let strict = "ALTER TABLE t ADD CONSTRAINT low EXPECT (a > 0) ON NULL VIOLATE";
    assert!(query::error(&session, strict).await.contains("3 rows"));
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$constraints\"").await,
        0
    );

    query::run(&session, &format!("{add} NOT VALID")).await;
    query::run(&session, "ALTER TABLE t ADD CONSTRAINT key EXPECT (id > 0)").await;
    let kept = "SELECT name, validated, since_version FROM \"t$constraints\" ORDER BY name";
    assert_eq!(lines(&session, kept).await, ["key true 3", "low false 2"]);
    // New rows are held to it, old ones stay as they are, also when they are written again.
    let report = query::write(&session, "INSERT INTO t VALUES (5, -1), (6, 6)").await;
    assert_eq!((report.rows_written, report.rows_quarantined), (1, 1));
    query::run(&session, "OPTIMIZE t").await;
    assert_eq!(
        query::integers(&session, "SELECT id FROM t ORDER BY id").await,
        [1, 2, 3, 4, 6]
    );
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$quarantine\"").await,
        1
    );
    // Asked of the version before it came, the rule was not there.
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$constraints\" VERSION AS OF 1").await,
        0
    );
}

/// A write that came while the old rows were asked was asked by nobody: the rule looks again, or gives up.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_and_a_write_that_meet_leave_no_row_unasked() {
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (gate, store) = Gate::before(Arc::clone(&disk));
    let session = open(store).await.session();
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    query::write(&session, "INSERT INTO t VALUES (1)").await;
    let other = open(Arc::clone(&disk)).await.session();

    gate.close(|access, path| access == Access::Write && path.as_ref().contains("_delta_log/"));
    let adding = {
        let session = session.clone();
        tokio::spawn(async move {
            let sql = "ALTER TABLE t ADD CONSTRAINT low EXPECT (a > 0)";
            session.execute(sql).await.map(drop)
        })
    };
    assert!(gate.came().await);
    query::write(&other, "INSERT INTO t VALUES (-1)").await;
    gate.open();
    let error = adding.await.unwrap().expect_err("a row was not asked");
    assert!(
        matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Conflict),
        "{error}"
    );
    assert_eq!(
        query::rows(&session, "SELECT * FROM \"t$constraints\"").await,
        0
    );

    // The other way round: the write that read the table without the rule is asked before it lands.
    gate.close(|access, path| access == Access::Write && path.as_ref().contains("_delta_log/"));
    let writing = {
        let session = session.clone();
        tokio::spawn(async move { session.execute("INSERT INTO t VALUES (-2)").await.map(drop) })
    };
    assert!(gate.came().await);
    query::run(&other, "DELETE FROM t WHERE a < 0").await;
    query::run(&other, "ALTER TABLE t ADD CONSTRAINT low EXPECT (a > 0)").await;
    gate.open();
    let error = writing.await.unwrap().expect_err("a row was not asked");
    assert!(
        matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Conflict),
        "{error}"
    );
    assert_eq!(query::integers(&other, "SELECT a FROM t").await, [1]);
}

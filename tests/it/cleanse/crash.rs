//! Faults, power losses and kills in the middle of CLEANSE: what should stay is there at every step, and a second run
//! finishes what the first one began.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use selvedge_engine::{Engine, Error, ErrorKind, Session};

use super::bytes::MARKER;
use super::{lines, with_checkpoints};
use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::lake::folder;
use crate::support::power::{Damage, PowerLossStore};
use crate::support::process::{another, kill_after, lake};
use crate::support::query;
use crate::support::traces::holding;

const STATEMENTS: [&str; 2] = ["CLEANSE TABLE t", "CLEANSE TABLE t ERASE"];

/// Rows, deleted rows, quarantined rows and records of a refused write that hold the marker, beside some that do not.
async fn prepared(store: Arc<dyn ObjectStore>) -> Engine {
    let engine = with_checkpoints(store).await;
    let session = &engine.session();
    query::run(session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        session,
        "CREATE TABLE t (id BIGINT, name TEXT, p TEXT, CONSTRAINT low EXPECT (id >= 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT strict EXPECT (name <> 'never' AND id <> 13), \
         CONSTRAINT first EXPECT (min(name) <> '') ON VIOLATION WARN) PARTITIONED BY (p) \
         TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    for sql in [
        format!("INSERT INTO t VALUES (1, 'a', 'x'), (2, '{MARKER}', 'x'), (-1, 'aside', 'x')"),
        format!("INSERT INTO t VALUES (3, 'c', 'y'), (2, '{MARKER}', 'y'), (-2, '{MARKER}', 'y')"),
        "UPDATE t SET name = name || '!' WHERE id = 2 AND p = 'y'".to_owned(),
        "DELETE FROM t WHERE id = 2 AND p = 'x'".to_owned(),
        "INSERT INTO t VALUES (4, 'd', 'z')".to_owned(),
    ] {
        query::write(session, &sql).await;
    }
    query::error(
        session,
        &format!("INSERT INTO t VALUES (13, '{MARKER}', 'x')"),
    )
    .await;
    query::run(
        session,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    query::write(session, "INSERT INTO asked VALUES (2), (-2), (13)").await;
    engine.settle().await;
    engine
}

/// What nobody asked to be forgotten.
async fn kept(session: &Session) -> Result<(Vec<i64>, Vec<i64>), Error> {
    let others = "NOT IN (2, -2, 13) ORDER BY id";
    let rows = query::try_integers(session, &format!("SELECT id FROM t WHERE id {others}")).await?;
    let aside = format!("SELECT id FROM \"t$quarantine\" WHERE id {others}");
    Ok((rows, query::try_integers(session, &aside).await?))
}

/// A table in the middle of it is one to read, to write and to cleanse; `sql` run again ends it.
async fn finished(store: Arc<dyn ObjectStore>, sql: &str, context: &str) {
    let engine = with_checkpoints(Arc::clone(&store)).await;
    let session = engine.session();
    let found = kept(&session)
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(found, (vec![1, 3, 4], vec![-1]), "{context}");
    let report = query::write(
        &session,
        "INSERT INTO t VALUES (5, 'e', 'x'), (2, 'f', 'x')",
    )
    .await;
    assert_eq!(
        (report.rows_written, report.rows_erased),
        (1, 1),
        "{context}"
    );
    query::run(&session, sql).await;
    engine.settle().await;
    let session = with_checkpoints(Arc::clone(&store)).await.session();
    let rows = "SELECT id, p FROM t ORDER BY id";
    assert_eq!(
        lines(&session, rows).await,
        ["1 x", "3 y", "4 z", "5 x"],
        "{context}"
    );
    let aside = "SELECT id FROM \"t$quarantine\"";
    assert_eq!(query::integers(&session, aside).await, [-1], "{context}");
    if sql.contains("ERASE") {
        assert_eq!(holding(&*store, "", MARKER).await, [""; 0], "{context}");
        assert_eq!(
            query::rows(&session, "VERIFY ERASURE OF t").await,
            0,
            "{context}"
        );
        // Nothing is left that says it is not over yet.
        assert_eq!(
            holding(&*store, "public/t/_selvedge", "erase.json").await,
            [""; 0],
            "{context}"
        );
    }
}

/// A plan for the first write, the second, ... until the statement is over before it comes: how many it had to try.
async fn every_plan(sql: &str, fault: Fault, plan: fn(usize, Fault) -> Plan) -> usize {
    let mut k = 1;
    loop {
        let context = format!("{sql}: {fault:?} at {k}");
        if one_plan(sql, plan(k, fault).ops(&Op::WRITES), &context).await < k {
            return k;
        }
        k += 1;
    }
}

async fn one_plan(sql: &str, plan: Plan, context: &str) -> usize {
    let disk = Arc::new(InMemory::new());
    let store = FaultStore::new(disk.clone());
    let engine = prepared(store.clone()).await;
    let session = engine.session();
    store.arm(plan);
    let outcome = session.execute(sql).await.map(drop);
    engine.settle().await;
    let matched = store.matched();
    store.disarm();
    if let Err(error) = &outcome {
        assert_ne!(error.kind(), ErrorKind::Internal, "{context}: {error}");
    }
    if outcome.is_ok() {
        // What was acknowledged is done.
        let fresh = with_checkpoints(disk.clone()).await.session();
        let left = "SELECT count(*) FROM t WHERE id = 2";
        assert_eq!(query::integers(&fresh, left).await, [0], "{context}");
        if sql.contains("ERASE") {
            assert_eq!(
                holding(&*disk, "", MARKER).await,
                [""; 0],
                "{context}, acknowledged"
            );
        }
    }
    // By the session that met the fault, which may know less than it thinks, or by another.
    if matched.is_multiple_of(2) {
        query::run(&session, sql).await;
        engine.settle().await;
    }
    finished(disk, sql, context).await;
    matched
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_of_a_cleanse_fails_once_in_every_way() {
    for sql in STATEMENTS {
        for fault in Fault::ALL {
            let tried = every_plan(sql, fault, Plan::once).await;
            assert!(
                tried > 3 || fault == Fault::AmbiguousExists,
                "{sql}: {fault:?} was tried only {tried} times"
            );
        }
    }
}

/// The store goes, and with it the engine; another one finds what is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_leaves_a_cleanse_that_can_be_finished() {
    for sql in STATEMENTS {
        for fault in [Fault::FailBefore, Fault::FailAfter] {
            every_plan(sql, fault, Plan::from).await;
        }
    }
}

/// Reads fail too, and a listing that ends early is no proof.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_could_not_be_read_is_none() {
    let disk = Arc::new(InMemory::new());
    let store = FaultStore::new(disk.clone());
    let engine = prepared(store.clone()).await;
    query::run(&engine.session(), "CLEANSE TABLE t ERASE").await;
    engine.settle().await;
    let (mut k, mut refused) = (1, 0);
    loop {
        // As a new process asks, so that nothing is remembered.
        let session = with_checkpoints(store.clone()).await.session();
        store.arm(
            Plan::from(k, Fault::FailBefore)
                .ops(&[Op::Get, Op::List])
                .path("public/t"),
        );
        let outcome = query::try_batches(&session, "VERIFY ERASURE OF t").await;
        let met = store.matched() >= k;
        store.disarm();
        if !met {
            outcome.unwrap();
            break;
        }
        // Reads are tried again, but not for ever.
        let error = outcome.expect_err("a proof without having read everything");
        assert_ne!(error.kind(), ErrorKind::Internal, "{k}: {error}");
        refused += 1;
        k += 1;
    }
    assert!(refused > 3, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanse_can_be_finished_wherever_the_power_went() {
    for sql in STATEMENTS {
        let store = Arc::new(PowerLossStore::default());
        let engine = prepared(store.clone()).await;
        let session = engine.session();
        let before = store.changes().len();
        query::run(&session, sql).await;
        engine.settle().await;
        let all = store.changes();
        assert!(all.len() > before + 2, "{sql}");
        for reached in before..=all.len() {
            // A delete that was acknowledged has reached the disk, as a write has.
            let image = store.until(reached, Damage::Kept);
            let context = format!(
                "{sql}: {} of {} changes",
                reached - before,
                all.len() - before
            );
            finished(image.await.unwrap(), sql, &context).await;
        }
    }
}

/// Another statement than the one that was interrupted finishes it as well, as do a write and a VACUUM no harm.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_erasure_is_finished_by_the_next() {
    for k in 1.. {
        let disk = Arc::new(InMemory::new());
        let store = FaultStore::new(disk.clone());
        let engine = prepared(store.clone()).await;
        let session = engine.session();
        store.arm(
            Plan::from(k, Fault::FailBefore)
                .ops(&[Op::Delete])
                .path("public/t"),
        );
        let outcome = session
            .execute("CLEANSE TABLE t POLICY gone ERASE")
            .await
            .map(drop);
        engine.settle().await;
        let done = store.matched() < k;
        store.disarm();
        if done {
            outcome.unwrap();
            break;
        }
        let other = with_checkpoints(disk.clone()).await.session();
        query::run(&other, "SET selvedge.vacuum_retention_check = false").await;
        for sql in [
            "INSERT INTO t VALUES (6, 'g', 'x')",
            "OPTIMIZE t",
            "VACUUM t RETAIN 0 HOURS",
            "DELETE FROM t WHERE id = 6",
        ] {
            query::run(&other, sql).await;
        }
        // Versions that are half gone are gone.
        let error = query::try_integers(&other, "SELECT id FROM t VERSION AS OF 1").await;
        assert!(error.is_err(), "{k}: {error:?}");
        finished(
            disk,
            "CLEANSE TABLE t ERASE",
            &format!("deletes fail from {k}"),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that killed_erasures_are_finished kills"]
async fn victim() {
    let session = folder(&lake()).await;
    query::run(&session, "CLEANSE TABLE t ERASE").await;
    println!("erased");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_erasures_are_finished() {
    const KILLS: u64 = 25;
    let lake = tempfile::tempdir().unwrap();
    let disk = LocalFileSystem::new_with_prefix(lake.path()).unwrap();
    let first = folder(lake.path()).await;
    query::run(&first, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        &first,
        "CREATE TABLE t (id BIGINT, name TEXT) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    query::run(
        &first,
        "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
    )
    .await;
    query::write(&first, "INSERT INTO asked VALUES (-1)").await;
    let mut rows = 0;
    for round in 0..KILLS {
        let writer = folder(lake.path()).await;
        query::run(&writer, "ALTER CLEANSE POLICY gone ON t DISABLE").await;
        for _ in 0..3 {
            query::write(
                &writer,
                &format!("INSERT INTO t VALUES ({rows}, 'kept'), (-1, '{MARKER}')"),
            )
            .await;
            rows += 1;
        }
        query::run(&writer, "ALTER CLEANSE POLICY gone ON t ENABLE").await;
        let child = another("cleanse::crash::victim", lake.path());
        // Spread over start, rewriting, the commit and the deletes.
        kill_after(Duration::from_millis(30 + round * 41 % 200), child).await;
        let after = folder(lake.path()).await;
        let kept = "SELECT count(DISTINCT id) FROM t WHERE id >= 0";
        assert_eq!(query::integers(&after, kept).await, [rows], "kill {round}");
        if round % 3 == 2 {
            query::run(&after, "CLEANSE TABLE t ERASE").await;
            assert_eq!(
                query::rows(&after, "VERIFY ERASURE OF t").await,
                0,
                "kill {round}"
            );
            assert_eq!(
                holding(&disk, "public/t", MARKER).await,
                [""; 0],
                "kill {round}"
            );
            let all = "SELECT count(*) FROM t";
            assert_eq!(query::integers(&after, all).await, [rows], "kill {round}");
        }
    }
}

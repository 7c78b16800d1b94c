//! Traps of time: whose clock a version is found by, and what "as of" and "now" mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use selvedge_engine::{Engine, ErrorKind, Session};

use super::T;
use crate::support::lake::with_clock;
use crate::support::query;

/// 2026-01-02 03:04:05 UTC.
const START: i64 = 1_767_323_045_000;

/// An engine on a clock that the test sets.
async fn clocked(url: &str) -> (Engine, Arc<AtomicI64>) {
    let clock = Arc::new(AtomicI64::new(START));
    let hands = Arc::clone(&clock);
    let builder = Engine::builder(url).clock(Arc::new(move || hands.load(Ordering::Relaxed)));
    (builder.open().await.unwrap(), clock)
}

async fn commit_times(session: &Session) -> Vec<i64> {
    let batches = query::batches(session, "DESCRIBE HISTORY t").await;
    let mut times: Vec<i64> = batches
        .iter()
        .flat_map(|batch| {
            let times = batch.column_by_name("timestamp").unwrap();
            let micros = times.as_primitive::<TimestampMicrosecondType>().values();
            micros.iter().map(|at| at / 1000).collect::<Vec<_>>()
        })
        .collect();
    times.reverse();
    times
}

async fn as_of(session: &Session, ms: i64) -> Vec<i64> {
    let sql = format!("SELECT a FROM t TIMESTAMP AS OF to_timestamp_millis({ms}) ORDER BY a");
    query::integers(session, &sql).await
}

/// The time of a file is that of its last copy: a restored lake would find other versions than the one it was copied
/// from.
#[tokio::test]
async fn trap_commit_time_is_not_the_files_time() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().to_str().unwrap();
    let (engine, clock) = clocked(lake).await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    for a in 1..=3 {
        clock.store(START + a * 60_000, Ordering::Relaxed);
        query::run(&session, &format!("INSERT INTO t VALUES ({a})")).await;
    }
    // The files in the opposite order, decades ago.
    for version in 0..=3 {
        let path = folder
            .path()
            .join(format!("{T}/_delta_log/{version:020}.json"));
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let age = Duration::from_secs(1_000_000_000 - version * 1_000);
        file.set_modified(SystemTime::UNIX_EPOCH + age).unwrap();
    }
    let (engine, clock) = clocked(lake).await;
    clock.store(START + 600_000, Ordering::Relaxed);
    for (minutes, rows) in [(0, &[][..]), (1, &[1]), (2, &[1, 2]), (3, &[1, 2, 3])] {
        assert_eq!(
            as_of(&engine.session(), START + minutes * 60_000 + 1).await,
            rows
        );
    }
}

/// A clock that stands still or is set back must not give two versions one time, or a later one an earlier.
#[tokio::test]
async fn trap_clock_that_goes_back() {
    let (engine, clock) = clocked("memory:///").await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    for (a, at) in [
        (1, START),
        (2, START),
        (3, START - 86_400_000),
        (4, START + 50),
    ] {
        clock.store(at, Ordering::Relaxed);
        query::run(&session, &format!("INSERT INTO t VALUES ({a})")).await;
    }
    let times = commit_times(&session).await;
    assert_eq!(times, [START, START + 1, START + 2, START + 3, START + 50]);
    assert_eq!(as_of(&session, START + 2).await, [1, 2]);
}

/// A version begins at its own instant and ends before the next one's; before the first and after now there is none.
#[tokio::test]
async fn trap_edges_of_as_of() {
    let (engine, clock) = clocked("memory:///").await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    clock.store(START + 1_000, Ordering::Relaxed);
    query::run(&session, "INSERT INTO t VALUES (1)").await;
    for (ms, rows) in [(START, &[][..]), (START + 999, &[]), (START + 1_000, &[1])] {
        assert_eq!(as_of(&session, ms).await, rows, "{}", ms - START);
    }
    for (ms, kind, words) in [
        (START - 1, ErrorKind::NotFound, "2026-01-02 03:04:05"),
        (START + 1_001, ErrorKind::Invalid, "future"),
    ] {
        let sql = format!("SELECT a FROM t TIMESTAMP AS OF to_timestamp_millis({ms})");
        let error = session.execute(&sql).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

/// A statement has one now, whatever its clock does and however many batches, parts and defaults it has.
#[tokio::test]
async fn trap_now_is_not_one_instant() {
    let hands = AtomicI64::new(START);
    let clock = move || hands.fetch_add(1_000, Ordering::Relaxed);
    let session = with_clock(clock).await.session();
    let timed = "TIMESTAMP WITH TIME ZONE";
    query::run(
        &session,
        &format!("CREATE TABLE t (a BIGINT, b {timed}, c {timed} DEFAULT now())"),
    )
    .await;
    let half = "SELECT value, now() FROM generate_series(1, 20000)";
    query::run(
        &session,
        &format!("INSERT INTO t (a, b) {half} UNION ALL {half}"),
    )
    .await;
    let sql = "SELECT count(DISTINCT x) FROM (SELECT b AS x FROM t UNION ALL SELECT c FROM t)";
    assert_eq!(query::integers(&session, sql).await, [1]);
    query::run(&session, "INSERT INTO t (a, b) VALUES (0, now())").await;
    assert_eq!(query::integers(&session, sql).await, [2]);
}

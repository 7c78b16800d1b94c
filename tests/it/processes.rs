//! Several processes on one lake: writers that race, and a writer that is killed.

use std::path::Path;

use arrow::array::AsArray;
use selvedge_engine::{Engine, ErrorKind, Session};

use crate::support::lake::folder;
use crate::support::process::{another, killed_writers, lake, write_for_ever};
use crate::support::query;

const WRITERS: i64 = 4;
const APPENDS: i64 = 50;

async fn append(lake: &Path, first: i64) {
    let engine = Engine::builder(lake.to_str().unwrap())
        .open()
        .await
        .unwrap();
    let writers = (first..first + WRITERS).map(|writer| {
        let session = engine.session();
        tokio::spawn(async move {
            for n in 0..APPENDS {
                query::write(&session, &format!("INSERT INTO t VALUES ({writer}, {n})")).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    engine.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other process of two_processes_append"]
async fn other_appender() {
    append(&lake(), WRITERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_append() {
    let lake = tempfile::tempdir().unwrap();
    let session = folder(lake.path()).await;
    query::run(&session, "CREATE TABLE t (writer BIGINT, n BIGINT)").await;
    let mut other = another("processes::other_appender", lake.path());
    append(lake.path(), 0).await;
    assert!(
        other.wait().unwrap().success(),
        "a writer of the other process saw an error"
    );
    let rows = 2 * WRITERS * APPENDS;
    let all = "SELECT count(*), count(DISTINCT writer * 1000 + n) FROM t";
    assert_eq!(query::integers(&session, all).await, [rows]);
    let distinct = "SELECT count(DISTINCT writer * 1000 + n) FROM t";
    assert_eq!(query::integers(&session, distinct).await, [rows]);
    // One version each; others made the table, and merged small files.
    let history = query::batches(&session, "DESCRIBE HISTORY t").await;
    let writes = history.iter().map(|batch| {
        let operations = batch.column_by_name("operation").unwrap();
        let operations = operations.as_string::<i32>().iter();
        operations.filter(|name| *name == Some("WRITE")).count() as i64
    });
    assert_eq!(writes.sum::<i64>(), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_creators_have_one_winner() {
    let lake = tempfile::tempdir().unwrap();
    let mut sessions = Vec::new();
    for _ in 0..8 {
        // An engine each: nothing in memory is shared, as between processes.
        sessions.push(folder(lake.path()).await);
    }
    let racers = sessions.into_iter().enumerate().map(|(index, session)| {
        tokio::spawn(async move {
            session
                .execute(&format!("CREATE TABLE t AS SELECT {index} AS a"))
                .await
        })
    });
    let mut winners = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(_) => winners += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
        }
    }
    assert_eq!(winners, 1);
    let session = folder(lake.path()).await;
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 1);
}

/// The number of the last write.
const NEWEST: &str = "SELECT coalesce(max(batch), 0) FROM t";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that killed_writers_lose_nothing kills"]
async fn victim() {
    let sql = |next: i64| {
        let mode = if next % 7 == 0 {
            "INSERT OVERWRITE t SELECT batch, part FROM t UNION ALL"
        } else {
            "INSERT INTO t"
        };
        format!("{mode} VALUES ({next}, 0), ({next}, 1), ({next}, 2)")
    };
    write_for_ever(NEWEST, sql).await;
}

async fn whole(session: &Session, newest: i64, kill: u64) {
    let torn =
        "SELECT batch FROM t GROUP BY batch HAVING count(*) <> 3 OR count(DISTINCT part) <> 3";
    assert_eq!(
        query::integers(session, torn).await,
        [0; 0],
        "kill {kill}: part of a write is visible"
    );
    assert_eq!(
        query::integers(session, "SELECT count(DISTINCT batch) FROM t").await,
        [newest],
        "kill {kill}: a write in the middle is missing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_nothing() {
    let lake = tempfile::tempdir().unwrap();
    query::run(
        &folder(lake.path()).await,
        "CREATE TABLE t (batch BIGINT, part BIGINT)",
    )
    .await;
    killed_writers("processes::victim", lake.path(), 200, NEWEST, whole).await;
}

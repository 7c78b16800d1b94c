//! Several processes on one lake: writers that race, and a writer that is killed.
//!
//! The other process is this test binary again, told by the environment which part to play.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use arrow::array::AsArray;
use selvedge_engine::{Engine, ErrorKind, Session};

use crate::support::query;

pub(crate) const LAKE: &str = "SELVEDGE_TEST_LAKE";
const WRITERS: i64 = 4;
const APPENDS: i64 = 50;

/// Starts this binary on one test, which finds its lake in the environment.
pub(crate) fn another(test: &str, lake: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(LAKE, lake)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn session(lake: &Path) -> Session {
    Engine::builder(lake.to_str().unwrap())
        .open()
        .await
        .unwrap()
        .session()
}

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
    let lake = std::env::var_os(LAKE).expect("run by its parent test");
    append(Path::new(&lake), WRITERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_append() {
    let lake = tempfile::tempdir().unwrap();
    let session = session(lake.path()).await;
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
        sessions.push(session(lake.path()).await);
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
    let session = session(lake.path()).await;
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that killed_writers_lose_nothing kills"]
async fn victim() {
    let lake = std::env::var_os(LAKE).expect("run by its parent test");
    let session = session(Path::new(&lake)).await;
    let mut next = query::integers(&session, "SELECT coalesce(max(batch), 0) FROM t").await[0];
    loop {
        next += 1;
        let mode = if next % 7 == 0 {
            "INSERT OVERWRITE t SELECT batch, part FROM t UNION ALL"
        } else {
            "INSERT INTO t"
        };
        let sql = format!("{mode} VALUES ({next}, 0), ({next}, 1), ({next}, 2)");
        query::write(&session, &sql).await;
        println!("acknowledged {next}");
    }
}

/// Runs a writer for a while, the `kill`th time, and kills it: the last write it said it had done, if any.
pub(crate) async fn killed(test: &str, lake: &Path, kill: u64) -> Option<i64> {
    let mut child = another(test, lake);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<i64>().ok())
            .last()
    });
    // Spread over start, planning, files and commit of its first writes.
    tokio::time::sleep(Duration::from_millis(40 + kill * 37 % 160)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_nothing() {
    const KILLS: u64 = 200;
    let lake = tempfile::tempdir().unwrap();
    query::run(
        &session(lake.path()).await,
        "CREATE TABLE t (batch BIGINT, part BIGINT)",
    )
    .await;
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        acknowledged = killed("processes::victim", lake.path(), kill)
            .await
            .unwrap_or(acknowledged)
            .max(acknowledged);
        let session = session(lake.path()).await;
        let torn =
            "SELECT batch FROM t GROUP BY batch HAVING count(*) <> 3 OR count(DISTINCT part) <> 3";
        assert_eq!(
            query::integers(&session, torn).await,
            [0; 0],
            "kill {kill}: part of a write is visible"
        );
        let newest = query::integers(&session, "SELECT coalesce(max(batch), 0) FROM t").await[0];
        let batches = query::integers(&session, "SELECT count(DISTINCT batch) FROM t").await[0];
        assert_eq!(
            batches, newest,
            "kill {kill}: a write in the middle is missing"
        );
        assert!(
            newest >= acknowledged,
            "kill {kill}: {acknowledged} was acknowledged, {newest} is there"
        );
    }
    assert!(acknowledged > 0, "no write was ever acknowledged");
}

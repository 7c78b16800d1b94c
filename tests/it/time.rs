//! The rules about time, each under its number. T8, that a write over Flight runs once, is shown by a
//! real client in `python/test_flight.py`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use selvedge_engine::{Engine, Session};

use crate::support::lake::{open, with_clock};
use crate::support::query;

/// 2026-01-01 00:00:00 UTC.
const START_MS: i64 = 1_767_225_600_000;

/// A lake whose clock the test sets.
struct Lake {
    store: Arc<dyn ObjectStore>,
    clock: Arc<AtomicI64>,
    session: Session,
}

impl Lake {
    async fn open() -> Self {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let clock = Arc::new(AtomicI64::new(START_MS));
        let hand = Arc::clone(&clock);
        let engine = Engine::builder("memory:///")
            .store(Arc::clone(&store))
            .clock(Arc::new(move || hand.load(Ordering::SeqCst)))
            .open()
            .await
            .unwrap();
        Self {
            store,
            clock,
            session: engine.session(),
        }
    }

    /// Runs a statement at a second after the start.
    async fn at(&self, second: i64, sql: &str) {
        self.clock.store(START_MS + second * 1000, Ordering::SeqCst);
        query::run(&self.session, sql).await;
    }

    /// A table with version 0 at second 0, and one row more in each of three versions, ten seconds apart.
    async fn with_history() -> Self {
        let lake = Self::open().await;
        lake.at(0, "CREATE TABLE t (id BIGINT)").await;
        for version in 1..=3 {
            lake.at(version * 10, &format!("INSERT INTO t VALUES ({version})"))
                .await;
        }
        lake.clock.store(START_MS + 60_000, Ordering::SeqCst);
        lake
    }

    async fn count(&self, clause: &str) -> i64 {
        query::integers(&self.session, &format!("SELECT count(*) FROM t {clause}")).await[0]
    }

    async fn error(&self, sql: &str) -> String {
        query::error(&self.session, sql).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_every_place_of_a_table_reads_the_version_or_refuses_it() {
    let lake = Lake::with_history().await;
    let session = &lake.session;
    query::run(session, "CREATE TABLE target (id BIGINT)").await;
    for place in [
        "SELECT sum(id) FROM $T",
        "SELECT sum(x.id) FROM $T AS x",
        "SELECT sum(b.id) FROM t a JOIN $T b ON a.id = b.id",
        "SELECT sum(b.id) FROM t a LEFT JOIN $T b USING (id)",
        "SELECT sum(id) FROM (SELECT id FROM $T)",
        "SELECT (SELECT sum(id) FROM $T)",
        "SELECT sum(id) FROM t WHERE id IN (SELECT id FROM $T)",
        "SELECT sum(id) FROM t a WHERE EXISTS (SELECT 1 FROM $T b WHERE a.id = b.id)",
        "WITH c AS (SELECT id FROM $T) SELECT sum(id) FROM c",
        "SELECT sum(id) FROM (SELECT id FROM $T UNION ALL SELECT id FROM t WHERE false)",
        "SELECT sum(v.id) FROM t, LATERAL (SELECT id FROM $T b WHERE b.id = t.id) v",
    ] {
        for version in ["VERSION AS OF 2", "TIMESTAMP AS OF '2026-01-01 00:00:20'"] {
            let sql = place.replace("$T", &format!("t {version}"));
            assert_eq!(query::integers(session, &sql).await, [3], "{sql}");
        }
        let sql = place.replace("$T", "t VERSION AS OF 9");
        assert!(lake.error(&sql).await.contains("no version 9"), "{sql}");
    }
    for (place, check) in [
        ("INSERT OVERWRITE target SELECT id FROM $T", "target"),
        ("CREATE OR REPLACE TABLE made AS SELECT id FROM $T", "made"),
        ("CREATE OR REPLACE VIEW seen AS SELECT id FROM $T", "seen"),
    ] {
        let sql = place.replace("$T", "t VERSION AS OF 2");
        query::run(session, &sql).await;
        let sum = format!("SELECT sum(id) FROM {check}");
        assert_eq!(query::integers(session, &sum).await, [3], "{sql}");
        let sql = place.replace("$T", "t VERSION AS OF 9");
        assert!(lake.error(&sql).await.contains("no version 9"), "{sql}");
    }
    query::run(
        session,
        "PREPARE p AS SELECT sum(id) FROM t VERSION AS OF 2",
    )
    .await;
    assert_eq!(query::integers(session, "EXECUTE p").await, [3]);
    for sql in [
        "EXPLAIN SELECT * FROM t VERSION AS OF 9",
        "PREPARE q AS SELECT * FROM t VERSION AS OF 9",
        "WITH c AS (SELECT 1) SELECT * FROM c VERSION AS OF 2",
        "SELECT * FROM seen VERSION AS OF 1",
        "SELECT * FROM information_schema.tables VERSION AS OF 1",
        "SELECT * FROM generate_series(1, 2) VERSION AS OF 1",
        "INSERT INTO t VERSION AS OF 1 VALUES (1)",
        "SELECT * FROM 'some.parquet' VERSION AS OF 1",
    ] {
        lake.error(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_a_table_without_valid_time_refuses_its_clauses() {
    let lake = Lake::with_history().await;
    for clause in [
        "FOR VALID_TIME AS OF '2026-01-01'",
        "FOR VALID_TIME ALL",
        "FOR VALID_TIME FROM '2026-01-01' TO '2026-01-02'",
        "FOR VALID_TIME BETWEEN '2026-01-01' AND '2026-01-02'",
        "FOR SYSTEM_TIME FROM '2026-01-01' TO '2026-01-02'",
    ] {
        let error = lake.error(&format!("SELECT * FROM t {clause}")).await;
        assert!(error.contains("_TIME"), "{clause}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_a_version_holds_from_its_instant_to_before_the_next() {
    let lake = Lake::with_history().await;
    for (time, rows) in [
        ("00:00:00", 0),
        ("00:00:09.999", 0),
        ("00:00:09.999999", 0),
        ("00:00:10", 1),
        ("00:00:19.999", 1),
        ("00:00:20.000", 2),
        ("00:00:30", 3),
        ("00:00:59", 3),
    ] {
        let clause = format!("TIMESTAMP AS OF '2026-01-01 {time}'");
        assert_eq!(lake.count(&clause).await, rows, "{time}");
    }
    // Both bounds of changes count.
    for (from, to, rows) in [
        ("00:00:10", "00:00:20", 2),
        ("00:00:10.000001", "00:00:20", 1),
        ("00:00:10.001", "00:00:19.999", 0),
        ("00:00:00", "00:00:30", 3),
        ("00:00:30.001", "00:00:59", 0),
    ] {
        let sql = format!(
            "SELECT count(*) FROM table_changes('t', '2026-01-01 {from}', '2026-01-01 {to}')"
        );
        assert_eq!(query::integers(&lake.session, &sql).await, [rows], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_local_times_are_those_of_the_session_or_refused() {
    let lake = Lake::with_history().await;
    let session = &lake.session;
    query::run(session, "SET TIME ZONE 'Asia/Kolkata'").await;
    assert_eq!(lake.count("TIMESTAMP AS OF '2026-01-01 05:30:20'").await, 2);
    assert_eq!(
        lake.count("TIMESTAMP AS OF TIMESTAMP '2026-01-01 05:30:10'")
            .await,
        1
    );
    assert_eq!(
        lake.count("TIMESTAMP AS OF '2026-01-01T00:00:20Z'").await,
        2
    );
    // The day began there before the table did; midnight of the next is still to come.
    let early = lake
        .error("SELECT * FROM t TIMESTAMP AS OF DATE '2026-01-01'")
        .await;
    assert!(
        early.contains("no version at 2025-12-31 18:30:00.000 UTC"),
        "{early}"
    );
    let late = lake
        .error("SELECT * FROM t TIMESTAMP AS OF DATE '2026-01-02'")
        .await;
    assert!(
        late.contains("2026-01-01 18:30:00.000 UTC lies in the future"),
        "{late}"
    );
    query::run(session, "SET TIME ZONE 'America/New_York'").await;
    for (local, why) in [
        ("2025-11-02 01:30:00", "ambiguous in America/New_York"),
        ("2025-03-09 02:30:00", "does not exist in America/New_York"),
    ] {
        for sql in [
            format!("SELECT * FROM t TIMESTAMP AS OF '{local}'"),
            format!("SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '{local}'"),
            format!("SELECT * FROM table_changes('t', '{local}')"),
            format!("SELECT * FROM \"t$history\" WHERE timestamp > '{local}'"),
        ] {
            let error = lake.error(&sql).await;
            assert!(error.contains(why), "{sql}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_time_is_that_of_the_log_and_never_goes_back() {
    let lake = Lake::with_history().await;
    // A clock that was set back: the version still comes a millisecond after the one before.
    lake.at(15, "INSERT INTO t VALUES (4)").await;
    lake.clock.store(START_MS + 60_000, Ordering::SeqCst);
    assert_eq!(lake.count("TIMESTAMP AS OF '2026-01-01 00:00:15'").await, 1);
    assert_eq!(lake.count("TIMESTAMP AS OF '2026-01-01 00:00:30'").await, 3);
    assert_eq!(
        lake.count("TIMESTAMP AS OF '2026-01-01 00:00:30.001'")
            .await,
        4
    );
    // Objects written anew, as by a copy to another store, keep the times of the log.
    let log = commit_paths(&lake.store).await;
    for path in log.iter().rev() {
        let bytes = lake.store.get(path).await.unwrap().bytes().await.unwrap();
        lake.store.put(path, bytes.into()).await.unwrap();
    }
    assert_eq!(lake.count("TIMESTAMP AS OF '2026-01-01 00:00:20'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_what_cannot_be_read_is_refused_with_what_can() {
    let lake = Lake::with_history().await;
    lake.at(70, "ALTER TABLE t ADD COLUMN more INT").await;
    lake.clock.store(START_MS + 80_000, Ordering::SeqCst);
    let before = lake
        .error("SELECT * FROM t TIMESTAMP AS OF '2025-12-31'")
        .await;
    assert!(
        before.contains("no version at 2025-12-31 00:00:00.000 UTC"),
        "{before}"
    );
    assert!(
        before.contains("earliest readable version is of 2026-01-01 00:00:00.000 UTC"),
        "{before}"
    );
    let future = lake
        .error("SELECT * FROM t TIMESTAMP AS OF '2026-01-02'")
        .await;
    assert!(
        future.contains("2026-01-02 00:00:00.000 UTC lies in the future"),
        "{future}"
    );
    let never = lake.error("SELECT * FROM t VERSION AS OF 5").await;
    assert!(never.contains("no version 5; the newest is 4"), "{never}");
    // The schema is that of the version.
    let missing = lake.error("SELECT more FROM t VERSION AS OF 3").await;
    assert!(missing.contains("more"), "{missing}");
    // A version whose files are gone is an error, and never some of its rows.
    query::write(&lake.session, "DELETE FROM t WHERE id = 1").await;
    let files: Vec<_> = lake.store.list(None).try_collect().await.unwrap();
    let first = commit_bytes(&lake.store, 1).await;
    let gone = files.iter().find(|file| {
        let name = file.location.filename().unwrap_or_default();
        name.ends_with(".parquet") && first.contains(name)
    });
    lake.store.delete(&gone.unwrap().location).await.unwrap();
    // An engine that has not yet seen the file's footer: of one row the log knows the rest.
    let cold = open(Arc::clone(&lake.store)).await.session();
    query::error(&cold, "SELECT id FROM t VERSION AS OF 2").await;
    query::error(&cold, "SELECT id FROM table_changes('t', 1)").await;
    assert_eq!(lake.count("").await, 2);
    // As is one whose commits were cleaned up.
    let log = commit_paths(&lake.store).await;
    lake.store.delete(&log[1]).await.unwrap();
    let lost = lake.error("SELECT * FROM table_changes('t', 1)").await;
    assert!(
        lost.contains("what version 1 of table public.t changed can no longer be read"),
        "{lost}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t7_a_statement_has_one_instant() {
    // A clock that moves whenever somebody looks at it.
    let hand = AtomicI64::new(START_MS);
    let engine = with_clock(move || hand.fetch_add(1, Ordering::SeqCst)).await;
    let session = engine.session();
    for sql in [
        "CREATE TABLE s (id BIGINT, at TIMESTAMP WITH TIME ZONE DEFAULT now())",
        "INSERT INTO s (id) SELECT value FROM generate_series(1, 20000)",
        "INSERT INTO s SELECT id, now() FROM s VERSION AS OF 1 WHERE now() = (SELECT max(now()) FROM s)",
    ] {
        query::run(&session, sql).await;
    }
    for version in 1..=2 {
        let sql = format!(
            "SELECT count(DISTINCT at) FROM (SELECT at FROM s VERSION AS OF {version} \
             EXCEPT SELECT at FROM s VERSION AS OF {})",
            version - 1
        );
        assert_eq!(query::integers(&session, &sql).await, [1], "{sql}");
    }
}

/// The commits of the one table of a lake, oldest first.
async fn commit_paths(store: &Arc<dyn ObjectStore>) -> Vec<Path> {
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut paths: Vec<Path> = all
        .into_iter()
        .map(|meta| meta.location)
        .filter(|path| path.as_ref().contains("_delta_log/") && path.as_ref().ends_with(".json"))
        .collect();
    paths.sort();
    paths
}

async fn commit_bytes(store: &Arc<dyn ObjectStore>, version: usize) -> String {
    let path = &commit_paths(store).await[version];
    let bytes = store.get(path).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

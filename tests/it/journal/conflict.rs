//! Writers that meet: one is held just before its commit while another commits.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use selvedge_engine::{Engine, Error, Session, WriteReport};
use tokio::task::JoinHandle;

use super::{Event, checked, create, history, insert, open, values, write};
use crate::support::fault::{FaultStore, Op};
use crate::support::gate::{Access, Gate};
use crate::support::query;

/// Nothing here takes long, unless one waits for the other for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lake in which one writer can be held, and all that it asks of the store is seen.
struct Race {
    disk: Arc<InMemory>,
    gate: Arc<Gate>,
    seen: Arc<FaultStore>,
    held: Engine,
    other: Session,
}

impl Race {
    async fn of(clauses: &str, events: &[Event<'_>]) -> Self {
        let disk = Arc::new(InMemory::new());
        let other = open(disk.clone()).await.session();
        create(&other, clauses).await;
        if !events.is_empty() {
            write(&other, events).await;
        }
        let (gate, store) = Gate::before(disk.clone());
        let seen = FaultStore::new(store);
        let held = open(seen.clone()).await;
        // It knows the table before the race begins.
        query::rows(&held.session(), "SELECT * FROM t").await;
        Self {
            disk,
            gate,
            seen,
            held,
            other,
        }
    }

    /// Holds the next commit.
    fn close(&self) {
        self.gate.close(|access, path| {
            access == Access::Write
                && path.as_ref().contains("_delta_log")
                && path.as_ref().ends_with(".json")
        });
    }

    /// Starts a write and returns when it is about to commit.
    async fn hold(&self, sql: String) -> JoinHandle<Result<Option<WriteReport>, Error>> {
        self.close();
        let (gate, session) = (Arc::clone(&self.gate), self.held.session());
        let running = tokio::spawn(async move {
            let answer = session.execute(&sql).await;
            gate.none_will_come();
            answer.map(|answer| match answer {
                selvedge_engine::Answer::Written(report) => Some(report),
                _ => None,
            })
        });
        let came = tokio::time::timeout(PATIENCE, self.gate.came()).await;
        assert!(came.unwrap(), "the write ended before it was held");
        running
    }

    /// Lets the write go on to its end.
    async fn release(
        &self,
        running: JoinHandle<Result<Option<WriteReport>, Error>>,
    ) -> Result<WriteReport, Error> {
        self.gate.open();
        let done = tokio::time::timeout(PATIENCE, running).await;
        Ok(done.unwrap().unwrap()?.unwrap())
    }

    /// Data files that the held writer has begun.
    fn files(&self) -> usize {
        let files = self.seen.history().into_iter().filter(|call| {
            matches!(call.op, Op::Create | Op::Put | Op::MultipartStart)
                && call.path.as_ref().contains("is_current=")
                && call.path.as_ref().ends_with(".parquet")
        });
        files.count()
    }

    /// What an engine finds that took no part in it.
    async fn found(&self) -> Vec<String> {
        let session = open(self.disk.clone()).await.session();
        checked(&session, "t").await;
        history(&session).await
    }
}

const BEFORE: [Event<'static>; 3] = [(1, Some("a"), 1), (2, Some("a"), 1), (3, Some("a"), 1)];

#[tokio::test(flavor = "multi_thread")]
async fn j15_two_writers_of_one_key_leave_one_history() {
    for clauses in ["", "LATE APPLY AFTER INTERVAL '30 days'"] {
        let race = Race::of(clauses, &BEFORE).await;
        let running = race
            .hold(insert(&[(1, Some("b"), 3), (4, Some("n"), 3)]))
            .await;
        let before = race.files();
        // Before it, after it, and the same new key.
        write(&race.other, &[(1, Some("c"), 5), (4, Some("m"), 2)]).await;
        let report = race.release(running).await.unwrap();
        assert_eq!(report.version, Some(3), "{clauses}: {report:?}");
        assert!(
            race.files() > before,
            "{clauses}: the step was not done again"
        );
        // The rows were read once, and are those of the statement.
        assert_eq!((report.rows_received, report.rows_accepted), (2, 2));
        let expected = [
            "1 a 01 03",
            "1 b 03 05",
            "1 c 05 NULL",
            "2 a 01 NULL",
            "3 a 01 NULL",
            "4 m 02 03",
            "4 n 03 NULL",
        ];
        assert_eq!(race.found().await, expected, "{clauses}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_other_keys_costs_nothing() {
    for clauses in ["", "LATE APPLY AFTER INTERVAL '30 days'"] {
        let race = Race::of(clauses, &BEFORE).await;
        let running = race.hold(insert(&[(1, Some("b"), 3)])).await;
        let before = race.files();
        assert!(before > 0, "no data file was seen");
        write(&race.other, &[(9, Some("n"), 2), (9, Some("o"), 4)]).await;
        let report = race.release(running).await.unwrap();
        assert_eq!(report.version, Some(3), "{clauses}");
        assert_eq!(race.files(), before, "{clauses}: the step was done again");
        let expected = [
            "1 a 01 03",
            "1 b 03 NULL",
            "2 a 01 NULL",
            "3 a 01 NULL",
            "9 n 02 04",
            "9 o 04 NULL",
        ];
        assert_eq!(race.found().await, expected, "{clauses}");
    }
}

/// A first load of many rows does not hold their keys, so whatever came before it makes it look again.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_load_that_comes_second_finds_what_came_first() {
    for clauses in ["", "LATE APPLY AFTER INTERVAL '30 days'"] {
        let race = Race::of(clauses, &[]).await;
        let load =
            "INSERT INTO t SELECT value, 'a', DATE '2026-01-03' FROM generate_series(1, 70000)";
        let running = race.hold(load.to_owned()).await;
        let before = race.files();
        assert!(before > 0, "{clauses}: no data file was seen");
        let first = [(1, Some("x"), 2), (2, Some("z"), 5), (70_001, Some("y"), 2)];
        write(&race.other, &first).await;
        let report = race.release(running).await.unwrap();
        assert_eq!(report.version, Some(2), "{clauses}: {report:?}");
        assert_eq!(
            (report.rows_received, report.rows_accepted),
            (70_000, 70_000)
        );
        assert!(
            race.files() > before,
            "{clauses}: the step was not done again"
        );
        let session = open(race.disk.clone()).await.session();
        checked(&session, "t").await;
        let some = "SELECT k, v, CAST(valid_from AS DATE) AS since, CAST(valid_to AS DATE) AS until \
             FROM \"t$journal\" WHERE k IN (1, 2, 70000, 70001) ORDER BY k, valid_from";
        let expected = [
            "1 x 2026-01-02 2026-01-03",
            "1 a 2026-01-03 NULL",
            "2 a 2026-01-03 2026-01-05",
            "2 z 2026-01-05 NULL",
            "70000 a 2026-01-03 NULL",
            "70001 y 2026-01-02 NULL",
        ];
        assert_eq!(query::lines(&session, some).await, expected, "{clauses}");
        let all = query::integers(&session, "SELECT count(*) FROM t").await;
        assert_eq!(all, [70_001], "{clauses}");
    }
}

/// Rows that it read and marks have moved to another file: it finds them there.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_of_files_between_reading_and_committing() {
    let race = Race::of("TBLPROPERTIES ('selvedge.autoOptimize' = 'false')", &BEFORE).await;
    write(&race.other, &[(2, Some("b"), 2)]).await;
    let running = race
        .hold(insert(&[(1, Some("b"), 3), (2, Some("c"), 3)]))
        .await;
    query::run(&race.other, "OPTIMIZE t").await;
    race.release(running).await.unwrap();
    let expected = [
        "1 a 01 03",
        "1 b 03 NULL",
        "2 a 01 02",
        "2 b 02 03",
        "2 c 03 NULL",
        "3 a 01 NULL",
    ];
    assert_eq!(race.found().await, expected);
}

/// The other way round: files are merged while rows of them are closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_while_files_are_merged() {
    let race = Race::of("TBLPROPERTIES ('selvedge.autoOptimize' = 'false')", &BEFORE).await;
    write(&race.other, &[(2, Some("b"), 2)]).await;
    let session = race.held.session();
    race.close();
    let gate = Arc::clone(&race.gate);
    let running = tokio::spawn(async move {
        let rows = query::rows(&session, "OPTIMIZE t").await;
        gate.none_will_come();
        rows
    });
    assert!(race.gate.came().await);
    write(&race.other, &[(2, Some("c"), 3), (3, None, 3)]).await;
    race.gate.open();
    tokio::time::timeout(PATIENCE, running)
        .await
        .unwrap()
        .unwrap();
    let expected = [
        "1 a 01 NULL",
        "2 a 01 02",
        "2 b 02 03",
        "2 c 03 NULL",
        "3 a 01 03",
    ];
    assert_eq!(race.found().await, expected);
}

/// A snapshot counts on what is not there: a key that comes meanwhile is one that it does not have.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_meets_a_key_that_came_meanwhile() {
    let race = Race::of("", &BEFORE).await;
    let snapshot = "INSERT OVERWRITE t VALUES (1, 'a', DATE '2026-01-04'), (2, 'b', DATE '2026-01-04'), (3, 'a', DATE '2026-01-04')";
    let running = race.hold(snapshot.to_owned()).await;
    write(&race.other, &[(4, Some("n"), 2), (5, Some("n"), 6)]).await;
    race.release(running).await.unwrap();
    // The one that was opened after it is no business of its.
    let expected = [
        "1 a 01 NULL",
        "2 a 01 04",
        "2 b 04 NULL",
        "3 a 01 NULL",
        "4 n 02 04",
        "5 n 06 NULL",
    ];
    assert_eq!(race.found().await, expected);
}

/// A snapshot that changes nothing is met all the same: an older one may not end what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_meets_a_newer_one() {
    let race = Race::of("", &BEFORE).await;
    let before = race.found().await;
    let snapshot = |keys: &[i64], day: u8| {
        let rows: Vec<Event<'_>> = keys.iter().map(|key| (*key, Some("a"), day)).collect();
        format!("INSERT OVERWRITE t VALUES {}", values(&rows))
    };
    let running = race.hold(snapshot(&[1, 2], 4)).await;
    query::write(&race.other, &snapshot(&[1, 2, 3], 5)).await;
    let error = race.release(running).await.unwrap_err();
    assert!(error.message().contains("comes behind"), "{error}");
    assert_eq!(race.found().await, before);
}

/// RESTORE brings nothing, and takes away what the writer had found to be known already.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_away_what_was_known() {
    let race = Race::of("", &BEFORE).await;
    write(&race.other, &[(7, Some("x"), 2)]).await;
    let running = race
        .hold(insert(&[(7, Some("x"), 2), (8, Some("y"), 2)]))
        .await;
    query::run(&race.other, "RESTORE TABLE t TO VERSION AS OF 1").await;
    race.release(running).await.unwrap();
    let found = race.found().await;
    for row in ["7 x 02 NULL", "8 y 02 NULL"] {
        assert!(found.iter().any(|line| line == row), "{row}: {found:?}");
    }
}

/// What reads the table to change it reads it again.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_sees_what_came_before_its_commit() {
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let other = open(Arc::clone(&disk)).await.session();
    query::run(
        &other,
        "CREATE TABLE t (k BIGINT, n BIGINT) JOURNAL KEYS (k)",
    )
    .await;
    query::write(&other, "INSERT INTO t VALUES (1, 0), (2, 0)").await;
    // Each adds one; none is lost.
    let writers = (0..4).map(|_| {
        let disk = Arc::clone(&disk);
        tokio::spawn(async move {
            let session = open(disk).await.session();
            for _ in 0..5 {
                query::write(&session, "UPDATE t SET n = n + 1 WHERE k = 1").await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let session = open(disk).await.session();
    checked(&session, "t").await;
    assert_eq!(
        query::integers(&session, "SELECT n FROM t ORDER BY k").await,
        [20, 0]
    );
    let steps = "SELECT n FROM \"t$journal\" WHERE k = 1 ORDER BY valid_from";
    let all: Vec<i64> = (0..=20).collect();
    assert_eq!(query::integers(&session, steps).await, all);
}

/// Four processes' worth of writers, each with changes of all keys: every history is whole and in order.
#[tokio::test(flavor = "multi_thread")]
async fn writers_that_race_over_the_same_keys_lose_nothing() {
    const WRITERS: u8 = 4;
    const ROUNDS: u8 = 6;
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let first = open(Arc::clone(&disk)).await.session();
    create(&first, "LATE APPLY AFTER INTERVAL '300 days'").await;
    let writers = (0..WRITERS).map(|writer| {
        let disk = Arc::clone(&disk);
        tokio::spawn(async move {
            let session = open(disk).await.session();
            for round in 0..ROUNDS {
                let day = 1 + round * WRITERS + writer;
                let value = format!("v{day}");
                let events = [1, 2, 3].map(|key| (key, Some(value.as_str()), day));
                write(&session, &events).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let session = open(disk).await.session();
    checked(&session, "t").await;
    let days = WRITERS * ROUNDS;
    let expected: Vec<String> = (1..=3)
        .flat_map(|key| {
            (1..=days).map(move |day| {
                let to = match day == days {
                    true => "NULL".to_owned(),
                    false => format!("{:02}", day + 1),
                };
                format!("{key} v{day} {day:02} {to}")
            })
        })
        .collect();
    assert_eq!(history(&session).await, expected);
}

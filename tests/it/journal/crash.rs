//! Faults, power losses and kills: an interval is never closed without the next one open, and what is kept for late
//! events is kept together with what it belongs to.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use selvedge_engine::{Answer, Engine, Error, ErrorKind, Session, Settings};

use super::{checked, lines};
use crate::processes::{LAKE, killed};
use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::power::{Change, Damage, PowerLossStore};
use crate::support::query;

/// A step, and every interval after it.
struct Step {
    sql: &'static str,
    journal: &'static [&'static str],
}

/// Later steps need what earlier ones have kept: a sighting that changed nothing, and an early delete.
const STEPS: [Step; 7] = [
    Step {
        sql: "CREATE TABLE t (k BIGINT, v TEXT, at DATE) JOURNAL KEYS (k) SEQUENCE BY at \
              APPLY AS DELETE WHEN v IS NULL LATE APPLY AFTER INTERVAL '30 days'",
        journal: &[],
    },
    Step {
        sql: "INSERT INTO t VALUES (1, 'a', DATE '2026-01-01'), (1, 'a', DATE '2026-01-05')",
        journal: &["1 a 01 NULL"],
    },
    Step {
        sql: "INSERT INTO t VALUES (2, NULL, DATE '2026-01-04'), (3, 'x', DATE '2026-01-02')",
        journal: &["1 a 01 NULL", "3 x 02 NULL"],
    },
    Step {
        sql: "INSERT INTO t VALUES (1, 'b', DATE '2026-01-03'), (2, 'p', DATE '2026-01-02')",
        journal: &[
            "1 a 01 03",
            "1 b 03 05",
            "1 a 05 NULL",
            "2 p 02 04",
            "3 x 02 NULL",
        ],
    },
    Step {
        sql: "INSERT OVERWRITE t VALUES (1, 'c', DATE '2026-01-07')",
        journal: &[
            "1 a 01 03",
            "1 b 03 05",
            "1 a 05 07",
            "1 c 07 NULL",
            "2 p 02 04",
            "3 x 02 07",
        ],
    },
    Step {
        sql: "OPTIMIZE t",
        journal: &[
            "1 a 01 03",
            "1 b 03 05",
            "1 a 05 07",
            "1 c 07 NULL",
            "2 p 02 04",
            "3 x 02 07",
        ],
    },
    Step {
        sql: "INSERT INTO t VALUES (3, 'y', DATE '2026-01-05'), (2, 'q', DATE '2026-01-08')",
        journal: &[
            "1 a 01 03",
            "1 b 03 05",
            "1 a 05 07",
            "1 c 07 NULL",
            "2 p 02 04",
            "2 q 08 NULL",
            "3 x 02 05",
            "3 y 05 07",
        ],
    },
];

/// What a new engine finds; `None` where there is no table.
type State = Option<Vec<String>>;

impl Step {
    fn state(&self) -> State {
        Some(self.journal.iter().map(|&line| line.to_owned()).collect())
    }
}

async fn open(store: Arc<dyn ObjectStore>) -> Result<Engine, Error> {
    let mut settings = Settings::default();
    // So that what is kept outlives the commits that said so.
    settings.checkpoint_interval = 2;
    let builder = Engine::builder("memory:///").store(store);
    builder.settings(settings).open().await
}

async fn state(session: &Session) -> State {
    if session.tables().await.unwrap().is_empty() {
        return None;
    }
    checked(session, "t").await;
    Some(super::history(session).await)
}

async fn found(store: Arc<dyn ObjectStore>) -> State {
    state(&open(store).await.unwrap().session()).await
}

async fn one_fault(fault: Fault, k: usize) -> usize {
    let disk = Arc::new(InMemory::new());
    let store = FaultStore::new(disk.clone());
    let engine = open(store.clone()).await.unwrap();
    let session = engine.session();
    store.arm(Plan::once(k, fault).ops(&Op::WRITES));
    let mut before: State = None;
    for step in &STEPS {
        let context = format!("{fault:?} at {k}: {}", step.sql);
        let outcome = run(&session, step.sql).await;
        engine.settle().await;
        let now = found(disk.clone()).await;
        match outcome {
            Ok(()) => assert_eq!(now, step.state(), "{context} was acknowledged"),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Internal, "{context}: {error}");
                assert_eq!(now, before, "{context} was refused: {error}");
                run(&session, step.sql)
                    .await
                    .unwrap_or_else(|error| panic!("{context}, again: {error}"));
            }
        }
        before = found(disk.clone()).await;
        assert_eq!(before, step.state(), "{context}, again");
    }
    store.matched()
}

/// A statement to its end: one of upkeep answers with rows.
async fn run(session: &Session, sql: &str) -> Result<(), Error> {
    match session.execute(sql).await? {
        Answer::Rows(rows) => rows
            .try_collect::<Vec<_>>()
            .await
            .map(drop)
            .map_err(Error::from),
        _ => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_fails_once_in_every_way() {
    for fault in Fault::ALL {
        let mut k = 1;
        while one_fault(fault, k).await >= k {
            k += 1;
        }
        assert!(k > STEPS.len(), "{fault:?} was tried only {k} times");
    }
}

/// As in `power.rs`: wherever the power goes, no write is half there, and none that was acknowledged is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_synced_lake_goes_on_wherever_the_power_went() {
    let store = Arc::new(PowerLossStore::default());
    let engine = open(store.clone()).await.unwrap();
    let mut acknowledged = Vec::new();
    for step in &STEPS {
        run(&engine.session(), step.sql).await.unwrap();
        acknowledged.push(store.changes().len());
        engine.settle().await;
    }
    let all = store.changes();
    let states: Vec<State> = std::iter::once(None)
        .chain(STEPS.iter().map(Step::state))
        .collect();
    for reached in 0..=all.len() {
        for deletes in [Damage::Kept, Damage::Lost] {
            let deleted = |change: &Change| matches!(change, Change::Deleted(_));
            if deletes == Damage::Lost && !all[..reached].iter().any(deleted) {
                continue;
            }
            let image = store.crash(|number, change| match change {
                _ if number >= reached => Damage::Lost,
                Change::Deleted(_) => deletes,
                Change::Written(..) => Damage::Kept,
            });
            let session = open(image.await.unwrap()).await.unwrap().session();
            let context = format!("{reached} of {} changes, deletes {deletes:?}", all.len());
            let found = state(&session).await;
            let done = acknowledged.iter().filter(|at| **at <= reached).count();
            // One more may have landed whose answer was still on its way.
            let possible = &states[done..states.len().min(done + 2)];
            assert!(possible.contains(&found), "{context}: {found:?}");

            // The next one finds a lake to go on with.
            if found.is_none() {
                query::run(&session, STEPS[0].sql).await;
            }
            let next = "INSERT INTO t VALUES (9, 'z', DATE '2026-01-03')";
            let report = query::write(&session, next).await;
            assert_eq!(report.intervals_opened, 1, "{context}");
            let mut rows = found.unwrap_or_default();
            rows.push("9 z 03 NULL".to_owned());
            assert_eq!(state(&session).await, Some(rows), "{context}");
        }
    }
}

/// A file of kept events that is lost or harmed is named; late events are not quietly placed without it.
#[tokio::test(flavor = "multi_thread")]
async fn harmed_kept_events_are_named() {
    let store = Arc::new(PowerLossStore::default());
    let engine = open(store.clone()).await.unwrap();
    for step in &STEPS[..3] {
        run(&engine.session(), step.sql).await.unwrap();
        engine.settle().await;
    }
    let mut named = 0;
    for (harmed, change) in store.changes().iter().enumerate() {
        let Change::Written(path, bytes) = change else {
            continue;
        };
        if !path.as_ref().contains("_selvedge/journal/") {
            continue;
        }
        for damage in Damage::all(bytes) {
            let image = store.crash(|number, _| match number == harmed {
                true => damage,
                false => Damage::Kept,
            });
            let session = open(image.await.unwrap()).await.unwrap().session();
            let context = format!("{path} {damage:?}");
            // What is stored can be read without it.
            assert_eq!(
                lines(&session, "SELECT k, v FROM t ORDER BY k").await,
                ["1 a", "3 x"],
                "{context}"
            );
            let error = query::error(&session, STEPS[3].sql).await;
            let name = path.filename().unwrap();
            assert!(error.contains(name), "{context}: {error}");
            named += 1;
        }
    }
    assert!(named >= 4, "{named} harms were noticed");
}

async fn session(lake: &Path) -> Session {
    let builder = Engine::builder(lake.to_str().unwrap());
    builder.open().await.unwrap().session()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that killed_writers_leave_whole_histories kills"]
async fn victim() {
    let lake = std::env::var_os(LAKE).expect("run by its parent test");
    let session = session(Path::new(&lake)).await;
    let mut next = query::integers(&session, "SELECT coalesce(max(n), 0) FROM t").await[0];
    loop {
        next += 1;
        let at = format!("{:02}:{:02}:{:02}", next / 3600, next / 60 % 60, next % 60);
        let rows = (1..=5).map(|key| format!("({key}, {next}, TIMESTAMP '2026-01-01 {at}')"));
        let rows: Vec<String> = rows.collect();
        let sql = format!("INSERT INTO t VALUES {}", rows.join(", "));
        query::write(&session, &sql).await;
        println!("acknowledged {next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_leave_whole_histories() {
    const KILLS: u64 = 40;
    let lake = tempfile::tempdir().unwrap();
    query::run(
        &session(lake.path()).await,
        "CREATE TABLE t (k BIGINT, n BIGINT, at TIMESTAMP) JOURNAL KEYS (k) SEQUENCE BY at \
         LATE APPLY AFTER INTERVAL '20 seconds'",
    )
    .await;
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        acknowledged = killed("journal::crash::victim", lake.path(), kill)
            .await
            .unwrap_or(acknowledged)
            .max(acknowledged);
        let session = session(lake.path()).await;
        checked(&session, "t").await;
        let newest = query::integers(&session, "SELECT coalesce(max(n), 0) FROM t").await[0];
        assert!(
            newest >= acknowledged,
            "kill {kill}: {acknowledged} was acknowledged, {newest} is there"
        );
        for (sql, expected) in [
            ("SELECT count(*) FROM \"t$journal\"", 5 * newest),
            ("SELECT count(DISTINCT n) FROM \"t$journal\"", newest),
            ("SELECT count(DISTINCT n) FROM t", newest.min(1)),
        ] {
            assert_eq!(
                query::integers(&session, sql).await,
                [expected],
                "kill {kill}: {sql}"
            );
        }
    }
    assert!(acknowledged > 0, "no write was ever acknowledged");
}

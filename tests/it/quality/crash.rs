//! Faults, power losses and kills with a quarantine on: rows, quarantined rows, results and metrics of a write
//! appear together or not at all.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use selvedge_engine::{Engine, Error, ErrorKind, Session, Settings};

use crate::processes::{LAKE, killed};
use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::power::{Change, Damage, PowerLossStore};
use crate::support::query;

/// A step, and what the table, its quarantine and its records hold after it.
struct Step {
    sql: &'static str,
    rows: &'static [i64],
    aside: &'static [i64],
    /// Writes that have been recorded.
    writes: i64,
}

const STEPS: [Step; 6] = [
    Step {
        sql: "CREATE TABLE t (a BIGINT, CONSTRAINT low EXPECT (a >= 0) ON VIOLATION QUARANTINE ROW, \
              CONSTRAINT counted EXPECT (count(*) >= 0) ON VIOLATION WARN)",
        rows: &[],
        aside: &[],
        writes: 0,
    },
    Step {
        sql: "INSERT INTO t VALUES (1), (-1), (2)",
        rows: &[1, 2],
        aside: &[-1],
        writes: 1,
    },
    Step {
        sql: "INSERT INTO t VALUES (-2)",
        rows: &[1, 2],
        aside: &[-2, -1],
        writes: 2,
    },
    Step {
        sql: "INSERT OVERWRITE t VALUES (3), (-3)",
        rows: &[3],
        aside: &[-3, -2, -1],
        writes: 3,
    },
    Step {
        sql: "REPLAY QUARANTINE t SET a = abs(a) WHERE a = -2",
        rows: &[2, 3],
        aside: &[-3, -1],
        writes: 4,
    },
    Step {
        sql: "INSERT INTO t SELECT a - 3 FROM t",
        rows: &[0, 2, 3],
        aside: &[-3, -1, -1],
        writes: 5,
    },
];

/// What a new engine finds; `None` where there is no table.
type State = Option<(Vec<i64>, Vec<i64>, i64)>;

impl Step {
    fn state(&self) -> State {
        Some((self.rows.to_vec(), self.aside.to_vec(), self.writes))
    }
}

async fn open(store: Arc<dyn ObjectStore>) -> Result<Engine, Error> {
    let mut settings = Settings::default();
    // So that records are condensed on the way.
    settings.checkpoint_interval = 2;
    let builder = Engine::builder("memory:///").store(store);
    builder.settings(settings).open().await
}

async fn state(session: &Session) -> Result<State, Error> {
    if session.tables().await?.is_empty() {
        return Ok(None);
    }
    let rows = query::try_integers(session, "SELECT a FROM t ORDER BY a").await?;
    let aside = query::try_integers(session, "SELECT a FROM \"t$quarantine\" ORDER BY a").await?;
    let results = "SELECT count(*) FROM \"t$quality\" WHERE rule = 'low'";
    let results = query::try_integers(session, results).await?;
    let metrics =
        "SELECT count(*) FROM \"t$metrics\" WHERE metric = 'count(*)' AND over = 'written'";
    let metrics = query::try_integers(session, metrics).await?;
    assert_eq!(results, metrics, "results and metrics of a write are apart");
    Ok(Some((rows, aside, results[0])))
}

async fn found(store: Arc<dyn ObjectStore>) -> State {
    state(&open(store).await.unwrap().session()).await.unwrap()
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
        let outcome = session.execute(step.sql).await.map(drop);
        engine.settle().await;
        let now = found(disk.clone()).await;
        match outcome {
            Ok(()) => assert_eq!(now, step.state(), "{context} was acknowledged"),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Internal, "{context}: {error}");
                assert_eq!(now, before, "{context} was refused: {error}");
                query::run(&session, step.sql).await;
            }
        }
        before = found(disk.clone()).await;
        assert_eq!(before, step.state(), "{context}, again");
    }
    store.matched()
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

/// The write stays refused, whether or not its record could be kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_write_is_refused_whatever_becomes_of_its_record() {
    for fault in Fault::ALL {
        for k in 1..20 {
            let disk = Arc::new(InMemory::new());
            let store = FaultStore::new(disk.clone());
            let session = open(store.clone()).await.unwrap().session();
            query::run(&session, STEPS[0].sql).await;
            query::run(
                &session,
                "ALTER TABLE t ADD CONSTRAINT high EXPECT (a < 100)",
            )
            .await;
            query::run(&session, STEPS[1].sql).await;
            store.arm(Plan::once(k, fault).ops(&Op::WRITES));
            let error = session
                .execute("INSERT INTO t VALUES (7), (-7), (100)")
                .await
                .unwrap_err();
            assert_ne!(
                error.kind(),
                ErrorKind::Internal,
                "{fault:?} at {k}: {error}"
            );
            let done = store.matched() < k;
            store.disarm();
            let session = open(disk).await.unwrap().session();
            assert_eq!(
                query::integers(&session, "SELECT a FROM t ORDER BY a").await,
                [1, 2]
            );
            assert_eq!(
                query::integers(&session, "SELECT a FROM \"t$quarantine\"").await,
                [-1]
            );
            let accepted =
                "SELECT count(*) FROM \"t$quality\" WHERE status = 'accepted' AND rule = 'high'";
            assert_eq!(query::integers(&session, accepted).await, [1]);
            if done {
                let blocked =
                    "SELECT count(*) FROM \"t$quality\" WHERE status = 'blocked' AND rule = 'high'";
                assert_eq!(query::integers(&session, blocked).await, [1]);
                break;
            }
        }
    }
}

/// As in `power.rs`: wherever the power goes, no write is half there, and none that was acknowledged is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_synced_lake_goes_on_wherever_the_power_went() {
    let store = Arc::new(PowerLossStore::default());
    let engine = open(store.clone()).await.unwrap();
    let mut acknowledged = Vec::new();
    for step in &STEPS {
        query::run(&engine.session(), step.sql).await;
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
            let found = state(&session)
                .await
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            let done = acknowledged.iter().filter(|at| **at <= reached).count();
            // One more may have landed whose answer was still on its way.
            let possible = &states[done..states.len().min(done + 2)];
            assert!(possible.contains(&found), "{context}: {found:?}");

            // The next one finds a lake to go on with.
            if found.is_none() {
                query::run(&session, STEPS[0].sql).await;
            }
            let (mut rows, mut aside, writes) = found.unwrap_or_default();
            let report = query::write(&session, "INSERT INTO t VALUES (99), (-99)").await;
            assert_eq!(
                (report.rows_written, report.rows_quarantined),
                (1, 1),
                "{context}"
            );
            rows.push(99);
            aside.insert(0, -99);
            assert_eq!(
                state(&session).await.unwrap(),
                Some((rows, aside, writes + 1)),
                "{context}"
            );
        }
    }
}

/// A file of the quarantine that is lost or harmed is named; its rows are not quietly fewer.
#[tokio::test(flavor = "multi_thread")]
async fn a_harmed_quarantine_is_named() {
    let store = Arc::new(PowerLossStore::default());
    let engine = open(store.clone()).await.unwrap();
    for step in &STEPS[..3] {
        query::run(&engine.session(), step.sql).await;
        engine.settle().await;
    }
    let mut named = 0;
    for (harmed, change) in store.changes().iter().enumerate() {
        let Change::Written(path, bytes) = change else {
            continue;
        };
        if !path.as_ref().contains("_selvedge/quarantine/") {
            continue;
        }
        for damage in Damage::all(bytes) {
            let image = store.crash(|number, _| {
                if number == harmed {
                    damage
                } else {
                    Damage::Kept
                }
            });
            let session = open(image.await.unwrap()).await.unwrap().session();
            let context = format!("{path} {damage:?}");
            // The rows of the table do not need it.
            assert_eq!(
                query::integers(&session, "SELECT a FROM t ORDER BY a").await,
                [1, 2],
                "{context}"
            );
            let error = query::try_integers(&session, "SELECT a FROM \"t$quarantine\"").await;
            let error = error.expect_err(&context);
            let name = path.filename().unwrap();
            assert!(error.to_string().contains(name), "{context}: {error}");
            named += 1;
        }
    }
    assert!(named >= 8, "{named} harms were noticed");
}

async fn session(lake: &Path) -> Session {
    let builder = Engine::builder(lake.to_str().unwrap());
    builder.open().await.unwrap().session()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that killed_writers_lose_no_part_of_a_write kills"]
async fn victim() {
    let lake = std::env::var_os(LAKE).expect("run by its parent test");
    let session = session(Path::new(&lake)).await;
    let mut next = query::integers(&session, "SELECT coalesce(max(batch), 0) FROM t").await[0];
    loop {
        next += 1;
        let sql = format!(
            "INSERT INTO t VALUES ({next}, 0), ({next}, 1), ({next}, -1), ({next}, -2), ({next}, 13)"
        );
        query::write(&session, &sql).await;
        println!("acknowledged {next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_no_part_of_a_write() {
    const KILLS: u64 = 60;
    let lake = tempfile::tempdir().unwrap();
    query::run(
        &session(lake.path()).await,
        "CREATE TABLE t (batch BIGINT, part BIGINT, \
         CONSTRAINT low EXPECT (part >= 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT thirteen EXPECT (part <> 13) ON VIOLATION DROP ROW, \
         CONSTRAINT counted EXPECT (count(*) = 2))",
    )
    .await;
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        acknowledged = killed("quality::crash::victim", lake.path(), kill)
            .await
            .unwrap_or(acknowledged)
            .max(acknowledged);
        let session = session(lake.path()).await;
        let newest = query::integers(&session, "SELECT coalesce(max(batch), 0) FROM t").await[0];
        assert!(
            newest >= acknowledged,
            "kill {kill}: {acknowledged} was acknowledged, {newest} is there"
        );
        for (sql, expected) in [
            ("SELECT count(*) FROM t", 2 * newest),
            ("SELECT count(DISTINCT batch) FROM t", newest),
            ("SELECT count(*) FROM \"t$quarantine\"", 2 * newest),
            ("SELECT count(DISTINCT batch) FROM \"t$quarantine\"", newest),
            (
                "SELECT count(*) FROM \"t$quality\" WHERE rule = 'low' AND violations = 2",
                newest,
            ),
            (
                "SELECT count(*) FROM \"t$metrics\" WHERE metric = 'count(*)' AND value = 2",
                newest,
            ),
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

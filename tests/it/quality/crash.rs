//! Faults, power losses and kills with a quarantine on: rows, quarantined rows, results and metrics of a write
//! appear together or not at all.

use std::sync::Arc;

use object_store::memory::InMemory;
use selvedge_engine::{Error, ErrorKind, Session};

use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::lake::{folder, with_checkpoints};
use crate::support::ordeal::{every_write_fails_once, lived, power_goes_anywhere};
use crate::support::process::{killed_writers, write_for_ever};
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

/// Rows of the table and of its quarantine, and how many writes have been recorded.
type State = (Vec<i64>, Vec<i64>, i64);

fn story() -> [(&'static str, State); STEPS.len()] {
    STEPS.map(|step| {
        let state = (step.rows.to_vec(), step.aside.to_vec(), step.writes);
        (step.sql, state)
    })
}

async fn look(session: &Session) -> Result<State, Error> {
    let rows = query::try_integers(session, "SELECT a FROM t ORDER BY a").await?;
    let aside = query::try_integers(session, "SELECT a FROM \"t$quarantine\" ORDER BY a").await?;
    let results = "SELECT count(*) FROM \"t$quality\" WHERE rule = 'low'";
    let results = query::try_integers(session, results).await?;
    let metrics =
        "SELECT count(*) FROM \"t$metrics\" WHERE metric = 'count(*)' AND over = 'written'";
    let metrics = query::try_integers(session, metrics).await?;
    assert_eq!(results, metrics, "results and metrics of a write are apart");
    Ok((rows, aside, results[0]))
}

async fn next(session: &Session, (mut rows, mut aside, writes): State) -> State {
    let report = query::write(session, "INSERT INTO t VALUES (99), (-99)").await;
    assert_eq!(
        (report.rows_written, report.rows_quarantined),
        (1, 1),
        "{report:?}"
    );
    rows.push(99);
    aside.insert(0, -99);
    (rows, aside, writes + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_fails_once_in_every_way() {
    every_write_fails_once(&[], &story(), look).await;
}

/// The write stays refused, whether or not its record could be kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_write_is_refused_whatever_becomes_of_its_record() {
    for fault in Fault::ALL {
        for k in 1..20 {
            let disk = Arc::new(InMemory::new());
            let store = FaultStore::new(disk.clone());
            let session = with_checkpoints(store.clone()).await.session();
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
            let session = with_checkpoints(disk).await.session();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_synced_lake_goes_on_wherever_the_power_went() {
    power_goes_anywhere(&story(), look, next).await;
}

/// A file of the quarantine that is lost or harmed is named; its rows are not quietly fewer.
#[tokio::test(flavor = "multi_thread")]
async fn a_harmed_quarantine_is_named() {
    let (store, _) = lived(&story()[..3]).await;
    let harms = store.harms("_selvedge/quarantine/").await.unwrap();
    assert!(harms.len() >= 8, "{} harms were noticed", harms.len());
    for harm in harms {
        let session = with_checkpoints(harm.disk.clone()).await.session();
        // The rows of the table do not need it.
        assert_eq!(
            query::integers(&session, "SELECT a FROM t ORDER BY a").await,
            [1, 2],
            "{harm}"
        );
        let error = query::error(&session, "SELECT a FROM \"t$quarantine\"").await;
        assert!(error.contains(harm.name()), "{harm}: {error}");
    }
}

/// The number of the last write.
const NEWEST: &str = "SELECT coalesce(max(batch), 0) FROM t";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that killed_writers_lose_no_part_of_a_write kills"]
async fn victim() {
    let sql = |next: i64| {
        format!(
            "INSERT INTO t VALUES ({next}, 0), ({next}, 1), ({next}, -1), ({next}, -2), ({next}, 13)"
        )
    };
    write_for_ever(NEWEST, sql).await;
}

async fn whole(session: &Session, newest: i64, kill: u64) {
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
            query::integers(session, sql).await,
            [expected],
            "kill {kill}: {sql}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_no_part_of_a_write() {
    let lake = tempfile::tempdir().unwrap();
    query::run(
        &folder(lake.path()).await,
        "CREATE TABLE t (batch BIGINT, part BIGINT, \
         CONSTRAINT low EXPECT (part >= 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT thirteen EXPECT (part <> 13) ON VIOLATION DROP ROW, \
         CONSTRAINT counted EXPECT (count(*) = 2))",
    )
    .await;
    killed_writers("quality::crash::victim", lake.path(), 60, NEWEST, whole).await;
}

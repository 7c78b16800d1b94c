//! Faults, power losses and kills: an interval is never closed without the next one open, and what is kept for late
//! events is kept together with what it belongs to.

use selvedge_engine::{Error, Session};

use super::{checked, history, lines};
use crate::support::lake::{folder, with_checkpoints};
use crate::support::ordeal::{every_write_fails_once, lived, power_goes_anywhere};
use crate::support::process::{killed_writers, write_for_ever};
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

fn story() -> [(&'static str, Vec<String>); STEPS.len()] {
    STEPS.map(|step| {
        let lines = step.journal.iter().map(|&line| line.to_owned());
        (step.sql, lines.collect())
    })
}

async fn look(session: &Session) -> Result<Vec<String>, Error> {
    checked(session, "t").await;
    Ok(history(session).await)
}

async fn next(session: &Session, mut rows: Vec<String>) -> Vec<String> {
    let next = "INSERT INTO t VALUES (9, 'z', DATE '2026-01-03')";
    let report = query::write(session, next).await;
    assert_eq!(report.intervals_opened, 1, "{report:?}");
    rows.push("9 z 03 NULL".to_owned());
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_fails_once_in_every_way() {
    every_write_fails_once(&[], &story(), look).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synced_lake_goes_on_wherever_the_power_went() {
    power_goes_anywhere(&story(), look, next).await;
}

/// A file of kept events that is lost or harmed is named; late events are not quietly placed without it.
#[tokio::test(flavor = "multi_thread")]
async fn harmed_kept_events_are_named() {
    let (store, _) = lived(&story()[..3]).await;
    let harms = store.harms("_selvedge/journal/").await.unwrap();
    assert!(harms.len() >= 4, "{} harms were noticed", harms.len());
    for harm in harms {
        let session = with_checkpoints(harm.disk.clone()).await.session();
        // What is stored can be read without it.
        assert_eq!(
            lines(&session, "SELECT k, v FROM t ORDER BY k").await,
            ["1 a", "3 x"],
            "{harm}"
        );
        let error = query::error(&session, STEPS[3].sql).await;
        assert!(error.contains(harm.name()), "{harm}: {error}");
    }
}

/// The number of the last write.
const NEWEST: &str = "SELECT coalesce(max(n), 0) FROM t";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that killed_writers_leave_whole_histories kills"]
async fn victim() {
    let sql = |next: i64| {
        let at = format!("{:02}:{:02}:{:02}", next / 3600, next / 60 % 60, next % 60);
        let rows = (1..=5).map(|key| format!("({key}, {next}, TIMESTAMP '2026-01-01 {at}')"));
        let rows: Vec<String> = rows.collect();
        format!("INSERT INTO t VALUES {}", rows.join(", "))
    };
    write_for_ever(NEWEST, sql).await;
}

async fn whole(session: &Session, newest: i64, kill: u64) {
    checked(session, "t").await;
    for (sql, expected) in [
        ("SELECT count(*) FROM \"t$journal\"", 5 * newest),
        ("SELECT count(DISTINCT n) FROM \"t$journal\"", newest),
        ("SELECT count(DISTINCT n) FROM t", newest.min(1)),
    ] {
        assert_eq!(
            query::integers(session, sql).await,
            [expected],
            "kill {kill}: {sql}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_leave_whole_histories() {
    let lake = tempfile::tempdir().unwrap();
    query::run(
        &folder(lake.path()).await,
        "CREATE TABLE t (k BIGINT, n BIGINT, at TIMESTAMP) JOURNAL KEYS (k) SEQUENCE BY at \
         LATE APPLY AFTER INTERVAL '20 seconds'",
    )
    .await;
    killed_writers("journal::crash::victim", lake.path(), 40, NEWEST, whole).await;
}

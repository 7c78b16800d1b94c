//! What a journal must forget: in the present, in its past, and in what is kept for late events.

use std::sync::Arc;

use object_store::memory::InMemory;
use selvedge_engine::Session;

use super::{FOLDER, checked, lines, open};
use crate::support::query;
use crate::support::traces::holding;

/// A text that is nowhere else.
const MARKER: &str = "q7marker9z";

/// Ada has a history, a kept sighting and a late event; Bob has one too.
async fn prepared(session: &Session, clauses: &str) {
    query::run(session, "CREATE TABLE asked (id BIGINT)").await;
    query::run(
        session,
        &format!(
            "CREATE TABLE t (id BIGINT, email TEXT, city TEXT, at DATE) JOURNAL KEYS (id) SEQUENCE BY at {clauses}"
        ),
    )
    .await;
    for rows in [
        format!(
            "(1, '{MARKER} one', 'Basel', DATE '2026-01-01'), (2, 'bob', 'Basel', DATE '2026-01-01')"
        ),
        format!(
            "(1, '{MARKER} two', 'Basel', DATE '2026-01-05'), (2, 'bob', 'Bern', DATE '2026-01-05')"
        ),
        format!("(1, '{MARKER} two', 'Bern', DATE '2026-01-09')"),
        format!("(1, '{MARKER} late', 'Basel', DATE '2026-01-03')"),
    ] {
        query::write(session, &format!("INSERT INTO t VALUES {rows}")).await;
    }
    query::write(session, "INSERT INTO asked VALUES (1)").await;
}

const ALL: &str = "SELECT id, email, city, CAST(valid_from AS DATE) AS since, CAST(valid_to AS DATE) AS until FROM \"t$journal\" ORDER BY id, valid_from";

#[tokio::test(flavor = "multi_thread")]
async fn c3_cleansing_opens_no_interval() {
    for clauses in ["", "LATE APPLY AFTER INTERVAL '300 days'"] {
        let engine = open(Arc::new(InMemory::new())).await;
        let session = engine.session();
        prepared(&session, clauses).await;
        let intervals = "SELECT id, city, valid_from, valid_to, is_current FROM \"t$journal\" ORDER BY id, valid_from";
        let before = lines(&session, intervals).await;
        query::run(
            &session,
            "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (email)",
        )
        .await;
        query::run(&session, "CLEANSE TABLE t").await;
        // The same intervals of the same length, in the past too, and no email in them.
        assert_eq!(lines(&session, intervals).await, before, "{clauses}");
        let left = "SELECT count(*) FROM \"t$journal\" WHERE id = 1 AND email IS NOT NULL";
        assert_eq!(query::integers(&session, left).await, [0], "{clauses}");
        let bob = "SELECT count(*) FROM \"t$journal\" WHERE id = 2 AND email = 'bob'";
        assert_eq!(query::integers(&session, bob).await, [2], "{clauses}");
        // What the source sends again is no change either: it loses its cell on the way.
        let sql = format!("INSERT INTO t VALUES (1, '{MARKER} two', 'Bern', DATE '2026-01-10')");
        let report = query::write(&session, &sql).await;
        assert_eq!(report.intervals_opened, 0, "{clauses}: {report:?}");
        if clauses.is_empty() {
            // Kept sightings are folded anew, and what no longer differs is one interval then.
            assert_eq!(lines(&session, intervals).await, before);
        }
        // A real change is one.
        let sql = format!("INSERT INTO t VALUES (1, '{MARKER} two', 'Chur', DATE '2026-01-11')");
        assert_eq!(query::write(&session, &sql).await.intervals_opened, 1);
        let newest = lines(&session, ALL).await;
        assert!(
            newest.contains(&"1 NULL Chur 2026-01-11 NULL".to_owned()),
            "{newest:?}"
        );
        checked(&session, "t").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_erased_is_gone_from_every_clock() {
    for clauses in ["", "LATE APPLY AFTER INTERVAL '300 days'"] {
        let disk = Arc::new(InMemory::new());
        let engine = open(disk.clone()).await;
        let session = engine.session();
        prepared(&session, clauses).await;
        query::run(
            &session,
            "CREATE CLEANSE POLICY gone ON t KEY (id) IN (SELECT id FROM asked) DELETE ROWS",
        )
        .await;
        query::run(&session, "CLEANSE TABLE t POLICY gone ERASE").await;
        engine.settle().await;
        let expected = [
            "2 bob Basel 2026-01-01 2026-01-05",
            "2 bob Bern 2026-01-05 NULL",
        ];
        assert_eq!(lines(&session, ALL).await, expected, "{clauses}");
        let then = "SELECT id FROM t FOR VALID_TIME AS OF DATE '2026-01-02'";
        assert_eq!(query::integers(&session, then).await, [2], "{clauses}");
        // No engine's word alone: the proof scans what is reachable, and nothing says it in the open.
        let left = lines(&session, "VERIFY ERASURE OF t POLICY gone").await;
        assert!(left.is_empty(), "{clauses}: {left:?}");
        assert_eq!(holding(&*disk, FOLDER, MARKER).await, [""; 0], "{clauses}");
        // Its source sends it again, late and on time.
        for day in ["2026-01-02", "2026-01-12"] {
            let sql = format!("INSERT INTO t VALUES (1, '{MARKER}', 'Basel', DATE '{day}')");
            let report = query::write(&session, &sql).await;
            assert_eq!(
                (report.rows_erased, report.rows_accepted),
                (1, 0),
                "{clauses}"
            );
        }
        assert_eq!(lines(&session, ALL).await, expected, "{clauses}");
        checked(&session, "t").await;
    }
}

/// What is kept of a key must not come back with a late event of it.
#[tokio::test(flavor = "multi_thread")]
async fn kept_events_of_a_cell_that_went_do_not_bring_it_back() {
    let engine = open(Arc::new(InMemory::new())).await;
    let session = engine.session();
    prepared(&session, "LATE APPLY AFTER INTERVAL '300 days'").await;
    query::run(
        &session,
        "CREATE CLEANSE POLICY forget ON t KEY (id) IN (SELECT id FROM asked) NULLIFY (email)",
    )
    .await;
    query::run(&session, "CLEANSE TABLE t").await;
    query::run(&session, "DROP CLEANSE POLICY forget ON t").await;
    query::write(
        &session,
        "INSERT INTO t VALUES (1, 'new', 'Zug', DATE '2026-01-07')",
    )
    .await;
    let emails = "SELECT DISTINCT email FROM \"t$journal\" WHERE id = 1 ORDER BY email";
    assert_eq!(lines(&session, emails).await, ["new", "NULL"]);
}

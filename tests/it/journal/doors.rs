//! Every door to a table leads through its journal: the list is that of `quality/doors.rs`.

use selvedge_engine::{Engine, Session};

use super::{checked, lines};
use crate::quality::doors::{DOORS, Door, Table};
use crate::support::lake::in_memory;
use crate::support::query;

/// A journal as the door finds it: the table it knows, with a key and nothing else.
async fn lake() -> Engine {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT, CONSTRAINT low EXPECT (a >= 0) ON VIOLATION QUARANTINE ROW, \
         CONSTRAINT thirteen EXPECT (a <> 13) ON VIOLATION DROP ROW, CONSTRAINT high EXPECT (a < 100)) \
         JOURNAL KEYS (a) TBLPROPERTIES ('selvedge.journal.maxDeleteFraction' = '1')",
    )
    .await;
    query::write(&session, "INSERT INTO t VALUES (1)").await;
    engine
}

/// What is about a table that is there. Replacing a range by its rows is no change of keys.
fn doors() -> impl Iterator<Item = Door> {
    DOORS
        .into_iter()
        .filter(|door| door.table != Table::Made && door.name != "INSERT REPLACE WHERE")
}

async fn intervals(session: &Session) -> Vec<String> {
    lines(
        session,
        "SELECT a, is_current, valid_to IS NULL FROM \"t$journal\" ORDER BY a, valid_from",
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_leads_through_the_journal() {
    for door in doors() {
        let name = door.name;
        let engine = lake().await;
        (door.run)(&engine, 5)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let session = engine.session();
        // What was there is closed where the door takes it away, and never gone.
        let first = match door.table {
            Table::There => "1 true true",
            _ => "1 false false",
        };
        assert_eq!(intervals(&session).await, [first, "5 true true"], "{name}");
        checked(&session, "t").await;
        // The same again, where the door can come again, opens nothing.
        if door.table != Table::Changed
            && !matches!(door.name, "INSERT SELECT" | "REPLAY QUARANTINE")
        {
            let before = intervals(&session).await;
            (door.run)(&engine, 5)
                .await
                .unwrap_or_else(|error| panic!("{name}, again: {error}"));
            assert_eq!(intervals(&session).await, before, "{name}, again");
            checked(&session, "t").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_put_aside_opens_nothing_at_any_door() {
    for door in doors() {
        let name = door.name;
        for value in [-1, 13] {
            let engine = lake().await;
            let outcome = (door.run)(&engine, value).await;
            let session = engine.session();
            let moves = [
                "INSERT OVERWRITE",
                "UPDATE",
                "MERGE, matched",
                "MERGE, not matched by source",
            ];
            if moves.contains(&name) {
                // No row of a snapshot may be missing, nor one that gives its key up for another: a key would end.
                let error = outcome.expect_err(name);
                assert!(error.contains("did not pass its rules"), "{name}: {error}");
                assert_eq!(intervals(&session).await, ["1 true true"], "{name}");
                continue;
            }
            outcome.unwrap_or_else(|error| panic!("{name}, {value}: {error}"));
            let opened = "SELECT count(*) FROM \"t$journal\" WHERE a <> 1";
            assert_eq!(
                query::integers(&session, opened).await,
                [0],
                "{name}, {value}"
            );
            checked(&session, "t").await;
        }
        let engine = lake().await;
        let error = (door.run)(&engine, 100).await.expect_err(name);
        assert!(
            error.contains("high"),
            "{name} should name the rule: {error}"
        );
        assert_eq!(
            intervals(&engine.session()).await,
            ["1 true true"],
            "{name}"
        );
    }
}

/// A door that makes the table makes it whole, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_with_rows_is_a_journal_at_once() {
    let engine = in_memory().await;
    let session = engine.session();
    let history = "(VALUES (1, 'a', DATE '2026-01-01'), (1, 'b', DATE '2026-01-03'), (2, 'x', DATE '2026-01-02')) AS s(k, v, at)";
    for (name, sql) in [
        (
            "t1",
            "CREATE TABLE t1 JOURNAL KEYS (k) SEQUENCE BY at AS SELECT * FROM",
        ),
        (
            "t2",
            "CREATE JOURNAL TABLE t2 (k BIGINT, v TEXT, at DATE) JOURNAL KEYS (k) SEQUENCE BY at AS SELECT * FROM",
        ),
    ] {
        let report = query::write(&session, &format!("{sql} {history}")).await;
        assert_eq!(report.rows_accepted, 3, "{sql}");
        let all =
            format!("SELECT k, v, valid_to IS NULL FROM \"{name}$journal\" ORDER BY k, valid_from");
        assert_eq!(
            lines(&session, &all).await,
            ["1 a false", "1 b true", "2 x true"],
            "{sql}"
        );
        checked(&session, name).await;
    }
    let before = session.tables().await.unwrap().len();
    let clash = "CREATE TABLE t3 JOURNAL KEYS (k) SEQUENCE BY at AS SELECT * FROM \
                 (VALUES (1, 'a', DATE '2026-01-01'), (1, 'b', DATE '2026-01-01')) AS s(k, v, at)";
    let error = query::error(&session, clash).await;
    assert!(error.contains("k = 1"), "{error}");
    assert_eq!(session.tables().await.unwrap().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_shows_where_rows_become_history() {
    let session = lake().await.session();
    let plan = lines(&session, "EXPLAIN FORMAT INDENT INSERT INTO t VALUES (2)").await;
    let plan = plan.join("\n");
    let place = |name: &str| {
        plan.find(name)
            .unwrap_or_else(|| panic!("no {name} in\n{plan}"))
    };
    // Read from below: what the stage lets on is sorted by key, and so it is written.
    assert!(place("WriteExec") < place("JournalExec"), "{plan}");
    assert!(
        plan.contains("SortExec") || plan.contains("SortPreservingMergeExec"),
        "{plan}"
    );
    assert_eq!(intervals(&session).await, ["1 true true"]);
}

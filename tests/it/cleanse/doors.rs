//! Every door of the write path leads through the policies: the list is that of `quality/doors.rs`.

use selvedge_engine::{Engine, Session};

use crate::quality::doors::{DOORS, Door, Table, lake};
use crate::support::query;

async fn asked(session: &Session) {
    query::run(session, "CREATE TABLE asked (a BIGINT)").await;
    query::write(session, "INSERT INTO asked VALUES (5), (100)").await;
}

async fn with_policy(door: &Door, action: &str) -> Engine {
    let engine = lake(door).await;
    let session = engine.session();
    asked(&session).await;
    query::run(&session, &format!("CREATE CLEANSE POLICY p ON t {action}")).await;
    engine
}

async fn rows(session: &Session, from: &str) -> Vec<i64> {
    query::integers(session, &format!("SELECT a FROM {from} ORDER BY 1")).await
}

/// What is about every table that is there; one that a door makes has no policies yet.
fn doors() -> impl Iterator<Item = Door> {
    DOORS.into_iter().filter(|door| door.table != Table::Made)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_leaves_out_rows_of_a_listed_key() {
    for door in doors() {
        let name = door.name;
        let engine = with_policy(&door, "KEY (a) IN (SELECT a FROM asked) DELETE ROWS").await;
        // 100 would break a rule that refuses the write, if rules saw it.
        for value in [5, 100] {
            if value == 100 && door.table != Table::There {
                continue;
            }
            (door.run)(&engine, value)
                .await
                .unwrap_or_else(|error| panic!("{name}, {value}: {error}"));
        }
        let session = engine.session();
        // A row that is changed into an erased one is erased.
        let left: &[i64] = match door.table {
            Table::There => &[1],
            _ => &[],
        };
        assert_eq!(rows(&session, "t").await, left, "{name}");
        assert_eq!(rows(&session, "\"t$quarantine\"").await, [0; 0], "{name}");
        // What is not listed comes in.
        if door.table == Table::There {
            (door.run)(&engine, 7)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(rows(&session, "t").await, [1, 7], "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_changes_cells_of_a_listed_key() {
    for door in doors() {
        let name = door.name;
        let engine = with_policy(&door, "KEY (a) IN (SELECT a FROM asked) SET (a = 9)").await;
        (door.run)(&engine, 5)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let session = engine.session();
        let expected: &[i64] = match door.table {
            Table::There => &[1, 9],
            _ => &[9],
        };
        assert_eq!(rows(&session, "t").await, expected, "{name}");
        assert_eq!(rows(&session, "\"t$quarantine\"").await, [0; 0], "{name}");
    }
}

/// Without a list of keys: every row, at every door.
#[tokio::test(flavor = "multi_thread")]
async fn every_door_takes_away_cells_of_every_row() {
    // NULL is in no range that a statement replaces.
    for door in doors().filter(|door| door.name != "INSERT REPLACE WHERE") {
        let name = door.name;
        let engine = with_policy(&door, "COLUMNS (a) NULLIFY").await;
        (door.run)(&engine, 5)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let session = engine.session();
        let count = "SELECT count(*) FROM t WHERE a IS NULL";
        assert_eq!(query::integers(&session, count).await, [1], "{name}");
        let left = "SELECT count(*) FROM t WHERE a = 5";
        assert_eq!(query::integers(&session, left).await, [0], "{name}");
    }
}

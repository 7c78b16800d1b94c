//! The rules about journal tables, each under its number.
//!
//! | rule | file | test |
//! | --- | --- | --- |
//! | J1 order is that of the sequence | rules.rs | j1_late_events_split_what_is_stored |
//! | J2 what changed nothing was seen all the same | rules.rs | j2_sightings_are_remembered_inside_the_horizon |
//! | J3 a delete that comes before its insert | rules.rs | j3_an_early_delete_is_not_forgotten |
//! | J4 one key and one sequence, twice | rules.rs | j4_two_rows_of_one_instant |
//! | J5 several changes of a key in one write | rules.rs | j5_every_change_of_a_write_is_kept |
//! | J6 what is written again | rules.rs | j6_the_same_rows_again_are_no_version |
//! | J7 NULL is no key | rules.rs | j7_a_null_in_a_key_is_refused_or_put_aside |
//! | J8 NULL is a value that differs | rules.rs | j8_changes_are_seen_through_null_and_nesting |
//! | J9 numbers that are written in two ways | rules.rs | j9_equal_numbers_are_no_change |
//! | J10 absence is no deletion | rules.rs | j10_only_snapshots_read_absence_as_deletion |
//! | J11 the shape of a history | rules.rs | j11_the_invariant_is_kept_and_checked |
//! | J12 the open end | rules.rs | j12_the_open_end_is_null_or_far_but_never_both |
//! | J13 columns that come later | rules.rs | j13_a_new_column_opens_nothing_until_a_value_differs |
//! | J14 columns that are not tracked | rules.rs | j14_untracked_values_change_in_place |
//! | J15 two writers | conflict.rs | j15_two_writers_of_one_key_leave_one_history |
//! | J16 every statement | rules.rs | j16_every_statement_goes_through_the_journal |
//! | J17 the current flag is a partition | rules.rs | j17_a_closed_row_is_marked_and_written_anew |
//! | T2 three clocks | rules.rs | t2_the_clocks_are_apart_and_combine |
//! | T3 where an interval begins and ends | rules.rs | t3_bounds_mean_what_the_standard_says |
//! | T4 instants without a zone | rules.rs | t4_an_instant_without_a_zone_is_of_the_session |
//! | C3 cleansing is no change | cleanse.rs | c3_cleansing_opens_no_interval |
//! | O5 what a change capture sends | debezium.rs | o5_every_operation_of_an_envelope |

mod asof;
mod cleanse;
mod conflict;
mod crash;
mod debezium;
mod doors;
mod media;
mod oracle;
mod pages;
mod parameters;
mod rules;
mod upkeep;

use selvedge_engine::{Session, WriteReport};

use crate::support::lake::{open, session};
use crate::support::numbered;
use crate::support::query::{self, lines};

/// Where the table `t` is in a store.
const FOLDER: &str = "public/t";

/// A session with the table `t (k, v, at)`, whose rows without `v` are deletions.
async fn table(clauses: &str) -> Session {
    let session = session().await;
    create(&session, clauses).await;
    session
}

/// A session with the table `t (k, v, at)`, whose `at` is an instant.
async fn zoned() -> Session {
    let session = session().await;
    let sql = "CREATE TABLE t (k BIGINT, v TEXT, at TIMESTAMP WITH TIME ZONE) JOURNAL KEYS (k) SEQUENCE BY at";
    query::run(&session, sql).await;
    session
}

async fn create(session: &Session, clauses: &str) {
    let sql = format!(
        "CREATE TABLE t (k BIGINT, v TEXT, at DATE) JOURNAL KEYS (k) SEQUENCE BY at APPLY AS DELETE WHEN v IS NULL {clauses}"
    );
    query::run(session, &sql).await;
}

/// A key, what becomes of it (a value, or its end), and the day of January 2026 when it does.
type Event<'a> = (i64, Option<&'a str>, u8);

fn values(events: &[Event<'_>]) -> String {
    let rows = events.iter().map(|(key, value, day)| {
        let value = value.map_or("NULL".to_owned(), |value| format!("'{value}'"));
        format!("({key}, {value}, DATE '2026-01-{day:02}')")
    });
    rows.collect::<Vec<_>>().join(", ")
}

fn insert(events: &[Event<'_>]) -> String {
    format!("INSERT INTO t VALUES {}", values(events))
}

/// Changes that must be taken.
async fn write(session: &Session, events: &[Event<'_>]) -> WriteReport {
    let report = query::write(session, &insert(events)).await;
    conserved(&report);
    report
}

/// Every interval of `t`, as key, value, and the days of January 2026 when it begins and ends.
async fn history(session: &Session) -> Vec<String> {
    let sql = "SELECT k, v, CAST(valid_from AS DATE) AS since, CAST(valid_to AS DATE) AS until FROM \"t$journal\" ORDER BY k, valid_from";
    let rows = lines(session, sql).await;
    rows.iter().map(|row| row.replace("2026-01-", "")).collect()
}

/// The invariant of a table, which the engine itself must find to hold.
async fn checked(session: &Session, table: &str) {
    let broken = lines(session, &format!("CHECK JOURNAL {table}")).await;
    assert!(broken.is_empty(), "{table}: {broken:#?}");
}

async fn newest(session: &Session) -> i64 {
    query::integers(session, "SELECT max(version) FROM \"t$history\"").await[0]
}

/// Nothing may go missing, whatever becomes of rows.
fn conserved(report: &WriteReport) {
    assert_eq!(
        report.rows_received,
        report.rows_accepted + report.rows_quarantined + report.rows_dropped + report.rows_erased,
        "{report:?}"
    );
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// All orders of `items`.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for first in 0..items.len() {
        let mut rest = items.to_vec();
        let item = rest.remove(first);
        for mut order in orders(&rest) {
            order.insert(0, item.clone());
            all.push(order);
        }
    }
    all
}

#[test]
fn the_table_names_tests_that_are_there() {
    let numbers = numbered::tests(include_str!("mod.rs"), "journal");
    let journal = (1..=17).map(|number| format!("J{number}"));
    let others = ["T2", "T3", "T4", "C3", "O5"].map(str::to_owned);
    assert_eq!(numbers, journal.chain(others).collect::<Vec<_>>());
}

//! The rules about cleansing, each under its number.
//!
//! | rule | file | test |
//! | --- | --- | --- |
//! | C1 the past is erased too, and says so | erase.rs | c1_versions_that_held_a_row_are_gone_and_say_why |
//! | C2 a value is left nowhere | bytes.rs | c2_no_byte_of_a_value_is_left |
//! | C3 cleansing is no change of the table | rest.rs | c3_cleansing_is_no_change_that_anyone_is_told_of |
//! | C4 what is sent again stays erased | write.rs | c4_a_key_that_is_sent_again_stays_erased |
//! | C5 cells that cannot be taken away | write.rs | c5_a_policy_that_cannot_be_kept_is_refused_when_it_is_declared |
//! | C6 keys that match nothing | write.rs | c6_keys_are_compared_by_type_and_counted |
//! | Q5 rules and metrics know what was taken away | write.rs | q5_cells_that_were_taken_away_are_asked_by_no_rule |

mod bytes;
mod crash;
mod doors;
mod erase;
mod meet;
mod rest;
mod shown;
mod verify;
mod write;

use std::collections::BTreeMap;

use arrow::array::Array;
use datafusion::arrow::util::display::array_value_to_string;
use selvedge_engine::{PolicyResult, Session, WriteReport};

use crate::support::lake::{open, session, with_checkpoints};
use crate::support::numbered;
use crate::support::query::{self, lines};

/// What a write says of the one policy of this name.
fn of<'a>(report: &'a WriteReport, policy: &str) -> &'a PolicyResult {
    let mut found = report
        .policies
        .iter()
        .filter(|result| result.policy == policy);
    match (found.next(), found.next()) {
        (Some(result), None) => result,
        _ => panic!("not one result of {policy}: {:?}", report.policies),
    }
}

/// Nothing may go missing but by name.
fn conserved(report: &WriteReport) {
    assert_eq!(
        report.rows_received,
        report.rows_written + report.rows_quarantined + report.rows_dropped + report.rows_erased,
        "{report:?}"
    );
}

/// The numbers of each policy in the answer of CLEANSE TABLE, by column; null is left out.
async fn account(session: &Session, sql: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut policies = BTreeMap::new();
    for batch in query::batches(session, sql).await {
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let name = array_value_to_string(batch.column(0), row).unwrap();
            let columns = schema.fields().iter().zip(batch.columns()).skip(1);
            let numbers = columns
                .filter(|(field, column)| field.name() != "notes" && column.is_valid(row))
                .map(|(field, column)| {
                    let value = array_value_to_string(column, row).unwrap();
                    (field.name().clone(), value.parse().unwrap())
                });
            let before = policies.insert(name, numbers.collect());
            assert!(before.is_none(), "{sql}: a policy has two rows");
        }
    }
    policies
}

/// The account of the only policy there is.
async fn only(session: &Session, sql: &str) -> BTreeMap<String, u64> {
    let mut all = account(session, sql).await.into_values();
    match (all.next(), all.next()) {
        (Some(one), None) => one,
        _ => panic!("{sql}: not the account of one policy"),
    }
}

#[test]
fn the_table_names_tests_that_are_there() {
    let numbers = numbered::tests(include_str!("mod.rs"), "cleanse");
    assert_eq!(numbers, ["C1", "C2", "C3", "C4", "C5", "C6", "Q5"]);
}

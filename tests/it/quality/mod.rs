//! The rules about data quality, each under its number.
//!
//! | rule | file | test |
//! | --- | --- | --- |
//! | Q1 three outcomes, and no row is lost between them | rows.rs | q1_every_row_is_written_dropped_or_quarantined |
//! | Q2 one row that breaks several rules is one row | rows.rs | q2_one_row_with_all_its_failures |
//! | Q3 a rule about a set marks no rows | metrics.rs | q3_a_rule_about_all_rows_marks_none |
//! | Q4 what came and what was written, and blocked writes apart | metrics.rs | q4_metrics_of_what_came_and_of_what_was_written |
//! | Q5 metrics are of the rows as they are written | metrics.rs | q5_rules_ask_the_rows_that_hooks_leave |
//! | Q6 states are merged, not results | metrics.rs | q6_metrics_do_not_depend_on_how_rows_are_split |
//! | Q7 NaN is no number | rows.rs | q7_nan_breaks_ranges_and_spoils_no_metric |
//! | Q8 partitions as they are written | metrics.rs | q8_partitions_are_those_that_are_written |
//! | Q9 what came before, of the same partition, and accepted | metrics.rs | q9_the_past_is_that_of_accepted_writes_to_the_partition |
//! | Q10 a rule that cannot be asked is refused, an empty write has an answer | rows.rs | q10_rules_are_never_skipped |
//! | Q11 rows that do not fit the table | rows.rs | q11_rows_that_do_not_fit_are_refused_or_kept_as_they_came |
//! | Q12 every door | doors.rs | q12_every_door_leads_through_the_rules |
//! | Q13 a blocked write leaves nothing | commit.rs | q13_a_blocked_write_leaves_nothing_behind |
//! | Q14 quarantine and rows in one instant | commit.rs | q14_rows_and_quarantine_appear_in_one_instant |
//! | Q15 a rule that comes to a table with rows | commit.rs | q15_a_rule_asks_old_rows_or_says_that_it_did_not |

mod api;
mod commit;
mod crash;
pub(crate) mod doors;
mod media;
mod metrics;
mod property;
mod rows;
mod statements;

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::util::display::array_value_to_string;
use selvedge_engine::{RuleResult, Session, WriteReport};

use crate::support::lake::{open, session};
use crate::support::numbered;
use crate::support::query::{self, lines};

/// The rows of `column` in a query whose columns nobody needs to know the order of.
async fn column(session: &Session, sql: &str, column: &str) -> Vec<String> {
    let batches = query::batches(session, sql).await;
    let at = batches
        .first()
        .unwrap_or_else(|| panic!("{sql}: no rows"))
        .schema()
        .index_of(column)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let text = |batch: &RecordBatch| {
        let rows = 0..batch.num_rows();
        let cells = rows.map(|row| match batch.column(at).is_null(row) {
            true => "NULL".to_owned(),
            false => array_value_to_string(batch.column(at), row).unwrap(),
        });
        cells.collect::<Vec<_>>()
    };
    batches.iter().flat_map(text).collect()
}

/// What a write says of the one rule of this name.
fn of<'a>(report: &'a WriteReport, rule: &str) -> &'a RuleResult {
    let mut found = report.rules.iter().filter(|result| result.rule == rule);
    match (found.next(), found.next()) {
        (Some(result), None) => result,
        _ => panic!("not one result of {rule}: {:?}", report.rules),
    }
}

/// The value of a metric over all written rows.
fn metric(report: &WriteReport, metric: &str) -> Option<String> {
    let found = report.metrics.iter().find(|value| {
        value.metric == metric
            && value.partition.is_none()
            && value.over == selvedge_engine::Over::Written
    });
    let found = found.unwrap_or_else(|| panic!("no {metric}: {:?}", report.metrics));
    found.value.clone()
}

/// Nothing may go missing, whatever becomes of rows.
fn conserved(report: &WriteReport) {
    assert_eq!(
        report.rows_received,
        report.rows_written + report.rows_quarantined + report.rows_dropped,
        "{report:?}"
    );
}

#[test]
fn the_table_names_tests_that_are_there() {
    let numbers = numbered::tests(include_str!("mod.rs"), "quality");
    let expected = (1..=15).map(|number| format!("Q{number}"));
    assert_eq!(numbers, expected.collect::<Vec<_>>());
}

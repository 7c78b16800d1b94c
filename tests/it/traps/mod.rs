//! Mistakes that other engines and the libraries below this one are known for: a test for each, by its name.
//!
//! Some are shown where the thing itself is tested. A test of this module holds the table to the sources.
//!
//! | trap | file | test |
//! | --- | --- | --- |
//! | two creators of one table both succeed | tests/it/processes.rs | racing_creators_have_one_winner |
//! | a writer that loses a race gives up, or tries again without a pause | tests/it/processes.rs | two_processes_append |
//! | a killed writer leaves part of a write | tests/it/processes.rs | killed_writers_lose_nothing |
//! | any put, answered wrongly, loses or doubles rows | tests/it/fault_loop.rs | every_write_fails_once_in_every_way |
//! | a commit cut off, empty or zeroed by a power loss is read as a shorter one | tests/it/broken.rs | a_commit_cut_at_a_line_end_is_not_taken_for_a_shorter_one |
//! | a power loss takes rows that were acknowledged | tests/it/power.rs | a_synced_lake_goes_on_wherever_the_power_went |
//! | what a power loss harmed is passed over, or written over | tests/it/power.rs | a_lake_that_was_not_synced_names_what_is_harmed |
//! | a data file that was cut off is a panic | engine/src/store/whole.rs | a_range_is_answered_whole_or_not_at_all |
//! | a full disk leaves files, or an outcome nobody knows | tests/it/disk.rs | a_statement_on_a_full_or_closed_disk_has_no_effect |
//! | a lost commit is read as an older table | tests/it/broken.rs | a_hole_in_the_log_is_not_an_older_table |
//! | a torn checkpoint makes the table unreadable | tests/it/broken.rs | a_torn_checkpoint_costs_time_and_no_rows |
//! | a feature of the protocol is passed over | tests/it/broken.rs | features_of_newer_writers_are_refused_by_name |
//! | a commit acknowledged before it is on the disk | engine/src/store/durable.rs | bytes_reach_the_disk_before_the_name_and_the_name_before_the_answer |
//! | a file system without hard links | engine/src/store/durable.rs | a_file_system_without_hard_links_is_named |
//! | a staging file in the way of the next writer | engine/src/store/durable.rs | staging_files_of_a_crash_are_in_nobodys_way_and_hidden |
//! | a door that passes by NOT NULL, CHECK and hooks | tests/it/doors.rs | every_door_leads_through_the_rules |
//! | a CHECK that is neither true nor false passes | engine/src/quality/check.rs | only_true_passes |
//! | a rule that cannot run is skipped | engine/src/quality/check.rs | a_check_that_fails_to_run_is_a_refusal_not_a_pass |
//! | a rule on a column that is not there | engine/src/quality/check.rs | a_predicate_that_cannot_be_kept_is_refused_by_name |
//! | numbers wrap, truncate or round on their way in | engine/src/write/cast/tests.rs | numbers_never_wrap_truncate_or_round |
//! | a deletion vector laid over the wrong rows | engine/src/table/versioned/tests.rs | deleted_rows_are_gone_however_they_are_read |
//! | a deletion vector ends pruning and parallel reading | engine/src/table/versioned/tests.rs | deletion_vectors_keep_parallelism_and_pushdown |
//! | a selection that is not as long as its file | engine/src/table/deletion.rs | just_the_other_rows_are_visible |
//! | a damaged deletion vector brings rows back | engine/src/table/deletion.rs | every_broken_byte_is_an_error_that_names_the_file |
//! | cut bounds, or those of deleted rows, answer min and max | engine/src/table/versioned/tests.rs | metadata_answers_what_it_knows_exactly |
//! | limits count deleted rows | engine/src/table/versioned/tests.rs | limits_count_visible_rows |
//! | NaN makes bounds that are none | engine/src/write/files/tests.rs | nan_takes_the_bounds_away_and_infinity_its_own |
//! | a path in the log that leads out of the table | engine/src/table/location.rs | absolute_paths_stay_inside_the_table |
//! | timestamps as nanoseconds overflow | engine/src/table/versioned/tests.rs | legacy_timestamps_of_all_years_are_read |
//! | partition values that a path cannot hold | engine/src/write/files/tests.rs | odd_partition_values_have_paths_that_decode |
//! | open files of many partitions fill the memory | engine/src/write/files/tests.rs | many_partitions_stay_within_their_memory |
//! | uploads in flight fill the memory | engine/src/write/files/tests.rs | a_large_file_under_pressure_sends_its_row_groups |
//! | a version clause that is dropped somewhere | engine/src/sql/tests/versioned.rs | every_spelling_in_every_place |
//! | a clause that is dropped somewhere | engine/src/sql/tests/refused.rs | clauses_hide_nowhere |
//! | all question marks are one parameter | engine/src/sql/lex.rs | question_marks_are_numbered_in_order |
//! | expressions that overflow the stack | engine/src/sql/limits.rs | long_chains_are_refused_and_long_lists_are_not |
//! | a client that asks twice writes twice | tests/python/test_flight.py | test_a_ticket_of_a_write_is_read_again_without_writing_again |
//! | a client that never reads has not written | tests/python/test_flight.py | test_t8_insert_runs_once_read_or_not |
//! | a remote session reads the server's files | tests/it/slt.rs | flight |
//! | rows sent differ from the schema announced | tests/python/test_flight.py | test_schema_of_info_and_rows_agree_for_aggregates |
//! | a listing of tables opens them | tests/it/many_tables.rs | listing_ten_thousand_tables_opens_none |
//! | a statement sets the memory limit of all | tests/it/bad_input.rs | limits_of_the_engine_are_not_for_statements |

mod change;
mod clauses;
mod commit;
mod scan;
mod time;

use std::sync::Arc;

use object_store::ObjectStore;
use selvedge_engine::Session;

use crate::support::delta::Folder;
use crate::support::lake::open;
use crate::support::traces::objects;

/// Folder of the table `t` in a lake at the root of its store.
const T: &str = "public/t";

async fn session(store: Arc<dyn ObjectStore>) -> Session {
    open(store).await.session()
}

fn table(store: &dyn ObjectStore) -> Folder<'_> {
    Folder { store, path: T }
}

#[test]
fn the_table_names_tests_that_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seen = 0;
    for line in include_str!("mod.rs").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["//!", _, file, test, ""] = cells.as_slice() else {
            continue;
        };
        if !file.contains('/') {
            continue;
        }
        let source =
            std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let named = [format!("fn {test}("), format!("def {test}(")];
        assert!(
            named.iter().any(|name| source.contains(name)),
            "{file} has no test {test}"
        );
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

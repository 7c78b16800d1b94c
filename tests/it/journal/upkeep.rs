//! Upkeep of journals: rows move between files, and no interval changes.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use selvedge_engine::Session;

use super::{Dice, Event, FOLDER, checked, create, history, lines, newest, open, table, write};
use crate::support::delta::Folder;
use crate::support::lake::in_memory;
use crate::support::query;

const ALONE: &str = "TBLPROPERTIES ('selvedge.autoOptimize' = 'false')";

/// Some days of changes and deletions of two hundred keys.
async fn days(session: &Session, days: u8) {
    let mut dice = Dice(3);
    for day in 1..=days {
        let mut events: Vec<Event<'_>> = Vec::new();
        for key in 1..=200 {
            match dice.below(10) {
                0 => events.push((key, None, day)),
                1 | 2 => events.push((key, Some("a"), day)),
                3 => events.push((key, Some("b"), day)),
                _ => {}
            }
        }
        write(session, &events).await;
    }
}

const FILES: &str = "SELECT count(*) FROM \"t$files\"";

#[tokio::test(flavor = "multi_thread")]
async fn optimize_merges_both_partitions_and_folds_vectors() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    create(&session, ALONE).await;
    days(&session, 12).await;
    let before = history(&session).await;
    assert!(query::integers(&session, FILES).await[0] > 12);
    query::run(&session, "OPTIMIZE t").await;
    assert_eq!(history(&session).await, before);
    checked(&session, "t").await;
    assert_eq!(query::integers(&session, FILES).await, [2]);
    // One file for what is current and one for what was, nothing of them marked, and no reader of changes is told.
    let version = u64::try_from(newest(&session).await).unwrap();
    let log = Folder {
        store: &*disk,
        path: FOLDER,
    };
    let adds = log.actions(version, "add").await;
    let mut flags: Vec<&str> = adds
        .iter()
        .map(|add| add["partitionValues"]["is_current"].as_str().unwrap())
        .collect();
    flags.sort_unstable();
    assert_eq!(flags, ["false", "true"]);
    for add in &adds {
        assert_eq!(add["dataChange"], false, "{add}");
        assert!(add["deletionVector"].is_null(), "{add}");
    }
    // Rows lie in key order, so that a key is found in one place.
    for add in &adds {
        let path = log.file_path(add["path"].as_str().unwrap());
        let bytes = disk.get(&path).await.unwrap().bytes().await.unwrap();
        let keys = keys(bytes);
        assert!(keys.is_sorted(), "{path}: {keys:?}");
    }
    // Another order would be another table.
    let error = query::error(&session, "OPTIMIZE t ZORDER BY (v)").await;
    assert!(
        error.contains("its rows lie in the order of the keys"),
        "{error}"
    );
    // What follows finds its keys in the merged files.
    write(&session, &[(1, Some("z"), 20), (2, None, 20)]).await;
    checked(&session, "t").await;
}

/// The column `k` of a file, in the order of its rows.
fn keys(bytes: Bytes) -> Vec<i64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .unwrap()
        .build()
        .unwrap();
    let mut keys = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let column = batch.column_by_name("k").unwrap();
        keys.extend_from_slice(column.as_primitive::<Int64Type>().values());
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_write_lie_in_key_order() {
    let disk = Arc::new(InMemory::new());
    let session = open(disk.clone()).await.session();
    create(&session, ALONE).await;
    let sql = "INSERT INTO t SELECT (value * 7919) % 20000, 'v', DATE '2026-01-01' FROM generate_series(0, 19999)";
    query::write(&session, sql).await;
    let log = Folder {
        store: &*disk,
        path: FOLDER,
    };
    for add in log.actions(1, "add").await {
        let path = log.file_path(add["path"].as_str().unwrap());
        let bytes = disk.get(&path).await.unwrap().bytes().await.unwrap();
        assert!(keys(bytes).is_sorted(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_days_end_in_few_files() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (k BIGINT, v BIGINT, at TIMESTAMP) JOURNAL KEYS (k) SEQUENCE BY at",
    )
    .await;
    let first = "INSERT INTO t SELECT value, 0, TIMESTAMP '2026-01-01 00:00:00' FROM generate_series(1, 5000)";
    query::write(&session, first).await;
    for day in 1..=100 {
        let sql = format!(
            "INSERT INTO t SELECT (value * 97 + {day} * 31) % 5000 + 1, {day}, \
             TIMESTAMP '2026-01-01 00:{:02}:{:02}' FROM generate_series(1, 50)",
            day / 60,
            day % 60
        );
        query::write(&session, &sql).await;
    }
    engine.settle().await;
    checked(&session, "t").await;
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM t").await,
        [5_000]
    );
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM \"t$journal\"").await,
        [10_000]
    );
    let files = query::integers(&session, FILES).await[0];
    assert!(files < 100, "{files} files");
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_takes_kept_events_that_nobody_names() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    create(&session, "LATE APPLY AFTER INTERVAL '2 days'").await;
    // More writes than files of kept events may be: they are folded together, and what lies behind is forgotten.
    for day in 1..=28 {
        let mut events = vec![(100 + i64::from(day), Some("b"), day)];
        if day % 2 == 0 {
            events.push((1, Some("a"), day));
        }
        write(&session, &events).await;
    }
    engine.settle().await;
    let kept = kept_files(&disk).await;
    assert!(kept > 1, "{kept} files of kept events");
    let before = history(&session).await;
    query::run(&session, "SET selvedge.vacuum_retention_check = false").await;
    query::run(&session, "VACUUM t RETAIN 0 HOURS").await;
    let left = kept_files(&disk).await;
    assert!(left >= 1 && left < kept, "{left} of {kept} are left");
    assert_eq!(history(&session).await, before);
    // What is inside the horizon is exact all the same.
    write(&session, &[(1, Some("c"), 27)]).await;
    checked(&session, "t").await;
    let last = "SELECT v, CAST(valid_from AS DATE) AS since FROM \"t$journal\" WHERE k = 1 ORDER BY valid_from DESC LIMIT 2";
    assert_eq!(lines(&session, last).await.first().unwrap(), "a 2026-01-28");
}

async fn kept_files(disk: &InMemory) -> usize {
    let prefix = Path::from(format!("{FOLDER}/_selvedge/journal"));
    let all: Vec<_> = disk.list(Some(&prefix)).try_collect().await.unwrap();
    all.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_journal_knows_what_it_knew_then() {
    let session = table("LATE APPLY AFTER INTERVAL '300 days'").await;
    write(&session, &[(1, Some("a"), 1)]).await;
    write(&session, &[(1, Some("a"), 5)]).await;
    write(&session, &[(1, Some("b"), 7), (2, None, 7)]).await;
    query::run(&session, "RESTORE TABLE t TO VERSION AS OF 2").await;
    assert_eq!(history(&session).await, ["1 a 01 NULL"]);
    checked(&session, "t").await;
    // The sighting of the fifth is known, the delete of the seventh is not.
    write(&session, &[(1, Some("c"), 3), (2, Some("x"), 4)]).await;
    assert_eq!(
        history(&session).await,
        ["1 a 01 03", "1 c 03 05", "1 a 05 NULL", "2 x 04 NULL"]
    );
    checked(&session, "t").await;
}

/// What a change feed tells of a journal: its stored rows, period columns and all.
#[tokio::test(flavor = "multi_thread")]
async fn changes_lead_from_one_version_to_the_next() {
    let session = table("").await;
    write(&session, &[(1, Some("a"), 1), (2, Some("a"), 1)]).await;
    write(&session, &[(1, Some("b"), 3)]).await;
    let feed =
        "SELECT k, v, is_current, _change_type FROM table_changes('t', 2) ORDER BY _change_type, v";
    let told = lines(&session, feed).await;
    assert!(
        told.iter().any(|line| line.starts_with("1 b true")),
        "{told:?}"
    );
    assert!(
        told.iter().any(|line| line.starts_with("1 a false")),
        "{told:?}"
    );
    assert!(told.iter().all(|line| line.starts_with("1 ")), "{told:?}");
    // By valid time: one key changed on the third.
    let changed = "SELECT k, v, _change_type, CAST(_valid_at AS DATE) \
                   FROM valid_time_changes('t', DATE '2026-01-02', DATE '2026-01-31') ORDER BY _change_type";
    assert_eq!(
        lines(&session, changed).await,
        [
            "1 b update_postimage 2026-01-03",
            "1 a update_preimage 2026-01-03"
        ]
    );
}

//! Upkeep of tables: what SQL files cannot say of OPTIMIZE, VACUUM, RESTORE, ANALYZE and the merges behind writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt64Type};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use selvedge_engine::{Answer, Engine, ErrorKind, Progress, Session};
use serde_json::Value;

use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::lake::{in_memory, open};
use crate::support::{ordeal, query};

/// An engine on a folder, whose clock is `ahead` of the machine's.
async fn folder(lake: &Path, ahead: Duration) -> Session {
    let ahead = i64::try_from(ahead.as_millis()).unwrap();
    let clock = move || machine_ms() + ahead;
    let engine = Engine::builder(lake.to_str().unwrap()).clock(Arc::new(clock));
    engine.open().await.unwrap().session()
}

fn machine_ms() -> i64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The one row that a statement of upkeep answers, by column; null is left out.
async fn account(session: &Session, sql: &str) -> BTreeMap<String, u64> {
    one_row(&query::batches(session, sql).await)
}

fn one_row(batches: &[RecordBatch]) -> BTreeMap<String, u64> {
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).unwrap();
    let columns = batch.schema();
    let columns = columns.fields().iter().zip(batch.columns());
    columns
        .filter(|(_, column)| column.is_valid(0))
        .map(|(field, column)| {
            let value = column.as_primitive::<UInt64Type>().value(0);
            (field.name().clone(), value)
        })
        .collect()
}

/// Paths that a dry run would delete.
async fn would_go(session: &Session, sql: &str) -> Vec<String> {
    let batches = query::batches(session, sql).await;
    let paths = batches.iter().flat_map(|batch| {
        let paths = batch.column(0).as_string::<i32>();
        paths.iter().map(|path| path.unwrap().to_owned())
    });
    paths.collect()
}

// ---- Merges behind writes ----

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_writes_of_one_row_end_in_few_files() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE t (n BIGINT)").await;
    for n in 0..1000 {
        query::write(&session, &format!("INSERT INTO t VALUES ({n})")).await;
    }
    engine.settle().await;
    let counts = "SELECT count(*) FROM t UNION ALL SELECT count(DISTINCT n) FROM t";
    assert_eq!(query::integers(&session, counts).await, [1000, 1000]);
    let done = account(&session, "OPTIMIZE t").await;
    assert!(done["files_before"] <= 3 * 16, "{done:?}");
    assert_eq!(query::integers(&session, counts).await, [1000, 1000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_ask_to_be_left_alone() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (n BIGINT) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    for n in 0..40 {
        query::write(&session, &format!("INSERT INTO t VALUES ({n})")).await;
    }
    engine.settle().await;
    assert_eq!(query::rows(&session, "DESCRIBE HISTORY t").await, 41);
    let allowed = "ALTER TABLE t SET TBLPROPERTIES ('selvedge.autoOptimize' = 'true')";
    query::run(&session, allowed).await;
    engine.settle().await;
    let done = account(&session, "OPTIMIZE t").await;
    assert!(
        done.get("files_before").is_none_or(|files| *files < 40),
        "what lay there was not merged: {done:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_most_of_whose_rows_are_deleted_is_rewritten() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE t (n BIGINT)").await;
    query::write(&session, "INSERT INTO t SELECT unnest(range(0, 1000))").await;
    query::write(&session, "DELETE FROM t WHERE n % 10 < 4").await;
    engine.settle().await;
    assert_eq!(query::rows(&session, "DESCRIBE HISTORY t").await, 3);
    query::write(&session, "DELETE FROM t WHERE n % 10 < 6").await;
    engine.settle().await;
    // The rewriting is a version of its own, and leaves nothing to fold.
    assert_eq!(query::rows(&session, "DESCRIBE HISTORY t").await, 5);
    assert_eq!(account(&session, "OPTIMIZE t").await["files_before"], 0);
    let rows: Vec<i64> = (0..1000).filter(|n| n % 10 >= 6).collect();
    let left = "SELECT n FROM t ORDER BY n";
    assert_eq!(query::integers(&session, left).await, rows);
}

// ---- Beside other statements ----

/// Keys of one writer, as the table should have them.
type Model = BTreeMap<i64, i64>;

/// Inserts, updates and deletes keys that no other writer touches.
async fn change(session: Session, writer: i64) -> Model {
    let mut model = Model::new();
    for step in 0..25 {
        let key = writer * 1000 + step;
        query::insist(&session, &format!("INSERT INTO t VALUES ({key}, 0)")).await;
        model.insert(key, 0);
        let (low, high) = (writer * 1000 + step / 2, key);
        if step % 3 == 1 {
            let range = format!("id BETWEEN {low} AND {high}");
            query::insist(&session, &format!("UPDATE t SET n = n + 1 WHERE {range}")).await;
            model.range_mut(low..=high).for_each(|(_, n)| *n += 1);
        }
        if step % 4 == 3 {
            query::insist(&session, &format!("DELETE FROM t WHERE id = {low}")).await;
            model.remove(&low);
        }
    }
    model
}

async fn content(session: &Session) -> Model {
    let batches = query::batches(session, "SELECT id, n FROM t").await;
    let rows = batches.iter().flat_map(|batch| {
        let [id, n] = [0, 1].map(|i| batch.column(i).as_primitive::<Int64Type>().values());
        id.iter()
            .copied()
            .zip(n.iter().copied())
            .collect::<Vec<_>>()
    });
    let rows: Vec<_> = rows.collect();
    let model: Model = rows.iter().copied().collect();
    assert_eq!(rows.len(), model.len(), "a row is there twice");
    model
}

#[tokio::test(flavor = "multi_thread")]
async fn optimize_beside_changes_loses_no_row_and_brings_none_back() {
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    // Two engines on one store are to each other what two processes are.
    let (engine, other) = (open(Arc::clone(&disk)).await, open(disk).await);
    query::run(&engine.session(), "CREATE TABLE t (id BIGINT, n BIGINT)").await;
    let done = Arc::new(AtomicBool::new(false));
    let optimizers = [engine.session(), other.session()].map(|session| {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                query::insist(&session, "OPTIMIZE t").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    });
    let writers = [&engine, &engine, &other].into_iter().zip(1..);
    let writers: Vec<_> = writers
        .map(|(engine, writer)| tokio::spawn(change(engine.session(), writer)))
        .collect();
    let mut expected = Model::new();
    for writer in writers {
        expected.append(&mut writer.await.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    for optimizer in optimizers {
        optimizer.await.unwrap();
    }
    engine.settle().await;
    other.settle().await;
    assert_eq!(content(&engine.session()).await, expected);
    query::insist(&engine.session(), "OPTIMIZE t").await;
    assert_eq!(content(&other.session()).await, expected);
}

/// Stops the store in front of the first try to commit `version`, until told to go on.
fn stop_before(store: &FaultStore, version: u64) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
    let ((reached, arrival), (go, gate)) = (mpsc::channel(), mpsc::channel());
    let gate = Mutex::new(Some((reached, gate)));
    let name = format!("t/_delta_log/{version:020}.json");
    let stop = move |op, path: &object_store::path::Path| {
        if op == Op::Create
            && path.as_ref().ends_with(&name)
            && let Some((reached, gate)) = gate.lock().take()
        {
            reached.send(()).unwrap();
            gate.recv().unwrap();
        }
        false
    };
    store.arm(Plan::once(1, Fault::FailBefore).filter(stop));
    (arrival, go)
}

/// Two statements, the second of which commits between the rows of the first and its commit. Answers what
/// the first one says.
async fn overtaken(first: &'static str, second: &str) -> (BTreeMap<String, u64>, Vec<i64>) {
    let disk = Arc::new(InMemory::new());
    let store = FaultStore::new(disk.clone());
    let (slow, fast) = (
        open(store.clone()).await.session(),
        open(disk).await.session(),
    );
    query::run(
        &slow,
        "CREATE TABLE t (id BIGINT, p BIGINT) PARTITIONED BY (p)",
    )
    .await;
    query::write(&slow, "INSERT INTO t VALUES (1, 0), (2, 0), (11, 1)").await;
    query::write(&slow, "INSERT INTO t VALUES (3, 0), (12, 1), (13, 1)").await;
    // The first deletion vector alters the table, which every other statement would have to respect.
    query::write(&slow, "DELETE FROM t WHERE id = 13").await;
    let (arrival, go) = stop_before(&store, 4);
    let work = tokio::spawn(async move {
        match slow.execute(first).await.unwrap() {
            Answer::Written(report) => BTreeMap::from([("rows".into(), report.rows_affected())]),
            Answer::Rows(rows) => one_row(&rows.try_collect::<Vec<_>>().await.unwrap()),
            Answer::Done(_) => BTreeMap::new(),
        }
    });
    tokio::task::spawn_blocking(move || arrival.recv().unwrap())
        .await
        .unwrap();
    query::run(&fast, second).await;
    go.send(()).unwrap();
    let said = work.await.unwrap();
    (
        said,
        query::integers(&fast, "SELECT id FROM t ORDER BY id").await,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn optimize_overtaken_by_a_delete_leaves_its_rows_deleted() {
    let (said, rows) = overtaken("OPTIMIZE t", "DELETE FROM t WHERE id = 2").await;
    assert_eq!(rows, [1, 3, 11, 12]);
    // The partition that was changed is done again; the other one is committed as it was.
    assert_eq!(
        (said["files_skipped"], said["rows"], said["version"]),
        (0, 4, 6)
    );
    assert_eq!(said["deletion_vectors_folded"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn optimize_overtaken_by_an_append_stays_as_it_is() {
    let (said, rows) = overtaken("OPTIMIZE t", "INSERT INTO t VALUES (4, 0)").await;
    assert_eq!(rows, [1, 2, 3, 4, 11, 12]);
    assert_eq!(
        (said["files_before"], said["files_after"], said["version"]),
        (4, 2, 5)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn optimize_overtaken_by_another_one_changes_nothing() {
    let (said, rows) = overtaken("OPTIMIZE t", "OPTIMIZE t").await;
    assert_eq!(rows, [1, 2, 3, 11, 12]);
    assert_eq!((said["files_before"], said.get("version")), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_overtaken_by_optimize_are_made_again() {
    let (said, rows) = overtaken("DELETE FROM t WHERE id IN (2, 12)", "OPTIMIZE t").await;
    assert_eq!((said["rows"], rows), (2, vec![1, 3, 11]));
    let (said, rows) = overtaken("UPDATE t SET id = id + 5 WHERE p = 0", "OPTIMIZE t").await;
    assert_eq!((said["rows"], rows), (3, vec![6, 7, 8, 11, 12]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restore_overtaken_by_others_is_made_again() {
    let restore = "RESTORE TABLE t TO VERSION AS OF 1";
    for second in [
        "INSERT INTO t VALUES (4, 0)",
        "OPTIMIZE t",
        "DELETE FROM t WHERE id < 3",
    ] {
        let (said, rows) = overtaken(restore, second).await;
        assert_eq!(rows, [1, 2, 11], "{second}");
        assert_eq!(said["version"], 5, "{second}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_beside_writes_takes_no_file_of_theirs() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE t (id BIGINT, n BIGINT)").await;
    let done = Arc::new(AtomicBool::new(false));
    let vacuum = {
        let (session, done) = (engine.session(), Arc::clone(&done));
        query::run(&session, "SET selvedge.vacuum_retention_check = false").await;
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                query::insist(&session, "VACUUM t RETAIN 0 HOURS").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let writers: Vec<_> = (1..=3)
        .map(|writer| {
            let session = engine.session();
            tokio::spawn(async move {
                for n in 0..30 {
                    let id = writer * 1000 + n;
                    query::insist(&session, &format!("INSERT INTO t VALUES ({id}, {n})")).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    vacuum.await.unwrap();
    engine.settle().await;
    assert_eq!(content(&session).await.len(), 90);
}

// ---- What is left behind ----

fn table(lake: &Path) -> PathBuf {
    lake.join("public").join("t")
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_writers_that_died_go_when_nobody_can_want_them() {
    let lake = tempfile::tempdir().unwrap();
    let now = folder(lake.path(), Duration::ZERO).await;
    query::run(
        &now,
        "CREATE TABLE t (id BIGINT, \"_p\" TEXT) PARTITIONED BY (\"_p\")",
    )
    .await;
    query::write(&now, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
    query::write(&now, "INSERT OVERWRITE t VALUES (3, 'a')").await;

    let folder_of_a = table(lake.path()).join("_p=a");
    let orphan = folder_of_a.join("part-of-a-dead-writer.parquet");
    let vector = table(lake.path()).join("deletion_vector_of_a_dead_writer.bin");
    let staging = folder_of_a.join("part-half-written.parquet#7");
    let kept = [
        table(lake.path()).join("_notes/of-a-person.txt"),
        table(lake.path()).join(".hidden"),
        folder_of_a.join("_metadata"),
    ];
    for path in [&orphan, &vector, &staging].into_iter().chain(&kept) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    let young = folder(lake.path(), 6 * DAY).await;
    assert!(would_go(&young, "VACUUM t DRY RUN").await.is_empty());

    let later = folder(lake.path(), 8 * DAY).await;
    let found = would_go(&later, "VACUUM t DRY RUN").await;
    // Two data files of version 1, and two of nobody.
    assert_eq!(found.len(), 4, "{found:?}");
    for path in [&orphan, &vector] {
        let name = path.strip_prefix(table(lake.path())).unwrap();
        assert!(
            found.iter().any(|found| Path::new(found) == name),
            "{found:?}"
        );
        assert!(path.exists(), "a dry run has deleted {}", path.display());
    }
    let done = account(&later, "VACUUM t").await;
    assert_eq!((done["files_deleted"], done["leftovers_deleted"]), (4, 1));
    for path in [orphan, vector, staging] {
        assert!(!path.exists(), "{} is still there", path.display());
    }
    for path in kept {
        assert!(path.exists(), "{} is gone", path.display());
    }
    assert_eq!(query::integers(&later, "SELECT id FROM t").await, [3]);
    let gone = query::error(&later, "SELECT id FROM t VERSION AS OF 1").await;
    assert!(
        gone.contains("version 1 of table public.t was vacuumed"),
        "{gone}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_keeps_what_versions_within_the_retention_need() {
    let lake = tempfile::tempdir().unwrap();
    let old = folder(lake.path(), Duration::ZERO).await;
    let table = "CREATE TABLE t (id BIGINT) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')";
    query::run(&old, table).await;
    query::write(&old, "INSERT INTO t SELECT unnest(range(0, 20000))").await;
    let day_4 = folder(lake.path(), 4 * DAY).await;
    query::write(&day_4, "DELETE FROM t WHERE id % 3 = 1 OR id % 7 = 2").await;
    let day_8 = folder(lake.path(), 8 * DAY).await;
    query::write(&day_8, "DELETE FROM t WHERE id % 5 = 2").await;
    query::write(&day_8, "INSERT OVERWRITE t VALUES (-1)").await;
    // The removals are days old, their files older than any retention: only when they went counts.
    let day_11 = folder(lake.path(), 11 * DAY).await;
    let count = |version| {
        // A condition, so that the rows are read and not only counted by the log.
        format!("SELECT count(*) FROM t VERSION AS OF {version} WHERE abs(id) >= 0")
    };
    let rows = |keep: fn(i64) -> bool| (0..20000).filter(|id| keep(*id)).count() as i64;
    let marked = rows(|id| id % 3 != 1 && id % 7 != 2);
    assert!(would_go(&day_11, "VACUUM t DRY RUN").await.is_empty());
    account(&day_11, "VACUUM t").await;
    assert_eq!(query::integers(&day_11, &count(2)).await, [marked]);

    // At day 16 the deletion vector of day 4 is due, the data file and the vector of day 8 too.
    let day_16 = folder(lake.path(), 16 * DAY).await;
    query::run(
        &day_16,
        "ALTER TABLE t SET TBLPROPERTIES ('delta.deletedFileRetentionDuration' = 'interval 9 days')",
    )
    .await;
    assert!(would_go(&day_16, "VACUUM t DRY RUN").await.is_empty());
    assert_eq!(query::integers(&day_16, &count(2)).await, [marked]);
    let longer = would_go(&day_16, "VACUUM t RETAIN 400 HOURS DRY RUN").await;
    assert!(longer.is_empty(), "{longer:?}");
    let day_18 = folder(lake.path(), 18 * DAY).await;
    account(&day_18, "VACUUM t").await;
    for version in 1..=3 {
        let gone = query::error(&day_18, &count(version)).await;
        assert!(gone.contains("was vacuumed"), "{version}: {gone}");
        assert!(gone.contains("versions 4 to"), "{version}: {gone}");
    }
    assert_eq!(query::integers(&day_18, &count(4)).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_that_stops_half_way_has_said_what_goes() {
    let disk = Arc::new(InMemory::new());
    let store = FaultStore::new(disk.clone());
    let session = open(store.clone()).await.session();
    query::run(&session, "CREATE TABLE t (id BIGINT)").await;
    query::write(&session, "INSERT INTO t VALUES (1)").await;
    query::write(&session, "INSERT OVERWRITE t VALUES (2)").await;
    query::run(&session, "SET selvedge.vacuum_retention_check = false").await;
    store.arm(Plan::from(1, Fault::FailBefore).ops(&[Op::Delete]));
    let error = query::error(&session, "VACUUM t RETAIN 0 HOURS").await;
    assert!(error.contains("could not be deleted"), "{error}");
    store.disarm();

    // The file is there still, but may go at any moment: it must not become part of the table again.
    let other = open(disk).await.session();
    let error = query::error(&other, "RESTORE TABLE t TO VERSION AS OF 1").await;
    assert!(
        error.contains("1 of the 1 files it takes are gone"),
        "{error}"
    );
    assert_eq!(
        account(&session, "VACUUM t RETAIN 0 HOURS").await["files_deleted"],
        1
    );
    assert_eq!(query::integers(&other, "SELECT id FROM t").await, [2]);
}

// ---- Faults ----

/// A table to keep up, and the rows it holds on the way.
const GIVEN: [(&str, &[i64]); 6] = [
    ("CREATE TABLE t (a BIGINT)", &[]),
    ("INSERT INTO t VALUES (1), (2)", &[1, 2]),
    ("INSERT INTO t VALUES (3)", &[1, 2, 3]),
    ("DELETE FROM t WHERE a = 2", &[1, 3]),
    ("INSERT INTO t VALUES (4)", &[1, 3, 4]),
    ("SET selvedge.vacuum_retention_check = false", &[1, 3, 4]),
];

/// A step of upkeep and the rows the table holds after it.
const STEPS: [(&str, &[i64]); 5] = [
    ("OPTIMIZE t", &[1, 3, 4]),
    ("OPTIMIZE t ZORDER BY (a)", &[1, 3, 4]),
    ("RESTORE TABLE t TO VERSION AS OF 2", &[1, 2, 3]),
    ("VACUUM t RETAIN 0 HOURS", &[1, 2, 3]),
    ("OPTIMIZE t", &[1, 2, 3]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_write_of_upkeep_fails_once_in_every_way() {
    let (given, story) = (ordeal::by_rows(GIVEN), ordeal::by_rows(STEPS));
    ordeal::every_write_fails_once(&given, &story, ordeal::rows).await;
}

// ---- Statistics and progress ----

/// Takes out of the log of `t` what only writers with statistics leave there.
fn without_statistics(lake: &Path) {
    for entry in fs::read_dir(table(lake).join("_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let lines = fs::read_to_string(&path).unwrap();
        let lines = lines.lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            for (action, key) in [("add", "stats"), ("commitInfo", "selvedge")] {
                if let Some(Value::Object(action)) = line.get_mut(action) {
                    action.remove(key);
                }
            }
            line.to_string() + "\n"
        });
        let lines: String = lines.collect();
        fs::write(&path, lines).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn analyze_adds_the_statistics_another_writer_left_out() {
    let lake = tempfile::tempdir().unwrap();
    let writer = folder(lake.path(), Duration::ZERO).await;
    query::run(
        &writer,
        "CREATE TABLE t (id BIGINT, name TEXT, price DECIMAL(10,2), at TIMESTAMP, day DATE, \
         weight DOUBLE, tags TEXT[], p INT) PARTITIONED BY (p)",
    )
    .await;
    query::write(
        &writer,
        "INSERT INTO t VALUES \
         (1, 'a', 1.50, TIMESTAMP '2026-01-01 00:00:00', DATE '2026-01-01', 0.5, ['x'], 0), \
         (2, NULL, -2.25, TIMESTAMP '2026-01-02 03:04:05.678901', DATE '1969-12-31', CAST('NaN' AS DOUBLE), ['y', 'z'], 0), \
         (3, 'c', NULL, NULL, NULL, NULL, NULL, 1)",
    )
    .await;
    query::write(&writer, "DELETE FROM t WHERE id = 1").await;
    let ours = stats(lake.path());
    without_statistics(lake.path());

    let session = folder(lake.path(), Duration::ZERO).await;
    let all = "SELECT id FROM t ORDER BY id";
    assert_eq!(query::integers(&session, all).await, [2, 3]);
    let done = account(&session, "ANALYZE TABLE t").await;
    assert_eq!(
        (done["files_analyzed"], done["rows"], done["version"]),
        (2, 3, 3)
    );
    assert_eq!(query::integers(&session, all).await, [2, 3]);
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM t").await,
        [2]
    );
    assert_eq!(
        query::integers(&session, "SELECT id FROM t WHERE price < -2").await,
        [2]
    );
    let again = account(&session, "ANALYZE TABLE t").await;
    assert_eq!((again["files_analyzed"], again.get("version")), (0, None));

    // What the footer says for sure is what the writer of the file would have said.
    for (path, found) in stats(lake.path()) {
        let ours = &ours[&path];
        assert_eq!(found["numRecords"], ours["numRecords"], "{path}");
        for column in ["id", "name", "price", "at", "day"] {
            for bound in ["minValues", "maxValues"] {
                assert_eq!(
                    found[bound][column], ours[bound][column],
                    "{path} {column} {bound}"
                );
            }
            assert_eq!(
                found["nullCount"][column], ours["nullCount"][column],
                "{path} {column}"
            );
        }
        // NaN is in no footer's bounds.
        assert_eq!(found["minValues"]["weight"], Value::Null);
    }
}

/// The last statistics of each file in the log of `t`.
fn stats(lake: &Path) -> BTreeMap<String, Value> {
    let log = table(lake).join("_delta_log");
    let mut commits: Vec<_> = fs::read_dir(log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    commits.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    commits.sort();
    let mut found = BTreeMap::new();
    for commit in commits {
        for line in fs::read_to_string(commit).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let add = &line["add"];
            if let (Some(path), Some(stats)) = (add["path"].as_str(), add["stats"].as_str()) {
                found.insert(path.to_owned(), serde_json::from_str(stats).unwrap());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_is_told_how_far_it_has_come() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (n BIGINT, p BIGINT) PARTITIONED BY (p)",
    )
    .await;
    for n in 0..3 {
        query::write(
            &session,
            &format!("INSERT INTO t VALUES ({n}, 0), ({n}, 1)"),
        )
        .await;
    }
    let heard = Arc::new(Mutex::new(Vec::<Progress>::new()));
    session.on_progress({
        let heard = Arc::clone(&heard);
        move |now| heard.lock().push(*now)
    });
    query::run(&session, "OPTIMIZE t").await;
    let heard = std::mem::take(&mut *heard.lock());
    for (before, after) in heard.iter().zip(&heard[1..]) {
        assert!(before.files_done <= after.files_done && before.rows_done <= after.rows_done);
        assert!(before.files_total <= after.files_total);
    }
    let last = heard.last().unwrap();
    assert_eq!(last.statement, "OPTIMIZE");
    assert_eq!(
        (last.files_done, last.files_total, last.rows_done),
        (6, 6, 6)
    );
    assert_eq!(last.bytes_done, last.bytes_total);
}

/// A client learns the columns of an answer when it prepares a statement, which must not run for that.
#[tokio::test(flavor = "multi_thread")]
async fn preparing_tells_the_columns_and_runs_nothing() {
    let session = in_memory().await.session();
    query::run(
        &session,
        "CREATE TABLE t (n BIGINT) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    query::write(&session, "INSERT INTO t VALUES (1)").await;
    query::write(&session, "INSERT INTO t VALUES (2)").await;
    let versions = "SELECT version FROM \"t$history\"";
    // The versions that each adds when it runs, and only then.
    for (sql, columns, added) in [
        ("VACUUM t DRY RUN", 2, 0),
        ("ANALYZE TABLE t", 3, 0),
        ("OPTIMIZE t", 8, 1),
        ("RESTORE TABLE t TO VERSION AS OF 2", 8, 1),
        ("VACUUM t", 4, 0),
        ("SHOW FUNCTIONS LIKE 'abs'", 4, 0),
        ("DESCRIBE t", 5, 0),
    ] {
        let before = query::rows(&session, versions).await;
        let prepared = session.prepare(sql).await.unwrap();
        assert_eq!(prepared.schema().fields().len(), columns, "{sql}");
        assert_eq!(query::rows(&session, versions).await, before, "{sql}");
        let Answer::Rows(rows) = prepared.execute(None).await.unwrap() else {
            panic!("{sql}: no rows");
        };
        assert_eq!(rows.schema(), prepared.schema(), "{sql}");
        let after = query::rows(&session, versions).await;
        assert_eq!(after - before, added, "{sql}");
    }
    for sql in [
        "OPTIMIZE missing",
        "VACUUM missing DRY RUN",
        "RESTORE TABLE missing TO VERSION AS OF 0",
        "ANALYZE TABLE missing",
    ] {
        let error = session.prepare(sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{sql}: {error}");
    }
}

//! Traps of reading and of plans: deletion vectors, caches, batches, partitions, versions, memory.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use datafusion::prelude::SessionContext;
use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use selvedge_engine::{ErrorKind, Session, Settings};
use serde_json::json;

use super::{T, objects, open, session, table};
use crate::support::delta::{remove, replace_vector, vectors};
use crate::support::fault::Op;
use crate::support::intercept::Intercept;
use crate::support::lake::with_settings;
use crate::support::query;

/// A table of three files with the rows 0..10, 10..20, 20..30, in its three commits after the first.
async fn three_files(session: &Session) {
    query::run(session, "CREATE TABLE t (a BIGINT)").await;
    for first in [0, 10, 20] {
        let rows = format!("SELECT value FROM generate_series({first}, {})", first + 9);
        query::run(session, &format!("INSERT INTO t {rows}")).await;
    }
}

/// Deletes, as another writer does, the first rows of all files by vectors of one file, `gap` bytes apart.
async fn delete_by_vectors(disk: &dyn ObjectStore, gap: usize) {
    let table = table(disk);
    let rows: [&[u16]; 3] = [&[0], &[0, 1], &[0, 1, 2]];
    let found = vectors(&table, &format!("memory:///{T}"), gap, &rows).await;
    let mut actions = vec![table.protocol_with_vectors().await];
    for (version, vector) in found.iter().enumerate() {
        let add = table.actions(version as u64 + 1, "add").await.remove(0);
        actions.extend(replace_vector(&add, vector));
    }
    table.write(4, i64::MAX / 2, &actions).await;
}

const LEFT: [i64; 24] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18, 19, 23, 24, 25, 26, 27, 28, 29,
];

/// Vectors of many data files share one file: reading it whole for each is a cost that grows with the square.
#[tokio::test]
async fn trap_vectors_of_one_file_read_only_their_bytes() {
    let disk = Arc::new(InMemory::new());
    three_files(&session(disk.clone()).await).await;
    let gap = 3 << 20;
    delete_by_vectors(&*disk, gap).await;
    let read: Arc<Mutex<Vec<Option<Range<u64>>>>> = Arc::default();
    let seen = Arc::clone(&read);
    let store = Intercept::new(disk, move |request| {
        if request.op == Op::Get && request.path.as_ref().ends_with(".bin") {
            seen.lock().push(request.range);
        }
        std::future::ready(Ok(())).boxed()
    });
    let session = session(store).await;
    for _ in 0..2 {
        assert_eq!(
            query::integers(&session, "SELECT a FROM t ORDER BY a").await,
            LEFT
        );
    }
    let read = read.lock();
    let bytes: u64 = read
        .iter()
        .map(|range| range.as_ref().map_or(u64::MAX, |r| r.end - r.start))
        .sum();
    assert!(
        bytes < 1_000,
        "{bytes} bytes of {} for three small vectors: {read:?}",
        3 * gap
    );
}

/// A removal names path and vector; one that forgets the vector removes nothing, and the rows live on.
#[tokio::test]
async fn trap_overwrite_of_files_with_vectors() {
    let disk = Arc::new(InMemory::new());
    three_files(&session(disk.clone()).await).await;
    delete_by_vectors(&*disk, 0).await;
    let ours = session(disk.clone()).await;
    query::run(&ours, "INSERT INTO t VALUES (100)").await;
    query::run(&ours, "INSERT OVERWRITE t SELECT sum(a) FROM t").await;
    let sum = LEFT.iter().sum::<i64>() + 100;
    assert_eq!(
        query::integers(&session(disk.clone()).await, "SELECT a FROM t").await,
        [sum]
    );
    let removed = table(&*disk).actions(6, "remove").await;
    assert_eq!(
        removed
            .iter()
            .filter(|remove| remove["deletionVector"].is_object())
            .count(),
        3
    );
}

/// With one deleted row in one file, other engines give up pruning, limits, splitting and dynamic filters for all.
#[tokio::test]
async fn trap_vectors_turn_off_dynamic_filters() {
    let disk = Arc::new(InMemory::new());
    three_files(&session(disk.clone()).await).await;
    delete_by_vectors(&*disk, 0).await;
    let session = session(disk).await;
    let plan = async |sql: &str| {
        let batches = query::batches(&session, &format!("EXPLAIN FORMAT INDENT {sql}")).await;
        datafusion::arrow::util::pretty::pretty_format_batches(&batches)
            .unwrap()
            .to_string()
    };
    let top = "SELECT a FROM t ORDER BY a DESC LIMIT 2";
    assert!(
        plan(top).await.contains("predicate=DynamicFilter"),
        "{}",
        plan(top).await
    );
    assert_eq!(query::integers(&session, top).await, [29, 28]);
    let join = "SELECT t.a FROM t JOIN (VALUES (9), (10), (23)) v (b) ON t.a = v.b ORDER BY 1";
    assert!(
        plan(join).await.contains("DynamicFilter"),
        "{}",
        plan(join).await
    );
    assert_eq!(query::integers(&session, join).await, [9, 23]);
    let first = plan("SELECT a FROM t WHERE a < 5").await;
    assert_eq!(
        first.matches(".parquet").count(),
        1,
        "files are skipped as before: {first}"
    );
}

/// Footers are cached by path, size and time: with one time for all files, a file that another writer put in the
/// place of an old one is pruned by the old one's statistics.
#[tokio::test]
async fn trap_last_modified_of_cached_footers() {
    let disk = Arc::new(InMemory::new());
    let session = session(disk.clone()).await;
    for (name, value) in [("t", 11), ("u", 22)] {
        query::run(&session, &format!("CREATE TABLE {name} (a BIGINT)")).await;
        query::run(&session, &format!("INSERT INTO {name} VALUES ({value})")).await;
    }
    assert_eq!(
        query::integers(&session, "SELECT a FROM t WHERE a = 11").await,
        [11]
    );
    let table = table(&*disk);
    let old = table.actions(1, "add").await.remove(0);
    let place = table.file_path(old["path"].as_str().unwrap());
    let other = Path::from(objects(&*disk, ".parquet").await.remove(1));
    assert_eq!(
        disk.head(&other).await.unwrap().size,
        disk.head(&place).await.unwrap().size
    );
    disk.copy(&other, &place).await.unwrap();
    let mut new = old.clone();
    new["stats"] = json!(r#"{"numRecords":1}"#);
    new["modificationTime"] = json!(old["modificationTime"].as_i64().unwrap() + 1);
    table
        .write(2, i64::MAX / 2, &[remove(&old), json!({"add": new})])
        .await;
    assert_eq!(
        query::integers(&session, "SELECT a FROM t WHERE a = 22").await,
        [22]
    );
}

/// What is counted, matched or remembered per batch goes wrong at the first row of the second.
#[tokio::test(flavor = "multi_thread")]
async fn trap_second_batch_of_8192_rows() {
    let session = session(Arc::new(InMemory::new())).await;
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT NOT NULL, CHECK (a <> 8193))",
    )
    .await;
    let mut rows = 0;
    for count in [8191, 8192, 8193, 16384, 20000] {
        // From 10,000 on: values no constraint minds.
        let sql = format!("INSERT INTO t SELECT value + 10000 FROM generate_series(1, {count})");
        let report = query::write(&session, &sql).await;
        assert_eq!((report.rows_received, report.rows_written), (count, count));
        rows += count as i64;
    }
    assert_eq!(
        query::integers(&session, "SELECT count(a) FROM t").await,
        [rows]
    );
    for (value, rule) in [("value", "CHECK"), ("nullif(value, 8193)", "NOT NULL")] {
        let sql = format!("INSERT INTO t SELECT {value} FROM generate_series(1, 20000)");
        let error = query::error(&session, &sql).await;
        assert!(error.contains(rule) && error.contains("20000"), "{error}");
    }
    let joined = "SELECT count(*) FROM t JOIN (SELECT DISTINCT a AS b FROM t) ON a = b";
    assert_eq!(query::integers(&session, joined).await, [rows]);
}

/// Paths of partitions are escaped once for the folder and once for the log; undone once, the partition is missed and
/// its rows are there twice.
#[tokio::test]
async fn trap_partition_value_with_a_space() {
    let disk = Arc::new(InMemory::new());
    let ours = session(disk.clone()).await;
    query::run(
        &ours,
        "CREATE TABLE t (a BIGINT, p TEXT) PARTITIONED BY (p)",
    )
    .await;
    query::run(
        &ours,
        "INSERT INTO t VALUES (1, 'a b'), (2, 'a%20b'), (3, 'a+b')",
    )
    .await;
    let theirs = session(disk).await;
    query::run(
        &theirs,
        "INSERT OVERWRITE PARTITIONS OF t VALUES (10, 'a b')",
    )
    .await;
    for session in [ours, theirs] {
        let rows = query::integers(&session, "SELECT a FROM t ORDER BY a").await;
        assert_eq!(rows, [2, 3, 10]);
        let found = query::integers(&session, "SELECT a FROM t WHERE p = 'a b'").await;
        assert_eq!(found, [10]);
    }
}

/// A provider that reports more partitions than it reads loses rows as soon as the plan has as many.
#[tokio::test(flavor = "multi_thread")]
async fn trap_only_one_partition_is_read() {
    for partitions in [1, 2, 7] {
        let mut settings = Settings::default();
        settings.target_partitions = partitions;
        let engine = with_settings(settings).await;
        let session = engine.session();
        three_files(&session).await;
        for sql in [
            "SELECT count(a + 0) FROM t",
            "SELECT count(*) FROM (SELECT DISTINCT a FROM t)",
        ] {
            assert_eq!(
                query::integers(&session, sql).await,
                [30],
                "{partitions}: {sql}"
            );
        }
        // Written by as many: all of them, once.
        query::run(
            &session,
            "INSERT OVERWRITE t SELECT a FROM t WHERE a % 2 = 0",
        )
        .await;
        assert_eq!(
            query::integers(&session, "SELECT count(a) FROM t").await,
            [15]
        );
    }
}

/// All mentions of a table in one statement mean one version, whatever is committed while it runs.
#[tokio::test]
async fn trap_two_versions_in_one_statement() {
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (ours, theirs) = (session(Arc::clone(&disk)).await, session(disk).await);
    three_files(&ours).await;
    let sql = "SELECT (SELECT count(*) FROM t) - count(*) AS n FROM t x JOIN t y ON x.a = y.a";
    let frame = ours.query(sql).await.unwrap();
    query::run(&theirs, "INSERT INTO t VALUES (30), (31)").await;
    let batches = frame.collect().await.unwrap();
    use arrow::array::AsArray;
    let difference = batches[0]
        .column(0)
        .as_primitive::<arrow::datatypes::Int64Type>()
        .value(0);
    assert_eq!(difference, 0);
    // A write that reads its own table reads what was there before it.
    query::run(&ours, "INSERT INTO t SELECT a + 100 FROM t").await;
    assert_eq!(query::integers(&ours, "SELECT count(*) FROM t").await, [64]);
}

/// DataFusion's own planner hands DELETE and UPDATE to the table without the predicates it cannot express: whoever
/// takes its plans must be refused by the table itself.
#[tokio::test]
async fn trap_dml_hooks_lose_predicates() {
    let session = session(Arc::new(InMemory::new())).await;
    three_files(&session).await;
    let (state, _) = session.query("SELECT a FROM t").await.unwrap().into_parts();
    let datafusion = SessionContext::new_with_state(state);
    for sql in [
        "DELETE FROM t WHERE a IN (SELECT 1)",
        "DELETE FROM t WHERE false",
        "UPDATE t SET a = 0 WHERE a IN (SELECT 1)",
    ] {
        let outcome = async { datafusion.sql(sql).await?.collect().await }.await;
        let error = outcome.unwrap_err().to_string();
        assert!(
            error.contains(sql.split(' ').next().unwrap()),
            "{sql}: {error}"
        );
    }
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM t").await,
        [30]
    );
}

/// EXPLAIN ANALYZE runs what it explains: a write once, through all its stages; EXPLAIN runs nothing.
#[tokio::test]
async fn trap_explain_analyze_of_a_write() {
    let disk = Arc::new(InMemory::new());
    let session = session(disk.clone()).await;
    query::run(&session, "CREATE TABLE t (a BIGINT, CHECK (a > 0))").await;
    let before = objects(&*disk, "").await;
    query::batches(&session, "EXPLAIN INSERT INTO t VALUES (1)").await;
    query::batches(&session, "EXPLAIN CREATE TABLE u AS SELECT 1 AS a").await;
    query::error(&session, "EXPLAIN ANALYZE INSERT INTO t VALUES (0)").await;
    assert_eq!(objects(&*disk, "").await, before);
    query::batches(&session, "EXPLAIN ANALYZE INSERT INTO t VALUES (1)").await;
    assert_eq!(query::integers(&session, "SELECT a FROM t").await, [1]);
    assert_eq!(query::rows(&session, "DESCRIBE HISTORY t").await, 2);
}

/// DataFusion's memory is without a limit unless it is given one: with one, sorts spill and joins that cannot are
/// refused, by an error that says what took it.
#[tokio::test(flavor = "multi_thread")]
async fn trap_memory_without_a_limit() {
    let mut settings = Settings::default();
    settings.memory_limit_bytes = 32 << 20;
    // What one sort holds while it merges: several would share the little there is.
    settings.target_partitions = 1;
    let engine = with_settings(settings).await;
    let session = engine.session();
    let numbers =
        "(SELECT value AS a, repeat('x', 40) || value AS s FROM generate_series(1, 500000))";
    let sorted =
        format!("SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY s) AS n FROM {numbers})");
    assert_eq!(query::batches(&session, &sorted).await[0].num_rows(), 1);
    let joined =
        format!("SELECT count(*) FROM {numbers} x JOIN {numbers} y ON x.s = y.s AND x.a <> y.a");
    let error = match session.execute(&joined).await {
        Ok(selvedge_engine::Answer::Rows(rows)) => {
            use futures::TryStreamExt;
            let rows: Result<Vec<_>, _> = rows.try_collect().await;
            selvedge_engine::Error::from(rows.unwrap_err())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("HashJoinInput"), "{error}");
    assert_eq!(query::rows(&session, "SELECT 1").await, 1);
}

/// A join under an aggregate has no output to stop at: unless it yields by itself, a dropped statement goes on for as
/// long as it takes, and keeps its thread.
#[tokio::test]
async fn trap_statement_that_never_yields() {
    let session = session(Arc::new(InMemory::new())).await;
    let many = "(SELECT value FROM generate_series(1, 200000))";
    let sql = format!(
        "SELECT count(*) FROM {many} a CROSS JOIN {many} b WHERE a.value * b.value % 7 = 3"
    );
    // On this runtime of one thread the timer itself only runs when the query lets it.
    let started = std::time::Instant::now();
    let work = tokio::time::timeout(Duration::from_millis(300), query::rows(&session, &sql));
    assert!(work.await.is_err(), "the query was too quick to be stopped");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    let memory = open(Arc::new(InMemory::new())).await;
    assert_eq!(query::rows(&memory.session(), "SELECT 1").await, 1);
}

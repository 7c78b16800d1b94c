//! What `table_changes` reads: the commits asked for and the files they touched, never the table.

use std::sync::Arc;

use object_store::memory::InMemory;

use crate::support::fault::{FaultStore, Op};
use crate::support::lake::{in_memory, open};
use crate::support::query;

/// Versions after the one that made the table.
const VERSIONS: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_long_history_read_only_what_changed() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let engine = open(store.clone()).await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, v TEXT) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    // Four rows in each of the first versions, so that a delete marks some of a file's.
    for n in 1..VERSIONS - 1 {
        let rows = format!("INSERT INTO t SELECT {n} * 4 + value, 'v' FROM generate_series(0, 3)");
        query::write(&session, &rows).await;
    }
    query::write(&session, "DELETE FROM t WHERE id IN (2001, 2002, 2400)").await;
    query::write(&session, "UPDATE t SET v = 'w' WHERE id = 2003").await;
    engine.settle().await;

    let read = async |sql: &str| {
        let before = store.history().len();
        let ids = query::integers(&session, sql).await;
        let gets = store.history().split_off(before).into_iter();
        let mut paths: Vec<String> = gets
            .filter(|call| call.op == Op::Get)
            .map(|call| call.path.to_string())
            .collect();
        let commits = paths.iter().filter(|path| path.ends_with(".json")).count();
        paths.retain(|path| path.ends_with(".parquet") && !path.contains("_delta_log"));
        paths.sort();
        paths.dedup();
        (ids, commits, paths.len())
    };
    let order = "ORDER BY _commit_version, _change_type, id";

    // At the end of the log, the two commits are all there is to read of it (and one look for a newer one).
    let last = VERSIONS;
    let (ids, commits, files) = read(&format!(
        "SELECT id FROM table_changes('t', {last}) {order}"
    ))
    .await;
    assert_eq!((ids, files), (vec![2003, 2003], 2));
    assert!(commits <= 2, "{commits}");

    // A delete reads the rows it took from the two files they were in. It brought deletion vectors to the
    // table, so the version before it is looked at once.
    let delete = last - 1;
    let (ids, _, files) = read(&format!(
        "SELECT id FROM table_changes('t', {delete}, {delete}) {order}"
    ))
    .await;
    assert_eq!((ids, files), (vec![2001, 2002, 2400], 2));

    // In the middle, a version is built from its checkpoint, and three of a thousand files are opened.
    let (ids, commits, files) = read(&format!(
        "SELECT id FROM table_changes('t', 300, 302) {order}"
    ))
    .await;
    assert_eq!((ids, files), ((1200..1212).collect(), 3));
    assert!(commits < 110, "{commits}");

    // Of all changes, filters leave the files of one version; and counts are in the log.
    let all = format!("FROM table_changes('t', 0, {})", VERSIONS - 2);
    let (ids, _, files) = read(&format!(
        "SELECT id {all} WHERE _commit_version = 500 {order}"
    ))
    .await;
    assert_eq!((ids, files), ((2000..2004).collect(), 1));
    let (ids, _, files) = read(&format!("SELECT id {all} WHERE id = 2001")).await;
    assert_eq!((ids, files), (vec![2001], 1));
    let (count, _, files) = read(&format!("SELECT count(*) {all}")).await;
    assert_eq!((count, files), (vec![(VERSIONS as i64 - 2) * 4], 0));
}

/// Every pair of versions of a table that changed in all ways: what the first had, and what came, is what
/// the second has, and what went.
#[tokio::test(flavor = "multi_thread")]
async fn changes_lead_from_any_version_to_any_later_one() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (id BIGINT, v TEXT, p BIGINT) PARTITIONED BY (p)",
    )
    .await;
    let statements = [
        "INSERT INTO t SELECT value, 'a', value % 3 FROM generate_series(0, 29)",
        "DELETE FROM t WHERE id % 5 = 0",
        "UPDATE t SET v = 'b' WHERE id % 2 = 0",
        "UPDATE t SET p = p + 1, v = NULL WHERE id > 20",
        "DELETE FROM t WHERE p = 0",
        "INSERT INTO t SELECT * FROM t",
        "MERGE INTO t USING (SELECT value AS id FROM generate_series(0, 60, 4)) s ON t.id = s.id AND t.p = 1 \
         WHEN MATCHED AND t.v = 'b' THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'm', 7)",
        "INSERT OVERWRITE t SELECT * FROM t WHERE id < 20",
        "DELETE FROM t",
        "INSERT OVERWRITE t SELECT * FROM t VERSION AS OF 4",
        "UPDATE t SET v = 'c' WHERE id = 7",
        "DELETE FROM t WHERE v = 'c' OR id = 8",
    ];
    for statement in statements {
        query::write(&session, statement).await;
    }
    for last in 1..=statements.len() {
        for first in 1..=last {
            let unequal = format!(
                "SELECT id FROM (SELECT id, v, p, sum(n) AS n FROM (
                   SELECT *, 1 AS n FROM t VERSION AS OF {}
                   UNION ALL SELECT id, v, p, CASE WHEN _change_type IN ('insert', 'update_postimage') THEN 1 ELSE -1 END
                     FROM table_changes('t', {first}, {last})
                   UNION ALL SELECT *, -1 FROM t VERSION AS OF {last}
                 ) GROUP BY id, v, p) WHERE n <> 0",
                first - 1
            );
            let wrong = query::rows(&session, &unequal).await;
            assert_eq!(wrong, 0, "from version {first} to {last}");
        }
    }
}

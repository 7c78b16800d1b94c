//! Traps of the commit: answers that lie, writers that race, stores and disks that keep less than they say.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::logical_expr::dml::InsertOp;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use selvedge_engine::{Engine, Error, ErrorKind};

use super::{T, objects, open, session};
use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::gate::{Access, Gate};
use crate::support::intercept::Intercept;
use crate::support::lake::{with_checkpoints, with_checkpoints_every};
use crate::support::query;

async fn put_goes_wrong(fault: Fault) {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let session = session(store.clone()).await;
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    let commits = Plan::once(1, fault).ops(&[Op::Create]).path("_delta_log");
    store.arm(commits);
    let report = query::write(&session, "INSERT INTO t VALUES (1)").await;
    assert_eq!((report.version, store.matched()), (Some(1), 1));
    query::write(&session, "INSERT INTO t VALUES (2)").await;
    assert_eq!(
        query::integers(&session, "SELECT a FROM t ORDER BY a").await,
        [1, 2]
    );
    assert_eq!(query::rows(&session, "DESCRIBE HISTORY t").await, 3);
}

/// A put that was applied and then sent again is answered "already exists": the commit that is there is our own,
/// and taking it for a rival's would write the rows' commit a second time.
#[tokio::test]
async fn trap_own_commit_answered_already_exists() {
    put_goes_wrong(Fault::AmbiguousExists).await;
}

/// A timeout says nothing of the outcome: the commit may be there.
#[tokio::test]
async fn trap_commit_that_landed_after_its_timeout() {
    put_goes_wrong(Fault::TimeoutAfterApply).await;
}

/// Plans `a + 100` of every row of `t`, lets a rival commit, then writes. The rows of `t` at the end.
async fn stale(op: InsertOp, rival: &str) -> Result<Vec<i64>, Error> {
    let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (ours, theirs) = (session(Arc::clone(&disk)).await, session(disk).await);
    query::run(&ours, "CREATE TABLE t (a BIGINT)").await;
    query::run(&ours, "INSERT INTO t VALUES (1)").await;
    // The table is pinned where the query names it, and written as it was pinned.
    let frame = ours.query("SELECT a + 100 AS a FROM t").await?;
    query::run(&theirs, rival).await;
    let options = DataFrameWriteOptions::new().with_insert_operation(op);
    frame.write_table("t", options).await.map_err(Error::from)?;
    Ok(query::integers(&theirs, "SELECT a FROM t ORDER BY a").await)
}

/// Rows that are only added conflict with nothing: that files they never read have gone is no reason to fail.
#[tokio::test]
async fn trap_append_after_files_were_removed() {
    let rows = stale(InsertOp::Append, "INSERT OVERWRITE t VALUES (9)").await;
    assert_eq!(rows.unwrap(), [9, 101]);
}

/// What an overwrite removes is what is there when it lands, not what was there when it was planned.
#[tokio::test]
async fn trap_overwrite_after_an_append() {
    let rows = stale(InsertOp::Overwrite, "INSERT INTO t VALUES (9)").await;
    assert_eq!(rows.unwrap(), [101]);
}

/// Of two overwrites one is the last, and only its rows are left.
#[tokio::test]
async fn trap_two_overwrites() {
    let rows = stale(InsertOp::Overwrite, "INSERT OVERWRITE t VALUES (9)").await;
    assert_eq!(rows.unwrap(), [101]);
}

/// Rows checked against rules that are no longer the table's must not land unchecked.
#[tokio::test]
async fn trap_rules_changed_under_a_write() {
    let rival = "ALTER TABLE t ADD CONSTRAINT small CHECK (a < 100)";
    let error = stale(InsertOp::Append, rival).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(
        error.to_string().contains("altered by version 2"),
        "{error}"
    );
}

/// A checkpoint is written behind a commit that is already durable: its failure must not be told as the commit's.
/// And every door writes checkpoints, not only SQL.
#[tokio::test(flavor = "multi_thread")]
async fn trap_failed_checkpoint_is_not_a_failed_write() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let engine = with_checkpoints(store.clone()).await;
    let session = engine.session();
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    let append = async || {
        let frame = session.query("SELECT 1 AS a").await.unwrap();
        let written = frame.write_table("t", DataFrameWriteOptions::new()).await;
        written.unwrap();
        engine.settle().await;
    };
    let last = Path::from(format!("{T}/_delta_log/_last_checkpoint"));
    store.arm(Plan::from(1, Fault::FailBefore).path("checkpoint"));
    for _ in 0..4 {
        append().await;
    }
    assert!(store.matched() > 1, "it was tried again");
    assert!(store.head(&last).await.is_err());
    store.disarm();
    append().await;
    store.head(&last).await.unwrap();
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM t").await,
        [5]
    );
}

/// The kernel reads checkpoints on threads of an executor: on a runtime of one thread that waits for itself unless
/// it is a thread of its own.
#[test]
fn trap_checkpoints_on_a_runtime_of_one_thread() {
    let single = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let worker = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    for runtime in [single, worker] {
        let work = async {
            let disk: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let engine = with_checkpoints_every(1, Arc::clone(&disk)).await;
            query::run(&engine.session(), "CREATE TABLE t (a BIGINT)").await;
            for a in 0..3 {
                query::run(&engine.session(), &format!("INSERT INTO t VALUES ({a})")).await;
                engine.settle().await;
            }
            query::integers(&session(disk).await, "SELECT count(a) FROM t").await
        };
        let rows = runtime.unwrap().block_on(async {
            // Spawned, because work in a task of its own is where blocking calls of others have panicked.
            let task = tokio::spawn(work);
            tokio::time::timeout(Duration::from_secs(60), task).await
        });
        assert_eq!(rows.expect("it waits for itself").unwrap(), [3]);
    }
}

/// A client that goes away while its commit is under way leaves a whole commit or none, and the files of a commit
/// that is whole.
#[tokio::test(flavor = "multi_thread")]
async fn trap_client_dropped_in_the_middle_of_its_commit() {
    let disk = Arc::new(InMemory::new());
    let (gate, store) = Gate::before(disk.clone());
    gate.close(|access, path| {
        let path = path.as_ref();
        access == Access::Write && path.contains("_delta_log") && path.ends_with("01.json")
    });
    let session = session(store).await;
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    let client = tokio::spawn({
        let session = session.clone();
        async move { session.execute("INSERT INTO t VALUES (1)").await.map(drop) }
    });
    assert!(gate.came().await);
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    gate.open();
    let landed = async {
        while objects(&*disk, "01.json").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), landed)
        .await
        .unwrap();
    query::write(&session, "INSERT INTO t VALUES (2)").await;
    let fresh = open(disk).await.session();
    assert_eq!(
        query::integers(&fresh, "SELECT a FROM t ORDER BY a").await,
        [1, 2]
    );
}

/// A store that takes "create" for "overwrite" lets writers erase each other's commits in silence, so a new lake
/// asks first.
#[tokio::test]
async fn trap_store_that_ignores_the_put_mode() {
    let careless = Intercept::careless(Arc::new(InMemory::new()));
    let opened = Engine::builder("s3://bucket/lake")
        .store(careless)
        .open()
        .await;
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("s3://bucket/lake/"), "{error}");
    assert!(
        error.to_string().contains("ignores conditional put"),
        "{error}"
    );
}

/// Files are written before a verdict over all rows is known; a refusal takes them away again.
#[tokio::test(flavor = "multi_thread")]
async fn trap_refused_write_leaves_no_files() {
    let disk = Arc::new(InMemory::new());
    let engine = open(disk.clone()).await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT, p BIGINT, CHECK (a < 300000)) PARTITIONED BY (p)",
    )
    .await;
    for verb in ["INSERT INTO", "INSERT OVERWRITE"] {
        let rows = "SELECT value, value % 3 FROM generate_series(1, 300000)";
        let error = query::error(&session, &format!("{verb} t {rows}")).await;
        assert!(error.contains("1 row") || error.contains("1 of"), "{error}");
        assert_eq!(objects(&*disk, ".parquet").await, [""; 0]);
    }
    let error = query::error(
        &session,
        "CREATE TABLE u (a BIGINT NOT NULL) AS SELECT NULL",
    )
    .await;
    assert!(error.contains("NOT NULL"), "{error}");
    engine.settle().await;
    assert_eq!(objects(&*disk, ".parquet").await, [""; 0]);
    assert_eq!(objects(&*disk, "public/u/").await, [""; 0]);
}

/// Other writers decide by a commit's own words whether it conflicts with theirs: left out, they assume the worst
/// or the best.
#[tokio::test]
async fn trap_commits_say_what_they_read() {
    let disk = Arc::new(InMemory::new());
    let session = session(disk.clone()).await;
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    query::run(&session, "INSERT INTO t VALUES (1)").await;
    query::run(&session, "INSERT OVERWRITE t VALUES (2)").await;
    let table = super::table(&*disk);
    for (version, blind) in [(1, true), (2, false)] {
        let first = table.read(version).await.remove(0);
        let info = &first["commitInfo"];
        assert_eq!(info["isBlindAppend"], blind, "{info}");
        assert_eq!(info["readVersion"], version - 1, "{info}");
        assert_eq!(info["isolationLevel"], "Serializable", "{info}");
        assert!(info["inCommitTimestamp"].is_i64(), "{info}");
    }
}

/// A killed writer leaves `name#1` files that the local store's listing hides and its delete refuses: nothing that
/// works through the store will ever remove them.
#[tokio::test(flavor = "multi_thread")]
async fn trap_staging_files_nobody_can_list() {
    let lake = tempfile::tempdir().unwrap();
    let place = lake.path().join("lake");
    let engine = Engine::builder(place.to_str().unwrap())
        .open()
        .await
        .unwrap();
    query::run(&engine.session(), "CREATE TABLE t (a BIGINT)").await;
    let log = place.join(T).join("_delta_log");
    let (old, young) = (
        log.join("00000000000000000001.json#1"),
        place.join(T).join("x.parquet#2"),
    );
    for file in [&old, &young] {
        std::fs::write(file, "half").unwrap();
    }
    let days_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::options()
        .write(true)
        .open(&old)
        .unwrap()
        .set_modified(days_ago)
        .unwrap();
    // An engine looks once per table, when it first writes to it.
    let engine = Engine::builder(place.to_str().unwrap())
        .open()
        .await
        .unwrap();
    query::run(&engine.session(), "INSERT INTO t VALUES (1)").await;
    engine.settle().await;
    assert!(
        !old.exists() && young.exists(),
        "what a living writer may still need stays"
    );
    assert_eq!(
        query::integers(&engine.session(), "SELECT a FROM t").await,
        [1]
    );
}

/// A data file that a power loss left empty is an error that names it, not a file without rows.
#[tokio::test]
async fn trap_empty_data_file() {
    let disk = Arc::new(InMemory::new());
    let session = session(disk.clone()).await;
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    query::run(&session, "INSERT INTO t VALUES (1)").await;
    let file = objects(&*disk, ".parquet").await.remove(0);
    disk.put(&Path::from(file.as_str()), "".into())
        .await
        .unwrap();
    let error = query::error(&open(disk).await.session(), "SELECT a + 0 FROM t").await;
    assert!(error.contains(file.rsplit('/').next().unwrap()), "{error}");
}

/// A table that was read once is not replayed for the next statement: only its newest commit is looked for.
#[tokio::test]
async fn trap_log_replayed_for_every_read() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let session = session(store.clone()).await;
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    for a in 0..20 {
        query::run(&session, &format!("INSERT INTO t VALUES ({a})")).await;
    }
    let session = self::session(store.clone()).await;
    let read = async || {
        let before = store.history().len();
        assert_eq!(query::rows(&session, "SELECT * FROM t").await, 20);
        let history = store.history();
        let log = history[before..]
            .iter()
            .filter(|call| call.path.as_ref().contains("_delta_log"));
        log.count()
    };
    assert!(read().await > 20);
    assert_eq!(read().await, 1);
}

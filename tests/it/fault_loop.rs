//! Every write to the store fails once, in every way, in every step: what was acknowledged is there
//! exactly once, what was refused is not there at all.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use selvedge_engine::{Engine, ErrorKind, Session};

use crate::support::fault::{Fault, FaultStore, Op, Plan};
use crate::support::query;

/// A step and the rows the table holds after it.
const STEPS: [(&str, &[i64]); 6] = [
    ("CREATE TABLE t (a BIGINT)", &[]),
    ("INSERT INTO t VALUES (1), (2)", &[1, 2]),
    ("INSERT INTO t VALUES (3)", &[1, 2, 3]),
    ("INSERT OVERWRITE t VALUES (4), (5)", &[4, 5]),
    ("INSERT INTO t SELECT a + 10 FROM t", &[4, 5, 14, 15]),
    (
        "CREATE OR REPLACE TABLE t AS SELECT a FROM t WHERE a > 5",
        &[14, 15],
    ),
];

async fn open(store: Arc<dyn ObjectStore>) -> Engine {
    Engine::builder("memory:///")
        .store(store)
        .open()
        .await
        .unwrap()
}

/// Rows of the table and commits of its log, as a new engine finds them; `None` when there is no table.
async fn found(store: Arc<dyn ObjectStore>) -> Option<(Vec<i64>, usize)> {
    let session = open(store).await.session();
    if session.tables().await.unwrap().is_empty() {
        return None;
    }
    let rows = query::integers(&session, "SELECT a FROM t ORDER BY a").await;
    let versions = query::integers(&session, "SELECT count(*) FROM t").await;
    assert_eq!(versions, [rows.len() as i64], "metadata and rows disagree");
    let commits = query::rows(&session, "DESCRIBE HISTORY t").await;
    Some((rows, commits))
}

async fn run(session: &Session, sql: &str) -> Result<(), ErrorKind> {
    session
        .execute(sql)
        .await
        .map(drop)
        .map_err(|error| error.kind())
}

async fn one_fault(fault: Fault, k: usize) -> usize {
    let disk = Arc::new(InMemory::new());
    let store = FaultStore::new(disk.clone());
    let session = open(store.clone()).await.session();
    store.arm(Plan::once(k, fault).ops(&Op::WRITES));
    let mut before: Option<(Vec<i64>, usize)> = None;
    for (sql, rows) in STEPS {
        let outcome = run(&session, sql).await;
        let now = found(disk.clone()).await;
        let commits = before.as_ref().map_or(0, |(_, commits)| *commits);
        let done = Some((rows.to_vec(), commits + 1));
        match outcome {
            Ok(()) => assert_eq!(now, done, "{fault:?} at {k}: {sql} was acknowledged"),
            // Only a store that never answers leaves the outcome open; one fault is not that.
            Err(kind) => {
                assert_eq!(
                    now, before,
                    "{fault:?} at {k}: {sql} was refused ({kind:?})"
                );
                run(&session, sql).await.unwrap();
            }
        }
        before = found(disk.clone()).await;
        assert_eq!(before.as_ref().map(|(rows, _)| rows.as_slice()), Some(rows));
    }
    store.matched()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_fails_once_in_every_way() {
    for fault in Fault::ALL {
        let mut k = 1;
        loop {
            let seen = one_fault(fault, k).await;
            if seen < k {
                break;
            }
            k += 1;
        }
        assert!(k > STEPS.len(), "{fault:?} was tried only {k} times");
    }
}

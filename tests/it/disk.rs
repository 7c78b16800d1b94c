//! A disk that is full, or closed to this user: the error names the object and what to do, and nothing is left of the
//! statement, at whichever of its writes it begins.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use object_store::memory::InMemory;
use selvedge_engine::{ErrorKind, Session};

use crate::support::fault::Op;
use crate::support::intercept::Intercept;
use crate::support::lake::open;
use crate::support::query;
use crate::support::traces::objects;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Refusal {
    Full,
    ReadOnly,
    Denied,
}

impl Refusal {
    const ALL: [Self; 3] = [Self::Full, Self::ReadOnly, Self::Denied];

    /// A full disk still lets go of what it has.
    fn meets(self, op: Op) -> bool {
        match op {
            Op::Get | Op::List | Op::MultipartAbort => false,
            Op::Delete => self != Self::Full,
            _ => true,
        }
    }

    /// As the local store answers.
    fn error(self, path: &str) -> object_store::Error {
        let generic = |kind: io::ErrorKind| object_store::Error::Generic {
            store: "disk",
            source: io::Error::new(kind, format!("cannot write {path}: {kind}")).into(),
        };
        match self {
            Self::Full => generic(io::ErrorKind::StorageFull),
            Self::ReadOnly => generic(io::ErrorKind::ReadOnlyFilesystem),
            Self::Denied => object_store::Error::PermissionDenied {
                path: path.to_owned(),
                source: "permission denied".into(),
            },
        }
    }

    fn told(self) -> (ErrorKind, &'static str) {
        match self {
            Self::Full => (ErrorKind::Exhausted, "hint: free space"),
            Self::ReadOnly => (
                ErrorKind::Denied,
                "hint: the file system is mounted for reading only",
            ),
            Self::Denied => (
                ErrorKind::Denied,
                "hint: this user or these credentials must be allowed",
            ),
        }
    }
}

/// Refuses from the `k`-th write on, until it is reopened.
struct Disk {
    store: Arc<Intercept>,
    inner: Arc<InMemory>,
    /// Writes that still pass.
    left: Arc<AtomicUsize>,
    refused: Arc<AtomicBool>,
}

impl Disk {
    fn new(refusal: Refusal) -> Self {
        let inner = Arc::new(InMemory::new());
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let refused = Arc::new(AtomicBool::new(false));
        let (passes, noted) = (Arc::clone(&left), Arc::clone(&refused));
        let store = Intercept::refusing(inner.clone(), move |request| {
            let taken = passes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1).filter(|_| refusal.meets(request.op))
            });
            let refuse = refusal.meets(request.op) && taken.is_err();
            noted.fetch_or(refuse, Ordering::SeqCst);
            refuse.then(|| refusal.error(request.path.as_ref()))
        });
        Self {
            store,
            inner,
            left,
            refused,
        }
    }

    async fn session(&self) -> Session {
        open(self.store.clone()).await.session()
    }

    async fn objects(&self) -> Vec<String> {
        objects(&*self.inner, "").await
    }
}

const STATEMENTS: [&str; 9] = [
    "CREATE TABLE u (a BIGINT)",
    "CREATE TABLE u AS SELECT a FROM t",
    "CREATE VIEW v AS SELECT a FROM t",
    "CREATE SCHEMA s",
    "INSERT INTO t VALUES (2)",
    "INSERT OVERWRITE t SELECT a + 1 FROM t",
    "ALTER TABLE t ADD COLUMN b BIGINT",
    "DROP TABLE t",
    "CREATE OR REPLACE TABLE t AS SELECT 5 AS a",
];

async fn state(disk: &Disk) -> (Vec<i64>, usize, usize) {
    let session = open(disk.inner.clone()).await.session();
    let rows = query::integers(&session, "SELECT a FROM t ORDER BY a").await;
    let commits = query::rows(&session, "DESCRIBE HISTORY t").await;
    (rows, commits, session.tables().await.unwrap().len())
}

/// Runs `sql` with a disk that refuses from its `k`-th write on; whether it still had an effect to refuse.
async fn refused_at(refusal: Refusal, sql: &str, k: usize) -> bool {
    let disk = Disk::new(refusal);
    let session = disk.session().await;
    query::run(&session, "CREATE TABLE t (a BIGINT)").await;
    query::run(&session, "INSERT INTO t VALUES (1)").await;
    let (before, objects) = (state(&disk).await, disk.objects().await);
    disk.left.store(k, Ordering::SeqCst);
    let outcome = session.execute(sql).await;
    disk.left.store(usize::MAX, Ordering::SeqCst);
    let context = format!("{refusal:?} after {k} writes: {sql}");
    if outcome.is_ok() {
        // What is left to be refused then is cleaning up, which no statement fails for.
        return disk.refused.load(Ordering::SeqCst);
    }
    let error = outcome.unwrap_err();
    let (kind, hint) = refusal.told();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{context}: {text}");
    assert!(text.contains(hint), "{context}: {text}");
    assert!(
        ["public/", "_selvedge/"]
            .iter()
            .any(|object| text.contains(object)),
        "{context}: {text}"
    );
    assert!(!text.contains("outcome is unknown"), "{context}: {text}");
    assert_eq!(state(&disk).await, before, "{context}");
    if refusal == Refusal::Full {
        assert_eq!(
            disk.objects().await,
            objects,
            "{context}: it left something behind"
        );
    }
    // The same session goes on as if nothing had been.
    query::run(&session, sql).await;
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_on_a_full_or_closed_disk_has_no_effect() {
    for refusal in Refusal::ALL {
        // All end alike; what they leave behind is tried with each statement on the one that can still be cleaned up.
        let statements = match refusal {
            Refusal::Full => &STATEMENTS[..],
            Refusal::ReadOnly | Refusal::Denied => &STATEMENTS[3..5],
        };
        for sql in statements {
            let mut k = 0;
            while refused_at(refusal, sql, k).await {
                k += 1;
                assert!(k < 50, "{sql} never ends");
            }
            assert!(k > 0, "{refusal:?}: {sql} wrote nothing");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_closed_for_writing_can_be_read() {
    for refusal in Refusal::ALL {
        let disk = Disk::new(refusal);
        let session = disk.session().await;
        query::run(&session, "CREATE TABLE t AS SELECT 1 AS a").await;
        disk.left.store(0, Ordering::SeqCst);
        let session = disk.session().await;
        assert_eq!(query::integers(&session, "SELECT a FROM t").await, [1]);
        assert_eq!(query::rows(&session, "SHOW TABLES").await, 1);
        assert_eq!(query::rows(&session, "DESCRIBE HISTORY t").await, 1);
    }
}

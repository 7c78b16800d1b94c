//! What a small write asks of the data files of a journal: their footers, and the pages that its keys may lie in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use selvedge_engine::Session;

use super::{checked, create, insert, newest, open, write};
use crate::support::fault::Op;
use crate::support::intercept::Intercept;
use crate::support::query;

/// Nothing is merged behind a write: that would read the files too.
const ALONE: &str = "TBLPROPERTIES ('selvedge.autoOptimize' = 'false')";

fn is_data(path: &Path) -> bool {
    path.as_ref().contains("is_current=") && path.as_ref().ends_with(".parquet")
}

async fn data_files(disk: &InMemory) -> Vec<ObjectMeta> {
    let all: Vec<ObjectMeta> = disk.list(None).try_collect().await.unwrap();
    let files = all.into_iter().filter(|object| is_data(&object.location));
    files.collect()
}

/// A session, and how many bytes of data files it asks for.
struct Meter {
    session: Session,
    bytes: Arc<AtomicU64>,
}

impl Meter {
    /// That of an engine which has read nothing yet.
    async fn of(disk: &Arc<InMemory>) -> Self {
        let bytes: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&bytes);
        let store = Intercept::new(disk.clone(), move |request| {
            if request.op == Op::Get && is_data(&request.path) {
                // Who names no range asks for all of it: far too much.
                let range = request.range.map(|range| range.end - range.start);
                counted.fetch_add(range.unwrap_or(1 << 40), Ordering::SeqCst);
            }
            std::future::ready(Ok(())).boxed()
        });
        Self {
            session: open(store).await.session(),
            bytes,
        }
    }

    /// What was asked for since the last look.
    fn taken(&self) -> u64 {
        self.bytes.swap(0, Ordering::SeqCst)
    }
}

/// One row of each key. Some thirty bytes of its digits are left when they are compressed.
fn load(keys: u64) -> String {
    let digits = (0..8).map(|part| {
        let factor = 1_000_000_007 + part * 123_456_789_u64;
        format!("CAST(value * {factor} % 4294967291 AS TEXT)")
    });
    let digits = digits.collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO t SELECT value, concat({digits}), DATE '2026-01-01' FROM generate_series(1, {keys})"
    )
}

/// A file of ten megabytes: one row group, in pages of 4096 rows. With a footer half a megabyte of the file's end is asked
/// for; a page of all columns has less than a fifth of one. The keys lie in the middle of the row group, because stores
/// ask for ranges that are less than a megabyte apart in one.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_write_reads_the_pages_of_its_keys() {
    let disk = Arc::new(InMemory::new());
    let first = open(disk.clone()).await.session();
    create(&first, ALONE).await;
    query::write(&first, &load(300_000)).await;
    let files = data_files(&disk).await;
    assert_eq!(files.len(), 1, "{files:?}");
    let all = files[0].size;

    let meter = Meter::of(&disk).await;
    let changes = [
        (60_000, Some("x"), 2),
        (60_001, None, 2),
        (200_000, Some("y"), 2),
    ];
    write(&meter.session, &changes).await;
    let cold = meter.taken();
    assert!(cold > 0 && cold < all / 10, "{cold} of {all} bytes");
    // More than the keys that are told one by one, when the footers are there.
    let more =
        "INSERT INTO t SELECT value, 'z', DATE '2026-01-03' FROM generate_series(100000, 100049)";
    query::write(&meter.session, more).await;
    let warm = meter.taken();
    assert!(warm > 0 && warm < all / 20, "{warm} of {all} bytes");
    // The meter would have noticed: texts are nearly all of the file.
    let short = "SELECT count(*) FROM t WHERE character_length(v) = 1";
    assert_eq!(query::integers(&meter.session, short).await, [52]);
    let whole = meter.taken();
    assert!(whole > all / 2, "{whole} of {all} bytes");

    let session = &meter.session;
    let some = "SELECT k, CASE WHEN character_length(v) > 60 THEN 'first' ELSE v END AS v, \
         CAST(valid_from AS DATE) AS since, CAST(valid_to AS DATE) AS until \
         FROM \"t$journal\" WHERE k IN (59999, 60000, 60001, 100049, 200000) ORDER BY k, valid_from";
    let expected = [
        "59999 first 2026-01-01 NULL",
        "60000 first 2026-01-01 2026-01-02",
        "60000 x 2026-01-02 NULL",
        "60001 first 2026-01-01 2026-01-02",
        "100049 first 2026-01-01 2026-01-03",
        "100049 z 2026-01-03 NULL",
        "200000 first 2026-01-01 2026-01-02",
        "200000 y 2026-01-02 NULL",
    ];
    assert_eq!(query::lines(session, some).await, expected);
    let counts = "SELECT count(*) FROM t UNION ALL SELECT count(*) FROM t WHERE v = 'z' ORDER BY 1";
    assert_eq!(query::integers(session, counts).await, [50, 299_999]);
    checked(session, "t").await;
}

const FILES: usize = 8;

/// A journal of as many files, each with every eighth key: statistics clear none of them.
async fn many_files(disk: &Arc<InMemory>) {
    let session = open(disk.clone()).await.session();
    create(&session, ALONE).await;
    for file in 0..FILES {
        let sql = format!(
            "INSERT INTO t SELECT value * {FILES} + {file}, 'a', DATE '2026-01-01' FROM generate_series(0, 99)"
        );
        query::write(&session, &sql).await;
    }
    assert_eq!(data_files(disk).await.len(), FILES);
}

/// Keys in the middle of all files.
fn change() -> String {
    insert(&[(400, Some("b"), 2), (401, Some("b"), 2)])
}

/// Waits until so many requests do.
async fn requests(held: &Arc<()>, wanted: usize) {
    for _ in 0..1_000 {
        // The test has one, and the store.
        if Arc::strong_count(held) - 2 == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} of {wanted} requests", Arc::strong_count(held) - 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_looked_into_at_once_and_let_go_with_their_statement() {
    let disk = Arc::new(InMemory::new());
    many_files(&disk).await;
    let held: Arc<()> = Arc::default();
    let token = Arc::clone(&held);
    let store = Intercept::new(disk.clone(), move |request| {
        let held = request.op == Op::Get && is_data(&request.path);
        let held = held.then(|| Arc::clone(&token));
        async move {
            if let Some(_held) = held {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
        .boxed()
    });
    let session = open(store).await.session();
    let client = tokio::spawn({
        let session = session.clone();
        async move { session.execute(&change()).await.map(drop) }
    });
    requests(&held, FILES).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    requests(&held, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_looked_into_fails_the_write() {
    let disk = Arc::new(InMemory::new());
    many_files(&disk).await;
    let broken = data_files(&disk).await[FILES / 2].location.clone();
    let store = Intercept::refusing(disk.clone(), move |request| {
        let refuses = request.op == Op::Get && request.path == broken;
        refuses.then(|| object_store::Error::Generic {
            store: "test",
            source: "this file does not answer".into(),
        })
    });
    let error = query::error(&open(store).await.session(), &change()).await;
    assert!(error.contains("this file does not answer"), "{error}");
    // Nothing of it is there, and the next one finds all files.
    let session = open(disk).await.session();
    assert_eq!(newest(&session).await, FILES as i64);
    query::write(&session, &change()).await;
    let sql = "SELECT k FROM t WHERE v = 'b' ORDER BY k";
    assert_eq!(query::integers(&session, sql).await, [400, 401]);
    checked(&session, "t").await;
}

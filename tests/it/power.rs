//! A power loss: the engine on every disk it may leave, and the model of it, tested itself.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use selvedge_engine::Session;

use crate::support::lake::with_checkpoints;
use crate::support::ordeal::{by_rows, found, lived, power_goes_anywhere, rows};
use crate::support::power::{Change, Damage, PowerLossStore};
use crate::support::query;

/// A statement and the rows of `t` after it.
const STEPS: [(&str, &[i64]); 7] = [
    ("CREATE TABLE t (a BIGINT)", &[]),
    ("INSERT INTO t VALUES (1), (2), (3)", &[1, 2, 3]),
    ("DELETE FROM t WHERE a = 2", &[1, 3]),
    ("INSERT INTO t SELECT a + 10 FROM t", &[1, 3, 11, 13]),
    (
        "INSERT OVERWRITE t SELECT a FROM t WHERE a > 1",
        &[3, 11, 13],
    ),
    ("UPDATE t SET a = 20 WHERE a = 11", &[3, 13, 20]),
    (
        "CREATE OR REPLACE TABLE t AS SELECT a FROM t WHERE a > 10",
        &[13, 20],
    ),
];

async fn next(session: &Session, mut rows: Vec<i64>) -> Vec<i64> {
    query::write(session, "INSERT INTO t VALUES (99)").await;
    rows.push(99);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synced_lake_goes_on_wherever_the_power_went() {
    power_goes_anywhere(&by_rows(STEPS), rows, next).await;
}

/// Without syncing anything may be harmed, whatever came after it. Then a harmed object is not needed, or it is named;
/// rows are never quietly fewer, and a later write does not cover the hole up. Only the loss of the newest entry of a
/// log cannot be seen: it leaves the disk as if it had not been written.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_was_not_synced_names_what_is_harmed() {
    let (store, _) = lived(&STEPS).await;
    let changes = store.changes();
    let last = STEPS[STEPS.len() - 1].1;
    let mut named = 0;
    for harm in store.harms("").await.unwrap() {
        let folder = parent(&harm.path);
        let later = |other: &Change| match other {
            Change::Written(later, _) => later.prefix_matches(&folder),
            Change::Deleted(_) => false,
        };
        let newest =
            harm.path.as_ref().ends_with(".json") && !changes[harm.number + 1..].iter().any(later);
        let session = with_checkpoints(harm.disk.clone()).await.session();
        match found(&session, &rows).await {
            Ok(Some(found)) if found == last => {
                let after = next(&session, found).await;
                assert_eq!(rows(&session).await.unwrap(), after, "{harm}");
            }
            Ok(found) => assert!(newest && harm.damage == Damage::Lost, "{harm}: {found:?}"),
            Err(error) => {
                assert!(error.to_string().contains(harm.name()), "{harm}: {error}");
                named += 1;
                let _ = session.execute("INSERT INTO t VALUES (99)").await;
                let error = found(&session, &rows).await.expect_err(harm.name());
                assert!(error.to_string().contains(harm.name()), "{harm}: {error}");
            }
        }
    }
    assert!(named >= STEPS.len(), "{named} harms were noticed");
}

fn parent(path: &Path) -> Path {
    let parts: Vec<_> = path.parts().collect();
    parts[..parts.len() - 1].iter().cloned().collect()
}

async fn read(store: &dyn ObjectStore, name: &str) -> Option<Bytes> {
    let got = store.get(&Path::from(name)).await.ok()?;
    Some(got.bytes().await.unwrap())
}

#[tokio::test]
async fn an_image_has_each_change_as_damaged() {
    let store = PowerLossStore::default();
    let (x, y) = (Path::from("x"), Path::from("y"));
    store.put(&x, "old\n".into()).await.unwrap();
    store.put(&x, "one\ntwo\n".into()).await.unwrap();
    let mut upload = store.put_multipart(&y).await.unwrap();
    upload.put_part("parts".into()).await.unwrap();
    upload.complete().await.unwrap();
    store.delete(&y).await.unwrap();
    store.rename(&x, &y).await.unwrap();
    assert_eq!(
        store.changes(),
        [
            Change::Written(x.clone(), "old\n".into()),
            Change::Written(x.clone(), "one\ntwo\n".into()),
            Change::Written(y.clone(), "parts".into()),
            Change::Deleted(y.clone()),
            Change::Written(y.clone(), "one\ntwo\n".into()),
            Change::Deleted(x.clone()),
        ]
    );

    let whole = store.crash(|_, _| Damage::Kept).await.unwrap();
    assert_eq!(read(&*whole, "x").await, None);
    assert_eq!(read(&*whole, "y").await, Some("one\ntwo\n".into()));

    for (damage, left) in [
        (Damage::Lost, "old\n"),
        (Damage::Empty, ""),
        (Damage::Zeroed, "\0\0\0\0\0\0\0\0"),
        (Damage::CutAt(5), "one\nt"),
        (Damage::CutAt(99), "one\ntwo\n"),
        (Damage::Lines(1), "one\n"),
    ] {
        // The second put damaged, all after it lost.
        let image = store
            .crash(|number, _| match number {
                0 => Damage::Kept,
                1 => damage,
                _ => Damage::Lost,
            })
            .await
            .unwrap();
        assert_eq!(read(&*image, "x").await, Some(left.into()), "{damage:?}");
        assert_eq!(read(&*image, "y").await, None);
    }
    assert_eq!(
        Damage::all(&"one\ntwo\nthree\n".into()),
        [
            Damage::Lost,
            Damage::Empty,
            Damage::Zeroed,
            Damage::CutAt(7),
            Damage::Lines(1),
            Damage::Lines(2)
        ]
    );
}

//! A power loss: the engine on every disk it may leave, and the model of it, tested itself.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use selvedge_engine::{Engine, Error, Session, Settings};

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

/// The rows of `t`, or `None` where there is no such table.
type State = Option<Vec<i64>>;

async fn open(store: Arc<dyn ObjectStore>) -> Result<Engine, Error> {
    let mut settings = Settings::default();
    settings.checkpoint_interval = 2;
    let builder = Engine::builder("memory:///").store(store);
    builder.settings(settings).open().await
}

/// A disk on which all steps ran, and how many changes it had seen when each was acknowledged.
async fn lived() -> (Arc<PowerLossStore>, Vec<usize>) {
    let store = Arc::new(PowerLossStore::default());
    let engine = open(store.clone()).await.unwrap();
    let mut acknowledged = Vec::new();
    for (sql, _) in STEPS {
        query::run(&engine.session(), sql).await;
        acknowledged.push(store.changes().len());
        engine.settle().await;
    }
    (store, acknowledged)
}

async fn state(session: &Session) -> Result<State, Error> {
    if session.tables().await?.is_empty() {
        return Ok(None);
    }
    let rows = query::try_integers(session, "SELECT a FROM t ORDER BY a").await?;
    Ok(Some(rows))
}

/// Syncing keeps what was acknowledged and the order in which it was; a delete is not synced, so what it took may be
/// there again. Wherever the power goes, no statement is half there, none that was acknowledged is missing, and the
/// next one finds a lake to go on with.
#[tokio::test(flavor = "multi_thread")]
async fn a_synced_lake_goes_on_wherever_the_power_went() {
    let (store, acknowledged) = lived().await;
    let all = store.changes();
    let changes = all.len();
    let states: Vec<State> = std::iter::once(None)
        .chain(STEPS.iter().map(|(_, rows)| Some(rows.to_vec())))
        .collect();
    for reached in 0..=changes {
        for deletes in [Damage::Kept, Damage::Lost] {
            let deleted = |change: &Change| matches!(change, Change::Deleted(_));
            if deletes == Damage::Lost && !all[..reached].iter().any(deleted) {
                continue;
            }
            let image = store.crash(|number, change| match change {
                _ if number >= reached => Damage::Lost,
                Change::Deleted(_) => deletes,
                Change::Written(..) => Damage::Kept,
            });
            let engine = open(image.await.unwrap()).await.unwrap();
            let session = engine.session();
            let context = format!("{reached} of {changes} changes, deletes {deletes:?}");
            let found = state(&session)
                .await
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            let done = acknowledged.iter().filter(|at| **at <= reached).count();
            // One more may have landed whose answer was still on its way.
            let possible = &states[done..states.len().min(done + 2)];
            assert!(possible.contains(&found), "{context}: {found:?}");
            goes_on(&session, found, &context).await;
        }
    }
}

async fn goes_on(session: &Session, found: State, context: &str) {
    if found.is_none() {
        query::run(session, STEPS[0].0).await;
    }
    query::write(session, "INSERT INTO t VALUES (99)").await;
    let mut rows = found.unwrap_or_default();
    rows.push(99);
    assert_eq!(state(session).await.unwrap(), Some(rows), "{context}");
}

/// Without syncing anything may be harmed, whatever came after it. Then a harmed object is not needed, or it is named;
/// rows are never quietly fewer, and a later write does not cover the hole up. Only the loss of the newest entry of a
/// log cannot be seen: it leaves the disk as if it had not been written.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_was_not_synced_names_what_is_harmed() {
    let (store, _) = lived().await;
    let changes = store.changes();
    let last = Some(STEPS[STEPS.len() - 1].1.to_vec());
    let mut named = 0;
    for (harmed, change) in changes.iter().enumerate() {
        let Change::Written(path, bytes) = change else {
            continue;
        };
        let later = |other: &Change| match other {
            Change::Written(later, _) => later.prefix_matches(&parent(path)),
            Change::Deleted(_) => false,
        };
        let newest = path.as_ref().ends_with(".json") && !changes[harmed + 1..].iter().any(later);
        for damage in Damage::all(bytes) {
            let image = store.crash(|number, _| match number == harmed {
                true => damage,
                false => Damage::Kept,
            });
            let image = image.await.unwrap();
            let session = open(image).await.unwrap().session();
            let context = format!("{path} {damage:?}");
            match state(&session).await {
                Ok(found) if found == last => goes_on(&session, found, &context).await,
                Ok(found) => assert!(newest && damage == Damage::Lost, "{context}: {found:?}"),
                Err(error) => {
                    let name = path.filename().unwrap();
                    assert!(error.to_string().contains(name), "{context}: {error}");
                    named += 1;
                    let _ = session.execute("INSERT INTO t VALUES (99)").await;
                    let error = state(&session).await.expect_err(&context);
                    assert!(error.to_string().contains(name), "{context}: {error}");
                }
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

//! What every lake outlives: a write to its store that fails, and a power loss, wherever in a story they come.
//!
//! A story is statements, each with what is there after it. `look` reads what is there of the lake's only table.

use std::fmt::Debug;
use std::sync::Arc;

use object_store::memory::InMemory;
use selvedge_engine::{Error, ErrorKind, Session};

use super::fault::{Fault, FaultStore, Op, Plan};
use super::lake::with_checkpoints;
use super::power::{Change, Damage, PowerLossStore};
use super::query;

/// Every write to the store fails once, in every way, in every step of `story`, which begins where `given` ends: what
/// was acknowledged is there exactly once, what was refused is not there at all and can be asked for again.
pub(crate) async fn every_write_fails_once<S: Clone + Debug + PartialEq>(
    given: &[(&str, S)],
    story: &[(&str, S)],
    look: impl AsyncFn(&Session) -> Result<S, Error>,
) {
    for fault in Fault::ALL {
        let mut k = 1;
        while one_fault(given, story, &look, fault, k).await >= k {
            k += 1;
        }
        assert!(k > story.len(), "{fault:?} was tried only {k} times");
    }
}

async fn one_fault<S: Clone + Debug + PartialEq>(
    given: &[(&str, S)],
    story: &[(&str, S)],
    look: &impl AsyncFn(&Session) -> Result<S, Error>,
    fault: Fault,
    k: usize,
) -> usize {
    let disk = Arc::new(InMemory::new());
    let store = FaultStore::new(disk.clone());
    let engine = with_checkpoints(store.clone()).await;
    let session = engine.session();
    let mut before = None;
    for (sql, after) in given {
        query::run(&session, sql).await;
        before = Some(after.clone());
    }
    engine.settle().await;
    store.arm(Plan::once(k, fault).ops(&Op::WRITES));
    for (sql, after) in story {
        let context = format!("{fault:?} at {k}: {sql}");
        let outcome = query::try_run(&session, sql).await;
        engine.settle().await;
        let now = left(&disk, look, &context).await;
        match outcome {
            Ok(()) => assert_eq!(now.as_ref(), Some(after), "{context} was acknowledged"),
            // Only a store that never answers leaves the outcome open; one fault is not that.
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Internal, "{context}: {error}");
                assert_eq!(now, before, "{context} was refused: {error}");
                query::run(&session, sql).await;
            }
        }
        before = left(&disk, look, &context).await;
        assert_eq!(before.as_ref(), Some(after), "{context}, again");
    }
    store.matched()
}

/// Syncing keeps what was acknowledged and the order in which it was; a delete is not synced, so what it took may be
/// there again. Wherever the power goes, no statement is half there, none that was acknowledged is missing, and the
/// next one finds a lake to go on with: `next` writes something more, and says what is there then.
pub(crate) async fn power_goes_anywhere<S: Clone + Debug + PartialEq>(
    story: &[(&str, S)],
    look: impl AsyncFn(&Session) -> Result<S, Error>,
    next: impl AsyncFn(&Session, S) -> S,
) {
    let (store, acknowledged) = lived(story).await;
    let all = store.changes();
    let states: Vec<Option<&S>> = std::iter::once(None)
        .chain(story.iter().map(|(_, after)| Some(after)))
        .collect();
    for reached in 0..=all.len() {
        for deletes in [Damage::Kept, Damage::Lost] {
            let deleted = |change: &Change| matches!(change, Change::Deleted(_));
            if deletes == Damage::Lost && !all[..reached].iter().any(deleted) {
                continue;
            }
            let disk = store.until(reached, deletes).await.unwrap();
            let context = format!("{reached} of {} changes, deletes {deletes:?}", all.len());
            let session = with_checkpoints(disk).await.session();
            let here = found(&session, &look)
                .await
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            let done = acknowledged.iter().filter(|at| **at <= reached).count();
            // One more may have landed whose answer was still on its way.
            let possible = &states[done..states.len().min(done + 2)];
            assert!(possible.contains(&here.as_ref()), "{context}: {here:?}");

            let here = match here {
                Some(here) => here,
                None => {
                    let (sql, after) = &story[0];
                    query::run(&session, sql).await;
                    after.clone()
                }
            };
            let after = next(&session, here).await;
            let here = look(&session).await.unwrap();
            assert_eq!(here, after, "{context}");
        }
    }
}

/// A disk on which a story took place, and how many changes it had seen when each step was acknowledged.
pub(crate) async fn lived<S>(story: &[(&str, S)]) -> (Arc<PowerLossStore>, Vec<usize>) {
    let store = Arc::new(PowerLossStore::default());
    let engine = with_checkpoints(store.clone()).await;
    let mut acknowledged = Vec::new();
    for (sql, _) in story {
        query::run(&engine.session(), sql).await;
        acknowledged.push(store.changes().len());
        engine.settle().await;
    }
    (store, acknowledged)
}

/// The story of a table `t` that [`rows`] looks at.
pub(crate) fn by_rows<const N: usize>(
    story: [(&'static str, &[i64]); N],
) -> [(&'static str, Vec<i64>); N] {
    story.map(|(sql, rows)| (sql, rows.to_vec()))
}

/// The column `a` of a table `t`, in order.
pub(crate) async fn rows(session: &Session) -> Result<Vec<i64>, Error> {
    query::try_integers(session, "SELECT a FROM t ORDER BY a").await
}

/// What is there; `None` where there is no table.
pub(crate) async fn found<S>(
    session: &Session,
    look: &impl AsyncFn(&Session) -> Result<S, Error>,
) -> Result<Option<S>, Error> {
    if session.tables().await?.is_empty() {
        return Ok(None);
    }
    look(session).await.map(Some)
}

/// What a new engine finds on the disk.
async fn left<S>(
    disk: &Arc<InMemory>,
    look: &impl AsyncFn(&Session) -> Result<S, Error>,
    context: &str,
) -> Option<S> {
    let session = with_checkpoints(disk.clone()).await.session();
    let found = found(&session, look).await;
    found.unwrap_or_else(|error| panic!("{context}: {error}"))
}

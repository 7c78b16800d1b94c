//! The store that fails on purpose, tested itself: a fault that does nothing proves nothing.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};

use crate::support::fault::{Call, Fault, FaultStore, Op, Plan};

fn path(name: &str) -> Path {
    Path::from(name)
}

async fn create(store: &FaultStore, name: &str) -> object_store::Result<()> {
    let path = path(name);
    let created = store.put_opts(&path, "1".into(), PutMode::Create.into());
    created.await.map(|_| ())
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    for fault in Fault::ALL {
        let disk = Arc::new(InMemory::new());
        let store = FaultStore::new(disk.clone());
        store.arm(Plan::once(1, fault));
        let error = create(&store, "x").await.unwrap_err();
        let there = disk.head(&path("x")).await.is_ok();
        assert_eq!(there, fault != Fault::FailBefore, "{fault:?}");
        let exists = matches!(error, Error::AlreadyExists { .. });
        assert_eq!(exists, fault == Fault::AmbiguousExists, "{error}");
        assert_eq!(
            error.to_string().contains("timeout"),
            fault == Fault::TimeoutAfterApply
        );
        assert_eq!(
            store.history(),
            [Call {
                op: Op::Create,
                path: path("x"),
                fault: Some(fault)
            }]
        );
        create(&store, "y").await.unwrap();
    }
}

#[tokio::test]
async fn an_operation_that_fails_by_itself_keeps_its_error() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    store.arm(Plan::from(1, Fault::FailAfter));
    let error = store.get(&path("missing")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn plans_count_what_they_match() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let outcomes = async |plan: Plan, names: &[&str]| {
        store.arm(plan);
        let mut outcomes = String::new();
        for name in names {
            let put = store.put(&path(name), "1".into()).await;
            outcomes.push(if put.is_ok() { '.' } else { 'x' });
        }
        outcomes
    };
    let names = ["a", "log/b", "c", "log/d", "e", "log/f"];
    let fault = Fault::FailBefore;
    assert_eq!(outcomes(Plan::once(2, fault), &names).await, ".x....");
    assert_eq!(outcomes(Plan::every(2, fault), &names).await, ".x.x.x");
    assert_eq!(outcomes(Plan::from(5, fault), &names).await, "....xx");
    assert_eq!(
        outcomes(Plan::once(2, fault).path("log/"), &names).await,
        "...x.."
    );
    assert_eq!(store.matched(), 3);
    assert_eq!(
        outcomes(Plan::from(1, fault).ops(&[Op::Create]), &names).await,
        "......"
    );
    assert_eq!(store.matched(), 0);
    assert_eq!(
        outcomes(Plan::from(1, Fault::AmbiguousExists), &names).await,
        "......"
    );
    store.disarm();
    create(&store, "g").await.unwrap();
}

#[tokio::test]
async fn uploads_listings_and_deletes_fail_too() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    for op in [Op::MultipartStart, Op::MultipartPart, Op::MultipartComplete] {
        store.arm(Plan::once(1, Fault::FailBefore).ops(&[op]));
        let upload = async {
            let mut upload = store.put_multipart(&path("big")).await?;
            upload.put_part("abc".into()).await?;
            upload.complete().await
        };
        assert!(upload.await.is_err(), "{op:?}");
        assert!(store.head(&path("big")).await.is_err());
    }
    store.disarm();
    for name in ["a", "b", "c"] {
        create(&store, name).await.unwrap();
    }
    for (fault, seen) in [(Fault::FailBefore, 0), (Fault::FailAfter, 3)] {
        store.arm(Plan::once(1, fault).ops(&[Op::List]));
        let mut listing = store.list(None);
        let mut entries = 0;
        let failed = loop {
            match listing.try_next().await {
                Ok(Some(_)) => entries += 1,
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert_eq!((entries, failed), (seen, true));
        store.arm(Plan::once(1, fault).ops(&[Op::List]));
        assert!(store.list_with_delimiter(None).await.is_err());
    }
    store.arm(Plan::once(2, Fault::FailBefore).ops(&Op::WRITES));
    store.delete(&path("a")).await.unwrap();
    assert!(store.delete(&path("b")).await.is_err());
    assert!(store.head(&path("b")).await.is_ok());
}

//! What a lake needs of a store, over the real S3 protocol.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::{join_all, try_join_all};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::support::s3::S3;

async fn read(store: &dyn ObjectStore, path: &Path) -> Bytes {
    store.get(path).await.unwrap().bytes().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_exactly_one_wins() {
    let s3 = S3::start().await;
    let path = Path::from("t/_delta_log/00000000000000000000.json");
    let tries = (0..16u32).map(|writer| {
        let (store, path) = (s3.store(), path.clone());
        tokio::spawn(async move {
            let payload = PutPayload::from(writer.to_string());
            (
                writer,
                store.put_opts(&path, payload, PutMode::Create.into()).await,
            )
        })
    });
    let mut winners = vec![];
    for outcome in join_all(tries).await {
        match outcome.unwrap() {
            (writer, Ok(_)) => winners.push(writer),
            (_, Err(Error::AlreadyExists { .. })) => {}
            (_, Err(other)) => panic!("{other}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(read(&*s3.store(), &path).await, winners[0].to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_tags_and_conditions() {
    let s3 = S3::start().await;
    let store = s3.store();
    let path = Path::from("a b/ü%20=1.json");
    let first = store.put(&path, "first".into()).await.unwrap();
    assert!(first.e_tag.is_some());
    assert_eq!(first.e_tag, store.head(&path).await.unwrap().e_tag);

    let stale = first.clone();
    let update = PutMode::Update(first.into());
    let second = store
        .put_opts(&path, "second".into(), update.into())
        .await
        .unwrap();
    assert_ne!(second.e_tag, stale.e_tag);
    let late = PutMode::Update(stale.clone().into());
    let late = store
        .put_opts(&path, "late".into(), late.into())
        .await
        .unwrap_err();
    assert!(matches!(late, Error::Precondition { .. }), "{late}");
    assert_eq!(read(&*store, &path).await, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_listings_copies_and_deletes() {
    let s3 = S3::start().await;
    let store = s3.store();
    let names = [
        "t/1.parquet",
        "t/_delta_log/0.json",
        "t/p=1/2.parquet",
        "tt/3.parquet",
    ];
    for name in names {
        store
            .put(&Path::from(name), "0123456789".into())
            .await
            .unwrap();
    }
    let ranges = store
        .get_ranges(&Path::from(names[0]), &[1..3, 8..10])
        .await
        .unwrap();
    assert_eq!(ranges, ["12", "89"]);

    let table = Path::from("t");
    let listed: Vec<_> = store.list(Some(&table)).try_collect().await.unwrap();
    let mut listed: Vec<_> = listed.iter().map(|meta| meta.location.as_ref()).collect();
    listed.sort();
    assert_eq!(listed, &names[..3]);
    let folder = store.list_with_delimiter(Some(&table)).await.unwrap();
    assert_eq!(folder.objects.len(), 1);
    assert_eq!(
        folder.common_prefixes,
        [Path::from("t/_delta_log"), Path::from("t/p=1")]
    );

    store
        .copy(&Path::from(names[0]), &Path::from("copy"))
        .await
        .unwrap();
    assert_eq!(read(&*store, &Path::from("copy")).await, "0123456789");

    store.delete(&Path::from(names[0])).await.unwrap();
    let gone = store.get(&Path::from(names[0])).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound { .. }), "{gone}");
    // Deleting what has gone is no error on S3: a clean-up may run twice.
    store.delete(&Path::from(names[0])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn multipart() {
    let s3 = S3::start().await;
    let store = s3.store();
    let path = Path::from("big.parquet");
    let part = |i: u8| vec![i; 5 << 20];
    let mut upload = store.put_multipart(&path).await.unwrap();
    let parts: Vec<_> = (0..3).map(|i| upload.put_part(part(i).into())).collect();
    try_join_all(parts).await.unwrap();
    assert!(store.head(&path).await.is_err());
    upload.complete().await.unwrap();
    assert_eq!(
        read(&*store, &path).await,
        (0..3).flat_map(part).collect::<Vec<_>>()
    );

    let mut upload = store.put_multipart(&Path::from("never")).await.unwrap();
    upload.put_part(part(1).into()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(store.head(&Path::from("never")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_refused() {
    let s3 = S3::start().await;
    let store: Arc<dyn ObjectStore> = s3.stranger();
    let refused = store.put(&Path::from("x"), "1".into()).await.unwrap_err();
    assert!(
        matches!(refused, Error::PermissionDenied { .. }),
        "{refused}"
    );
}

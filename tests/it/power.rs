//! The model of a power loss, tested itself.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::support::power::{Change, Damage, PowerLossStore};

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

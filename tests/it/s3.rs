//! What a lake needs of a remote store: over the real S3 protocol, and as the variables of each kind of store tell it.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::{join_all, try_join_all};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use selvedge_engine::Engine;

use crate::support::query;
use crate::support::s3::S3;

const LAKE: &str = "SELVEDGE_TEST_LAKE";

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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of the_environment_says_where_and_who"]
async fn child() {
    let lake = std::env::var(LAKE).expect("run by its parent test");
    match Engine::builder(&lake).open().await {
        Ok(engine) => {
            let session = engine.session();
            query::run(&session, "CREATE TABLE IF NOT EXISTS t (a BIGINT)").await;
            query::write(&session, "INSERT INTO t VALUES (7)").await;
            let rows = query::integers(&session, "SELECT a FROM t").await;
            println!("\nanswer: {rows:?}");
        }
        Err(error) => println!("\nanswer: {:?}: {:?}", error.kind(), error.to_string()),
    }
}

/// What a process that has only these variables of stores says of the lake.
async fn answer(lake: String, environment: Vec<(&'static str, String)>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["s3::child", "--exact", "--ignored", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        let stores = ["AWS_", "GOOGLE_", "AZURE_"];
        if stores
            .iter()
            .any(|store| name.to_string_lossy().starts_with(store))
        {
            command.env_remove(name);
        }
    }
    command.env(LAKE, lake).envs(environment);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = String::from_utf8(output.await.unwrap().stdout).unwrap();
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("answer: "));
    line.unwrap_or_else(|| panic!("{output}")).to_owned()
}

/// Nothing but the usual variables is needed, and what is wrong with them is told by the first statement.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_says_where_and_who() {
    let s3 = S3::start().await;
    let right: Vec<_> = s3
        .environment()
        .map(|(name, value)| (name, value.to_owned()))
        .into();
    let with = |name: &'static str, value: &str| {
        let mut changed = right.clone();
        changed.push((name, value.to_owned()));
        changed
    };
    assert_eq!(answer(s3.url("x"), right.clone()).await, "[7]");
    // The variable for this service alone goes before the one for all.
    let (own, rest): (Vec<_>, Vec<_>) = right
        .iter()
        .cloned()
        .partition(|(name, _)| *name == "AWS_ENDPOINT_URL");
    let mut split = rest;
    split.push(("AWS_ENDPOINT_URL_S3", own[0].1.clone()));
    split.push(("AWS_ENDPOINT_URL", "http://127.0.0.1:9".to_owned()));
    assert_eq!(answer(s3.url("x"), split).await, "[7, 7]");
    for (lake, environment, words) in [
        (
            s3.url("y"),
            with("AWS_SECRET_ACCESS_KEY", "guessed"),
            [
                "lake s3://lake/y/ cannot be read",
                "403",
                "AWS_SECRET_ACCESS_KEY",
            ],
        ),
        (
            s3.url("y"),
            with("AWS_ACCESS_KEY_ID", "nobody"),
            [
                "lake s3://lake/y/ cannot be read",
                "403",
                "AWS_SECRET_ACCESS_KEY",
            ],
        ),
        (
            "s3://elsewhere/y".to_owned(),
            right.clone(),
            [
                "lake s3://elsewhere/y/ cannot be read",
                "404",
                "bucket's name",
            ],
        ),
    ] {
        let told = answer(lake, environment).await;
        for word in words {
            assert!(told.contains(word), "should say {word}: {told}");
        }
    }
    assert_eq!(answer(s3.url("x"), right).await, "[7, 7, 7]");
}

/// Google's store is reached by its own client; the server behind it is the same as for S3.
#[tokio::test(flavor = "multi_thread")]
async fn google_is_told_by_its_own_variables() {
    let google = S3::like_google().await;
    let account = vec![google.google_environment()];
    let lake = "gs://lake/a b/x".to_owned();
    assert_eq!(answer(lake.clone(), account.clone()).await, "[7]");
    assert_eq!(answer(lake, account.clone()).await, "[7, 7]");
    let told = answer("gs://elsewhere/x".to_owned(), account).await;
    for word in [
        "lake gs://elsewhere/x/ cannot be read",
        "404",
        "bucket's name",
    ] {
        assert!(told.contains(word), "should say {word}: {told}");
    }
}

/// Before anything is asked of a store: what is missing, and which variables say it.
#[tokio::test(flavor = "multi_thread")]
async fn missing_variables_are_named() {
    let missing = "/nowhere/account.json".to_owned();
    for (lake, environment, words) in [
        (
            "gs://lake/x",
            vec![("GOOGLE_SERVICE_ACCOUNT", missing.clone())],
            [
                "Invalid",
                "gs://lake/x",
                "/nowhere/account.json",
                "GOOGLE_SERVICE_ACCOUNT",
            ],
        ),
        (
            "gs://lake/x",
            vec![("GOOGLE_SERVICE_ACCOUNT_KEY", "{".to_owned())],
            ["Invalid", "gs://lake/x", "", "GOOGLE_SERVICE_ACCOUNT"],
        ),
        (
            "az://lake/x",
            vec![],
            [
                "Invalid",
                "az://lake/x",
                "Account",
                "AZURE_STORAGE_ACCOUNT_NAME",
            ],
        ),
        (
            "az://lake/x",
            vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", "a".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", "no base64!".to_owned()),
            ],
            ["Invalid", "az://lake/x", "", "AZURE_STORAGE_ACCOUNT_KEY"],
        ),
        (
            "gs:///x",
            vec![],
            ["Invalid", "gs:///x", "no bucket", "gs://bucket/path"],
        ),
        (
            "az:///x",
            vec![],
            ["Invalid", "az:///x", "no bucket", "az://bucket/path"],
        ),
    ] {
        let told = answer(lake.to_owned(), environment).await;
        for word in words {
            assert!(told.contains(word), "{lake} should say {word}: {told}");
        }
    }
}

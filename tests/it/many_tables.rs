//! A lake of many tables: what is listed comes from the catalog, in a handful of requests, and opens no table.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use selvedge_engine::TableKind;
use serde_json::{Value, json};

use crate::support::fault::{FaultStore, Op};
use crate::support::lake::open;
use crate::support::query;

const TABLES: usize = 10_000;

/// Requests of a listing: of the catalog's log, its newest whole state, and the steps since.
const REQUESTS: usize = 2 + 64;

/// A lake with one table that is there and, beside it in the catalog, [`TABLES`] that have nothing but their names.
async fn lake() -> Arc<InMemory> {
    let disk = Arc::new(InMemory::new());
    let session = open(disk.clone()).await.session();
    query::run(&session, "CREATE TABLE here (a BIGINT)").await;
    query::run(&session, "INSERT INTO here VALUES (1)").await;
    // What CREATE TABLE wrote, as often as there are to be tables, in one step.
    let step = |version: u64| Path::from(format!("_selvedge/catalog/{version:020}.json"));
    let written = disk.get(&step(1)).await.unwrap().bytes().await.unwrap();
    let mut written: Value = serde_json::from_slice(&written).unwrap();
    let made = written["changes"][0].clone();
    assert_eq!(
        (&made["change"], &made["name"]),
        (&json!("put"), &json!("here"))
    );
    let changes = (0..TABLES).map(|n| {
        let mut made = made.clone();
        made["name"] = json!(format!("t{n:05}"));
        made["relation"]["id"] = json!(format!("id of {n}"));
        made["relation"]["location"] = json!(format!("public/t{n:05}"));
        made
    });
    written["changes"] = changes.collect();
    written["token"] = json!("many");
    disk.put(&step(2), written.to_string().into())
        .await
        .unwrap();
    // From here on as any lake grows, until the catalog has been condensed.
    for n in 0..70 {
        query::run(&session, &format!("CREATE SCHEMA s{n}")).await;
    }
    disk
}

#[tokio::test(flavor = "multi_thread")]
async fn listing_ten_thousand_tables_opens_none() {
    let disk = lake().await;
    let count = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    for listing in ["SHOW TABLES", "tables()", count, "SHOW TABLES LIKE 't00%'"] {
        let store = FaultStore::new(disk.clone());
        let session = open(store.clone()).await.session();
        let rows = match listing {
            "tables()" => {
                let tables = session.tables().await.unwrap();
                assert!(tables.iter().all(|table| table.kind == TableKind::Table));
                tables.len()
            }
            sql => {
                let batches = query::batches(&session, sql).await;
                match sql == count {
                    true => batches[0].column(0).as_primitive::<Int64Type>().value(0) as usize,
                    false => batches.iter().map(|batch| batch.num_rows()).sum(),
                }
            }
        };
        let expected = if listing.contains("LIKE") {
            1_000
        } else {
            TABLES + 1
        };
        assert_eq!(rows, expected, "{listing}");
        let history = store.history();
        let inside = |path: &Path| path.as_ref().starts_with("_selvedge/catalog");
        let outside: Vec<_> = history.iter().filter(|call| !inside(&call.path)).collect();
        assert!(
            outside.is_empty(),
            "{listing} looked at {:?}",
            &outside[..1]
        );
        assert!(
            history.len() <= REQUESTS,
            "{listing} took {} requests",
            history.len()
        );
        // Once it is known, one look for something newer is all.
        let known = history.len();
        session.tables().await.unwrap();
        let again = &store.history()[known..];
        assert_eq!(
            again.iter().map(|call| call.op).collect::<Vec<_>>(),
            [Op::List],
            "{listing}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_opens_only_the_tables_it_names() {
    let store = FaultStore::new(lake().await);
    let session = open(store.clone()).await.session();
    assert_eq!(query::integers(&session, "SELECT a FROM here").await, [1]);
    query::write(&session, "INSERT INTO here VALUES (2)").await;
    let error = query::error(&session, "SELECT * FROM t0123x").await;
    assert!(
        error.contains("table public.t0123x does not exist"),
        "{error}"
    );
    assert!(error.contains("did you mean t0123"), "{error}");
    // A table whose log is not there is found out when it is read, and named.
    let error = query::error(&session, "SELECT * FROM t00042").await;
    assert!(
        error.contains("table public.t00042 has no Delta log"),
        "{error}"
    );
    let strangers = store.history().into_iter().filter(|call| {
        let path = call.path.as_ref();
        path.starts_with("public/t") && !path.starts_with("public/t00042")
    });
    assert_eq!(strangers.count(), 0);
}

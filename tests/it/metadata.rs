//! What a table says of itself, where SQL files cannot show it.

use std::sync::Arc;

use arrow::array::AsArray;
use object_store::memory::InMemory;
use selvedge_engine::Session;

use crate::support::fault::{FaultStore, Op};
use crate::support::lake::{in_memory, open};
use crate::support::query;

/// The one text of a query.
async fn text(session: &Session, sql: &str, column: usize) -> String {
    let batches = query::batches(session, sql).await;
    let array = batches[0].column(column);
    array.as_string::<i32>().value(0).to_owned()
}

/// Everything a table may be given by SQL, with names and texts that need quotes.
const WHOLE: &str = r#"
CREATE TABLE shop."Über ""all"" tables" (
  id BIGINT NOT NULL COMMENT 'it''s the key',
  "select" TEXT DEFAULT 'it''s' COMMENT 'a
second line',
  "Mixed-Case" DECIMAL(38,10) DEFAULT -1.5 + 0.25,
  flag BOOLEAN NOT NULL DEFAULT true,
  tiny TINYINT, small SMALLINT, whole INT DEFAULT 7, real REAL, double DOUBLE, raw BYTEA,
  day DATE DEFAULT DATE '2024-02-29',
  at TIMESTAMP WITH TIME ZONE DEFAULT now(),
  wall TIMESTAMP,
  list INT[],
  lists TEXT[][],
  place STRUCT<"Zip-Code" TEXT, inner_part STRUCT<"order" INT, xs BIGINT[]>>,
  names MAP(TEXT, STRUCT<"a-b" INT>),
  CONSTRAINT "Small, and 'quoted'" CHECK ("Mixed-Case" < 100 OR "select" <> 'it''s'),
  CONSTRAINT known CHECK (id > 0)
)
COMMENT 'a table''s comment'
PARTITIONED BY (day, "select")
TBLPROPERTIES ('delta.appendOnly' = 'true', 'delta.checkpointInterval' = '7', 'selvedge.overwrite' = 'partitions',
  'delta.dataSkippingStatsColumns' = 'id,`Mixed-Case`')
"#;

#[tokio::test(flavor = "multi_thread")]
async fn show_create_table_makes_the_table_again() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(&session, "CREATE SCHEMA shop").await;
    query::run(&session, "CREATE SCHEMA \"Other\"").await;
    query::run(&session, WHOLE).await;
    let first = r#"shop."Über ""all"" tables""#;
    let second = r#""Other".twin"#;
    let made = text(&session, &format!("SHOW CREATE TABLE {first}"), 1).await;
    let again = made.replacen(first, second, 1);
    assert_ne!(made, again, "{made}");
    query::run(&session, &again).await;
    let copied = text(&session, &format!("SHOW CREATE TABLE {second}"), 1).await;
    assert_eq!(copied, again);
    // Not only the same text: the same table, as the log has it.
    let listed = async |table: &str, relation: &str| {
        let name = format!("{}${relation}\"", table.trim_end_matches('"'));
        let name = name.replace("Other\".twin", "Other\".\"twin");
        let sql = format!("SELECT * FROM {name}");
        let batches = query::batches(&session, &sql).await;
        arrow::util::pretty::pretty_format_batches(&batches)
            .unwrap()
            .to_string()
    };
    for relation in ["properties", "constraints"] {
        assert_eq!(
            listed(first, relation).await,
            listed(second, relation).await
        );
    }
    for statement in ["DESCRIBE", "SHOW COLUMNS FROM"] {
        let of = async |table: &str| {
            let batches = query::batches(&session, &format!("{statement} {table}")).await;
            arrow::util::pretty::pretty_format_batches(&batches)
                .unwrap()
                .to_string()
        };
        assert_eq!(of(first).await, of(second).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_about_a_table_read_its_log_alone() {
    let store = FaultStore::new(Arc::new(InMemory::new()));
    let engine = open(store.clone()).await;
    let session = engine.session();
    query::run(
        &session,
        "CREATE TABLE t (a BIGINT, p TEXT) PARTITIONED BY (p) TBLPROPERTIES ('selvedge.autoOptimize' = 'false')",
    )
    .await;
    for n in 0..40 {
        query::write(
            &session,
            &format!("INSERT INTO t VALUES ({n}, 'p{}')", n % 2),
        )
        .await;
    }
    engine.settle().await;
    let read = async |sql: &str| {
        let before = store.history().len();
        query::rows(&session, sql).await;
        let paths = store.history().split_off(before);
        let paths = paths.into_iter().filter(|call| call.op == Op::Get);
        paths.map(|call| call.path.to_string()).collect::<Vec<_>>()
    };
    let commits = |paths: &[String]| {
        let commits = paths.iter().filter(|path| path.ends_with(".json"));
        commits.count()
    };
    for relation in [
        "files",
        "partitions",
        "properties",
        "constraints",
        "history",
    ] {
        let paths = read(&format!("SELECT * FROM \"t${relation}\"")).await;
        assert!(
            !paths.iter().any(|path| path.ends_with(".parquet")),
            "{relation}: {paths:?}"
        );
    }
    // One more each: whether there is a version after the newest one known.
    for (sql, most) in [
        ("SELECT * FROM \"t$history\"", 41),
        ("SELECT * FROM \"t$history\" LIMIT 3", 3),
        (
            "SELECT * FROM \"t$history\" ORDER BY version DESC LIMIT 3",
            32,
        ),
        ("SELECT operation FROM \"t$history\" WHERE version = 7", 1),
        (
            "SELECT * FROM \"t$history\" WHERE version > 36 AND rows_written > 0",
            4,
        ),
        // Read once for the version itself, and once for its history.
        ("SELECT * FROM \"t$history\" VERSION AS OF 2", 6),
    ] {
        let paths = read(sql).await;
        assert!(commits(&paths) <= most + 1, "{sql}: {paths:?}");
    }
}

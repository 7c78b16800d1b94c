//! Every door of the write path, in one list, with rules behind each.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::BoxFuture;
use futures::stream;
use selvedge_engine::{Engine, Error, IngestMode, Session};
use selvedge_server::{Server, ServerOptions};
use tonic::transport::{Channel, Endpoint};

use crate::support::lake::in_memory;
use crate::support::query;

/// What every table of these tests asks of its rows.
const RULES: &str = "CONSTRAINT low EXPECT (a >= 0) ON VIOLATION QUARANTINE ROW, \
    CONSTRAINT thirteen EXPECT (a <> 13) ON VIOLATION DROP ROW, \
    CONSTRAINT high EXPECT (a < 100), \
    CONSTRAINT few EXPECT (count(*) < 10)";

pub(crate) type Run = for<'a> fn(&'a Engine, i64) -> BoxFuture<'a, Result<(), String>>;

/// A way rows reach a table.
pub(crate) struct Door {
    pub(crate) name: &'static str,
    /// Whether the table is there before, with a row of 1.
    pub(crate) table: Table,
    pub(crate) run: Run,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    There,
    /// There, and the row of 1 is what the door changes: where the new row is put aside, the old one stays.
    Changed,
    /// There, and replaced by what comes.
    Replaced,
    /// Made by the door.
    Made,
}

async fn sql(engine: &Engine, text: String) -> Result<(), String> {
    let done = query::try_run(&engine.session(), &text).await;
    done.map_err(|error| error.to_string())
}

fn batch(value: i64) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![value]))]).unwrap()
}

async fn copy_into(engine: &Engine, name: &str, text: String) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    sql(engine, format!("COPY INTO t FROM '{}'", file.display())).await
}

/// A client of a server over the engine, and what keeps the server.
async fn flight(engine: &Engine) -> (FlightSqlServiceClient<Channel>, tokio::task::JoinHandle<()>) {
    let server = Server::bind(engine.clone(), ServerOptions::default())
        .await
        .unwrap();
    let endpoint = format!("http://{}", server.local_addr());
    let task = tokio::spawn(async move {
        server.serve(std::future::pending()).await.unwrap();
    });
    let channel = Endpoint::from_shared(endpoint)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = FlightSqlServiceClient::new(channel);
    client.handshake("", "").await.unwrap();
    (client, task)
}

/// Every way rows reach a table. A new one belongs in this list.
pub(crate) const DOORS: [Door; 22] = [
    Door {
        name: "INSERT VALUES",
        table: Table::There,
        run: |engine, value| Box::pin(sql(engine, format!("INSERT INTO t VALUES ({value})"))),
    },
    Door {
        name: "INSERT SELECT",
        table: Table::There,
        run: |engine, value| {
            Box::pin(sql(
                engine,
                format!("INSERT INTO t SELECT a + {value} - 1 FROM t"),
            ))
        },
    },
    Door {
        name: "INSERT OVERWRITE",
        table: Table::Replaced,
        run: |engine, value| Box::pin(sql(engine, format!("INSERT OVERWRITE t VALUES ({value})"))),
    },
    Door {
        name: "INSERT REPLACE WHERE",
        table: Table::Replaced,
        run: |engine, value| {
            Box::pin(sql(
                engine,
                format!("INSERT INTO t REPLACE WHERE a < 1000 VALUES ({value})"),
            ))
        },
    },
    Door {
        name: "UPDATE",
        table: Table::Changed,
        run: |engine, value| Box::pin(sql(engine, format!("UPDATE t SET a = {value} WHERE a = 1"))),
    },
    Door {
        name: "MERGE, matched",
        table: Table::Changed,
        run: |engine, value| {
            Box::pin(sql(
                engine,
                format!(
                    "MERGE INTO t USING (VALUES (1)) AS s(k) ON t.a = s.k WHEN MATCHED THEN UPDATE SET a = {value}"
                ),
            ))
        },
    },
    Door {
        name: "MERGE, not matched",
        table: Table::There,
        run: |engine, value| {
            Box::pin(sql(
                engine,
                format!(
                    "MERGE INTO t USING (VALUES ({value})) AS s(k) ON t.a = s.k WHEN NOT MATCHED THEN INSERT (a) VALUES (s.k)"
                ),
            ))
        },
    },
    Door {
        name: "MERGE, not matched by source",
        table: Table::Changed,
        run: |engine, value| {
            Box::pin(sql(
                engine,
                format!(
                    "MERGE INTO t USING (VALUES (2)) AS s(k) ON t.a = s.k WHEN NOT MATCHED BY SOURCE THEN UPDATE SET a = {value}"
                ),
            ))
        },
    },
    Door {
        name: "CREATE TABLE AS",
        table: Table::Made,
        run: |engine, value| {
            Box::pin(sql(
                engine,
                format!(
                    "CREATE TABLE t ({RULES}) AS SELECT CAST({value} AS BIGINT) AS a UNION ALL SELECT 1"
                ),
            ))
        },
    },
    Door {
        name: "CREATE TABLE (columns) AS",
        table: Table::Made,
        run: |engine, value| {
            Box::pin(sql(
                engine,
                format!("CREATE TABLE t (a BIGINT, {RULES}) AS SELECT {value} UNION ALL SELECT 1"),
            ))
        },
    },
    Door {
        name: "COPY INTO from CSV",
        table: Table::There,
        run: |engine, value| Box::pin(copy_into(engine, "rows.csv", format!("a\n{value}\n"))),
    },
    Door {
        name: "COPY INTO from JSON",
        table: Table::There,
        run: |engine, value| {
            Box::pin(copy_into(
                engine,
                "rows.json",
                format!("{{\"a\":{value}}}\n"),
            ))
        },
    },
    Door {
        name: "COPY INTO from Parquet",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("rows.parquet");
                let file = file.display();
                sql(
                    engine,
                    format!(
                        "COPY (SELECT CAST({value} AS BIGINT) AS a) TO '{file}' STORED AS PARQUET"
                    ),
                )
                .await?;
                sql(engine, format!("COPY INTO t FROM '{file}'")).await
            })
        },
    },
    Door {
        name: "DataFrame",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                let frame = engine
                    .session()
                    .query(&format!("SELECT CAST({value} AS BIGINT) AS a"))
                    .await
                    .map_err(|error| error.to_string())?;
                let written = frame.write_table("t", DataFrameWriteOptions::new()).await;
                written
                    .map(drop)
                    .map_err(|error| Error::from(error).to_string())
            })
        },
    },
    Door {
        name: "ingest",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                let rows = batch(value);
                let rows = RecordBatchStreamAdapter::new(rows.schema(), stream::iter([Ok(rows)]));
                let written = engine
                    .session()
                    .ingest(None, "t", IngestMode::Append, Box::pin(rows))
                    .await;
                written.map(drop).map_err(|error| error.to_string())
            })
        },
    },
    Door {
        name: "prepared with rows",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                let told = |error: Error| error.to_string();
                let session = engine.session();
                let prepared = session
                    .prepare("INSERT INTO t (a) VALUES (?)")
                    .await
                    .map_err(told)?;
                prepared
                    .execute_many(&[batch(value)])
                    .await
                    .map(drop)
                    .map_err(told)
            })
        },
    },
    Door {
        name: "EXECUTE",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                let told = |error: Error| error.to_string();
                let session = engine.session();
                session
                    .execute("PREPARE door AS INSERT INTO t (a) VALUES ($1)")
                    .await
                    .map_err(told)?;
                session
                    .execute(&format!("EXECUTE door({value})"))
                    .await
                    .map(drop)
                    .map_err(told)
            })
        },
    },
    Door {
        name: "EXPLAIN ANALYZE",
        table: Table::There,
        run: |engine, value| {
            Box::pin(sql(
                engine,
                format!("EXPLAIN ANALYZE INSERT INTO t VALUES ({value})"),
            ))
        },
    },
    Door {
        name: "REPLAY QUARANTINE",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                sql(engine, "INSERT INTO t VALUES (-77)".to_owned()).await?;
                let outcome = sql(
                    engine,
                    format!("REPLAY QUARANTINE t SET a = {value} WHERE a = -77"),
                )
                .await;
                if outcome.is_err() {
                    // A refused replay leaves the row where it was; the test looks at what the door did.
                    sql(
                        engine,
                        "REPLAY QUARANTINE t SET a = 13 WHERE a = -77".to_owned(),
                    )
                    .await?;
                }
                outcome
            })
        },
    },
    Door {
        name: "Flight SQL statement",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                let (mut client, task) = flight(engine).await;
                let done = client
                    .execute_update(format!("INSERT INTO t VALUES ({value})"), None)
                    .await;
                task.abort();
                done.map(drop).map_err(|error| error.to_string())
            })
        },
    },
    Door {
        name: "Flight SQL prepared with rows",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                let (mut client, task) = flight(engine).await;
                let mut prepared = client
                    .prepare("INSERT INTO t (a) VALUES (?)".to_owned(), None)
                    .await
                    .unwrap();
                prepared.set_parameters(batch(value)).unwrap();
                let done = prepared.execute_update().await;
                task.abort();
                done.map(drop).map_err(|error| error.to_string())
            })
        },
    },
    Door {
        name: "Flight SQL bulk ingest",
        table: Table::There,
        run: |engine, value| {
            Box::pin(async move {
                let (mut client, task) = flight(engine).await;
                let command = CommandStatementIngest {
                    table_definition_options: Some(TableDefinitionOptions {
                        if_not_exist: TableNotExistOption::Fail.into(),
                        if_exists: TableExistsOption::Append.into(),
                    }),
                    table: "t".to_owned(),
                    schema: None,
                    catalog: None,
                    temporary: false,
                    transaction_id: None,
                    options: HashMap::default(),
                };
                let done = client
                    .execute_ingest(command, stream::iter([Ok(batch(value))]))
                    .await;
                task.abort();
                done.map(drop).map_err(|error| error.to_string())
            })
        },
    },
];

async fn integers(session: &Session, column: &str, from: &str) -> Vec<i64> {
    if session.tables().await.unwrap().is_empty() {
        return Vec::new();
    }
    query::integers(session, &format!("SELECT {column} FROM {from} ORDER BY 1")).await
}

/// A lake as the door finds it.
pub(crate) async fn lake(door: &Door) -> Engine {
    let engine = in_memory().await;
    if door.table != Table::Made {
        let session = engine.session();
        query::run(&session, &format!("CREATE TABLE t (a BIGINT, {RULES})")).await;
        query::write(&session, "INSERT INTO t VALUES (1)").await;
    }
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn q12_every_door_leads_through_the_rules() {
    for door in DOORS {
        let name = door.name;
        // A row that holds.
        let engine = lake(&door).await;
        (door.run)(&engine, 5)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let session = engine.session();
        let rows = integers(&session, "a", "t").await;
        assert!(rows.contains(&5), "{name}: {rows:?}");
        let asked = "SELECT count(DISTINCT rule) FROM \"t$quality\" WHERE version = (SELECT max(version) FROM \"t$history\")";
        assert_eq!(
            query::integers(&session, asked).await,
            [4],
            "{name}: a rule was not asked"
        );

        // What stays of the table where the row does not get in.
        let left: &[i64] = match door.table {
            Table::Replaced => &[],
            _ => &[1],
        };
        for (value, aside) in [(-1, &[-1][..]), (13, &[])] {
            let engine = lake(&door).await;
            (door.run)(&engine, value)
                .await
                .unwrap_or_else(|error| panic!("{name}, {value}: {error}"));
            let session = engine.session();
            assert_eq!(
                integers(&session, "a", "t").await,
                left,
                "{name}: {value} landed"
            );
            assert_eq!(
                integers(&session, "a", "\"t$quarantine\"").await,
                aside,
                "{name}: {value}"
            );
        }

        // A row that refuses the write.
        let engine = lake(&door).await;
        let error = (door.run)(&engine, 100).await.expect_err(name);
        assert!(
            error.contains("high"),
            "{name} should name the rule: {error}"
        );
        let session = engine.session();
        let before: &[i64] = if door.table == Table::Made { &[] } else { &[1] };
        assert_eq!(
            integers(&session, "a", "t").await,
            before,
            "{name}: a refused row landed"
        );
        assert_eq!(
            integers(&session, "a", "\"t$quarantine\"").await,
            [0; 0],
            "{name}"
        );
    }
}

/// What ingest makes anew has no rules; what it replaces keeps none.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_about_all_rows_holds_at_every_door() {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(&session, &format!("CREATE TABLE t (a BIGINT, {RULES})")).await;
    let rows: Vec<i64> = (0..10).collect();
    let schema = batch(0).schema();
    let many = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(rows))]).unwrap();
    let stream = RecordBatchStreamAdapter::new(many.schema(), stream::iter([Ok(many.clone())]));
    let ingested = session
        .ingest(None, "t", IngestMode::Append, Box::pin(stream))
        .await;
    let prepared = session
        .prepare("INSERT INTO t (a) VALUES (?)")
        .await
        .unwrap();
    let (mut client, task) = flight(&engine).await;
    let sent = client
        .execute_update(
            "INSERT INTO t SELECT value FROM generate_series(1, 10)".to_owned(),
            None,
        )
        .await;
    task.abort();
    for (door, error) in [
        ("ingest", ingested.expect_err("ingest").to_string()),
        (
            "prepared",
            prepared
                .execute_many(&[many])
                .await
                .expect_err("prepared")
                .to_string(),
        ),
        ("Flight SQL", sent.expect_err("Flight SQL").to_string()),
    ] {
        assert!(
            error.contains("few") && error.contains("count(*) = 10"),
            "{door}: {error}"
        );
    }
    assert_eq!(query::rows(&session, "SELECT * FROM t").await, 0);
}

//! One way in: every door to a table leads through validation and the hooks of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::future::BoxFuture;
use futures::stream;
use selvedge_engine::{
    Engine, Error, ErrorKind, IngestMode, Session, Verdict, WriteContext, WriteHook,
    WriteHookSupplier, conformance,
};

use crate::support::query;

/// Refuses a whole write that holds the number 13, and counts what it saw.
#[derive(Debug, Default)]
struct NoThirteen {
    seen: Arc<AtomicU64>,
}

struct Watch {
    seen: Arc<AtomicU64>,
    thirteens: AtomicU64,
}

impl WriteHookSupplier for NoThirteen {
    fn name(&self) -> &str {
        "no_thirteen"
    }

    fn create(&self, _context: &WriteContext) -> Result<Option<Arc<dyn WriteHook>>, Error> {
        Ok(Some(Arc::new(Watch {
            seen: Arc::clone(&self.seen),
            thirteens: AtomicU64::new(0),
        })))
    }
}

impl WriteHook for Watch {
    fn rows(&self, batch: RecordBatch) -> Result<RecordBatch, Error> {
        self.seen
            .fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        if let Some(column) = batch.column(0).as_any().downcast_ref::<Int64Array>() {
            let thirteens = column.iter().filter(|value| *value == Some(13)).count();
            self.thirteens
                .fetch_add(thirteens as u64, Ordering::Relaxed);
        }
        Ok(batch)
    }

    fn finish(&self) -> Result<Verdict, Error> {
        Ok(match self.thirteens.load(Ordering::Relaxed) {
            0 => Verdict::Accept {
                counters: Vec::new(),
            },
            count => Verdict::Refuse {
                reason: format!("{count} rows hold 13"),
            },
        })
    }
}

fn batch(values: &[Option<i64>]) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
}

fn literal(value: Option<i64>) -> String {
    value.map_or("NULL".to_owned(), |value| value.to_string())
}

type Door = for<'a> fn(&'a Session, Option<i64>) -> BoxFuture<'a, Result<(), Error>>;

/// Every way rows reach a table. A new one belongs in this list.
const DOORS: [(&str, Door); 9] = [
    ("INSERT VALUES", |session, value| {
        Box::pin(async move {
            session
                .execute(&format!("INSERT INTO t VALUES ({})", literal(value)))
                .await
                .map(drop)
        })
    }),
    ("INSERT SELECT", |session, value| {
        Box::pin(async move {
            let sql = format!("INSERT INTO t SELECT CAST({} AS BIGINT)", literal(value));
            session.execute(&sql).await.map(drop)
        })
    }),
    ("INSERT OVERWRITE", |session, value| {
        Box::pin(async move {
            let sql = format!(
                "INSERT OVERWRITE t SELECT a FROM t UNION ALL SELECT {}",
                literal(value)
            );
            session.execute(&sql).await.map(drop)
        })
    }),
    ("COPY INTO", |session, value| {
        Box::pin(async move {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("rows.csv");
            let text = value.map_or(String::new(), |value| value.to_string());
            // A second column keeps the row of a NULL from being an empty line.
            std::fs::write(&file, format!("a,b\n{text},1\n")).unwrap();
            let sql = format!("COPY INTO t FROM '{}'", file.display());
            session
                .execute("ALTER TABLE t ADD COLUMN IF NOT EXISTS b BIGINT")
                .await
                .map(drop)?;
            session.execute(&sql).await.map(drop)
        })
    }),
    ("DataFrame", |session, value| {
        Box::pin(async move {
            let frame = session
                .query(&format!("SELECT CAST({} AS BIGINT) AS a", literal(value)))
                .await?;
            frame
                .write_table("t", DataFrameWriteOptions::new())
                .await
                .map(drop)
                .map_err(Error::from)
        })
    }),
    ("ingest", |session, value| {
        Box::pin(async move {
            let rows = batch(&[value]);
            let rows = RecordBatchStreamAdapter::new(rows.schema(), stream::iter([Ok(rows)]));
            session
                .ingest(None, "t", IngestMode::Append, Box::pin(rows))
                .await
                .map(drop)
        })
    }),
    ("prepared", |session, value| {
        Box::pin(async move {
            let prepared = session.prepare("INSERT INTO t (a) VALUES (?)").await?;
            prepared.execute_many(&[batch(&[value])]).await.map(drop)
        })
    }),
    ("EXECUTE", |session, value| {
        Box::pin(async move {
            session
                .execute("PREPARE door AS INSERT INTO t (a) VALUES ($1)")
                .await?;
            let outcome = session
                .execute(&format!("EXECUTE door({})", literal(value)))
                .await
                .map(drop);
            session.execute("DEALLOCATE door").await?;
            outcome
        })
    }),
    ("EXPLAIN ANALYZE", |session, value| {
        Box::pin(async move {
            let sql = format!(
                "EXPLAIN ANALYZE INSERT INTO t (a) VALUES ({})",
                literal(value)
            );
            query::try_run(session, &sql).await
        })
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_door_leads_through_the_rules() {
    for (name, door) in DOORS {
        let hook = NoThirteen::default();
        let seen = Arc::clone(&hook.seen);
        let engine = Engine::builder("memory:///")
            .hook(Arc::new(hook))
            .open()
            .await
            .unwrap();
        let session = engine.session();
        query::run(
            &session,
            "CREATE TABLE t (a BIGINT NOT NULL, CONSTRAINT small CHECK (a < 100))",
        )
        .await;

        door(&session, Some(1))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            query::integers(&session, "SELECT a FROM t").await,
            [1],
            "{name}"
        );
        assert!(
            seen.load(Ordering::Relaxed) >= 1,
            "{name}: the hook saw nothing"
        );

        for (value, rule) in [
            (None, "NOT NULL"),
            (Some(100), "small"),
            (Some(13), "no_thirteen"),
        ] {
            let error = door(&session, value).await.expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Rejected, "{name}: {error}");
            assert!(
                error.to_string().contains(rule),
                "{name} should name {rule}: {error}"
            );
            assert_eq!(
                query::integers(&session, "SELECT a FROM t").await,
                [1],
                "{name}: a refused row landed"
            );
        }
    }
}

/// CREATE TABLE AS declares no constraint of its own, so hooks are what it must not pass by.
#[tokio::test(flavor = "multi_thread")]
async fn creating_with_rows_leads_through_the_hooks() {
    let engine = Engine::builder("memory:///")
        .hook(Arc::new(NoThirteen::default()))
        .open()
        .await
        .unwrap();
    let session = engine.session();
    for sql in [
        "CREATE TABLE t AS SELECT CAST(13 AS BIGINT) AS a",
        "CREATE TABLE t (a BIGINT NOT NULL) AS SELECT NULL",
        "CREATE TABLE t (a BIGINT, CHECK (a > 5)) AS SELECT 5",
    ] {
        let error = session.execute(sql).await.expect_err(sql);
        assert_eq!(error.kind(), ErrorKind::Rejected, "{sql}: {error}");
        assert!(session.tables().await.unwrap().is_empty(), "{sql}");
    }
    query::run(&session, "CREATE TABLE t AS SELECT CAST(12 AS BIGINT) AS a").await;
    let error = query::error(
        &session,
        "CREATE OR REPLACE TABLE t AS SELECT CAST(13 AS BIGINT) AS a",
    )
    .await;
    assert!(error.contains("no_thirteen"), "{error}");
    assert_eq!(query::integers(&session, "SELECT a FROM t").await, [12]);
}

#[test]
fn the_hook_of_these_tests_is_one() {
    let rows = [batch(&[Some(1), Some(2)]), batch(&[Some(3)])];
    let context = WriteContext::new("public.t", rows[0].schema(), "WRITE", 0, None);
    let supplier: Arc<dyn WriteHookSupplier> = Arc::new(NoThirteen::default());
    conformance::write_hook(&supplier, &context, &rows).unwrap();
}

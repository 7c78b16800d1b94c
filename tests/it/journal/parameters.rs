//! Instants of valid time as parameters of prepared statements.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use selvedge_engine::{Answer, Session};

use super::{checked, table, write, zoned};
use crate::support::query::{self, lines};

/// One parameter, a row for each value.
fn parameter(values: ArrayRef) -> RecordBatch {
    let field = Field::new("$1", values.data_type().clone(), true);
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![values]).unwrap()
}

fn text(value: &str) -> RecordBatch {
    parameter(Arc::new(StringArray::from(vec![value])))
}

async fn rows(session: &Session, sql: &str, parameters: &RecordBatch) -> usize {
    let prepared = session.prepare(sql).await.unwrap();
    let Answer::Rows(rows) = prepared.execute(Some(parameters)).await.unwrap() else {
        panic!("{sql} has no rows");
    };
    let batches: Vec<RecordBatch> = futures::TryStreamExt::try_collect(rows).await.unwrap();
    batches.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_that_is_a_parameter_is_a_point_in_time() {
    let session = table("").await;
    write(&session, &[(1, Some("a"), 2), (2, Some("b"), 4)]).await;
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    for (sql, types) in [
        (
            "SELECT k FROM t FOR VALID_TIME AS OF $1",
            vec![instant.clone()],
        ),
        (
            "SELECT k FROM t FOR VALID_TIME BETWEEN ? AND ? WHERE k = ?",
            vec![instant.clone(), instant.clone(), DataType::Int64],
        ),
        (
            "SELECT k FROM t FOR VALID_TIME AS OF $1 WHERE at < $2",
            vec![instant.clone(), DataType::Date32],
        ),
    ] {
        let prepared = session.prepare(sql).await.unwrap();
        let parameters = prepared.parameters();
        let found: Vec<DataType> = parameters
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        assert_eq!(found, types, "{sql}");
        assert_eq!(prepared.schema().fields().len(), 1, "{sql}");
    }
    // Each run has its own instant.
    let sql = "SELECT k FROM t FOR VALID_TIME AS OF $1";
    for (at, count) in [
        ("2026-01-01", 0),
        ("2026-01-02", 1),
        ("2026-01-04", 2),
        ("2026-01-03T12:00:00Z", 1),
    ] {
        assert_eq!(rows(&session, sql, &text(at)).await, count, "{at}");
    }
    // The third of January, as programs count it.
    let millis = TimestampMillisecondArray::from(vec![1_767_398_400_000]);
    let zoned = millis.clone().with_timezone("+00:00");
    let both: [ArrayRef; 2] = [Arc::new(millis), Arc::new(zoned)];
    for at in both {
        assert_eq!(rows(&session, sql, &parameter(at)).await, 1);
    }
    let prepared = session.prepare(sql).await.unwrap();
    let error = prepared.execute(Some(&text("soon"))).await.err().unwrap();
    assert!(error.to_string().contains("$1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_without_a_zone_is_of_the_session() {
    let session = zoned().await;
    query::write(
        &session,
        "INSERT INTO t VALUES (1, 'a', '2026-03-01T10:00:00Z')",
    )
    .await;
    let sql = "SELECT v FROM t FOR VALID_TIME AS OF $1";
    let (before, after) = (text("2026-03-01 09:00:00"), text("2026-03-01 10:00:00"));
    assert_eq!(rows(&session, sql, &before).await, 0);
    assert_eq!(rows(&session, sql, &after).await, 1);
    query::run(&session, "SET TIME ZONE 'America/New_York'").await;
    // Five hours later in UTC.
    assert_eq!(rows(&session, sql, &text("2026-03-01 04:59:59")).await, 0);
    assert_eq!(rows(&session, sql, &before).await, 1);
    // Five o'clock there, as a program has it that knows no zone.
    let millis = TimestampMillisecondArray::from(vec![1_772_341_200_000]);
    assert_eq!(rows(&session, sql, &parameter(Arc::new(millis))).await, 1);
    let prepared = session.prepare(sql).await.unwrap();
    let never = prepared.execute(Some(&text("2026-03-08 02:30:00"))).await;
    let error = never.err().unwrap();
    assert!(error.to_string().contains("New_York"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_instants_are_one_write() {
    let session = table("").await;
    write(
        &session,
        &[(1, Some("a"), 2), (2, Some("b"), 4), (1, None, 6)],
    )
    .await;
    query::run(&session, "CREATE TABLE counted (day DATE, n BIGINT)").await;
    let days = ["2026-01-01", "2026-01-03", "2026-01-05", "2026-01-07"];
    let days = parameter(Arc::new(StringArray::from(days.to_vec())));
    let insert =
        "INSERT INTO counted SELECT CAST($1 AS DATE), count(*) FROM t FOR VALID_TIME AS OF $1";
    let prepared = session.prepare(insert).await.unwrap();
    let report = prepared
        .execute_many(std::slice::from_ref(&days))
        .await
        .unwrap();
    assert_eq!((report.version, report.rows_written), (Some(1), 4));
    assert_eq!(
        lines(&session, "SELECT * FROM counted ORDER BY day").await,
        [
            "2026-01-01 0",
            "2026-01-03 1",
            "2026-01-05 2",
            "2026-01-07 1"
        ]
    );
    // The rows of a table that change are those of one plan.
    let update = "UPDATE counted SET n = 9 WHERE n IN (SELECT k FROM t FOR VALID_TIME AS OF $1)";
    let prepared = session.prepare(update).await.unwrap();
    let error = prepared.execute_many(&[days]).await.unwrap_err();
    assert!(error.message().contains("one row of parameters"), "{error}");
    prepared.execute_many(&[text("2026-01-03")]).await.unwrap();
    assert_eq!(
        lines(&session, "SELECT * FROM counted WHERE n = 9 ORDER BY day").await,
        ["2026-01-03 9", "2026-01-07 9"]
    );
    checked(&session, "t").await;
}

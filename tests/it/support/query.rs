//! Short ways to ask a session.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use selvedge_engine::{Answer, Error, Session, WriteReport};

use super::render;

/// All batches of a query.
pub(crate) async fn batches(session: &Session, sql: &str) -> Vec<RecordBatch> {
    match session.execute(sql).await {
        Ok(Answer::Rows(rows)) => rows
            .try_collect()
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}")),
        Ok(other) => panic!("{sql}: not a query: {other:?}"),
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// Rows of a query, each with its cells joined by blanks, as `.slt` files write them.
pub(crate) async fn lines(session: &Session, sql: &str) -> Vec<String> {
    let batches = batches(session, sql).await;
    let rows = render::rows(&batches).unwrap();
    rows.iter().map(|cells| cells.join(" ")).collect()
}

/// Number of rows of a query.
pub(crate) async fn rows(session: &Session, sql: &str) -> usize {
    batches(session, sql)
        .await
        .iter()
        .map(RecordBatch::num_rows)
        .sum()
}

/// The first column, which holds 64-bit integers without nulls.
pub(crate) async fn integers(session: &Session, sql: &str) -> Vec<i64> {
    let batches = batches(session, sql).await;
    batches
        .iter()
        .flat_map(|batch| {
            batch
                .column(0)
                .as_primitive::<Int64Type>()
                .values()
                .to_vec()
        })
        .collect()
}

/// As [`integers`], of a query that may fail while its rows are read.
pub(crate) async fn try_integers(session: &Session, sql: &str) -> Result<Vec<i64>, Error> {
    let Answer::Rows(rows) = session.execute(sql).await? else {
        panic!("{sql}: not a query");
    };
    let batches: Vec<RecordBatch> = rows.try_collect().await.map_err(Error::from)?;
    let values = batches.iter().flat_map(|batch| {
        let values = batch.column(0).as_primitive::<Int64Type>().values();
        values.to_vec()
    });
    Ok(values.collect())
}

/// A write that must succeed.
pub(crate) async fn write(session: &Session, sql: &str) -> WriteReport {
    match session.execute(sql).await {
        Ok(Answer::Written(report)) => report,
        Ok(other) => panic!("{sql}: not a write: {other:?}"),
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// A statement that must succeed.
pub(crate) async fn run(session: &Session, sql: &str) {
    if let Err(error) = session.execute(sql).await {
        panic!("{sql}: {error}");
    }
}

/// The text of the error a statement must end with.
pub(crate) async fn error(session: &Session, sql: &str) -> String {
    match session.execute(sql).await {
        Err(error) => error.to_string(),
        Ok(Answer::Rows(rows)) => match rows.try_collect::<Vec<_>>().await {
            Err(error) => Error::from(error).to_string(),
            Ok(_) => panic!("{sql}: succeeded"),
        },
        Ok(_) => panic!("{sql}: succeeded"),
    }
}

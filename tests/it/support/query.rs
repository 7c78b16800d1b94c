//! Short ways to ask a session.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use selvedge_engine::{Answer, Error, ErrorKind, Session, WriteReport};

use super::render;

/// All batches of a query.
pub(crate) async fn batches(session: &Session, sql: &str) -> Vec<RecordBatch> {
    try_batches(session, sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// As [`batches`], of a query that may fail, if only while its rows are read.
pub(crate) async fn try_batches(session: &Session, sql: &str) -> Result<Vec<RecordBatch>, Error> {
    match session.execute(sql).await? {
        Answer::Rows(rows) => rows.try_collect().await.map_err(Error::from),
        other => panic!("{sql}: not a query: {other:?}"),
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
    first_column(&batches(session, sql).await)
}

/// As [`integers`], of a query that may fail.
pub(crate) async fn try_integers(session: &Session, sql: &str) -> Result<Vec<i64>, Error> {
    Ok(first_column(&try_batches(session, sql).await?))
}

fn first_column(batches: &[RecordBatch]) -> Vec<i64> {
    let values = batches.iter().flat_map(|batch| {
        let values = batch.column(0).as_primitive::<Int64Type>().values();
        values.to_vec()
    });
    values.collect()
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
    if let Err(error) = try_run(session, sql).await {
        panic!("{sql}: {error}");
    }
}

/// A statement to its end: some that are no queries answer with rows as well.
pub(crate) async fn try_run(session: &Session, sql: &str) -> Result<(), Error> {
    if let Answer::Rows(rows) = session.execute(sql).await? {
        rows.try_collect::<Vec<_>>().await.map_err(Error::from)?;
    }
    Ok(())
}

/// Runs a statement until no other writer is in its way.
pub(crate) async fn insist(session: &Session, sql: &str) {
    for _ in 0..50 {
        match session.execute(sql).await {
            Ok(_) => return,
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => panic!("{sql}: {error}"),
        }
    }
    panic!("{sql}: others were always faster");
}

/// The text of the error a statement must end with.
pub(crate) async fn error(session: &Session, sql: &str) -> String {
    match try_run(session, sql).await {
        Err(error) => error.to_string(),
        Ok(()) => panic!("{sql}: succeeded"),
    }
}

//! SQL to `FlightInfo`, and tickets to rows.
//!
//! A query is planned when its `FlightInfo` is asked for and runs when its ticket is read. Anything else runs while
//! its `FlightInfo` is made, because that is asked for once while a ticket may be read never or twice; the ticket
//! keeps the answer: what was counted, or the rows of a statement that tells what it did (OPTIMIZE). Nothing runs to
//! learn its columns.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use selvedge_engine::{Answer, Error, ErrorKind, Prepared, Session, StatementKind, WriteReport};
use tokio::sync::watch;
use tonic::Status;

use crate::boundary::{conform, encode, plain_schema, required, schema_bytes, unsendable};
use crate::prepared::Parameters;
use crate::sessions::{Caller, ClientSession};
use crate::status::{refusal, refusal_in, refusal_of_plan};

/// Rows that a statement answered before anybody asked for them (`OPTIMIZE`, `EXPLAIN ANALYZE INSERT`) are kept up to
/// this size.
const HELD_BYTES: usize = 64 << 20;

/// The column that tells what a write did.
const COUNT: &str = "rows_affected";

/// A planned statement and the text it came from, which errors point into.
#[derive(Clone)]
pub(crate) struct Statement {
    sql: Arc<str>,
    prepared: Prepared,
}

/// What a ticket gives.
#[expect(
    clippy::large_enum_variant,
    reason = "every one of them lives behind the pointer of its shelf"
)]
pub(crate) enum Held {
    /// A query, run when it is read.
    Query {
        statement: Statement,
        parameters: Option<Arc<Parameters>>,
        schema: SchemaRef,
        cancelled: watch::Sender<bool>,
    },
    /// The answer of a statement that has run.
    Answer {
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    },
}

/// What a statement that is not a query did.
enum Outcome {
    Written(i64),
    Done,
    Rows(SchemaRef, Vec<RecordBatch>),
}

impl Statement {
    pub(crate) async fn plan(session: &Session, sql: &str) -> Result<Self, Status> {
        let prepared = session
            .prepare(sql)
            .await
            .map_err(|error| refusal_in(sql, error))?;
        Ok(Self {
            sql: sql.into(),
            prepared,
        })
    }

    /// Columns of the rows this statement returns; none where it returns a count or nothing.
    /// JDBC takes exactly the statements without columns for updates.
    pub(crate) fn columns(&self) -> SchemaRef {
        plain_schema(&self.prepared.schema())
    }

    /// The same, but not of a statement that only counts.
    fn told(&self) -> Option<SchemaRef> {
        let columns = self.columns();
        let told = self.prepared.kind() == StatementKind::Query || !columns.fields().is_empty();
        told.then_some(columns)
    }

    /// Columns of the rows a query returns for these parameters, whose types may decide about them.
    async fn columns_for(&self, parameters: Option<&Parameters>) -> Result<SchemaRef, Status> {
        match parameters.and_then(|bound| bound.rows().next()) {
            Some(row) => self
                .prepared
                .schema_for(&row)
                .await
                .map(|schema| plain_schema(&schema))
                .map_err(|error| refusal_in(&self.sql, error)),
            None => Ok(self.columns()),
        }
    }

    /// Columns a client reads under the ticket of this statement.
    pub(crate) fn ticket_columns(&self) -> SchemaRef {
        self.told().unwrap_or_else(count_schema)
    }

    /// One field per parameter, in order; of type Null where the type is not known.
    pub(crate) fn parameters(&self) -> Schema {
        self.prepared.parameters()
    }

    /// Makes the `FlightInfo`; a statement that is no query runs now, once.
    pub(crate) async fn info(
        &self,
        session: &ClientSession,
        parameters: Option<Arc<Parameters>>,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let (held, records) = if self.prepared.kind() == StatementKind::Query {
            self.check(parameters.as_deref())?;
            let held = Held::Query {
                statement: self.clone(),
                schema: self.columns_for(parameters.as_deref()).await?,
                parameters,
                cancelled: watch::Sender::new(false),
            };
            (held, -1)
        } else {
            match self.run(parameters.as_deref()).await? {
                Outcome::Written(count) => (Held::count(count)?, count),
                Outcome::Done => (Held::count(0)?, -1),
                Outcome::Rows(schema, batches) => (Held::Answer { schema, batches }, -1),
            }
        };
        let schema = held.schema();
        let key = session.tickets.push(held, Instant::now());
        let ticket = TicketStatementQuery {
            statement_handle: session.handle(key),
        };
        let ticket = ticket.as_any().encode_to_vec().into();
        info(&schema, ticket, descriptor, records)
    }

    /// Runs a statement that is no query; returns the number of rows it changed. Rows that tell what it did are not
    /// those: a client that runs it as an update did not ask for them.
    pub(crate) async fn update(&self, parameters: Option<&Parameters>) -> Result<i64, Status> {
        if self.prepared.kind() == StatementKind::Query {
            return Err(refusal(
                Error::new(
                    ErrorKind::Invalid,
                    "the statement returns rows and changes nothing",
                )
                .with_hint("execute it as a query"),
            ));
        }
        match self.run(parameters).await? {
            Outcome::Written(count) => Ok(count),
            Outcome::Done | Outcome::Rows(..) => Ok(0),
        }
    }

    async fn run(&self, parameters: Option<&Parameters>) -> Result<Outcome, Status> {
        self.check(parameters)?;
        let refuse = |error| refusal_in(&self.sql, error);
        let Some(parameters) = parameters.filter(|bound| bound.columns > 0) else {
            let answer = self.prepared.execute(None).await.map_err(refuse)?;
            return self.outcome(answer).await;
        };
        if self.prepared.kind() == StatementKind::Write {
            // However many rows are bound: one commit, so all of them or none.
            if parameters.batches.is_empty() {
                return Ok(Outcome::Written(0));
            }
            let report = self.prepared.execute_many(&parameters.batches).await;
            return Ok(Outcome::Written(affected(&report.map_err(refuse)?)));
        }
        let mut outcome = Outcome::Done;
        for row in parameters.rows() {
            let answer = self.prepared.execute(Some(&row)).await.map_err(refuse)?;
            outcome = self.outcome(answer).await?;
        }
        Ok(outcome)
    }

    async fn outcome(&self, answer: Answer) -> Result<Outcome, Status> {
        match answer {
            Answer::Written(report) => Ok(Outcome::Written(affected(&report))),
            Answer::Done(_) => Ok(Outcome::Done),
            Answer::Rows(rows) => {
                let schema = self.told().unwrap_or_else(|| plain_schema(&rows.schema()));
                let mut rows = std::pin::pin!(self.conformed(rows, Arc::clone(&schema)));
                let (mut batches, mut bytes) = (Vec::new(), 0);
                while let Some(batch) = rows.try_next().await? {
                    bytes += batch.get_array_memory_size();
                    if bytes > HELD_BYTES {
                        return Err(refusal(Error::new(
                            ErrorKind::Exhausted,
                            format!("the answer is larger than {HELD_BYTES} bytes"),
                        )));
                    }
                    batches.push(batch);
                }
                Ok(Outcome::Rows(schema, batches))
            }
        }
    }

    /// Runs the query for each row of parameters, one after the other, as one stream.
    async fn rows(
        &self,
        parameters: Option<&Parameters>,
        schema: &SchemaRef,
    ) -> Result<BoxStream<'static, Result<RecordBatch, Status>>, Status> {
        let Some(parameters) = parameters.filter(|bound| bound.columns > 0) else {
            return Ok(self.one(None, Arc::clone(schema)).await?.boxed());
        };
        let mut rows = parameters.rows();
        let Some(first) = rows.next() else {
            return Ok(stream::empty().boxed());
        };
        // The first run starts here, so that its errors are those of the call and not of its first batch.
        let first = self.one(Some(first), Arc::clone(schema)).await?;
        let (statement, schema) = (self.clone(), Arc::clone(schema));
        let rest = stream::iter(rows.collect::<Vec<_>>())
            .then(move |row| {
                let (statement, schema) = (statement.clone(), Arc::clone(&schema));
                async move { statement.one(Some(row), schema).await }
            })
            .try_flatten();
        Ok(first.chain(rest).boxed())
    }

    async fn one(
        &self,
        row: Option<RecordBatch>,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch, Status>> + use<>, Status> {
        match self.prepared.execute(row.as_ref()).await {
            Ok(Answer::Rows(rows)) => Ok(self.conformed(rows, schema)),
            Ok(answer) => Err(Status::internal(format!(
                "a query was answered without rows: {answer:?}"
            ))),
            Err(error) => Err(refusal_in(&self.sql, error)),
        }
    }

    fn conformed(
        &self,
        rows: SendableRecordBatchStream,
        schema: SchemaRef,
    ) -> impl Stream<Item = Result<RecordBatch, Status>> + use<> {
        let sql = Arc::clone(&self.sql);
        rows.map(move |batch| {
            let batch = batch.map_err(|error| refusal_of_plan(&sql, error))?;
            conform(&batch, &schema).map_err(|error| unsendable(&error))
        })
    }

    fn check(&self, parameters: Option<&Parameters>) -> Result<(), Status> {
        let expected = self.prepared.parameters().fields().len();
        let bound = parameters.map_or(0, |bound| bound.columns);
        if expected == bound {
            return Ok(());
        }
        Err(refusal(Error::new(
            ErrorKind::Invalid,
            format!(
                "the statement has {expected} parameter{}, {bound} bound",
                if expected == 1 { "" } else { "s" },
            ),
        )))
    }
}

impl Held {
    fn count(count: i64) -> Result<Self, Status> {
        let schema = count_schema();
        let column: ArrayRef = Arc::new(Int64Array::from(vec![count]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column])
            .map_err(|error| unsendable(&error))?;
        Ok(Self::Answer {
            schema,
            batches: vec![batch],
        })
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Self::Query { schema, .. } | Self::Answer { schema, .. } => Arc::clone(schema),
        }
    }
}

/// The rows of a ticket: the query's, as it runs, or the kept answer, as often as it is asked for.
pub(crate) async fn redeem(
    caller: &Caller,
    ticket: &TicketStatementQuery,
) -> Result<BoxStream<'static, Result<FlightData, Status>>, Status> {
    let held = caller
        .locate(&ticket.statement_handle)
        .and_then(|(session, key)| session.tickets.find(&key, Instant::now()))
        .ok_or_else(unknown_ticket)?;
    match held.as_ref() {
        Held::Answer { schema, batches } => Ok(encode(
            Arc::clone(schema),
            stream::iter(batches.clone()).map(Ok),
        )),
        Held::Query {
            statement,
            parameters,
            schema,
            cancelled,
        } => {
            let rows = statement.rows(parameters.as_deref(), schema).await?;
            let rows = until_cancelled(rows, cancelled.subscribe());
            Ok(encode(Arc::clone(schema), rows))
        }
    }
}

/// Stops the queries of these tickets and forgets the tickets.
pub(crate) fn cancel(caller: &Caller, info: &FlightInfo) -> Result<(), Status> {
    let mut found = false;
    for endpoint in &info.endpoint {
        let held = endpoint
            .ticket
            .as_ref()
            .and_then(|ticket| arrow_flight::sql::Any::decode(&*ticket.ticket).ok())
            .and_then(|any| any.unpack::<TicketStatementQuery>().ok().flatten())
            .and_then(|ticket| caller.locate(&ticket.statement_handle))
            .and_then(|(session, key)| session.tickets.take(&key));
        if let Some(Held::Query { cancelled, .. }) = held.as_deref() {
            cancelled.send_replace(true);
        }
        found |= held.is_some();
    }
    if found { Ok(()) } else { Err(unknown_ticket()) }
}

fn until_cancelled(
    rows: impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static,
    mut cancelled: watch::Receiver<bool>,
) -> impl Stream<Item = Result<RecordBatch, Status>> + Send + 'static {
    let asked = cancelled.clone();
    let stop = async move {
        if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
            // The ticket expired while its rows are read: nobody can cancel them any more.
            std::future::pending::<()>().await;
        }
    };
    // A stream that only ended would read as a complete result.
    let verdict = stream::once(async move {
        let cancelled = *asked.borrow();
        cancelled.then(|| Err(Status::cancelled("the statement was cancelled")))
    });
    rows.take_until(stop)
        .chain(verdict.filter_map(std::future::ready))
}

/// A `FlightInfo` of one endpoint, redeemed where it was made.
pub(crate) fn info(
    schema: &Schema,
    ticket: Bytes,
    descriptor: FlightDescriptor,
    records: i64,
) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    let mut info = FlightInfo::new()
        .with_endpoint(endpoint)
        .with_descriptor(descriptor)
        .with_total_records(records)
        .with_ordered(true);
    info.schema = schema_bytes(schema)?;
    Ok(info)
}

/// Rows a write inserted, updated or deleted.
pub(crate) fn affected(report: &WriteReport) -> i64 {
    i64::try_from(report.rows_affected()).unwrap_or(i64::MAX)
}

fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![required(COUNT, DataType::Int64)]))
}

fn unknown_ticket() -> Status {
    Status::not_found("the ticket is unknown or has expired; run the statement again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_count_is_one_row_that_is_never_null() {
        let Held::Answer { schema, batches } = Held::count(3).unwrap() else {
            panic!("a count is an answer");
        };
        assert_eq!(schema, count_schema());
        assert_eq!(
            batches[0].column(0).as_ref(),
            &Int64Array::from(vec![3]) as &dyn arrow::array::Array
        );
        assert!(!schema.field(0).is_nullable());
    }

    #[test]
    fn a_cancelled_stream_ends_in_an_error_and_an_expired_ticket_does_not() {
        let batch = || Ok(RecordBatch::new_empty(count_schema()));
        let endless = || stream::iter([batch()]).chain(stream::pending());

        let sender = watch::Sender::new(false);
        let mut rows = Box::pin(until_cancelled(endless(), sender.subscribe()));
        assert!(rows.next().now_or_never().unwrap().unwrap().is_ok());
        assert!(rows.next().now_or_never().is_none());
        sender.send_replace(true);
        let error = rows.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(error.code(), tonic::Code::Cancelled);
        assert!(rows.next().now_or_never().unwrap().is_none());

        let sender = watch::Sender::new(false);
        let finite = stream::iter([batch(), batch()]);
        let rows = until_cancelled(finite, sender.subscribe());
        drop(sender);
        let read: Vec<_> = rows.collect().now_or_never().unwrap();
        assert_eq!(read.len(), 2);
        assert!(read.iter().all(Result::is_ok));
    }

    #[test]
    fn one_endpoint_without_location() {
        let info = info(
            &count_schema(),
            Bytes::from_static(b"t"),
            FlightDescriptor::new_cmd("c"),
            -1,
        )
        .unwrap();
        assert_eq!(info.endpoint.len(), 1);
        assert!(info.endpoint[0].location.is_empty());
        assert_eq!(
            info.try_decode_schema().unwrap(),
            count_schema().as_ref().clone()
        );
    }
}

//! Prepared statements: made once, bound and run many times, closed by the client or with its session.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::decode::DecodedPayload;
use arrow_flight::sql::{ActionCreatePreparedStatementResult, DoPutPreparedStatementResult};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use parking_lot::Mutex;
use selvedge_engine::{Error, ErrorKind};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::boundary::{decode, plain_schema, schema_bytes};
use crate::sessions::{Caller, ClientSession};
use crate::statements::Statement;
use crate::status::refusal;

/// Parameters are kept in memory until the statement runs; more rows than this belong into a bulk ingest.
const PARAMETER_BYTES: usize = 256 << 20;

/// A prepared statement and what is bound to it.
pub(crate) struct Bound {
    statement: Statement,
    parameters: Mutex<Option<Arc<Parameters>>>,
}

/// Rows of parameter values; no batch is empty.
pub(crate) struct Parameters {
    pub(crate) columns: usize,
    pub(crate) batches: Vec<RecordBatch>,
}

impl Parameters {
    /// Each row as a batch of its own.
    pub(crate) fn rows(&self) -> impl Iterator<Item = RecordBatch> {
        self.batches
            .iter()
            .flat_map(|batch| (0..batch.num_rows()).map(|row| batch.slice(row, 1)))
    }

    async fn read(
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<Option<Self>, Status> {
        let mut decoded = decode(messages);
        let mut columns = None;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while let Some(payload) = decoded.try_next().await? {
            match payload {
                DecodedPayload::None => {}
                DecodedPayload::Schema(schema) => columns = Some(schema.fields().len()),
                DecodedPayload::RecordBatch(batch) if batch.num_rows() == 0 => {}
                DecodedPayload::RecordBatch(batch) => {
                    bytes += batch.get_array_memory_size();
                    if bytes > PARAMETER_BYTES {
                        return Err(refusal(
                            Error::new(
                                ErrorKind::Exhausted,
                                format!("the parameters are larger than {PARAMETER_BYTES} bytes"),
                            )
                            .with_hint("send this many rows as a bulk ingest"),
                        ));
                    }
                    batches.push(batch);
                }
            }
        }
        Ok(columns.map(|columns| Self { columns, batches }))
    }
}

/// Plans a statement and keeps it for the client.
pub(crate) async fn create(
    caller: &Caller,
    sql: &str,
    headers: &MetadataMap,
) -> Result<ActionCreatePreparedStatementResult, Status> {
    let session = caller.session()?;
    let statement = Statement::plan(&session.engine, sql).await?;
    let dataset_schema = schema_bytes(&statement.columns())?;
    let parameter_schema = parameter_schema(&statement.parameters(), is_java(headers));
    let parameter_schema = schema_bytes(&parameter_schema)?;
    let bound = Bound {
        statement,
        parameters: Mutex::new(None),
    };
    let key = session.prepared.add(bound, Instant::now()).map_err(|_| {
        Status::resource_exhausted("the session holds too many prepared statements; close some")
    })?;
    Ok(ActionCreatePreparedStatementResult {
        prepared_statement_handle: session.handle(key),
        dataset_schema,
        parameter_schema,
    })
}

/// Forgets a statement. Closing twice is no error: the statement may have expired before.
pub(crate) fn close(caller: &Caller, handle: &[u8]) {
    if let Some((session, key)) = caller.locate(handle) {
        session.prepared.take(&key);
    }
}

/// Binds parameters; they replace those bound before.
pub(crate) async fn bind(
    caller: &Caller,
    handle: Bytes,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<DoPutPreparedStatementResult, Status> {
    let (_, bound) = find(caller, &handle)?;
    let parameters = Parameters::read(messages).await?;
    *bound.parameters.lock() = parameters.map(Arc::new);
    // The handle stays: drivers that do not read this answer go on with the one they have.
    Ok(DoPutPreparedStatementResult {
        prepared_statement_handle: Some(handle),
    })
}

/// Makes the `FlightInfo` of a statement with what is bound to it.
pub(crate) async fn info(
    caller: &Caller,
    handle: &[u8],
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let (session, bound) = find(caller, handle)?;
    let parameters = bound.parameters.lock().clone();
    bound.statement.info(&session, parameters, descriptor).await
}

/// Columns of the rows a statement will return; nothing runs.
pub(crate) fn schema(caller: &Caller, handle: &[u8]) -> Result<Bytes, Status> {
    let (_, bound) = find(caller, handle)?;
    schema_bytes(&bound.statement.ticket_columns())
}

/// Runs a write for all rows of parameters that come with the request, or were bound before, in one commit.
pub(crate) async fn update(
    caller: &Caller,
    handle: &[u8],
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<i64, Status> {
    let (_, bound) = find(caller, handle)?;
    let parameters = match Parameters::read(messages).await? {
        Some(parameters) => Some(Arc::new(parameters)),
        // Some clients bind in a request of its own, as for a query.
        None => bound.parameters.lock().clone(),
    };
    bound.statement.update(parameters.as_deref()).await
}

fn find(caller: &Caller, handle: &[u8]) -> Result<(Arc<ClientSession>, Arc<Bound>), Status> {
    let (session, key) = caller.locate(handle).ok_or_else(unknown)?;
    let bound = session
        .prepared
        .find(&key, Instant::now())
        .ok_or_else(unknown)?;
    Ok((session, bound))
}

fn unknown() -> Status {
    Status::not_found("the prepared statement is unknown or has expired; prepare it again")
}

/// JDBC can bind no value to a parameter of type Null, ADBC expects Null where the type is not known.
fn parameter_schema(parameters: &Schema, java: bool) -> Arc<Schema> {
    let plain = plain_schema(parameters);
    if !java {
        return plain;
    }
    let fields: Vec<Field> = plain
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Null => field.as_ref().clone().with_data_type(DataType::Utf8),
            _ => field.as_ref().clone(),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

fn is_java(headers: &MetadataMap) -> bool {
    headers
        .get("user-agent")
        .and_then(|agent| agent.to_str().ok())
        .is_some_and(|agent| agent.contains("grpc-java"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int32Array;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use futures::{FutureExt, StreamExt, stream};

    #[test]
    fn unknown_parameter_types_suit_the_client() {
        let schema = Schema::new(vec![
            Field::new("$1", DataType::Int64, true),
            Field::new("$2", DataType::Null, true),
        ]);
        let types = |java| {
            let schema = parameter_schema(&schema, java);
            schema
                .fields()
                .iter()
                .map(|f| f.data_type().clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(types(false), [DataType::Int64, DataType::Null]);
        assert_eq!(types(true), [DataType::Int64, DataType::Utf8]);
    }

    fn sent(batches: Vec<RecordBatch>, schema: Schema) -> Option<Parameters> {
        let mut descriptor_only = FlightData::new();
        descriptor_only.flight_descriptor = Some(FlightDescriptor::new_cmd("c"));
        let rows = FlightDataEncoderBuilder::new()
            .with_schema(Arc::new(schema))
            .build(stream::iter(batches).map(Ok))
            .map_err(Status::from);
        let messages = stream::iter([Ok(descriptor_only)]).chain(rows);
        Parameters::read(messages).now_or_never().unwrap().unwrap()
    }

    #[test]
    fn parameters_are_read_row_by_row() {
        let schema = Schema::new(vec![Field::new("0", DataType::Int32, true)]);
        let batch = |values: Vec<i32>| {
            RecordBatch::try_new(
                Arc::new(schema.clone()),
                vec![Arc::new(Int32Array::from(values))],
            )
            .unwrap()
        };
        let read = sent(
            vec![batch(vec![1, 2]), batch(vec![]), batch(vec![3])],
            schema.clone(),
        );
        let read = read.unwrap();
        assert_eq!((read.columns, read.batches.len()), (1, 2));
        let rows: Vec<_> = read.rows().collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1], batch(vec![2]));
    }

    #[test]
    fn no_rows_and_no_columns_are_not_the_same() {
        let one = Schema::new(vec![Field::new("0", DataType::Int32, true)]);
        assert_eq!(sent(vec![], one).unwrap().columns, 1);
        assert_eq!(sent(vec![], Schema::empty()).unwrap().columns, 0);
        let nothing = Parameters::read(stream::empty()).now_or_never().unwrap();
        assert!(nothing.unwrap().is_none());
    }
}

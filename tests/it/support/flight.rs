//! The Flight SQL door: the server on loopback, and the client of arrow-flight as a driver uses it.

use std::sync::Arc;

use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use futures::TryStreamExt;
use selvedge_engine::Engine;
use selvedge_server::{Server, ServerOptions};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use super::door::{Connection, Door, DoorError, Lake, Output};

/// A lake in memory behind a server of its own. Its sessions are remote ones: they see no file outside the lake.
pub(crate) struct Flight;

#[async_trait]
impl Door for Flight {
    fn name(&self) -> &'static str {
        "flight"
    }

    async fn lake(&self, _: &str) -> Result<Box<dyn Lake>, DoorError> {
        let engine = Engine::builder("memory://").open().await?;
        let server = Server::bind(engine, ServerOptions::default()).await?;
        let endpoint = format!("http://{}", server.local_addr());
        let task = tokio::spawn(async move {
            // It ends with the test, by being aborted.
            if let Err(error) = server.serve(std::future::pending()).await {
                panic!("the server stopped: {error}");
            }
        });
        Ok(Box::new(Served { endpoint, task }))
    }
}

struct Served {
    endpoint: String,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl Lake for Served {
    async fn connect(&self) -> Result<Box<dyn Connection>, DoorError> {
        let broken = |error: tonic::transport::Error| DoorError(error.to_string());
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).map_err(broken)?;
        let channel = endpoint.connect().await.map_err(broken)?;
        let mut client = FlightSqlServiceClient::new(channel);
        // Without a name, because the commits of a session in process carry none either.
        client.handshake("", "").await.map_err(told)?;
        Ok(Box::new(Client(client)))
    }
}

struct Client(FlightSqlServiceClient<Channel>);

#[async_trait]
impl Connection for Client {
    /// As drivers do: prepare, then update where no columns are announced, query otherwise.
    async fn run(&mut self, sql: &str) -> Result<Output, DoorError> {
        let mut statement = self.0.prepare(sql.to_owned(), None).await.map_err(told)?;
        let announced = statement.dataset_schema().map_err(told)?.clone();
        let outcome = if announced.fields().is_empty() {
            statement.execute_update().await.map(|count| {
                // A count of nothing and no count at all are the same zero here; `.slt` files accept either.
                Output::Written(count.unsigned_abs())
            })
        } else {
            match statement.execute().await {
                Ok(info) => self.rows(info).await,
                Err(error) => Err(error),
            }
        };
        // Closed after a failure too: a session holds only so many.
        statement.close().await.map_err(told)?;
        outcome.map_err(told)
    }
}

impl Client {
    /// All rows, whose schema must be the one announced: drivers compare them field by field.
    async fn rows(&mut self, info: FlightInfo) -> Result<Output, FlightError> {
        let schema = Arc::new(info.clone().try_decode_schema()?);
        let mut batches: Vec<RecordBatch> = Vec::new();
        for endpoint in info.endpoint {
            let ticket = endpoint
                .ticket
                .ok_or_else(|| FlightError::protocol("an endpoint without a ticket"))?;
            batches.extend(self.0.do_get(ticket).await?.try_collect::<Vec<_>>().await?);
        }
        match batches.iter().find(|batch| batch.schema() != schema) {
            Some(batch) => Err(FlightError::protocol(format!(
                "announced {schema}, sent {}",
                batch.schema()
            ))),
            None => Ok(Output::Rows(schema, batches)),
        }
    }
}

/// What a person reads of an error, as the library says it: without the statement's line and the caret below it,
/// which the server adds because a client may not show the statement.
fn told(error: FlightError) -> DoorError {
    let FlightError::Tonic(status) = error else {
        return DoorError(error.to_string());
    };
    let mut lines = Vec::new();
    let mut all = status.message().lines();
    while let Some(line) = all.next() {
        if line.starts_with("LINE ") {
            all.next();
        } else {
            lines.push(line);
        }
    }
    DoorError(lines.join("\n"))
}

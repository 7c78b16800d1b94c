//! Doors: ways to send SQL to a lake. The same files run through each.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use selvedge_engine::{Answer, Engine, Session};

use super::s3::S3;

/// A kind of lake and a way to talk to it. Each file of statements gets a lake of its own.
#[async_trait]
pub(crate) trait Door: Send + Sync {
    /// The label for `skipif` and `onlyif`.
    fn name(&self) -> &'static str;

    /// An empty lake; `name` is unlike that of any other lake opened by this door.
    async fn lake(&self, name: &str) -> Result<Box<dyn Lake>, DoorError>;
}

/// An open lake.
#[async_trait]
pub(crate) trait Lake: Send + Sync {
    /// A connection with a session of its own.
    async fn connect(&self) -> Result<Box<dyn Connection>, DoorError>;
}

/// A session behind a door.
#[async_trait]
pub(crate) trait Connection: Send {
    /// Runs one statement to its end.
    async fn run(&mut self, sql: &str) -> Result<Output, DoorError>;
}

/// What came back through a door.
pub(crate) enum Output {
    Rows(SchemaRef, Vec<RecordBatch>),
    /// Rows that a write wrote.
    Written(u64),
    Done,
}

/// An error, as the text a person would see.
#[derive(Debug)]
pub(crate) struct DoorError(pub(crate) String);

impl std::fmt::Display for DoorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DoorError {}

impl From<selvedge_engine::Error> for DoorError {
    fn from(error: selvedge_engine::Error) -> Self {
        Self(error.to_string())
    }
}

/// The library itself, on a kind of store.
pub(crate) enum InProcess {
    Folder,
    Memory,
    S3(S3),
}

#[async_trait]
impl Door for InProcess {
    fn name(&self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Memory => "memory",
            Self::S3(_) => "s3",
        }
    }

    async fn lake(&self, name: &str) -> Result<Box<dyn Lake>, DoorError> {
        let (engine, dir) = match self {
            Self::Folder => {
                let dir = tempfile::tempdir().map_err(|e| DoorError(e.to_string()))?;
                let lake = dir.path().join("lake");
                let engine = Engine::builder(lake.display().to_string()).open().await?;
                (engine, Some(dir))
            }
            Self::Memory => (Engine::builder("memory://").open().await?, None),
            Self::S3(s3) => {
                let builder = Engine::builder(s3.url(name)).store(s3.store());
                (builder.open().await?, None)
            }
        };
        Ok(Box::new(OpenEngine {
            engine,
            _dir: dir.map(Arc::new),
        }))
    }
}

struct OpenEngine {
    engine: Engine,
    _dir: Option<Arc<tempfile::TempDir>>,
}

#[async_trait]
impl Lake for OpenEngine {
    async fn connect(&self) -> Result<Box<dyn Connection>, DoorError> {
        Ok(Box::new(OpenSession(self.engine.session())))
    }
}

struct OpenSession(Session);

#[async_trait]
impl Connection for OpenSession {
    async fn run(&mut self, sql: &str) -> Result<Output, DoorError> {
        Ok(match self.0.execute(sql).await? {
            Answer::Rows(rows) => {
                let schema = rows.schema();
                // The stream speaks DataFusion's errors; ours travel inside and must come out as they are.
                let batches = rows.try_collect().await.map_err(|e| match e.find_root() {
                    datafusion::error::DataFusionError::External(ours) => {
                        DoorError(ours.to_string())
                    }
                    other => DoorError(other.to_string()),
                })?;
                Output::Rows(schema, batches)
            }
            Answer::Written(report) => Output::Written(report.rows_affected()),
            Answer::Done(_) => Output::Done,
        })
    }
}

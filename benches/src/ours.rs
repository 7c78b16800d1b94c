//! The engine under test, and plain DataFusion with the same limits beside it.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use selvedge_engine::{Answer, Engine, Session, Settings, WriteReport};

use crate::Result;

/// A lake that this run has opened.
pub(crate) struct Lake {
    engine: Engine,
    session: Session,
}

impl Lake {
    pub(crate) async fn open(folder: &Path, settings: &Settings) -> Result<Self> {
        let engine = Engine::builder(text(folder)?)
            .settings(settings.clone())
            .open()
            .await?;
        let session = engine.session();
        Ok(Self { engine, session })
    }

    /// The rows of a query.
    pub(crate) async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        Ok(self.stream(sql).await?.try_collect().await?)
    }

    /// The rows of a query, as they come.
    pub(crate) async fn stream(&self, sql: &str) -> Result<SendableRecordBatchStream> {
        match self.session.execute(sql).await? {
            Answer::Rows(stream) => Ok(stream),
            other => Err(format!("{sql}: rows expected, got {other:?}").into()),
        }
    }

    /// The report of a write.
    pub(crate) async fn write(&self, sql: &str) -> Result<WriteReport> {
        match self.session.execute(sql).await? {
            Answer::Written(report) => Ok(report),
            other => Err(format!("{sql}: a write report expected, got {other:?}").into()),
        }
    }

    /// Runs a statement whose answer does not matter.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        match self.session.execute(sql).await? {
            Answer::Rows(stream) => {
                let _: Vec<_> = stream.try_collect().await?;
            }
            Answer::Written(_) | Answer::Done(_) => {}
        }
        Ok(())
    }

    /// Waits until no checkpoint of an earlier write runs into the next measurement.
    pub(crate) async fn settle(&self) {
        self.engine.settle().await;
    }
}

/// DataFusion as it comes, with the partitions and the memory that the engine has.
pub(crate) fn datafusion(settings: &Settings) -> Result<SessionContext> {
    let mut config = SessionConfig::new().with_target_partitions(settings.target_partitions);
    // The same question for both: what a literal such as 0.05 means decides the types of answers.
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_limit(settings.memory_limit_bytes, 1.0)
        .build()?;
    Ok(SessionContext::new_with_config_rt(
        config,
        Arc::new(runtime),
    ))
}

/// Names a folder of Parquet files in DataFusion.
pub(crate) async fn register(context: &SessionContext, name: &str, folder: &Path) -> Result<()> {
    // With the slash it is a folder; without it, a file.
    let url = format!("{}/", text(folder)?);
    context
        .register_parquet(name, &url, ParquetReadOptions::default())
        .await?;
    Ok(())
}

/// A path as SQL and the peers are handed it.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| format!("path {} is not UTF-8", path.display()).into())
}

/// Rows in batches.
pub(crate) fn count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

//! The rows that leave the path, into files beside the table's. Only the commit of the write names them, so they
//! are there in the same instant as the rows that went on, or never.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use tokio::sync::mpsc::Receiver;

use super::files::{FileSink, Written};
use super::target::WriteTarget;
use crate::error::{Error, Result};
use crate::quality::failure::quarantine_schema;
use crate::quality::record::SideFile;
use crate::table::actions::{Format, Metadata};
use crate::table::records::{QUARANTINE, quarantine_folder};
use crate::table::snapshot::TableRoot;

/// Writes the rows of one write that go to quarantine.
pub(super) struct Quarantine {
    sink: FileSink,
    schema: SchemaRef,
}

impl Quarantine {
    pub(super) fn new(target: &WriteTarget) -> Result<Self> {
        let schema = quarantine_schema(&target.schema);
        let root = TableRoot {
            path: quarantine_folder(&target.table.root),
            ..target.table.root.clone()
        };
        // Described as a table of its own, which has no partitions and needs no statistics.
        let metadata = Metadata {
            id: String::new(),
            name: None,
            description: None,
            format: Format::default(),
            schema_string: String::new(),
            partition_columns: Vec::new(),
            created_time: None,
            configuration: [("delta.dataSkippingNumIndexedCols", "0")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        let sink = FileSink::new(
            &root,
            &schema,
            &metadata,
            target.settings.target_file_bytes,
            target.ambient.ids(),
            target.ambient.millis(),
        )?;
        Ok(Self { sink, schema })
    }

    /// Takes rows until there are no more. On an error, and when the future is dropped, nothing is left behind.
    pub(super) async fn write(
        &self,
        rows: Receiver<RecordBatch>,
        context: &Arc<TaskContext>,
    ) -> Result<Written> {
        let batches = stream::unfold(rows, |mut rows| async {
            rows.recv().await.map(|batch| (batch, rows))
        });
        let batches = batches.map(Ok::<_, DataFusionError>);
        let rows = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches);
        self.sink.write_rows(Box::pin(rows), context).await
    }

    pub(super) async fn discard(&self, written: &Written) {
        self.sink.discard(&written.adds).await;
    }
}

/// The files as the commit names them.
pub(super) fn side_files(written: &Written) -> Result<Vec<SideFile>> {
    let file = |add: &crate::table::actions::Add| {
        let stats = add.stats.as_deref().unwrap_or_default();
        let stats: serde_json::Value = serde_json::from_str(stats).unwrap_or_default();
        let rows = stats.get("numRecords").and_then(serde_json::Value::as_u64);
        Ok(SideFile {
            path: format!("{QUARANTINE}/{}", add.path),
            rows: rows.ok_or_else(|| Error::internal("a file of quarantine has no row count"))?,
            bytes: add.size.unsigned_abs(),
        })
    };
    written.adds.iter().map(file).collect()
}

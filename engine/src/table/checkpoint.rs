//! Writing classic checkpoints: the whole state of a snapshot as one Parquet file of action rows.
//!
//! The kernel's own checkpoint writer refuses tables with CHECK constraints, so the rows are made here;
//! their schema is still the kernel's, and its reader is what reads them back.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::json::ReaderBuilder;
use delta_kernel::engine::arrow_conversion::TryIntoArrow;
use object_store::ObjectStoreExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::actions::Action;
use super::handle::Table;
use super::snapshot::Snapshot;
use super::{log, retention};
use crate::error::{Error, Result};

/// Rows per batch while a checkpoint is encoded.
const BATCH_ROWS: usize = 4096;

/// Whether `snapshot` is far enough from its last checkpoint. The distance grows with the table, so that the
/// total cost of checkpoints stays a constant share of the cost of commits.
pub(crate) fn due(snapshot: &Snapshot, interval: u64) -> bool {
    let interval = snapshot
        .property("delta.checkpointInterval")
        .and_then(|text| text.parse().ok())
        .unwrap_or(interval);
    let since = snapshot.version - snapshot.last_checkpoint.unwrap_or(0);
    // The feature asks for v2 checkpoints only.
    let classic = !snapshot.has_writer_feature("v2Checkpoint");
    classic && since >= interval.max(snapshot.files.len() as u64 / 10)
}

/// Writes the checkpoint of `snapshot`, then the hint that points to it.
pub(crate) async fn write(table: &Table, snapshot: &Arc<Snapshot>) -> Result<()> {
    let _one_at_a_time = table.checkpointing.lock().await;
    let known = table.cached().and_then(|newest| newest.last_checkpoint);
    if known.is_some_and(|version| version >= snapshot.version) {
        return Ok(());
    }
    put(table, snapshot).await
}

/// Writes it over one that may be there, without a word of files that are no part of the version: where they
/// were, and in which partitions, is not to be told any more.
pub(crate) async fn forgetful(table: &Table, snapshot: &Snapshot) -> Result<()> {
    let _one_at_a_time = table.checkpointing.lock().await;
    let bare = Arc::new(Snapshot {
        tombstones: imbl::OrdMap::new(),
        ..snapshot.clone()
    });
    put(table, &bare).await
}

async fn put(table: &Table, snapshot: &Arc<Snapshot>) -> Result<()> {
    let (bytes, actions) = {
        let snapshot = Arc::clone(snapshot);
        let now_ms = table.ambient.now_ms();
        tokio::task::spawn_blocking(move || encode(&snapshot, now_ms))
            .await
            .map_err(|error| Error::internal("writing a checkpoint stopped").with_source(error))??
    };
    let folder = log::log_folder(&table.root);
    let size = bytes.len();
    let path = folder
        .clone()
        .join(format!("{:020}.checkpoint.parquet", snapshot.version));
    let put = |path, bytes: bytes::Bytes| async move {
        table
            .root
            .store
            .put(&path, bytes.into())
            .await
            .map_err(|error| Error::storage(format!("cannot write {path}"), error))
    };
    put(path, bytes.into()).await?;
    let hint =
        serde_json::json!({ "version": snapshot.version, "size": actions, "sizeInBytes": size });
    put(folder.join("_last_checkpoint"), hint.to_string().into()).await?;
    table.checkpointed(snapshot.version);
    Ok(())
}

fn encode(snapshot: &Snapshot, now_ms: i64) -> Result<(Vec<u8>, u64)> {
    let fail = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::internal("a checkpoint could not be encoded")
            .with_detail(error.to_string())
            .with_source(error)
    };
    let schema = schema()?;
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema))
        .with_batch_size(BATCH_ROWS)
        .build_decoder()
        .map_err(|e| fail(e.into()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("selvedge ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(|e| fail(e.into()))?;
    let mut rows = Vec::with_capacity(BATCH_ROWS);
    let mut total = 0;
    let mut actions = actions(snapshot, now_ms).peekable();
    while actions.peek().is_some() {
        rows.extend(actions.by_ref().take(BATCH_ROWS));
        total += rows.len() as u64;
        decoder.serialize(&rows).map_err(|e| fail(e.into()))?;
        if let Some(batch) = decoder.flush().map_err(|e| fail(e.into()))? {
            writer.write(&batch).map_err(|e| fail(e.into()))?;
        }
        rows.clear();
    }
    Ok((writer.into_inner().map_err(|e| fail(e.into()))?, total))
}

/// The actions that make up a snapshot; expired tombstones are left behind.
fn actions(snapshot: &Snapshot, now_ms: i64) -> impl Iterator<Item = Action> + '_ {
    // As long as a vacuum keeps the files; for ever where the property cannot be read.
    let horizon = retention::deleted_files_ms(snapshot)
        .map_or(i64::MIN, |retention| now_ms.saturating_sub(retention));
    let head = [
        Action::Protocol((*snapshot.protocol).clone()),
        Action::Metadata((*snapshot.metadata).clone()),
    ];
    let transactions = snapshot
        .transactions
        .values()
        .map(|txn| Action::Txn((**txn).clone()));
    let domains = snapshot
        .domains
        .values()
        .filter(|domain| domain.get("removed").and_then(|removed| removed.as_bool()) != Some(true))
        .map(|domain| Action::DomainMetadata((**domain).clone()));
    let removes = snapshot
        .tombstones
        .values()
        .filter(move |remove| remove.deletion_timestamp.unwrap_or(0) > horizon)
        .map(|remove| {
            let mut remove = (**remove).clone();
            remove.data_change = false;
            Action::Remove(remove)
        });
    let adds = snapshot.files.values().map(|file| {
        let mut add = file.add.clone();
        add.data_change = false;
        Action::Add(add)
    });
    head.into_iter()
        .chain(transactions)
        .chain(domains)
        .chain(removes)
        .chain(adds)
}

/// The kernel's schema of actions, less what never stands in a classic checkpoint.
fn schema() -> Result<SchemaRef> {
    let all: Schema = delta_kernel::actions::get_all_actions_schema()
        .as_ref()
        .try_into_arrow()
        .map_err(|error: delta_kernel::arrow::error::ArrowError| {
            Error::internal("the checkpoint schema has no Arrow form").with_source(error)
        })?;
    let by_name: BTreeMap<&str, _> = all
        .fields()
        .iter()
        .map(|field| (field.name().as_str(), field))
        .collect();
    let fields: Vec<_> = [
        "txn",
        "add",
        "remove",
        "metaData",
        "protocol",
        "domainMetadata",
    ]
    .iter()
    .filter_map(|name| by_name.get(name).map(|field| Arc::clone(field)))
    .collect();
    Ok(Arc::new(Schema::new(fields)))
}

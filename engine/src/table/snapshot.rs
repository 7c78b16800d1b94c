//! One version of one table, in memory: what is read, pruned, planned and committed against.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::file::metadata::ParquetMetaData;
use imbl::OrdMap;
use object_store::ObjectMeta;
use object_store::path::Path;
use roaring::RoaringTreemap;
use tokio::sync::OnceCell;

use crate::error::{Error, Result};

use super::actions::{Add, DeletionVector, Metadata, Protocol, Remove, Txn};
use super::mapping::Mode;
use super::pieces::Remains;
use super::stats::FileStats;

/// One immutable version of a table. Cloning is cheap: the file map is shared between versions.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub version: u64,
    pub protocol: Arc<Protocol>,
    pub metadata: Arc<Metadata>,
    /// Columns in table order, partition columns included, with the Arrow types a scan returns
    /// (strings and binaries are views, timestamps microseconds, zone `UTC` or none). Fields carry what
    /// Delta notes of them; queries see [`super::mapping::logical`] of it.
    pub schema: SchemaRef,
    /// Live files by their path as the log writes it.
    pub files: OrdMap<String, Arc<DataFile>>,
    /// Removed files that readers of older versions may still need, by path and deletion vector.
    pub tombstones: OrdMap<(String, Option<String>), Arc<Remove>>,
    /// Last version of each writing application.
    pub transactions: OrdMap<String, Arc<Txn>>,
    /// Metadata that systems keep in the log, by domain: carried on, and read where it is a journal's.
    pub domains: OrdMap<String, Arc<serde_json::Value>>,
    /// When this version was committed, milliseconds since the epoch, strictly increasing per table.
    pub committed_at_ms: i64,
    /// Newest checkpoint known to exist at or before this version.
    pub last_checkpoint: Option<u64>,
    /// Random name of the attempt that wrote this version, if a writer of ours did.
    pub token: Option<String>,
}

/// A live data file.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub add: Add,
    stats: OnceLock<Option<FileStats>>,
    deleted: OnceCell<Arc<RoaringTreemap>>,
    remains: OnceLock<Remains>,
}

/// The same file with the same deleted rows.
impl PartialEq for DataFile {
    fn eq(&self, other: &Self) -> bool {
        self.add.path == other.add.path && self.add.deletion_vector == other.add.deletion_vector
    }
}

impl DataFile {
    pub(crate) fn new(add: Add) -> Self {
        Self {
            add,
            stats: OnceLock::new(),
            deleted: OnceCell::new(),
            remains: OnceLock::new(),
        }
    }

    /// The file of `add`, whose deletion vector stands for `deleted`.
    pub(crate) fn with_deleted(add: Add, deleted: Arc<RoaringTreemap>) -> Self {
        Self {
            deleted: OnceCell::new_with(Some(deleted)),
            ..Self::new(add)
        }
    }

    /// The file of `add` as one of which all rows are to be read but those that are `hidden`, whatever its deletion vector
    /// says. It is for a scan, and never for the log: what hides rows is nowhere but in memory.
    pub(crate) fn showing(add: &Add, hidden: RoaringTreemap) -> Self {
        let vector = (!hidden.is_empty()).then(|| DeletionVector {
            storage_type: "i".to_owned(),
            path_or_inline_dv: String::new(),
            offset: None,
            size_in_bytes: 0,
            cardinality: i64::try_from(hidden.len()).unwrap_or(i64::MAX),
        });
        Self {
            deleted: match vector {
                Some(_) => OnceCell::new_with(Some(Arc::new(hidden))),
                None => OnceCell::new(),
            },
            stats: OnceLock::new(),
            remains: OnceLock::new(),
            add: Add {
                deletion_vector: vector,
                ..add.clone()
            },
        }
    }

    /// Identity of its deletion vector, if it has one.
    pub(crate) fn dv_id(&self) -> Option<String> {
        self.add.deletion_vector.as_ref().map(|dv| dv.unique_id())
    }

    /// Statistics of the log, parsed on first use; `None` where the writer left none or they do not parse.
    pub(crate) fn stats(&self, schema: &SchemaRef) -> Option<&FileStats> {
        self.stats
            .get_or_init(|| FileStats::parse(self.add.stats.as_deref()?, schema))
            .as_ref()
    }

    /// Positions of the deleted rows, read on first use; `None` where the file has no deletion vector.
    pub(crate) async fn deleted(&self, root: &TableRoot) -> Result<Option<&Arc<RoaringTreemap>>> {
        let Some(vector) = &self.add.deletion_vector else {
            return Ok(None);
        };
        let load = || async { vector.load(root, &self.add.path).await.map(Arc::new) };
        self.deleted.get_or_try_init(load).await.map(Some)
    }

    /// What its deletion vector leaves of it, made on first use of the `footer`; `None` without a vector.
    pub(crate) async fn remains(
        &self,
        root: &TableRoot,
        footer: impl Future<Output = Result<Arc<ParquetMetaData>>>,
    ) -> Result<Option<&Remains>> {
        let Some(deleted) = self.deleted(root).await? else {
            return Ok(None);
        };
        if let Some(remains) = self.remains.get() {
            return Ok(Some(remains));
        }
        // Two scans may both make them: neither waits for what the other reads.
        let remains = Remains::new(footer.await?.as_ref(), deleted).map_err(|why| {
            let (table, path) = (root.url(), &self.add.path);
            Error::corrupt(format!("table {table}, data file '{path}': {why}"))
        })?;
        Ok(Some(self.remains.get_or_init(|| remains)))
    }

    /// The file as its store knows it.
    pub(crate) fn object_meta(&self, root: &TableRoot) -> Result<ObjectMeta> {
        let add = &self.add;
        let malformed = |what: &str, value: i64| {
            let (table, path) = (root.url(), &add.path);
            Error::corrupt(format!(
                "table {table}, data file '{path}': {what} {value} in the log"
            ))
        };
        Ok(ObjectMeta {
            location: root.locate(&add.path)?,
            last_modified: DateTime::<Utc>::from_timestamp_millis(add.modification_time)
                .ok_or_else(|| malformed("modification time", add.modification_time))?,
            size: u64::try_from(add.size).map_err(|_| malformed("size", add.size))?,
            e_tag: None,
            version: None,
        })
    }

    /// Visible rows, if the log says.
    pub(crate) fn rows(&self, schema: &SchemaRef) -> Option<u64> {
        let deleted = self
            .add
            .deletion_vector
            .as_ref()
            .map_or(0, |dv| dv.cardinality.max(0) as u64);
        Some(self.stats(schema)?.num_records?.saturating_sub(deleted))
    }
}

impl Snapshot {
    /// What a table will be before its first commit: columns and terms, no files.
    pub(crate) fn draft(protocol: &Protocol, metadata: &Metadata, schema: SchemaRef) -> Self {
        Self {
            version: 0,
            protocol: Arc::new(protocol.clone()),
            metadata: Arc::new(metadata.clone()),
            schema,
            files: OrdMap::new(),
            tombstones: OrdMap::new(),
            transactions: OrdMap::new(),
            domains: OrdMap::new(),
            committed_at_ms: i64::MIN,
            last_checkpoint: None,
            token: None,
        }
    }

    /// Partition columns, in the order of the metadata.
    pub(crate) fn partition_columns(&self) -> &[String] {
        &self.metadata.partition_columns
    }

    /// How columns find their data in files.
    pub(crate) fn mapping(&self) -> Mode {
        // What is none of the modes was refused when the snapshot was made.
        Mode::of(&self.protocol, &self.metadata).unwrap_or(Mode::None)
    }

    /// Whether the protocol names a writer feature.
    pub(crate) fn has_writer_feature(&self, feature: &str) -> bool {
        self.protocol
            .writer_features
            .iter()
            .flatten()
            .any(|f| f == feature)
    }

    /// CHECK constraints as (name, predicate text), in the order of their names.
    pub(crate) fn checks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata
            .configuration
            .iter()
            .filter_map(|(key, text)| {
                Some((key.strip_prefix("delta.constraints.")?, text.as_str()))
            })
    }

    /// A table property.
    pub(crate) fn property(&self, key: &str) -> Option<&str> {
        self.metadata.configuration.get(key).map(String::as_str)
    }
}

/// Where a table's objects are.
#[derive(Debug, Clone)]
pub(crate) struct TableRoot {
    /// The store's URL, as registered in the runtime (`file:///`, `s3://bucket/`, ...).
    pub store_url: datafusion::datasource::object_store::ObjectStoreUrl,
    pub store: Arc<dyn object_store::ObjectStore>,
    /// Folder of the table inside the store.
    pub path: Path,
}

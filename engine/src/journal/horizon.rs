//! Events that are kept because an earlier one may still come.
//!
//! They lie in files beside the table's, which a line of the log names: so the list is there without a commit being
//! read, outlives checkpoints, and is that of the version which is looked at. Other readers need not know of it.

mod condense;
mod since;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use self::condense::condense;
pub(crate) use self::since::Since;
use super::definition;
use super::event::{ANCHOR, DELETE, KEEP, SEQUENCE, kept_schema};
use super::shape::Shape;
use crate::clock::Ambient;
use crate::error::{Error, ErrorKind, Result};
use crate::table::actions::{Add, Metadata, Protocol};
use crate::table::mapping;
use crate::table::schema::to_arrow;
use crate::table::snapshot::{DataFile, Snapshot, TableRoot};
use crate::table::versioned::VersionedTable;
use crate::write::files::{FileSink, Written};

/// The domain of the log's line.
pub(crate) const DOMAIN: &str = "selvedge.journal";
/// The folder of these files, as the log would write it.
pub(crate) const FOLDER: &str = "_selvedge/journal";

/// What a version keeps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Kept {
    /// The greatest sequence that ever came.
    pub watermark: i64,
    pub files: Vec<KeptFile>,
}

/// A file of kept events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KeptFile {
    /// Below the table, as the log would write it.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    /// No event has a lesser sequence. Anchors do not count.
    pub first: i64,
    /// No event has a greater sequence.
    pub last: i64,
    /// Of a file that stands for earlier ones: up to where their events became the state they led to. It says nothing
    /// that those did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condensed: Option<i64>,
}

/// What a write adds to the list of the version it lands on, and takes from it.
#[derive(Debug, Clone)]
pub(crate) struct Keeping {
    pub watermark: i64,
    /// Whether the table goes back to this watermark, from wherever it is.
    pub restores: bool,
    pub came: Vec<KeptFile>,
    pub out: Vec<String>,
}

/// Where the files of a table are.
pub(crate) fn folder(root: &TableRoot) -> Path {
    root.path.clone().join("_selvedge").join("journal")
}

/// What a version keeps; nothing where it says nothing.
pub(crate) fn of(snapshot: &Snapshot) -> Result<Kept> {
    Ok(told(snapshot)?.unwrap_or_default())
}

fn told(snapshot: &Snapshot) -> Result<Option<Kept>> {
    match snapshot.domains.get(DOMAIN) {
        Some(line) => read(snapshot.version, line),
        None => Ok(None),
    }
}

/// What a line of the log says; None where it says that nothing is kept.
fn read(version: u64, line: &Value) -> Result<Option<Kept>> {
    if line.get("removed").and_then(Value::as_bool) == Some(true) {
        return Ok(None);
    }
    let text = line.get("configuration").and_then(Value::as_str);
    let text = text.unwrap_or_default();
    serde_json::from_str(text).map(Some).map_err(|error| {
        Error::corrupt(format!(
            "version {version}: what the log says in domain {DOMAIN} is no list of kept events"
        ))
        .with_detail(error.to_string())
        .with_source(error)
    })
}

/// The line of the log.
pub(crate) fn line(kept: &Kept) -> Result<Value> {
    let text = serde_json::to_string(kept).map_err(|error| {
        Error::internal("a list of kept events does not become JSON").with_source(error)
    })?;
    Ok(json!({"domain": DOMAIN, "configuration": text, "removed": false}))
}

/// The list of the version after `head`; None where it stays as it is.
///
/// # Errors
/// When a file that is to go is gone: somebody else has taken its events into another.
pub(crate) fn over(head: &Snapshot, keeping: &Keeping) -> Result<Option<Kept>> {
    let before = told(head)?;
    let mut now = before.clone().unwrap_or(Kept {
        watermark: keeping.watermark,
        files: Vec::new(),
    });
    for path in &keeping.out {
        let files = now.files.len();
        now.files.retain(|file| file.path != *path);
        if now.files.len() == files {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "version {} no longer keeps the events of '{path}'",
                    head.version
                ),
            ));
        }
    }
    now.watermark = match keeping.restores {
        true => keeping.watermark,
        false => now.watermark.max(keeping.watermark),
    };
    now.files.extend(keeping.came.iter().cloned());
    Ok((before.as_ref() != Some(&now)).then_some(now))
}

/// The kept events of a version that pass `filters`, in no order. A file calls the columns as the table's own files do,
/// so that one that was renamed keeps its values; what a file lacks is NULL.
///
/// Filters are on key columns, such as the least and the greatest key of a write: a file is in the order of its keys, so
/// only the pages around these are read.
pub(crate) async fn scan(
    state: &SessionState,
    shape: &Shape,
    root: &TableRoot,
    metadata: &Metadata,
    kept: &Kept,
    filters: &[Expr],
) -> Result<Arc<dyn ExecutionPlan>> {
    let table = provider_as_source(Arc::new(table(shape, root, metadata, kept)?));
    let mut plan = LogicalPlanBuilder::scan("kept", table, None)?;
    for filter in filters {
        plan = plan.filter(filter.clone())?;
    }
    let plan = plan.build()?;
    Ok(Box::pin(state.create_physical_plan(&plan)).await?)
}

/// The files as those of a table.
fn table(
    shape: &Shape,
    root: &TableRoot,
    metadata: &Metadata,
    kept: &Kept,
) -> Result<VersionedTable> {
    let columns = columns(shape, metadata)?;
    let features = || Some(vec![mapping::FEATURE.to_owned()]);
    let protocol = Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: features(),
        writer_features: features(),
    };
    // Names alone: riders have no ids.
    let mode = maps(metadata).then_some((mapping::MODE, "name"));
    // They are read as the journal is.
    let journal = metadata.configuration.get(definition::PROPERTY);
    let journal = journal.map(|journal| (definition::PROPERTY, journal.as_str()));
    let of_files = Metadata::of_files(mode.into_iter().chain(journal));
    let mut snapshot = Snapshot::draft(&protocol, &of_files, columns);
    for file in &kept.files {
        let data = Arc::new(DataFile::new(Add::of_file(file.path.clone(), file.bytes)));
        snapshot.files.insert(file.path.clone(), data);
    }
    let name = shape.table.clone();
    Ok(VersionedTable::new(name, Arc::new(snapshot), root.clone()))
}

/// Where rows of [`kept_schema`] go.
pub(crate) fn sink(
    root: &TableRoot,
    shape: &Shape,
    metadata: &Metadata,
    target_file_bytes: u64,
    ambient: &Ambient,
) -> Result<FileSink> {
    let root = TableRoot {
        path: folder(root),
        ..root.clone()
    };
    // The definition has the writer note the keys of each page.
    let journal = metadata.configuration.get(definition::PROPERTY);
    let journal = journal.map(|journal| (definition::PROPERTY, journal.as_str()));
    let properties = [("delta.dataSkippingNumIndexedCols", "0")];
    FileSink::new(
        &root,
        &columns(shape, metadata)?,
        &Metadata::of_files(properties.into_iter().chain(journal)),
        target_file_bytes,
        ambient.ids(),
        ambient.millis(),
    )
}

/// Written files as the log names them, with the bounds of all of their events.
pub(crate) fn files(written: &Written, first: i64, last: i64) -> Result<Vec<KeptFile>> {
    let file = |add: &Add| {
        let rows = add.counted_rows();
        Ok(KeptFile {
            path: format!("{FOLDER}/{}", add.path),
            rows: rows.ok_or_else(|| Error::internal("a file of kept events has no row count"))?,
            bytes: add.size.unsigned_abs(),
            first,
            last,
            condensed: None,
        })
    };
    written.adds.iter().map(file).collect()
}

/// Whether files call columns otherwise than queries do.
fn maps(metadata: &Metadata) -> bool {
    let mode = metadata.configuration.get(mapping::MODE);
    mode.is_some_and(|mode| mode != "none")
}

/// The columns of [`kept_schema`], with what tells their names in files.
fn columns(shape: &Shape, metadata: &Metadata) -> Result<SchemaRef> {
    let kept = kept_schema(shape);
    if !maps(metadata) {
        return Ok(kept);
    }
    let table = to_arrow(&metadata.schema_string)?;
    let riders = [SEQUENCE, DELETE, KEEP, ANCHOR];
    let fields = kept.fields().iter().map(|field| {
        if riders.contains(&field.name().as_str()) {
            return Ok(field.as_ref().clone());
        }
        let own = table.fields().find(field.name()).map(|(_, own)| own);
        let own = own.ok_or_else(|| {
            Error::internal(format!(
                "table {} has no column {}",
                shape.table,
                field.name()
            ))
        })?;
        Ok(own.as_ref().clone().with_nullable(true))
    });
    let fields: Vec<Field> = fields.collect::<Result<_>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

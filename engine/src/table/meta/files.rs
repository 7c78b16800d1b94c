//! `t$files`: the live data files, with what the log knows of their content.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::snapshot::{DataFile, Snapshot};
use super::column::Columns;
use super::partitions::{deleted_rows, with_values};

pub(super) fn columns(snapshot: &Snapshot) -> Columns<Arc<DataFile>> {
    let schema = Arc::clone(&snapshot.schema);
    let path = Columns::new().text("path", |file: &Arc<DataFile>| Some(file.add.path.clone()));
    with_values(path, snapshot, |file| file)
        .number("size_bytes", |file| Some(file.add.size))
        // What a query sees, so that the sum is count(*); unknown where the writer did not count.
        .number("rows", move |file| i64::try_from(file.rows(&schema)?).ok())
        .number("deleted_rows", |file| Some(deleted_rows(file)))
        .instant("modified", |file| Some(file.add.modification_time))
        .text("deletion_vector", |file| vector(file).map(str::to_owned))
        .texts("min_values", |file| bounds(file, "minValues"))
        .texts("max_values", |file| bounds(file, "maxValues"))
        .numbers("null_counts", |file| {
            let counts = statistics(file, "nullCount")?;
            let counts = counts.into_iter();
            Some(counts.filter_map(|(c, n)| Some((c, n.as_i64()?))).collect())
        })
        .texts("tags", |file| file.add.tags.clone())
}

/// Where the rows that are deleted are told.
fn vector(file: &DataFile) -> Option<&'static str> {
    let vector = file.add.deletion_vector.as_ref()?;
    Some(match vector.storage_type.as_str() {
        "i" => "inline",
        "p" => "absolute path",
        _ => "file",
    })
}

/// Bounds as the log writes them: they may be cut, and hold for deleted rows too.
fn bounds(file: &DataFile, which: &str) -> Option<BTreeMap<String, Option<String>>> {
    let bounds = statistics(file, which)?.into_iter();
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    Some(
        bounds
            .map(|(column, value)| (column, text(value)))
            .collect(),
    )
}

/// One kind of statistics by column; fields of a struct are named `column.field`.
fn statistics(file: &DataFile, which: &str) -> Option<BTreeMap<String, Value>> {
    let mut all: Map<String, Value> = serde_json::from_str(file.add.stats.as_deref()?).ok()?;
    let Value::Object(columns) = all.remove(which)? else {
        return None;
    };
    let mut flat = BTreeMap::new();
    let mut nested: Vec<(String, Map<String, Value>)> = vec![(String::new(), columns)];
    while let Some((prefix, columns)) = nested.pop() {
        for (name, value) in columns {
            let name = format!("{prefix}{name}");
            match value {
                Value::Object(fields) => nested.push((format!("{name}."), fields)),
                value => {
                    flat.insert(name, value);
                }
            }
        }
    }
    Some(flat)
}

//! `t$properties`: the table's configuration, and what its protocol asks of readers and writers.

use super::super::snapshot::Snapshot;
use super::column::Columns;
use crate::quality::rule;

pub(super) fn columns() -> Columns<(String, String)> {
    Columns::new()
        .text("key", |(key, _): &(String, String)| Some(key.clone()))
        .text("value", |(_, value)| Some(value.clone()))
}

/// Constraints are kept in the same place, but are `t$constraints`.
pub(super) fn of(snapshot: &Snapshot) -> Vec<(String, String)> {
    let protocol = &snapshot.protocol;
    let versions = [
        ("delta.minReaderVersion", protocol.min_reader_version),
        ("delta.minWriterVersion", protocol.min_writer_version),
    ];
    let features = protocol
        .reader_features
        .iter()
        .chain(&protocol.writer_features)
        .flatten();
    let mut properties: Vec<(String, String)> = snapshot
        .metadata
        .configuration
        .iter()
        .filter(|(key, _)| {
            !key.starts_with("delta.constraints.") && !key.starts_with(rule::PROPERTY)
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain(versions.map(|(key, version)| (key.to_owned(), version.to_string())))
        .chain(features.map(|name| (format!("delta.feature.{name}"), "supported".to_owned())))
        .collect();
    properties.sort();
    properties.dedup();
    properties
}

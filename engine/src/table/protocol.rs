//! What of the Delta protocol this engine reads and writes; every other feature is refused by name.

use super::actions::{Metadata, Protocol};
use super::mapping::{self, Mode};
use super::snapshot::{Snapshot, TableRoot};
use super::widening;
use crate::error::{Error, Result};

/// Features whose tables we read rightly; all that change what a reader does.
const READABLE: [&str; 7] = [
    "deletionVectors",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    mapping::FEATURE,
    widening::FEATURE,
    "typeWidening-preview",
];

/// Features whose tables we write rightly, some under conditions checked with the metadata.
const WRITABLE: [&str; 16] = [
    "appendOnly",
    "invariants",
    "checkConstraints",
    "changeDataFeed",
    "generatedColumns",
    mapping::FEATURE,
    widening::FEATURE,
    "typeWidening-preview",
    "identityColumns",
    "deletionVectors",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "inCommitTimestamp",
    "domainMetadata",
    "allowColumnDefaults",
];

/// Refuses tables that need a reader feature we lack; tells how columns find their data.
pub(crate) fn check_readable(
    root: &TableRoot,
    protocol: &Protocol,
    metadata: &Metadata,
) -> Result<Mode> {
    let refuse = |feature: &str| {
        Err(Error::unsupported(format!(
            "table at {} cannot be read: it needs the Delta reader feature {feature}",
            root.path
        )))
    };
    if protocol.min_reader_version > 3 {
        return refuse(&format!("version {}", protocol.min_reader_version));
    }
    for feature in protocol.reader_features.iter().flatten() {
        if !READABLE.contains(&feature.as_str()) {
            return refuse(feature);
        }
    }
    if metadata.format.provider != "parquet" {
        return refuse(&format!("file format {}", metadata.format.provider));
    }
    match Mode::of(protocol, metadata) {
        Some(mode) => Ok(mode),
        None => {
            let mode = metadata.configuration.get(mapping::MODE);
            refuse(&format!("columnMapping (mode {})", mode.map_or("", |m| m)))
        }
    }
}

/// Refuses tables that need a writer feature we lack.
pub(crate) fn check_writable(table: &str, snapshot: &Snapshot) -> Result<()> {
    let protocol = &snapshot.protocol;
    let refuse = |feature: &str| {
        Err(Error::unsupported(format!(
            "table {table} cannot be written: it needs the Delta writer feature {feature}"
        ))
        .with_hint("read it, or write it with the engine that made it"))
    };
    if protocol.min_writer_version > 7 {
        return refuse(&format!("version {}", protocol.min_writer_version));
    }
    for feature in protocol.writer_features.iter().flatten() {
        if !WRITABLE.contains(&feature.as_str()) {
            return refuse(feature);
        }
    }
    let asked = snapshot.property(mapping::MODE).unwrap_or("none");
    if asked != "none" && snapshot.mapping() == Mode::None {
        return refuse(
            "columnMapping, which its properties ask for and its protocol does not have",
        );
    }
    // Legacy versions imply these features whether or not a column uses them, so the schema decides.
    let schema = &snapshot.metadata.schema_string;
    for (key, feature) in [
        ("delta.generationExpression", "generatedColumns"),
        ("delta.identity.", "identityColumns"),
        ("delta.invariants", "invariants (column invariants)"),
    ] {
        if schema.contains(key) {
            return refuse(feature);
        }
    }
    Ok(())
}

/// The least protocol for a new table.
pub(crate) fn for_new_table(features: &[&str]) -> Protocol {
    let mut writer = vec!["appendOnly", "inCommitTimestamp", "invariants"];
    writer.extend(features);
    writer.sort_unstable();
    writer.dedup();
    let reader: Vec<String> = writer
        .iter()
        .filter(|feature| READABLE.contains(feature))
        .map(|feature| (*feature).to_owned())
        .collect();
    Protocol {
        // Version 1 keeps the table open to every reader while no feature changes what a file means.
        min_reader_version: if reader.is_empty() { 1 } else { 3 },
        min_writer_version: 7,
        reader_features: (!reader.is_empty()).then_some(reader),
        writer_features: Some(writer.into_iter().map(str::to_owned).collect()),
    }
}

/// `protocol` with all that `other` has: a table keeps the features that files of its past need.
pub(crate) fn at_least(protocol: &Protocol, other: &Protocol) -> Protocol {
    let features = other.writer_features.iter().flatten();
    let mut protocol = features.fold(protocol.clone(), |protocol, feature| {
        with_feature(&protocol, feature).unwrap_or(protocol)
    });
    protocol.min_reader_version = protocol.min_reader_version.max(other.min_reader_version);
    // From version 7 on features are named, and the ones of older versions with them.
    if protocol.min_writer_version < 7 {
        protocol.min_writer_version = protocol.min_writer_version.max(other.min_writer_version);
    }
    protocol
}

/// `protocol` with `feature` added, or `None` when it has it already.
pub(crate) fn with_feature(protocol: &Protocol, feature: &str) -> Option<Protocol> {
    let has = |list: &Option<Vec<String>>| list.iter().flatten().any(|f| f == feature);
    // Writer version 5 implies columnMapping, which readers of version 1 know nothing of.
    let told_to_readers = !READABLE.contains(&feature)
        || has(&protocol.reader_features)
        || protocol.min_reader_version == 2 && feature == mapping::FEATURE;
    if has(&protocol.writer_features) && told_to_readers {
        return None;
    }
    // A legacy version implies its features; naming them keeps their meaning under version 7.
    let implied: &[(i32, &[&str])] = &[
        (2, &["appendOnly", "invariants"]),
        (3, &["checkConstraints"]),
        (4, &["changeDataFeed", "generatedColumns"]),
        (5, &["columnMapping"]),
        (6, &["identityColumns"]),
    ];
    let mut writer: Vec<String> = protocol.writer_features.clone().unwrap_or_default();
    if protocol.min_writer_version < 7 {
        for (version, features) in implied {
            if protocol.min_writer_version >= *version {
                if features.contains(&feature) && told_to_readers {
                    return None;
                }
                writer.extend(features.iter().map(|f| (*f).to_owned()));
            }
        }
    }
    writer.push(feature.to_owned());
    writer.sort_unstable();
    writer.dedup();
    let mut reader = protocol.reader_features.clone().unwrap_or_default();
    if protocol.min_reader_version == 2 {
        reader.push("columnMapping".to_owned());
    }
    if READABLE.contains(&feature) {
        reader.push(feature.to_owned());
    }
    reader.sort_unstable();
    reader.dedup();
    let modern_reader = !reader.is_empty();
    Some(Protocol {
        min_reader_version: if modern_reader {
            3
        } else {
            protocol.min_reader_version
        },
        min_writer_version: 7,
        reader_features: modern_reader.then_some(reader),
        writer_features: Some(writer),
    })
}

//! One row in a hundred deleted by deletion vectors, written into a table's log by hand.
//!
//! This is what another Delta writer does to our table, so it also stands for the tables we are given: one
//! `deletion_vector_<uuid>.bin` per table, an entry for each data file, and a commit that swaps each `add` for
//! one with its vector. Layouts are those of the Delta protocol, "Deletion Vectors" and "Deletion Vector Format".

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use roaring::RoaringTreemap;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Result;

/// Keys of the tables that lose rows; the two small ones keep theirs.
const KEYS: [(&str, &[&str]); 6] = [
    ("customer", &["c_custkey"]),
    ("lineitem", &["l_orderkey", "l_linenumber"]),
    ("orders", &["o_orderkey"]),
    ("part", &["p_partkey"]),
    // Its two keys go together, so a sum of both would not be even.
    ("partsupp", &["ps_partkey"]),
    ("supplier", &["s_suppkey"]),
];
/// Factors that spread the deleted rows evenly: row groups are hit alike, none is skipped whole.
const FACTORS: [i64; 2] = [37, 11];
const MODULUS: i64 = 100;
const REMAINDER: i64 = 3;

/// The rows that stay, as SQL; `None` for a table that keeps all.
pub(crate) fn kept(table: &str) -> Option<String> {
    let sum: Vec<_> = keys(table)?
        .iter()
        .zip(FACTORS)
        .map(|(key, factor)| format!("{key} * {factor}"))
        .collect();
    Some(format!("({}) % {MODULUS} <> {REMAINDER}", sum.join(" + ")))
}

fn keys(table: &str) -> Option<&'static [&'static str]> {
    KEYS.iter()
        .find(|(name, _)| *name == table)
        .map(|(_, keys)| *keys)
}

/// Deletes in every TPC-H table found under `lake`, which no engine may have open. Returns the rows deleted.
pub(crate) fn delete(lake: &Path) -> Result<u64> {
    let mut deleted = 0;
    for folder in tables_under(lake)? {
        let log = Log::read(&folder)?;
        // Where a lake keeps a table is its own affair; a TPC-H table is known by its columns.
        let Some((_, keys)) = KEYS.iter().find(|(_, keys)| log.has_column(keys[0])) else {
            continue;
        };
        deleted += delete_in(&folder, &log, keys)?;
    }
    Ok(deleted)
}

fn delete_in(folder: &Path, log: &Log, keys: &[&str]) -> Result<u64> {
    // The only file of its kind in a fresh table, so that one name does for all runs.
    let id = Uuid::from_u128(0x0001_0002_0003_4004_8005_0006_0007_0008);
    let mut bin = vec![1_u8]; // version of the format
    let mut lines = vec![
        json!({"commitInfo": {"operation": "DELETE", "timestamp": log.time, "inCommitTimestamp": log.time}}),
        json!({"protocol": log.protocol_with_vectors()}),
        json!({"metaData": log.metadata_with_vectors()?}),
    ];
    let mut deleted = 0;
    for (path, add) in &log.adds {
        let rows = rows_to_delete(&folder.join(path), keys)?;
        if !add["deletionVector"].is_null() || rows.is_empty() {
            return Err(format!("{path}: rows deleted already, or none to delete").into());
        }
        deleted += rows.len();
        let (offset, size) = append_vector(&mut bin, &rows)?;
        lines.push(json!({"remove": {
            "path": path, "deletionTimestamp": log.time, "dataChange": true, "extendedFileMetadata": true,
            "partitionValues": add["partitionValues"], "size": add["size"],
        }}));
        let mut add = add.clone();
        add["dataChange"] = true.into();
        add["deletionVector"] = json!({
            "storageType": "u", "pathOrInlineDv": z85::encode(id.as_bytes()), "offset": offset,
            "sizeInBytes": size, "cardinality": rows.len(),
        });
        // Minima and maxima may now be those of deleted rows.
        if let Some(stats) = add["stats"].as_str() {
            let mut stats: Value = serde_json::from_str(stats)?;
            stats["tightBounds"] = false.into();
            add["stats"] = stats.to_string().into();
        }
        lines.push(json!({"add": add}));
    }
    std::fs::write(folder.join(format!("deletion_vector_{id}.bin")), bin)?;
    let commit: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(
        folder
            .join("_delta_log")
            .join(format!("{:020}.json", log.version + 1)),
        commit,
    )?;
    Ok(deleted)
}

/// Positions of the rows whose keys the rule names.
fn rows_to_delete(file: &Path, keys: &[&str]) -> Result<RoaringTreemap> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?;
    let mask = ProjectionMask::columns(reader.parquet_schema(), keys.iter().copied());
    let mut rows = RoaringTreemap::new();
    let mut position = 0;
    for batch in reader.with_projection(mask).build()? {
        let batch = batch?;
        let mut sums = vec![0; batch.num_rows()];
        for (key, factor) in keys.iter().zip(FACTORS) {
            let column = batch
                .column_by_name(key)
                .ok_or_else(|| format!("{}: no column {key}", file.display()))?;
            let column = cast(column, &DataType::Int64)?;
            for (sum, value) in sums
                .iter_mut()
                .zip(column.as_primitive::<Int64Type>().values())
            {
                *sum += value * factor;
            }
        }
        for sum in sums {
            if sum % MODULUS == REMAINDER {
                rows.insert(position);
            }
            position += 1;
        }
    }
    Ok(rows)
}

/// Size, magic number, 64-bit Roaring bitmap in the portable layout, CRC-32: the format's byte orders differ.
fn append_vector(bin: &mut Vec<u8>, rows: &RoaringTreemap) -> Result<(usize, usize)> {
    const MAGIC: u32 = 1_681_511_377;
    let mut vector = MAGIC.to_le_bytes().to_vec();
    rows.serialize_into(&mut vector)?;
    let offset = bin.len();
    bin.extend(u32::try_from(vector.len())?.to_be_bytes());
    bin.extend(&vector);
    bin.extend(crc32fast::hash(&vector).to_be_bytes());
    Ok((offset, vector.len()))
}

/// A log that has not been checkpointed, replayed.
struct Log {
    version: u64,
    /// A time after that of every commit.
    time: i64,
    protocol: Value,
    metadata: Value,
    adds: BTreeMap<String, Value>,
}

impl Log {
    fn read(table: &Path) -> Result<Self> {
        let mut log = Self {
            version: 0,
            time: 0,
            protocol: Value::Null,
            metadata: Value::Null,
            adds: BTreeMap::new(),
        };
        loop {
            let path = table
                .join("_delta_log")
                .join(format!("{:020}.json", log.version));
            if !path.is_file() {
                break;
            }
            for line in std::fs::read_to_string(path)?.lines() {
                log.apply(serde_json::from_str(line)?)?;
            }
            log.version += 1;
        }
        log.version = log
            .version
            .checked_sub(1)
            .ok_or_else(|| format!("{}: no commit 0", table.display()))?;
        log.time += 1;
        Ok(log)
    }

    fn apply(&mut self, mut line: Value) -> Result<()> {
        let path = |action: &Value| match action["path"].as_str() {
            Some(path) if !path.contains('%') => Ok(path.to_owned()),
            other => Err(format!("cannot find the file {other:?}")),
        };
        if let Some(info) = line.get("commitInfo") {
            let times = ["inCommitTimestamp", "timestamp"]
                .map(|name| info[name].as_i64().unwrap_or_default());
            self.time = times.into_iter().fold(self.time, i64::max);
        } else if let Some(add) = line.get_mut("add") {
            self.adds.insert(path(add)?, add.take());
        } else if let Some(remove) = line.get("remove") {
            self.adds.remove(&path(remove)?);
        } else if let Some(protocol) = line.get_mut("protocol") {
            self.protocol = protocol.take();
        } else if let Some(metadata) = line.get_mut("metaData") {
            self.metadata = metadata.take();
        }
        Ok(())
    }

    fn has_column(&self, name: &str) -> bool {
        self.metadata["schemaString"]
            .as_str()
            .is_some_and(|schema| schema.contains(&format!("\"{name}\"")))
    }

    /// The features the table has, and deletion vectors.
    fn protocol_with_vectors(&self) -> Value {
        let with = |features: &Value, implied: &[&str]| {
            let mut all: Vec<&str> = features
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            all.extend(implied);
            all.push("deletionVectors");
            all.sort_unstable();
            all.dedup();
            json!(all)
        };
        // Version 7 lists what version 2 implies.
        json!({
            "minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": with(&self.protocol["readerFeatures"], &[]),
            "writerFeatures": with(&self.protocol["writerFeatures"], &["appendOnly", "invariants"]),
        })
    }

    fn metadata_with_vectors(&self) -> Result<Value> {
        let mut metadata = self.metadata.clone();
        metadata
            .get_mut("configuration")
            .and_then(Value::as_object_mut)
            .ok_or("a table without a configuration")?
            .insert("delta.enableDeletionVectors".into(), "true".into());
        Ok(metadata)
    }
}

fn tables_under(folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.join("_delta_log").is_dir() {
        return Ok(vec![folder.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(tables_under(&entry.path())?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_laid_out_as_the_protocol_says() {
        let mut bin = vec![1];
        let rows: RoaringTreemap = [3, 1 << 33].into_iter().collect();
        let (offset, size) = append_vector(&mut bin, &rows).unwrap();
        assert_eq!((offset, bin.len()), (1, 1 + 4 + size + 4));
        assert_eq!(bin[1..5], u32::try_from(size).unwrap().to_be_bytes());
        assert_eq!(bin[5..9], [0xd1, 0xd3, 0x39, 0x64]);
        assert_eq!(bin[9..17], 2_u64.to_le_bytes());
        assert_eq!(
            RoaringTreemap::deserialize_from(&bin[9..5 + size]).unwrap(),
            rows
        );
    }

    #[test]
    fn the_rule_is_the_same_in_sql() {
        assert_eq!(
            kept("lineitem").unwrap(),
            "(l_orderkey * 37 + l_linenumber * 11) % 100 <> 3"
        );
        assert_eq!(kept("nation"), None);
    }
}

//! Commits as another Delta writer would make them: a table's log by hand, and deletion vectors.

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};

/// A table's folder in a store.
pub(crate) struct Folder<'a> {
    pub(crate) store: &'a dyn ObjectStore,
    pub(crate) path: &'static str,
}

impl Folder<'_> {
    pub(crate) fn commit_path(&self, version: u64) -> Path {
        Path::from(format!("{}/_delta_log/{version:020}.json", self.path))
    }

    pub(crate) fn file_path(&self, name: &str) -> Path {
        Path::parse(format!("{}/{name}", self.path)).unwrap()
    }

    /// The lines of a commit.
    pub(crate) async fn read(&self, version: u64) -> Vec<Value> {
        let got = self.store.get(&self.commit_path(version)).await.unwrap();
        let bytes = got.bytes().await.unwrap();
        let lines = bytes.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    /// What lines of this kind (`add`, `protocol`, ...) in a commit hold.
    pub(crate) async fn actions(&self, version: u64, kind: &str) -> Vec<Value> {
        let lines = self.read(version).await;
        lines
            .iter()
            .filter_map(|line| line.get(kind))
            .cloned()
            .collect()
    }

    /// Writes a commit whose time is `at_ms`.
    pub(crate) async fn write(&self, version: u64, at_ms: i64, actions: &[Value]) {
        let info = json!({"commitInfo": {
            "inCommitTimestamp": at_ms, "timestamp": at_ms, "operation": "WRITE", "operationParameters": {},
        }});
        let lines = std::iter::once(&info).chain(actions);
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let path = self.commit_path(version);
        self.store.put(&path, text.into()).await.unwrap();
    }

    /// The protocol line that allows deletion vectors beside what the table's first commit asks for.
    pub(crate) async fn protocol_with_vectors(&self) -> Value {
        let protocol = self.actions(0, "protocol").await.remove(0);
        let mut features = protocol["writerFeatures"].as_array().unwrap().clone();
        features.push("deletionVectors".into());
        json!({"protocol": {
            "minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": ["deletionVectors"], "writerFeatures": features,
        }})
    }
}

/// The line that takes away what `add` added, named as replay knows it: by path and vector.
pub(crate) fn remove(add: &Value) -> Value {
    let mut remove =
        json!({"deletionTimestamp": 1, "dataChange": true, "extendedFileMetadata": true});
    for key in ["path", "partitionValues", "size", "deletionVector"] {
        if let Some(value) = add.get(key) {
            remove[key] = value.clone();
        }
    }
    json!({"remove": remove})
}

/// The lines that give the file of `add` another vector.
pub(crate) fn replace_vector(add: &Value, vector: &Value) -> [Value; 2] {
    let mut added = add.clone();
    added["deletionVector"] = vector.clone();
    [remove(add), json!({"add": added})]
}

/// A file of several vectors, each after `gap` bytes that belong to nobody, and their descriptors.
pub(crate) async fn vectors(
    folder: &Folder<'_>,
    url: &str,
    gap: usize,
    row_sets: &[&[u16]],
) -> Vec<Value> {
    let name = "vectors.bin";
    let mut file = vec![1];
    let mut descriptors = Vec::new();
    for rows in row_sets {
        file.resize(file.len() + gap, 0xff);
        let data = bitmap(rows);
        descriptors.push(json!({
            "storageType": "p", "pathOrInlineDv": format!("{url}/{name}"), "offset": file.len(),
            "sizeInBytes": data.len(), "cardinality": rows.len(),
        }));
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(&data);
        file.extend(crc32(&data).to_be_bytes());
    }
    let path = folder.file_path(name);
    folder.store.put(&path, file.into()).await.unwrap();
    descriptors
}

/// Sorted rows as a 64-bit Roaring bitmap of one array container, behind Delta's magic number.
fn bitmap(rows: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(1_681_511_377_u32.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    // High half, cookie, number of containers, key and cardinality of the one, where it begins.
    for word in [0, 12_346, 1, (rows.len() as u32 - 1) << 16, 16] {
        bytes.extend(word.to_le_bytes());
    }
    rows.iter().for_each(|row| bytes.extend(row.to_le_bytes()));
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |mut sum, byte| {
        sum ^= u32::from(*byte);
        (0..8).for_each(|_| sum = sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg()));
        sum
    })
}

//! Which files are rewritten, and which of them together. Reads nothing but the log, and writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;

use super::bytes;
use crate::table::snapshot::DataFile;
use crate::write::commit::PartitionKey;

/// The share of deleted rows above which OPTIMIZE rewrites a large file. Below it, a reader loses less by
/// stepping over the rows than the table by writing all others again.
const WORN_SHARE: f64 = 0.1;

/// Files of one partition that become one rewriting.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// By age, so that rows keep their order: the bounds of what grows with time stay narrow.
    pub files: Vec<Arc<DataFile>>,
}

impl Group {
    pub(super) fn new(mut files: Vec<Arc<DataFile>>) -> Self {
        files.sort_by(|a, b| age(a).cmp(&age(b)));
        Self { files }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| bytes(file)).sum()
    }

    /// Rows that are visible, if the log says.
    pub(super) fn rows(&self, schema: &SchemaRef) -> Option<u64> {
        self.files.iter().map(|file| file.rows(schema)).sum()
    }

    /// Files with a deletion vector.
    pub(super) fn vectors(&self) -> u64 {
        let with = |file: &&Arc<DataFile>| file.add.deletion_vector.is_some();
        self.files.iter().filter(with).count() as u64
    }

    /// When its newest rows were written.
    pub(super) fn modified_ms(&self) -> i64 {
        let times = self.files.iter().map(|file| file.add.modification_time);
        times.max().unwrap_or(0)
    }
}

/// Files written in one go have names that rise with their rows.
fn age(file: &DataFile) -> (i64, &str) {
    (file.add.modification_time, &file.add.path)
}

/// The share of the rows of a file that are deleted. Whole where the log does not say of how many.
pub(super) fn dead_share(file: &DataFile, schema: &SchemaRef) -> f64 {
    let Some(vector) = &file.add.deletion_vector else {
        return 0.0;
    };
    match file.stats(schema).and_then(|stats| stats.num_records) {
        Some(rows) if rows > 0 => vector.cardinality as f64 / rows as f64,
        _ => 1.0,
    }
}

/// Bytes that the visible rows of a file will take when they are written again, about.
pub(super) fn live_bytes(file: &DataFile, schema: &SchemaRef) -> u64 {
    let live = 1.0 - dead_share(file, schema).clamp(0.0, 1.0);
    (bytes(file) as f64 * live) as u64
}

/// The rewritings that leave each partition with files of up to `target_bytes` and few deleted rows.
///
/// A file of half that size stays as it is: with it, every second one would have to be written again for
/// each small one that comes.
pub(super) fn pack<'a>(
    files: impl IntoIterator<Item = &'a Arc<DataFile>>,
    schema: &SchemaRef,
    target_bytes: u64,
) -> Vec<Group> {
    let worn = |file: &DataFile| dead_share(file, schema) > WORN_SHARE;
    let mut groups = Vec::new();
    for files in by_partition(files) {
        let (mut open, mut open_bytes) = (Vec::new(), 0);
        // A small file is cheap to write again, so that one deleted row of it is reason enough.
        let mut close = |files: Vec<Arc<DataFile>>| {
            let group = Group { files };
            if group.files.len() > 1 || group.vectors() > 0 {
                groups.push(group);
            }
        };
        for file in Group::new(files).files {
            let bytes = live_bytes(&file, schema);
            if bytes >= target_bytes / 2 && !worn(&file) {
                continue;
            }
            if open_bytes + bytes > target_bytes && !open.is_empty() {
                close(std::mem::take(&mut open));
                open_bytes = 0;
            }
            open_bytes += bytes;
            open.push(file);
        }
        close(open);
    }
    groups
}

/// Whole partitions, less those whose files all carry `tag` and have next to no deleted rows.
pub(super) fn unarranged<'a>(
    files: impl IntoIterator<Item = &'a Arc<DataFile>>,
    schema: &SchemaRef,
    tag: (&str, &str),
) -> Vec<Group> {
    let arranged = |file: &DataFile| {
        let tags = file.add.tags.as_ref();
        let found = tags.and_then(|tags| tags.get(tag.0)?.as_deref());
        found == Some(tag.1) && dead_share(file, schema) <= WORN_SHARE
    };
    by_partition(files)
        .filter(|files| !files.iter().all(|file| arranged(file)))
        .map(Group::new)
        .collect()
}

fn by_partition<'a>(
    files: impl IntoIterator<Item = &'a Arc<DataFile>>,
) -> impl Iterator<Item = Vec<Arc<DataFile>>> {
    let mut partitions: BTreeMap<&PartitionKey, Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in files {
        let key = &file.add.partition_values;
        partitions.entry(key).or_default().push(Arc::clone(file));
    }
    partitions.into_values()
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Schema;

    use super::*;
    use crate::table::actions::{Add, DeletionVector};

    /// A file of 100 rows: path, size, age, partition, deleted rows.
    fn file(path: &str, size: i64, age: i64, partition: &str, deleted: i64) -> Arc<DataFile> {
        let vector = DeletionVector {
            storage_type: "i".into(),
            path_or_inline_dv: path.into(),
            offset: None,
            size_in_bytes: 1,
            cardinality: deleted,
        };
        Arc::new(DataFile::new(Add {
            path: path.into(),
            partition_values: BTreeMap::from([("p".into(), Some(partition.into()))]),
            size,
            modification_time: age,
            data_change: true,
            stats: Some(r#"{"numRecords":100}"#.into()),
            tags: None,
            deletion_vector: (deleted > 0).then_some(vector),
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }))
    }

    fn packed(files: &[Arc<DataFile>]) -> Vec<Vec<&str>> {
        let schema = Arc::new(Schema::empty());
        let groups = pack(files, &schema, 100);
        let names = |group: &Group| -> Vec<&str> {
            let find = |f: &Arc<DataFile>| files.iter().find(|file| file.add.path == f.add.path);
            group
                .files
                .iter()
                .filter_map(find)
                .map(|file| file.add.path.as_str())
                .collect()
        };
        groups.iter().map(names).collect()
    }

    #[test]
    fn small_files_of_a_partition_go_together_by_age() {
        let files = [
            file("d", 10, 4, "x", 0),
            file("a", 40, 1, "x", 0),
            file("c", 30, 3, "x", 0),
            file("b", 40, 2, "x", 0),
            file("other", 10, 1, "y", 0),
            file("large", 50, 2, "x", 0),
        ];
        assert_eq!(packed(&files), [["a", "b"], ["c", "d"]]);
    }

    #[test]
    fn a_file_alone_stays_unless_rows_of_it_are_deleted() {
        assert!(packed(&[file("a", 10, 1, "x", 0)]).is_empty());
        assert_eq!(packed(&[file("a", 10, 1, "x", 1)]), [["a"]]);
        assert_eq!(packed(&[file("a", 500, 1, "x", 11)]), [["a"]]);
        assert!(packed(&[file("a", 500, 1, "x", 10)]).is_empty());
    }

    #[test]
    fn deleted_rows_take_no_room() {
        // 120 bytes on disk, 60 and 30 of them alive.
        let files = [file("a", 120, 1, "x", 50), file("b", 30, 2, "x", 0)];
        assert_eq!(packed(&files), [["a", "b"]]);
    }

    #[test]
    fn what_was_packed_is_not_packed_again() {
        let files = [
            file("a", 100, 1, "x", 0),
            file("b", 51, 2, "x", 0),
            file("rest", 20, 3, "x", 0),
        ];
        assert!(packed(&files).is_empty());
    }

    #[test]
    fn only_what_was_not_arranged_before_is_arranged() {
        let schema = Arc::new(Schema::empty());
        let tagged = |path: &str, deleted| {
            let file = file(path, 10, 1, "x", deleted);
            let mut add = file.add.clone();
            add.tags = Some(BTreeMap::from([("z".into(), Some("a".into()))]));
            Arc::new(DataFile::new(add))
        };
        let count = |files: &[Arc<DataFile>], by| unarranged(files, &schema, ("z", by)).len();
        assert_eq!(count(&[tagged("1", 0), tagged("2", 5)], "a"), 0);
        assert_eq!(count(&[tagged("1", 0), tagged("2", 5)], "b"), 1);
        assert_eq!(count(&[tagged("1", 0), tagged("2", 50)], "a"), 1);
        assert_eq!(count(&[tagged("1", 0), file("2", 1, 1, "x", 0)], "a"), 1);
        assert_eq!(count(&[tagged("1", 0), file("2", 1, 1, "y", 0)], "a"), 1);
    }
}

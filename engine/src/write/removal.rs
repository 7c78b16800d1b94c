//! What a commit takes out of the version it lands on: whole files, or rows by deletion vectors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use roaring::RoaringTreemap;
use serde_json::{Map, Value};

use super::commit::{Intent, Removes};
use super::conflict::TakenRows;
use super::target::NewTable;
use crate::error::{Error, Result};
use crate::table::actions::{Add, Remove};
use crate::table::deletion;
use crate::table::handle::Table;
use crate::table::located::physical_rows;
use crate::table::snapshot::{DataFile, Snapshot};

/// Bytes of deletion vectors that stay in memory after the commit that brought them.
const PRIMED_BYTES: i64 = 64 << 20;

/// The removals of one attempt to commit.
#[derive(Debug, Default)]
pub(super) struct Removal {
    /// Files as they were, whether they leave the table or come back with fewer rows.
    pub out: Vec<Arc<DataFile>>,
    /// Those that come back, with a new deletion vector.
    pub back: Vec<Add>,
    /// Rows that are no longer visible, as far as the log says.
    pub rows: u64,
    /// Protocol and metadata that allow deletion vectors, if the table has none yet.
    pub upgrade: Option<NewTable>,
    /// The deleted rows of those that come back, in their order.
    deleted: Vec<Arc<RoaringTreemap>>,
    /// Files of deletion vectors written for this attempt.
    vectors: Vec<Path>,
}

/// Resolves the removals of `intent` on `head`. May write deletion vectors, which [`Removal::discard`] takes back.
pub(super) async fn of(table: &Table, intent: &Intent, head: Option<&Snapshot>) -> Result<Removal> {
    let Some(head) = head else {
        return Ok(Removal::default());
    };
    let files = head.files.values();
    let removal = match &intent.removes {
        Removes::None => Removal::default(),
        Removes::All => whole(head, files.cloned()),
        Removes::Partitions(keys) => whole(
            head,
            files
                .filter(|file| keys.contains(&file.add.partition_values))
                .cloned(),
        ),
        Removes::Files(files) => {
            // A file that comes back as it is, with statistics it lacked, is not taken out first: two lines of
            // one file in one commit have no order.
            let back: BTreeSet<_> = match intent.rearranges {
                true => intent.adds.iter().map(|add| &add.path).collect(),
                false => BTreeSet::new(),
            };
            let out = files.iter().filter(|(path, _)| !back.contains(path));
            whole(head, out.map(|(_, file)| Arc::clone(file)))
        }
        Removes::Rows(rows) => marked(table, intent, head, rows).await?,
    };
    if !removal.out.is_empty() && !intent.rearranges && is_append_only(head) {
        removal.discard(table).await;
        return Err(Error::rejected(format!(
            "{} of table {} would remove rows of {} files, but the table is append-only",
            intent.operation,
            intent.name,
            removal.out.len()
        ))
        .with_hint("ALTER TABLE .. SET TBLPROPERTIES ('delta.appendOnly' = 'false') allows it"));
    }
    Ok(removal)
}

fn is_append_only(head: &Snapshot) -> bool {
    head.property("delta.appendOnly")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn whole(head: &Snapshot, files: impl Iterator<Item = Arc<DataFile>>) -> Removal {
    let out: Vec<_> = files.collect();
    Removal {
        rows: out.iter().filter_map(|file| file.rows(&head.schema)).sum(),
        out,
        ..Removal::default()
    }
}

/// Marks rows as deleted: a file without any row left goes, the others get a new deletion vector.
async fn marked(
    table: &Table,
    intent: &Intent,
    head: &Snapshot,
    taken: &BTreeMap<String, TakenRows>,
) -> Result<Removal> {
    let mut removal = Removal::default();
    let (mut keep, mut vectors): (Vec<(Arc<DataFile>, u64)>, Vec<RoaringTreemap>) =
        Default::default();
    for (path, taken) in taken {
        let file = head.files.get(path).ok_or_else(|| {
            Error::internal(format!("file '{path}' left the table before its rows did"))
        })?;
        let mut deleted = match file.deleted(&table.root).await? {
            Some(deleted) => deleted.as_ref().clone(),
            None => RoaringTreemap::new(),
        };
        deleted |= &taken.rows;
        removal.rows += taken.rows.len();
        removal.out.push(Arc::clone(file));
        let rows = physical_rows(&table.root, file, &head.schema).await?;
        if deleted.max().is_some_and(|last| last >= rows) {
            return Err(Error::internal(format!(
                "row {} of file '{path}', which has {rows} rows, was to be deleted",
                deleted.max().unwrap_or_default()
            )));
        }
        if deleted.len() < rows {
            keep.push((Arc::clone(file), rows));
            vectors.push(deleted);
        }
    }
    if vectors.is_empty() {
        return Ok(removal);
    }
    if head.property("delta.enableDeletionVectors") != Some("true") {
        removal.upgrade = Some(intent.vectors.clone().ok_or_else(|| {
            Error::unsupported(format!(
                "{} of table {} needs deletion vectors, which the table does not allow",
                intent.operation, intent.name
            ))
            .with_hint(
                "ALTER TABLE .. SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true') allows them; readers \
                 that do not know deletion vectors can then no longer read the table",
            )
        })?);
    }
    let ids = table.ambient.ids();
    let (stored, written) = deletion::store(&table.root, &*ids, &mut vectors).await?;
    removal.vectors = written;
    for ((file, rows), vector) in keep.into_iter().zip(stored) {
        removal.back.push(Add {
            stats: Some(wide_stats(file.add.stats.as_deref(), rows)),
            deletion_vector: Some(vector),
            data_change: true,
            ..file.add.clone()
        });
    }
    removal.deleted = vectors.into_iter().map(Arc::new).collect();
    Ok(removal)
}

/// Statistics of a file some rows of which are gone: the bounds hold, but need not be met.
fn wide_stats(stats: Option<&str>, rows: u64) -> String {
    let parsed = stats.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    let mut stats = parsed.unwrap_or_default();
    stats.insert("numRecords".to_owned(), Value::from(rows));
    stats.insert("tightBounds".to_owned(), Value::from(false));
    Value::Object(stats).to_string()
}

impl Removal {
    /// Gives the files that came back in `landed` the deleted rows that were written for them: the next statement
    /// would read them from the store again.
    pub(super) fn prime(&self, landed: &mut Snapshot) {
        let mut bytes = 0;
        for (add, deleted) in self.back.iter().zip(&self.deleted) {
            let live = landed.files.get(&add.path);
            let Some(live) = live.filter(|live| live.add.deletion_vector == add.deletion_vector)
            else {
                continue;
            };
            let vector = add.deletion_vector.as_ref();
            bytes += vector.map_or(0, |vector| i64::from(vector.size_in_bytes));
            // Of a statement that touched all of a large table, nobody may ever ask again.
            if bytes > PRIMED_BYTES {
                return;
            }
            let file = DataFile::with_deleted(live.add.clone(), Arc::clone(deleted));
            landed.files.insert(add.path.clone(), Arc::new(file));
        }
    }

    /// Removes the deletion vectors of an attempt that did not land.
    pub(super) async fn discard(&self, table: &Table) {
        for path in &self.vectors {
            if let Err(error) = table.root.store.delete(path).await {
                tracing::warn!(%error, %path, "a deletion vector nobody needs was left behind");
            }
        }
    }
}

/// The line that takes `file` out of the table; it must carry the deletion vector the file had.
///
/// Its time is that of the commit, which never goes back: a vacuum counts the retention from it.
pub(super) fn line(file: &DataFile, committed_at_ms: i64, data_change: bool) -> Remove {
    let add = &file.add;
    Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(committed_at_ms),
        data_change,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        tags: add.tags.clone(),
        deletion_vector: add.deletion_vector.clone(),
        base_row_id: add.base_row_id,
        default_row_commit_version: add.default_row_commit_version,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::datasource::object_store::ObjectStoreUrl;
    use object_store::memory::InMemory;
    use serde_json::json;

    use super::*;
    use crate::table::actions::{Metadata, Protocol};
    use crate::table::snapshot::TableRoot;

    /// A file with a deletion vector of `rows` rows in an object that nobody has written.
    fn marked(path: &str, object: &str, rows: usize) -> Add {
        serde_json::from_value(json!({
            "path": path, "partitionValues": {}, "size": 1, "modificationTime": 0, "dataChange": true,
            "deletionVector": {
                "storageType": "p", "pathOrInlineDv": format!("memory:///t/{object}"),
                "offset": 1, "sizeInBytes": 40, "cardinality": rows,
            },
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn what_a_commit_deleted_is_not_read_again() {
        let root = TableRoot {
            store_url: ObjectStoreUrl::parse("memory://").unwrap(),
            store: Arc::new(InMemory::new()),
            path: Path::from("t"),
        };
        let protocol = Protocol::plain(3, 7);
        let columns = Arc::new(Schema::empty());
        let mut landed = Snapshot::draft(&protocol, &Metadata::of_files([]), columns);
        // Of the second, the version that landed has another vector.
        for add in [marked("a", "x", 3), marked("b", "z", 1)] {
            let file = Arc::new(DataFile::new(add.clone()));
            landed.files.insert(add.path, file);
        }
        let rows: RoaringTreemap = (4..7).collect();
        let removal = Removal {
            back: vec![marked("a", "x", 3), marked("b", "y", 1)],
            deleted: vec![Arc::new(rows.clone()), Arc::new([9].into_iter().collect())],
            ..Removal::default()
        };
        removal.prime(&mut landed);
        assert_eq!(landed.files.len(), 2);
        let known = landed.files["a"].deleted(&root).await.unwrap();
        assert_eq!(**known.unwrap(), rows);
        assert!(landed.files["b"].deleted(&root).await.is_err());
    }
}

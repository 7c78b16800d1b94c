//! Small files merged in the background of writes, so that a table written in drops does not end as a heap of crumbs.
//!
//! Files fall into classes by their rows: 1 to 15, 16 to 255, and so on. When a partition has as many files of
//! one class as make a file of the next, they are merged, with all smaller ones. Each merge lifts its rows by a
//! class, so a row is written again once per class: O(log n) times, whatever comes in which order. A file most
//! of whose rows are deleted is rewritten too; what that costs is less than the deletes have written. Current rows of
//! a journal are freed of deleted ones sooner (`scattered`), for most reads are of them.
//!
//! What a commit changed is all that is looked at after it: two versions share the files they have in common.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::runtime_env::RuntimeEnv;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::sync::{Mutex, Semaphore};

use super::compact::{Group, dead_share, live_bytes};
use super::optimize::{Optimized, Request, land, parameters, rewrite};
use super::scattered::Scattered;
use super::{Job, bytes};
use crate::error::Result;
use crate::journal::definition;
use crate::progress::Meter;
use crate::settings::Settings;
use crate::table::handle::{Table, Upkeep};
use crate::table::protocol;
use crate::table::snapshot::{DataFile, Snapshot};
use crate::write::commit::{Intent, PartitionKey};
use crate::write::files::ROW_GROUP_ROWS;

/// Table property that switches it off.
pub(crate) const PROPERTY: &str = "selvedge.autoOptimize";

/// Files of one class that are merged, and the factor between classes. More would leave a reader more files to
/// open, fewer would write each row more often.
const FAN_IN: u64 = 16;

/// Files smaller than this share of the target size are merged; those of current rows of a journal, which writes close
/// after one row group, smaller than this share of it.
const SMALL: u64 = 4;

/// The share of deleted rows above which a file is rewritten by itself.
const DEAD_SHARE: f64 = 0.5;

/// Files due from which on nobody else goes first.
const PILE_FILES: usize = 4 * FAN_IN as usize;

/// A row that nobody counted is taken for so many bytes.
const ROW_BYTES: u64 = 64;

/// Versions that must pass after a failure before it is tried again; each failure doubles them.
const PAUSE_VERSIONS: u64 = 64;

/// What the tables of one engine share.
#[derive(Debug)]
pub(crate) struct Workshop {
    runtime: Arc<RuntimeEnv>,
    settings: Settings,
    /// One table at a time: this is work nobody waits for.
    turn: Semaphore,
}

impl Workshop {
    pub(crate) fn new(runtime: Arc<RuntimeEnv>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            settings,
            turn: Semaphore::new(1),
        })
    }

    /// Upkeep of one table.
    pub(crate) fn upkeep(self: &Arc<Self>) -> Arc<dyn Upkeep> {
        Arc::new(Watch(Arc::new(Shared {
            workshop: Arc::clone(self),
            due: AtomicBool::new(false),
            crumbs: Mutex::new(Crumbs::default()),
        })))
    }
}

/// Looks at the table after its commits.
#[derive(Debug)]
struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    workshop: Arc<Workshop>,
    /// Whether a look is due that has not begun: it will see later commits as well.
    due: AtomicBool,
    crumbs: Mutex<Crumbs>,
}

impl Upkeep for Watch {
    fn committed(&self, table: &Arc<Table>, name: &str) {
        if !self.0.workshop.settings.auto_optimize || self.0.due.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, table_handle) = (Arc::clone(&self.0), Arc::clone(table));
        let name = name.to_owned();
        table.in_background(async move { shared.look(&table_handle, &name).await });
    }
}

impl Shared {
    /// Merges what is due, until nothing is.
    async fn look(&self, table: &Arc<Table>, name: &str) {
        let mut crumbs = self.crumbs.lock().await;
        self.due.store(false, Ordering::Release);
        while let Some(head) = table.cached() {
            if head.property(PROPERTY) == Some("false") || head.version < crumbs.paused_until {
                return;
            }
            let target_bytes = self.workshop.settings.target_file_bytes;
            crumbs.journal = head.property(definition::PROPERTY).is_some();
            crumbs.follow(&head, target_bytes);
            let Some(due) = crumbs.due(&head.schema, target_bytes) else {
                return;
            };
            // A statement that takes rows out of files would have to run again if they moved: it goes first,
            // unless there is always one.
            let worn = crumbs.dead.len().max(crumbs.scattered.worn_out());
            let waiting = due.files.len().max(worn);
            let ended = table.running.ended();
            if table.running.changes_rows() && waiting < PILE_FILES {
                ended.await;
                continue;
            }
            match self.merge(table, name, &head, due).await {
                Ok(Some(done)) if done.version.is_some() => crumbs.failures = 0,
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, table = name, "small files were not merged");
                    crumbs.paused_until = head.version + (PAUSE_VERSIONS << crumbs.failures);
                    crumbs.failures = (crumbs.failures + 1).min(10);
                    return;
                }
            }
        }
    }

    /// `None` when somebody else rewrites files of the table.
    async fn merge(
        &self,
        table: &Arc<Table>,
        name: &str,
        head: &Arc<Snapshot>,
        group: Group,
    ) -> Result<Option<Optimized>> {
        let Ok(_turn) = self.workshop.turn.acquire().await else {
            return Ok(None);
        };
        let Ok(_rewriting) = table.compacting.try_lock() else {
            return Ok(None);
        };
        protocol::check_writable(name, head)?;
        let now = table.ambient.now_ms();
        let _running = table.running.begin(now, false);
        let job = Job {
            name: name.to_owned(),
            table: Arc::clone(table),
            runtime: Arc::clone(&self.workshop.runtime),
            settings: self.workshop.settings.clone(),
            user: None,
            batch_id: now,
            meter: Meter::new("OPTIMIZE", None),
        };
        let mut sink = job.sink(head)?;
        if let Some(flag) = head.partition_columns().first()
            && head.property(definition::PROPERTY).is_some()
        {
            sink = sink.of_journal(flag)?;
        }
        let rewritten = rewrite(&job, head, &sink, group, &[]).await?;
        let intent = Intent {
            parameters: parameters(&Request::default(), true),
            ..job.intent(head, "OPTIMIZE")
        };
        land(&job, &sink, intent, vec![rewritten]).await.map(Some)
    }
}

/// Files of one class by path.
type Class = BTreeMap<String, Arc<DataFile>>;

/// The files of a table that may be merged, as of the version last looked at.
#[derive(Debug, Default)]
struct Crumbs {
    seen: OrdMap<String, Arc<DataFile>>,
    version: u64,
    /// Small files, by partition and class.
    small: HashMap<PartitionKey, BTreeMap<u32, Class>>,
    /// Whether the table is a journal.
    journal: bool,
    /// Files so many of whose rows are deleted that they are rewritten.
    dead: Class,
    /// Current rows of a journal.
    scattered: Scattered,
    /// Classes that had enough files when one came last.
    full: BTreeSet<(PartitionKey, u32)>,
    failures: u32,
    /// The version before which nothing is tried again.
    paused_until: u64,
}

impl Crumbs {
    /// Takes note of what changed up to `head`.
    fn follow(&mut self, head: &Snapshot, target_bytes: u64) {
        if head.version < self.version {
            return;
        }
        let seen = std::mem::replace(&mut self.seen, head.files.clone());
        self.version = head.version;
        for change in seen.diff(&head.files) {
            match change {
                DiffItem::Add(_, new) => self.insert(new, &head.schema, target_bytes),
                DiffItem::Remove(_, old) => self.remove(old, &head.schema),
                DiffItem::Update {
                    old: (_, old),
                    new: (_, new),
                } => {
                    self.remove(old, &head.schema);
                    self.insert(new, &head.schema, target_bytes);
                }
            }
        }
    }

    fn insert(&mut self, file: &Arc<DataFile>, schema: &SchemaRef, target_bytes: u64) {
        let path = file.add.path.clone();
        let current = self.current(file);
        if current {
            self.scattered.insert(file, schema);
        }
        if dead_share(file, schema) > DEAD_SHARE {
            self.dead.insert(path, Arc::clone(file));
            return;
        }
        let full = file
            .rows(schema)
            .is_some_and(|rows| rows >= ROW_GROUP_ROWS as u64 / SMALL);
        if bytes(file) >= target_bytes / SMALL || current && full {
            return;
        }
        let (key, class) = (&file.add.partition_values, class(file, schema));
        let classes = match self.small.get_mut(key) {
            Some(classes) => classes,
            None => self.small.entry(key.clone()).or_default(),
        };
        let files = classes.entry(class).or_default();
        files.insert(path, Arc::clone(file));
        if files.len() as u64 >= FAN_IN {
            self.full.insert((key.clone(), class));
        }
    }

    /// Whether a file has current rows of a journal.
    fn current(&self, file: &DataFile) -> bool {
        // The only partition of a journal is whether a row is current.
        let mut values = file.add.partition_values.values();
        self.journal && values.any(|value| value.as_deref() == Some("true"))
    }

    fn remove(&mut self, file: &DataFile, schema: &SchemaRef) {
        self.dead.remove(&file.add.path);
        self.scattered.remove(&file.add.path);
        let key = &file.add.partition_values;
        let Some(classes) = self.small.get_mut(key) else {
            return;
        };
        let class = class(file, schema);
        if let Some(files) = classes.get_mut(&class) {
            files.remove(&file.add.path);
            if files.is_empty() {
                classes.remove(&class);
            }
        }
        if classes.is_empty() {
            self.small.remove(key);
        }
    }

    /// Files to merge now; the same again until they have gone.
    fn due(&mut self, schema: &SchemaRef, target_bytes: u64) -> Option<Group> {
        let worn = self.dead.values().next();
        if let Some(file) = worn.or_else(|| self.scattered.due()) {
            return Some(Group::new(vec![Arc::clone(file)]));
        }
        while let Some((key, class)) = self.full.first() {
            let enough = |files: &Class| files.len() as u64 >= FAN_IN;
            let classes = self.small.get(key);
            let Some(classes) = classes.filter(|all| all.get(class).is_some_and(enough)) else {
                self.full.pop_first();
                continue;
            };
            let files = classes
                .range(..=*class)
                .flat_map(|(_, files)| files.values());
            let mut group = Group::new(files.cloned().collect());
            let mut room = target_bytes;
            group.files.retain(|file| {
                let bytes = live_bytes(file, schema);
                let fits = bytes <= room;
                room = if fits { room - bytes } else { 0 };
                fits
            });
            return Some(group);
        }
        None
    }
}

fn class(file: &DataFile, schema: &SchemaRef) -> u32 {
    let rows = file.rows(schema).unwrap_or(bytes(file) / ROW_BYTES);
    rows.max(1).ilog(FAN_IN)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Schema;

    use super::*;
    use crate::table::actions::{Add, DeletionVector};

    const TARGET: u64 = 100_000_000;

    fn file(path: String, rows: u64) -> Arc<DataFile> {
        Arc::new(DataFile::new(Add {
            path,
            partition_values: BTreeMap::new(),
            size: (500 + rows * 10) as i64,
            modification_time: 0,
            data_change: true,
            stats: Some(format!("{{\"numRecords\":{rows}}}")),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }))
    }

    /// Writes files of these rows one by one and merges what is due; answers with the rows that were written
    /// again, and with the files left.
    fn simulate(writes: impl IntoIterator<Item = u64>) -> (u64, usize) {
        let schema = Arc::new(Schema::empty());
        let mut crumbs = Crumbs::default();
        let mut live: BTreeMap<String, Arc<DataFile>> = BTreeMap::new();
        let mut rewritten = 0;
        for (number, rows) in writes.into_iter().enumerate() {
            let written = file(format!("{number}"), rows);
            crumbs.insert(&written, &schema, TARGET);
            live.insert(written.add.path.clone(), written);
            let mut merge = 0;
            while let Some(group) = crumbs.due(&schema, TARGET) {
                assert!(group.files.len() > 1);
                let rows = group.rows(&schema).unwrap();
                rewritten += rows;
                for old in &group.files {
                    crumbs.remove(old, &schema);
                    live.remove(&old.add.path);
                }
                let merged = file(format!("{number}-{merge}"), rows);
                crumbs.insert(&merged, &schema, TARGET);
                live.insert(merged.add.path.clone(), merged);
                merge += 1;
            }
        }
        (rewritten, live.len())
    }

    #[test]
    fn each_row_is_written_again_once_per_class() {
        for n in [16_u64, 1_000, 20_000] {
            let (rewritten, files) = simulate((0..n).map(|_| 1));
            let classes = u64::from(n.ilog(FAN_IN));
            assert!(rewritten <= n * classes, "{n}: {rewritten}");
            assert!(files as u64 <= FAN_IN * (classes + 1), "{n}: {files}");
        }
        // Sizes in no order: 1 to 10,000 rows.
        let sizes = (0..5_000u64).map(|i| (i * 7_919) % 10_000 + 1);
        let (n, largest) = (sizes.clone().sum::<u64>(), sizes.clone().count());
        let (rewritten, files) = simulate(sizes);
        assert!(
            rewritten <= n * u64::from(n.ilog(FAN_IN)),
            "{rewritten} of {n}"
        );
        assert!(files < largest / 50, "{files}");
    }

    #[test]
    fn current_rows_of_a_journal_are_freed_of_deleted_ones_sooner() {
        let schema = Arc::new(Schema::empty());
        let due = |journal: bool, current: &str, deleted: i64| {
            let mut add = file("f".to_owned(), 1_000_000).add.clone();
            add.partition_values = BTreeMap::from([("c".to_owned(), Some(current.to_owned()))]);
            add.deletion_vector = Some(DeletionVector {
                storage_type: "i".into(),
                path_or_inline_dv: "x".into(),
                offset: None,
                size_in_bytes: 1,
                cardinality: deleted,
            });
            let mut crumbs = Crumbs {
                journal,
                ..Crumbs::default()
            };
            let file = Arc::new(DataFile::new(add));
            crumbs.insert(&file, &schema, TARGET);
            let due = crumbs.due(&schema, TARGET).is_some();
            crumbs.remove(&file, &schema);
            assert!(crumbs.due(&schema, TARGET).is_none());
            due
        };
        assert!(due(true, "true", 125_001));
        assert!(!due(true, "true", 125_000));
        assert!(!due(true, "false", 500_000));
        assert!(due(true, "false", 500_001));
        assert!(!due(false, "true", 500_000));
    }

    #[test]
    fn files_of_one_row_group_are_not_merged_in_a_journal() {
        let schema = Arc::new(Schema::empty());
        let group = ROW_GROUP_ROWS as u64;
        for (journal, rows, due) in [
            (true, group / SMALL, false),
            (true, group / SMALL - 1, true),
            (false, group / SMALL, true),
        ] {
            let mut crumbs = Crumbs {
                journal,
                ..Crumbs::default()
            };
            for at in 0..FAN_IN {
                let mut add = file(format!("{at}"), rows).add.clone();
                add.partition_values = BTreeMap::from([("c".to_owned(), Some("true".to_owned()))]);
                crumbs.insert(&Arc::new(DataFile::new(add)), &schema, TARGET);
            }
            assert_eq!(
                crumbs.due(&schema, TARGET).is_some(),
                due,
                "{journal} {rows}"
            );
        }
    }

    #[test]
    fn what_changed_is_followed_and_nothing_else() {
        let schema = Arc::new(Schema::empty());
        let mut files: OrdMap<String, Arc<DataFile>> = (0..5_000)
            .map(|i| (format!("{i}"), file(format!("{i}"), 1 << 40)))
            .collect();
        let head = |files: &OrdMap<String, Arc<DataFile>>, version| Snapshot {
            version,
            files: files.clone(),
            ..Snapshot::draft(
                &protocol::for_new_table(&[]),
                &serde_json::from_str(r#"{"id":"x","schemaString":""}"#).unwrap(),
                Arc::clone(&schema),
            )
        };
        let mut crumbs = Crumbs::default();
        crumbs.follow(&head(&files, 0), TARGET);
        assert!(crumbs.small.is_empty());
        for i in 0..FAN_IN - 1 {
            files.insert(format!("new {i}"), file(format!("new {i}"), 1));
        }
        crumbs.follow(&head(&files, 1), TARGET);
        assert!(crumbs.due(&schema, TARGET).is_none());
        files.remove("new 3");
        files.insert("new 4".into(), file("new 4".into(), 20));
        crumbs.follow(&head(&files, 2), TARGET);
        let sizes = |crumbs: &Crumbs| -> Vec<(u32, usize)> {
            let classes = crumbs.small.values().next().unwrap();
            classes
                .iter()
                .map(|(class, files)| (*class, files.len()))
                .collect()
        };
        // A file is what its path and deletion vector say, so the longer one under the same path is not news.
        assert_eq!(sizes(&crumbs), [(0, 14)]);
        for i in 0..2 {
            files.insert(format!("last {i}"), file(format!("last {i}"), 1));
        }
        crumbs.follow(&head(&files, 3), TARGET);
        assert_eq!(crumbs.due(&schema, TARGET).unwrap().files.len(), 16);
        // An older version tells nothing new.
        crumbs.follow(&head(&OrdMap::new(), 1), TARGET);
        assert_eq!(sizes(&crumbs), [(0, 16)]);
    }
}

//! One table as this engine holds it: where it is, its newest known snapshot, and the queue of its writers.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use super::running::Running;
use super::snapshot::{Snapshot, TableRoot};
use super::{erased, log, replay, vacuumed, versioned::VersionedTable};
use crate::clock::Ambient;
use crate::error::{Error, ErrorKind, Result};

/// How long a cached snapshot is trusted to find its successor by name. After that the log is listed,
/// because another engine's cleanup may have removed the commits in between.
const PROBE_WINDOW_MS: i64 = 10 * 60 * 1000;

/// A table shared by all sessions of an engine.
#[derive(Debug)]
pub(crate) struct Table {
    pub root: TableRoot,
    pub ambient: Ambient,
    /// The newest snapshot this engine has seen, and when it last looked.
    newest: RwLock<Option<(Arc<Snapshot>, i64)>>,
    /// Writers of this process queue here, so that they do not race each other for versions.
    pub commits: Mutex<()>,
    /// At most one checkpoint of a table is written at a time.
    pub checkpointing: Mutex<()>,
    /// At most one statement or task rewrites files of the table at a time.
    pub compacting: Mutex<()>,
    /// What deletes files of old versions takes turns with what brings them back.
    pub past: Mutex<()>,
    /// Writes of this process that have begun and not ended.
    pub running: Arc<Running>,
    upkeep: OnceLock<Arc<dyn Upkeep>>,
    background: TaskTracker,
    swept: AtomicBool,
    /// The first version that stayed of the last erasure that this process has met.
    erased: AtomicU64,
    /// When the log was last looked through for commits to delete.
    log_cleaned_ms: AtomicI64,
}

/// What an engine does for a table when something was committed to it.
pub(crate) trait Upkeep: Debug + Send + Sync {
    /// Called after each commit of this process, before its statement is answered: must return at once.
    fn committed(&self, table: &Arc<Table>, name: &str);
}

impl Table {
    pub(crate) fn new(root: TableRoot, ambient: Ambient, background: TaskTracker) -> Self {
        Self {
            root,
            ambient,
            newest: RwLock::new(None),
            commits: Mutex::new(()),
            checkpointing: Mutex::new(()),
            compacting: Mutex::new(()),
            past: Mutex::new(()),
            running: Arc::default(),
            upkeep: OnceLock::new(),
            background,
            swept: AtomicBool::new(false),
            erased: AtomicU64::new(0),
            log_cleaned_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// The newest snapshot known without looking at the store.
    pub(crate) fn cached(&self) -> Option<Arc<Snapshot>> {
        self.newest
            .read()
            .as_ref()
            .map(|(snapshot, _)| Arc::clone(snapshot))
    }

    /// Remembers a snapshot unless a newer one is known.
    pub(crate) fn remember(&self, snapshot: &Arc<Snapshot>) {
        let now = self.ambient.now_ms();
        let mut newest = self.newest.write();
        match newest.as_mut() {
            Some((known, looked)) if known.version >= snapshot.version => *looked = now,
            _ => *newest = Some((Arc::clone(snapshot), now)),
        }
    }

    /// Notes that a checkpoint of `version` exists now.
    pub(crate) fn checkpointed(&self, version: u64) {
        if let Some((snapshot, _)) = self.newest.write().as_mut()
            && snapshot.last_checkpoint.is_none_or(|known| known < version)
        {
            let mut newer = (**snapshot).clone();
            newer.last_checkpoint = Some(version);
            *snapshot = Arc::new(newer);
        }
    }

    /// Has `upkeep` told of every commit from now on.
    pub(crate) fn keep_up(&self, upkeep: Arc<dyn Upkeep>) {
        // Set where the table is opened, and nowhere else.
        let _ = self.upkeep.set(upkeep);
    }

    /// Notes that this process has committed something to the table, which messages call `name`.
    pub(crate) fn committed(self: &Arc<Self>, name: &str) {
        if let Some(upkeep) = self.upkeep.get() {
            upkeep.committed(self, name);
        }
    }

    /// Whether it is time to look for commits older than `keep_ms`. Looking means listing the log, so
    /// it is done a few times per retention and at most once a day.
    pub(crate) fn log_cleanup_due(&self, keep_ms: i64) -> bool {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        let now = self.ambient.now_ms();
        let looked = self.log_cleaned_ms.load(Ordering::Relaxed);
        let due = now.saturating_sub(looked) >= (keep_ms / 30).min(DAY_MS);
        if due {
            self.log_cleaned_ms.store(now, Ordering::Relaxed);
        }
        due
    }

    /// Runs upkeep that no statement waits for; the engine waits for it when it settles.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.background.spawn(work);
    }

    /// Whether the caller is the first who wants to sweep the table's folder.
    pub(crate) fn begin_sweep(&self) -> bool {
        !self.swept.swap(true, Ordering::Relaxed)
    }

    /// Whether an erasure, named by the first version that it left, is one that this process has not met.
    pub(crate) fn meets(&self, erased: u64) -> bool {
        self.erased.fetch_max(erased, Ordering::Relaxed) < erased
    }

    /// Forgets the cached snapshot; the next look reads the log from its checkpoint.
    pub(crate) fn forget(&self) {
        *self.newest.write() = None;
    }

    /// The newest snapshot in the store, or `None` when there is no table there.
    pub(crate) async fn latest(&self) -> Result<Option<Arc<Snapshot>>> {
        let cached = self.newest.read().clone();
        let snapshot = match cached {
            Some((cached, looked)) if self.ambient.now_ms() - looked < PROBE_WINDOW_MS => {
                replay::refresh(&self.root, &cached).await?
            }
            _ => match replay::load(&self.root, None).await? {
                Some(snapshot) => Arc::new(snapshot),
                None => return Ok(None),
            },
        };
        self.remember(&snapshot);
        Ok(Some(snapshot))
    }

    /// The newest snapshot of a table that must be there.
    pub(crate) async fn pin(&self, name: &str) -> Result<Arc<Snapshot>> {
        self.latest().await?.ok_or_else(|| {
            Error::corrupt(format!(
                "table {name} has no Delta log at {}",
                self.root.path
            ))
            .with_hint("restore its folder from a copy, or drop the table")
        })
    }

    /// The snapshot of one version, of which all files are there.
    pub(crate) async fn at_version(&self, name: &str, version: u64) -> Result<Arc<Snapshot>> {
        let newest = self.pin(name).await?;
        let snapshot = self.logged(name, &newest, version).await?;
        vacuumed::check(&self.root, name, &newest, &snapshot).await?;
        Ok(snapshot)
    }

    /// The snapshot of one version as the log has it, whether or not its files are still there.
    pub(crate) async fn logged(
        &self,
        name: &str,
        newest: &Arc<Snapshot>,
        version: u64,
    ) -> Result<Arc<Snapshot>> {
        if version == newest.version {
            return Ok(Arc::clone(newest));
        }
        if version > newest.version {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "table {name} has no version {version}; the newest is {}",
                    newest.version
                ),
            ));
        }
        erased::check(&self.root, name, newest, version).await?;
        match replay::load(&self.root, Some(version)).await? {
            Some(snapshot) => Ok(Arc::new(snapshot)),
            None => Err(Error::corrupt(format!(
                "table {name} has no Delta log at {}",
                self.root.path
            ))),
        }
    }

    /// The snapshot that was current at `at_ms` (milliseconds since the epoch).
    pub(crate) async fn at_time(&self, name: &str, at_ms: i64) -> Result<Arc<Snapshot>> {
        let version = self.version_at(name, at_ms).await?;
        self.at_version(name, version).await
    }

    /// The version that was current at `at_ms` (milliseconds since the epoch).
    pub(crate) async fn version_at(&self, name: &str, at_ms: i64) -> Result<u64> {
        let newest = self.pin(name).await?;
        self.check_past(name, &newest, at_ms)?;
        if at_ms >= newest.committed_at_ms {
            return Ok(newest.version);
        }
        let commits = log::list(&self.root, 0).await?.commits;
        match self.made_until(name, &commits, at_ms).await? {
            [] => Err(self.nothing_at(name, &commits, at_ms).await?),
            [.., version] => Ok(*version),
        }
    }

    /// The first version that was committed at or after `at_ms`; the one that comes next when there is none.
    pub(crate) async fn first_since(&self, name: &str, at_ms: i64) -> Result<u64> {
        let newest = self.pin(name).await?;
        self.check_past(name, &newest, at_ms)?;
        if at_ms > newest.committed_at_ms {
            return Ok(newest.version + 1);
        }
        let commits = log::list(&self.root, 0).await?.commits;
        match self
            .made_until(name, &commits, at_ms.saturating_sub(1))
            .await?
        {
            [] if commits.first() == Some(&0) => Ok(0),
            [] => Err(self.nothing_at(name, &commits, at_ms).await?),
            [.., version] => Ok(version + 1),
        }
    }

    fn check_past(&self, name: &str, newest: &Snapshot, at_ms: i64) -> Result<()> {
        let now = self.ambient.now_ms().max(newest.committed_at_ms);
        if at_ms <= now {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "table {name}: {} lies in the future; now is {}",
            instant(at_ms),
            instant(now)
        )))
    }

    /// Those of `commits`, which ascend, that were made at or before `at_ms`.
    async fn made_until<'c>(
        &self,
        name: &str,
        commits: &'c [u64],
        at_ms: i64,
    ) -> Result<&'c [u64]> {
        // Times rise with versions by construction, so the last one is found by bisection.
        let (mut low, mut high) = (0, commits.len());
        while low < high {
            let middle = (low + high) / 2;
            let version = commits[middle];
            let commit = log::read(&self.root, version).await?.ok_or_else(|| {
                Error::corrupt(format!(
                    "commit {version} of table {name} vanished while it was read"
                ))
            })?;
            if commit.time_ms() <= at_ms {
                low = middle + 1
            } else {
                high = middle
            }
        }
        Ok(&commits[..low])
    }

    async fn nothing_at(&self, name: &str, commits: &[u64], at_ms: i64) -> Result<Error> {
        let first = match commits.first() {
            Some(first) => log::read(&self.root, *first).await?,
            None => None,
        };
        Ok(Error::new(
            ErrorKind::NotFound,
            format!("table {name} has no version at {}", instant(at_ms)),
        )
        .with_detail(first.map_or_else(
            || "its log has no commits".to_owned(),
            |first| {
                format!(
                    "its earliest readable version is of {}",
                    instant(first.time_ms())
                )
            },
        )))
    }

    /// The DataFusion table of one snapshot.
    pub(crate) fn provider(
        self: &Arc<Self>,
        name: &str,
        snapshot: Arc<Snapshot>,
    ) -> VersionedTable {
        VersionedTable::new(name.to_owned(), snapshot, self.root.clone())
    }
}

/// An instant as text, in UTC.
pub(crate) fn instant(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).map_or_else(
        || format!("{ms} ms"),
        |at| at.format("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
    )
}

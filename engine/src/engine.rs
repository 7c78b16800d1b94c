//! The engine: one open lake, its runtime, catalog and hooks.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionConfig;
use object_store::ObjectStore;
use parking_lot::Mutex;
use selvedge_udfs::{GeoDatabases, SelvedgeOptions};
use tokio_util::task::TaskTracker;
use url::Url;
use uuid::Uuid;

use crate::catalog::CatalogLog;
use crate::catalog::entry::TableEntry;
use crate::clock::Ambient;
use crate::error::{Error, Result};
use crate::maintenance::auto::Workshop;
use crate::maintenance::erase;
use crate::session::{Rules, Session, SessionOptions};
use crate::settings::Settings;
use crate::store::{self, Lake};
use crate::table::erased;
use crate::table::handle::Table;
use crate::table::snapshot::TableRoot;
use crate::write::hook::WriteHookSupplier;

/// Consumers named in an error about memory.
const CONSUMERS_SHOWN: usize = 5;

/// Footers of data files, of journals with the index of their pages (4 MB for ten million rows), are kept up to this
/// part of the memory limit, beside the pool.
const FOOTERS_SHARE: usize = 32;

/// At least so many bytes: a footer that does not fit is read again by every piece of its file.
const LEAST_FOOTERS: usize = 16 << 20;

/// No living upload pauses this long.
const STAGING_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// One open lake. Cheap to clone; all clones share caches, memory and hooks.
///
/// ```
/// # async fn run() -> selvedge_engine::Result<()> {
/// use selvedge_engine::{Answer, Engine};
///
/// let engine = Engine::builder("memory:///").open().await?;
/// let session = engine.session();
/// session.execute("CREATE TABLE t (id BIGINT NOT NULL, name TEXT)").await?;
/// let Answer::Written(report) = session.execute("INSERT INTO t VALUES (1, 'warp'), (2, 'weft')").await? else {
///     unreachable!("an INSERT answers with a report");
/// };
/// assert_eq!((report.rows_written, report.version), (2, Some(1)));
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What all sessions of an engine share.
pub(crate) struct Inner {
    pub settings: Settings,
    pub ambient: Ambient,
    pub lake: Lake,
    pub runtime: Arc<RuntimeEnv>,
    pub catalog: CatalogLog,
    pub hooks: Vec<Arc<dyn WriteHookSupplier>>,
    pub geo: Arc<GeoDatabases>,
    pub background: TaskTracker,
    workshop: Arc<Workshop>,
    /// Tables by identifier and place: a table dropped and made anew is another one.
    tables: Mutex<HashMap<(String, String), Arc<Table>>>,
}

/// Collects what an [`Engine`] is opened with.
pub struct EngineBuilder {
    url: String,
    settings: Settings,
    store: Option<Arc<dyn ObjectStore>>,
    hooks: Vec<Arc<dyn WriteHookSupplier>>,
    ambient: Ambient,
}

impl Engine {
    /// Starts to open the lake at `url`: a folder, `file://`, `memory://`, `s3://`, `gs://` or `az://`.
    pub fn builder(url: impl Into<String>) -> EngineBuilder {
        EngineBuilder {
            url: url.into(),
            settings: Settings::default(),
            store: None,
            hooks: Vec::new(),
            ambient: Ambient::machine(),
        }
    }

    /// A session with the rights of the embedding program: local files may be read and written.
    pub fn session(&self) -> Session {
        self.session_with(SessionOptions::default())
    }

    /// A session with the rights given.
    pub fn session_with(&self, options: SessionOptions) -> Session {
        Session::new(Arc::clone(&self.inner), options)
    }

    /// The rules of a table, by its name as SQL writes it: what is expected of its rows, and what becomes of those
    /// that are not so.
    ///
    /// ```
    /// # async fn run() -> selvedge_engine::Result<()> {
    /// use selvedge_engine::{Answer, Engine, OnViolation, Rule, Validation};
    ///
    /// let engine = Engine::builder("memory:///").open().await?;
    /// let session = engine.session();
    /// session.execute("CREATE TABLE orders (id BIGINT, amount DOUBLE)").await?;
    ///
    /// let rules = engine.rules("orders");
    /// let mut rule = Rule::new("positive", "amount >= 0");
    /// rule.on_violation = OnViolation::QuarantineRow;
    /// rules.create(rule, Validation::Scan).await?;
    ///
    /// let Answer::Written(report) = session.execute("INSERT INTO orders VALUES (1, 19.99), (2, -5)").await? else {
    ///     unreachable!("an INSERT answers with a report");
    /// };
    /// assert_eq!((report.rows_written, report.rows_quarantined), (1, 1));
    ///
    /// rules.set_enabled("positive", false).await?;
    /// assert!(!rules.get("positive").await?.enabled);
    /// rules.delete("positive").await?;
    /// assert!(rules.list().await?.is_empty());
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn rules(&self, table: &str) -> Rules {
        self.session().rules(table)
    }

    /// The lake's URL.
    pub fn url(&self) -> &Url {
        &self.inner.lake.url
    }

    /// Waits for background work (checkpoints, merges of small files) that writes have started.
    pub async fn settle(&self) {
        self.inner.background.close();
        self.inner.background.wait().await;
        self.inner.background.reopen();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("lake", &self.inner.lake.url.as_str())
            .finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// Replaces the default settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Uses this store for the lake instead of opening one by the URL (tests, own credentials).
    /// Its paths are relative to the URL's scheme and authority.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn ObjectStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Adds a hook that the rows of every write pass, after those added before it.
    #[must_use]
    pub fn hook(mut self, hook: Arc<dyn WriteHookSupplier>) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Uses this clock (milliseconds since the epoch) instead of the machine's.
    #[must_use]
    pub fn clock(mut self, millis: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        self.ambient = self.ambient.with_clock(millis);
        self
    }

    /// Uses these identifiers instead of random ones. They must not repeat.
    #[must_use]
    pub fn ids(mut self, ids: Arc<dyn Fn() -> Uuid + Send + Sync>) -> Self {
        self.ambient = self.ambient.with_ids(ids);
        self
    }

    /// Opens the lake, creating its folder on first use.
    ///
    /// # Errors
    /// When a setting is out of range, the URL is not one of a lake, or its store cannot be reached.
    pub async fn open(self) -> Result<Engine> {
        self.settings.validate()?;
        let lake = match self.store {
            Some(store) => Lake::over(&self.url, store)?,
            None => store::open(&self.url, self.settings.durable).await?,
        };
        let pool = FairSpillPool::new(self.settings.memory_limit_bytes);
        let pool = TrackConsumersPool::new(
            pool,
            std::num::NonZeroUsize::new(CONSUMERS_SHOWN).unwrap_or(std::num::NonZeroUsize::MIN),
        );
        let footers = self.settings.memory_limit_bytes / FOOTERS_SHARE;
        let footers = footers.max(LEAST_FOOTERS);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_metadata_cache_limit(footers)
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::OsTmpDirectory),
            )
            .with_object_store_registry(Arc::new(Stores::new(&lake)))
            .build_arc()?;
        let catalog = CatalogLog::new(Arc::clone(&lake.store), &lake.prefix, self.ambient.clone());
        if lake.remote() {
            let known = catalog.pin().await;
            let known = known.map_err(|error| lake.unread(error))?;
            // Nobody has written to it yet: the last moment to learn that its store cannot keep writers apart.
            if known.version == 0 {
                store::probe(&lake, &self.ambient.id().to_string()).await?;
            }
        }
        let workshop = Workshop::new(Arc::clone(&runtime), self.settings.clone());
        Ok(Engine {
            inner: Arc::new(Inner {
                workshop,
                settings: self.settings,
                ambient: self.ambient,
                lake,
                runtime,
                catalog,
                hooks: self.hooks,
                geo: Arc::default(),
                background: TaskTracker::new(),
                tables: Mutex::new(HashMap::new()),
            }),
        })
    }
}

impl Inner {
    /// The shared handle of a table of the catalog.
    pub(crate) fn table(&self, entry: &TableEntry) -> Result<Arc<Table>> {
        let key = (entry.id.clone(), entry.location.clone());
        if let Some(table) = self.tables.lock().get(&key) {
            return Ok(Arc::clone(table));
        }
        let table = self.open_table(&entry.location)?;
        Ok(Arc::clone(self.tables.lock().entry(key).or_insert(table)))
    }

    /// A handle of the table at a place nobody shares yet.
    pub(crate) fn open_table(&self, location: &str) -> Result<Arc<Table>> {
        let root = self.root(location)?;
        let table = Table::new(root, self.ambient.clone(), self.background.clone());
        table.keep_up(self.workshop.upkeep());
        Ok(Arc::new(table))
    }

    /// Lets every session find the handle through which `entry` was just made.
    pub(crate) fn adopt(&self, entry: &TableEntry, table: Arc<Table>) {
        self.tables
            .lock()
            .insert((entry.id.clone(), entry.location.clone()), table);
    }

    /// Removes what writers that died on this disk left half written in a table's folder, if nobody can be
    /// writing it any more; returns how many files.
    pub(crate) async fn sweep(&self, table: &Table) -> Result<u64> {
        let now = self.ambient.now_ms().max(0).unsigned_abs();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now);
        store::sweep(&self.lake, &table.root.path, STAGING_AGE, now).await
    }

    /// The same once per table and in the background; an erasure that was cut short is finished as well.
    pub(crate) fn sweep_once(self: &Arc<Self>, table: &Arc<Table>, name: &str) {
        let erased = table.cached().and_then(|head| erased::of(&head));
        // Another process may have begun one since.
        let erases = erased.is_some_and(|erased| table.meets(erased.first));
        let sweeps = !self.lake.remote() && table.begin_sweep();
        if !erases && !sweeps {
            return;
        }
        let (engine, table, name) = (Arc::clone(self), Arc::clone(table), name.to_owned());
        self.background.spawn(async move {
            if erases && let Err(error) = erase::finish(&table, &name).await {
                tracing::warn!(%error, table = name, "an erasure that was cut short was not finished");
            }
            if !sweeps {
                return;
            }
            match engine.sweep(&table).await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, table = %table.root.path, "removed what dead writers left behind"),
                Err(error) => tracing::warn!(%error, table = %table.root.path, "leftovers were not removed"),
            }
        });
    }

    fn root(&self, location: &str) -> Result<TableRoot> {
        if !location.contains("://") {
            let path = location
                .split('/')
                .fold(self.lake.prefix.clone(), |path, part| path.join(part));
            return Ok(TableRoot {
                store_url: self.lake.store_url.clone(),
                store: Arc::clone(&self.lake.store),
                path,
            });
        }
        let external = store::open_external(location)?;
        let url = Url::parse(location)
            .map_err(|error| Error::invalid(format!("{location} is not a URL: {error}")))?;
        let path = object_store::path::Path::from_url_path(url.path())
            .map_err(|error| Error::invalid(format!("{location} is not a location: {error}")))?;
        let store = if external.store_url == self.lake.store_url {
            Arc::clone(&self.lake.store)
        } else {
            external.store
        };
        Ok(TableRoot {
            store_url: external.store_url,
            store,
            path,
        })
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("lake", &self.lake.url.as_str())
            .finish_non_exhaustive()
    }
}

/// A fresh session configuration of the engine.
pub(crate) fn session_config(settings: &Settings) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(crate::catalog::NAME, crate::catalog::DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        // A scope has its own, which knows more of the lake.
        .with_information_schema(false)
        .with_target_partitions(settings.target_partitions)
        .with_option_extension(SelvedgeOptions::default());
    let options = config.options_mut();
    // Errors point at the place in the text.
    options.sql_parser.collect_spans = true;
    // TIMESTAMP WITH TIME ZONE is an instant; without a zone of the session, DataFusion would drop its zone.
    options.execution.time_zone = Some("UTC".to_owned());
    // 19.99 is exactly 19.99, as in DuckDB and Trino; floats are written 19.99e0.
    options.sql_parser.parse_float_as_decimal = true;
    // Moving accesses to struct fields below a join gives two columns one name (DataFusion 55.2), and the statement fails.
    options.optimizer.enable_leaf_expression_pushdown = false;
    config
}

/// The stores DataFusion reads from: the lake's own, and others opened when first asked for.
#[derive(Debug)]
struct Stores {
    open: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Stores {
    fn new(lake: &Lake) -> Self {
        let url: &Url = lake.store_url.as_ref();
        Self {
            open: Mutex::new(HashMap::from([(key(url), Arc::clone(&lake.store))])),
        }
    }
}

fn key(url: &Url) -> String {
    url[..url::Position::BeforePath].to_owned()
}

impl ObjectStoreRegistry for Stores {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        self.open.lock().insert(key(url), store)
    }

    fn get_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        if let Some(store) = self.open.lock().get(&key(url)) {
            return Ok(Arc::clone(store));
        }
        let external = store::open_external(url.as_str())?;
        Ok(Arc::clone(
            self.open.lock().entry(key(url)).or_insert(external.store),
        ))
    }
}

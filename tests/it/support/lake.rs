//! Ways to open a lake.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use selvedge_engine::{Engine, Session, Settings};

/// A session of a new lake in memory.
pub(crate) async fn session() -> Session {
    in_memory().await.session()
}

/// An engine on a new lake in memory.
pub(crate) async fn in_memory() -> Engine {
    Engine::builder("memory:///").open().await.unwrap()
}

/// As [`in_memory`], with settings of its own.
pub(crate) async fn with_settings(settings: Settings) -> Engine {
    let builder = Engine::builder("memory:///").settings(settings);
    builder.open().await.unwrap()
}

/// As [`in_memory`], with a clock of its own.
pub(crate) async fn with_clock(clock: impl Fn() -> i64 + Send + Sync + 'static) -> Engine {
    let builder = Engine::builder("memory:///").clock(Arc::new(clock));
    builder.open().await.unwrap()
}

/// An engine on a store.
pub(crate) async fn open(store: Arc<dyn ObjectStore>) -> Engine {
    let builder = Engine::builder("memory:///").store(store);
    builder.open().await.unwrap()
}

/// An engine on a store that writes a checkpoint every second version, so that a few statements leave some, and what
/// is kept in commits is condensed on the way.
pub(crate) async fn with_checkpoints(store: Arc<dyn ObjectStore>) -> Engine {
    with_checkpoints_every(2, store).await
}

/// An engine on a store that writes a checkpoint every so many versions.
pub(crate) async fn with_checkpoints_every(versions: u64, store: Arc<dyn ObjectStore>) -> Engine {
    let mut settings = Settings::default();
    settings.checkpoint_interval = versions;
    let builder = Engine::builder("memory:///").store(store);
    builder.settings(settings).open().await.unwrap()
}

/// A session of an engine of its own on a folder, which knows of it what another process would.
pub(crate) async fn folder(lake: &Path) -> Session {
    let builder = Engine::builder(lake.to_str().unwrap());
    builder.open().await.unwrap().session()
}

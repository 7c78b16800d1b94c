//! The catalog's own log: names of a lake kept in the object store, safe under concurrent creators.
//!
//! Every DDL statement is one small numbered object, written with a conditional put; every
//! [`STATE_EVERY`] of them the whole state is written beside it, and what is older is swept. Reading a
//! catalog is one listing and a handful of small reads, whatever the number of tables.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::entry::{Catalog, Change};
use crate::clock::Ambient;
use crate::error::{Error, ErrorKind, Result};

/// Steps between two whole states.
const STATE_EVERY: u64 = 64;

/// A creator that loses this often against others gives up.
const TRIES: u32 = 200;

/// The catalog at one version.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    pub version: u64,
    pub catalog: Arc<Catalog>,
}

/// One object of the log.
#[derive(Debug, Serialize, Deserialize)]
struct Step {
    /// Random name of the attempt: how a creator knows its own step after an ambiguous answer.
    token: String,
    changes: Vec<Change>,
}

#[derive(Debug)]
pub(crate) struct CatalogLog {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    ambient: Ambient,
    newest: RwLock<Option<Pinned>>,
}

impl CatalogLog {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, lake: &Path, ambient: Ambient) -> Self {
        Self {
            store,
            folder: lake.clone().join("_selvedge").join("catalog"),
            ambient,
            newest: RwLock::new(None),
        }
    }

    /// The newest catalog.
    pub(crate) async fn pin(&self) -> Result<Pinned> {
        let cached = self.newest.read().clone();
        let pinned = match cached {
            Some(cached) => self.refresh(cached).await?,
            None => self.load().await?,
        };
        self.remember(&pinned);
        Ok(pinned)
    }

    /// Applies what `decide` answers for the newest catalog; decides anew when another creator was faster.
    /// No changes means nothing is written.
    pub(crate) async fn change(
        &self,
        decide: impl Fn(&Catalog) -> Result<Vec<Change>>,
    ) -> Result<()> {
        let token = self.ambient.id().to_string();
        for attempt in 0..TRIES {
            let pinned = self.pin().await?;
            let changes = decide(&pinned.catalog)?;
            if changes.is_empty() {
                return Ok(());
            }
            let version = pinned.version + 1;
            let step = Step {
                token: token.clone(),
                changes: changes.clone(),
            };
            if self.put(version, &step).await? {
                let mut catalog = (*pinned.catalog).clone();
                changes.into_iter().for_each(|change| catalog.apply(change));
                let pinned = Pinned {
                    version,
                    catalog: Arc::new(catalog),
                };
                self.remember(&pinned);
                if version.is_multiple_of(STATE_EVERY)
                    && let Err(error) = self.condense(&pinned).await
                {
                    tracing::warn!(%error, version, "the catalog was not condensed");
                }
                return Ok(());
            }
            let pause = self.ambient.below(1 << attempt.min(14));
            tokio::time::sleep(std::time::Duration::from_micros(pause)).await;
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "the catalog is being changed by too many others",
        )
        .with_hint("run the statement again"))
    }

    fn remember(&self, pinned: &Pinned) {
        let mut newest = self.newest.write();
        if newest
            .as_ref()
            .is_none_or(|known| known.version < pinned.version)
        {
            *newest = Some(pinned.clone());
        }
    }

    fn step_path(&self, version: u64) -> Path {
        self.folder.clone().join(format!("{version:020}.json"))
    }

    fn state_path(&self, version: u64) -> Path {
        self.folder
            .clone()
            .join(format!("{version:020}.state.json"))
    }

    /// Puts one step; true when this version is ours in the end, whatever the store answered.
    async fn put(&self, version: u64, step: &Step) -> Result<bool> {
        let path = self.step_path(version);
        let bytes = serde_json::to_vec(step).map_err(|error| {
            Error::internal("a catalog change could not be written as JSON").with_source(error)
        })?;
        let mut failure = None;
        for attempt in 0..5 {
            match self
                .store
                .put_opts(
                    &path,
                    bytes.clone().into(),
                    PutOptions::from(PutMode::Create),
                )
                .await
            {
                Ok(_) => return Ok(true),
                Err(error) => failure = Some(error),
            }
            match self.read_step(version).await {
                Ok(Some(found)) => return Ok(found.token == step.token),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, %path, "a catalog step could not be read back")
                }
            }
            let pause = self.ambient.below(8 << attempt);
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        }
        Err(match failure {
            Some(error) => Error::storage(format!("cannot change the catalog: {path}"), error),
            None => Error::internal("cannot change the catalog"),
        })
    }

    async fn read_step(&self, version: u64) -> Result<Option<Step>> {
        self.read(&self.step_path(version)).await
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>> {
        let storage = |error| Error::storage(format!("cannot read the catalog: {path}"), error);
        let bytes = match self.store.get(path).await {
            Ok(got) => got.bytes().await.map_err(storage)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(storage(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::corrupt(format!("catalog object {path} is damaged: {error}"))
                .with_hint("restore this object from a copy")
        })
    }

    /// Versions of steps and of states after `from`, ascending.
    async fn list(&self, from: u64) -> Result<(Vec<u64>, Vec<u64>)> {
        let offset = self.folder.clone().join(format!("{:020}", from + 1));
        let mut steps = Vec::new();
        let mut states = Vec::new();
        let mut listing = self.store.list_with_offset(Some(&self.folder), &offset);
        while let Some(meta) = listing.try_next().await.map_err(|error| {
            Error::storage(format!("cannot list the catalog: {}", self.folder), error)
        })? {
            let Some((version, rest)) = meta
                .location
                .filename()
                .and_then(|name| name.split_once('.'))
            else {
                continue;
            };
            match (version.parse(), rest) {
                (Ok(version), "json") => steps.push(version),
                (Ok(version), "state.json") => states.push(version),
                _ => {}
            }
        }
        steps.sort_unstable();
        states.sort_unstable();
        Ok((steps, states))
    }

    async fn load(&self) -> Result<Pinned> {
        let (steps, states) = self.list(0).await?;
        let mut pinned = Pinned {
            version: 0,
            catalog: Arc::new(Catalog::empty()),
        };
        for state in states.iter().rev() {
            match self.read::<Catalog>(&self.state_path(*state)).await {
                Ok(Some(catalog)) => {
                    pinned = Pinned {
                        version: *state,
                        catalog: Arc::new(catalog),
                    };
                    break;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "a catalog state cannot be read, trying an older one")
                }
            }
        }
        self.fold(pinned, steps).await
    }

    async fn refresh(&self, cached: Pinned) -> Result<Pinned> {
        let (steps, states) = self.list(cached.version).await?;
        match steps.first() {
            None if states.is_empty() => Ok(cached),
            Some(first) if *first == cached.version + 1 => self.fold(cached, steps).await,
            // What we knew was swept while we did not look.
            _ => self.load().await,
        }
    }

    async fn fold(&self, from: Pinned, steps: Vec<u64>) -> Result<Pinned> {
        let wanted: Vec<u64> = steps
            .into_iter()
            .filter(|version| *version > from.version)
            .collect();
        if wanted.is_empty() {
            return Ok(from);
        }
        let mut catalog = (*from.catalog).clone();
        let mut version = from.version;
        let mut read = stream::iter(wanted)
            .map(|version| async move { (version, self.read_step(version).await) })
            .buffered(16);
        while let Some((next, step)) = read.next().await {
            let step = step?.filter(|_| next == version + 1).ok_or_else(|| {
                Error::corrupt(format!(
                    "catalog object {} is missing",
                    self.step_path(version + 1)
                ))
                .with_hint("restore this object from a copy")
            })?;
            step.changes
                .into_iter()
                .for_each(|change| catalog.apply(change));
            version = next;
        }
        Ok(Pinned {
            version,
            catalog: Arc::new(catalog),
        })
    }

    /// Writes the whole state, then sweeps what no reader needs. The state before stays, and the steps since,
    /// for readers that listed a moment ago.
    async fn condense(&self, pinned: &Pinned) -> Result<()> {
        let path = self.state_path(pinned.version);
        let bytes = serde_json::to_vec(&*pinned.catalog).map_err(|error| {
            Error::internal("the catalog could not be written as JSON").with_source(error)
        })?;
        self.store
            .put(&path, bytes.into())
            .await
            .map_err(|error| Error::storage(format!("cannot write {path}"), error))?;
        let keep_from = pinned.version.saturating_sub(STATE_EVERY);
        let (steps, states) = self.list(0).await?;
        let old = steps
            .into_iter()
            .filter(|version| *version <= keep_from)
            .map(|version| self.step_path(version))
            .chain(
                states
                    .into_iter()
                    .filter(|version| *version < keep_from)
                    .map(|version| self.state_path(version)),
            );
        for path in old {
            // Another engine may sweep the same objects.
            if let Err(error) = self.store.delete(&path).await {
                tracing::debug!(%error, %path, "an old catalog object was not removed");
            }
        }
        Ok(())
    }
}

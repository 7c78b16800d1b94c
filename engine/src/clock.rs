//! Clock and identifiers, handed in so that tests can choose them. Nothing else in the engine asks
//! the machine for the time or for randomness.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

type Millis = dyn Fn() -> i64 + Send + Sync;
type Ids = dyn Fn() -> Uuid + Send + Sync;

/// Where the engine takes the time and its random identifiers from.
#[derive(Clone)]
pub(crate) struct Ambient {
    millis: Arc<Millis>,
    ids: Arc<Ids>,
}

impl Ambient {
    /// The machine's clock and randomness.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the machine"
    )]
    pub(crate) fn machine() -> Self {
        Self {
            millis: Arc::new(|| chrono::Utc::now().timestamp_millis()),
            ids: Arc::new(Uuid::new_v4),
        }
    }

    #[must_use]
    pub(crate) fn with_clock(mut self, millis: Arc<Millis>) -> Self {
        self.millis = millis;
        self
    }

    #[must_use]
    pub(crate) fn with_ids(mut self, ids: Arc<Ids>) -> Self {
        self.ids = ids;
        self
    }

    /// Milliseconds since the epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        (self.millis)()
    }

    /// A new random identifier.
    pub(crate) fn id(&self) -> Uuid {
        (self.ids)()
    }

    /// The source of identifiers itself, for rooms that make many.
    pub(crate) fn ids(&self) -> Arc<Ids> {
        Arc::clone(&self.ids)
    }

    /// The clock itself, for rooms that ask often.
    pub(crate) fn millis(&self) -> Arc<Millis> {
        Arc::clone(&self.millis)
    }

    /// Full jitter: waits a random time below a bound that doubles with each attempt, up to `longest`.
    pub(crate) async fn pause(&self, attempt: u32, longest: Duration) {
        let bound = Duration::from_millis(1 << attempt.min(16)).min(longest);
        let micros = self.below(u64::try_from(bound.as_micros()).unwrap_or(u64::MAX));
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    /// A number in `0..bound`, spread by the random identifiers (jitter, not security).
    pub(crate) fn below(&self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.id().as_u64_pair().0 % bound
        }
    }
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ambient")
    }
}

//! Writes of this process that have begun and not ended, for upkeep that must not get in their way.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The writes to one table.
#[derive(Debug, Default)]
pub(crate) struct Running {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    writes: BTreeMap<u64, Write>,
}

#[derive(Debug)]
struct Write {
    since_ms: i64,
    changes_rows: bool,
}

impl Running {
    /// Notes a write until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>, since_ms: i64, changes_rows: bool) -> Begun {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        let write = Write {
            since_ms,
            changes_rows,
        };
        state.writes.insert(number, write);
        Begun {
            running: Arc::clone(self),
            number,
        }
    }

    /// When the oldest of them began: files older than that belong to none of them.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        let state = self.state.lock();
        state.writes.values().map(|write| write.since_ms).min()
    }

    /// The end of any write that comes after this call.
    pub(crate) fn ended(&self) -> Notified<'_> {
        self.ended.notified()
    }

    /// Whether one takes rows out of files, and so has to run again when these files move.
    pub(crate) fn changes_rows(&self) -> bool {
        let state = self.state.lock();
        state.writes.values().any(|write| write.changes_rows)
    }
}

/// A write that is under way.
#[derive(Debug)]
pub(crate) struct Begun {
    running: Arc<Running>,
    number: u64,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.running.state.lock().writes.remove(&self.number);
        self.running.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_counts_until_it_ends() {
        let running = Arc::new(Running::default());
        assert_eq!((running.oldest_ms(), running.changes_rows()), (None, false));
        let insert = running.begin(7, false);
        let update = running.begin(5, true);
        assert_eq!(
            (running.oldest_ms(), running.changes_rows()),
            (Some(5), true)
        );
        drop(update);
        assert_eq!(
            (running.oldest_ms(), running.changes_rows()),
            (Some(7), false)
        );
        drop(insert);
        assert_eq!(running.oldest_ms(), None);
    }
}

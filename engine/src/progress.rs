//! How far long work has come, for whoever asked.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// A moment of a statement that takes long. Totals grow while it finds more to do; what is done never shrinks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// `OPTIMIZE`, `VACUUM`, `RESTORE` or `ANALYZE`.
    pub statement: &'static str,
    /// Files that are finished.
    pub files_done: u64,
    /// Files known to be part of the work.
    pub files_total: u64,
    /// Rows that were written again or counted, where the work does that. Those of a file come before it is finished.
    pub rows_done: u64,
    /// Bytes of the files that are finished.
    pub bytes_done: u64,
    /// Bytes of all files known to be part of the work.
    pub bytes_total: u64,
}

/// Who is told. It is called on the engine's threads, and should return at once.
pub(crate) type Observer = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Counts the work of one statement.
#[derive(Clone)]
pub(crate) struct Meter {
    now: Arc<Mutex<Progress>>,
    observer: Option<Observer>,
}

impl Meter {
    pub(crate) fn new(statement: &'static str, observer: Option<Observer>) -> Self {
        let now = Progress {
            statement,
            ..Progress::default()
        };
        Self {
            now: Arc::new(Mutex::new(now)),
            observer,
        }
    }

    /// Adds work that was found.
    pub(crate) fn expect(&self, files: u64, bytes: u64) {
        self.tell(|now| {
            now.files_total += files;
            now.bytes_total += bytes;
        });
    }

    /// Adds rows of files that are not finished yet.
    pub(crate) fn rows(&self, rows: u64) {
        self.tell(|now| now.rows_done += rows);
    }

    /// Adds files that are finished.
    pub(crate) fn done(&self, files: u64, bytes: u64) {
        self.tell(|now| {
            now.files_done += files;
            now.bytes_done += bytes;
        });
    }

    fn tell(&self, change: impl FnOnce(&mut Progress)) {
        let Some(observer) = &self.observer else {
            return;
        };
        // Told under the lock, so that no one hears of an earlier moment after a later one.
        let mut now = self.now.lock();
        change(&mut now);
        observer(&now);
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now.lock().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_told_in_order() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let observer: Observer = {
            let heard = Arc::clone(&heard);
            Arc::new(move |now| heard.lock().push(*now))
        };
        let meter = Meter::new("OPTIMIZE", Some(observer));
        meter.expect(3, 30);
        meter.clone().done(1, 10);
        meter.rows(12);
        meter.done(2, 20);
        let last = Progress {
            statement: "OPTIMIZE",
            files_done: 3,
            files_total: 3,
            rows_done: 12,
            bytes_done: 30,
            bytes_total: 30,
        };
        assert_eq!(heard.lock().len(), 4);
        assert_eq!(heard.lock().last(), Some(&last));
    }

    #[test]
    fn nobody_needs_to_listen() {
        Meter::new("VACUUM", None).done(1, 1);
    }
}

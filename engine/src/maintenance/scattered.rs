//! Deleted rows among the current rows of a journal, and which file to write again for them.
//!
//! Each change of a key deletes a row, anywhere among them, and who reads what is true now reads over all of these. So
//! their share is bounded over all files together, and the file with the largest share of its own is written again. Files
//! then take turns: few bytes at a time, and no day on which all of them are worn. Where changes are of few files, these
//! wait for a quarter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;

use super::bytes;
use crate::table::snapshot::DataFile;

/// The share of deleted rows, in millionths, at which a file is written again where all take turns: seven rows for each
/// that is deleted.
const WORN: u64 = 125_000;

/// The share at which a file does not wait for others.
const WORN_ALONE: u64 = 2 * WORN;

/// Smaller files are read in no time, whatever share of them is deleted.
const LEAST_BYTES: u64 = 1 << 20;

/// The files of the current rows of a journal.
#[derive(Debug, Default)]
pub(super) struct Scattered {
    /// By path, as they were when they came: what is known of a file may be another thing when it goes.
    files: BTreeMap<String, Counted>,
    /// In all of them.
    rows: u64,
    deleted: u64,
    /// Paths of those that have deleted rows, by the share of these.
    worn: BTreeSet<(u64, String)>,
}

#[derive(Debug)]
struct Counted {
    file: Arc<DataFile>,
    /// Deleted ones among them.
    rows: u64,
    deleted: u64,
}

impl Scattered {
    /// Takes a file that is new, or has changed.
    pub(super) fn insert(&mut self, file: &Arc<DataFile>, schema: &SchemaRef) {
        let path = &file.add.path;
        self.remove(path);
        let Some(counted) = Counted::of(file, schema) else {
            return;
        };
        // What others count may be anything.
        let sums = self.rows.checked_add(counted.rows);
        let Some((rows, deleted)) = sums.zip(self.deleted.checked_add(counted.deleted)) else {
            return;
        };
        (self.rows, self.deleted) = (rows, deleted);
        if counted.deleted > 0 {
            self.worn.insert((counted.share(), path.clone()));
        }
        self.files.insert(path.clone(), counted);
    }

    /// Forgets a file, if it was one of these.
    pub(super) fn remove(&mut self, path: &str) {
        let Some(counted) = self.files.remove(path) else {
            return;
        };
        self.rows -= counted.rows;
        self.deleted -= counted.deleted;
        self.worn.remove(&(counted.share(), path.to_owned()));
    }

    /// The file to write again now, if any.
    pub(super) fn due(&self) -> Option<&Arc<DataFile>> {
        let (share, path) = self.worn.last()?;
        let worst = self.files.get(path)?;
        // Of n files that take turns the next has a share of WORN when that of all is (n + 1) / 2n of it.
        let part = worst.rows as f64 / self.rows as f64;
        let most = WORN as f64 / 2e6 * (1.0 + part) * self.rows as f64;
        let due = self.deleted as f64 > most || *share > WORN_ALONE;
        due.then_some(&worst.file)
    }

    /// How many files are worn out, each by itself.
    pub(super) fn worn_out(&self) -> usize {
        self.worn.range((WORN, String::new())..).count()
    }
}

impl Counted {
    /// What the log says of a file; none of one that does not count.
    fn of(file: &Arc<DataFile>, schema: &SchemaRef) -> Option<Self> {
        if bytes(file) < LEAST_BYTES {
            return None;
        }
        let rows = file.stats(schema)?.num_records.filter(|rows| *rows > 0)?;
        let deleted = file.add.deletion_vector.as_ref();
        let deleted = deleted.map_or(0, |vector| vector.cardinality.max(0).unsigned_abs());
        Some(Self {
            file: Arc::clone(file),
            rows,
            deleted: deleted.min(rows),
        })
    }

    fn share(&self) -> u64 {
        let share = u128::from(self.deleted) * 1_000_000 / u128::from(self.rows.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Schema;

    use super::*;
    use crate::table::actions::{Add, DeletionVector};

    fn file(path: &str, bytes: u64, rows: u64, deleted: u64) -> Arc<DataFile> {
        let vector = DeletionVector {
            storage_type: "i".into(),
            path_or_inline_dv: "x".into(),
            offset: None,
            size_in_bytes: 1,
            cardinality: deleted as i64,
        };
        Arc::new(DataFile::new(Add {
            path: path.to_owned(),
            partition_values: BTreeMap::new(),
            size: bytes as i64,
            modification_time: 0,
            data_change: true,
            stats: Some(format!("{{\"numRecords\":{rows}}}")),
            tags: None,
            deletion_vector: (deleted > 0).then_some(vector),
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }))
    }

    /// `n` files of so many rows each, of which a hundredth is deleted on each of `days`, and as many come anew elsewhere:
    /// the largest share of deleted rows that was left, how many rows were written again for each deleted one, and the
    /// most files of one day.
    fn simulate(n: usize, rows: u64, days: usize) -> (f64, f64, usize) {
        let schema = Arc::new(Schema::empty());
        let mut state = vec![(rows, 0_u64); n];
        let of = |at: usize, (rows, deleted): (u64, u64)| {
            file(&format!("{at}"), LEAST_BYTES, rows, deleted)
        };
        let mut scattered = Scattered::default();
        let put = |scattered: &mut Scattered, at: usize, new: (u64, u64)| {
            scattered.insert(&of(at, new), &schema);
        };
        for (at, file) in state.iter().enumerate() {
            put(&mut scattered, at, *file);
        }
        let (mut most, mut written, mut died, mut at_once) = (0.0_f64, 0, 0, 0);
        for _ in 0..days {
            for (at, file) in state.iter_mut().enumerate() {
                let dead = (file.0 - file.1) / 100;
                file.1 += dead;
                died += dead;
                put(&mut scattered, at, *file);
            }
            let mut today = 0;
            while let Some(due) = scattered.due() {
                let at: usize = due.add.path.parse().unwrap();
                written += state[at].0 - state[at].1;
                today += 1;
                // What was deleted here has come anew, and it is as if that were of the same file.
                state[at] = (rows, 0);
                put(&mut scattered, at, state[at]);
            }
            at_once = at_once.max(today);
            let rows: u64 = state.iter().map(|file| file.0).sum();
            let dead: u64 = state.iter().map(|file| file.1).sum();
            most = most.max(dead as f64 / rows as f64);
        }
        (most, written as f64 / died as f64, at_once)
    }

    #[test]
    fn files_take_turns() {
        let (most, written, _) = simulate(1, 1_000_000, 200);
        assert!(most <= 0.125 && written < 8.0, "{most} {written}");
        let (most, written, at_once) = simulate(10, 1_000_000, 200);
        assert!(most <= 0.07 && written < 8.5, "{most} {written}");
        assert!(at_once <= 2, "{at_once}");
        let (most, written, at_once) = simulate(100, 100_000, 200);
        assert!(most <= 0.064 && written < 8.5, "{most} {written}");
        assert!(at_once <= 20, "{at_once}");
    }

    #[test]
    fn the_worst_file_is_due_once_all_have_too_many() {
        let schema = Arc::new(Schema::empty());
        let mut scattered = Scattered::default();
        let put = |scattered: &mut Scattered, path: &str, bytes: u64, deleted: u64| {
            scattered.insert(&file(path, bytes, 1_000, deleted), &schema);
        };
        let due = |scattered: &Scattered| scattered.due().map(|file| file.add.path.clone());
        for path in ["a", "b", "c"] {
            put(&mut scattered, path, LEAST_BYTES, 50);
        }
        assert_eq!(due(&scattered), None);
        // The most is 0.0625 * 5 / 4 of 4,000 rows.
        put(&mut scattered, "d", LEAST_BYTES, 162);
        assert_eq!(due(&scattered), None);
        put(&mut scattered, "d", LEAST_BYTES, 163);
        assert_eq!(due(&scattered).as_deref(), Some("d"));
        assert_eq!(scattered.worn_out(), 1);
        scattered.remove("d");
        assert_eq!(due(&scattered), None);
        put(&mut scattered, "small", LEAST_BYTES - 1, 999);
        assert_eq!(due(&scattered), None);
        assert_eq!((scattered.rows, scattered.deleted), (3_000, 150));
        // Of many files one does not wait for the others for ever.
        for at in 0..100 {
            put(&mut scattered, &at.to_string(), LEAST_BYTES, 0);
        }
        put(&mut scattered, "hot", LEAST_BYTES, 250);
        assert_eq!(due(&scattered), None);
        put(&mut scattered, "hot", LEAST_BYTES, 251);
        assert_eq!(due(&scattered).as_deref(), Some("hot"));
    }

    #[test]
    fn what_came_is_what_goes() {
        let schema = Arc::new(Schema::empty());
        let mut scattered = Scattered::default();
        let uncounted = |deleted| {
            let mut add = file("f", LEAST_BYTES, 1_000, deleted).add.clone();
            add.stats = None;
            Arc::new(DataFile::new(add))
        };
        // Counted later under the same path, and the other way round.
        scattered.insert(&uncounted(10), &schema);
        scattered.remove("f");
        scattered.insert(&file("f", LEAST_BYTES, 1_000, 900), &schema);
        assert!(scattered.due().is_some());
        scattered.insert(&uncounted(10), &schema);
        assert!(scattered.due().is_none());
        assert_eq!((scattered.rows, scattered.deleted), (0, 0));
        // Counts that are none.
        scattered.insert(&file("f", LEAST_BYTES, u64::MAX, 5), &schema);
        scattered.insert(&file("g", LEAST_BYTES, u64::MAX, 5), &schema);
        assert_eq!(scattered.rows, u64::MAX);
        scattered.remove("g");
        scattered.remove("f");
        assert_eq!((scattered.rows, scattered.files.len()), (0, 0));
    }
}

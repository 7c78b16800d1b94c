//! What a session keeps for its client under random handles: bounded in number, forgotten after a time without use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The name of a thing on a shelf: unguessable, and says nothing about the thing.
pub(crate) type Key = [u8; 16];

/// A bounded set of things that expire. Swept on access: no background task, no growth while nobody asks.
pub(crate) struct Shelf<T> {
    capacity: usize,
    kept_for: Duration,
    things: Mutex<HashMap<Key, Thing<T>>>,
}

struct Thing<T> {
    value: Arc<T>,
    used: Instant,
}

/// The shelf holds all it may.
#[derive(Debug)]
pub(crate) struct Full;

impl<T> Shelf<T> {
    pub(crate) fn new(capacity: usize, kept_for: Duration) -> Self {
        Self {
            capacity,
            kept_for,
            things: Mutex::new(HashMap::new()),
        }
    }

    /// Keeps `value`, or refuses when the shelf is full of things still in use.
    pub(crate) fn add(&self, value: T, now: Instant) -> Result<Key, Full> {
        let mut things = self.things.lock();
        self.sweep(&mut things, now);
        if things.len() >= self.capacity {
            return Err(Full);
        }
        Ok(insert(&mut things, value, now))
    }

    /// Keeps `value` in any case; the thing unused for longest makes room.
    /// For results of writes, which have happened and must not fail any more.
    pub(crate) fn push(&self, value: T, now: Instant) -> Key {
        let mut things = self.things.lock();
        self.sweep(&mut things, now);
        if things.len() >= self.capacity
            && let Some(oldest) = things.iter().min_by_key(|(_, t)| t.used).map(|(k, _)| *k)
        {
            things.remove(&oldest);
        }
        insert(&mut things, value, now)
    }

    /// The thing, and a new lease on it.
    pub(crate) fn find(&self, key: &Key, now: Instant) -> Option<Arc<T>> {
        let mut things = self.things.lock();
        self.sweep(&mut things, now);
        let thing = things.get_mut(key)?;
        thing.used = now;
        Some(Arc::clone(&thing.value))
    }

    /// Forgets the thing and hands it out for the last time.
    pub(crate) fn take(&self, key: &Key) -> Option<Arc<T>> {
        self.things.lock().remove(key).map(|thing| thing.value)
    }

    fn sweep(&self, things: &mut HashMap<Key, Thing<T>>, now: Instant) {
        things.retain(|_, thing| now.saturating_duration_since(thing.used) < self.kept_for);
    }
}

fn insert<T>(things: &mut HashMap<Key, Thing<T>>, value: T, now: Instant) -> Key {
    let key = crate::random();
    things.insert(
        key,
        Thing {
            value: Arc::new(value),
            used: now,
        },
    );
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_thing_is_found_until_it_is_left_alone_for_too_long() {
        let (shelf, start) = (Shelf::new(4, MINUTE), Instant::now());
        let key = shelf.push("rows", start);
        let later = start + MINUTE / 2;
        assert_eq!(shelf.find(&key, later).as_deref(), Some(&"rows"));
        assert_eq!(
            shelf.find(&key, later + MINUTE / 2).as_deref(),
            Some(&"rows")
        );
        assert!(shelf.find(&key, later + MINUTE * 2).is_none());
        assert!(shelf.things.lock().is_empty());
    }

    #[test]
    fn a_full_shelf_refuses_until_something_is_taken_or_expires() {
        let (shelf, start) = (Shelf::new(2, MINUTE), Instant::now());
        let first = shelf.add(1, start).unwrap();
        shelf.add(2, start).unwrap();
        assert!(shelf.add(3, start).is_err());
        assert_eq!(shelf.take(&first).as_deref(), Some(&1));
        shelf.add(3, start).unwrap();
        assert!(shelf.add(4, start).is_err());
        shelf.add(4, start + MINUTE).unwrap();
    }

    #[test]
    fn pushing_on_a_full_shelf_drops_the_least_recently_used() {
        let (shelf, start) = (Shelf::new(2, MINUTE), Instant::now());
        let tick = Duration::from_millis(1);
        let first = shelf.push(1, start);
        let second = shelf.push(2, start + tick);
        shelf.find(&first, start + tick * 2);
        let third = shelf.push(3, start + tick * 3);
        assert!(shelf.find(&second, start + tick * 4).is_none());
        assert!(shelf.find(&first, start + tick * 4).is_some());
        assert!(shelf.find(&third, start + tick * 4).is_some());
    }
}

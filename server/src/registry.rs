//! Bearer tokens to sessions: who is connected, bounded in number and idle time.
//!
//! A token is an id, which finds the entry, and a secret, which is compared in constant time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;

/// Names a session inside the server; not a secret.
pub(crate) type Id = [u8; 16];
type Secret = [u8; 32];

/// The sessions that are open.
pub(crate) struct Registry<S> {
    capacity: usize,
    idle: Duration,
    entries: Mutex<HashMap<Id, Entry<S>>>,
}

struct Entry<S> {
    secret: Secret,
    session: Arc<S>,
    used: Instant,
    /// Whether a client has ever come back with the token. One that never does keeps no state here, so its
    /// entries may be dropped first: a client that ignores tokens opens a new session with every call.
    returned: bool,
}

/// Every session is in use.
#[derive(Debug)]
pub(crate) struct Full;

impl<S> Registry<S> {
    pub(crate) fn new(capacity: usize, idle: Duration) -> Self {
        Self {
            capacity,
            idle,
            entries: Mutex::new(HashMap::new()),
        }
    }

    /// Opens a session and returns the token that finds it again.
    pub(crate) fn open(
        &self,
        now: Instant,
        make: impl FnOnce(Id) -> S,
    ) -> Result<(String, Arc<S>), Full> {
        let (id, secret): (Id, Secret) = crate::random();
        let session = Arc::new(make(id));
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| now.saturating_duration_since(entry.used) < self.idle);
        if entries.len() >= self.capacity {
            let forgettable = entries
                .iter()
                .filter(|(_, entry)| !entry.returned)
                .min_by_key(|(_, entry)| entry.used)
                .map(|(id, _)| *id)
                .ok_or(Full)?;
            entries.remove(&forgettable);
        }
        entries.insert(
            id,
            Entry {
                secret,
                session: Arc::clone(&session),
                used: now,
                returned: false,
            },
        );
        Ok((
            URL_SAFE_NO_PAD.encode([id.as_slice(), &secret].concat()),
            session,
        ))
    }

    /// The session of a token, unless it was closed or left alone for too long.
    pub(crate) fn by_token(&self, token: &str, now: Instant) -> Option<Arc<S>> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (id, secret) = bytes.split_first_chunk::<16>()?;
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(id)?;
        if !equal(&entry.secret, secret) {
            return None;
        }
        if now.saturating_duration_since(entry.used) >= self.idle {
            entries.remove(id);
            return None;
        }
        entry.used = now;
        entry.returned = true;
        Some(Arc::clone(&entry.session))
    }

    /// The session a handle belongs to.
    pub(crate) fn by_id(&self, id: &Id, now: Instant) -> Option<Arc<S>> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(id)?;
        if now.saturating_duration_since(entry.used) >= self.idle {
            entries.remove(id);
            return None;
        }
        entry.used = now;
        Some(Arc::clone(&entry.session))
    }

    /// Forgets a session and, with it, all it kept for its client.
    pub(crate) fn close(&self, id: &Id) -> bool {
        self.entries.lock().remove(id).is_some()
    }
}

/// Equality whose time does not tell how many bytes are right.
fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |d, (l, r)| d | (l ^ r)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_finds_its_session_and_no_other_string_does() {
        let (registry, now) = (Registry::new(4, HOUR), Instant::now());
        let (token, _) = registry.open(now, |_| "ada").unwrap();
        let (other, _) = registry.open(now, |_| "bob").unwrap();
        assert_eq!(registry.by_token(&token, now).as_deref(), Some(&"ada"));
        let forged = format!("{}{}", &token[..22], &other[22..]);
        assert!(registry.by_token(&forged, now).is_none());
        for wrong in ["", "x", "not base64!", &token[..60], &token[..22]] {
            assert!(registry.by_token(wrong, now).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_idle_session_is_gone() {
        let (registry, now) = (Registry::new(4, HOUR), Instant::now());
        let (token, _) = registry.open(now, |_| ()).unwrap();
        assert!(registry.by_token(&token, now + HOUR / 2).is_some());
        assert!(registry.by_token(&token, now + HOUR * 2).is_none());
        assert!(registry.entries.lock().is_empty());
    }

    #[test]
    fn clients_that_never_return_make_room_and_others_do_not() {
        let (registry, now) = (Registry::new(2, HOUR), Instant::now());
        let (kept, _) = registry.open(now, |_| 1).unwrap();
        registry.by_token(&kept, now).unwrap();
        let (lost, _) = registry.open(now, |_| 2).unwrap();
        let (third, _) = registry.open(now, |_| 3).unwrap();
        assert!(registry.by_token(&lost, now).is_none());
        assert!(registry.by_token(&kept, now).is_some());
        assert!(registry.by_token(&third, now).is_some());
        assert!(registry.open(now, |_| 4).is_err());
    }

    #[test]
    fn a_closed_session_is_gone() {
        let (registry, now) = (Registry::new(2, HOUR), Instant::now());
        let (token, id) = registry.open(now, |id| id).unwrap();
        assert!(registry.close(&id));
        assert!(!registry.close(&id));
        assert!(registry.by_token(&token, now).is_none());
    }
}

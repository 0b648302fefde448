//! Sessions in memory.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{SessionStore, SetOutcome, StoreEntry, StoreResult, StoredSession, now_ms};
use crate::session::{ClientId, SessionId};

/// How long an expired record waits for a cleanup, which counts it, before a write drops it.
const GRACE_MS: u64 = 60_000;
/// Long expired records that one write drops: more than one, so that they can't pile up, and few,
/// so that no write pays for many.
const PURGE: usize = 8;

/// Sessions in memory: fast, and gone with the process.
///
/// Does not grow without bound even without cleanups: each write drops a few records
/// that expired more than a minute ago. A clone is the same store.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> axum_io_session::Result<()> {
/// use axum_io_session::{SessionBridge, store::LiveStore};
///
/// let store = LiveStore::new();
/// let bridge = SessionBridge::builder().store(store.clone()).build().await?;
/// assert!(store.is_empty());
/// # bridge.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct LiveStore {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug)]
struct Entry {
    session: StoredSession,
    /// When the purge looks at the record next. A write that prolongs the session does not move
    /// it, so a busy session costs nothing here.
    queued: u64,
}

impl Entry {
    /// Brings the record's turn in the purge forward, if it would come too late.
    fn queue(&mut self, id: &SessionId, expiry: &mut BTreeSet<(u64, SessionId)>) {
        let expires_at = self.session.expires_at;
        if expires_at < self.queued {
            expiry.remove(&(self.queued, *id));
            expiry.insert((expires_at, *id));
            self.queued = expires_at;
        }
    }
}

#[derive(Debug, Default)]
struct Tables {
    records: HashMap<SessionId, Entry>,
    /// The ids of `records`, for pages in their order.
    ids: BTreeSet<SessionId>,
    clients: HashMap<ClientId, SessionId>,
    /// One entry for each record, at its `queued`.
    expiry: BTreeSet<(u64, SessionId)>,
}

impl Tables {
    /// Writes a record; returns the one before it.
    fn set(&mut self, id: &SessionId, session: StoredSession) -> Option<StoredSession> {
        if let Some(client) = session.client_id {
            self.clients.insert(client, *id);
        }
        let expires_at = session.expires_at;
        let Some(entry) = self.records.get_mut(id) else {
            self.records.insert(*id, Entry { session, queued: expires_at });
            self.ids.insert(*id);
            self.expiry.insert((expires_at, *id));
            return None;
        };
        let old = std::mem::replace(&mut entry.session, session);
        if let Some(client) = old.client_id.filter(|_| old.client_id != entry.session.client_id)
            && self.clients.get(&client) == Some(id)
        {
            self.clients.remove(&client);
        }
        entry.queue(id, &mut self.expiry);
        Some(old)
    }

    /// Moves a record's expiry. `false` if there is none.
    fn touch(&mut self, id: &SessionId, expires_at: u64, ttl: u64) -> bool {
        let Some(entry) = self.records.get_mut(id) else { return false };
        entry.session.expires_at = expires_at;
        entry.session.ttl = ttl;
        entry.queue(id, &mut self.expiry);
        true
    }

    fn remove(&mut self, id: &SessionId) -> Option<StoredSession> {
        let Entry { session, queued } = self.records.remove(id)?;
        self.ids.remove(id);
        self.expiry.remove(&(queued, *id));
        if let Some(client) = &session.client_id
            && self.clients.get(client) == Some(id)
        {
            self.clients.remove(client);
        }
        Some(session)
    }

    fn purge(&mut self, now: u64) {
        for _ in 0..PURGE {
            let Some((at, id)) = self.expiry.first().copied() else { return };
            if at.saturating_add(GRACE_MS) > now {
                return;
            }
            match self.records.get_mut(&id) {
                Some(entry) if entry.session.expires_at > at => {
                    entry.queued = entry.session.expires_at;
                    self.expiry.remove(&(at, id));
                    self.expiry.insert((entry.queued, id));
                }
                _ => drop(self.remove(&id)),
            }
        }
    }
}

impl LiveStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of records, expired ones included.
    pub fn len(&self) -> usize {
        self.lock().records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // No code of others runs under the lock, so a panic leaves whole tables.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionStore for LiveStore {
    async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
        Ok(self.lock().records.get(id).map(|entry| entry.session.clone()))
    }

    async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
        let now = now_ms();
        // Dropped after the lock is free again.
        let old = {
            let mut tables = self.lock();
            let old = tables.set(id, session);
            tables.purge(now);
            old
        };
        Ok(match old {
            Some(old) if old.expires_at > now => SetOutcome::Updated,
            _ => SetOutcome::Created,
        })
    }

    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        Ok(self.lock().remove(id).is_some())
    }

    async fn touch(&self, id: &SessionId, expires_at: u64, ttl: u64) -> StoreResult<bool> {
        Ok(self.lock().touch(id, expires_at, ttl))
    }

    async fn list(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> StoreResult<Option<Vec<StoreEntry>>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.lock();
        let page = tables.ids.range((from, Bound::Unbounded)).take(limit);
        let entry = |id: &SessionId| {
            let expires_at = tables.records.get(id)?.session.expires_at;
            Some(StoreEntry { id: *id, expires_at })
        };
        Ok(Some(page.filter_map(entry).collect()))
    }

    async fn find_by_client(&self, client: &ClientId) -> StoreResult<Option<SessionId>> {
        Ok(self.lock().clients.get(client).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hundred_thousand_expired_sessions_do_not_pile_up() {
        let store = LiveStore::new();
        for n in 0..100_000u64 {
            let long_ago = StoredSession::new("{}", 1 + n % 50, 1);
            store.set(&SessionId::generate(), long_ago).await.unwrap();
            assert!(store.len() <= 2, "{} records after {n} writes", store.len());
        }
    }

    #[tokio::test]
    async fn a_record_that_was_prolonged_outlives_its_first_end_and_a_shortened_one_does_not() {
        let store = LiveStore::new();
        let (long, short) = (SessionId::generate(), SessionId::generate());
        store.set(&long, StoredSession::new("{}", 1, 1)).await.unwrap();
        store.set(&short, StoredSession::new("{}", u64::MAX, 1)).await.unwrap();
        store.set(&long, StoredSession::new("{}", u64::MAX, 1)).await.unwrap();
        store.touch(&short, 1, 1).await.unwrap();
        let other = SessionId::generate();
        store.set(&other, StoredSession::new("{}", u64::MAX, 1)).await.unwrap();
        assert!(store.get(&long).await.unwrap().is_some());
        assert!(store.get(&short).await.unwrap().is_none());
        assert_eq!(store.len(), 2);
        assert_eq!(store.lock().expiry.len(), 2);
    }

    #[tokio::test]
    async fn a_record_that_just_expired_waits_for_a_cleanup() {
        let store = LiveStore::new();
        let id = SessionId::generate();
        store.set(&id, StoredSession::new("{}", now_ms() - 1000, 1)).await.unwrap();
        store.set(&SessionId::generate(), StoredSession::new("{}", u64::MAX, 1)).await.unwrap();
        assert_eq!(store.list(None, 10).await.unwrap().unwrap().len(), 2);
    }
}

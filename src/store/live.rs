//! Sessions in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
/// Does not grow without bound even without any cleanup: each write drops a few records
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

#[derive(Debug, Default)]
struct Tables {
    records: BTreeMap<SessionId, StoredSession>,
    clients: HashMap<ClientId, SessionId>,
    expiry: BTreeSet<(u64, SessionId)>,
}

impl Tables {
    fn remove(&mut self, id: &SessionId) -> Option<StoredSession> {
        let record = self.records.remove(id)?;
        self.expiry.remove(&(record.expires_at, *id));
        if let Some(client) = &record.client_id
            && self.clients.get(client) == Some(id)
        {
            self.clients.remove(client);
        }
        Some(record)
    }

    fn purge(&mut self, now: u64) {
        for _ in 0..PURGE {
            match self.expiry.first() {
                Some((at, id)) if at.saturating_add(GRACE_MS) <= now => {
                    let id = *id;
                    self.remove(&id);
                }
                _ => return,
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
        Ok(self.lock().records.get(id).cloned())
    }

    async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
        let now = now_ms();
        let mut tables = self.lock();
        let old = tables.remove(id);
        tables.purge(now);
        tables.expiry.insert((session.expires_at, *id));
        if let Some(client) = session.client_id {
            tables.clients.insert(client, *id);
        }
        tables.records.insert(*id, session);
        Ok(match old {
            Some(old) if old.expires_at > now => SetOutcome::Updated,
            _ => SetOutcome::Created,
        })
    }

    async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
        Ok(self.lock().remove(id).is_some())
    }

    async fn touch(&self, id: &SessionId, expires_at: u64, ttl: u64) -> StoreResult<bool> {
        let mut tables = self.lock();
        let tables = &mut *tables;
        let Some(record) = tables.records.get_mut(id) else { return Ok(false) };
        tables.expiry.remove(&(record.expires_at, *id));
        tables.expiry.insert((expires_at, *id));
        record.expires_at = expires_at;
        record.ttl = ttl;
        Ok(true)
    }

    async fn list(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> StoreResult<Option<Vec<StoreEntry>>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.lock();
        let page = tables.records.range((from, Bound::Unbounded)).take(limit);
        Ok(Some(
            page.map(|(id, record)| StoreEntry { id: *id, expires_at: record.expires_at })
                .collect(),
        ))
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
    async fn a_record_that_just_expired_waits_for_a_cleanup() {
        let store = LiveStore::new();
        let id = SessionId::generate();
        store.set(&id, StoredSession::new("{}", now_ms() - 1000, 1)).await.unwrap();
        store.set(&SessionId::generate(), StoredSession::new("{}", u64::MAX, 1)).await.unwrap();
        assert_eq!(store.list(None, 10).await.unwrap().unwrap().len(), 2);
    }
}

//! What this node knows of the clients that have a socket here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::backend::Known;
use crate::session::{ClientId, Generation, Record, SessionId};

#[derive(Debug, Default)]
struct Watched {
    count: usize,
    known: Option<(Known, u64)>,
}

/// Clients with a socket on this node, and their sessions as last heard of.
#[derive(Debug, Default)]
pub(super) struct WatchedClients {
    clients: Mutex<HashMap<ClientId, Watched>>,
}

impl WatchedClients {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Watched>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, client: &ClientId) {
        self.lock().entry(*client).or_default().count += 1;
    }

    pub(super) fn remove(&self, client: &ClientId) {
        let mut clients = self.lock();
        if let Some(watched) = clients.get_mut(client) {
            watched.count = watched.count.saturating_sub(1);
            if watched.count == 0 {
                clients.remove(client);
            }
        }
    }

    pub(super) fn contains(&self, client: &ClientId) -> bool {
        self.lock().contains_key(client)
    }

    pub(super) fn all(&self) -> Vec<ClientId> {
        self.lock().keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn known(&self, client: &ClientId) -> Option<Known> {
        self.lock().get(client)?.known.map(|(known, _)| known)
    }

    /// Takes over a record that was read or written.
    pub(super) fn record(&self, record: &Record) {
        let now = Instant::now();
        let created = now.checked_sub(record.age).unwrap_or(now);
        self.set(&record.client_id, record.generation, record.session_id, record.version, created);
    }

    /// Takes over what was told. What is older than what is known, told late, is left out.
    pub(super) fn set(
        &self,
        client: &ClientId,
        generation: Generation,
        session: SessionId,
        version: u64,
        created: Instant,
    ) {
        let mut clients = self.lock();
        let Some(watched) = clients.get_mut(client) else { return };
        let same = watched.known.filter(|(known, _)| known.generation == generation);
        if same.is_some_and(|(_, known)| known > version) {
            return;
        }
        let created = same.map_or(created, |(known, _)| known.created);
        watched.known = Some((Known { session_id: session, generation, created }, version));
    }

    /// Forgets a session that has ended, unless the client has another by now.
    pub(super) fn end(&self, client: &ClientId, generation: Option<Generation>) {
        let mut clients = self.lock();
        let Some(watched) = clients.get_mut(client) else { return };
        let other = |(known, _): &(Known, u64)| generation.is_some_and(|g| g != known.generation);
        watched.known = watched.known.filter(other);
    }
}

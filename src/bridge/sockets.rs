//! All sockets of this node, by client.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::attachment::Attachment;
use crate::session::ClientId;

/// Clients are spread over this many tables, so that none is locked by many at once.
const SHARDS: usize = 16;

type Shard = HashMap<ClientId, Vec<Arc<Attachment>>>;

/// All sockets of this node, by client.
#[derive(Debug)]
pub(super) struct Sockets {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    count: AtomicUsize,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sockets {
    fn shard(&self, client: &ClientId) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(client);
        // The remainder is below the number of shards on every platform.
        let at = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        lock(&self.shards[at])
    }

    pub(super) fn add(&self, attachment: Arc<Attachment>) {
        // Counted first: who sees a count of zero may skip the table.
        self.count.fetch_add(1, Ordering::SeqCst);
        self.shard(&attachment.client()).entry(attachment.client()).or_default().push(attachment);
    }

    /// `false` if it was not there any more.
    pub(super) fn remove(&self, attachment: &Attachment) -> bool {
        let client = attachment.client();
        let mut shard = self.shard(&client);
        let Some(list) = shard.get_mut(&client) else { return false };
        let before = list.len();
        list.retain(|other| other.id() != attachment.id());
        let removed = list.len() < before;
        if list.is_empty() {
            shard.remove(&client);
        }
        if removed {
            self.count.fetch_sub(1, Ordering::SeqCst);
        }
        removed
    }

    /// The client's sockets.
    pub(super) fn of(&self, client: &ClientId) -> Vec<Arc<Attachment>> {
        if self.is_empty() {
            return Vec::new();
        }
        self.shard(client).get(client).cloned().unwrap_or_default()
    }

    pub(super) fn clients(&self) -> Vec<ClientId> {
        let clients = |shard| lock(shard).keys().copied().collect::<Vec<_>>();
        self.shards.iter().flat_map(clients).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Attachment>> {
        let sockets = |shard| lock(shard).values().flatten().cloned().collect::<Vec<_>>();
        self.shards.iter().flat_map(sockets).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Removes all, as the bridge shuts down.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let sockets = std::mem::take(&mut *lock(shard));
            self.count.fetch_sub(sockets.values().map(Vec::len).sum(), Ordering::SeqCst);
            // Outside the lock: dropping an attachment may run code of the socket's.
            drop(sockets);
        }
    }
}

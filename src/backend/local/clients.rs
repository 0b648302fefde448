//! The mapping between clients and sessions, and what belongs to each client.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::backend::SessionSnapshot;
use crate::backend::lease_queue::LeaseQueue;
use crate::session::{ClientId, Generation, Record, SessionId};

/// Clients and sessions are spread over this many tables each, so that no lock is held by many at
/// once.
const SHARDS: usize = 32;

/// What belongs to one client.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) client: ClientId,
    /// Held over the store's work: the changes of one client happen one after the other, and
    /// their events in that order.
    pub(super) op: tokio::sync::Mutex<()>,
    pub(super) lease: LeaseQueue,
    watchers: AtomicUsize,
    current: Mutex<Option<Current>>,
    /// Uses under way. Grows under the lock of the slot's shard only.
    users: AtomicUsize,
}

/// A client's live session.
#[derive(Debug)]
struct Current {
    session_id: SessionId,
    generation: Generation,
    sealed: bool,
    created: Instant,
    version: u64,
    /// The ids it had before: a cookie with one of them leads here.
    previous: Arc<[SessionId]>,
    deadline: Instant,
    /// The entry of the deadline queue that is this session's; others are stale.
    queued: Option<Instant>,
}

impl Current {
    fn ids(&self) -> impl Iterator<Item = &SessionId> {
        std::iter::once(&self.session_id).chain(self.previous.iter())
    }

    fn names(&self) -> Mapped {
        Mapped { session_id: self.session_id, generation: self.generation }
    }
}

/// Which session a client has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapped {
    pub(super) session_id: SessionId,
    pub(super) generation: Generation,
}

impl Slot {
    fn new(client: ClientId) -> Self {
        Self {
            client,
            op: tokio::sync::Mutex::new(()),
            lease: LeaseQueue::default(),
            watchers: AtomicUsize::new(0),
            current: Mutex::new(None),
            users: AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's session as it is mapped.
    pub(super) fn current(&self) -> Option<Mapped> {
        self.lock().as_ref().map(Current::names)
    }

    fn snapshot(&self) -> Option<SessionSnapshot> {
        let current = self.lock();
        let current = current.as_ref().filter(|current| current.deadline > Instant::now())?;
        Some(SessionSnapshot {
            session_id: current.session_id,
            generation: current.generation,
            sealed: current.sealed,
            created: current.created,
            version: current.version,
        })
    }

    /// Nothing depends on it but those who hold it.
    fn is_idle(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) == 0 && self.lock().is_none() && self.lease.is_idle()
    }
}

/// A table in parts.
#[derive(Debug)]
struct Sharded<K, V> {
    shards: [Mutex<HashMap<K, V>>; SHARDS],
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl<K, V> Sharded<K, V> {
    fn at(&self, place: usize) -> MutexGuard<'_, HashMap<K, V>> {
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        (0..SHARDS).map(|place| self.at(place).len()).sum()
    }
}

impl<V> Sharded<ClientId, V> {
    fn shard(&self, client: &ClientId) -> MutexGuard<'_, HashMap<ClientId, V>> {
        self.at(client.place_among(SHARDS))
    }
}

impl<V> Sharded<SessionId, V> {
    fn shard(&self, session: &SessionId) -> MutexGuard<'_, HashMap<SessionId, V>> {
        self.at(session.place_among(SHARDS))
    }
}

/// All clients with a live session, a lease, a watcher or an operation under way.
///
/// A slot's own lock is taken inside a shard's or alone; no shard's lock is taken inside a slot's.
#[derive(Debug, Default)]
pub(super) struct Slots {
    clients: Sharded<ClientId, Arc<Slot>>,
    sessions: Sharded<SessionId, Arc<Slot>>,
}

impl Slots {
    pub(super) fn watch(&self, client: &ClientId) {
        self.slot(client).watchers.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn unwatch(&self, client: &ClientId) {
        self.slot(client).watchers.fetch_sub(1, Ordering::SeqCst);
    }

    /// The client's slot, made if absent, and dropped with the last use of an idle one.
    pub(super) fn slot(&self, client: &ClientId) -> SlotRef<'_> {
        let mut shard = self.clients.shard(client);
        let slot = shard.entry(*client).or_insert_with(|| Arc::new(Slot::new(*client)));
        slot.users.fetch_add(1, Ordering::SeqCst);
        SlotRef { slots: self, slot: slot.clone() }
    }

    /// The client's session as it is known.
    pub(super) fn snapshot(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.clients.shard(client).get(client)?.snapshot()
    }

    /// The client that a session's id, or an earlier one, leads to.
    pub(super) fn client_of(&self, session: &SessionId) -> Option<ClientId> {
        self.sessions.shard(session).get(session).map(|slot| slot.client)
    }

    /// The client whose session has this id now, and its generation.
    pub(super) fn owner(&self, session: &SessionId) -> Option<(ClientId, Generation)> {
        let shard = self.sessions.shard(session);
        let slot = shard.get(session)?;
        let current = slot.current().filter(|current| current.session_id == *session)?;
        Some((slot.client, current.generation))
    }

    /// Maps the slot's client to this record's session, and returns what is to change in the queue of
    /// deadlines if the queued one comes too late. Only the holder of `op` calls it.
    pub(super) fn map(&self, slot: &SlotRef<'_>, record: &Record) -> Option<Requeue> {
        let now = Instant::now();
        let deadline = now + record.remaining;
        let mut mapped = slot.lock();
        if let Some(current) = mapped.as_mut()
            && current.session_id == record.session_id
            && current.generation == record.generation
        {
            current.sealed = record.sealed;
            current.version = record.version;
            current.deadline = deadline;
            let stale = current.queued;
            let queued = stale.filter(|at| *at <= deadline);
            current.queued = Some(queued.unwrap_or(deadline));
            return queued.is_none().then_some(Requeue { stale, at: deadline });
        }
        let old = mapped.take();
        let previous = match &old {
            Some(old) if old.session_id == record.session_id => old.previous.clone(),
            _ => record.previous.iter().map(|old| old.session_id).collect(),
        };
        let same = old.as_ref().filter(|old| old.generation == record.generation);
        let queued = same.and_then(|old| old.queued).filter(|at| *at <= deadline);
        let current = Current {
            session_id: record.session_id,
            generation: record.generation,
            sealed: record.sealed,
            created: same
                .map_or_else(|| now.checked_sub(record.age).unwrap_or(now), |old| old.created),
            version: record.version,
            previous,
            deadline,
            queued: Some(queued.unwrap_or(deadline)),
        };
        let ids: Vec<SessionId> = current.ids().copied().collect();
        *mapped = Some(current);
        drop(mapped);
        // New ids first: an id that stays is found at every moment.
        for id in &ids {
            self.sessions.shard(id).insert(*id, slot.slot.clone());
        }
        for id in old.iter().flat_map(Current::ids).filter(|id| !ids.contains(id)) {
            self.forget(slot, id);
        }
        let stale = old.and_then(|old| old.queued);
        queued.is_none().then_some(Requeue { stale, at: deadline })
    }

    /// Ends the mapping of the slot's client and returns what it was, and the queued deadline. Only
    /// the holder of `op` calls it.
    pub(super) fn unmap(&self, slot: &SlotRef<'_>) -> Option<(Mapped, Option<Instant>)> {
        let current = slot.lock().take()?;
        for id in current.ids() {
            self.forget(slot, id);
        }
        Some((current.names(), current.queued))
    }

    /// Takes an id away from the slot, unless it leads to another one by now.
    fn forget(&self, slot: &SlotRef<'_>, id: &SessionId) {
        if let Entry::Occupied(entry) = self.sessions.shard(id).entry(*id)
            && Arc::ptr_eq(entry.get(), &slot.slot)
        {
            entry.remove();
        }
    }

    /// What to do about an entry of the deadline queue.
    pub(super) fn due(&self, client: &ClientId, at: Instant, now: Instant) -> Due {
        let shard = self.clients.shard(client);
        let Some(slot) = shard.get(client) else { return Due::Stale };
        let mut current = slot.lock();
        match current.as_mut() {
            Some(current) if current.queued == Some(at) => {
                if current.deadline > now {
                    current.queued = Some(current.deadline);
                    Due::Later(current.deadline)
                } else {
                    current.queued = None;
                    Due::Now
                }
            }
            _ => Due::Stale,
        }
    }

    /// Whether this is the queued deadline of the client's session.
    pub(super) fn is_queued(&self, client: &ClientId, at: Instant) -> bool {
        let shard = self.clients.shard(client);
        let Some(slot) = shard.get(client) else { return false };
        slot.lock().as_ref().is_some_and(|current| current.queued == Some(at))
    }

    /// Queues a session's end once more.
    pub(super) fn requeue(&self, slot: &SlotRef<'_>, at: Instant) -> bool {
        match slot.lock().as_mut() {
            Some(current) if current.queued.is_none() => {
                current.queued = Some(at);
                true
            }
            _ => false,
        }
    }

    /// How many clients and ids of sessions there are.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.clients.len(), self.sessions.len())
    }
}

/// What is to change in the queue of deadlines.
#[derive(Debug)]
pub(super) struct Requeue {
    /// The entry to take out.
    pub(super) stale: Option<Instant>,
    pub(super) at: Instant,
}

/// What an entry of the deadline queue means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Stale,
    Later(Instant),
    Now,
}

/// A use of a slot.
pub(super) struct SlotRef<'a> {
    slots: &'a Slots,
    slot: Arc<Slot>,
}

impl std::ops::Deref for SlotRef<'_> {
    type Target = Slot;
    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl Drop for SlotRef<'_> {
    fn drop(&mut self) {
        // The last use looks, after it has left: of two that end at once one sees both gone.
        if self.slot.users.fetch_sub(1, Ordering::SeqCst) > 1 || !self.slot.is_idle() {
            return;
        }
        let mut shard = self.slots.clients.shard(&self.slot.client);
        let same = shard.get(&self.slot.client).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot));
        if same && self.slot.users.load(Ordering::SeqCst) == 0 && self.slot.is_idle() {
            shard.remove(&self.slot.client);
        }
    }
}

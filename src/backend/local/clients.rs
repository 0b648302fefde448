//! The mapping between clients and sessions, and what hangs on each client.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::backend::SessionSnapshot;
use crate::backend::lease_queue::LeaseQueue;
use crate::session::{ClientId, Generation, Record, SessionId};

/// What belongs to one client.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) client: ClientId,
    /// Held over the store's work: the changes of one client happen one after the other, and
    /// their events in that order.
    pub(super) op: tokio::sync::Mutex<()>,
    pub(super) lease: LeaseQueue,
    pub(super) watchers: AtomicUsize,
}

/// A client's live session.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) session_id: SessionId,
    pub(super) generation: Generation,
    pub(super) sealed: bool,
    pub(super) created: Instant,
    pub(super) version: u64,
    /// The ids it had before: a cookie with one of them leads here.
    previous: Arc<[SessionId]>,
    pub(super) deadline: Instant,
    /// The entry of the deadline queue that is this session's; others are stale.
    pub(super) queued: Option<Instant>,
}

impl Current {
    fn ids(&self) -> impl Iterator<Item = &SessionId> {
        std::iter::once(&self.session_id).chain(self.previous.iter())
    }
}

#[derive(Debug)]
struct Entry {
    slot: Arc<Slot>,
    current: Option<Current>,
}

#[derive(Debug, Default)]
struct Maps {
    clients: HashMap<ClientId, Entry>,
    sessions: HashMap<SessionId, ClientId>,
}

/// All clients with a live session, a lease, a watcher or an operation under way.
#[derive(Debug, Default)]
pub(super) struct Slots {
    maps: Mutex<Maps>,
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn watch(&self, client: &ClientId) {
        self.slot(client).watchers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unwatch(&self, client: &ClientId) {
        self.slot(client).watchers.fetch_sub(1, Ordering::Relaxed);
    }

    /// The client's slot, made if absent, and dropped with the last use of an idle one.
    pub(super) fn slot(&self, client: &ClientId) -> SlotRef<'_> {
        let mut maps = self.lock();
        let entry = maps.clients.entry(*client).or_insert_with(|| Entry {
            slot: Arc::new(Slot {
                client: *client,
                op: tokio::sync::Mutex::new(()),
                lease: LeaseQueue::default(),
                watchers: AtomicUsize::new(0),
            }),
            current: None,
        });
        SlotRef { slots: self, slot: Some(entry.slot.clone()) }
    }

    pub(super) fn current(&self, client: &ClientId) -> Option<Current> {
        self.lock().clients.get(client).and_then(|entry| entry.current.clone())
    }

    pub(super) fn client_of(&self, session: &SessionId) -> Option<ClientId> {
        self.lock().sessions.get(session).copied()
    }

    pub(super) fn known(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.current(client).filter(|current| current.deadline > Instant::now()).map(|current| {
            SessionSnapshot {
                session_id: current.session_id,
                generation: current.generation,
                sealed: current.sealed,
                created: current.created,
                version: current.version,
            }
        })
    }

    /// Maps the slot's client to this record's session, and returns the deadline to queue if the
    /// queued one comes too late.
    pub(super) fn map(&self, slot: &SlotRef<'_>, record: &Record) -> Option<Instant> {
        let now = Instant::now();
        let deadline = now + record.remaining;
        let mut maps = self.lock();
        let maps = &mut *maps;
        let entry = maps.clients.get_mut(&slot.client)?;
        let old = entry.current.take();
        let previous = match &old {
            Some(old) if old.session_id == record.session_id => old.previous.clone(),
            _ => record.previous.iter().map(|old| old.session_id).collect(),
        };
        if let Some(old) = &old
            && old.session_id != record.session_id
        {
            for id in old.ids() {
                maps.sessions.remove(id);
            }
        }
        let same = old.filter(|old| old.generation == record.generation);
        let queued = same.as_ref().and_then(|old| old.queued).filter(|at| *at <= deadline);
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
        for id in current.ids() {
            maps.sessions.insert(*id, slot.client);
        }
        entry.current = Some(current);
        queued.is_none().then_some(deadline)
    }

    /// Ends the mapping of the slot's client and returns what it was.
    pub(super) fn unmap(&self, slot: &SlotRef<'_>) -> Option<Current> {
        let mut maps = self.lock();
        let maps = &mut *maps;
        let current = maps.clients.get_mut(&slot.client)?.current.take()?;
        for id in current.ids() {
            maps.sessions.remove(id);
        }
        Some(current)
    }

    /// What to do about an entry of the deadline queue.
    pub(super) fn due(&self, client: &ClientId, at: Instant, now: Instant) -> Due {
        let mut maps = self.lock();
        let current = maps.clients.get_mut(client).and_then(|entry| entry.current.as_mut());
        match current {
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

    /// Queues a session's end once more.
    pub(super) fn requeue(&self, client: &ClientId, at: Instant) -> bool {
        let mut maps = self.lock();
        match maps.clients.get_mut(client).and_then(|entry| entry.current.as_mut()) {
            Some(current) if current.queued.is_none() => {
                current.queued = Some(at);
                true
            }
            _ => false,
        }
    }

    pub(super) fn sizes(&self) -> (usize, usize) {
        let maps = self.lock();
        (maps.clients.len(), maps.sessions.len())
    }
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
    slot: Option<Arc<Slot>>,
}

impl std::ops::Deref for SlotRef<'_> {
    type Target = Slot;
    fn deref(&self) -> &Slot {
        // Taken in `drop` only.
        match &self.slot {
            Some(slot) => slot,
            None => unreachable!("a slot is there until its use is dropped"),
        }
    }
}

impl Drop for SlotRef<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let mut maps = self.slots.lock();
        // Two: this one and the table's. New ones come from the table, whose lock is held.
        let unused = Arc::strong_count(&slot) == 2
            && slot.watchers.load(Ordering::Relaxed) == 0
            && slot.lease.is_idle();
        if unused && maps.clients.get(&slot.client).is_some_and(|entry| entry.current.is_none()) {
            maps.clients.remove(&slot.client);
        }
    }
}

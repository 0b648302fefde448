//! What this node knows of the clients that have a socket here, and when to look at them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::SessionSnapshot;
use crate::session::{ClientId, Generation, Record, SessionId};

/// Later than Redis counts: it keeps whole milliseconds, and an answer takes its way.
const AFTER: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
struct Watched {
    count: usize,
    known: Option<SessionSnapshot>,
    /// What the sockets here were told last, or saw when they came.
    belief: Option<Belief>,
    /// The newest change that was told without an announcement, which may still come.
    forestalled: Option<(Generation, u64)>,
    /// When to look at the session. Lazy: a write that moves the end only moves this if it comes
    /// earlier; else the look finds a live session and is put off.
    look: Option<Instant>,
}

/// The state of a session that sockets go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Belief {
    pub(crate) generation: Generation,
    pub(crate) session: SessionId,
    pub(crate) version: u64,
}

impl Belief {
    pub(crate) fn of(record: &Record) -> Self {
        Self { generation: record.generation, session: record.session_id, version: record.version }
    }
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<ClientId, Watched>,
    looks: BTreeSet<(Instant, ClientId)>,
}

/// Clients with a socket on this node, and their sessions as last heard of.
#[derive(Debug, Default)]
pub(crate) struct WatchedClients {
    state: Mutex<State>,
    changed: Notify,
}

/// A change as it was announced or read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) client: ClientId,
    pub(crate) generation: Generation,
    pub(crate) session: SessionId,
    pub(crate) version: u64,
    pub(crate) sealed: bool,
    /// Of use only if nothing is known yet.
    pub(crate) created: Instant,
    pub(crate) left: Duration,
}

impl Change {
    pub(crate) fn of(record: &Record) -> Self {
        let now = Instant::now();
        Self {
            client: record.client_id,
            generation: record.generation,
            session: record.session_id,
            version: record.version,
            sealed: record.sealed,
            created: now.checked_sub(record.age).unwrap_or(now),
            left: record.remaining,
        }
    }
}

impl WatchedClients {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, client: &ClientId) {
        self.lock().clients.entry(*client).or_default().count += 1;
    }

    pub(crate) fn remove(&self, client: &ClientId) {
        let state = &mut *self.lock();
        if let Some(watched) = state.clients.get_mut(client) {
            watched.count = watched.count.saturating_sub(1);
            if watched.count == 0 {
                if let Some(at) = watched.look {
                    state.looks.remove(&(at, *client));
                }
                state.clients.remove(client);
            }
        }
    }

    pub(crate) fn contains(&self, client: &ClientId) -> bool {
        self.lock().clients.contains_key(client)
    }

    pub(crate) fn all(&self) -> Vec<ClientId> {
        self.lock().clients.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().clients.len()
    }

    pub(crate) fn known(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.lock().clients.get(client)?.known
    }

    /// Takes over what was read, written or told. What is older than what is known is left out.
    pub(crate) fn learn(&self, change: &Change) {
        let state = &mut *self.lock();
        let Some(watched) = state.clients.get_mut(&change.client) else { return };
        let same = watched.known.filter(|known| known.generation == change.generation);
        if same.is_some_and(|known| known.version > change.version) {
            return;
        }
        watched.known = Some(SessionSnapshot {
            session_id: change.session,
            generation: change.generation,
            sealed: change.sealed,
            created: same.map_or(change.created, |known| known.created),
            version: change.version,
        });
        let look = Instant::now() + change.left + AFTER;
        if watched.look.is_none_or(|at| look < at) {
            self.schedule(&mut state.looks, watched, change.client, look);
        }
    }

    fn schedule(
        &self,
        looks: &mut BTreeSet<(Instant, ClientId)>,
        watched: &mut Watched,
        client: ClientId,
        at: Instant,
    ) {
        if let Some(before) = watched.look.replace(at) {
            looks.remove(&(before, client));
        }
        looks.insert((at, client));
        if looks.first() == Some(&(at, client)) {
            self.changed.notify_one();
        }
    }

    /// Puts the next look at a client's session off.
    pub(crate) fn look_in(&self, client: &ClientId, left: Duration) {
        let state = &mut *self.lock();
        if let Some(watched) = state.clients.get_mut(client) {
            let at = Instant::now() + left + AFTER;
            self.schedule(&mut state.looks, watched, *client, at);
        }
    }

    /// What the first socket of a client sees as it comes needs not be told it.
    pub(crate) fn begin(&self, record: &Record) {
        if let Some(watched) = self.lock().clients.get_mut(&record.client_id) {
            watched.belief.get_or_insert(Belief::of(record));
        }
    }

    /// A change was announced. `false` if it is told already.
    pub(crate) fn announced(&self, client: &ClientId, change: Belief) -> bool {
        let mut state = self.lock();
        let Some(watched) = state.clients.get_mut(client) else { return true };
        let told =
            |(generation, version)| generation == change.generation && version >= change.version;
        if watched.forestalled.is_some_and(told) {
            return false;
        }
        watched.belief = Some(change);
        true
    }

    /// A change is told without its announcement.
    pub(crate) fn forestall(&self, client: &ClientId, change: Belief) {
        if let Some(watched) = self.lock().clients.get_mut(client) {
            watched.belief = Some(change);
            watched.forestalled = Some((change.generation, change.version));
        }
    }

    pub(crate) fn belief(&self, client: &ClientId) -> Option<Belief> {
        self.lock().clients.get(client)?.belief
    }

    /// Forgets a session that has ended, unless the client has another by now.
    pub(crate) fn end(&self, client: &ClientId, generation: Option<Generation>) {
        let state = &mut *self.lock();
        let Some(watched) = state.clients.get_mut(client) else { return };
        let other = |known: &SessionSnapshot| generation.is_some_and(|g| g != known.generation);
        watched.known = watched.known.filter(other);
        watched.belief = watched.belief.filter(|b| generation.is_some_and(|g| g != b.generation));
        if watched.known.is_none()
            && let Some(at) = watched.look.take()
        {
            state.looks.remove(&(at, *client));
        }
    }

    /// Waits until sessions may be over, and takes up to `limit` of their clients.
    pub(crate) async fn due(&self, limit: usize) -> Vec<ClientId> {
        loop {
            let next = {
                let state = &mut *self.lock();
                let now = Instant::now();
                let mut due = Vec::new();
                while due.len() < limit
                    && let Some((at, client)) = state.looks.first().copied()
                    && at <= now
                {
                    state.looks.pop_first();
                    if let Some(watched) = state.clients.get_mut(&client) {
                        watched.look = None;
                    }
                    due.push(client);
                }
                if !due.is_empty() {
                    return due;
                }
                state.looks.first().map(|(at, _)| *at)
            };
            let first = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = first => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(client: ClientId, version: u64, left: u64) -> Change {
        Change {
            client,
            generation: Generation::from_number(1),
            session: SessionId::generate(),
            version,
            sealed: false,
            created: Instant::now(),
            left: Duration::from_secs(left),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_comes_up_when_its_session_may_be_over() {
        let watched = WatchedClients::default();
        let (soon, later) = (ClientId::generate(), ClientId::generate());
        for (client, left) in [(later, 100), (soon, 1)] {
            watched.add(&client);
            watched.learn(&change(client, 1, left));
        }
        let begun = Instant::now();
        assert_eq!(watched.due(10).await, [soon]);
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert_eq!(watched.due(10).await, [later]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_a_client_that_left() {
        let watched = WatchedClients::default();
        let client = ClientId::generate();
        watched.add(&client);
        watched.learn(&change(client, 1, 1));
        watched.remove(&client);
        assert!(watched.lock().looks.is_empty() && watched.lock().clients.is_empty());
    }

    #[tokio::test]
    async fn what_comes_late_changes_nothing_and_is_told_once() {
        let watched = WatchedClients::default();
        let client = ClientId::generate();
        watched.add(&client);
        let (old, new) = (change(client, 1, 10), change(client, 2, 10));
        watched.learn(&new);
        watched.learn(&old);
        assert_eq!(watched.known(&client).map(|known| known.session_id), Some(new.session));
        let told = |generation, version| Belief {
            generation: Generation::from_number(generation),
            session: new.session,
            version,
        };
        assert!(watched.announced(&client, told(1, 1)));
        watched.forestall(&client, told(1, 2));
        assert!(!watched.announced(&client, told(1, 2)));
        assert!(watched.announced(&client, told(1, 3)));
        assert!(watched.announced(&client, told(2, 1)));
        watched.end(&client, Some(Generation::from_number(1)));
        assert_eq!(watched.belief(&client), Some(told(2, 1)));
    }
}

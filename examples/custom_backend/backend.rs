//! A backend that keeps everything in this process, written with the public API alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum_io_session::backend::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created,
    DestroyTarget, LeaseQueue, LeaseToken, Loaded, Revision, SessionSnapshot,
};
use axum_io_session::session::{Generation, Record};
use axum_io_session::{ClientId, DestroyReason, Error, ErrorKind, NodeId, Result, SessionId};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

/// How late an end may be published that nobody asks for.
const SWEEP: Duration = Duration::from_millis(100);

/// Sessions in memory. Every operation happens under one lock, so that each is one step and the
/// events come in the order of the changes.
pub(crate) struct MemoryBackend {
    shared: Arc<Shared>,
}

struct Shared {
    config: BackendConfig,
    events: broadcast::Sender<BackendEvent>,
    closing: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clients: HashMap<ClientId, Client>,
    /// Whose an id is or was, as long as its session lives.
    owners: HashMap<SessionId, ClientId>,
}

#[derive(Default)]
struct Client {
    lease: Arc<LeaseQueue>,
    watchers: usize,
    /// The session, as it was at that time.
    session: Option<(Record, Instant)>,
}

impl MemoryBackend {
    pub(crate) fn new(config: BackendConfig) -> Self {
        let shared = Arc::new(Shared {
            events: broadcast::channel(config.event_capacity).0,
            closing: watch::channel(false).0,
            state: Mutex::default(),
            config,
        });
        tokio::spawn(sweep(Arc::downgrade(&shared)));
        Self { shared }
    }
}

/// Ends what has expired, until the backend is closed or dropped.
async fn sweep(backend: Weak<Shared>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(shared) = backend.upgrade() else { return };
        let Ok(mut state) = shared.open() else { return };
        let clients: Vec<ClientId> = state.clients.keys().copied().collect();
        for client in clients {
            shared.live(&mut state, &client);
            state.forget_idle(&client);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        match *self.closing.borrow() {
            true => Err(closed()),
            false => Ok(state),
        }
    }

    fn publish(&self, event: BackendEvent) {
        // An error says that nobody listens.
        let _ = self.events.send(event);
    }

    /// The client's session as it is now. One that has expired ends here.
    fn live(&self, state: &mut State, client: &ClientId) -> Option<Record> {
        let (record, at) = state.clients.get(client)?.session.as_ref()?;
        let now = record.later(at.elapsed());
        if now.is_none() {
            self.end(state, client, DestroyReason::Expired);
        }
        now
    }

    fn end(&self, state: &mut State, client: &ClientId, reason: DestroyReason) {
        if let Some(record) = state.put(client, None) {
            self.publish(BackendEvent::ended(&record, reason, &self.config.node));
        }
    }
}

impl State {
    /// Makes this the client's session, or leaves it without one; returns what it had.
    fn put(&mut self, client: &ClientId, record: Option<Record>) -> Option<Record> {
        let slot = self.clients.entry(*client).or_default();
        let new = record.map(|record| (record, Instant::now()));
        let old = std::mem::replace(&mut slot.session, new).map(|(record, _)| record);
        for id in old.iter().flat_map(ids) {
            self.owners.remove(&id);
        }
        for id in slot.session.iter().flat_map(|(record, _)| ids(record)) {
            self.owners.insert(id, *client);
        }
        old
    }

    fn owns(&self, client: &ClientId, lease: LeaseToken) -> bool {
        self.clients.get(client).is_some_and(|slot| slot.lease.owns(lease))
    }

    fn forget_idle(&mut self, client: &ClientId) {
        let idle = |slot: &Client| {
            let unused = slot.lease.is_idle() && Arc::strong_count(&slot.lease) == 1;
            slot.session.is_none() && slot.watchers == 0 && unused
        };
        if self.clients.get(client).is_some_and(idle) {
            self.clients.remove(client);
        }
    }
}

/// The id of a session and those that it had before.
fn ids(record: &Record) -> Vec<SessionId> {
    let previous = record.previous.iter().map(|old| old.session_id);
    std::iter::once(record.session_id).chain(previous).collect()
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the bridge was shut down")
}

#[async_trait::async_trait]
impl Backend for MemoryBackend {
    fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    async fn load(&self, sessions: &[SessionId], _hint: Option<&ClientId>) -> Result<Loaded> {
        let mut state = self.shared.open()?;
        let mut superseded = false;
        for id in sessions {
            let Some(client) = state.owners.get(id).copied() else { continue };
            match self.shared.live(&mut state, &client) {
                Some(record) if record.opens_by(id) => return Ok(Loaded::Found(record)),
                Some(_) => superseded = true,
                None => {}
            }
        }
        Ok(Loaded::Missing { superseded })
    }

    async fn create(&self, create: Create) -> Result<Created> {
        let mut state = self.shared.open()?;
        let client = create.client;
        match self.shared.live(&mut state, &client) {
            Some(existing) if create.joins(&existing) => return Ok(Created::Exists(existing)),
            Some(_) => return Ok(Created::Occupied),
            None => {}
        }
        let record = create.record(&self.shared.config)?;
        state.put(&client, Some(record.clone()));
        self.shared.publish(BackendEvent::created(&record, self.node()));
        Ok(Created::New(record))
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        let mut state = self.shared.open()?;
        let client = commit.client;
        let Some(old) = self.shared.live(&mut state, &client) else { return Ok(Committed::Ended) };
        if old.generation != commit.generation {
            return Ok(Committed::Ended);
        }
        if commit.lease.is_some_and(|lease| !state.owns(&client, lease)) {
            return Ok(Committed::LeaseLost);
        }
        let record = match commit.revise(&old, &self.shared.config)? {
            Revision::Written(record) => record,
            Revision::Conflict => return Ok(Committed::Conflict(old)),
            Revision::Expired => {
                self.shared.end(&mut state, &client, DestroyReason::Expired);
                return Ok(Committed::Ended);
            }
            _ => return Ok(Committed::Ended),
        };
        state.put(&client, Some(record.clone()));
        for event in BackendEvent::committed(&old, &record, self.node()) {
            self.shared.publish(event);
        }
        drop(state);
        if let Some(lease) = commit.lease.filter(|_| commit.release) {
            self.release(&client, lease);
        }
        Ok(Committed::Written(record))
    }

    async fn touch(&self, client: &ClientId, generation: Generation) -> Result<Option<Record>> {
        let mut state = self.shared.open()?;
        let live = self.shared.live(&mut state, client);
        let Some(mut record) = live.filter(|record| record.generation == generation) else {
            return Ok(None);
        };
        let lifetime = &self.shared.config.lifetime;
        record.ttl = lifetime.ttl(record.max_age, record.sealed, record.age);
        record.remaining = record.ttl;
        state.put(client, Some(record.clone()));
        Ok(Some(record))
    }

    async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        let mut state = self.shared.open()?;
        let client = match target {
            DestroyTarget::Session(id) => state.owners.get(&id).copied(),
            DestroyTarget::Client(client) | DestroyTarget::Generation(client, _) => Some(client),
            DestroyTarget::Leased(client, _, lease) if state.owns(&client, lease) => Some(client),
            DestroyTarget::Leased(..) => return Err(Error::new(ErrorKind::LeaseLost, "")),
            _ => return Err(Error::new(ErrorKind::Unsupported, "an unknown target")),
        };
        let Some(client) = client else { return Ok(false) };
        let Some(record) = self.shared.live(&mut state, &client) else { return Ok(false) };
        let meant = match target {
            DestroyTarget::Session(id) => record.opens_by(&id),
            DestroyTarget::Generation(_, generation) | DestroyTarget::Leased(_, generation, _) => {
                record.generation == generation
            }
            _ => true,
        };
        if meant {
            self.shared.end(&mut state, &client, DestroyReason::Destroyed);
            if let DestroyTarget::Leased(_, _, lease) = target
                && let Some(slot) = state.clients.get(&client)
            {
                slot.lease.release(lease, self.shared.config.lease_duration);
                state.forget_idle(&client);
            }
        }
        Ok(meant)
    }

    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        let config = &self.shared.config;
        // Kept over the wait, so that the queue stays in the table.
        let queue = self.shared.open()?.clients.entry(*client).or_default().lease.clone();
        let mut closing = self.shared.closing.subscribe();
        let lease = tokio::select! {
            lease = queue.acquire(config.lease_duration, wait, config.lease_queue_limit) => lease?,
            _ = closing.wait_for(|closing| *closing) => return Err(closed()),
        };
        let record = self.shared.live(&mut self.shared.state(), client);
        Ok(Acquired::new(lease, config.lease_duration, record))
    }

    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        let length = self.shared.config.lease_duration;
        let state = self.shared.state();
        Ok(state.clients.get(client).is_some_and(|slot| slot.lease.renew(lease, length)))
    }

    fn release(&self, client: &ClientId, lease: LeaseToken) {
        let mut state = self.shared.state();
        if let Some(slot) = state.clients.get(client) {
            slot.lease.release(lease, self.shared.config.lease_duration);
        }
        state.forget_idle(client);
    }

    fn is_local(&self) -> bool {
        true
    }

    fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        let state = self.shared.state();
        let (record, at) = state.clients.get(client)?.session.as_ref()?;
        record.later(at.elapsed()).as_ref().map(SessionSnapshot::from)
    }

    async fn watch(&self, client: &ClientId) -> Result<Option<Record>> {
        let mut state = self.shared.open()?;
        state.clients.entry(*client).or_default().watchers += 1;
        Ok(self.shared.live(&mut state, client))
    }

    fn unwatch(&self, client: &ClientId) {
        let mut state = self.shared.state();
        if let Some(slot) = state.clients.get_mut(client) {
            slot.watchers = slot.watchers.saturating_sub(1);
        }
        state.forget_idle(client);
    }

    fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.shared.events.subscribe()
    }

    fn publish(&self, event: BackendEvent) {
        self.shared.publish(event);
    }

    fn table_sizes(&self) -> Vec<(&'static str, usize)> {
        let state = self.shared.state();
        vec![("clients", state.clients.len()), ("ids", state.owners.len())]
    }

    async fn shutdown(&self) {
        self.shared.closing.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum_io_session::backend::conformance;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract() {
        conformance::check(async |config| Arc::new(MemoryBackend::new(config)) as Arc<dyn Backend>)
            .await;
    }
}

//! A backend over any [`SessionStore`], for one node: mapping, leases and events in process.

mod clients;
mod codec;
mod deadlines;
mod expiry;
mod sessions;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created,
    DestroyTarget, LeaseToken, Loaded, NodeInfo, NodeStats, SessionSnapshot,
};
use crate::backend::on_drop::Undo;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Generation, NodeId, Record, SessionId};
use crate::store::SessionStore;
use sessions::Shared;

/// How long a shutdown waits for operations that run.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// A backend over any [`SessionStore`], for one node.
///
/// Changes of one client happen one after the other, each in a task of its own, so that a caller
/// that goes away leaves no half-done change behind.
pub struct LocalBackend<S> {
    shared: Arc<Shared<S>>,
    /// What this node said of itself last.
    said: Mutex<Option<(NodeStats, Instant)>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl<S: SessionStore> LocalBackend<S> {
    /// A backend over this store. Starts one task, which tells ends on time, and so has to be
    /// called inside a tokio runtime.
    pub fn new(store: S, config: BackendConfig) -> Self {
        let shared = Arc::new(Shared::new(store, config));
        let tasks = TaskTracker::new();
        let closing = CancellationToken::new();
        let (timer, stop) = (shared.clone(), closing.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = timer.tell_ends() => {}
                () = stop.cancelled() => {}
            }
        });
        Self { shared, said: Mutex::new(None), tasks, closing }
    }

    fn open(&self) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        Ok(())
    }

    /// Runs a change to its end even if the caller goes away.
    async fn whole<T, F>(&self, change: impl FnOnce(Arc<Shared<S>>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.open()?;
        let task = self.tasks.spawn(change(self.shared.clone()));
        task.await
            .unwrap_or_else(|error| Err(Error::store("the store panicked; see the cause", error)))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the bridge was shut down")
}

impl<S> fmt::Debug for LocalBackend<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBackend").finish_non_exhaustive()
    }
}

impl<S> Drop for LocalBackend<S> {
    fn drop(&mut self) {
        // Without a shutdown the timer would outlive its owner.
        self.closing.cancel();
    }
}

#[async_trait]
impl<S: SessionStore> Backend for LocalBackend<S> {
    fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    async fn load(&self, sessions: &[SessionId], hint: Option<&ClientId>) -> Result<Loaded> {
        self.open()?;
        let Some(first) = sessions.first() else {
            return Ok(Loaded::Missing { superseded: false });
        };
        if let Some(record) = self.shared.peek(first).await? {
            return Ok(Loaded::Found(record));
        }
        let (sessions, hint) = (sessions.to_vec(), hint.copied());
        self.whole(move |shared| async move { shared.load(&sessions, hint).await }).await
    }

    async fn create(&self, create: Create) -> Result<Created> {
        self.whole(move |shared| async move { shared.create(create).await }).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.whole(move |shared| async move { shared.commit(commit).await }).await
    }

    async fn touch(&self, client: &ClientId, generation: Generation) -> Result<Option<Record>> {
        let client = *client;
        self.whole(move |shared| async move { shared.touch(client, generation).await }).await
    }

    async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        self.whole(move |shared| async move { shared.destroy(target).await }).await
    }

    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        self.open()?;
        let config = &self.shared.config;
        // Kept over the wait, so that the queue stays in the table.
        let slot = self.shared.slots.slot(client);
        let lease = tokio::select! {
            lease = slot.lease.acquire(config.lease_duration, wait, config.lease_queue_limit) => lease?,
            () = self.closing.cancelled() => return Err(closed()),
        };
        let mut granted = Granted { backend: self, client, lease: Some(lease) };
        let owner = *client;
        let record =
            self.whole(move |shared| async move { shared.live_record(owner).await }).await?;
        granted.lease = None;
        Ok(Acquired { lease, length: config.lease_duration, record })
    }

    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        Ok(self.shared.slots.slot(client).lease.renew(lease, self.shared.config.lease_duration))
    }

    fn release(&self, client: &ClientId, lease: LeaseToken) {
        self.shared.slots.slot(client).lease.release(lease, self.shared.config.lease_duration);
    }

    async fn session_of(&self, client: &ClientId) -> Result<Option<SessionId>> {
        let client = *client;
        let record =
            self.whole(move |shared| async move { shared.live_record(client).await }).await?;
        Ok(record.map(|record| record.session_id))
    }

    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        Ok(match self.load(std::slice::from_ref(session), None).await? {
            Loaded::Found(record) => Some(record.client_id),
            Loaded::Missing { .. } => None,
        })
    }

    fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.shared.slots.known(client)
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn watch(&self, client: &ClientId) -> Result<Option<Record>> {
        self.open()?;
        let client = *client;
        let slots = &self.shared.slots;
        slots.watch(&client);
        let undo = Undo::new(|| slots.unwatch(&client));
        let read = self.whole(move |shared| async move { shared.live_record(client).await });
        let record = read.await?;
        undo.finished();
        Ok(record)
    }

    fn unwatch(&self, client: &ClientId) {
        self.shared.slots.unwatch(client);
    }

    fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.shared.events.subscribe()
    }

    async fn cleanup(&self) -> Result<u64> {
        self.whole(|shared| async move { shared.cleanup().await }).await
    }

    async fn can_clean_up(&self) -> Result<bool> {
        self.open()?;
        self.shared.can_list().await
    }

    async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        let session = *session;
        self.whole(move |shared| async move { shared.notify_set(session, is_new).await }).await
    }

    async fn notify_destroy(&self, session: &SessionId) -> Result<()> {
        let session = *session;
        self.whole(move |shared| async move { shared.notify_destroy(session).await }).await
    }

    fn notify_cleanup(&self, cleared: u64) {
        self.shared.tell_cleanup(cleared);
    }

    async fn heartbeat(&self, figures: &NodeStats) -> Result<()> {
        self.open()?;
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((figures.clone(), Instant::now()));
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        self.open()?;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let info = |(figures, at): (NodeStats, Instant)| {
            NodeInfo::new(self.node().clone(), figures, at.elapsed())
        };
        Ok(said.map(info).into_iter().collect())
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        // Any id will do: the store has to answer, not to know it.
        let probe = SessionId::generate();
        self.shared.read(&probe).await.map(|_| ())
    }

    fn table_sizes(&self) -> Vec<(&'static str, usize)> {
        let (clients, sessions) = self.shared.slots.sizes();
        vec![
            ("clients", clients),
            ("sessions", sessions),
            ("deadlines", self.shared.deadlines.len()),
        ]
    }

    async fn shutdown(&self) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("operations of the session store still run after {SHUTDOWN_LIMIT:?}");
        }
        if let Err(error) = self.shared.store.close().await {
            tracing::warn!(%error, "the session store did not close cleanly");
        }
    }
}

/// Gives a lease back if its acquirer goes away while the record is read.
struct Granted<'a, S: SessionStore> {
    backend: &'a LocalBackend<S>,
    client: &'a ClientId,
    lease: Option<LeaseToken>,
}

impl<S: SessionStore> Drop for Granted<'_, S> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease {
            self.backend.release(self.client, lease);
        }
    }
}

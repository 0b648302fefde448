//! A backend over any [`SessionStore`], for one node: mapping, leases and events in the process.

mod clients;
mod codec;
mod expiry;
mod publisher;
mod sessions;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
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
use sessions::Sessions;

/// How long a shutdown waits for operations that run.
const OPERATION_LIMIT: Duration = Duration::from_secs(30);

/// A backend over any [`SessionStore`], for one node.
///
/// Changes of one client happen one after the other, and one that has begun is finished, also if
/// its caller goes away.
pub struct LocalBackend<S> {
    sessions: Arc<Sessions<S>>,
    last_heartbeat: Mutex<Option<(NodeStats, Instant)>>,
    tasks: TaskTracker,
    /// Set before `closing` is cancelled.
    closed: AtomicBool,
    closing: CancellationToken,
}

impl<S: SessionStore> LocalBackend<S> {
    /// A backend over this store. Starts one task, which ends sessions on time, and so has to be
    /// called inside a tokio runtime.
    pub fn new(store: S, config: BackendConfig) -> Self {
        let sessions = Arc::new(Sessions::new(store, config));
        let tasks = TaskTracker::new();
        let closing = CancellationToken::new();
        let (timer, stop) = (sessions.clone(), closing.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = expiry::expiry_loop(&timer) => {}
                () = stop.cancelled() => {}
            }
        });
        let closed = AtomicBool::new(false);
        Self { sessions, last_heartbeat: Mutex::new(None), tasks, closed, closing }
    }

    fn open(&self) -> Result<()> {
        // Without the lock that the token would take.
        if self.closed.load(Ordering::SeqCst) {
            return Err(closed());
        }
        Ok(())
    }

    /// Runs a change to its end even if the caller goes away. What a store does without waiting is
    /// done at once, in the caller's task; the rest is left to a task of its own.
    ///
    /// No `async fn`: its future would have to hold the change, whole, until it is in its box.
    fn begin<T, F>(&self, change: impl FnOnce(Arc<Sessions<S>>) -> F) -> Begun<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // Before `closed` is read: a shutdown that begins in between waits for this one. The fence pairs
        // with the shutdown's.
        let running = self.tasks.token();
        fence(Ordering::SeqCst);
        if let Err(error) = self.open() {
            return Begun::Done(Err(error));
        }
        let change = AssertUnwindSafe(change(self.sessions.clone())).catch_unwind();
        // No async block, which would have room for the change twice.
        let mut change = Box::pin(change.map(move |done| {
            let _running = running;
            done.unwrap_or_else(|panic| Err(panicked(&*panic)))
        }));
        // Once: between two polls a caller that goes away would leave it half done, and one that
        // does not poll would hold up others.
        match change.as_mut().now_or_never() {
            Some(result) => Begun::Done(result),
            None => Begun::Running(self.tasks.spawn(change)),
        }
    }

    /// [`begin`](Self::begin), and its result.
    fn run_to_completion<T, F>(
        &self,
        change: impl FnOnce(Arc<Sessions<S>>) -> F,
    ) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let begun = self.begin(change);
        async {
            match begun {
                Begun::Done(result) => result,
                Begun::Running(task) => task
                    .await
                    .unwrap_or_else(|error| Err(Error::store("the store's task was ended", error))),
            }
        }
    }
}

/// A change that has begun.
enum Begun<T> {
    Done(Result<T>),
    Running(JoinHandle<Result<T>>),
}

/// The error of a store that panicked.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::store("the store panicked; see the cause", text)
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
        &self.sessions.config.node
    }

    async fn load(&self, ids: &[SessionId], hint: Option<&ClientId>) -> Result<Loaded> {
        self.open()?;
        let Some(first) = ids.first() else {
            return Ok(Loaded::Missing { superseded: false });
        };
        if let Some(record) = self.sessions.peek(first).await? {
            return Ok(Loaded::Found(record));
        }
        let (ids, hint) = (ids.to_vec(), hint.copied());
        self.run_to_completion(move |sessions| async move { sessions.load(&ids, hint).await }).await
    }

    async fn create(&self, create: Create) -> Result<Created> {
        self.run_to_completion(move |sessions| async move { sessions.create(create).await }).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.run_to_completion(move |sessions| async move { sessions.commit(commit).await }).await
    }

    async fn touch(&self, client: &ClientId, generation: Generation) -> Result<Option<Record>> {
        let client = *client;
        self.run_to_completion(
            move |sessions| async move { sessions.touch(client, generation).await },
        )
        .await
    }

    async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        self.run_to_completion(move |sessions| async move { sessions.destroy(target).await }).await
    }

    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        self.open()?;
        let config = &self.sessions.config;
        // Kept over the wait, so that the queue stays in the table.
        let slot = self.sessions.slots.slot(client);
        let lease = tokio::select! {
            lease = slot.lease.acquire(config.lease_duration, wait, config.lease_queue_limit) => lease?,
            () = self.closing.cancelled() => return Err(closed()),
        };
        let undo = Undo::new(|| slot.lease.release(lease, config.lease_duration));
        let owner = *client;
        let read = self
            .run_to_completion(move |sessions| async move { sessions.live_record(owner).await });
        let record = read.await?;
        undo.finished();
        Ok(Acquired { lease, length: config.lease_duration, record })
    }

    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        Ok(self.sessions.slots.slot(client).lease.renew(lease, self.sessions.config.lease_duration))
    }

    fn release(&self, client: &ClientId, lease: LeaseToken) {
        self.sessions.slots.slot(client).lease.release(lease, self.sessions.config.lease_duration);
    }

    async fn record_of(&self, client: &ClientId) -> Result<Option<Record>> {
        let client = *client;
        self.run_to_completion(move |sessions| async move { sessions.live_record(client).await })
            .await
    }

    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        Ok(match self.load(std::slice::from_ref(session), None).await? {
            Loaded::Found(record) => Some(record.client_id),
            Loaded::Missing { .. } => None,
        })
    }

    fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.sessions.slots.snapshot(client)
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn watch(&self, client: &ClientId) -> Result<Option<Record>> {
        self.open()?;
        let client = *client;
        let slots = &self.sessions.slots;
        slots.watch(&client);
        let undo = Undo::new(|| slots.unwatch(&client));
        let read = self
            .run_to_completion(move |sessions| async move { sessions.live_record(client).await });
        let record = read.await?;
        undo.finished();
        Ok(record)
    }

    fn unwatch(&self, client: &ClientId) {
        self.sessions.slots.unwatch(client);
    }

    fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.sessions.publisher.subscribe()
    }

    async fn cleanup(&self) -> Result<u64> {
        self.run_to_completion(|sessions| async move { expiry::cleanup(&sessions).await }).await
    }

    async fn can_clean_up(&self) -> Result<bool> {
        self.open()?;
        expiry::can_list(&self.sessions).await
    }

    async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        let session = *session;
        self.run_to_completion(move |sessions| async move {
            expiry::notify_set(&sessions, session, is_new).await
        })
        .await
    }

    async fn notify_destroy(&self, session: &SessionId) -> Result<()> {
        let session = *session;
        self.run_to_completion(move |sessions| async move {
            expiry::notify_destroy(&sessions, session).await
        })
        .await
    }

    fn notify_cleanup(&self, cleared: u64) {
        self.sessions.publisher.cleanup(cleared);
    }

    async fn heartbeat(&self, figures: &NodeStats) -> Result<()> {
        self.open()?;
        let mut last = self.last_heartbeat.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((figures.clone(), Instant::now()));
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        self.open()?;
        let last = self.last_heartbeat.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let info = |(figures, at): (NodeStats, Instant)| {
            NodeInfo::new(self.node().clone(), figures, at.elapsed())
        };
        Ok(last.map(info).into_iter().collect())
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        // Any id will do: the store has to answer, not to know it.
        let probe = SessionId::generate();
        self.sessions.read(&probe).await.map(|_| ())
    }

    fn table_sizes(&self) -> Vec<(&'static str, usize)> {
        let (clients, sessions) = self.sessions.slots.sizes();
        vec![
            ("clients", clients),
            ("sessions", sessions),
            ("deadlines", self.sessions.deadlines.len()),
        ]
    }

    async fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(OPERATION_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("operations of the session store still run after {OPERATION_LIMIT:?}");
        }
        if let Err(error) = self.sessions.store.close().await {
            tracing::warn!(%error, "the session store did not close cleanly");
        }
    }
}

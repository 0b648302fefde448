//! The handle and what it owns.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::builder::SessionBridgeBuilder;
use super::dispatch;
use super::engines::EngineConnections;
use super::events::{Lagged, SessionEvents};
use super::heartbeat;
use super::options::Options;
use super::sockets::Attachments;
use super::stats::{Anomaly, Counters, Stats};
use crate::backend::Backend;
use crate::error::Result;
use crate::session::{Cleanup, NodeId, SessionDestroy, SessionEvent, SessionSet};

/// How long a shutdown waits for handlers that hold a session.
const HANDLER_LIMIT: Duration = Duration::from_secs(10);
/// How long a shutdown waits for the bridge's own tasks.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// One session for HTTP and sockets: the handle to everything.
///
/// A cheap clone, without type parameters, for every part of an application. Make one with
/// [`builder`](Self::builder) and end it with [`shutdown`](Self::shutdown); when the last clone
/// is dropped its tasks end too, without waiting for what runs.
///
/// The session layer comes from [`layer`](Self::layer), sockets are attached by
/// [`attach`](crate::socket::attach), and the rest of the methods work with sessions by id.
#[derive(Clone)]
pub struct SessionBridge {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) options: Options,
    pub(crate) attachments: Attachments,
    pub(super) engines: EngineConnections,
    pub(crate) counters: Counters,
    /// None after a shutdown, which ends all streams.
    pub(super) events: Mutex<Option<broadcast::Sender<Result<SessionEvent, Lagged>>>>,
    pub(super) started: Instant,
    pub(super) tasks: TaskTracker,
    /// Whoever holds a lease or waits for one.
    pub(super) handlers: TaskTracker,
    /// No new leases from now on.
    pub(super) stopping: CancellationToken,
    pub(super) closing: CancellationToken,
    pub(super) cleaner: Mutex<Option<CancellationToken>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl SessionBridge {
    /// Begins a new bridge.
    pub fn builder() -> SessionBridgeBuilder {
        SessionBridgeBuilder::new()
    }

    pub(super) fn start(backend: Arc<dyn Backend>, options: Options) -> Self {
        let (events, _) = broadcast::channel(options.event_capacity);
        // Before anything can happen, so that nothing is missed.
        let source = backend.subscribe();
        let inner = Arc::new(Inner {
            backend,
            options,
            attachments: Attachments::default(),
            engines: EngineConnections::default(),
            counters: Counters::default(),
            events: Mutex::new(Some(events)),
            started: Instant::now(),
            tasks: TaskTracker::new(),
            handlers: TaskTracker::new(),
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            cleaner: Mutex::new(None),
        });
        // Weak: the task must not keep alive what ends it.
        let (weak, closing) = (Arc::downgrade(&inner), inner.closing.clone());
        inner.tasks.spawn(dispatch::pump(weak.clone(), source, closing.clone()));
        inner.tasks.spawn(heartbeat::beats(weak, closing));
        Self { inner }
    }

    /// The name of this node in events.
    pub fn node(&self) -> &NodeId {
        self.inner.backend.node()
    }

    /// All events from now on: every change and every end of a session, whoever caused it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> axum_io_session::Result<()> {
    /// use axum_io_session::{SessionBridge, SessionEvent};
    ///
    /// let bridge = SessionBridge::builder().build().await?;
    /// let mut events = bridge.events();
    /// bridge.notify_store_cleanup(3);
    /// match events.recv().await {
    ///     Some(Ok(SessionEvent::Cleanup(event))) => assert_eq!(event.cleared, 3),
    ///     other => panic!("{other:?}"),
    /// }
    /// # bridge.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> SessionEvents {
        let events = self.inner.events.lock().unwrap_or_else(PoisonError::into_inner);
        SessionEvents::new(match &*events {
            Some(events) => events.subscribe(),
            // An ended stream.
            None => broadcast::channel(1).1,
        })
    }

    /// Hands an event, or a gap in them, to all listeners.
    pub(super) fn publish(&self, event: Result<SessionEvent, Lagged>) {
        let events = self.inner.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = &*events {
            // An error says that nobody listens.
            let _ = events.send(event);
        }
    }

    /// Calls `handler` with each event, one after the other, until the bridge shuts down.
    ///
    /// The handler delays nobody but itself. If it panics, the panic is logged and it is called
    /// with the next event. If it is too slow, missed events are logged and counted
    /// ([`Stats::events_missed`]).
    pub fn on_event<F, Fut>(&self, mut handler: F)
    where
        F: FnMut(SessionEvent) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut events = self.events();
        let closing = self.inner.closing.clone();
        let weak = Arc::downgrade(&self.inner);
        self.inner.tasks.spawn(async move {
            loop {
                let item = tokio::select! {
                    biased;
                    () = closing.cancelled() => return,
                    item = events.recv() => item,
                };
                match item {
                    Some(Ok(event)) => {
                        // The call itself may panic as well as its future.
                        let call = std::panic::AssertUnwindSafe(async { handler(event).await });
                        tokio::select! {
                            outcome = call.catch_unwind() => if outcome.is_err() {
                                tracing::error!("a session event handler panicked");
                            },
                            () = closing.cancelled() => return,
                        }
                    }
                    Some(Err(lagged)) => {
                        tracing::warn!(%lagged, "a session event handler has a gap");
                        if let Some(inner) = weak.upgrade() {
                            inner.counters.events_missed.add(lagged.0);
                        }
                    }
                    None => return,
                }
            }
        });
    }

    /// [`on_event`](Self::on_event) for created, attached and changed sessions.
    #[doc(alias = "sessionSet")]
    pub fn on_session_set<F, Fut>(&self, handler: F)
    where
        F: FnMut(SessionSet) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_some(handler, |event| match event {
            SessionEvent::Set(event) => Some(event),
            _ => None,
        });
    }

    /// [`on_event`](Self::on_event) for ends of sessions.
    #[doc(alias = "sessionDestroy")]
    pub fn on_session_destroy<F, Fut>(&self, handler: F)
    where
        F: FnMut(SessionDestroy) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_some(handler, |event| match event {
            SessionEvent::Destroy(event) => Some(event),
            _ => None,
        });
    }

    /// [`on_event`](Self::on_event) for cleanups.
    #[doc(alias = "cleanup")]
    pub fn on_cleanup<F, Fut>(&self, handler: F)
    where
        F: FnMut(Cleanup) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_some(handler, |event| match event {
            SessionEvent::Cleanup(event) => Some(event),
            _ => None,
        });
    }

    fn on_some<T, F, Fut>(&self, mut handler: F, pick: fn(SessionEvent) -> Option<T>)
    where
        T: 'static,
        F: FnMut(T) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_event(move |event| {
            let call = pick(event).map(&mut handler);
            async {
                if let Some(call) = call {
                    call.await;
                }
            }
        });
    }

    /// Figures since the start, and what is held now.
    pub fn stats(&self) -> Stats {
        let mut tables = self.inner.backend.table_sizes();
        tables.push(("engines", self.inner.engines.len()));
        self.inner.counters.stats(self.inner.attachments.len(), tables)
    }

    /// Whether sessions can be read now.
    ///
    /// # Errors
    /// Why not.
    pub async fn health(&self) -> Result<()> {
        self.inner.backend.health().await
    }

    /// Stops: no new leases are given, handlers that run may finish and write, then all new
    /// operations are refused as [`Unavailable`](crate::ErrorKind::Unavailable), tasks end, and
    /// event streams end. Calling it again does nothing. Handlers get 10 seconds, what is
    /// written then another 40.
    pub async fn shutdown(&self) {
        self.inner.stopping.cancel();
        self.inner.handlers.close();
        if tokio::time::timeout(HANDLER_LIMIT, self.inner.handlers.wait()).await.is_err() {
            tracing::warn!(
                "handlers still hold sessions after {HANDLER_LIMIT:?}; their changes are refused"
            );
        }
        self.inner.backend.shutdown().await;
        self.inner.closing.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("tasks of the session bridge still run after {SHUTDOWN_LIMIT:?}");
        }
        self.inner.attachments.clear();
        drop(self.inner.events.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether both are handles of one bridge.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.inner.backend
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Whether a shutdown has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.inner.stopping.is_cancelled()
    }

    /// Counts an anomaly and traces it, without the id.
    pub(crate) fn anomaly(&self, anomaly: Anomaly) {
        self.inner.counters.anomaly(anomaly);
        tracing::debug!(anomaly = anomaly.as_str(), "unusual session cookie");
    }
}

impl fmt::Debug for SessionBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBridge")
            .field("node", self.node())
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

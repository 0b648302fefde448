//! The stream of events for listeners.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::error::Result;
use crate::session::SessionEvent;

type Item = Result<SessionEvent, Lagged>;

/// This many events were missed: the listener was too slow, or the bridge itself was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged(pub u64);

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} session events were missed", self.0)
    }
}

impl std::error::Error for Lagged {}

/// Where the bridge publishes its events.
#[derive(Debug)]
pub(super) struct Publisher {
    /// None after a shutdown, which ends all streams.
    open: Mutex<Option<Open>>,
    listeners: Arc<watch::Sender<usize>>,
}

#[derive(Debug)]
struct Open {
    sender: broadcast::Sender<Item>,
    /// Whether the backend brings the events of all clients.
    all: watch::Sender<bool>,
}

impl Publisher {
    /// A slow listener may fall this many events behind.
    pub(super) fn new(capacity: usize) -> Self {
        let open = Open { sender: broadcast::channel(capacity).0, all: watch::Sender::new(true) };
        Self { open: Mutex::new(Some(open)), listeners: Arc::default() }
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> SessionEvents {
        // Counted before it is asked whether all events come: see `audience`.
        let listener = Listener::new(&self.listeners);
        let (receiver, all) = match &*self.open() {
            Some(open) => (open.sender.subscribe(), open.all.subscribe()),
            // An ended stream.
            None => (broadcast::channel(1).1, watch::channel(true).1),
        };
        SessionEvents { inner: BroadcastStream::new(receiver), all, _listener: listener }
    }

    /// The number of streams, and its changes.
    pub(super) fn listeners(&self) -> watch::Receiver<usize> {
        self.listeners.subscribe()
    }

    /// Says whether the backend brings the events of all clients from now on.
    pub(super) fn set_all(&self, all: bool) {
        if let Some(open) = &*self.open() {
            open.all.send_replace(all);
        }
    }

    /// Sends an event, or the news of a gap in them, to all listeners.
    pub(super) fn publish(&self, item: Item) {
        if let Some(open) = &*self.open() {
            // An error says that there is no listener.
            let _ = open.sender.send(item);
        }
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        drop(self.open().take());
    }
}

/// Counts as a listener as long as it lives.
#[derive(Debug)]
struct Listener(Arc<watch::Sender<usize>>);

impl Listener {
    fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// The events of a bridge from now on, in order. See
/// [`events`](crate::SessionBridge::events).
///
/// A [`Stream`]; [`recv`](Self::recv) works without that trait. It ends when the bridge has
/// shut down. A slow reader never slows the bridge: it gets [`Lagged`] with the number of events
/// it missed, and then goes on with the oldest that is still there.
#[derive(Debug)]
pub struct SessionEvents {
    inner: BroadcastStream<Item>,
    all: watch::Receiver<bool>,
    _listener: Listener,
}

impl SessionEvents {
    /// Waits until the events of all nodes arrive here.
    ///
    /// A node asks Redis for the events of all sessions only while somebody listens to them, so the
    /// first stream that is opened on a running node begins with a gap of a few milliseconds. What
    /// happens after this returns is in the stream. It returns at once if other streams are open, within
    /// five seconds of the start of the bridge or the end of the last stream, and on an embedded
    /// store; while Redis is away it waits.
    ///
    /// Cancel safe.
    pub async fn ready(&mut self) {
        // An error says that the bridge has shut down.
        let _ = self.all.wait_for(|all| *all).await;
    }

    /// The next event; `None` after the bridge has shut down.
    ///
    /// Cancel safe: a dropped call loses no event.
    ///
    /// # Errors
    /// [`Lagged`] if events were missed. The next call goes on.
    pub async fn recv(&mut self) -> Option<Result<SessionEvent, Lagged>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for SessionEvents {
    type Item = Result<SessionEvent, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.inner).poll_next(context).map(|item| {
            item.map(|item| {
                item.unwrap_or_else(|BroadcastStreamRecvError::Lagged(n)| Err(Lagged(n)))
            })
        })
    }
}

//! The stream of events for listeners.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::broadcast;
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
    sender: Mutex<Option<broadcast::Sender<Item>>>,
}

impl Publisher {
    /// A slow listener may fall this many events behind.
    pub(super) fn new(capacity: usize) -> Self {
        Self { sender: Mutex::new(Some(broadcast::channel(capacity).0)) }
    }

    fn sender(&self) -> MutexGuard<'_, Option<broadcast::Sender<Item>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> SessionEvents {
        let receiver = match &*self.sender() {
            Some(sender) => sender.subscribe(),
            // An ended stream.
            None => broadcast::channel(1).1,
        };
        SessionEvents { inner: BroadcastStream::new(receiver) }
    }

    /// Sends an event, or the news of a gap in them, to all listeners.
    pub(super) fn publish(&self, item: Item) {
        if let Some(sender) = &*self.sender() {
            // An error says that there is no listener.
            let _ = sender.send(item);
        }
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        drop(self.sender().take());
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
}

impl SessionEvents {
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

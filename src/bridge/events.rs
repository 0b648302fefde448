//! Events for whoever listens.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::session::SessionEvent;

/// This many events were missed: the listener was too slow, or the bridge itself was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged(pub u64);

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} session events were missed", self.0)
    }
}

impl std::error::Error for Lagged {}

/// The events of a bridge from now on, in order. See
/// [`events`](crate::SessionBridge::events).
///
/// A [`Stream`]; [`recv`](Self::recv) serves those who do without. It ends when the bridge has
/// shut down. A slow reader never slows the bridge: it gets [`Lagged`] with the number of events
/// it missed, and then goes on with the oldest that is still there.
#[derive(Debug)]
pub struct SessionEvents {
    inner: BroadcastStream<Result<SessionEvent, Lagged>>,
}

impl SessionEvents {
    pub(super) fn new(receiver: broadcast::Receiver<Result<SessionEvent, Lagged>>) -> Self {
        Self { inner: BroadcastStream::new(receiver) }
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

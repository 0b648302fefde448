//! A socket as the bridge reaches it.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use socketioxide::adapter::Adapter;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use socketioxide::{SendError, SocketError, SocketIo};
use tokio::time::Instant;

use crate::bridge::{Message, SinkError, SocketSink};

/// How long a socket may take from being attached to being connected: the application's own middleware
/// may run in between.
const CONNECTING: Duration = Duration::from_secs(20);

/// Whether a socket is there. Its middleware runs before it is in its namespace, and socketioxide tells
/// the client that it is connected a moment before it says so of the socket: a quick first event would
/// be taken for one of a socket that has left, and a message would be dropped.
#[derive(Debug, Default)]
struct Presence {
    /// When it was attached. Until then it is coming, however long its session takes to be read.
    attached: OnceLock<Instant>,
    was_connected: AtomicBool,
}

impl Presence {
    /// `connected` is what the socket says, if it is in its namespace.
    fn is_open(&self, connected: Option<bool>) -> bool {
        match connected {
            Some(true) => {
                self.was_connected.store(true, Ordering::Relaxed);
                true
            }
            // Not yet, or not any more.
            Some(false) | None => self.is_coming(),
        }
    }

    fn is_coming(&self) -> bool {
        let in_time = |attached: &Instant| attached.elapsed() < CONNECTING;
        !self.was_connected.load(Ordering::Relaxed) && self.attached.get().is_none_or(in_time)
    }

    fn unreachable(&self) -> SinkError {
        if self.is_coming() { SinkError::NotYet } else { SinkError::Closed }
    }
}

/// Looks the socket up at each use: a `SocketRef` kept here would keep the socket, which keeps
/// its attachment, which keeps this.
pub(super) struct Sink<A: Adapter> {
    io: SocketIo<A>,
    namespace: String,
    id: Sid,
    presence: Arc<Presence>,
}

impl<A: Adapter> Clone for Sink<A> {
    fn clone(&self) -> Self {
        Self {
            io: self.io.clone(),
            namespace: self.namespace.clone(),
            id: self.id,
            presence: self.presence.clone(),
        }
    }
}

impl<A: Adapter> Sink<A> {
    pub(super) fn new(io: SocketIo<A>, socket: &SocketRef<A>) -> Self {
        let presence = Arc::default();
        Self { io, namespace: socket.ns().to_owned(), id: socket.id, presence }
    }

    /// The socket is attached, and is to be connected next.
    pub(super) fn attached(&self) {
        self.presence.attached.get_or_init(Instant::now);
    }

    pub(super) fn socket(&self) -> Option<SocketRef<A>> {
        self.io.of(Cow::Borrowed(self.namespace.as_str()))?.get_socket(self.id)
    }
}

impl<A: Adapter> SocketSink for Sink<A> {
    fn emit(&self, message: &Message) -> Result<(), SinkError> {
        let socket = self.socket().ok_or_else(|| self.presence.unreachable())?;
        match socket.emit(message.name.as_str(), &message.payload) {
            Ok(()) => {
                self.presence.was_connected.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(SendError::Socket(SocketError::InternalChannelFull)) => Err(SinkError::Full),
            Err(_) => Err(self.presence.unreachable()),
        }
    }

    fn is_open(&self) -> bool {
        self.presence.is_open(self.socket().map(|socket| socket.connected()))
    }

    fn disconnect(&self) -> bool {
        match self.socket() {
            Some(socket) if socket.connected() => {
                !matches!(socket.disconnect(), Err(SocketError::InternalChannelFull))
            }
            Some(_) | None => !self.presence.is_coming(),
        }
    }

    fn close_server(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let io = self.io.clone();
        Box::pin(async move { io.close().await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_is_not_yet_connected_is_there_and_one_that_left_is_not() {
        let new = Presence::default;
        let presence = new();
        assert!(presence.is_open(Some(false)), "the client knows, the socket does not yet");
        assert!(presence.is_open(Some(true)));
        assert!(!presence.is_open(Some(false)), "its disconnect handler runs, or has leaked it");
        assert!(new().is_open(None), "its middleware runs");
        assert_eq!(new().unreachable(), SinkError::NotYet);
        let stuck = new();
        tokio::time::advance(2 * CONNECTING).await;
        assert!(stuck.is_open(None), "its session is still being read");
        stuck.attached.get_or_init(Instant::now);
        tokio::time::advance(CONNECTING).await;
        assert!(!stuck.is_open(Some(false)) && !stuck.is_open(None));
        assert_eq!(stuck.unreachable(), SinkError::Closed);
    }
}

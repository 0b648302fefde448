//! A connection, as its handler has it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket};
use futures_core::Stream;
use futures_util::Sink;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bridge::{
    AttachmentGuard, Connection, LeaseRequest, LeasedOutcome, SessionContext, Signal, run_leased,
};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{SessionEnd, SessionEvent, SessionId};

/// What a connection's handle and what closes it have in common.
pub(super) struct Shared {
    /// Taken by what closes it: from then on the handler sends and receives nothing.
    socket: Mutex<Option<WebSocket>>,
    connection: Connection,
    /// A socket remembers one waiting task for each direction.
    receiving: tokio::sync::Mutex<()>,
    sending: tokio::sync::Mutex<()>,
    dropped: CancellationToken,
}

impl Shared {
    pub(super) fn new(socket: WebSocket, connection: Connection) -> Self {
        Self {
            socket: Mutex::new(Some(socket)),
            connection,
            receiving: tokio::sync::Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            dropped: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<WebSocket>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Option<WebSocket> {
        self.lock().take()
    }

    pub(super) fn signal(&self) -> &Signal {
        self.connection.signal()
    }

    /// Cancelled once the handle is gone.
    pub(super) fn dropped(&self) -> &CancellationToken {
        &self.dropped
    }

    fn guard(&self) -> Result<&AttachmentGuard> {
        self.connection.guard().ok_or_else(Error::ended)
    }

    fn poll_receive(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Message, axum::Error>>> {
        match &mut *self.lock() {
            Some(socket) => Pin::new(socket).poll_next(context),
            None => Poll::Ready(None),
        }
    }

    /// Hands the message over, once, and flushes it.
    fn poll_send(
        &self,
        message: &mut Option<Message>,
        context: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        let mut socket = self.lock();
        let Some(socket) = &mut *socket else { return Poll::Ready(Err(closed())) };
        let mut socket = Pin::new(socket);
        if message.is_some() {
            ready!(socket.as_mut().poll_ready(context)).map_err(|_| closed())?;
            if let Some(message) = message.take() {
                socket.as_mut().start_send(message).map_err(|_| closed())?;
            }
        }
        socket.poll_flush(context).map_err(|_| closed())
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Disconnected, "the connection is closed")
}

/// A WebSocket that belongs to a session. Dropping it closes the connection with 1000.
///
/// Its methods take `&self`: one task may receive while another one sends.
pub struct SessionSocket {
    shared: Arc<Shared>,
}

impl SessionSocket {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The next message; `None` once the connection is closed, by either side. Cancel safe.
    pub async fn recv(&self) -> Option<std::result::Result<Message, axum::Error>> {
        let receive = async {
            let _turn = self.shared.receiving.lock().await;
            poll_fn(|context| self.shared.poll_receive(context)).await
        };
        tokio::select! {
            biased;
            () = self.shared.signal().closed().cancelled() => None,
            message = receive => message,
        }
    }

    /// Sends a message and waits until it has left. At the close what still waits here is dropped.
    ///
    /// # Errors
    /// [`Disconnected`](ErrorKind::Disconnected) if the connection is closed.
    pub async fn send(&self, message: Message) -> Result<()> {
        let mut message = Some(message);
        let send = async {
            let _turn = self.shared.sending.lock().await;
            poll_fn(|context| self.shared.poll_send(&mut message, context)).await
        };
        tokio::select! {
            biased;
            () = self.shared.signal().closed().cancelled() => Err(closed()),
            sent = send => sent,
        }
    }

    /// The session that the connection may see now. It follows, as
    /// [`SocketSessionExt::session_id`](crate::SocketSessionExt::session_id) does. No store trip.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared.connection.session_id()
    }

    /// Waits for the session's first end, or a shutdown: a moment before the connection is closed, as
    /// the grace of [`OnDestroy`](crate::bridge::OnDestroy) says. With
    /// [`Notify`](crate::bridge::OnDestroy::Notify) it is the first sign, and [`events`](Self::events) has the others. Cancel
    /// safe.
    pub async fn ended(&self) -> SessionEnd {
        self.shared.signal().ended().await
    }

    /// The events of this session from now on, until the connection is closed. What the caller is too
    /// slow for (64 events) is dropped, logged, and counted in
    /// [`Stats::events_missed`](crate::bridge::Stats::events_missed).
    pub fn events(&self) -> SocketEvents {
        // Without an attachment there is nothing to come.
        let none = || mpsc::channel(1).1;
        SocketEvents(self.shared.guard().map_or_else(|_| none(), AttachmentGuard::events))
    }

    /// Runs `handler` with the session, as its only leased writer, and writes what it changed when it is
    /// done. The rules are those of
    /// [`SocketSessionExt::with_session`](crate::SocketSessionExt::with_session).
    ///
    /// # Errors
    /// Those of [`SocketSessionExt::with_session`](crate::SocketSessionExt::with_session) but
    /// `NotAttached`.
    pub async fn with_session<F, Fut, R>(&self, handler: F) -> Result<R>
    where
        F: FnOnce(SessionContext) -> Fut,
        Fut: Future<Output = R>,
    {
        self.run(handler, |_| true).await
    }

    /// [`with_session`](Self::with_session) for a handler that can fail: its error means that nothing is
    /// written.
    ///
    /// # Errors
    /// The handler's own, and those of [`with_session`](Self::with_session) by `From`.
    pub async fn try_with_session<F, Fut, R, E>(&self, handler: F) -> Result<R, E>
    where
        F: FnOnce(SessionContext) -> Fut,
        Fut: Future<Output = Result<R, E>>,
        E: From<Error>,
    {
        self.run(handler, Result::is_ok).await.map_err(E::from)?
    }

    async fn run<F, Fut>(
        &self,
        handler: F,
        keep: impl FnOnce(&Fut::Output) -> bool,
    ) -> Result<Fut::Output>
    where
        F: FnOnce(SessionContext) -> Fut,
        Fut: Future,
    {
        let guard = self.shared.guard()?;
        let request = LeaseRequest::Socket(guard.attachment());
        match run_leased(guard.core(), request, handler, keep).await? {
            LeasedOutcome::Done(result) => Ok(result),
            LeasedOutcome::Missing => Err(Error::missing()),
        }
    }
}

impl Drop for SessionSocket {
    fn drop(&mut self) {
        self.shared.dropped.cancel();
    }
}

impl fmt::Debug for SessionSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSocket").field("session", &self.session_id()).finish_non_exhaustive()
    }
}

/// The events of a connection's session: a [`Stream`]. Made by [`SessionSocket::events`].
#[derive(Debug)]
pub struct SocketEvents(mpsc::Receiver<SessionEvent>);

impl SocketEvents {
    /// The next event; `None` once the connection is detached. Cancel safe.
    pub async fn recv(&mut self) -> Option<SessionEvent> {
        self.0.recv().await
    }
}

impl Stream for SocketEvents {
    type Item = SessionEvent;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<SessionEvent>> {
        self.0.poll_recv(context)
    }
}

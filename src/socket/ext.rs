//! Methods on sockets.

use std::future::Future;

use socketioxide::adapter::Adapter;
use socketioxide::extract::SocketRef;
use socketioxide::handler::{FromConnectParts, FromDisconnectParts, FromMessageParts, Value};
use socketioxide::socket::{DisconnectReason, Socket};
use std::sync::Arc;

use super::attach::Attached;
use super::context::SocketContext;
use crate::bridge::{Handshake, LeaseRequest, LeasedOutcome, SessionContext, run_leased};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, SessionEvent, SessionId};

/// Sessions on any socket of any adapter: bring it into scope with
/// `use axum_io_session::SocketSessionExt as _`.
///
/// All methods need the [`attach`](super::attach) middleware and are
/// [`NotAttached`](ErrorKind::NotAttached) without it.
pub trait SocketSessionExt<A: Adapter> {
    /// The client that the socket belongs to. `None` if the socket is not attached.
    #[doc(alias = "clientId")]
    fn client_id(&self) -> Option<ClientId>;

    /// The session that the socket may see now. It follows: a socket that was opened before there
    /// was a session sees the open one that its client begins, a new id after `renew_id`, and none
    /// after a logout, without reconnecting. No store trip.
    ///
    /// A sealed session is seen only by sockets whose handshake carried its cookie: after a login
    /// with [`rotate`](crate::Session::rotate) a page connects again. See
    /// [`SocketPairing`](crate::bridge::SocketPairing).
    #[doc(alias = "sessionId")]
    fn session_id(&self) -> Option<SessionId>;

    /// Runs `handler` with the session, as its only leased writer, and writes what it changed
    /// when it is done.
    ///
    /// Never creates a session. Calls for one session take turns in the order they came, over
    /// all sockets, `update`s and nodes; others are not held up. Cancel safe: if the future is
    /// dropped nothing is written and the turn passes on. The same goes for a handler that
    /// panics, and for a socket that disconnects while its handler runs.
    ///
    /// # Errors
    /// [`SessionMissing`](ErrorKind::SessionMissing) if there is no session,
    /// [`Reentrant`](ErrorKind::Reentrant) inside a handler of the same session,
    /// [`WaitTimeout`](ErrorKind::WaitTimeout) or [`Busy`](ErrorKind::Busy) if the turn did not
    /// come, [`SessionEnded`](ErrorKind::SessionEnded) or [`LeaseLost`](ErrorKind::LeaseLost) if
    /// the changes came too late, [`Disconnected`](ErrorKind::Disconnected),
    /// [`NotAttached`](ErrorKind::NotAttached), and those of the store.
    #[doc(alias = "withSession")]
    fn with_session<F, Fut, R>(&self, handler: F) -> impl Future<Output = Result<R>> + Send
    where
        F: FnOnce(SocketContext<A>) -> Fut + Send,
        Fut: Future<Output = R> + Send,
        R: Send;

    /// [`with_session`](Self::with_session) with a value for the case that there is no session.
    ///
    /// # Errors
    /// Those of [`with_session`](Self::with_session) but `SessionMissing`.
    fn with_session_or<F, Fut, R>(
        &self,
        missing: R,
        handler: F,
    ) -> impl Future<Output = Result<R>> + Send
    where
        F: FnOnce(SocketContext<A>) -> Fut + Send,
        Fut: Future<Output = R> + Send,
        R: Send;

    /// [`with_session`](Self::with_session) with a function, called and awaited once, for the
    /// case that there is no session.
    ///
    /// # Errors
    /// Those of [`with_session`](Self::with_session) but `SessionMissing`.
    #[doc(alias = "onMissing")]
    fn with_session_or_else<M, MFut, F, Fut, R>(
        &self,
        missing: M,
        handler: F,
    ) -> impl Future<Output = Result<R>> + Send
    where
        M: FnOnce() -> MFut + Send,
        MFut: Future<Output = R> + Send,
        F: FnOnce(SocketContext<A>) -> Fut + Send,
        Fut: Future<Output = R> + Send,
        R: Send;

    /// [`with_session`](Self::with_session) for a handler that can fail: its error means that
    /// nothing is written.
    ///
    /// # Errors
    /// The handler's own, and those of [`with_session`](Self::with_session) by `From`.
    fn try_with_session<F, Fut, R, E>(
        &self,
        handler: F,
    ) -> impl Future<Output = Result<R, E>> + Send
    where
        F: FnOnce(SocketContext<A>) -> Fut + Send,
        Fut: Future<Output = Result<R, E>> + Send,
        R: Send,
        E: From<Error> + Send;

    /// Calls `handler` with each event of the session that this socket may see, one after the
    /// other, until the socket is gone.
    ///
    /// The handler delays only itself; what it is too slow for (64 events) is dropped,
    /// logged, and counted in [`Stats::events_missed`](crate::bridge::Stats::events_missed).
    /// Use the socket that it is given: one captured from outside would keep itself in memory.
    ///
    /// # Errors
    /// [`NotAttached`](ErrorKind::NotAttached).
    fn on_session_event<F, Fut>(&self, handler: F) -> Result<()>
    where
        F: FnMut(SocketRef<A>, SessionEvent) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static;
}

impl<A: Adapter> SocketSessionExt<A> for Socket<A> {
    fn client_id(&self) -> Option<ClientId> {
        attached(self).ok().map(|attached| attached.guard.attachment().client())
    }

    fn session_id(&self) -> Option<SessionId> {
        attached(self).ok()?.guard.session().map(|known| known.session_id)
    }

    async fn with_session<F, Fut, R>(&self, handler: F) -> Result<R>
    where
        F: FnOnce(SocketContext<A>) -> Fut + Send,
        Fut: Future<Output = R> + Send,
        R: Send,
    {
        match run(self, handler, |_| true).await? {
            LeasedOutcome::Done(result) => Ok(result),
            LeasedOutcome::Missing => Err(missing()),
        }
    }

    async fn with_session_or<F, Fut, R>(&self, missing: R, handler: F) -> Result<R>
    where
        F: FnOnce(SocketContext<A>) -> Fut + Send,
        Fut: Future<Output = R> + Send,
        R: Send,
    {
        match run(self, handler, |_| true).await? {
            LeasedOutcome::Done(result) => Ok(result),
            LeasedOutcome::Missing => Ok(missing),
        }
    }

    async fn with_session_or_else<M, MFut, F, Fut, R>(&self, missing: M, handler: F) -> Result<R>
    where
        M: FnOnce() -> MFut + Send,
        MFut: Future<Output = R> + Send,
        F: FnOnce(SocketContext<A>) -> Fut + Send,
        Fut: Future<Output = R> + Send,
        R: Send,
    {
        match run(self, handler, |_| true).await? {
            LeasedOutcome::Done(result) => Ok(result),
            LeasedOutcome::Missing => Ok(missing().await),
        }
    }

    async fn try_with_session<F, Fut, R, E>(&self, handler: F) -> Result<R, E>
    where
        F: FnOnce(SocketContext<A>) -> Fut + Send,
        Fut: Future<Output = Result<R, E>> + Send,
        R: Send,
        E: From<Error> + Send,
    {
        match run(self, handler, Result::is_ok).await.map_err(E::from)? {
            LeasedOutcome::Done(result) => result,
            LeasedOutcome::Missing => Err(missing().into()),
        }
    }

    fn on_session_event<F, Fut>(&self, mut handler: F) -> Result<()>
    where
        F: FnMut(SocketRef<A>, SessionEvent) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let Attached { guard, sink } = attached(self)?;
        guard.listen(move |event| {
            let call = sink.socket().map(|socket| handler(socket, event));
            async {
                if let Some(call) = call {
                    call.await;
                }
            }
        });
        Ok(())
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::SessionMissing, "Session is missing for this socket")
}

fn attached<A: Adapter>(socket: &Socket<A>) -> Result<Attached<A>> {
    if let Some(attached) = socket.extensions.get::<Attached<A>>() {
        return Ok(attached);
    }
    let advice = match socket.req_parts().extensions.get::<Handshake>() {
        Some(_) => "give its namespace the middleware: `io.ns(path, handler.with(attach))`",
        None => "put `bridge.layer()` outside the Socket.IO layer, or use `bridge_session`",
    };
    Err(Error::new(ErrorKind::NotAttached, advice))
}

async fn run<A, F, Fut>(
    socket: &Socket<A>,
    handler: F,
    keep: impl FnOnce(&Fut::Output) -> bool + Send,
) -> Result<LeasedOutcome<Fut::Output>>
where
    A: Adapter,
    F: FnOnce(SocketContext<A>) -> Fut + Send,
    Fut: Future + Send,
    Fut::Output: Send,
{
    let Attached { guard, sink } = attached(socket)?;
    let Some(socket) = sink.socket() else {
        return Err(Error::new(ErrorKind::Disconnected, "it has left its namespace"));
    };
    let request = LeaseRequest::Socket(guard.attachment());
    let handler = |context: SessionContext| handler(SocketContext { context, socket });
    run_leased(guard.core(), request, handler, keep).await
}

/// A socket's client and session as they are at the time of extraction: for connect, message and
/// disconnect handlers.
///
/// Both are `None` on a socket that is not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientSession {
    /// See [`SocketSessionExt::client_id`].
    pub client_id: Option<ClientId>,
    /// See [`SocketSessionExt::session_id`].
    pub session_id: Option<SessionId>,
}

impl ClientSession {
    fn of<A: Adapter>(socket: &Socket<A>) -> Self {
        Self { client_id: socket.client_id(), session_id: socket.session_id() }
    }
}

impl<A: Adapter> FromConnectParts<A> for ClientSession {
    type Error = std::convert::Infallible;

    fn from_connect_parts(
        socket: &Arc<Socket<A>>,
        _: &Option<Value>,
    ) -> std::result::Result<Self, Self::Error> {
        Ok(Self::of(socket))
    }
}

impl<A: Adapter> FromMessageParts<A> for ClientSession {
    type Error = std::convert::Infallible;

    fn from_message_parts(
        socket: &Arc<Socket<A>>,
        _: &mut Value,
        _: &Option<i64>,
    ) -> std::result::Result<Self, Self::Error> {
        Ok(Self::of(socket))
    }
}

impl<A: Adapter> FromDisconnectParts<A> for ClientSession {
    type Error = std::convert::Infallible;

    fn from_disconnect_parts(
        socket: &Arc<Socket<A>>,
        _: DisconnectReason,
    ) -> std::result::Result<Self, Self::Error> {
        Ok(Self::of(socket))
    }
}

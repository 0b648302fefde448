//! What a socket's `with_session` handler works with.

use std::fmt;
use std::ops::Deref;

use socketioxide::adapter::{Adapter, LocalAdapter};
use socketioxide::extract::SocketRef;
use socketioxide::socket::Socket;

use crate::bridge::SessionContext;

/// A [`SessionContext`] that knows its socket.
///
/// It lends the socket instead of owning it: what a handler keeps must not keep the socket.
#[derive(Clone)]
pub struct SocketContext<A: Adapter = LocalAdapter> {
    pub(super) context: SessionContext,
    pub(super) socket: SocketRef<A>,
}

impl<A: Adapter> SocketContext<A> {
    /// The socket that called `with_session`.
    pub fn socket(&self) -> &Socket<A> {
        &self.socket
    }
}

impl<A: Adapter> Deref for SocketContext<A> {
    type Target = SessionContext;
    fn deref(&self) -> &SessionContext {
        &self.context
    }
}

impl<A: Adapter> fmt::Debug for SocketContext<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.context.fmt(f)
    }
}

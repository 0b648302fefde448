//! A socket as the bridge reaches it.

use std::borrow::Cow;

use serde_json::Value;
use socketioxide::adapter::Adapter;
use socketioxide::extract::SocketRef;
use socketioxide::socket::Sid;
use socketioxide::{SendError, SocketError, SocketIo};

use crate::bridge::{SinkError, SocketSink};

/// Finds the socket anew at each use: a `SocketRef` kept here would keep the socket, which keeps
/// its attachment, which keeps this.
pub(super) struct Sink<A: Adapter> {
    io: SocketIo<A>,
    namespace: String,
    id: Sid,
}

impl<A: Adapter> Clone for Sink<A> {
    fn clone(&self) -> Self {
        Self { io: self.io.clone(), namespace: self.namespace.clone(), id: self.id }
    }
}

impl<A: Adapter> Sink<A> {
    pub(super) fn new(io: SocketIo<A>, socket: &SocketRef<A>) -> Self {
        Self { io, namespace: socket.ns().to_owned(), id: socket.id }
    }

    pub(super) fn socket(&self) -> Option<SocketRef<A>> {
        self.io.of(Cow::Borrowed(self.namespace.as_str()))?.get_socket(self.id)
    }
}

impl<A: Adapter> SocketSink for Sink<A> {
    fn emit(&self, name: &str, payload: &Value) -> Result<(), SinkError> {
        let socket = self.socket().ok_or(SinkError::Closed)?;
        socket.emit(name, payload).map_err(|error| match error {
            SendError::Socket(SocketError::InternalChannelFull) => SinkError::Full,
            _ => SinkError::Closed,
        })
    }

    fn is_open(&self) -> bool {
        self.socket().is_some_and(|socket| socket.connected())
    }

    fn disconnect(&self) -> bool {
        match self.socket() {
            Some(socket) => !matches!(socket.disconnect(), Err(SocketError::InternalChannelFull)),
            None => true,
        }
    }
}

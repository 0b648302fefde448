//! The connect middleware.

use std::fmt;
use std::sync::Arc;

use socketioxide::SocketIo;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{MaybeHttpExtension, SocketRef};
use tokio::time::Instant;

use super::sink::Sink;
use crate::backend::Loaded;
use crate::bridge::{Attachment, AttachmentGuard, Handshake, SessionBridge, Watch};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, SessionId};

/// Ties a socket to its attachment for as long as the socket lives.
pub(super) struct Attached<A: Adapter> {
    pub(super) guard: Arc<AttachmentGuard>,
    pub(super) sink: Sink<A>,
}

// Derived it would ask for a clone of the adapter.
impl<A: Adapter> Clone for Attached<A> {
    fn clone(&self) -> Self {
        Self { guard: self.guard.clone(), sink: self.sink.clone() }
    }
}

/// Sessions can't be looked up now; the client sees it as `connect_error` and may try again.
#[derive(Debug)]
pub struct AttachError(());

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Goes to the browser as it is.
        f.write_str("session unavailable")
    }
}

impl std::error::Error for AttachError {}

/// Connect middleware that attaches a socket to its client and session:
/// `io.ns("/", handler.with(attach))`.
///
/// It looks at the session cookie of the handshake, at each CONNECT, so that it also holds
/// for a client that leaves a namespace and comes back on the same connection. Without it, or
/// for a handshake that did not pass the session layer, the socket connects without an
/// attachment.
///
/// # Errors
/// Rejects the connection if the store can't be read, whatever
/// [`when_unavailable`](crate::bridge::SessionBridgeBuilder::when_unavailable) says: a socket would
/// stay without its session for as long as it lives. Clients see `connect_error`, and have to call
/// `socket.connect()` again: Socket.IO's own client does not after a rejection.
pub async fn attach<A: Adapter>(
    socket: SocketRef<A>,
    io: SocketIo<A>,
    MaybeHttpExtension(handshake): MaybeHttpExtension<Handshake>,
) -> std::result::Result<(), AttachError> {
    let Some(handshake) = handshake else {
        tracing::error!(
            "a socket's handshake did not pass the session layer; put `bridge.layer()` outside the Socket.IO layer, or use `bridge_session`"
        );
        return Ok(());
    };
    if let Some(engine) = &handshake.engine {
        engine.named(socket.id.as_str());
        engine.connected();
    }
    let sink = Sink::new(io, &socket);
    let guard = attached(&handshake, sink.clone()).await.map_err(|error| {
        match error.kind() {
            ErrorKind::SessionEnded => tracing::debug!(%error, "a socket was rejected"),
            _ => {
                tracing::error!(%error, "a socket was rejected: its session could not be looked up");
            }
        }
        AttachError(())
    })?;
    sink.attached();
    socket.extensions.insert(Attached { guard: Arc::new(guard), sink });
    Ok(())
}

/// Tries of a socket whose session ends each time while it comes.
const TRIES: usize = 4;

async fn attached<A: Adapter>(handshake: &Handshake, sink: Sink<A>) -> Result<AttachmentGuard> {
    let bridge = handshake.bridge();
    for _ in 0..TRIES {
        let since = Instant::now();
        let (watch, paired) = watched(bridge, &handshake.presented, handshake.client).await?;
        let pairing = bridge.options().socket_pairing;
        let (client, session) = (watch.client(), watch.session());
        let socket = Attachment::new(client, pairing, session, paired, since, sink.clone());
        if let Some(guard) = watch.attach(socket) {
            return Ok(guard);
        }
    }
    Err(Error::new(ErrorKind::SessionEnded, "its sessions ended faster than the socket came"))
}

/// Watches the client of the first presented session that lives, or else the one of the client
/// cookie; and whether the session that it has is the presented one. A cookie from before a
/// rotation does not pair, not even a moment after it: to be worthless from then on is what an id
/// is rotated for.
async fn watched<'a>(
    bridge: &'a SessionBridge,
    presented: &[SessionId],
    client: ClientId,
) -> Result<(Watch<'a>, bool)> {
    let own = bridge.watch(client).await?;
    let Some(first) = presented.first() else { return Ok((own, false)) };
    if own.opens_by(first) {
        return Ok((own, true));
    }
    // Another cookie's, another client's, or one that the store can't find by its client.
    bridge.counters().loads.add(1);
    if let Loaded::Found(record) = bridge.backend().load(presented, Some(&client)).await? {
        let opened = |watch: &Watch<'_>| presented.iter().any(|id| watch.opens_by(id));
        if record.client_id == client && opened(&own) {
            return Ok((own, true));
        }
        let found = bridge.watch(record.client_id).await?;
        if opened(&found) {
            return Ok((found, true));
        }
    }
    Ok((own, false))
}

//! The connect middleware.

use std::fmt;
use std::sync::Arc;

use socketioxide::SocketIo;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{MaybeHttpExtension, SocketRef};
use tokio::time::Instant;

use super::sink::Sink;
use crate::backend::Loaded;
use crate::bridge::{
    Attachment, AttachmentGuard, Handshake, Pairing, SessionBridge, SocketPairing,
};
use crate::error::Result;
use crate::session::{ClientId, Generation, SessionId};

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
/// It looks at the session cookie of the handshake, at each CONNECT anew, so that it also holds
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
    let sink = Sink::new(io, &socket);
    let guard = attached(&handshake, sink.clone()).await.map_err(|error| {
        tracing::error!(%error, "a socket was rejected: its session could not be looked up");
        AttachError(())
    })?;
    socket.extensions.insert(Attached { guard: Arc::new(guard), sink });
    Ok(())
}

async fn attached<A: Adapter>(handshake: &Handshake, sink: Sink<A>) -> Result<AttachmentGuard> {
    let bridge = handshake.bridge();
    let since = Instant::now();
    let (watch, paired) = watched(bridge, handshake.presented.as_ref(), handshake.client).await?;
    let session = watch.session;
    let (pairing, session) = match bridge.options().socket_pairing {
        SocketPairing::Session if !paired => {
            (Pairing::Later { than: session.map(|(generation, _)| generation), since }, None)
        }
        _ => (Pairing::Any, session),
    };
    let guard = bridge.attach_socket(Attachment::new(watch.client, pairing, session, sink));
    watch.pass_on();
    Ok(guard)
}

/// Watches the client of the presented session, or else the one of the client cookie; and whether
/// the session that it has now is the presented one. A cookie from before a rotation does not pair, not
/// even a moment after it: to be worthless from then on is what an old id is rotated for.
async fn watched<'a>(
    bridge: &'a SessionBridge,
    presented: Option<&SessionId>,
    client: ClientId,
) -> Result<(Watch<'a>, bool)> {
    let own = Watch::begin(bridge, client).await?;
    let Some(presented) = presented else { return Ok((own, false)) };
    if own.has(presented) {
        return Ok((own, true));
    }
    // Another client's, or one that the store can't find by its client.
    bridge.counters().loads.add(1);
    if let Loaded::Found(record) = bridge.backend().load(presented, Some(&client)).await? {
        let other = Watch::begin(bridge, record.client_id).await?;
        if other.has(presented) {
            return Ok((other, true));
        }
    }
    Ok((own, false))
}

/// A client that is watched, with its session as it was then: no change falls in between. The watch
/// ends with this, unless an attachment takes it over.
struct Watch<'a> {
    bridge: &'a SessionBridge,
    client: ClientId,
    session: Option<(Generation, SessionId)>,
    ends: bool,
}

impl<'a> Watch<'a> {
    async fn begin(bridge: &'a SessionBridge, client: ClientId) -> Result<Self> {
        bridge.counters().loads.add(1);
        let record = bridge.backend().watch(&client).await?;
        let session = record.map(|record| (record.generation, record.session_id));
        Ok(Self { bridge, client, session, ends: true })
    }

    fn has(&self, session: &SessionId) -> bool {
        self.session.is_some_and(|(_, id)| id == *session)
    }

    fn pass_on(mut self) {
        self.ends = false;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.ends {
            self.bridge.backend().unwatch(&self.client);
        }
    }
}

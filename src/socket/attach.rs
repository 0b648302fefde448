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
    let (client, paired) = match handshake.presented {
        Some(session) => paired(bridge, &session, handshake.client).await?,
        None => (handshake.client, None),
    };
    // Before the session is looked at, so that no change falls in between.
    bridge.backend().watch(&client).await?;
    let watch = Unwatch { bridge, client: Some(client) };
    let (pairing, session) = match paired {
        Some(session) => (Pairing::Any, Some(session)),
        None => {
            let present = present(bridge, &client).await?;
            match bridge.options().socket_pairing {
                SocketPairing::ClientOnly => (Pairing::Any, present),
                SocketPairing::Session => (
                    Pairing::Later { than: present.map(|(generation, _)| generation), since },
                    None,
                ),
            }
        }
    };
    let guard = bridge.attach_socket(Attachment::new(client, pairing, session, sink));
    watch.pass_on();
    Ok(guard)
}

/// The client of the presented session; and the session, if the socket is paired with it. A
/// cookie from before a rotation does not pair, not even a moment after it: to be worthless from then on is
/// what an old id is rotated for.
async fn paired(
    bridge: &SessionBridge,
    session: &SessionId,
    client: ClientId,
) -> Result<(ClientId, Option<(Generation, SessionId)>)> {
    bridge.counters().loads.add(1);
    Ok(match bridge.backend().load(session, Some(&client)).await? {
        Loaded::Found(record) => (record.client_id, Some((record.generation, record.session_id))),
        Loaded::Missing { .. } => (client, None),
    })
}

/// The session that the client has now.
async fn present(
    bridge: &SessionBridge,
    client: &ClientId,
) -> Result<Option<(Generation, SessionId)>> {
    let known = || {
        let known = bridge.backend().known_session(client);
        known.map(|known| (known.generation, known.session_id))
    };
    if let Some(known) = known() {
        return Ok(Some(known));
    }
    // A stored one that this process does not know yet is attached by being asked for.
    bridge.backend().session_of(client).await?;
    Ok(known())
}

/// Ends a watch unless an attachment took it over.
struct Unwatch<'a> {
    bridge: &'a SessionBridge,
    client: Option<ClientId>,
}

impl Unwatch<'_> {
    fn pass_on(mut self) {
        self.client = None;
    }
}

impl Drop for Unwatch<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.bridge.backend().unwatch(&client);
        }
    }
}

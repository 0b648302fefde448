//! Connections of a session that are not Socket.IO's: streams, plain WebSockets, and handlers that
//! want to know when their session ends. To the bridge each is an attachment whose sink is a signal.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attach::AttachmentGuard;
use super::attachment::{Attachment, Message, SinkError, SocketSink};
use super::core::Core;
use super::watch::Watch;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, DestroyReason, Generation, SessionDestroy, SessionEnd, SessionId};

/// Tries of a connection whose client gets and loses sessions while it comes.
const TRIES: usize = 4;

/// What a request sees: its client, and the session that its cookie opened or that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) client: ClientId,
    pub(crate) session: Option<(Generation, SessionId)>,
}

/// What the bridge says to a connection.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    first: OnceLock<SessionEnd>,
    /// A connection that stays may see several sessions end.
    last: Mutex<Option<SessionEnd>>,
    ended: CancellationToken,
    closed: CancellationToken,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, Option<SessionEnd>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, end: &SessionEnd) {
        *self.lock() = Some(end.clone());
        self.first.get_or_init(|| end.clone());
        self.ended.cancel();
    }

    /// Why it is to be closed.
    #[cfg(feature = "ws")]
    pub(crate) fn last(&self) -> SessionEnd {
        self.lock().clone().unwrap_or(SessionEnd::Shutdown)
    }

    /// Waits for the first end of a session, or a shutdown. Cancel safe.
    pub(crate) async fn ended(&self) -> SessionEnd {
        self.ended.cancelled().await;
        self.first.get().cloned().unwrap_or(SessionEnd::Shutdown)
    }

    /// Cancelled once the connection is to be closed: as `on_destroy` and `on_rotate` say, or at a
    /// shutdown.
    #[cfg(feature = "ws")]
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}

impl SocketSink for Arc<Signal> {
    fn emit(&self, _: &Message) -> Result<(), SinkError> {
        Err(SinkError::Mute)
    }

    fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }

    fn disconnect(&self) -> bool {
        self.closed.cancel();
        true
    }

    fn end(&self, end: &SessionDestroy) {
        self.set(&SessionEnd::Ended(end.clone()));
    }

    fn shut_down(&self) {
        self.set(&SessionEnd::Shutdown);
        self.closed.cancel();
    }
}

/// A connection of a session; dropping it detaches it.
pub(crate) struct Connection {
    seen: Seen,
    signal: Arc<Signal>,
    /// None if the session had ended before.
    guard: Option<AttachmentGuard>,
}

impl Connection {
    /// What it was attached to.
    pub(crate) fn seen(&self) -> Seen {
        self.seen
    }

    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    #[cfg(feature = "ws")]
    pub(crate) fn guard(&self) -> Option<&AttachmentGuard> {
        self.guard.as_ref()
    }

    /// The session that it may see now.
    pub(crate) fn session_id(&self) -> Option<SessionId> {
        self.guard.as_ref()?.session().map(|known| known.session_id)
    }
}

/// Attaches a connection to what its request sees. A request whose session is not its client's any more
/// gets a connection that has ended.
pub(super) async fn connect(core: &Arc<Core>, seen: Seen) -> Result<Connection> {
    let signal: Arc<Signal> = Arc::default();
    for _ in 0..TRIES {
        let since = Instant::now();
        let watch = Watch::begin(core, seen.client).await?;
        let (now, pairing) = (watch.session(), core.options.socket_pairing);
        let is_seen = |(session, _)| now.is_some_and(|(now, _)| now == session);
        if seen.session.is_none_or(is_seen) {
            let paired = seen.session.is_some();
            let sink = signal.clone();
            let attachment = Attachment::new(seen.client, pairing, now, paired, since, sink);
            if let Some(guard) = watch.attach(attachment) {
                return Ok(Connection { seen, signal, guard: Some(guard) });
            }
        }
        if let Some((_, id)) = seen.session {
            // Its event has passed, or is about to.
            let node = core.backend.node().clone();
            let end = SessionDestroy::new(seen.client, id, DestroyReason::Reconciled, node);
            signal.set(&SessionEnd::Ended(end));
            signal.closed.cancel();
            return Ok(Connection { seen, signal, guard: None });
        }
    }
    Err(Error::new(ErrorKind::SessionEnded, "its sessions ended faster than the connection came"))
}

/// Ends all connections that are not Socket.IO's, and those that come from now on.
pub(super) fn close_all(core: &Core) {
    // First: what attaches afterwards sees it, and what attached before is in the table.
    core.leaving.cancel();
    for socket in core.sockets.all() {
        socket.sink().shut_down();
    }
}

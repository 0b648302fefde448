//! Which sockets belong to which client, and which of its sessions each may see.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::handle::SessionBridge;
use super::options::SocketPairing;
use crate::backend::SessionSnapshot;
use crate::session::{ClientId, Generation, SessionEvent, SessionId};

/// Clocks that stamp records count milliseconds, ours does not.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// How long the announcement of a change may be on its way to a node that reads the change at once.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// Events that a socket's own handler may fall behind.
const LISTENER_QUEUE: usize = 64;

/// A way to a socket's client that keeps no socket alive.
pub(crate) trait SocketSink: Send + Sync + 'static {
    /// Sends a message.
    fn emit(&self, name: &str, payload: &Value) -> Result<(), SinkError>;
    /// Whether the socket still is there.
    fn is_open(&self) -> bool;
    /// Disconnects it; `false` if that has to be tried again.
    fn disconnect(&self) -> bool;
}

/// Why a message did not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkError {
    /// The socket's buffer is full.
    Full,
    /// The socket is about to be connected.
    NotYet,
    /// The socket is gone.
    Closed,
}

/// What a socket knows of its client's sessions.
#[derive(Debug)]
struct Heard {
    /// The session whose cookie its handshake carried.
    paired: Option<Generation>,
    /// The session that it was told of, and not yet the end of.
    session: Option<(Generation, SessionId)>,
    /// A session that it may not see. The event of an end does not say how old the session was.
    refused: Option<Generation>,
    /// It was told of the end of its session and waits for its disconnect: it sees none any more.
    leaving: bool,
    /// What it began with, and when. Not kept up to date, and not for ever: a failover may bring
    /// versions back that were told before.
    seen: Option<(Generation, u64, Instant)>,
}

/// A socket of a client.
pub(crate) struct Attachment {
    id: u64,
    client: ClientId,
    pairing: SocketPairing,
    /// The session that was there, but whose cookie the handshake did not carry.
    than: Option<Generation>,
    /// When it came: open sessions that were there before are not seen without their cookie.
    since: Instant,
    heard: Mutex<Heard>,
    sink: Box<dyn SocketSink>,
    listeners: Mutex<Vec<mpsc::Sender<SessionEvent>>>,
}

impl Attachment {
    /// `session` is the one that its client has, and `paired` whether the handshake carried its
    /// cookie.
    pub(crate) fn new(
        client: ClientId,
        pairing: SocketPairing,
        session: Option<(Generation, SessionId)>,
        paired: bool,
        since: Instant,
        sink: impl SocketSink,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let generation = session.map(|(generation, _)| generation);
        let sees = paired || pairing == SocketPairing::ClientOnly;
        let heard = Heard {
            paired: generation.filter(|_| paired),
            session: session.filter(|_| sees),
            refused: None,
            leaving: false,
            seen: None,
        };
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            client,
            pairing,
            than: generation.filter(|_| !paired),
            since,
            heard: Mutex::new(heard),
            sink: Box::new(sink),
            listeners: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    pub(crate) fn sink(&self) -> &dyn SocketSink {
        &*self.sink
    }

    /// Whether the socket may see this session of its client.
    pub(crate) fn admits(
        &self,
        generation: Generation,
        sealed: bool,
        created: Option<Instant>,
    ) -> bool {
        let mut heard = self.heard();
        if heard.leaving {
            return false;
        }
        if self.pairing == SocketPairing::ClientOnly {
            return true;
        }
        if heard.paired == Some(generation) {
            return true;
        }
        // Whoever has the client cookie sees an open session that begins later, and nothing else.
        if sealed || self.pairing == SocketPairing::Strict || self.than == Some(generation) {
            return false;
        }
        match created {
            Some(created) if created + CLOCK_SLACK < self.since => {
                heard.refused = Some(generation);
                false
            }
            Some(_) => true,
            None => heard.refused != Some(generation),
        }
    }

    pub(crate) fn admits_known(&self, known: &SessionSnapshot) -> bool {
        self.admits(known.generation, known.sealed, Some(known.created))
    }

    /// From now on the socket sees no session: it is about to be disconnected.
    pub(super) fn leave(&self) {
        self.heard().leaving = true;
    }

    /// Moves a socket of this session into the sealed one that took its place; `false` if it is
    /// no socket of it.
    pub(super) fn follow(&self, from: Generation, into: Generation) -> bool {
        let mut heard = self.heard();
        let follows = heard.session.is_some_and(|(session, _)| session == from);
        if follows {
            heard.paired = Some(into);
        }
        follows
    }

    /// Whether the socket was told of this session, or began with it, and not yet of its end.
    pub(super) fn is_of(&self, generation: Option<Generation>, id: &SessionId) -> bool {
        self.heard().session.is_some_and(|(session, session_id)| match generation {
            Some(generation) => session == generation,
            None => session_id == *id,
        })
    }

    /// Notes what a socket that comes can read: changes up to here need not be told to it, although
    /// some may still be on their way to this node.
    fn begin(&self, known: &SessionSnapshot) {
        self.heard().seen = Some((known.generation, known.version, Instant::now()));
    }

    /// Whether the socket could read this change when it came.
    pub(super) fn saw(&self, generation: Generation, version: u64) -> bool {
        self.heard().seen.is_some_and(|(session, seen, came)| {
            session == generation && version <= seen && came.elapsed() < ON_ITS_WAY
        })
    }

    /// The session that the socket knows of.
    pub(super) fn session(&self) -> Option<(Generation, SessionId)> {
        self.heard().session
    }

    /// Notes what the socket is told.
    pub(super) fn hear(&self, event: &SessionEvent, generation: Option<Generation>) {
        let mut heard = self.heard();
        let ends = |ended: Generation| heard.session.is_some_and(|(now, _)| now == ended);
        match (event, generation) {
            (SessionEvent::Set(set), Some(generation)) => {
                heard.session = Some((generation, set.session_id));
            }
            (SessionEvent::Destroy(_), ended) if ended.is_none_or(ends) => heard.session = None,
            _ => {}
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue of the events that this socket may see. Ends with the attachment.
    fn listen(&self) -> mpsc::Receiver<SessionEvent> {
        let (sender, receiver) = mpsc::channel(LISTENER_QUEUE);
        self.listeners().push(sender);
        receiver
    }

    /// Hands an event to the socket's own handlers; returns how many were too slow.
    pub(super) fn hand(&self, event: &SessionEvent) -> u64 {
        let mut missed = 0;
        self.listeners().retain(|listener| match listener.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                missed += 1;
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
        missed
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<mpsc::Sender<SessionEvent>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("client", &self.client)
            .field("pairing", &self.pairing)
            .finish_non_exhaustive()
    }
}

/// All sockets of this node, by client.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    clients: Mutex<HashMap<ClientId, Vec<Arc<Attachment>>>>,
}

impl Attachments {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClientId, Vec<Arc<Attachment>>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, attachment: Arc<Attachment>) {
        self.lock().entry(attachment.client).or_default().push(attachment);
    }

    /// `false` if it was not there any more.
    fn remove(&self, client: &ClientId, id: u64) -> bool {
        let mut clients = self.lock();
        let Some(list) = clients.get_mut(client) else { return false };
        let before = list.len();
        list.retain(|attachment| attachment.id != id);
        let removed = list.len() < before;
        if list.is_empty() {
            clients.remove(client);
        }
        removed
    }

    /// The client's sockets.
    pub(super) fn of(&self, client: &ClientId) -> Vec<Arc<Attachment>> {
        self.lock().get(client).cloned().unwrap_or_default()
    }

    pub(super) fn clients(&self) -> Vec<ClientId> {
        self.lock().keys().copied().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Attachment>> {
        self.lock().values().flatten().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    pub(super) fn clear(&self) {
        // Outside the lock: dropping an attachment may run code of the socket's.
        let clients = std::mem::take(&mut *self.lock());
        drop(clients);
    }
}

/// Keeps a socket attached; dropping it detaches the socket.
#[derive(Debug)]
pub(crate) struct AttachmentGuard {
    bridge: SessionBridge,
    attachment: Arc<Attachment>,
}

impl AttachmentGuard {
    pub(crate) fn attachment(&self) -> &Arc<Attachment> {
        &self.attachment
    }

    pub(crate) fn bridge(&self) -> &SessionBridge {
        &self.bridge
    }
}

impl Drop for AttachmentGuard {
    fn drop(&mut self) {
        self.bridge.detach(&self.attachment);
    }
}

impl SessionBridge {
    /// Attaches a socket. The client has to be watched already; detaching ends that, also if this
    /// returns `None`: then the session that the socket was to begin with ended while it came, and
    /// its end may have been told before the socket could hear it.
    pub(crate) fn attach_socket(&self, attachment: Attachment) -> Option<AttachmentGuard> {
        let attachment = Arc::new(attachment);
        self.inner.attachments.add(attachment.clone());
        self.inner.counters.sockets_attached.add(1);
        let guard = AttachmentGuard { bridge: self.clone(), attachment };
        // After that, so that nothing falls in between.
        let known = self.backend().cached_session(&guard.attachment.client);
        let begun = guard.attachment.session();
        match (&known, begun) {
            (Some(known), Some((generation, _))) if known.generation == generation => {
                guard.attachment.begin(known);
            }
            (_, Some(_)) => return None,
            (Some(known), None) if guard.attachment.admits_known(known) => {
                guard.attachment.begin(known);
                guard.attachment.heard().session = Some((known.generation, known.session_id));
            }
            _ => {}
        }
        Some(guard)
    }

    /// Detaches a socket, once.
    pub(super) fn detach(&self, attachment: &Attachment) {
        if self.inner.attachments.remove(&attachment.client, attachment.id) {
            self.inner.backend.unwatch(&attachment.client);
            // Their tasks end, even if one of them keeps the socket and so the attachment.
            attachment.listeners().clear();
            self.inner.counters.sockets_detached.add(1);
        }
    }

    /// Calls `handler` with each event that the socket may see, until it is detached.
    pub(crate) fn listen<F, Fut>(&self, attachment: &Attachment, mut handler: F)
    where
        F: FnMut(SessionEvent) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut events = attachment.listen();
        let closing = self.inner.closing.clone();
        self.inner.tasks.spawn(async move {
            let work = async {
                while let Some(event) = events.recv().await {
                    let call = AssertUnwindSafe(async { handler(event).await });
                    if call.catch_unwind().await.is_err() {
                        tracing::error!("a socket's session event handler panicked");
                    }
                }
            };
            tokio::select! {
                () = work => {}
                () = closing.cancelled() => {}
            }
        });
    }

    /// Detaches sockets that are gone although something of the application's keeps them, and
    /// with them their guard, in memory.
    pub(super) fn sweep_sockets(&self) {
        for attachment in self.inner.attachments.all() {
            if !attachment.sink.is_open() {
                self.detach(&attachment);
            }
        }
    }
}

//! One socket of a client: which of its sessions it may see, and what it was notified of.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::options::SocketPairing;
use crate::backend::SessionSnapshot;
use crate::session::{ClientId, Generation, Record, SessionDestroy, SessionEvent, SessionId};

/// Clocks that stamp records count milliseconds, ours does not.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// How long an announcement of a change may take to reach a node that reads the change at once.
const ANNOUNCEMENT_DELAY: Duration = Duration::from_secs(10);

/// Events that a socket's own handler may fall behind.
const LISTENER_QUEUE: usize = 64;

/// A way to a socket's client that keeps no socket alive.
pub(crate) trait SocketSink: Send + Sync + 'static {
    /// Sends a message.
    fn emit(&self, message: &Message) -> Result<(), SinkError>;
    /// Whether the socket is still there.
    fn is_open(&self) -> bool;
    /// Disconnects it; `false` if that has to be tried again.
    fn disconnect(&self) -> bool;
    /// Closes all connections of the Socket.IO server that it belongs to. By default
    /// [`shut_down`](Self::shut_down): it belongs to none.
    fn close_server(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.shut_down();
        Box::pin(std::future::ready(()))
    }
    /// Its session has ended. Whether it is disconnected then is the policy's business.
    fn end(&self, _end: &SessionDestroy) {}
    /// The bridge leaves. Socket.IO ends its sockets itself.
    fn shut_down(&self) {}
}

/// A message for all sockets that may see one session.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) payload: Value,
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
    /// It is none that takes messages.
    Mute,
}

/// What a socket knows of its client's sessions.
#[derive(Debug)]
struct State {
    /// The session whose cookie its handshake carried.
    paired: Option<Generation>,
    /// The session that it was notified of, and not yet of its end.
    session: Option<(Generation, SessionId)>,
    /// A session that it may not see. The event of an end does not say how old the session was.
    refused: Option<Generation>,
    /// It was notified of the end of its session and waits for its disconnect: it sees none any
    /// more.
    leaving: bool,
    /// What it began with, and when. Neither kept up to date nor valid for long: a failover may
    /// bring back versions that were announced before.
    read: Option<(Generation, u64, Instant)>,
}

/// A socket of a client.
pub(crate) struct Attachment {
    id: u64,
    client: ClientId,
    pairing: SocketPairing,
    /// The session that was there, but whose cookie the handshake did not carry.
    unpaired: Option<Generation>,
    /// When it came: open sessions that were there before are not seen without their cookie.
    since: Instant,
    state: Mutex<State>,
    /// What it knows of its client's sessions has changed.
    changed: Notify,
    sink: Box<dyn SocketSink>,
    listeners: Mutex<Vec<mpsc::Sender<SessionEvent>>>,
    /// Whether `listeners` has entries: most sockets have none.
    listens: AtomicBool,
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
        let state = State {
            paired: generation.filter(|_| paired),
            session: session.filter(|_| sees),
            refused: None,
            leaving: false,
            read: None,
        };
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            client,
            pairing,
            unpaired: generation.filter(|_| !paired),
            since,
            state: Mutex::new(state),
            changed: Notify::new(),
            sink: Box::new(sink),
            listeners: Mutex::new(Vec::new()),
            listens: AtomicBool::new(false),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    pub(crate) fn sink(&self) -> &dyn SocketSink {
        &*self.sink
    }

    /// Whether the socket may see this session of its client.
    pub(crate) fn can_see(
        &self,
        generation: Generation,
        sealed: bool,
        created: Option<Instant>,
    ) -> bool {
        let mut state = self.state();
        if state.leaving {
            return false;
        }
        if self.pairing == SocketPairing::ClientOnly {
            return true;
        }
        if state.paired == Some(generation) {
            return true;
        }
        // The client cookie alone opens an open session that begins later, and nothing else.
        if sealed || self.pairing == SocketPairing::Strict || self.unpaired == Some(generation) {
            return false;
        }
        match created {
            Some(created) if created + CLOCK_SLACK < self.since => {
                state.refused = Some(generation);
                false
            }
            Some(_) => true,
            None => state.refused != Some(generation),
        }
    }

    /// [`can_see`](Self::can_see) of the session that this node knows.
    pub(crate) fn can_see_snapshot(&self, known: &SessionSnapshot) -> bool {
        self.can_see(known.generation, known.sealed, Some(known.created))
    }

    /// [`can_see`](Self::can_see) of a session that was just read.
    pub(super) fn can_see_record(&self, record: &Record) -> bool {
        let created = Instant::now().checked_sub(record.age);
        self.can_see(record.generation, record.sealed, created)
    }

    /// Waits, until `limit` at most, if the socket was notified of neither the end of its session nor
    /// this one that its client has by now; whether it has been since. Cancel safe.
    pub(super) async fn catches_up(&self, found: Generation, limit: Instant) -> bool {
        let is_behind = || {
            let state = self.state();
            let before = state.session.is_some_and(|(session, _)| session != found);
            before && !state.leaving && state.paired != Some(found)
        };
        if !is_behind() {
            return false;
        }
        let caught_up = async {
            loop {
                let changed = self.changed.notified();
                if !is_behind() {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout_at(limit, caught_up).await.is_ok()
    }

    /// From now on the socket sees no session: it is about to be disconnected.
    pub(super) fn set_leaving(&self) {
        self.state().leaving = true;
        self.changed.notify_waiters();
    }

    /// Moves a socket of this session into the sealed one that took its place.
    pub(super) fn follow(&self, from: Generation, into: Generation) {
        let mut state = self.state();
        if state.session.is_some_and(|(session, _)| session == from) {
            state.paired = Some(into);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Whether the socket was notified of this session, or began with it, and not yet of its end.
    pub(super) fn is_of(&self, generation: Option<Generation>, id: &SessionId) -> bool {
        self.state().session.is_some_and(|(session, session_id)| match generation {
            Some(generation) => session == generation,
            None => session_id == *id,
        })
    }

    /// Notes the session that a new socket begins with. It can read what the session is now, so
    /// it needs no event of a change up to here, although some may still be on their way.
    pub(super) fn begin(&self, known: &SessionSnapshot) {
        let mut state = self.state();
        state.session = Some((known.generation, known.session_id));
        state.read = Some((known.generation, known.version, Instant::now()));
    }

    /// Whether the socket could read this change when it came.
    pub(super) fn already_read(&self, generation: Generation, version: u64) -> bool {
        self.state().read.is_some_and(|(session, read, came)| {
            session == generation && version <= read && came.elapsed() < ANNOUNCEMENT_DELAY
        })
    }

    /// The session that the socket knows of.
    pub(super) fn session(&self) -> Option<(Generation, SessionId)> {
        self.state().session
    }

    /// Notes what the socket is notified of.
    pub(super) fn note(&self, event: &SessionEvent, generation: Option<Generation>) {
        let mut state = self.state();
        let ends = |ended: Generation| state.session.is_some_and(|(now, _)| now == ended);
        match (event, generation) {
            (SessionEvent::Set(set), Some(generation)) => {
                state.session = Some((generation, set.session_id));
            }
            (SessionEvent::Destroy(_), ended) if ended.is_none_or(ends) => state.session = None,
            _ => {}
        }
        drop(state);
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue of the events that this socket may see. Ends with the attachment.
    pub(super) fn listen(&self) -> mpsc::Receiver<SessionEvent> {
        let (sender, receiver) = mpsc::channel(LISTENER_QUEUE);
        self.listeners().push(sender);
        self.listens.store(true, Ordering::Release);
        receiver
    }

    /// Gives an event to the socket's own handlers; returns how many were too slow.
    pub(super) fn deliver(&self, event: &SessionEvent) -> u64 {
        if !self.listens.load(Ordering::Acquire) {
            return 0;
        }
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

    /// Ends the tasks of its handlers, even if one of them keeps the socket and so the attachment.
    pub(super) fn end_listeners(&self) {
        self.listeners().clear();
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

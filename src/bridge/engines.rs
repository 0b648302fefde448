//! Engine.IO connections: which client each belongs to, and how many have no socket yet.
//!
//! The id of an Engine.IO connection is no secret for long: it is the socket's id, which
//! applications show and log. Requests that name one have to carry the client cookie of its
//! handshake as well.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::session::ClientId;

/// A connection that lives this long has a socket, although none was attached: Socket.IO ends
/// those that have none, after 45 seconds by default.
const PENDING: Duration = Duration::from_secs(60);

/// What an Engine.IO request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineRequest<'a> {
    /// It begins a connection.
    Handshake,
    /// It belongs to the connection with this id.
    Of(&'a str),
}

/// An Engine.IO connection. Socket.IO keeps it, in the handshake's request, as long as the
/// connection lives.
#[derive(Debug)]
pub(crate) struct EngineConnection {
    number: u64,
    table: Weak<EngineConnections>,
    client: ClientId,
    /// The handshake had no client cookie, so requests that have none either may be its own:
    /// until one carries the cookie that the handshake's answer set.
    cookieless: AtomicBool,
    id: OnceLock<String>,
}

/// The Engine.IO connections of a node.
#[derive(Debug)]
pub(super) struct EngineConnections {
    limit: usize,
    state: Mutex<State>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<u64, Instant>,
    by_id: HashMap<String, Weak<EngineConnection>>,
}

impl EngineConnections {
    /// A table that admits this many connections without a socket.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), next: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.pending.len() + state.by_id.len()
    }

    /// Begins a connection, unless too many wait for their socket.
    pub(super) fn begin(
        self: &Arc<Self>,
        client: ClientId,
        cookieless: bool,
    ) -> Option<Arc<EngineConnection>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut state = self.lock();
        if state.pending.len() >= self.limit {
            state.pending.retain(|_, begun| now.duration_since(*begun) < PENDING);
        }
        if state.pending.len() >= self.limit {
            return None;
        }
        state.pending.insert(number, now);
        drop(state);
        Some(Arc::new(EngineConnection {
            number,
            table: Arc::downgrade(self),
            client,
            cookieless: AtomicBool::new(cookieless),
            id: OnceLock::new(),
        }))
    }

    /// Whether this is a connection that the layer admitted.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.lock().by_id.contains_key(id)
    }

    /// Whether a request with this client cookie may name this connection. What is not known here
    /// is Engine.IO's to refuse.
    pub(super) fn admits(&self, id: &str, client: Option<ClientId>) -> bool {
        let engine = self.lock().by_id.get(id).and_then(Weak::upgrade);
        engine.is_none_or(|engine| engine.is_of(client))
    }
}

impl EngineConnection {
    fn is_of(&self, client: Option<ClientId>) -> bool {
        match client {
            Some(client) if client == self.client => {
                self.cookieless.store(false, Ordering::Relaxed);
                true
            }
            Some(_) => false,
            None => self.cookieless.load(Ordering::Relaxed),
        }
    }

    /// Notes the connection's id: from now on requests that name it are checked.
    pub(crate) fn named(self: &Arc<Self>, id: &str) {
        if self.id.set(id.to_owned()).is_ok()
            && let Some(table) = self.table.upgrade()
        {
            table.lock().by_id.insert(id.to_owned(), Arc::downgrade(self));
        }
    }

    /// A socket was connected.
    pub(crate) fn connected(&self) {
        if let Some(table) = self.table.upgrade() {
            table.lock().pending.remove(&self.number);
        }
    }
}

impl Drop for EngineConnection {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut state = table.lock();
        state.pending.remove(&self.number);
        if let Some(id) = self.id.get() {
            state.by_id.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engines(limit: usize) -> Arc<EngineConnections> {
        Arc::new(EngineConnections::new(limit))
    }

    #[test]
    fn a_connection_is_reached_with_its_own_client_cookie_only() {
        let engines = engines(10);
        let (client, other) = (ClientId::generate(), ClientId::generate());
        let engine = engines.begin(client, false).unwrap();
        engine.named("one");
        assert!(engines.admits("one", Some(client)));
        assert!(!engines.admits("one", Some(other)) && !engines.admits("one", None));
        assert!(engines.admits("unknown", None), "Engine.IO refuses it");
        drop(engine);
        assert_eq!(engines.len(), 0);
    }

    #[test]
    fn requests_without_cookies_are_let_in_until_the_cookie_was_seen() {
        let engines = engines(10);
        let client = ClientId::generate();
        let engine = engines.begin(client, true).unwrap();
        engine.named("one");
        assert!(engines.admits("one", None));
        assert!(!engines.admits("one", Some(ClientId::generate())));
        assert!(engines.admits("one", Some(client)));
        assert!(!engines.admits("one", None), "a browser keeps its cookies");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_without_a_socket_are_limited() {
        let engines = engines(2);
        let begin = || engines.begin(ClientId::generate(), false);
        let (first, second) = (begin().unwrap(), begin().unwrap());
        assert!(begin().is_none());
        first.connected();
        let third = begin().unwrap();
        assert!(begin().is_none());
        drop(third);
        let third = begin().unwrap();
        tokio::time::advance(PENDING).await;
        assert!(begin().is_some(), "those have sockets of namespaces that attach none");
        drop((first, second, third));
        assert_eq!(engines.len(), 0);
    }
}

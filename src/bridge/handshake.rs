//! What a request's cookies say, for later use in the request or by its socket.

use std::fmt;
use std::sync::Arc;

use super::engines::EngineConnection;
use super::handle::SessionBridge;
use crate::session::{ClientId, SessionId};

/// What the session layer learned from a request's cookies: verified, but not yet looked up.
///
/// The layer puts it into the extensions of an Engine.IO request, where a socket's
/// [`attach`](crate::socket::attach) middleware finds it. It is small, because Socket.IO keeps
/// the handshake's request as long as the connection.
#[derive(Clone)]
pub struct Handshake {
    pub(crate) bridge: SessionBridge,
    pub(crate) client: ClientId,
    pub(crate) presented: Arc<[SessionId]>,
    /// Set for Engine.IO handshakes.
    pub(crate) engine: Option<Arc<EngineConnection>>,
}

impl Handshake {
    /// The client: from its cookie, or new with this very request.
    pub fn client_id(&self) -> ClientId {
        self.client
    }

    /// The ids in the session cookies that verify, at most four, in the order in which they came;
    /// whether or not there are such sessions.
    pub fn presented_sessions(&self) -> &[SessionId] {
        &self.presented
    }

    /// The bridge whose layer the request passed.
    pub fn bridge(&self) -> &SessionBridge {
        &self.bridge
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("client", &self.client)
            .field("presented", &self.presented)
            .finish_non_exhaustive()
    }
}

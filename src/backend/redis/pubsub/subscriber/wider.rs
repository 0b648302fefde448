//! What the listening connection receives of sessions that have no socket here.

use fred::prelude::*;

/// What is subscribed beside clients with sockets here.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Wider {
    /// All clients.
    pub(crate) all: bool,
    /// All ends.
    pub(crate) ends: bool,
    /// The server of a cluster where that is.
    pub(crate) home: Option<Server>,
}

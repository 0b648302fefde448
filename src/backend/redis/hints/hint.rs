//! What leads to a session, as a value that can wait to be set again.

use std::time::Duration;

use crate::session::{ClientId, SessionId};

/// What goes with a change of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hint {
    /// A pointer to a client, for so long.
    Point(SessionId, ClientId, Duration),
    /// A pointer lives on for a while only: its id is an earlier one.
    Retire(SessionId),
    /// A pointer goes.
    Drop(SessionId),
    /// When to look at a client's session.
    Look(ClientId, Duration, Only),
    /// A client needs no look any more.
    Forget(ClientId),
}

/// When an entry in the list of ends is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Only {
    Always,
    Earlier,
}

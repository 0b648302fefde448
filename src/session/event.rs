//! Session events.

use serde::Serialize;

use super::id::{ClientId, SessionId};
use super::node::NodeId;

/// A session was created, attached or changed.
///
/// | `is_new` | `is_init` | meaning |
/// |---|---|---|
/// | true | true | created now |
/// | false | true | an existing session was attached to its client: first use after a restart, or a new id (`rotate`, `renew_id`) |
/// | false | false | an attached session changed |
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionSet {
    /// The client.
    pub client_id: ClientId,
    /// Its session.
    pub session_id: SessionId,
    /// The id that the session had before it got this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_id: Option<SessionId>,
    /// This write created the record.
    pub is_new: bool,
    /// This write made the mapping between client and session.
    pub is_init: bool,
    /// The node that did it.
    pub node: NodeId,
}

impl SessionSet {
    /// An event without a previous id.
    pub fn new(
        client_id: ClientId,
        session_id: SessionId,
        is_new: bool,
        is_init: bool,
        node: NodeId,
    ) -> Self {
        Self { client_id, session_id, previous_id: None, is_new, is_init, node }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DestroyReason {
    /// A logout, or a call of the bridge.
    Destroyed,
    /// Its time was over.
    Expired,
    /// The store dropped it for lack of memory.
    Evicted,
    /// The client got another session.
    Replaced,
    /// `rotate` sealed it: its data lives on under a new id that its old cookie does not open.
    Sealed,
    /// It vanished from the store behind the bridge's back.
    External,
    /// Its record could not be read.
    Corrupt,
    /// Its end was missed and found by comparing.
    Reconciled,
}

impl DestroyReason {
    /// The lower-case word, as listeners in the browser get it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Replaced => "replaced",
            Self::Sealed => "sealed",
            Self::External => "external",
            Self::Corrupt => "corrupt",
            Self::Reconciled => "reconciled",
        }
    }
}

/// A session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionDestroy {
    /// The client.
    pub client_id: ClientId,
    /// The session that it has no more.
    pub session_id: SessionId,
    /// Why.
    pub reason: DestroyReason,
    /// The node that did it or found it.
    pub node: NodeId,
}

impl SessionDestroy {
    /// An event.
    pub fn new(
        client_id: ClientId,
        session_id: SessionId,
        reason: DestroyReason,
        node: NodeId,
    ) -> Self {
        Self { client_id, session_id, reason, node }
    }
}

/// Why a stream, a plain WebSocket or a handler's wait is over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The session ended. With [`Reconciled`](DestroyReason::Reconciled) it had ended before this
    /// node began to follow it.
    Ended(SessionDestroy),
    /// This node shuts down: the session lives on, and another node has it.
    Shutdown,
}

impl SessionEnd {
    /// The lower-case word of the reason, or `shutdown`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ended(end) => end.reason.as_str(),
            Self::Shutdown => "shutdown",
        }
    }
}

/// A cleanup removed expired sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Cleanup {
    /// How many it removed.
    pub cleared: u64,
    /// The node that ran it.
    pub node: NodeId,
}

impl Cleanup {
    /// An event.
    pub fn new(cleared: u64, node: NodeId) -> Self {
        Self { cleared, node }
    }
}

/// This node may have missed events of other nodes: it lost its connection to where sessions live,
/// or fell behind. The sessions of its own sockets are compared and what was missed is published as
/// [`Reconciled`](DestroyReason::Reconciled); about others nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Gap {
    /// This node.
    pub node: NodeId,
}

impl Gap {
    /// An event.
    pub fn new(node: NodeId) -> Self {
        Self { node }
    }
}

/// What [`events`](crate::SessionBridge::events) yields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
#[non_exhaustive]
pub enum SessionEvent {
    /// A session was created, attached or changed.
    #[serde(rename = "sessionSet")]
    Set(SessionSet),
    /// A session ended.
    #[serde(rename = "sessionDestroy")]
    Destroy(SessionDestroy),
    /// A cleanup ran.
    Cleanup(Cleanup),
    /// Something may have been missed.
    Gap(Gap),
}

impl SessionEvent {
    /// The client concerned, if it concerns one.
    pub fn client_id(&self) -> Option<&ClientId> {
        match self {
            Self::Set(event) => Some(&event.client_id),
            Self::Destroy(event) => Some(&event.client_id),
            Self::Cleanup(_) | Self::Gap(_) => None,
        }
    }

    /// The session concerned, if it concerns one.
    pub fn session_id(&self) -> Option<&SessionId> {
        match self {
            Self::Set(event) => Some(&event.session_id),
            Self::Destroy(event) => Some(&event.session_id),
            Self::Cleanup(_) | Self::Gap(_) => None,
        }
    }

    /// The node that caused or found it.
    pub fn node(&self) -> &NodeId {
        match self {
            Self::Set(event) => &event.node,
            Self::Destroy(event) => &event.node,
            Self::Cleanup(event) => &event.node,
            Self::Gap(event) => &event.node,
        }
    }
}

//! Arguments and results of a backend's operations.

use std::fmt;
use std::time::Duration;

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::session::{
    ClientId, DestroyReason, Generation, Lifetime, MaxAge, NodeId, Record, SessionData,
    SessionEvent, SessionId,
};

/// Proof that a lease was granted: a different one each time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken(u128);

impl LeaseToken {
    /// A new token.
    pub fn random() -> Self {
        let mut raw = [0u8; 16];
        rand::rng().fill_bytes(&mut raw);
        Self(u128::from_le_bytes(raw))
    }
}

#[cfg(feature = "redis")]
impl LeaseToken {
    /// As text, for a store's use.
    pub(crate) fn text(self) -> String {
        format!("{:032x}", self.0)
    }
}

impl fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseToken({:06x}..)", self.0 >> 104)
    }
}

/// The result of [`load`](super::Backend::load).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Loaded {
    /// The live session.
    Found(Record),
    /// No live session has this id.
    Missing {
        /// The hinted client has another live session: its cookie is just out of date (a
        /// rotation or a new login in a parallel request) and must not be cleared.
        superseded: bool,
    },
}

/// What [`create`](super::Backend::create) is to create.
#[derive(Debug, Clone)]
pub struct Create {
    /// For whom.
    pub client: ClientId,
    /// The first data.
    pub data: SessionData,
    /// The session's own max age.
    pub max_age: MaxAge,
    /// How long ago the creating request began to look at the client's session. A session older
    /// than this (and a small grace) was there before and is replaced, a younger one is joined.
    pub since: Duration,
}

/// A creator joins a session that is at most this much older than its own request.
const JOIN_GRACE: Duration = Duration::from_secs(5);
/// However long a request runs, it joins no session older than this (and the grace).
const JOIN_LIMIT: Duration = Duration::from_secs(60);

impl Create {
    /// Whether a session of this age may come from a request that ran beside one that began
    /// `since` ago, so that both create one session.
    ///
    /// The request's time counts up to 60 seconds, and 5 seconds of grace are added: a browser's
    /// first requests need not begin in the same moment.
    pub fn joins(age: Duration, since: Duration) -> bool {
        age <= Self::joins_up_to(since)
    }

    /// The greatest age that [`joins`](Self::joins) allows.
    pub fn joins_up_to(since: Duration) -> Duration {
        since.min(JOIN_LIMIT) + JOIN_GRACE
    }
}

/// The result of [`create`](super::Backend::create).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Created {
    /// The new session.
    New(Record),
    /// Somebody created one at the same moment: merge into it by a commit.
    Exists(Record),
}

/// A write.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Whose session.
    pub client: ClientId,
    /// Which of its sessions: any other has ended this one.
    pub generation: Generation,
    /// The version that the caller read. `None` overwrites whatever is there.
    pub version: Option<u64>,
    /// The new data.
    pub data: SessionData,
    /// The session's own max age from now on.
    pub max_age: MaxAge,
    /// The lease that the caller holds. With one, the write is refused once the lease is lost.
    pub lease: Option<LeaseToken>,
    /// Give the lease back in the same step, if the write is done. Every other result leaves it
    /// to the caller.
    pub release: bool,
    /// Give the session a new id; the old one is dead with this very write.
    pub rotate: bool,
}

/// The result of [`commit`](super::Backend::commit).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Committed {
    /// Written; the record as it is now.
    Done(Record),
    /// Not written: somebody wrote before. The newest record.
    Conflict(Record),
    /// Not written: the session has ended.
    Ended,
    /// Not written: the lease is lost.
    LeaseLost,
}

/// Which session [`destroy`](super::Backend::destroy) ends.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Target {
    /// The session with this id.
    Session(SessionId),
    /// The client's session, whichever it is.
    Client(ClientId),
    /// The client's session if it still is this one.
    Generation(ClientId, Generation),
    /// The same, by the holder of the client's lease: refused as
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) once the lease is lost.
    Leased(ClientId, Generation, LeaseToken),
}

/// A granted lease.
#[derive(Debug, Clone)]
pub struct Acquired {
    /// Proof for renewal, commit and release.
    pub lease: LeaseToken,
    /// How long it lasts unless renewed.
    pub length: Duration,
    /// The client's live session.
    pub record: Option<Record>,
}

/// A client's session as a node knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub session_id: SessionId,
    /// Its birth mark.
    pub generation: Generation,
    /// When it was created, on this node's clock.
    pub created: Instant,
    /// Its version, as far as this node knows.
    pub version: u64,
}

/// What every backend has to know of its bridge.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackendConfig {
    /// The node that events name. Default: a random one.
    pub node: NodeId,
    /// How long sessions live. Default: 30 days since the last write.
    pub lifetime: Lifetime,
    /// Length of a lease unless it is renewed. Default: 10 seconds.
    pub lease: Duration,
    /// How many callers may wait for one client's lease. Default: 1024.
    pub lease_queue_limit: usize,
    /// Bytes of a session's JSON. Default: 1 MiB.
    pub max_payload: usize,
    /// Events that a slow subscriber may fall behind. Default: 4096.
    pub event_capacity: usize,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            node: NodeId::random(),
            lifetime: Lifetime::new(Duration::from_secs(30 * 24 * 60 * 60)),
            lease: Duration::from_secs(10),
            lease_queue_limit: 1024,
            max_payload: 1024 * 1024,
            event_capacity: 4096,
        }
    }
}

/// An event with what the bridge needs to route it.
#[derive(Debug, Clone)]
pub struct BackendEvent {
    /// What is told.
    pub event: SessionEvent,
    /// The birth mark of the session concerned.
    pub generation: Option<Generation>,
    /// The version that the session has by this change. `None` for what is no change of it: an end,
    /// a notice of a change made elsewhere, the first use after a restart.
    pub version: Option<u64>,
}

impl BackendEvent {
    /// Why a session ended, if this tells an end.
    pub fn destroy_reason(&self) -> Option<DestroyReason> {
        match &self.event {
            SessionEvent::Destroy(event) => Some(event.reason),
            _ => None,
        }
    }
}

/// What a node says of itself to the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeFigures {
    /// Seconds since its bridge was built.
    pub uptime_seconds: u64,
    /// Sockets that are attached now.
    pub sockets: u64,
    /// HTTP requests that passed its layer.
    pub requests: u64,
    /// Sessions that it created.
    pub created: u64,
    /// Writes that it made.
    pub commits: u64,
    /// Leases that it was granted.
    pub leases: u64,
    /// Events that it told its listeners.
    pub events: u64,
    /// The version of this crate that it runs.
    pub version: String,
}

/// A node that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its name.
    pub node: NodeId,
    /// What it said last.
    pub figures: NodeFigures,
    /// How long ago that was.
    #[serde(rename = "seenMs", serialize_with = "as_millis")]
    pub seen: Duration,
}

impl NodeInfo {
    /// A node that said this so long ago.
    pub fn new(node: NodeId, figures: NodeFigures, seen: Duration) -> Self {
        Self { node, figures, seen }
    }
}

fn as_millis<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

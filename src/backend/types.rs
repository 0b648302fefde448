//! Arguments and results of a backend's operations.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::session::{
    ClientId, DestroyReason, Generation, Lifetime, MaxAge, NodeId, Record, SessionData,
    SessionDestroy, SessionEvent, SessionId, SessionSet,
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
        self.to_string()
    }
}

/// 32 hexadecimal digits, for the place that keeps leases. Whoever knows a token can use its lease:
/// it belongs in no log.
impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is no lease token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidToken(());

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a lease token: expected 32 lower-case hexadecimal digits")
    }
}

impl std::error::Error for InvalidToken {}

/// Reads what `Display` writes, and nothing else.
impl FromStr for LeaseToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidToken> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match u128::from_str_radix(text, 16) {
            Ok(token) if canonical && text.len() == 32 => Ok(Self(token)),
            _ => Err(InvalidToken(())),
        }
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
    /// No live session is opened by any of the ids.
    Missing {
        /// One of the ids is an earlier id of a session that lives on under another one: the
        /// cookie is late. Its holder must neither read, change nor end that session.
        superseded: bool,
    },
}

/// What [`create`](super::Backend::create) is to create.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Create {
    /// For whom.
    pub client: ClientId,
    /// The first data.
    pub data: SessionData,
    /// The session's own max age.
    pub max_age: MaxAge,
    /// Create a sealed session.
    pub sealed: bool,
    /// An open session of the client that is at most this old may be joined instead: the
    /// client's first requests run side by side. Zero: none is.
    pub join: Duration,
    /// The age that the session begins with: zero, unless it takes over what another one was.
    pub age: Duration,
}

impl Create {
    /// A create of an open session that joins none.
    pub fn new(client: ClientId, data: SessionData) -> Self {
        Self {
            client,
            data,
            max_age: MaxAge::Default,
            sealed: false,
            join: Duration::ZERO,
            age: Duration::ZERO,
        }
    }

    /// Whether this live session of the client may be joined.
    pub fn joins(&self, existing: &Record) -> bool {
        !self.sealed && existing.is_joinable(self.join)
    }

    /// The session that this creates, with new ids.
    ///
    /// # Errors
    /// [`SessionEnded`](crate::ErrorKind::SessionEnded) if its whole life is over already, those of
    /// [`MaxAge::validate`] and of [`SessionData::encode`].
    pub fn record(self, config: &BackendConfig) -> Result<Record> {
        let ttl = config.lifetime.ttl(self.max_age.validate()?, self.sealed, self.age);
        if ttl.is_zero() {
            return Err(Error::ended());
        }
        self.data.encode(config.max_payload)?;
        Ok(Record {
            sealed: self.sealed,
            data: self.data,
            max_age: self.max_age,
            age: self.age,
            ..Record::new(SessionId::generate(), self.client, Generation::random(), ttl)
        })
    }
}

/// The result of [`create`](super::Backend::create).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Created {
    /// The new session.
    New(Record),
    /// Another request created one at the same moment, and it may be joined: merge into it by a
    /// commit.
    Exists(Record),
    /// Nothing was created: the client has a live session that may not be joined. The creator
    /// needs a client of its own.
    Occupied,
}

/// A write.
#[derive(Debug, Clone)]
#[non_exhaustive]
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
    /// Give the session a new id in the same step.
    pub new_id: Option<NewId>,
}

impl Commit {
    /// A write of this data to the session as it was read. It changes neither the max age nor the
    /// id, and goes without a lease.
    pub fn new(read: &Record, data: SessionData) -> Self {
        Self {
            client: read.client_id,
            generation: read.generation,
            version: Some(read.version),
            data,
            max_age: read.max_age,
            lease: None,
            release: false,
            new_id: None,
        }
    }

    /// What this makes of the client's live session. The lease is not checked.
    ///
    /// # Errors
    /// Those of [`MaxAge::validate`] and of [`SessionData::encode`].
    pub fn revise(&self, live: &Record, config: &BackendConfig) -> Result<Revision> {
        if live.generation != self.generation {
            return Ok(Revision::Ended);
        }
        if self.version.is_some_and(|version| version != live.version) {
            return Ok(Revision::Conflict);
        }
        let new_id = self.new_id.filter(|new_id| match new_id {
            NewId::Renew { from } => live.session_id == *from,
            NewId::Seal => true,
        });
        let seals = new_id == Some(NewId::Seal);
        let sealed = live.sealed || seals;
        let ttl = config.lifetime.ttl(self.max_age.validate()?, sealed, live.age);
        if ttl.is_zero() {
            return Ok(Revision::Expired);
        }
        self.data.encode(config.max_payload)?;
        let mut record = Record {
            sealed,
            version: live.version + 1,
            data: self.data.clone(),
            max_age: self.max_age,
            ttl,
            remaining: ttl,
            ..live.clone()
        };
        if new_id.is_some() {
            let overlap = if seals { Duration::ZERO } else { config.renew_overlap };
            record.previous = live.previous_after(overlap);
            record.session_id = SessionId::generate();
        }
        if seals {
            record.generation = Generation::random();
        }
        Ok(Revision::Written(record))
    }
}

/// What a [`Commit`] makes of a live session.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Revision {
    /// The session as it is to be written.
    Written(Record),
    /// Another writer was faster.
    Conflict,
    /// The live session is another one: the writer's has ended.
    Ended,
    /// The session's whole life is over: it is to be ended as
    /// [`Expired`](crate::session::DestroyReason::Expired).
    Expired,
}

/// What a new id is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewId {
    /// The same session: the generation stays, and the id it replaces opens the session for
    /// [`renew_overlap`](BackendConfig::renew_overlap) more. Nothing is renewed if the session's
    /// id is not `from` any more: one new id is enough.
    Renew {
        /// The id that the writer holds.
        from: SessionId,
    },
    /// A sealed session with this data takes the place of this one: a new generation, and no
    /// earlier id opens it. The end of the old one is published as
    /// [`Sealed`](crate::session::DestroyReason::Sealed), just before the change.
    Seal,
}

/// The result of [`commit`](super::Backend::commit).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Committed {
    /// Written; the record as it is now.
    Written(Record),
    /// Not written: another writer was faster. The newest record.
    Conflict(Record),
    /// Not written: the session has ended.
    Ended,
    /// Not written: the lease is lost.
    LeaseLost,
}

/// Which session [`destroy`](super::Backend::destroy) ends.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum DestroyTarget {
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
#[non_exhaustive]
pub struct Acquired {
    /// Proof for renewal, commit and release.
    pub lease: LeaseToken,
    /// How long it lasts unless renewed.
    pub length: Duration,
    /// The client's live session.
    pub record: Option<Record>,
}

impl Acquired {
    /// A lease that was granted for this long, and the client's live session.
    pub fn new(lease: LeaseToken, length: Duration, record: Option<Record>) -> Self {
        Self { lease, length, record }
    }
}

/// A client's session as a node knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionSnapshot {
    /// Its id.
    pub session_id: SessionId,
    /// Tells it from the client's other sessions.
    pub generation: Generation,
    /// Whether it is sealed.
    pub sealed: bool,
    /// When it was created, on this node's clock.
    pub created: Instant,
    /// Its version, as far as this node knows.
    pub version: u64,
}

impl From<&Record> for SessionSnapshot {
    /// The snapshot of a record that was read just now.
    fn from(record: &Record) -> Self {
        let now = Instant::now();
        Self {
            session_id: record.session_id,
            generation: record.generation,
            sealed: record.sealed,
            created: now.checked_sub(record.age).unwrap_or(now),
            version: record.version,
        }
    }
}

/// A bridge's settings for its backend.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackendConfig {
    /// The node that events name. Default: a random one.
    pub node: NodeId,
    /// How long sessions live. Default: 30 days since the last write.
    pub lifetime: Lifetime,
    /// Length of a lease unless it is renewed. Default: 10 seconds.
    pub lease_duration: Duration,
    /// How many callers may wait for one client's lease. Default: 1024.
    pub lease_queue_limit: usize,
    /// Bytes of a session's JSON. Default: 64 KiB.
    pub max_payload: usize,
    /// Events that a slow subscriber may fall behind. Default: 4096.
    pub event_capacity: usize,
    /// How long the previous id opens a session after [`NewId::Renew`]. Default: 10 seconds.
    pub renew_overlap: Duration,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            node: NodeId::random(),
            lifetime: Lifetime::new(Duration::from_secs(30 * 24 * 60 * 60)),
            lease_duration: Duration::from_secs(10),
            lease_queue_limit: 1024,
            max_payload: 64 * 1024,
            event_capacity: 4096,
            renew_overlap: Duration::from_secs(10),
        }
    }
}

/// An event with what the bridge needs to route it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackendEvent {
    /// What happened.
    pub event: SessionEvent,
    /// The generation of the session concerned.
    pub generation: Option<Generation>,
    /// The version that the session has by this change. `None` for what is no change of it: an end,
    /// a notice of a change made elsewhere, the first use after a restart.
    pub version: Option<u64>,
    /// Whether the session that was created or changed is sealed. `false` for an end.
    pub sealed: bool,
    /// For an end by sealing: the generation of the sealed session that took its place.
    pub successor: Option<Generation>,
}

impl BackendEvent {
    /// What concerns no session's state: a cleanup, a gap.
    pub fn plain(event: SessionEvent) -> Self {
        Self { event, generation: None, version: None, sealed: false, successor: None }
    }

    /// The end of a session.
    pub fn end(event: SessionDestroy, generation: Option<Generation>) -> Self {
        Self { generation, ..Self::plain(SessionEvent::Destroy(event)) }
    }

    /// A session that was created or changed, and is this record now.
    pub fn change(event: SessionSet, record: &Record) -> Self {
        Self {
            generation: Some(record.generation),
            version: Some(record.version),
            sealed: record.sealed,
            ..Self::plain(SessionEvent::Set(event))
        }
    }

    /// What is published of a new session.
    pub fn created(record: &Record, node: &NodeId) -> Self {
        let set = SessionSet::new(record.client_id, record.session_id, true, true, node.clone());
        Self::change(set, record)
    }

    /// What is published of a commit that made `new` of `old`, in this order: for a sealed session
    /// the end of what it was before, and the change.
    pub fn committed(old: &Record, new: &Record, node: &NodeId) -> Vec<Self> {
        let mut events = Vec::with_capacity(2);
        if new.generation != old.generation {
            let reason = DestroyReason::Sealed;
            let end = SessionDestroy::new(old.client_id, old.session_id, reason, node.clone());
            let end = Self::end(end, Some(old.generation));
            events.push(Self { successor: Some(new.generation), ..end });
        }
        let moved = new.session_id != old.session_id;
        let mut set = SessionSet::new(new.client_id, new.session_id, false, moved, node.clone());
        set.previous_id = moved.then_some(old.session_id);
        events.push(Self::change(set, new));
        events
    }

    /// What is published of a session's end.
    pub fn ended(record: &Record, reason: DestroyReason, node: &NodeId) -> Self {
        let end = SessionDestroy::new(record.client_id, record.session_id, reason, node.clone());
        Self::end(end, Some(record.generation))
    }

    /// Why a session ended, if this is an end.
    pub fn destroy_reason(&self) -> Option<DestroyReason> {
        match &self.event {
            SessionEvent::Destroy(event) => Some(event.reason),
            _ => None,
        }
    }
}

/// The figures that a node publishes with its heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeStats {
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
    /// Events that it delivered to its listeners.
    pub events: u64,
    /// The version of this crate that it runs.
    pub version: String,
}

/// A live node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its name.
    pub node: NodeId,
    /// The figures of its last heartbeat.
    pub figures: NodeStats,
    /// Time since that heartbeat.
    #[serde(rename = "seenMs", serialize_with = "as_millis")]
    pub seen: Duration,
}

impl NodeInfo {
    /// A node whose last heartbeat had these figures and came this long ago.
    pub fn new(node: NodeId, figures: NodeStats, seen: Duration) -> Self {
        Self { node, figures, seen }
    }
}

fn as_millis<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_token_reads_back_from_its_text_and_from_no_other() {
        let token = LeaseToken::random();
        let text = token.to_string();
        assert_eq!((text.len(), text.parse()), (32, Ok(token)));
        assert!(!format!("{token:?}").contains(&text));
        for other in ["", &text[1..], &format!("{text}0"), &"G".repeat(32), &"A".repeat(32)] {
            assert_eq!(other.parse::<LeaseToken>(), Err(InvalidToken(())), "{other}");
        }
        assert!(format!("+{}", &text[1..]).parse::<LeaseToken>().is_err());
    }
}

//! Arguments and results of a backend's operations.

use std::time::Duration;

use tokio::time::Instant;

use super::token::LeaseToken;
use crate::error::{Error, Result};
use crate::session::{
    ClientId, Generation, Lifetime, MaxAge, NodeId, Record, SessionData, SessionId, Stamp,
};

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
    /// [`Record::stamp`] of the record that the caller read.
    pub stamp: Stamp,
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
            stamp: read.stamp.clone(),
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
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) once the lease is lost. If the session is ended, the
    /// lease is given back in the same step.
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

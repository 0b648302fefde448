//! Figures of a bridge.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Something about a request's cookies that an honest browser does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anomaly {
    /// A cookie of ours that no key verifies.
    BadSignature,
    /// A verified cookie that holds no id.
    MalformedId,
    /// An id that names no live session.
    UnknownSession,
    /// An earlier id of a session that lives on under another one.
    SupersededSession,
    /// A session cookie without, or with another, client cookie.
    PairMismatch,
}

impl Anomaly {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::BadSignature => "bad signature",
            Self::MalformedId => "malformed id",
            Self::UnknownSession => "unknown session",
            Self::SupersededSession => "superseded session",
            Self::PairMismatch => "client and session cookie do not belong together",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: Counter,
    pub(crate) loads: Counter,
    pub(crate) created: Counter,
    pub(crate) commits: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) overwrites: Counter,
    pub(crate) ended: Counter,
    pub(crate) leases: Counter,
    pub(crate) lease_timeouts: Counter,
    pub(crate) leases_lost: Counter,
    pub(crate) handlers_discarded: Counter,
    pub(crate) errors: Counter,
    pub(crate) client_errors: Counter,
    pub(crate) own_ways: Counter,
    pub(crate) refused_origins: Counter,
    pub(crate) refused_engine_ids: Counter,
    pub(crate) refused_handshakes: Counter,
    pub(crate) served_anonymously: Counter,
    pub(crate) events: Counter,
    pub(crate) events_missed: Counter,
    pub(crate) messages_sent: Counter,
    pub(crate) messages_failed: Counter,
    pub(crate) sockets_attached: Counter,
    pub(crate) sockets_detached: Counter,
    bad_signatures: Counter,
    malformed_ids: Counter,
    unknown_sessions: Counter,
    superseded_sessions: Counter,
    pair_mismatches: Counter,
}

impl Counters {
    pub(crate) fn anomaly(&self, anomaly: Anomaly) {
        match anomaly {
            Anomaly::BadSignature => self.bad_signatures.add(1),
            Anomaly::MalformedId => self.malformed_ids.add(1),
            Anomaly::UnknownSession => self.unknown_sessions.add(1),
            Anomaly::SupersededSession => self.superseded_sessions.add(1),
            Anomaly::PairMismatch => self.pair_mismatches.add(1),
        }
    }

    pub(crate) fn stats(&self, sockets: usize, tables: Vec<(&'static str, usize)>) -> Stats {
        Stats {
            requests: self.requests.get(),
            loads: self.loads.get(),
            created: self.created.get(),
            commits: self.commits.get(),
            conflicts: self.conflicts.get(),
            overwrites: self.overwrites.get(),
            ended: self.ended.get(),
            leases: self.leases.get(),
            lease_timeouts: self.lease_timeouts.get(),
            leases_lost: self.leases_lost.get(),
            handlers_discarded: self.handlers_discarded.get(),
            errors: self.errors.get(),
            client_errors: self.client_errors.get(),
            own_ways: self.own_ways.get(),
            refused_origins: self.refused_origins.get(),
            refused_engine_ids: self.refused_engine_ids.get(),
            refused_handshakes: self.refused_handshakes.get(),
            served_anonymously: self.served_anonymously.get(),
            events: self.events.get(),
            events_missed: self.events_missed.get(),
            messages_sent: self.messages_sent.get(),
            messages_failed: self.messages_failed.get(),
            sockets_attached: self.sockets_attached.get(),
            sockets_detached: self.sockets_detached.get(),
            bad_signatures: self.bad_signatures.get(),
            malformed_ids: self.malformed_ids.get(),
            unknown_sessions: self.unknown_sessions.get(),
            superseded_sessions: self.superseded_sessions.get(),
            pair_mismatches: self.pair_mismatches.get(),
            sockets,
            tables: tables.into_iter().collect(),
        }
    }
}

/// Figures of a bridge, since its start unless said otherwise. See
/// [`stats`](crate::SessionBridge::stats).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that passed the layer, polls and handshakes included.
    pub requests: u64,
    /// Sessions looked up for requests and handshakes.
    pub loads: u64,
    /// Sessions created by requests.
    pub created: u64,
    /// Writes to existing sessions.
    pub commits: u64,
    /// Writes that met another writer.
    pub conflicts: u64,
    /// Writes that set a key which another writer had changed since they read it: what that one
    /// wrote is lost. Each is logged at the level debug with its keys. Use
    /// [`update`](crate::Session::update) for values that depend on their old ones, or
    /// [`OnConflict::Detect`](super::OnConflict::Detect). [`OnConflict::Overwrite`](super::OnConflict::Overwrite)
    /// compares nothing, and so counts nothing.
    pub overwrites: u64,
    /// Ends of sessions that this node was notified of.
    pub ended: u64,
    /// Leases granted.
    pub leases: u64,
    /// Callers that timed out waiting for a lease.
    pub lease_timeouts: u64,
    /// Handlers that outlived their lease.
    pub leases_lost: u64,
    /// Handlers whose changes were dropped: they failed, or their socket left.
    pub handlers_discarded: u64,
    /// Requests and calls that failed because of the store or backend.
    pub errors: u64,
    /// Commits that failed because of what the request asked for or because another one was
    /// faster: answered with 4xx.
    pub client_errors: u64,
    /// Requests that got a client id of their own, for their client had a session that they may
    /// not join.
    pub own_ways: u64,
    /// Requests and Socket.IO handshakes from origins that are not allowed.
    pub refused_origins: u64,
    /// Engine.IO requests without the client cookie of their handshake.
    pub refused_engine_ids: u64,
    /// Engine.IO handshakes beyond
    /// [`pending_sockets_limit`](super::SessionBridgeBuilder::pending_sockets_limit).
    pub refused_handshakes: u64,
    /// Requests that got an empty session as theirs could not be loaded: see
    /// [`WhenUnavailable::Anonymous`](super::WhenUnavailable::Anonymous).
    pub served_anonymously: u64,
    /// Events published.
    pub events: u64,
    /// Events that a listener was too slow for.
    pub events_missed: u64,
    /// Messages sent to sockets.
    pub messages_sent: u64,
    /// Messages that a socket's full buffer refused.
    pub messages_failed: u64,
    /// Sockets attached.
    pub sockets_attached: u64,
    /// Sockets detached.
    pub sockets_detached: u64,
    /// Cookies that no key verifies.
    pub bad_signatures: u64,
    /// Verified cookies that hold no id.
    pub malformed_ids: u64,
    /// Ids that name no live session.
    pub unknown_sessions: u64,
    /// Earlier ids of sessions that live on under another one: late requests.
    pub superseded_sessions: u64,
    /// Session cookies that came without, or with another, client cookie.
    pub pair_mismatches: u64,
    /// Sockets attached now.
    pub sockets: usize,
    /// Entries of the backend's tables now.
    pub tables: BTreeMap<&'static str, usize>,
}

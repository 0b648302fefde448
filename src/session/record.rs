//! A session as it is stored.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use serde::{Deserialize, Serialize};

use super::data::SessionData;
use super::id::{ClientId, SessionId};
use super::max_age::MaxAge;

/// Tells a client's sessions apart: it stays through changes and through `renew_id`, and differs
/// after `rotate` and for the client's next session. A writer that holds an ended session is
/// recognised by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation(u64);

impl Generation {
    /// A new one.
    pub fn random() -> Self {
        // 53 bits: exact in every JSON and Lua implementation.
        Self(rand::rng().next_u64() >> 11)
    }
}

#[cfg(feature = "redis")]
impl Generation {
    /// As a number of at most 53 bits.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// From what [`number`](Self::number) gave.
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// An id that a session had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreviousId {
    /// The id.
    pub session_id: SessionId,
    /// How long it still opens the session; zero if it does not.
    pub opens_for: Duration,
}

/// A session as it is stored. All times are relative to the moment of reading, so that the
/// clocks of nodes need not agree.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// The id that the session cookie carries.
    pub session_id: SessionId,
    /// The client it belongs to.
    pub client_id: ClientId,
    /// Tells it from the client's other sessions.
    pub generation: Generation,
    /// Whether the session is sealed: seen and changed only with its own cookie. Fixed for a
    /// generation: sealing a session begins a new one.
    pub sealed: bool,
    /// The ids it had before, newest first, at most [`PREVIOUS_IDS`](Self::PREVIOUS_IDS): a
    /// cookie with one of them is late, not unknown.
    pub previous: Vec<PreviousId>,
    /// Grows by one with each write of data, max age or id.
    pub version: u64,
    /// The data.
    pub data: SessionData,
    /// The session's own max age.
    pub max_age: MaxAge,
    /// Time since its creation.
    pub age: Duration,
    /// Time to live that the last write gave.
    pub ttl: Duration,
    /// Time to live that is left.
    pub remaining: Duration,
    /// What the backend noted of the record as it read it.
    pub stamp: Stamp,
}

/// What a backend noted of a record as it read it, and gets back with a
/// [`Commit`](crate::backend::Commit) of a change to it. Only the backend that made it knows what it
/// says. It is not a part of what a record is: two are always equal.
#[derive(Clone, Default)]
pub struct Stamp(Option<Arc<[u8]>>);

impl Stamp {
    /// A stamp of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Some(bytes.into()))
    }

    /// The bytes; none for a stamp that no backend made.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl PartialEq for Stamp {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may hold session ids.
        write!(f, "Stamp({} bytes)", self.as_bytes().len())
    }
}

impl PreviousId {
    /// An earlier id that opens the session for this long.
    pub fn new(session_id: SessionId, opens_for: Duration) -> Self {
        Self { session_id, opens_for }
    }
}

impl Record {
    /// An open session without data at its first version, which lives for `ttl`. A backend that
    /// reads a record from where it keeps it sets the other fields.
    pub fn new(
        session_id: SessionId,
        client_id: ClientId,
        generation: Generation,
        ttl: Duration,
    ) -> Self {
        Self {
            session_id,
            client_id,
            generation,
            sealed: false,
            previous: Vec::new(),
            version: 1,
            data: SessionData::new(),
            max_age: MaxAge::Default,
            age: Duration::ZERO,
            ttl,
            remaining: ttl,
            stamp: Stamp::default(),
        }
    }

    /// The record as it is this much later if nothing changes it; `None` once it has expired.
    pub fn later(&self, elapsed: Duration) -> Option<Self> {
        let remaining = self.remaining.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        let previous = self
            .previous
            .iter()
            .map(|old| PreviousId { opens_for: old.opens_for.saturating_sub(elapsed), ..*old });
        let age = self.age.saturating_add(elapsed);
        Some(Self { previous: previous.collect(), age, remaining, ..self.clone() })
    }

    /// How many of its earlier ids a session remembers.
    pub const PREVIOUS_IDS: usize = 8;

    /// Whether this id opens the session: its own, or the one before a `renew_id` for a while.
    pub fn opens_by(&self, id: &SessionId) -> bool {
        self.session_id == *id
            || self.previous.iter().any(|old| old.session_id == *id && !old.opens_for.is_zero())
    }

    /// Whether a first request of the client that runs beside the one that created this session
    /// may join it: only an open session, and only one that is at most `window` old.
    pub fn is_joinable(&self, window: Duration) -> bool {
        !self.sealed && !window.is_zero() && self.age <= window
    }

    /// Whether the session had this id before.
    pub fn had(&self, id: &SessionId) -> bool {
        self.previous.iter().any(|old| old.session_id == *id)
    }

    /// The earlier ids of a session that gets a new id now. The current one opens it for
    /// `overlap` more; with none, no earlier id opens it any more.
    pub fn previous_after(&self, overlap: Duration) -> Vec<PreviousId> {
        let current = PreviousId { session_id: self.session_id, opens_for: overlap };
        let older = self
            .previous
            .iter()
            .map(|old| PreviousId { opens_for: old.opens_for.min(overlap), ..*old });
        std::iter::once(current).chain(older).take(Self::PREVIOUS_IDS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn record() -> Record {
        let (session, client) = (SessionId::generate(), ClientId::generate());
        Record::new(session, client, Generation::random(), Duration::from_secs(60))
    }

    #[test]
    fn a_record_grows_old_until_it_has_expired() {
        let mut record = record();
        record.previous = record.previous_after(Duration::from_secs(10));
        let second = Duration::from_secs(1);
        let later = record.later(20 * second).unwrap();
        assert_eq!((later.age, later.remaining), (20 * second, 40 * second));
        assert_eq!(later.previous[0].opens_for, Duration::ZERO);
        assert_eq!(later.ttl, record.ttl);
        assert!(record.later(59 * second).is_some() && record.later(60 * second).is_none());
    }

    #[test]
    fn a_renewed_id_opens_for_the_overlap_and_a_sealed_one_never() {
        let mut record = record();
        let first = record.session_id;
        record.previous = record.previous_after(Duration::from_secs(10));
        record.session_id = SessionId::generate();
        assert!(
            record.opens_by(&first) && record.had(&first) && record.opens_by(&record.session_id)
        );
        record.previous = record.previous_after(Duration::ZERO);
        let second = record.session_id;
        record.session_id = SessionId::generate();
        for old in [first, second] {
            assert!(!record.opens_by(&old) && record.had(&old));
        }
    }

    #[test]
    fn only_the_last_ids_are_remembered() {
        let mut record = record();
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(record.session_id);
            record.previous = record.previous_after(Duration::from_secs(1));
            record.session_id = SessionId::generate();
        }
        assert_eq!(record.previous.len(), Record::PREVIOUS_IDS);
        let had: HashSet<bool> =
            ids[20 - Record::PREVIOUS_IDS..].iter().map(|id| record.had(id)).collect();
        assert_eq!(had, HashSet::from([true]));
        assert!(!record.had(&ids[20 - Record::PREVIOUS_IDS - 1]));
    }
}

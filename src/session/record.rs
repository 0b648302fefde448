//! A session as it is stored.

use std::fmt;
use std::time::Duration;

use rand::Rng as _;
use serde::{Deserialize, Serialize};

use super::data::SessionData;
use super::id::{ClientId, SessionId};
use super::policy::MaxAge;

/// A session's birth mark: it stays through changes and rotations of the id, and differs for the
/// client's next session. A writer that holds an ended session is told apart by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation(u64);

impl Generation {
    /// A new birth mark.
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

/// A session as it is stored. All times are relative to the moment of reading, so that the
/// clocks of nodes need not agree.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The id that the session cookie carries.
    pub session_id: SessionId,
    /// The client it belongs to.
    pub client_id: ClientId,
    /// Its birth mark.
    pub generation: Generation,
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
}

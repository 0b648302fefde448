//! What scripts answer.
//!
//! The first item of every array is a status of ours: an array whose first item is a word such as
//! `message` would be taken for a pushed message by the client library.

use fred::prelude::*;

use crate::backend::redis::record::{self, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Record, SessionData, SessionId};

/// A script's reply: a status, and what comes with it.
#[derive(Debug)]
pub(crate) struct Reply {
    script: &'static str,
    pub(crate) status: i64,
    /// The answer of an earlier run was lost: what this one found may be that one's work.
    pub(crate) repeated: bool,
    rest: Vec<Value>,
}

/// Where the time stands behind the status, and the record.
const NOW: usize = 0;
const RECORD: usize = 1;
/// Where a change says whether pointer and mapping were renewed, and the id that it replaced.
const HINTS: usize = 2;
const PREVIOUS: usize = 3;

impl Reply {
    pub(crate) fn new(script: &'static str, value: Value) -> Result<Self> {
        let Value::Array(mut rest) = value else { return Err(odd(script, "no array")) };
        let status =
            rest.first().and_then(Value::as_i64).ok_or_else(|| odd(script, "no status"))?;
        rest.remove(0);
        Ok(Self { script, status, repeated: false, rest })
    }

    pub(crate) fn after(self, repeated: bool) -> Self {
        Self { repeated, ..self }
    }

    pub(crate) fn unexpected(&self) -> Error {
        odd(self.script, "a status that it does not have")
    }

    pub(crate) fn number(&self, at: usize) -> Option<i64> {
        self.rest.get(at).and_then(Value::as_i64)
    }

    pub(crate) fn session(&self, at: usize) -> Option<SessionId> {
        SessionId::parse_bytes(self.rest.get(at)?.as_bytes()?).ok()
    }

    pub(crate) fn items(&self) -> &[Value] {
        &self.rest
    }

    /// The time of Redis, where the first item is one.
    pub(crate) fn now(&self) -> Option<i64> {
        self.number(NOW)
    }

    fn stored(&self) -> Result<(u64, &[u8])> {
        let now = self.now().and_then(|now| u64::try_from(now).ok());
        let stored = self.rest.get(RECORD).and_then(Value::as_bytes);
        now.zip(stored).ok_or_else(|| odd(self.script, "no record"))
    }

    /// The record that follows the time.
    pub(crate) fn record(&self, client: &ClientId) -> Result<Stored> {
        let (now, stored) = self.stored()?;
        Ok(record::read(client, stored, now))
    }

    /// The record that follows the time, whose data is this.
    pub(crate) fn record_of(&self, client: &ClientId, data: SessionData) -> Result<Record> {
        let (now, stored) = self.stored()?;
        let record = record::read_with(client, stored, now, data);
        record.ok_or_else(|| odd(self.script, "an odd record"))
    }

    /// Whether pointer and mapping were renewed, or in a cluster the pointer is to be.
    pub(crate) fn renewed_hints(&self) -> bool {
        self.number(HINTS) == Some(1)
    }

    /// The id that the session had before.
    pub(crate) fn previous(&self) -> Option<SessionId> {
        self.session(PREVIOUS)
    }
}

fn odd(script: &str, what: &str) -> Error {
    Error::new(ErrorKind::Store, format!("the script `{script}` answered with {what}"))
}

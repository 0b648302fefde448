//! A write that the node prepares whole: the script only compares and stores.
//!
//! Nearly all writes change the data alone: the end of the session would move by less than a hundredth
//! of its life, which is not worth a command of Redis and a notification, and everything else stays.
//! Such a record is the one that was read with another version and other data. Building strings costs
//! more in Lua than all commands of the script together.

use std::time::Duration;

use super::pubsub::message;
use super::record::{END_OF_STATE, Fields, Header, VERSION, millis, put_number};
use crate::backend::{BackendConfig, Commit};
use crate::session::MaxAge;

/// An end that moves by less stays where it is, as in `set_expiry` of the scripts.
const LONGEST_MOVE: Duration = Duration::from_secs(60);

/// What the scripts `write` and `write_leased` are given.
#[derive(Debug)]
pub(super) struct Prepared {
    /// How the record begins that was read: format, generation, version and end.
    pub(super) expected: Vec<u8>,
    pub(super) record: Vec<u8>,
    pub(super) message: Vec<u8>,
    /// How much of the record is not its data.
    head: usize,
}

impl Prepared {
    /// The record without its data.
    pub(super) fn head(&self) -> &[u8] {
        self.record.get(..self.head).unwrap_or_default()
    }
}

/// Prepares a write; `None` if it changes more than the data, or moves the session's end. `now` is the
/// time of Redis in milliseconds.
pub(super) fn prepare(
    config: &BackendConfig,
    commit: &Commit,
    max_age: MaxAge,
    data: &str,
    now: u64,
) -> Option<Prepared> {
    let stamp = commit.stamp.as_bytes();
    let header = Header::read(&mut Fields(stamp))?;
    let same = header.generation == commit.generation
        && Some(header.version) == commit.version
        && header.max_age == max_age
        && header.head_len() == stamp.len();
    if !same || commit.new_id.is_some() {
        return None;
    }
    let age = Duration::from_millis(now.checked_sub(header.created)?);
    let ttl = millis(config.lifetime.ttl(max_age, header.sealed, age));
    let moves = now.checked_add(ttl)?.checked_sub(header.end)?;
    let kept = ttl == header.ttl && moves <= (ttl / 100).min(millis(LONGEST_MOVE));
    // The script `commit` renews them once less than one and a half lives are left.
    let hinted = header.hinted >= now + ttl + ttl / 2;
    if !kept || !hinted || header.end < now {
        return None;
    }
    let mut record = Vec::with_capacity(stamp.len() + data.len());
    record.extend_from_slice(stamp.get(..VERSION)?);
    put_number(&mut record, header.version + 1, END_OF_STATE - VERSION - 6);
    record.extend_from_slice(stamp.get(record.len()..)?);
    let head = record.len();
    let message = message::set(&commit.client, &config.node, now, record.get(..Header::LEN)?);
    record.extend_from_slice(data.as_bytes());
    Some(Prepared { expected: stamp.get(..END_OF_STATE)?.to_vec(), record, message, head })
}

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

#[cfg(test)]
mod tests {
    use super::super::record::{Stored, put_generation, put_max_age, read};
    use super::*;
    use crate::backend::{LeaseToken, NewId};
    use crate::session::{ClientId, Generation, Record, SessionData, SessionId};

    const NOW: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;

    fn config() -> BackendConfig {
        let mut config = BackendConfig::default();
        config.lifetime.max_age = Duration::from_millis(HOUR);
        config
    }

    /// A session as it was read, which was written this many milliseconds ago.
    fn stored(written: u64, max_age: MaxAge) -> Record {
        let mut out = vec![1, 0];
        put_generation(&mut out, Generation::random());
        put_number(&mut out, 7, 5);
        put_number(&mut out, NOW - written + HOUR, 6);
        out.extend(SessionId::generate().as_str().bytes());
        put_number(&mut out, NOW - written, 6);
        put_number(&mut out, HOUR, 5);
        put_number(&mut out, NOW - written + 2 * HOUR, 6);
        let mut age = Vec::new();
        put_max_age(&mut age, max_age);
        out[1] |= age[0] << 1;
        out.extend(&age[1..]);
        out.extend(b"{}");
        match read(&ClientId::generate(), &out, NOW) {
            Stored::Live(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn prepared(commit: &Commit, now: u64) -> Option<Prepared> {
        prepare(&config(), commit, commit.max_age, r#"{"n":1}"#, now)
    }

    #[test]
    fn the_prepared_record_is_the_one_that_was_read_with_another_version_and_data() {
        let read_record = stored(10, MaxAge::Default);
        let commit = Commit::new(&read_record, SessionData::new());
        let Prepared { expected, record, message, head } = prepared(&commit, NOW).unwrap();
        assert_eq!(expected, read_record.stamp.as_bytes()[..20]);
        let Stored::Live(after) = read(&read_record.client_id, &record, NOW) else {
            panic!("live")
        };
        assert_eq!(after.version, 8);
        assert_eq!(after.data, SessionData::from_json(r#"{"n":1}"#).unwrap());
        let same = Record { version: 7, data: read_record.data.clone(), ..after };
        assert_eq!(same, read_record);
        assert_eq!(&record[head..], br#"{"n":1}"#);
        assert!(message.ends_with(&record[..Header::LEN]));
    }

    #[test]
    fn what_changes_more_than_the_data_is_left_to_the_script() {
        let read_record = stored(10, MaxAge::Default);
        let commit = || Commit::new(&read_record, SessionData::new());
        let mut others = vec![commit(), commit(), commit(), commit(), commit()];
        others[0].version = None;
        others[1].version = Some(6);
        others[2].generation = Generation::random();
        others[3].max_age = MaxAge::Browser;
        others[4].new_id = Some(NewId::Seal);
        let unread = Record { stamp: Default::default(), ..read_record.clone() };
        others.push(Commit::new(&unread, SessionData::new()));
        for other in others {
            assert!(prepared(&other, NOW).is_none(), "{other:?}");
        }
        let mut leased = commit();
        leased.lease = Some(LeaseToken::random());
        assert!(prepared(&leased, NOW).is_some(), "a lease changes nothing in the record");
    }

    #[test]
    fn an_end_that_would_move_by_a_hundredth_of_the_life_or_a_minute_is_left_to_the_script() {
        let at = |written| {
            prepared(&Commit::new(&stored(written, MaxAge::Default), SessionData::new()), NOW)
        };
        assert!(at(HOUR / 100).is_some() && at(HOUR / 100 + 1).is_none());
        let read_record = stored(10, MaxAge::Default);
        let commit = Commit::new(&read_record, SessionData::new());
        // The clock of Redis went back, or the session should be over.
        assert!(prepared(&commit, NOW - 11).is_none());
        assert!(prepared(&commit, NOW + 2 * HOUR).is_none());
    }
}

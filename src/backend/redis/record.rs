//! The layout of a session's record in Redis: one string, which a read gets by one `GET`.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | format: 1 |
//! | 1 | flags: bit 0 sealed, bits 1 to 3 the kind of max age, bits 4 to 7 the number of earlier ids |
//! | 7 | generation |
//! | 5 | version |
//! | 6 | end |
//! | 43 | session id |
//! | 6 | created |
//! | 5 | time to live that the last write gave |
//! | 6 | until when mapping and pointer live at least |
//! | 5 | the session's own max age; 0 if it has none |
//! | 49 each | earlier ids, newest first: the id, and until when it opens the session |
//! | the rest | the data, JSON |
//!
//! Numbers are big-endian, times are milliseconds by the clock of Redis. Scripts read and write the
//! header alone (`script/lua/include/record.lua`). A record of a newer format is refused and left as
//! it is, so that nodes of two versions can work side by side while they are replaced.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::session::{
    ClientId, Generation, MaxAge, PreviousId, Record, SessionData, SessionId, Stamp,
};

const FORMAT: u8 = 1;
/// Bytes of an earlier id.
const PREVIOUS: usize = SessionId::LEN + 6;
/// Bytes of a generation.
pub(super) const GENERATION: usize = 7;
/// Where the version is.
pub(super) const VERSION: usize = 2 + GENERATION;
/// Behind the version and the end: a record that begins as another one up to here is the same one.
pub(super) const END_OF_STATE: usize = VERSION + 5 + 6;
/// Bytes of a header and as many earlier ids as there can be.
pub(super) const HEAD_LIMIT: usize = Header::LEN + 15 * PREVIOUS;
/// How far a record's end may be over while Redis still has it: the clock of Redis is estimated.
pub(super) const OVERDUE: Duration = Duration::from_secs(1);

/// What is stored of a session.
#[derive(Debug)]
pub(super) enum Stored {
    Live(Record),
    /// Its end is long over, although Redis still has it: its time to live was taken away.
    Overdue,
    /// Not a record of ours; why.
    Corrupt(Error),
    /// Written by a newer version of this crate.
    Newer(Error),
}

/// Reads fields one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(field)
    }

    pub(super) fn number(&mut self, count: usize) -> Option<u64> {
        let bytes = self.bytes(count)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(super) fn generation(&mut self) -> Option<Generation> {
        self.number(GENERATION).map(Generation::from_number)
    }

    pub(super) fn session(&mut self) -> Option<SessionId> {
        SessionId::parse_bytes(self.bytes(SessionId::LEN)?).ok()
    }

    pub(super) fn client(&mut self) -> Option<ClientId> {
        ClientId::parse_bytes(self.bytes(ClientId::LEN)?).ok()
    }
}

/// Appends the low `count` bytes of a number.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64, count: usize) {
    out.extend_from_slice(&number.to_be_bytes()[8 - count..]);
}

pub(super) fn put_generation(out: &mut Vec<u8>, generation: Generation) {
    put_number(out, generation.number(), GENERATION);
}

/// Milliseconds that fit into five bytes: 34 years.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min((1 << 40) - 1)
}

/// The kind of a session's own max age, and its length, as scripts are given it.
pub(super) fn put_max_age(out: &mut Vec<u8>, max_age: MaxAge) {
    let (kind, own) = match max_age {
        MaxAge::Default => (0, 0),
        MaxAge::Browser => (1, 0),
        MaxAge::After(age) => (2, millis(age)),
    };
    out.push(kind);
    put_number(out, own, 5);
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: Generation,
    pub(super) version: u64,
    pub(super) session: SessionId,
    pub(super) sealed: bool,
    pub(super) max_age: MaxAge,
    pub(super) created: u64,
    pub(super) ttl: u64,
    pub(super) end: u64,
    pub(super) hinted: u64,
    previous: usize,
}

impl Header {
    /// Bytes of a header.
    pub(super) const LEN: usize = 85;

    /// Bytes of the header and the earlier ids that follow it.
    pub(super) fn head_len(&self) -> usize {
        Self::LEN + self.previous * PREVIOUS
    }

    fn is_overdue(&self, now: u64) -> bool {
        let overdue = u64::try_from(OVERDUE.as_millis()).unwrap_or(0);
        self.end.saturating_add(overdue) < now
    }

    /// Reads a header of this format.
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        if fields.number(1)? != u64::from(FORMAT) {
            return None;
        }
        let flags = fields.number(1)?;
        let generation = fields.generation()?;
        let version = fields.number(5)?;
        let end = fields.number(6)?;
        let session = fields.session()?;
        let (created, ttl, hinted) = (fields.number(6)?, fields.number(5)?, fields.number(6)?);
        let own = fields.number(5)?;
        let max_age = match flags >> 1 & 7 {
            0 => MaxAge::Default,
            1 => MaxAge::Browser,
            2 => MaxAge::After(Duration::from_millis(own)),
            _ => return None,
        };
        let sealed = flags & 1 == 1;
        let previous = usize::try_from(flags >> 4).ok()?;
        Some(Self {
            generation,
            version,
            session,
            sealed,
            max_age,
            created,
            ttl,
            end,
            hinted,
            previous,
        })
    }

    /// The record that this is the header of.
    fn record(
        &self,
        client: &ClientId,
        now: u64,
        stored: &[u8],
        data: impl FnOnce(&[u8]) -> Result<SessionData, Error>,
    ) -> Result<Record, Error> {
        let (head, json) = stored.split_at_checked(self.head_len()).ok_or_else(short)?;
        let mut rest = Fields(head.get(Self::LEN..).unwrap_or_default());
        let mut previous = Vec::with_capacity(self.previous);
        for _ in 0..self.previous {
            let mut field = Fields(rest.bytes(PREVIOUS).ok_or_else(short)?);
            let (id, until) = field.session().zip(field.number(6)).ok_or_else(short)?;
            let opens_for = Duration::from_millis(until.saturating_sub(now));
            previous.push(PreviousId { session_id: id, opens_for });
        }
        Ok(Record {
            session_id: self.session,
            client_id: *client,
            generation: self.generation,
            sealed: self.sealed,
            previous,
            version: self.version,
            data: data(json)?,
            max_age: self.max_age,
            age: Duration::from_millis(now.saturating_sub(self.created)),
            ttl: Duration::from_millis(self.ttl),
            // Redis says that it is alive: at least for this moment.
            remaining: Duration::from_millis(self.end.saturating_sub(now).max(1)),
            stamp: Stamp::new(head),
        })
    }
}

fn short() -> Error {
    Error::new(ErrorKind::InvalidData, "a stored session is too short or has a field that is odd")
}

/// Reads what is stored of a client's session. `now` is the time of Redis in milliseconds.
pub(super) fn read(client: &ClientId, stored: &[u8], now: u64) -> Stored {
    read_by(client, stored, now, |json| match std::str::from_utf8(json) {
        Ok(json) => SessionData::from_json(json),
        Err(error) => {
            Err(Error::new(ErrorKind::InvalidData, "the data is no text").with_source(error))
        }
    })
}

/// [`read`] of a record's first [`HEAD_LIMIT`] bytes: all but its data, which is empty.
pub(super) fn read_head(client: &ClientId, stored: &[u8], now: u64) -> Stored {
    read_by(client, stored, now, |_| Ok(SessionData::new()))
}

/// Generation and version of a record, by its first [`Header::LEN`] bytes; `None` if it is none, or
/// its end is long over.
pub(super) fn read_state(stored: &[u8], now: u64) -> Option<(Generation, u64)> {
    let header = Header::read(&mut Fields(stored)).filter(|header| !header.is_overdue(now))?;
    Some((header.generation, header.version))
}

fn read_by(
    client: &ClientId,
    stored: &[u8],
    now: u64,
    data: impl FnOnce(&[u8]) -> Result<SessionData, Error>,
) -> Stored {
    if stored.first().is_some_and(|format| (FORMAT + 1..b' ').contains(format)) {
        return Stored::Newer(newer());
    }
    let mut fields = Fields(stored);
    let Some(header) = Header::read(&mut fields) else { return Stored::Corrupt(short()) };
    if header.is_overdue(now) {
        return Stored::Overdue;
    }
    match header.record(client, now, stored, data) {
        Ok(record) => Stored::Live(record),
        Err(error) => Stored::Corrupt(error),
    }
}

/// Reads a record whose data is known.
pub(super) fn read_with(
    client: &ClientId,
    stored: &[u8],
    now: u64,
    data: SessionData,
) -> Option<Record> {
    let mut fields = Fields(stored);
    Header::read(&mut fields)?.record(client, now, stored, |_| Ok(data)).ok()
}

pub(super) fn newer() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "a session was written by a newer version of axum-io-session: replace this node too",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the scripts write it.
    fn stored(record: &Record, now: u64, hints: u64) -> Vec<u8> {
        let kind = match record.max_age {
            MaxAge::Default => 0,
            MaxAge::Browser => 1,
            MaxAge::After(_) => 2,
        };
        let count = u8::try_from(record.previous.len()).unwrap();
        let mut out = vec![FORMAT, count << 4 | kind << 1 | u8::from(record.sealed)];
        put_generation(&mut out, record.generation);
        put_number(&mut out, record.version, 5);
        put_number(&mut out, now + millis(record.remaining), 6);
        out.extend(record.session_id.as_str().bytes());
        put_number(&mut out, now - millis(record.age), 6);
        put_number(&mut out, millis(record.ttl), 5);
        put_number(&mut out, hints, 6);
        let own = if let MaxAge::After(age) = record.max_age { millis(age) } else { 0 };
        put_number(&mut out, own, 5);
        assert_eq!(out.len(), Header::LEN);
        for old in &record.previous {
            out.extend(old.session_id.as_str().bytes());
            put_number(&mut out, now + millis(old.opens_for), 6);
        }
        out.extend(record.data.to_json().bytes());
        out
    }

    fn record(max_age: MaxAge, previous: usize) -> Record {
        let previous = (0..previous).map(|at| PreviousId {
            session_id: SessionId::generate(),
            opens_for: Duration::from_millis(at as u64),
        });
        Record {
            session_id: SessionId::generate(),
            client_id: ClientId::generate(),
            generation: Generation::random(),
            sealed: true,
            previous: previous.collect(),
            version: 3,
            data: SessionData::from_json(r#"{"n":1}"#).unwrap(),
            max_age,
            age: Duration::from_millis(200),
            ttl: Duration::from_millis(500),
            remaining: Duration::from_millis(400),
            stamp: Stamp::default(),
        }
    }

    #[test]
    fn a_record_reads_back_with_times_relative_to_the_clock_of_redis() {
        let now = 1_800_000_000_000;
        for max_age in [MaxAge::Default, MaxAge::Browser, MaxAge::After(Duration::from_secs(9))] {
            for previous in [0, 1, 8] {
                let record = record(max_age, previous);
                let stored = stored(&record, now, now);
                let Stored::Live(back) = read(&record.client_id, &stored, now) else {
                    panic!("live")
                };
                assert_eq!(back, record);
                let later = read(&record.client_id, &stored, now + 900);
                assert!(matches!(later, Stored::Live(record) if !record.remaining.is_zero()));
                let late = read(&record.client_id, &stored, now + 1500);
                assert!(matches!(late, Stored::Overdue));
            }
        }
    }

    #[test]
    fn a_newer_format_is_told_apart_from_what_is_no_record() {
        let mut stored = stored(&record(MaxAge::Default, 0), 10_000, 0);
        stored[0] = 2;
        let client = ClientId::generate();
        let Stored::Newer(error) = read(&client, &stored, 0) else { panic!("newer") };
        assert!(error.to_string().contains("newer version"));
        for foreign in [&b""[..], b"x", b"{\"n\":1}", &stored[1..]] {
            assert!(matches!(read(&client, foreign, 0), Stored::Corrupt(_)));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_stored_is_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0_usize..200,
            now in any::<u64>(),
        ) {
            let client = ClientId::generate();
            read(&client, &bytes, now);
            let mut stored = stored(&record(MaxAge::Browser, 2), 10_000, 0);
            stored.truncate(cut);
            let whole = matches!(read(&client, &stored, 10_000), Stored::Live(_));
            prop_assert!(whole == (cut >= Header::LEN + 2 * PREVIOUS + 7));
        }
    }
}

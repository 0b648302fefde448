//! Between a session's record and what a store keeps.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::session::{ClientId, Generation, PreviousId, Record, SessionId, Stamp};
use crate::store::{SessionText, StoredPreviousId, StoredSession};

/// What a stored session turns out to be.
#[derive(Debug)]
pub(super) enum Decoded {
    Live(Record),
    Expired,
    Corrupt(Error),
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a stored session as of `now`; `generation` is for records that carry none.
pub(super) fn decode(
    id: &SessionId,
    client: &ClientId,
    generation: Generation,
    stored: &StoredSession,
    now: u64,
) -> Decoded {
    if stored.expires_at <= now {
        return Decoded::Expired;
    }
    let data = match stored.session.decode() {
        Ok(data) => data,
        Err(error) => return Decoded::Corrupt(error),
    };
    // A record that an application made may lack the time of its creation.
    let created = match stored.created_at {
        0 => stored.expires_at.saturating_sub(stored.ttl),
        created => created,
    };
    Decoded::Live(Record {
        session_id: *id,
        client_id: *client,
        generation: stored.generation.unwrap_or(generation),
        sealed: stored.sealed,
        previous: stored.previous.iter().map(|old| previous(old, now)).collect(),
        version: stored.version,
        data,
        max_age: stored.max_age,
        age: Duration::from_millis(now.saturating_sub(created)),
        ttl: Duration::from_millis(stored.ttl),
        remaining: Duration::from_millis(stored.expires_at - now),
        stamp: Stamp::default(),
    })
}

fn previous(stored: &StoredPreviousId, now: u64) -> PreviousId {
    let opens_for = Duration::from_millis(stored.until.saturating_sub(now));
    PreviousId { session_id: stored.id, opens_for }
}

/// The stored form of a record whose time to live begins `now`.
pub(super) fn encode(record: &Record, max_payload: usize, now: u64) -> Result<StoredSession> {
    let mut stored = StoredSession::new(
        SessionText::encode(&record.data, max_payload)?,
        now.saturating_add(millis(record.remaining)),
        millis(record.ttl),
    );
    stored.created_at = now.saturating_sub(millis(record.age));
    stored.version = record.version;
    stored.generation = Some(record.generation);
    stored.client_id = Some(record.client_id);
    stored.max_age = record.max_age;
    stored.sealed = record.sealed;
    stored.previous = record.previous.iter().map(|old| stored_previous(old, now)).collect();
    Ok(stored)
}

fn stored_previous(old: &PreviousId, now: u64) -> StoredPreviousId {
    let until = match millis(old.opens_for) {
        0 => 0,
        left => now.saturating_add(left),
    };
    StoredPreviousId { id: old.session_id, until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{MaxAge, SessionData};
    use crate::store::now_ms;
    use proptest::prelude::*;

    fn record(age: u64, ttl: u64, version: u64, max_age: MaxAge, text: &str) -> Record {
        let mut data = SessionData::new();
        data.insert(text, text).unwrap();
        Record {
            session_id: SessionId::generate(),
            client_id: ClientId::generate(),
            generation: Generation::random(),
            sealed: version % 2 == 1,
            previous: [0, 3000]
                .map(|left| PreviousId {
                    session_id: SessionId::generate(),
                    opens_for: Duration::from_millis(left),
                })
                .into(),
            version,
            data,
            max_age,
            age: Duration::from_millis(age),
            ttl: Duration::from_millis(ttl),
            remaining: Duration::from_millis(ttl),
            stamp: Stamp::default(),
        }
    }

    fn max_age() -> impl Strategy<Value = MaxAge> {
        prop_oneof![
            Just(MaxAge::Default),
            Just(MaxAge::Browser),
            (1u64..1_000_000).prop_map(|s| MaxAge::After(Duration::from_secs(s))),
        ]
    }

    proptest! {
        #[test]
        fn a_record_survives_the_store_whole(
            age in 0u64..1_000_000_000, ttl in 1u64..1_000_000_000, version in any::<u64>(),
            max_age in max_age(), text in "\\PC{0,12}",
        ) {
            let record = record(age, ttl, version, max_age, &text);
            let now = now_ms();
            let stored = encode(&record, usize::MAX, now).unwrap();
            let json = serde_json::to_string(&stored).unwrap();
            let stored: StoredSession = serde_json::from_str(&json).unwrap();
            let read = decode(&record.session_id, &record.client_id, Generation::random(), &stored, now);
            prop_assert!(matches!(read, Decoded::Live(back) if back == record));
        }

        #[test]
        fn any_stored_text_is_read_without_panic(text in "\\PC{0,64}", expires in any::<u64>(), ttl in any::<u64>(), created in any::<u64>(), now in any::<u64>()) {
            let mut stored = StoredSession::new(text, expires, ttl);
            stored.created_at = created;
            let read = decode(&SessionId::generate(), &ClientId::generate(), Generation::random(), &stored, now);
            if let Decoded::Live(_) = read { prop_assert!(expires > now); }
        }
    }

    #[test]
    fn a_record_without_expiry_counts_as_expired() {
        let stored: StoredSession = serde_json::from_str(r#"{"session":"{}"}"#).unwrap();
        let read = decode(
            &SessionId::generate(),
            &ClientId::generate(),
            Generation::random(),
            &stored,
            now_ms(),
        );
        assert!(matches!(read, Decoded::Expired));
    }
}

//! What the values of one cookie turn out to be.

use std::ops::RangeInclusive;

use super::recent::Recent;
use super::session_cookie::SessionCookie;
use crate::bridge::Anomaly;
use crate::session::ClientId;
use crate::web::signing::{KeyRing, Signature};

/// A value whose signature verified.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::web) struct Verified<T> {
    pub(in crate::web) value: T,
    /// Signed by a key that is no longer the first.
    pub(in crate::web) stale: bool,
}

/// What a cookie's value turns out to be.
#[derive(Debug, PartialEq)]
pub(super) enum Opened<T> {
    /// With the signature, if it may be sent again as it came.
    Valid(Verified<T>, Option<Signature>),
    Bad(Anomaly),
    /// What a browser sends that keeps cleared cookies for a while.
    Empty,
}

/// Verifies and parses the values of one cookie.
#[derive(Debug)]
pub(super) struct Verifier<T> {
    keys: KeyRing,
    /// Of the text, without a signature.
    lengths: RangeInclusive<usize>,
    parse: fn(&str) -> Option<T>,
    recent: Recent<(Verified<T>, Option<Signature>)>,
}

impl Verifier<SessionCookie> {
    pub(super) fn of_sessions(keys: KeyRing) -> Self {
        Self::new(keys, SessionCookie::LENGTHS, SessionCookie::parse)
    }
}

impl Verifier<ClientId> {
    pub(super) fn of_clients(keys: KeyRing) -> Self {
        Self::new(keys, ClientId::LEN..=ClientId::LEN, |text| ClientId::parse(text).ok())
    }
}

impl<T: Copy> Verifier<T> {
    fn new(keys: KeyRing, lengths: RangeInclusive<usize>, parse: fn(&str) -> Option<T>) -> Self {
        Self { keys, lengths, parse, recent: Recent::default() }
    }

    pub(super) fn keys(&self) -> &KeyRing {
        &self.keys
    }

    pub(super) fn open(&self, value: &[u8]) -> Opened<T> {
        let length = value.len().checked_sub(self.keys.overhead());
        if !length.is_some_and(|length| self.lengths.contains(&length)) {
            return if value.is_empty() {
                Opened::Empty
            } else {
                Opened::Bad(Anomaly::BadSignature)
            };
        }
        let place = self.recent.place(value);
        if let Some((verified, signature)) = self.recent.get(place, value) {
            return Opened::Valid(verified, signature);
        }
        // Nothing but ASCII is worth a signature's check.
        let text = str::from_utf8(value).ok().filter(|text| text.is_ascii());
        let Some(proven) = text.and_then(|text| self.keys.verify(text)) else {
            return Opened::Bad(Anomaly::BadSignature);
        };
        let Some(parsed) = (self.parse)(proven.value) else {
            return Opened::Bad(Anomaly::MalformedId);
        };
        let verified = Verified { value: parsed, stale: proven.stale };
        self.recent.insert(place, value, (verified, proven.signature));
        Opened::Valid(verified, proven.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> KeyRing {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
        KeyRing::new("sid.cid", &keys)
    }

    #[test]
    fn the_second_time_a_value_is_what_it_was_the_first_time() {
        let (old, both) = (keys(&["old"]), keys(&["new", "old"]));
        let client = ClientId::generate();
        let malformed = "*".repeat(ClientId::LEN);
        let values = [
            (both.signed(client.as_str()), Some(false)),
            (old.signed(client.as_str()), Some(true)),
            (keys(&["other"]).signed(client.as_str()), None),
            (both.signed(&malformed), None),
            (String::new(), None),
        ];
        let verifier = Verifier::of_clients(both.clone());
        for (value, stale) in &values {
            let first = verifier.open(value.as_bytes());
            assert_eq!(verifier.open(value.as_bytes()), first);
            let signature = both.sign(client.as_str()).filter(|_| *stale == Some(false));
            let valid = |stale| Opened::Valid(Verified { value: client, stale }, signature);
            match stale {
                Some(stale) => assert_eq!(first, valid(*stale)),
                None => assert!(!matches!(first, Opened::Valid(..)), "{first:?}"),
            }
        }
    }

    #[test]
    fn a_value_that_verified_vouches_for_no_other() {
        let verifier = Verifier::of_clients(keys(&["key"]));
        let (client, other) = (ClientId::generate(), ClientId::generate());
        let value = verifier.keys().signed(client.as_str());
        assert!(matches!(verifier.open(value.as_bytes()), Opened::Valid(..)));
        let overhead = verifier.keys().overhead();
        let forged = format!("{}{}", &value[..overhead], other.as_str());
        assert_eq!(verifier.open(forged.as_bytes()), Opened::Bad(Anomaly::BadSignature));
        for at in 0..value.len() {
            let mut changed = value.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(verifier.open(&changed), Opened::Bad(Anomaly::BadSignature), "{at}");
        }
    }
}

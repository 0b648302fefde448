//! Reading the two cookies of a request.

use std::ops::RangeInclusive;

use http::HeaderMap;
use http::header::COOKIE;

use super::session_cookie::SessionCookie;
use crate::bridge::Anomaly;
use crate::session::{ClientId, SessionId};
use crate::web::signing::{KeyRing, Proven, Signature};

/// Cookies of one name that are looked at.
const CANDIDATES: usize = 32;
/// Session cookies that are looked up, of those that verify: a browser sends several of one name
/// after a change of `domain` or `path`, and from sibling hosts.
const LOOKED_UP: usize = 4;

/// What a request's cookies say.
#[derive(Debug, Default, PartialEq)]
pub(in crate::web) struct Incoming {
    /// The first that verifies.
    pub(in crate::web) client: Option<Verified<ClientId>>,
    /// The client's signature, if it may be sent again as it came.
    pub(in crate::web) client_signature: Option<Signature>,
    /// Those that verify, in their order.
    pub(in crate::web) sessions: Vec<Verified<SessionCookie>>,
    pub(in crate::web) anomalies: Vec<Anomaly>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::web) struct Verified<T> {
    pub(in crate::web) value: T,
    /// Signed by a key that is no longer the first.
    pub(in crate::web) stale: bool,
}

impl Incoming {
    pub(super) fn read(headers: &HeaderMap, sessions: &KeyRing, clients: &KeyRing) -> Self {
        let mut incoming = Self::default();
        let (mut session_candidates, mut client_candidates) = (0, 0);
        for pair in pairs(headers) {
            if let Some(value) = value_of(pair, sessions.name()) {
                session_candidates += 1;
                if session_candidates <= CANDIDATES && incoming.sessions.len() < LOOKED_UP {
                    incoming.read_session(value, sessions);
                }
            } else if let Some(value) = value_of(pair, clients.name()) {
                client_candidates += 1;
                if client_candidates <= CANDIDATES && incoming.client.is_none() {
                    incoming.read_client(value, clients);
                }
            }
        }
        incoming
    }

    /// The session ids, in the order of their cookies.
    pub(in crate::web) fn session_ids(&self) -> impl ExactSizeIterator<Item = SessionId> {
        self.sessions.iter().map(|session| session.value.id)
    }

    fn read_session(&mut self, value: &[u8], ring: &KeyRing) {
        match opened(value, ring, SessionCookie::LENGTHS, SessionCookie::parse) {
            Opened::Valid(value, proven) => {
                self.sessions.push(Verified { value, stale: proven.stale });
            }
            Opened::Bad(anomaly) => self.anomalies.push(anomaly),
            Opened::Empty => {}
        }
    }

    fn read_client(&mut self, value: &[u8], ring: &KeyRing) {
        let parse = |text: &str| ClientId::parse(text).ok();
        match opened(value, ring, ClientId::LEN..=ClientId::LEN, parse) {
            Opened::Valid(value, proven) => {
                self.client = Some(Verified { value, stale: proven.stale });
                self.client_signature = proven.signature;
            }
            Opened::Bad(anomaly) => self.anomalies.push(anomaly),
            Opened::Empty => {}
        }
    }
}

/// What a cookie's value turns out to be.
enum Opened<'a, T> {
    Valid(T, Proven<'a>),
    Bad(Anomaly),
    /// What a browser sends that keeps cleared cookies for a while.
    Empty,
}

fn opened<'a, T>(
    value: &'a [u8],
    ring: &KeyRing,
    lengths: RangeInclusive<usize>,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Opened<'a, T> {
    // Nothing but ASCII of the right length is worth a signature's check.
    let length = value.len().checked_sub(ring.overhead());
    let text = std::str::from_utf8(value)
        .ok()
        .filter(|text| text.is_ascii() && length.is_some_and(|length| lengths.contains(&length)));
    match text.and_then(|text| ring.verify(text)) {
        Some(proven) => match parse(proven.value) {
            Some(value) => Opened::Valid(value, proven),
            None => Opened::Bad(Anomaly::MalformedId),
        },
        None if value.is_empty() => Opened::Empty,
        None => Opened::Bad(Anomaly::BadSignature),
    }
}

/// All cookies over all `Cookie` headers, as bytes: one foreign cookie that is no ASCII must not
/// hide ours.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}

/// The value of a cookie if it has this name.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

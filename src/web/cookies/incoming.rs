//! Reading the two cookies of a request.

use http::HeaderMap;
use http::header::COOKIE;

use super::session_cookie::SessionCookie;
use super::verifier::{Opened, Verified, Verifier};
use crate::bridge::Anomaly;
use crate::session::{ClientId, SessionId};
use crate::web::signing::Signature;

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

impl Incoming {
    pub(super) fn read(
        headers: &HeaderMap,
        sessions: &Verifier<SessionCookie>,
        clients: &Verifier<ClientId>,
    ) -> Self {
        let mut incoming = Self::default();
        let (mut session_candidates, mut client_candidates) = (0, 0);
        for pair in pairs(headers) {
            if let Some(value) = value_of(pair, sessions.keys().name()) {
                session_candidates += 1;
                if session_candidates <= CANDIDATES && incoming.sessions.len() < LOOKED_UP {
                    incoming.read_session(value, sessions);
                }
            } else if let Some(value) = value_of(pair, clients.keys().name()) {
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

    fn read_session(&mut self, value: &[u8], sessions: &Verifier<SessionCookie>) {
        match sessions.open(value) {
            Opened::Valid(session, _) => self.sessions.push(session),
            Opened::Bad(anomaly) => self.anomalies.push(anomaly),
            Opened::Empty => {}
        }
    }

    fn read_client(&mut self, value: &[u8], clients: &Verifier<ClientId>) {
        match clients.open(value) {
            Opened::Valid(client, signature) => {
                self.client = Some(client);
                self.client_signature = signature;
            }
            Opened::Bad(anomaly) => self.anomalies.push(anomaly),
            Opened::Empty => {}
        }
    }
}

/// All cookies over all `Cookie` headers, as bytes: one foreign cookie that is no ASCII must not
/// hide ours.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(COOKIE).iter().flat_map(|line| parts(line.as_bytes())).map(<[u8]>::trim_ascii)
}

/// A line between its semicolons.
fn parts(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let (part, after) = match memchr::memchr(b';', line) {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (line, None),
        };
        rest = after;
        Some(part)
    })
}

/// The value of a cookie if it has this name.
fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

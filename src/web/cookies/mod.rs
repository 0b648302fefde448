//! The two cookies: the session's and the client's.

mod incoming;
mod outgoing;
mod recent;
mod session_cookie;
mod verifier;

use std::time::Duration;

use http::HeaderMap;

use super::signing::{KeyRing, Signature};
use crate::bridge::{Options, SameSite};
use crate::session::{ClientId, SessionId};
use outgoing::{Attributes, Lines};
use verifier::Verifier;

pub(super) use incoming::Incoming;
pub(super) use session_cookie::SessionCookie;

/// Reads and writes the cookies as the options say.
#[derive(Debug)]
pub(super) struct CookieKit {
    session: Verifier<SessionCookie>,
    session_lines: Lines,
    client: Verifier<ClientId>,
    client_lines: Lines,
}

impl CookieKit {
    pub(super) fn new(options: &Options) -> Self {
        let keys: &[Vec<u8>] = if options.signed { &options.keys } else { &[] };
        let attributes = Attributes {
            path: options.path.clone(),
            domain: options.domain.clone(),
            http_only: options.http_only,
            same_site: match options.same_site {
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::None => cookie::SameSite::None,
            },
        };
        Self {
            session: Verifier::of_sessions(KeyRing::new(&options.key, keys)),
            session_lines: Lines::new(&options.key, &attributes),
            client: Verifier::of_clients(KeyRing::new(&options.client_key, keys)),
            client_lines: Lines::new(&options.client_key, &attributes),
        }
    }

    pub(super) fn read(&self, headers: &HeaderMap) -> Incoming {
        Incoming::read(headers, &self.session, &self.client)
    }

    /// Sets the client cookie. `signature` is the one that the request's own cookie of this very
    /// client came with, if it is of the current key.
    pub(super) fn set_client(
        &self,
        headers: &mut HeaderMap,
        id: &ClientId,
        signature: Option<Signature>,
        age: Duration,
        secure: bool,
    ) {
        let signature = signature.or_else(|| self.client.keys().sign(id.as_str()));
        self.client_lines.set(headers, signature, id.as_str(), Some(age), secure);
    }

    /// Sets the session cookie; without an age it ends with the browser.
    pub(super) fn set_session(
        &self,
        headers: &mut HeaderMap,
        id: &SessionId,
        age: Option<Duration>,
        secure: bool,
    ) {
        let value = match age {
            Some(age) => {
                // Never later than the browser drops it: it counts whole seconds from now.
                let ends = session_cookie::now().saturating_add(age).as_secs();
                format!("{}.{ends}", id.as_str())
            }
            None => id.as_str().to_owned(),
        };
        self.session_lines.set(headers, self.session.keys().sign(&value), &value, age, secure);
    }

    /// Clears the session cookie, with the attributes that it was set with.
    pub(super) fn clear_session(&self, headers: &mut HeaderMap, secure: bool) {
        self.session_lines.clear(headers, secure);
    }
}

#[cfg(test)]
mod tests {
    use super::verifier::Verified;
    use super::*;
    use crate::bridge::Anomaly;
    use http::HeaderValue;
    use http::header::{COOKIE, SET_COOKIE};
    use proptest::prelude::*;

    fn kit() -> CookieKit {
        let options = Options {
            key: "app.sid".into(),
            keys: vec![b"a key of thirty-two bytes or more".to_vec()],
            ..Options::default()
        };
        CookieKit::new(&options.settle().unwrap())
    }

    fn headers(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    fn session_of(kit: &CookieKit, line: &[u8]) -> Option<SessionId> {
        kit.read(&headers(&[line])).sessions.first().map(|session| session.value.id)
    }

    #[test]
    fn what_is_set_is_read_back() {
        let kit = kit();
        let (session, client) = (SessionId::generate(), ClientId::generate());
        let mut set = HeaderMap::new();
        kit.set_session(&mut set, &session, Some(Duration::from_secs(60)), false);
        kit.set_client(&mut set, &client, None, Duration::from_secs(60), false);
        let sent: Vec<String> = set
            .get_all(SET_COOKIE)
            .iter()
            .map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned())
            .collect();
        let incoming = kit.read(&headers(&[sent.join("; ").as_bytes()]));
        let [found] = incoming.sessions[..] else { panic!("{incoming:?}") };
        assert!(found.value.id == session && !found.stale);
        let left = found.value.left().unwrap();
        assert!((55..=60).contains(&left.as_secs()), "{left:?}");
        assert_eq!(incoming.client, Some(Verified { value: client, stale: false }));
        assert!(incoming.anomalies.is_empty());
    }

    #[test]
    fn a_client_cookie_is_sent_again_as_it_came_unless_its_key_is_old() {
        let with = |keys: &[&str]| {
            let keys = keys.iter().map(|key| key.repeat(32).into_bytes()).collect();
            let options = Options { key: "app.sid".into(), keys, ..Options::default() };
            CookieKit::new(&options.settle().unwrap())
        };
        let (old, both) = (with(&["old"]), with(&["new", "old"]));
        let client = ClientId::generate();
        let sent = |kit: &CookieKit, signature| {
            let mut set = HeaderMap::new();
            kit.set_client(&mut set, &client, signature, Duration::from_secs(60), false);
            set[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
        };
        for (first, kit, stale) in [(&old, &old, false), (&both, &both, false), (&old, &both, true)]
        {
            let incoming = kit.read(&headers(&[sent(first, None).as_bytes()]));
            assert_eq!(incoming.client, Some(Verified { value: client, stale }));
            assert_eq!(incoming.client_signature.is_none(), stale);
            assert_eq!(sent(kit, incoming.client_signature), sent(kit, None));
        }
    }

    #[test]
    fn the_first_four_cookies_that_verify_count_in_their_order() {
        let kit = kit();
        let ids: Vec<SessionId> = (0..6).map(|_| SessionId::generate()).collect();
        let mut line = String::from("app.sid=junk");
        for id in &ids {
            line.push_str(&format!("; app.sid={}", kit.session.keys().signed(id.as_str())));
        }
        let incoming = kit.read(&headers(&[line.as_bytes()]));
        let read: Vec<SessionId> = incoming.sessions.iter().map(|found| found.value.id).collect();
        assert_eq!(read, ids[..4]);
    }

    #[test]
    fn a_cookie_that_ends_with_the_browser_says_no_end() {
        let kit = kit();
        let id = SessionId::generate();
        let mut set = HeaderMap::new();
        kit.set_session(&mut set, &id, None, false);
        let line = set[SET_COOKIE].to_str().unwrap().split(';').next().unwrap();
        let incoming = kit.read(&headers(&[line.as_bytes()]));
        assert_eq!((incoming.sessions[0].value.id, incoming.sessions[0].value.left()), (id, None));
    }

    #[test]
    fn an_end_that_is_no_number_spoils_the_cookie() {
        let kit = kit();
        let id = SessionId::generate();
        for end in ["", "x", "-1", "+1", "1.2", "1234567890123", " 1"] {
            let signed = kit.session.keys().signed(&format!("{}.{end}", id.as_str()));
            let line = format!("app.sid={signed}");
            assert_eq!(session_of(&kit, line.as_bytes()), None, "{end:?}");
        }
    }

    #[test]
    fn cookies_are_found_between_junk_and_over_several_lines() {
        let kit = kit();
        let id = SessionId::generate();
        let ours = format!("app.sid={}", kit.session.keys().signed(id.as_str()));
        let mut line = b";;; =x; \xff\xfe=\x80; nameless; xapp.sid=1;app.sid.cid=2; ".to_vec();
        line.extend(ours.as_bytes());
        assert_eq!(session_of(&kit, &line), Some(id));
        let lines = headers(&[b"a=1", ours.as_bytes(), b"b=2"]);
        assert_eq!(kit.read(&lines).sessions[0].value.id, id);
    }

    #[test]
    fn another_cookies_value_is_refused_and_counted() {
        let kit = kit();
        let line = format!("app.sid={}", kit.client.keys().signed(ClientId::generate().as_str()));
        let incoming = kit.read(&headers(&[line.as_bytes()]));
        assert_eq!(incoming.sessions, []);
        assert_eq!(incoming.anomalies, [Anomaly::BadSignature]);
    }

    #[test]
    fn a_signed_value_that_is_no_id_is_refused() {
        let kit = kit();
        let almost = format!("{}*", "A".repeat(42));
        let line = format!("app.sid={}", kit.session.keys().signed(&almost));
        let incoming = kit.read(&headers(&[line.as_bytes()]));
        assert_eq!(incoming.sessions, []);
        assert_eq!(incoming.anomalies, [Anomaly::MalformedId]);
    }

    proptest! {
        #[test]
        fn no_header_panics_or_is_adopted(bytes in prop::collection::vec(
            prop_oneof![Just(b';'), Just(b'='), Just(b' '), Just(b'"'), 0x20u8..=0xffu8], 0..200,
        ), prefixed in any::<bool>()) {
            let mut line = if prefixed { b"app.sid=".to_vec() } else { Vec::new() };
            line.extend(bytes.into_iter().filter(|byte| *byte != 0x7f));
            let incoming = kit().read(&headers(&[&line]));
            prop_assert!(incoming.sessions.is_empty() && incoming.client.is_none());
        }

        #[test]
        fn ours_is_found_beside_any_junk(
            before in prop::collection::vec(0x20u8..=0xff, 0..100),
            after in prop::collection::vec(0x20u8..=0xff, 0..100),
        ) {
            let kit = kit();
            let id = SessionId::generate();
            let ours = format!("; app.sid={}; ", kit.session.keys().signed(id.as_str()));
            let mut line = [&before[..], ours.as_bytes(), &after[..]].concat();
            line.retain(|byte| *byte != 0x7f);
            prop_assert_eq!(session_of(&kit, &line), Some(id));
        }

        #[test]
        fn a_truncated_or_extended_cookie_is_refused(cut in 0usize..87, tail in "[A-Za-z0-9=]{0,4}") {
            let kit = kit();
            let signed = kit.session.keys().signed(SessionId::generate().as_str());
            let other = format!("{}{tail}", &signed[..cut]);
            // The tail may be the very piece that was cut off.
            prop_assume!(other != signed);
            let line = format!("app.sid={other}");
            prop_assert_eq!(session_of(&kit, line.as_bytes()), None);
            prop_assume!(!tail.is_empty());
            let line = format!("app.sid={signed}{tail}");
            prop_assert_eq!(session_of(&kit, line.as_bytes()), None);
        }
    }
}

//! Reading and writing the two cookies.

use std::ops::RangeInclusive;
use std::time::Duration;

use cookie::time::OffsetDateTime;
use cookie::{Cookie, CookieBuilder};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use super::signing::KeyRing;
use crate::bridge::{Anomaly, Options, SameSite};
use crate::session::{ClientId, SessionId};

/// Cookies of one name that are looked at.
const CANDIDATES: usize = 32;
/// Session cookies that are looked up, of those that verify: a browser sends several of one name
/// after a change of `domain` or `path`, and from sibling hosts.
const LOOKED_UP: usize = 4;
/// Digits of a session cookie's end.
const END_DIGITS: usize = 12;

/// What a request's cookies say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Incoming {
    pub(super) client: Option<Verified<ClientId>>,
    /// Those that verify, in their order.
    pub(super) sessions: Vec<Verified<SessionCookie>>,
    pub(super) anomalies: Vec<Anomaly>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verified<T> {
    pub(super) value: T,
    /// Signed by a key that is no longer the first.
    pub(super) stale: bool,
}

/// What a session cookie holds: the id, and when the browser drops the cookie. The server can't
/// ask a browser for that, and has to send the cookie again when its session lives longer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SessionCookie {
    pub(super) id: SessionId,
    /// Seconds since the Unix epoch; `None` for a cookie that ends with the browser.
    ends: Option<u64>,
}

impl SessionCookie {
    fn parse(text: &str) -> Option<Self> {
        let (id, ends) = match text.split_once('.') {
            Some((id, ends)) => {
                let digits = (1..=END_DIGITS).contains(&ends.len())
                    && ends.bytes().all(|byte| byte.is_ascii_digit());
                (id, Some(ends.parse().ok().filter(|_| digits)?))
            }
            None => (text, None),
        };
        Some(Self { id: SessionId::parse(id).ok()?, ends })
    }

    /// How long the browser still keeps the cookie, by this node's clock.
    pub(super) fn left(&self) -> Option<Duration> {
        self.ends.map(|ends| Duration::from_secs(ends).saturating_sub(now()))
    }
}

/// The time since the Unix epoch, by this node's clock.
fn now() -> Duration {
    (OffsetDateTime::now_utc() - OffsetDateTime::UNIX_EPOCH).unsigned_abs()
}

/// Reads and writes the cookies as the options say.
#[derive(Debug, Clone)]
pub(super) struct CookieKit {
    session: KeyRing,
    client: KeyRing,
    path: String,
    domain: Option<String>,
    http_only: bool,
    same_site: cookie::SameSite,
}

impl CookieKit {
    pub(super) fn new(options: &Options) -> Self {
        let keys: &[Vec<u8>] = if options.signed { &options.keys } else { &[] };
        Self {
            session: KeyRing::new(&options.key, keys),
            client: KeyRing::new(&options.client_key, keys),
            path: options.path.clone(),
            domain: options.domain.clone(),
            http_only: options.http_only,
            same_site: match options.same_site {
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::None => cookie::SameSite::None,
            },
        }
    }

    pub(super) fn read(&self, headers: &HeaderMap) -> Incoming {
        let mut incoming = Incoming::default();
        let clients = verified(headers, &self.client, ClientId::LEN..=ClientId::LEN, |text| {
            ClientId::parse(text).ok()
        });
        for client in clients {
            match client {
                Ok(client) => {
                    incoming.client = Some(client);
                    break;
                }
                Err(anomaly) => incoming.anomalies.push(anomaly),
            }
        }
        let lengths = SessionId::LEN..=SessionId::LEN + 1 + END_DIGITS;
        for session in verified(headers, &self.session, lengths, SessionCookie::parse) {
            match session {
                Ok(session) => incoming.sessions.push(session),
                Err(anomaly) => incoming.anomalies.push(anomaly),
            }
            if incoming.sessions.len() == LOOKED_UP {
                break;
            }
        }
        incoming
    }

    /// Sets the client cookie.
    pub(super) fn set_client(
        &self,
        headers: &mut HeaderMap,
        id: &ClientId,
        age: Duration,
        secure: bool,
    ) {
        self.set(headers, &self.client, id.as_str(), Some(age), secure);
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
                let ends = now().saturating_add(age).as_secs();
                format!("{}.{ends}", id.as_str())
            }
            None => id.as_str().to_owned(),
        };
        self.set(headers, &self.session, &value, age, secure);
    }

    /// Clears the session cookie, with the attributes that it was set with.
    pub(super) fn clear_session(&self, headers: &mut HeaderMap, secure: bool) {
        let cookie = self
            .attributes(self.session.name(), String::new(), secure)
            .max_age(cookie::time::Duration::ZERO)
            .expires(OffsetDateTime::UNIX_EPOCH);
        append(headers, &cookie.build());
    }

    fn set(
        &self,
        headers: &mut HeaderMap,
        ring: &KeyRing,
        value: &str,
        age: Option<Duration>,
        secure: bool,
    ) {
        let mut cookie = self.attributes(ring.name(), ring.sign(value), secure);
        if let Some(age) = age {
            // Rounded up: a cookie with half a second to go is not to be cleared by `Max-Age=0`.
            let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
            let age = cookie::time::Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
            cookie = cookie.max_age(age).expires(OffsetDateTime::now_utc().saturating_add(age));
        }
        append(headers, &cookie.build());
    }

    fn attributes(&self, name: &str, value: String, secure: bool) -> CookieBuilder<'static> {
        let mut cookie = Cookie::build((name.to_owned(), value))
            .path(self.path.clone())
            .http_only(self.http_only)
            .same_site(self.same_site);
        if secure {
            cookie = cookie.secure(true);
        }
        match &self.domain {
            Some(domain) => cookie.domain(domain.clone()),
            None => cookie,
        }
    }
}

fn append(headers: &mut HeaderMap, cookie: &Cookie<'_>) {
    // Names, values and attributes were checked to be visible ASCII.
    if let Ok(value) = HeaderValue::try_from(cookie.to_string()) {
        headers.append(SET_COOKIE, value);
    }
}

/// The cookies of this name that verify and hold what is wanted, and what is wrong with others.
fn verified<'a, T>(
    headers: &'a HeaderMap,
    ring: &'a KeyRing,
    lengths: RangeInclusive<usize>,
    parse: impl Fn(&str) -> Option<T> + 'a,
) -> impl Iterator<Item = Result<Verified<T>, Anomaly>> + 'a {
    values(headers, ring.name()).take(CANDIDATES).filter_map(move |value| {
        // Nothing but ASCII of the right length is worth a signature's check.
        let text = std::str::from_utf8(value).ok().filter(|text| {
            let length = text.len().checked_sub(ring.overhead());
            text.is_ascii() && length.is_some_and(|length| lengths.contains(&length))
        });
        match text.and_then(|text| ring.verify(text)) {
            Some((text, stale)) => Some(match parse(&text) {
                Some(value) => Ok(Verified { value, stale }),
                None => Err(Anomaly::MalformedId),
            }),
            // An emptied cookie is what a browser sends that keeps cleared ones for a while.
            None if value.is_empty() => None,
            None => Some(Err(Anomaly::BadSignature)),
        }
    })
}

/// The values of all cookies of this name, over all `Cookie` headers, as bytes: one foreign
/// cookie that is no ASCII must not hide ours.
fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
            Some(quoted.unwrap_or(value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
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
        kit.set_client(&mut set, &client, Duration::from_secs(60), false);
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
    fn the_first_four_cookies_that_verify_count_in_their_order() {
        let kit = kit();
        let ids: Vec<SessionId> = (0..6).map(|_| SessionId::generate()).collect();
        let mut line = String::from("app.sid=junk");
        for id in &ids {
            line.push_str(&format!("; app.sid={}", kit.session.sign(id.as_str())));
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
            let signed = kit.session.sign(&format!("{}.{end}", id.as_str()));
            let line = format!("app.sid={signed}");
            assert_eq!(session_of(&kit, line.as_bytes()), None, "{end:?}");
        }
    }

    #[test]
    fn cookies_are_found_between_junk_and_over_several_lines() {
        let kit = kit();
        let id = SessionId::generate();
        let ours = format!("app.sid={}", kit.session.sign(id.as_str()));
        let mut line = b";;; =x; \xff\xfe=\x80; nameless; xapp.sid=1;app.sid.cid=2; ".to_vec();
        line.extend(ours.as_bytes());
        assert_eq!(session_of(&kit, &line), Some(id));
        let lines = headers(&[b"a=1", ours.as_bytes(), b"b=2"]);
        assert_eq!(kit.read(&lines).sessions[0].value.id, id);
    }

    #[test]
    fn another_cookies_value_is_refused_and_counted() {
        let kit = kit();
        let line = format!("app.sid={}", kit.client.sign(ClientId::generate().as_str()));
        let incoming = kit.read(&headers(&[line.as_bytes()]));
        assert_eq!(incoming.sessions, []);
        assert_eq!(incoming.anomalies, [Anomaly::BadSignature]);
    }

    #[test]
    fn a_signed_value_that_is_no_id_is_refused() {
        let kit = kit();
        let almost = format!("{}*", "A".repeat(42));
        let line = format!("app.sid={}", kit.session.sign(&almost));
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
            let ours = format!("; app.sid={}; ", kit.session.sign(id.as_str()));
            let mut line = [&before[..], ours.as_bytes(), &after[..]].concat();
            line.retain(|byte| *byte != 0x7f);
            prop_assert_eq!(session_of(&kit, &line), Some(id));
        }

        #[test]
        fn a_truncated_or_extended_cookie_is_refused(cut in 0usize..87, tail in "[A-Za-z0-9=]{0,4}") {
            let kit = kit();
            let signed = kit.session.sign(SessionId::generate().as_str());
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

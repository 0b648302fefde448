//! `Set-Cookie` lines of one cookie.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use cookie::time::OffsetDateTime;
use cookie::{Cookie, CookieBuilder, SameSite};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use httpdate::HttpDate;

use super::session_cookie::now;
use crate::web::signing::Signature;

/// The last second that a date can name: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The attributes that both cookies have.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) path: String,
    pub(super) domain: Option<String>,
    pub(super) http_only: bool,
    pub(super) same_site: SameSite,
}

/// The lines of one cookie, with everything formatted once that is the same in all of them.
#[derive(Debug)]
pub(super) struct Lines {
    /// `name=`.
    begin: String,
    plain: Ending,
    secure: Ending,
    life: Mutex<Life>,
}

/// How long a cookie lives, as the last line said it: most lines of a second say the same.
#[derive(Debug, Default)]
struct Life {
    seconds: u64,
    /// Seconds since the Unix epoch.
    expires: u64,
    /// `Max-Age` and `Expires`.
    attributes: String,
}

/// What follows the value, with or without `Secure`.
#[derive(Debug)]
struct Ending {
    attributes: String,
    /// The whole line that clears the cookie.
    clear: HeaderValue,
}

impl Lines {
    pub(super) fn new(name: &str, attributes: &Attributes) -> Self {
        Self {
            begin: format!("{name}="),
            plain: Ending::new(name, attributes, false),
            secure: Ending::new(name, attributes, true),
            life: Mutex::default(),
        }
    }

    fn ending(&self, secure: bool) -> &Ending {
        if secure { &self.secure } else { &self.plain }
    }

    /// Sets the cookie to a signature and a value; without an age it ends with the browser.
    pub(super) fn set(
        &self,
        headers: &mut HeaderMap,
        signature: Option<Signature>,
        value: &str,
        age: Option<Duration>,
        secure: bool,
    ) {
        let life = age.map(|age| self.life(age));
        let parts = [
            self.begin.as_str(),
            signature.as_ref().map_or("", Signature::as_str),
            value,
            &self.ending(secure).attributes,
            life.as_ref().map_or("", |life| life.attributes.as_str()),
        ];
        // A text without room to spare becomes a header value as it is.
        let mut line = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            line.push_str(part);
        }
        drop(life);
        // Names, values and attributes were checked to be visible ASCII.
        if let Ok(line) = HeaderValue::try_from(line) {
            headers.append(SET_COOKIE, line);
        }
    }

    /// What says that the cookie lives this long from now.
    fn life(&self, age: Duration) -> MutexGuard<'_, Life> {
        // Rounded up: a cookie with half a second to go is not to be cleared by `Max-Age=0`.
        let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
        let expires = now().as_secs().saturating_add(seconds).min(LAST_SECOND);
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if life.attributes.is_empty() || (life.seconds, life.expires) != (seconds, expires) {
            let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(expires));
            life.attributes.clear();
            // A string takes everything.
            let _ = write!(life.attributes, "; Max-Age={seconds}; Expires={date}");
            (life.seconds, life.expires) = (seconds, expires);
        }
        life
    }

    /// Clears the cookie, with the attributes that it was set with.
    pub(super) fn clear(&self, headers: &mut HeaderMap, secure: bool) {
        headers.append(SET_COOKIE, self.ending(secure).clear.clone());
    }
}

impl Ending {
    fn new(name: &str, attributes: &Attributes, secure: bool) -> Self {
        let line = attributes.cookie(name, secure).build().to_string();
        let clear = attributes
            .cookie(name, secure)
            .max_age(cookie::time::Duration::ZERO)
            .expires(OffsetDateTime::UNIX_EPOCH)
            .build()
            .to_string();
        Self {
            attributes: line.get(name.len() + 1..).unwrap_or_default().to_owned(),
            // Checked to be visible ASCII, as above.
            clear: HeaderValue::try_from(clear).unwrap_or(HeaderValue::from_static("")),
        }
    }
}

impl Attributes {
    /// A cookie without a value.
    fn cookie(&self, name: &str, secure: bool) -> CookieBuilder<'static> {
        let mut cookie = Cookie::build((name.to_owned(), ""))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(headers: &HeaderMap) -> &str {
        headers[SET_COOKIE].to_str().unwrap()
    }

    #[test]
    fn lines_are_those_of_the_cookie_crate() {
        for same_site in [SameSite::Lax, SameSite::Strict, SameSite::None] {
            for (domain, http_only) in [(None, true), (Some("a.b".to_owned()), false)] {
                let attributes = Attributes { path: "/x".into(), domain, http_only, same_site };
                let lines = Lines::new("sid", &attributes);
                for secure in [false, true] {
                    let expected = attributes.cookie("sid", secure).build();
                    let mut expected = expected.clone();
                    expected.set_value("value");
                    let mut headers = HeaderMap::new();
                    lines.set(&mut headers, None, "value", None, secure);
                    assert_eq!(line(&headers), expected.to_string());

                    let mut headers = HeaderMap::new();
                    lines.clear(&mut headers, secure);
                    expected.set_value("");
                    expected.set_max_age(cookie::time::Duration::ZERO);
                    expected.set_expires(OffsetDateTime::UNIX_EPOCH);
                    assert_eq!(line(&headers), expected.to_string());
                }
            }
        }
    }

    #[test]
    fn an_age_is_rounded_up_and_its_date_is_that_much_from_now() {
        let attributes = Attributes {
            path: "/".into(),
            domain: None,
            http_only: true,
            same_site: SameSite::Lax,
        };
        let lines = Lines::new("sid", &attributes);
        for (millis, seconds) in [(1, 1), (1000, 1), (1001, 2), (400 * 86_400_000, 400 * 86_400)] {
            let before = now().as_secs();
            let mut headers = HeaderMap::new();
            lines.set(&mut headers, None, "v", Some(Duration::from_millis(millis)), false);
            let parsed = Cookie::parse(line(&headers).to_owned()).unwrap();
            assert_eq!(parsed.max_age().unwrap().whole_seconds(), seconds);
            let date = parsed.expires_datetime().unwrap().unix_timestamp();
            let earliest = i64::try_from(before).unwrap() + seconds;
            assert!((earliest..earliest + 5).contains(&date), "{}", line(&headers));
        }
        let mut headers = HeaderMap::new();
        lines.set(&mut headers, None, "v", Some(Duration::from_secs(u64::MAX)), false);
        assert!(line(&headers).ends_with("Expires=Fri, 31 Dec 9999 23:59:59 GMT"));
    }

    proptest! {
        #[test]
        fn dates_are_those_of_the_cookie_crate(second in 0..=LAST_SECOND) {
            let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second)).to_string();
            let time = OffsetDateTime::from_unix_timestamp(i64::try_from(second).unwrap()).unwrap();
            let cookie = Cookie::build(("a", "")).expires(time).build().to_string();
            prop_assert_eq!(cookie, format!("a=; Expires={date}"));
        }
    }
}

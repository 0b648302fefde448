//! What a response says about caches (RFC 9111, RFC 9213).

use http::header::{CACHE_CONTROL, EXPIRES, PRAGMA, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::list::split_outside_quotes;

/// Fields that one kind of shared cache obeys in place of `Cache-Control`.
static TARGETED: [HeaderName; 3] = [
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("cloudflare-cdn-cache-control"),
];

const PRIVATE: HeaderValue = HeaderValue::from_static("private");
const PRIVATE_NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store");

/// Directives that make no cache keep more than `private, no-store` does. `must-understand` is not
/// one: it makes caches ignore `no-store`.
const NEUTRAL: [&str; 4] = ["no-cache", "must-revalidate", "proxy-revalidate", "no-transform"];

/// Whether the response allows shared caches to keep it.
pub(super) fn is_shareable(headers: &HeaderMap) -> bool {
    if !mentions_caches(headers) {
        return false;
    }
    let untargeted = Control::of(headers, &CACHE_CONTROL);
    let expires = headers.contains_key(EXPIRES);
    let kept = (untargeted.keeps || expires) && !untargeted.forbids;
    // Another cache on the way may obey `Cache-Control`: one field that allows it is enough.
    kept || TARGETED.iter().any(|name| {
        let targeted = Control::of(headers, name);
        targeted.keeps && !targeted.forbids
    })
}

/// Whether the response has no field about caches.
pub(super) fn is_silent(headers: &HeaderMap) -> bool {
    if !mentions_caches(headers) {
        return true;
    }
    let named = |name| headers.contains_key(name);
    directives(headers, &CACHE_CONTROL).next().is_none()
        && ![EXPIRES, PRAGMA].iter().chain(&TARGETED).any(named)
}

/// Whether there is any field that is about caches. Most responses have none, and few fields at all:
/// to go through these is cheaper than to look for each field that there might be.
fn mentions_caches(headers: &HeaderMap) -> bool {
    let own = |name: &HeaderName| *name == CACHE_CONTROL || *name == EXPIRES || *name == PRAGMA;
    headers.keys().any(|name| own(name) || TARGETED.contains(name))
}

/// Keeps the response out of every cache, because it sets the session cookie. Stricter and neutral
/// directives of the handler stay; extensions don't, for they may mean anything.
pub(super) fn make_private_no_store(headers: &mut HeaderMap) {
    if is_silent(headers) {
        headers.insert(CACHE_CONTROL, PRIVATE_NO_STORE);
        return;
    }
    let mut text = String::from("private, no-store");
    for name in NEUTRAL {
        if directives(headers, &CACHE_CONTROL).any(|directive| directive.is(name)) {
            text.push_str(", ");
            text.push_str(name);
        }
    }
    let value = HeaderValue::try_from(text).unwrap_or(PRIVATE_NO_STORE);
    headers.insert(CACHE_CONTROL, value);
    headers.remove(EXPIRES);
    for name in &TARGETED {
        headers.remove(name);
    }
}

/// Keeps the response out of shared caches if the handler did not decide about caches.
pub(super) fn make_private(headers: &mut HeaderMap) {
    if is_silent(headers) {
        headers.insert(CACHE_CONTROL, PRIVATE);
    }
}

/// Adds `Vary: Cookie`.
pub(super) fn vary_by_cookie(headers: &mut HeaderMap) {
    let mut names = headers.get_all(VARY).iter().flat_map(|line| line.as_bytes().split(is_comma));
    let varies = names.any(|name| {
        let name = name.trim_ascii();
        name == b"*" || name.eq_ignore_ascii_case(b"cookie")
    });
    if !varies {
        headers.append(VARY, HeaderValue::from_static("Cookie"));
    }
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}

/// What one field says to shared caches.
#[derive(Default)]
struct Control {
    keeps: bool,
    forbids: bool,
}

impl Control {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Self {
        let mut control = Self::default();
        for directive in directives(headers, name) {
            let is = |name| directive.is(name);
            control.keeps |= ["public", "s-maxage", "immutable", "max-age"].into_iter().any(is);
            // With an argument these are about single headers.
            control.forbids |= !directive.qualified && ["private", "no-store"].into_iter().any(is);
        }
        control
    }
}

struct Directive<'a> {
    name: &'a [u8],
    qualified: bool,
}

impl Directive<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

fn directives<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Directive<'a>> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let parts = lines.flat_map(|line| split_outside_quotes(line, b','));
    parts.filter(|part| !part.is_empty()).map(|part| {
        let equals = part.iter().position(|byte| *byte == b'=');
        let name = part.get(..equals.unwrap_or(part.len())).unwrap_or_default();
        Directive { name: name.trim_ascii(), qualified: equals.is_some() }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Headers from lines `name: value`, with several lines separated by `|`.
    fn headers(lines: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines.split('|').filter_map(|line| line.split_once(':')) {
            let value = HeaderValue::from_bytes(value.trim().as_bytes()).unwrap();
            headers.append(http::HeaderName::try_from(name).unwrap(), value);
        }
        headers
    }

    fn private_no_store(lines: &str) -> String {
        let mut headers = headers(lines);
        make_private_no_store(&mut headers);
        let lines: Vec<_> = headers.get_all(CACHE_CONTROL).iter().collect();
        assert_eq!(lines.len(), 1);
        assert!(!is_shareable(&headers) && !headers.contains_key(EXPIRES));
        assert!(TARGETED.iter().all(|name| !headers.contains_key(name)));
        lines[0].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_response_that_shared_caches_may_keep_is_shareable() {
        for lines in [
            "cache-control: public",
            "cache-control: no-transform, S-MaxAge=0",
            "cache-control: immutable",
            "cache-control: max-age = 5",
            "expires: 0",
            "cache-control: private=\"set-cookie, x\", max-age=5",
            "cache-control: é, public",
            "cache-control: no-cache|cache-control: PUBLIC",
            "cache-control: x=\", public",
            "cache-control: no-cache|expires: 0",
            "cache-control: public, x=\"private, no-store\"",
            "cache-control: no-store|surrogate-control: max-age=5, content=\"ESI/1.0\"",
            "cache-control: private|cdn-cache-control: public",
            "cache-control: public|cdn-cache-control: no-store",
            "cdn-cache-control: no-store|cloudflare-cdn-cache-control: max-age=1",
        ] {
            assert!(is_shareable(&headers(lines)), "{lines}");
        }
    }

    #[test]
    fn other_responses_are_not_shareable() {
        for lines in [
            "",
            "cache-control:",
            "cache-control: no-cache",
            "cache-control: private, max-age=5",
            "cache-control: public|cache-control: No-Store",
            "expires: 0|cache-control: private",
            "cache-control: x=\"public, max-age=1\"",
            "cache-control: private=\"x\"",
            "cache-control: publicity, x-max-age=1, é",
            "pragma: public",
            "cdn-cache-control: max-age=5, no-store",
            "surrogate-control: content=\"ESI/1.0\"",
        ] {
            assert!(!is_shareable(&headers(lines)), "{lines}");
        }
    }

    #[test]
    fn only_a_silent_response_becomes_private() {
        for lines in ["", "cache-control: ,", "vary: cookie|etag: \"a\""] {
            let mut headers = headers(lines);
            make_private(&mut headers);
            assert_eq!(headers[CACHE_CONTROL], "private", "{lines}");
        }
        for lines in [
            "cache-control: x",
            "expires: 0",
            "pragma: no-cache",
            "surrogate-control: x",
            "cdn-cache-control: x",
            "cloudflare-cdn-cache-control: x",
        ] {
            let before = headers(lines);
            let mut after = before.clone();
            make_private(&mut after);
            assert_eq!(before, after, "{lines}");
        }
    }

    #[test]
    fn a_session_cookie_keeps_what_is_not_weaker_than_no_store() {
        for (lines, left) in [
            ("", ""),
            ("cache-control: public, s-maxage=9, max-age=9, immutable, stale-if-error=9", ""),
            ("cache-control: no-store, private, must-understand, x, é=\"no-cache\"", ""),
            ("cache-control: private=\"x\"|expires: 0|cdn-cache-control: max-age=9", ""),
            ("surrogate-control: public|cloudflare-cdn-cache-control: public", ""),
            ("cache-control: NO-CACHE|cache-control: public, no-cache", ", no-cache"),
            ("cache-control: no-transform, must-revalidate", ", must-revalidate, no-transform"),
            ("cache-control: proxy-revalidate, no-cache=\"x\"", ", no-cache, proxy-revalidate"),
        ] {
            assert_eq!(private_no_store(lines), format!("private, no-store{left}"), "{lines}");
        }
        let mut pragma = headers("pragma: no-cache");
        make_private_no_store(&mut pragma);
        assert_eq!(pragma[PRAGMA], "no-cache");
    }

    #[test]
    fn vary_gets_cookie_once() {
        for (lines, added) in [
            ("", true),
            ("vary: origin, x-cookie", true),
            ("vary: é", true),
            ("vary: COOKIE", false),
            ("vary: origin|vary: accept ,cookie", false),
            ("vary: *", false),
            ("vary: origin, *", false),
        ] {
            let mut headers = headers(lines);
            let before = headers.get_all(VARY).iter().count();
            for _ in 0..2 {
                vary_by_cookie(&mut headers);
                let count = headers.get_all(VARY).iter().count();
                assert_eq!(count, before + usize::from(added), "{lines}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_response_with_a_session_cookie_is_shareable(
            lines in proptest::collection::vec("(cache-control|expires|cdn-cache-control):(public|max-age|no-cache|must-understand|[=,\"\\\\ xé]){0,6}", 0..4),
        ) {
            prop_assert!(private_no_store(&lines.join("|")).starts_with("private, no-store"));
        }
    }
}

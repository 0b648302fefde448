//! Cross-origin protection: refuses requests that a page of another origin made a browser send.
//!
//! The rule is that of `CrossOriginProtection` in Go's `net/http`: `Sec-Fetch-Site` decides if it
//! is there, else `Origin` must name the host of the request. A request with neither header does
//! not come from a browser and passes. Beyond Go's rule, requests of Engine.IO and upgrades are checked
//! with every method, because cookies alone open a socket and CORS does not cover WebSockets.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::authority::Origin;
use crate::error::{Error, Result};

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which requests of other origins pass.
#[derive(Debug, Clone)]
pub(crate) struct OriginPolicy {
    /// Normalised by [`check_allowed`](Self::check_allowed).
    pub(crate) allowed: Vec<String>,
    /// Normalised by [`check_exempt`](Self::check_exempt).
    pub(crate) exempt: Vec<String>,
    /// Whether requests with unsafe methods are checked.
    pub(crate) requests: bool,
    /// Whether requests of Engine.IO are checked.
    pub(crate) sockets: bool,
}

impl Default for OriginPolicy {
    fn default() -> Self {
        Self { allowed: Vec::new(), exempt: Vec::new(), requests: true, sockets: true }
    }
}

/// What a request says about where it comes from and where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestOrigin<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// The authority of the URI, which HTTP/2 has in place of `Host`.
    pub(crate) authority: Option<&'a str>,
    /// The host that a trusted proxy received.
    pub(crate) forwarded_host: Option<&'a str>,
    /// It opens or uses a socket: a request of Engine.IO, or an upgrade.
    pub(crate) socket: bool,
    /// It belongs to a connection of Engine.IO that was admitted. Its query alone says nothing.
    pub(crate) connected: bool,
}

impl OriginPolicy {
    /// Checks what the options say, and normalises it.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.allowed = Self::check_allowed(&self.allowed)?;
        self.exempt = Self::check_exempt(&self.exempt)?;
        Ok(())
    }

    /// Checks and normalises the option `allowed_origins`.
    fn check_allowed(origins: &[String]) -> Result<Vec<String>> {
        let normalise = |text: &String| match Origin::parse(text) {
            Some(origin) => Ok(origin.to_string()),
            None => Err(Error::option(
                "allowed_origins",
                format_args!("{text:?}"),
                "origins in ASCII such as https://example.com or http://localhost:3000: a scheme, a host and perhaps a port, without path, wildcard or user",
            )),
        };
        origins.iter().map(normalise).collect()
    }

    /// Checks and normalises the option `origin_exempt_paths`.
    fn check_exempt(paths: &[String]) -> Result<Vec<String>> {
        let normalise = |text: &String| {
            let path = text.strip_suffix('/').unwrap_or(text);
            let plain = path.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
            // The root alone would switch the checks off, for which there are options.
            if path.starts_with('/') && plain && !is_ambiguous(text) {
                return Ok(path.to_owned());
            }
            Err(Error::option(
                "origin_exempt_paths",
                format_args!("{text:?}"),
                "paths in ASCII such as /hooks: below /, and without ? # .. // \\ or escapes of dots and slashes",
            ))
        };
        paths.iter().map(normalise).collect()
    }

    /// Whether the request must be answered with 403.
    pub(crate) fn refuses(&self, request: &RequestOrigin<'_>) -> bool {
        let of_socket = request.socket && self.sockets;
        let of_request = self.requests && !request.method.is_safe() && !request.connected;
        (of_socket || of_request) && !self.exempts(request.path) && !self.passes(request)
    }

    fn passes(&self, request: &RequestOrigin<'_>) -> bool {
        let headers = request.headers;
        let origin = only(headers, &ORIGIN).and_then(Origin::parse);
        let allowed = || origin.as_ref().is_some_and(|origin| self.allows(origin));
        let mut sites = headers.get_all(&SEC_FETCH_SITE).iter().map(HeaderValue::as_bytes);
        if let Some(site) = sites.next() {
            let own = matches!(site, b"same-origin" | b"none") && sites.all(|other| other == site);
            return own || allowed();
        }
        if !headers.contains_key(ORIGIN) {
            return true;
        }
        let host = request.host();
        let own = origin.as_ref().zip(host).is_some_and(|(origin, host)| origin.is_at(host));
        own || allowed()
    }

    fn allows(&self, origin: &Origin) -> bool {
        let origin = origin.to_string();
        self.allowed.contains(&origin)
    }

    fn exempts(&self, path: &str) -> bool {
        let covers = |exempt: &String| {
            let rest = path.strip_prefix(exempt.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.exempt.iter().any(covers) && !is_ambiguous(path)
    }
}

impl<'a> RequestOrigin<'a> {
    /// The host that the browser asked. Behind a proxy `Host` may be an internal name, which a
    /// page on the browser's own machine could have too: it counts only if nothing better is known.
    fn host(&self) -> Option<&'a str> {
        self.forwarded_host.or(self.authority).or_else(|| only(self.headers, &HOST))
    }
}

/// The value of a header with exactly one line of visible ASCII.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

/// Whether a proxy or a handler behind this layer may resolve the path to one elsewhere.
fn is_ambiguous(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    ["..", "//", "\\", "%2e", "%2f", "%5c"].iter().any(|trick| path.contains(trick))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> OriginPolicy {
        let allowed = ["https://Friend.example:443", "capacitor://localhost", "http://[0::1]:3000"];
        let allowed = OriginPolicy::check_allowed(&allowed.map(String::from)).unwrap();
        let exempt = OriginPolicy::check_exempt(&["/hooks/".into(), "/a/b".into()]).unwrap();
        OriginPolicy { allowed, exempt, ..OriginPolicy::default() }
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::try_from(*name).unwrap(), value);
        }
        headers
    }

    fn post(headers: &HeaderMap) -> RequestOrigin<'_> {
        RequestOrigin {
            method: &Method::POST,
            path: "/",
            headers,
            authority: None,
            forwarded_host: None,
            socket: false,
            connected: false,
        }
    }

    fn refuses(lines: &[(&str, &str)]) -> bool {
        policy().refuses(&post(&headers(lines)))
    }

    #[test]
    fn allowed_origins_are_normalised_and_checked() {
        let allowed = ["https://friend.example", "capacitor://localhost", "http://[::1]:3000"];
        assert_eq!(policy().allowed, allowed);
        for text in ["*", "null", "https://*.example.com", "https://example.com/"] {
            let error = OriginPolicy::check_allowed(&[text.into()]).unwrap_err();
            assert!(error.to_string().contains("`allowed_origins` is"), "{text}: {error}");
        }
    }

    #[test]
    fn exempt_paths_are_normalised_and_checked() {
        assert_eq!(policy().exempt, ["/hooks", "/a/b"]);
        let bad = "/ // a /a?b /a#b /a/../b /a//b /a/ä /a/%2E/b /a\\b";
        for text in bad.split(' ').chain(["", "/a b"]) {
            assert!(OriginPolicy::check_exempt(&[text.into()]).is_err(), "{text}");
        }
    }

    #[test]
    fn safe_methods_are_checked_for_sockets_only() {
        let headers = headers(&[("origin", "null")]);
        let off = OriginPolicy { requests: false, sockets: false, ..OriginPolicy::default() };
        for name in ["GET", "HEAD", "OPTIONS", "TRACE", "POST", "DELETE", "get", "CONNECT"] {
            let method = &name.parse().unwrap();
            let request = RequestOrigin { method, ..post(&headers) };
            let safe = ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&name);
            assert_eq!(policy().refuses(&request), !safe, "{name}");
            let socket = RequestOrigin { socket: true, connected: true, ..request };
            assert!(policy().refuses(&socket), "{name}");
            assert!(!off.refuses(&request) && !off.refuses(&socket));
        }
    }

    #[test]
    fn sec_fetch_site_decides_before_origin() {
        const SITE: &str = "sec-fetch-site";
        for site in ["same-origin", "none"] {
            assert!(!refuses(&[(SITE, site), ("origin", "https://evil.com"), ("host", "a.b")]));
            assert!(!refuses(&[(SITE, site), (SITE, site)]));
            assert!(refuses(&[(SITE, site), (SITE, "cross-site")]));
        }
        for site in ["same-site", "cross-site", "", "Same-Origin", "same-origin, none", "ä"] {
            assert!(refuses(&[(SITE, site)]), "{site}");
            assert!(refuses(&[(SITE, site), ("origin", "http://a.b"), ("host", "a.b")]));
            assert!(!refuses(&[(SITE, site), ("origin", "https://friend.example")]));
        }
    }

    #[test]
    fn without_sec_fetch_site_the_origin_must_name_the_host() {
        for (origin, refused) in [
            ("http://a.b:443", false),
            ("https://friend.example", false),
            ("capacitor://localhost", false),
            ("http://a.b", true),
            ("null", true),
            ("https://ä", true),
            ("https://friend.example.evil", true),
            ("https://friend.example:4430", true),
            ("https://a.b https://a.b", true),
        ] {
            let lines = [("origin", origin), ("host", "a.b:443")];
            assert_eq!(refuses(&lines), refused, "{origin}");
        }
        let (origin, host) = (("origin", "https://a.b"), ("host", "a.b"));
        assert!(!refuses(&[]) && !refuses(&[origin, host]) && refuses(&[origin]));
        assert!(refuses(&[origin, host, host]) && refuses(&[origin, origin, host]));
    }

    #[test]
    fn a_trusted_proxy_and_the_uri_know_the_host_better_than_the_header() {
        let headers = headers(&[("origin", "https://a.b"), ("host", "a.b")]);
        let hosts = |authority, forwarded_host| {
            policy().refuses(&RequestOrigin { authority, forwarded_host, ..post(&headers) })
        };
        assert!(!hosts(None, None) && !hosts(Some("a.b"), None) && !hosts(Some("c"), Some("a.b")));
        assert!(hosts(Some("c"), None) && hosts(Some("a.b"), Some("c")) && hosts(None, Some("")));
    }

    #[test]
    fn exempt_paths_cover_what_is_below_them_and_nothing_else() {
        let headers = headers(&[("sec-fetch-site", "cross-site")]);
        let exempt = "/hooks /hooks/ /hooks/x/y /a/b /hooks/%61";
        let others = "/ /hook /hooksx /Hooks /a /x/hooks * /hooks/../admin /hooks//x /hooks/%2E%2e/a \
            /hooks/%2fx /hooks/.. /hooks\\..\\admin /hooks%5Cx /hooks/%5cx";
        for (paths, refused) in [(exempt, false), (others, true)] {
            for path in paths.split(' ') {
                for socket in [false, true] {
                    let request = RequestOrigin { path, socket, ..post(&headers) };
                    assert_eq!(policy().refuses(&request), refused, "{path}");
                }
            }
        }
    }
}

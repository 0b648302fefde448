//! Origins and the hosts that requests name.

use std::fmt;
use std::net::Ipv6Addr;

/// An origin in lower case, without the default port of its scheme.
#[derive(Debug)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let in_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(in_scheme)
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(authority)?;
        let port = port.filter(|port| default_port(&scheme) != Some(*port));
        Some(Self { scheme, host, port })
    }

    /// Whether the request that names this host has this origin. Its scheme is not compared: behind
    /// a proxy it is not known. Pages of other schemes than these two never have it.
    pub(super) fn is_at(&self, host: &str) -> bool {
        let Some(default) = default_port(&self.scheme) else { return false };
        host_and_port(host).is_some_and(|(host, port)| {
            host == self.host && port.unwrap_or(default) == self.port.unwrap_or(default)
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        let in_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(in_name) {
            return None;
        }
        (name.to_ascii_lowercase(), port)
    };
    if port.is_empty() {
        return Some((host, None));
    }
    // The standard parser would take a sign.
    let digits = port.strip_prefix(':').filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?;
    let port = digits.parse().ok().filter(|port| *port != 0)?;
    Some((host, Some(port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normalised(text: &str) -> Option<String> {
        Origin::parse(text).map(|origin| origin.to_string())
    }

    fn is_at(origin: &str, host: &str) -> bool {
        Origin::parse(origin).unwrap().is_at(host)
    }

    #[test]
    fn origins_are_normalised() {
        for (text, origin) in [
            ("HTTPS://A.b:443", "https://a.b"),
            ("http://a_b.c:080", "http://a_b.c"),
            ("http://a:443", "http://a:443"),
            ("http://[0::1]:80", "http://[::1]"),
            ("chrome-extension://abc", "chrome-extension://abc"),
            ("app+x.y-1://a:80", "app+x.y-1://a:80"),
        ] {
            assert_eq!(normalised(text).unwrap(), origin);
        }
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        let bad = "null * https:// https://*.a.b https://.a.b https://a/ https://a/b https://a?b \
            https://u@a https://a: https://a:0 https://a:65536 https://a:+80 https://a:8:0 a.b //a \
            https://ä.b ://a 1s://a https://[::1 https://[::g] https://[::1]a https://::1 a_b://c";
        for text in bad.split(' ').chain(["", "https://a b"]) {
            assert_eq!(normalised(text), None, "{text}");
        }
    }

    #[test]
    fn an_origin_is_at_the_host_with_its_name_and_port() {
        let own =
            "https://A.b a.B:443|http://a.b a.b:80|http://a.b:81 a.b:81|http://[::1] [0::1]:80";
        let foreign = "https://a.b a.b:80|https://a.b:8443 a.b|https://a.b b|https://b a.b\
            |https://a.b.evil a.b|http://a:3000 a:30000|http://[::1] [::2]|https://a.b u@a.b\
            |app://a a|app://a:1 a:1|https://a.b |https://a.b a.b/|https://a.b a.b:";
        for (pairs, expected) in [(own, true), (foreign, false)] {
            for (origin, host) in pairs.split('|').filter_map(|pair| pair.split_once(' ')) {
                assert_eq!(is_at(origin, host), expected, "{origin} {host}");
            }
        }
    }

    proptest! {
        #[test]
        fn normalised_origins_stay_as_they_are(
            text in "[a-zA-Z]{1,3}://([a-zA-Z.:0-9]{1,8}|\\[[0-9:]{2,6}\\]:?[0-9]{0,5})",
        ) {
            if let Some(once) = normalised(&text) {
                prop_assert_eq!(normalised(&once).unwrap(), once);
            }
        }

        #[test]
        fn a_longer_or_shorter_host_is_another_host(
            host in "[a-z]{1,5}\\.[a-z]{2,5}(:[1-9][0-9]{2,3})?", more in "[a-z0-9.]{1,3}",
        ) {
            let at = |origin: &str, host: &str| {
                Origin::parse(&format!("https://{origin}")).is_some_and(|origin| origin.is_at(host))
            };
            prop_assert!(at(&host, &host));
            for other in [format!("{host}{more}"), format!("{more}{host}"), host[1..].into()] {
                prop_assert!(!at(&other, &host) && !at(&host, &other), "{}", other);
            }
        }
    }
}

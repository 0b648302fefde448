//! What trusted proxies say about the request that they received.

use std::borrow::Cow;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::list::split_outside_quotes;

static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How the browser reached the outermost trusted proxy.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Forwarded<'a> {
    pub(super) https: bool,
    pub(super) host: Option<Cow<'a, str>>,
}

/// What `trusted` proxies say.
///
/// Each proxy appends an entry at the right end, so the one that counts is the `trusted`-th from
/// the right: everything left of it may come from the client. If there are fewer, the first counts,
/// for proxies that overwrite. Malformed entries count as entries that say nothing.
///
/// Proxies that set `X-Forwarded-*` often pass on a client's `Forwarded`, and the other way round.
/// Where the two disagree, the safer reading counts: the request did not come by https, which leaves
/// `Secure` off, and the host is not known, which leaves it to `Host`.
pub(super) fn forwarded(headers: &HeaderMap, trusted: usize) -> Forwarded<'_> {
    if trusted == 0 {
        return Forwarded::default();
    }
    let proto = last_of(plain_entries(headers, &PROTO), trusted).and_then(is_secure);
    let host =
        last_of(plain_entries(headers, &HOST), trusted).and_then(|host| as_host(host.into()));
    let standard = last_of(standard_entries(headers), trusted).unwrap_or_default();
    let https = match (proto, standard.https) {
        (Some(a), Some(b)) => a && b,
        (a, b) => a.or(b).unwrap_or(false),
    };
    let host = match (host, standard.host) {
        (Some(a), Some(b)) => Some(a).filter(|a| a.eq_ignore_ascii_case(&b)),
        (a, b) => a.or(b),
    };
    Forwarded { https, host }
}

/// Whether a proxy, trusted or not, says that the request came by https.
pub(super) fn claims_https(headers: &HeaderMap) -> bool {
    plain_entries(headers, &PROTO).any(|proto| is_secure(proto) == Some(true))
        || standard_entries(headers).any(|entry| entry.https == Some(true))
}

/// The `trusted`-th of entries that come from the right, or the leftmost of fewer.
fn last_of<T>(entries: impl Iterator<Item = T>, trusted: usize) -> Option<T> {
    entries.take(trusted).last()
}

/// The entries from the right. An empty one counts: to skip it would move the place that is trusted
/// to the left, towards the client.
fn plain_entries<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter().rev().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// One entry of RFC 7239, as far as it is of use here.
#[derive(Default)]
struct Entry<'a> {
    https: Option<bool>,
    host: Option<Cow<'a, str>>,
}

/// The entries of `Forwarded` from the right.
fn standard_entries(headers: &HeaderMap) -> impl Iterator<Item = Entry<'_>> {
    let lines = headers.get_all(FORWARDED).iter().rev().map(HeaderValue::as_bytes);
    lines.flat_map(|line| {
        let entries: Vec<_> = split_outside_quotes(line, b',').collect();
        entries.into_iter().rev().map(|entry| Entry::parse(entry).unwrap_or_default())
    })
}

impl<'a> Entry<'a> {
    /// `None` if it is malformed.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (mut proto, mut host) = (None, None);
        for pair in split_outside_quotes(text, b';').filter(|pair| !pair.is_empty()) {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (pair.get(..equals)?, unquote(pair.get(equals + 1..)?)?);
            let slot = match name {
                _ if name.eq_ignore_ascii_case(b"proto") => &mut proto,
                _ if name.eq_ignore_ascii_case(b"host") => &mut host,
                _ => continue,
            };
            // RFC 7239 forbids to name a parameter twice.
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let https = proto.and_then(|proto| is_secure(&proto));
        Some(Self { https, host: host.and_then(as_host) })
    }
}

/// What a token or a quoted string stands for.
fn unquote(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        return (!text.contains(&b'"')).then_some(text.into());
    };
    let inner = quoted.strip_suffix(b"\"")?;
    if !inner.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        return Some(inner.into());
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => plain.push(*bytes.next()?),
            _ => plain.push(*byte),
        }
    }
    Some(plain.into())
}

/// Whether a scheme is one with TLS; `None` if it is no scheme. Some proxies name WebSockets' own.
fn is_secure(scheme: &[u8]) -> Option<bool> {
    let valid = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    if scheme.is_empty() || !scheme.iter().all(valid) {
        return None;
    }
    Some(scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"wss"))
}

fn as_host(text: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    let valid =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    if text.is_empty() || !text.iter().all(valid) {
        return None;
    }
    match text {
        Cow::Borrowed(text) => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Cow::Owned(text) => String::from_utf8(text).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Headers from lines `name: value`; `p`, `h` and `f` are short for the three names.
    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            let name = match name {
                "p" => &PROTO,
                "h" => &HOST,
                _ => &FORWARDED,
            };
            let value = HeaderValue::from_bytes(value.trim().as_bytes()).unwrap();
            headers.append(name, value);
        }
        headers
    }

    fn said(lines: &[&str], trusted: usize) -> (bool, Option<String>) {
        let headers = headers(lines);
        let said = forwarded(&headers, trusted);
        (said.https, said.host.map(Cow::into_owned))
    }

    fn https(lines: &[&str], trusted: usize) -> bool {
        said(lines, trusted).0
    }

    fn host(lines: &[&str], trusted: usize) -> Option<String> {
        said(lines, trusted).1
    }

    #[test]
    fn without_trusted_proxies_nothing_is_believed() {
        let lines = ["p: https", "h: a.b", "f: proto=https;host=a.b"];
        assert_eq!(said(&lines, 0), (false, None));
        assert_eq!(said(&lines, 1), (true, Some("a.b".into())));
        assert_eq!(said(&[], 1), (false, None));
    }

    #[test]
    fn the_entry_of_the_outermost_trusted_proxy_counts() {
        for lines in [&["p: https, http ,HTTPS"][..], &["p: https", "p: http,https"]] {
            assert_eq!([1, 2, 3, 9].map(|n| https(lines, n)), [true, false, true, true]);
        }
        for lines in [
            &["f: proto=https, proto=http,Proto=HTTPS"][..],
            &["f: proto=https", "f: proto=http,for=a;proto=\"https\""],
        ] {
            assert_eq!([1, 2, 3, 9].map(|n| https(lines, n)), [true, false, true, true]);
        }
        assert_eq!(host(&["h: a, b", "h: c:1"], 1).unwrap(), "c:1");
        assert_eq!(host(&["h: a, b", "h: c:1"], 2).unwrap(), "b");
        assert!(!https(&["p: https,,https"], 2) && !https(&["p: https,"], 1));
    }

    #[test]
    fn quoted_strings_hold_separators_and_escapes() {
        let line =
            r#"f: for="[2001:db8::1]:1, proto=http";by="x\";y";proto=https;HOST="a.b:8443", for=c"#;
        assert_eq!(said(&[line], 2), (true, Some("a.b:8443".into())));
        assert_eq!(said(&[line], 1), (false, None));
        assert_eq!(said(&[r#"f: host="\a\.b";proto="h\ttps""#], 1), (true, Some("a.b".into())));
        assert_eq!(host(&["f: host=[::1]:80 ; proto=http;"], 1).unwrap(), "[::1]:80");
    }

    #[test]
    fn malformed_entries_say_nothing_and_keep_their_place() {
        for line in [
            "f: https",
            "f: proto=https;proto=https",
            "f: proto=\"https",
            "f: proto=https\"",
            "f: proto=https;x",
            "f: proto=\"https\\\"",
            "f: proto=\"\"",
            "f: proto=é",
            "f: proto= https",
            "p: \"https\"",
            "p: ",
            "p: https;",
            "p: é",
            "p: https http",
        ] {
            assert!(!https(&[line], 1), "{line}");
            let kind = &line[..2];
            let (first, last) = (format!("{kind} proto=https"), format!("{kind} for=a"));
            let first = if kind == "p:" { "p: https" } else { &first };
            assert!(!https(&[first, line, &last], 2), "{line}");
        }
        for line in
            ["h: ", "h: a/b", "h: u@a", "h: é", "h: a b", "f: host=\"a b\"", "f: host=a;host=b"]
        {
            assert_eq!(host(&[line], 1), None, "{line}");
        }
        assert!(https(&["p: é", "f: proto=https"], 1) && https(&["f: é", "p: https"], 1));
        assert!(https(&["f: for=\"a, for=b;proto=https"], 1));
    }

    #[test]
    fn headers_that_disagree_mean_no_https_and_no_host() {
        for (a, b) in [("http", "https"), ("https", "http"), ("https", "ftp")] {
            assert!(!https(&[&format!("p: {a}"), &format!("f: proto={b}")], 1));
        }
        assert!(https(&["p: wss", "f: proto=https"], 1));
        assert_eq!(host(&["h: a", "f: host=b"], 1), None);
        assert_eq!(host(&["h: a", "f: host=A"], 1).unwrap(), "a");
    }

    #[test]
    fn a_claim_of_https_is_seen_in_any_entry() {
        for lines in
            [&["p: http, HTTPS, http"][..], &["p: http", "p: wss"], &["f: x, proto=https;for=a, y"]]
        {
            assert!(claims_https(&headers(lines)), "{lines:?}");
        }
        for lines in [&["p: http, httpsx"][..], &["f: for=\"proto=https\""], &["h: https"], &[]] {
            assert!(!claims_https(&headers(lines)), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_client_panic(line in "[,;=\"\\\\ a-zé]{0,30}|(f:)?(host|proto|[=;,\"]|https){0,9}", trusted in 0_usize..4) {
            let lines = ["f", "p", "h"].map(|name| format!("{name}:{line}"));
            let lines = lines.each_ref().map(String::as_str);
            let _ = (said(&lines, trusted), claims_https(&headers(&lines)));
        }

        #[test]
        fn a_client_cannot_speak_for_proxies_that_append(client in "[!-~ é]{0,20}", n in 1_usize..4) {
            for (name, entry) in [("p", "http"), ("f", "for=a;proto=http;host=b")] {
                let sent = format!("{name}: proto=https;x=\"{client}");
                let appended = format!("{name}: {}", vec![entry; n].join(", "));
                let joined = appended.replacen(&format!("{name}:"), &format!("{sent},"), 1);
                prop_assert!(!https(&[&sent, &appended], n));
                prop_assert!(!https(&[&joined], n), "{}", joined);
            }
        }
    }
}

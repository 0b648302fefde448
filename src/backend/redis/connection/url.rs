//! URLs of Redis, before the client library reads them: it ignores what it does not know.

use std::borrow::Cow;

use crate::error::{Error, Result};

/// What the scheme of a URL leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Cluster,
    Sentinel,
}

const SCHEMES: &str = "`redis`, `redis-cluster` or `redis-sentinel`, with `rediss` for TLS";

/// Refuses what would be ignored, by its name. Values stay out of errors: they may be passwords.
pub(crate) fn check(url: &str) -> Result<()> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(refused("no URL", &format!("one that begins with {SCHEMES}, and `://`")));
    };
    let kind = kind_of(scheme)?;
    if rest.contains('#') {
        return Err(refused(
            "a URL with a `#`",
            "one without; in a name or password write `%23` for it",
        ));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (address, path) = place.split_once('/').unwrap_or((place, ""));
    check_query(kind, query)?;
    if kind == Kind::Cluster && !matches!(path, "" | "0") {
        return Err(refused("a URL of a cluster with a database", "without: a cluster has only 0"));
    }
    let user = address.rsplit_once('@').map_or("", |(user, _)| user);
    if !user.is_empty() && !user.contains(':') {
        return Err(refused(
            "a URL with a user and no password",
            "`redis://user:password@host`, or `redis://:password@host` without a user",
        ));
    }
    Ok(())
}

fn kind_of(scheme: &str) -> Result<Kind> {
    let lower = scheme.to_ascii_lowercase();
    let (family, suffix) = lower.split_once('-').unwrap_or((&lower, ""));
    let known = matches!(family, "redis" | "rediss" | "valkey" | "valkeys");
    match suffix {
        "" if known && !lower.ends_with('-') => Ok(Kind::Server),
        "cluster" if known => Ok(Kind::Cluster),
        "sentinel" if known => Ok(Kind::Sentinel),
        _ => {
            // Something else may stand there that is better not shown.
            let plain = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
            let shown = if plain { scheme } else { ".." };
            Err(refused(&format!("a URL with the scheme `{shown}`"), SCHEMES))
        }
    }
}

fn check_query(kind: Kind, query: &str) -> Result<()> {
    let (known, words): (&[&str], _) = match kind {
        Kind::Server => {
            (&[], "none: the database stands behind the port, as in `redis://host:6379/3`")
        }
        Kind::Cluster => (&["node"], "`node`"),
        Kind::Sentinel => (
            &["node", "sentinelServiceName", "sentinelUsername", "sentinelPassword"],
            "`node`, `sentinelServiceName`, `sentinelUsername` or `sentinelPassword`",
        ),
    };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        if known.contains(&name) {
            continue;
        }
        // Behind a `?` that belongs to a password stands the rest of it.
        let plain = !query.contains('@')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        return Err(match plain {
            true => refused(&format!("a URL with the parameter `{name}`"), words),
            false => refused("a URL with an odd query", "one whose passwords have `%3F` for `?`"),
        });
    }
    Ok(())
}

fn refused(what: &str, instead: &str) -> Error {
    Error::option("redis", what, instead)
}

/// A user's name or password as the client library has to be given it. It sends them in a line of
/// text, which Redis splits at spaces and quotes, unless they stand in quotes themselves.
pub(crate) fn in_a_line(word: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\'';
    if !word.is_empty() && word.bytes().all(plain) {
        return word.into();
    }
    let mut quoted = String::from('"');
    for character in word.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_ascii_control() => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_would_be_ignored_is_refused_by_its_name() {
        for (url, named) in [
            ("redis://host?db=3", "`db`"),
            ("redis://host/?timeout=5", "`timeout`"),
            ("redis://host?node=a:1", "`node`"),
            ("redis-sentinel://host?sentinelservicename=main", "`sentinelservicename`"),
            ("redis-cluster://host?sentinelServiceName=main", "`sentinelServiceName`"),
            ("redis-cluster://host:1/3", "database"),
            ("http://host", "`http`"),
            ("reddis://host", "`reddis`"),
            ("redis-clutser://host", "`redis-clutser`"),
            ("redis+unix:///socket", "`redis+unix`"),
            ("redis-://host", "`redis-`"),
            ("host:6379", "no URL"),
            ("", "no URL"),
            ("redis://secret@host", "no password"),
            ("redis://user:sec#ret@host", "%23"),
            ("redis://user:hush?secret@host", "%3F"),
            ("redis://user:hush?secret=x@host&y", "%3F"),
        ] {
            let error = check(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidOption, "{url}");
            let text = error.to_string();
            assert!(text.contains("`redis`") && text.contains(named), "{url}: {text}");
            assert!(!text.contains("secret"), "{url}: {text}");
        }
    }

    #[test]
    fn what_means_something_is_let_through() {
        for url in [
            "redis://host",
            "REDIS://host:1/2",
            "rediss://user:password@host:6379/0",
            "redis://:p%3Fs%23s@[::1]:6379",
            "valkey://host/",
            "valkeys-cluster://host:1?node=a:1&node=b:2",
            "redis-cluster://host:1/0",
            "redis-sentinel://u:p@host/1?sentinelServiceName=n&node=a:1&sentinelUsername=u&sentinelPassword=p",
        ] {
            assert!(check(url).is_ok(), "{url}: {:?}", check(url));
        }
    }

    #[test]
    fn words_that_redis_would_split_are_quoted_and_others_stay() {
        for (word, sent) in [
            ("plain-Word_1@:/%\\", "plain-Word_1@:/%\\"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("it's", "\"it's\""),
            ("say \"hi\"\\n", "\"say \\\"hi\\\"\\\\n\""),
            ("a\r\nFLUSHALL\t", "\"a\\x0d\\x0aFLUSHALL\\x09\""),
            ("schlüssel", "\"schlüssel\""),
        ] {
            assert_eq!(in_a_line(word), sent, "{word:?}");
        }
    }
}

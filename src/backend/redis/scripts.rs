//! The scripts: one Lua file each, a digest, and what failed commands mean.

use std::sync::LazyLock;

use crate::error::{Error, ErrorKind};

/// A script with its digest.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) digest: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident $file:literal)*) => { $(
        pub(super) static $name: Script = Script {
            name: $file,
            text: concat!(
                include_str!("lua/prelude.lua"),
                include_str!(concat!("lua/", $file, ".lua"))
            ),
            digest: LazyLock::new(|| fred::util::sha1_hash($name.text)),
        };
    )* };
}

scripts! {
    CLOCK "clock"
    CREATE "create"
    COMMIT "commit"
    TOUCH "touch"
    DESTROY "destroy"
    RESOLVE "resolve"
    ACQUIRE "acquire"
    RENEW "renew"
    RELEASE "release"
    NOTIFY "notify"
    INDEX "index"
    SWEEP "sweep"
    DUE "due"
    END_DUE "end_due"
    TIDY "tidy"
    BEAT "beat"
    NODES "nodes"
}

/// An error of Redis: out of reach, or an answer that should not be.
pub(super) fn failed(what: &str, error: fred::error::Error) -> Error {
    use fred::error::ErrorKind as Kind;
    // Redis is there, and can't do it now: it loads, fails over, or is out of memory. The last two
    // are the client library's own: a server of a cluster went away.
    let for_now = [
        "LOADING",
        "READONLY",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "OOM",
        "MISCONF",
        "Too many failed write attempts",
        "Failed to route command",
    ]
    .iter()
    .any(|code| error.details().starts_with(code));
    let kind = match error.kind() {
        _ if for_now => ErrorKind::Unavailable,
        Kind::IO
        | Kind::Timeout
        | Kind::Canceled
        | Kind::Backpressure
        | Kind::Routing
        | Kind::Cluster
        | Kind::Sentinel => ErrorKind::Unavailable,
        _ => ErrorKind::Store,
    };
    Error::new(kind, format!("Redis failed at `{what}`")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_takes_and_returns() {
        for script in
            [&CLOCK, &CREATE, &COMMIT, &RESOLVE, &ACQUIRE, &INDEX, &SWEEP, &END_DUE, &TIDY, &NODES]
        {
            let header = script.text.lines().filter(|line| line.starts_with("--"));
            let header: String = header.collect();
            assert!(header.contains("KEYS:") && header.contains("Returns {"), "{}", script.name);
            assert_eq!(script.digest.len(), 40);
        }
    }
}

//! What a failed command of Redis means.

use crate::error::{Error, ErrorKind};

/// What is asked of a backend that was shut down.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the bridge was shut down")
}

/// What the client library returns.
pub(crate) type Answered<T> = std::result::Result<T, fred::error::Error>;

/// What a script says of a record that a newer version of this crate wrote.
const NEWER: &str = "FORMAT a session was written by a newer version";

/// An error of Redis: out of reach, or an answer that should not be.
pub(crate) fn failed(what: &str, error: fred::error::Error) -> Error {
    use fred::error::ErrorKind as Kind;
    if error.details().contains(NEWER) {
        return super::record::newer();
    }
    let for_now = is_for_now(error.details());
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

/// Whether a command may have run although it failed: its answer was lost, or is late.
pub(crate) fn is_lost(error: &fred::error::Error) -> bool {
    use fred::error::ErrorKind as Kind;
    matches!(error.kind(), Kind::IO | Kind::Canceled | Kind::Timeout)
        || error.details().starts_with(GIVEN_UP)
}

pub(crate) fn is_timeout(error: &fred::error::Error) -> bool {
    matches!(error.kind(), fred::error::ErrorKind::Timeout)
}

/// Whether a command was not sent: the client library had no connection for it in this moment.
pub(crate) fn is_unsent(error: &fred::error::Error) -> bool {
    error.details().starts_with(UNROUTED)
}

/// The client library's own: a connection, or a server of a cluster, went away.
const GIVEN_UP: &str = "Too many failed write attempts";
const UNROUTED: &str = "Failed to route command";

/// Whether Redis is there and can't do it now: it loads, fails over, lacks replicas, can't save, runs
/// somebody's long script, or is out of memory.
fn is_for_now(details: &str) -> bool {
    const CODES: [&str; 9] = [
        "LOADING",
        "READONLY",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "OOM",
        "MISCONF",
        "NOREPLICAS",
        "BUSY",
    ];
    let starts = |text: &str| text.split(' ').next().is_some_and(|code| CODES.contains(&code));
    // Redis before 7 puts a command's error behind the place in the script, and a dash in front of it.
    let mut wrapped = details.split(": ").filter_map(|part| part.strip_prefix('-'));
    [GIVEN_UP, UNROUTED].iter().any(|own| details.starts_with(own))
        || starts(details)
        || (details.contains("@user_script") && wrapped.any(starts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_can_not_do_now_is_told_from_what_it_never_can() {
        for now in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOREPLICAS Not enough good replicas to write.",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "MISCONF Errors writing to the AOF file: No space left on device",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "READONLY You can't write against a read only replica. script: ab, on @user_script:3.",
            "NOREPLICAS Not enough good replicas to write. script: ab, on @user_script:3.",
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: -OOM command not allowed when used memory > 'maxmemory'.",
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: -READONLY You can't write against a read only replica.",
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: -MISCONF Errors writing to the AOF file: File too large",
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: -NOREPLICAS Not enough good replicas to write.",
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: -MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        ] {
            assert!(is_for_now(now), "{now}");
        }
        for never in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "ERR Error running script (call to f_ab): @user_script:3: attempt to index a nil value",
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: Wrong number of args calling Redis command From Lua script",
            "ERR Error running script (call to f_ab): @user_script:3: @user_script: 3: -WRONGTYPE Operation against a key holding the wrong kind of value",
            "BUSYGROUP Consumer Group name already exists",
            "BUSYKEY Target key name already exists.",
            "ERR unknown command: OOM",
            "ERR unknown command `X`, with args beginning with: -OOM",
        ] {
            assert!(!is_for_now(never), "{never}");
        }
    }
}

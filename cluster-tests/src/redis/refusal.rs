//! Ways to have Redis refuse writes, and to end that.

use std::process::Command;
use std::time::Duration;

use super::{Redis, RedisOptions};
use crate::servers::LOCAL_SERVER;
use crate::wait::until;

/// Redis refuses by then, or takes writes again.
const LIMIT: Duration = Duration::from_secs(20);
/// Room that is taken away when memory is to be full.
const ROOM: u64 = 100_000;

/// Why Redis, a process of this machine, refuses writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// `NOREPLICAS`: too few replicas. Not for scripts before Redis 7.
    TooFewReplicas,
    /// `READONLY`: it is a replica.
    Replica,
    /// `OOM`: it is full, and may drop nothing.
    Full,
    /// `MISCONF`: a snapshot failed.
    CantSave,
    /// `MISCONF`: there is no room for its append-only file.
    DiskFull,
}

impl Refusal {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::TooFewReplicas, Self::Replica, Self::Full, Self::CantSave, Self::DiskFull];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooFewReplicas => "Redis lacks replicas (`NOREPLICAS`), for a while",
            Self::Replica => "Redis is a replica (`READONLY`), for a while",
            Self::Full => "Redis is full (`OOM`), for a while",
            Self::CantSave => "Redis can't save a snapshot (`MISCONF`), for a while",
            Self::DiskFull => "no room for the append-only file (`MISCONF`), for a while",
        }
    }

    /// A server that can be made to refuse like this.
    pub fn options() -> RedisOptions {
        RedisOptions::new().program(LOCAL_SERVER).outlives_full_files()
    }

    /// Has Redis refuse writes.
    ///
    /// # Panics
    /// If it does not.
    pub fn begin(self, redis: &Redis) {
        match self {
            Self::TooFewReplicas => set(redis, "min-replicas-to-write", "1"),
            Self::Replica => drop(redis.cli(&["REPLICAOF", "127.0.0.1", "1"])),
            Self::Full => {}
            Self::CantSave => {
                set(redis, "stop-writes-on-bgsave-error", "yes");
                set(redis, "save", "3600 1000000");
                // What it would rename the saved file to is a folder.
                let name = format!("{}/{}/x", setting(redis, "dir"), setting(redis, "dbfilename"));
                std::fs::create_dir_all(name).expect("a folder in the folder of Redis");
                redis.cli(&["BGSAVE"]);
            }
            Self::DiskFull => {
                set(redis, "appendfsync", "everysec");
                set(redis, "appendonly", "yes");
                until("the file is appended to", LIMIT, || {
                    let now = redis.cli(&["INFO", "persistence"]);
                    let is = |what: &str| now.contains(what);
                    (is("aof_enabled:1") && is("aof_rewrite_in_progress:0")).then_some(())
                });
                limit_files(redis, "1");
            }
        }
        until("Redis refuses writes", LIMIT, || {
            if self == Self::Full {
                let memory = redis.cli(&["INFO", "memory"]);
                let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:"));
                let used: u64 = used?.trim().parse().ok()?;
                set(redis, "maxmemory", &(used - ROOM).to_string());
            }
            redis.ask(&["SET", "{refused}", "1", "PX", "1"]).is_none().then_some(())
        });
    }

    /// Has Redis take writes again.
    ///
    /// # Panics
    /// If it does not.
    pub fn end(self, redis: &Redis) {
        match self {
            Self::TooFewReplicas => set(redis, "min-replicas-to-write", "0"),
            Self::Replica => drop(redis.cli(&["REPLICAOF", "NO", "ONE"])),
            Self::Full => set(redis, "maxmemory", "0"),
            Self::CantSave => set(redis, "stop-writes-on-bgsave-error", "no"),
            Self::DiskFull => limit_files(redis, "unlimited"),
        }
        until("Redis takes writes", LIMIT, || redis.ask(&["SET", "{refused}", "1", "PX", "1"]));
    }
}

fn set(redis: &Redis, name: &str, value: &str) {
    redis.cli(&["CONFIG", "SET", name, value]);
}

fn setting(redis: &Redis, name: &str) -> String {
    let answer = redis.cli(&["CONFIG", "GET", name]);
    answer.lines().nth(1).expect("a known setting").to_owned()
}

/// How long files may become that the process writes: at the limit a write fails as on a full disk, and
/// needs no mount.
fn limit_files(redis: &Redis, bytes: &str) {
    let info = redis.cli(&["INFO", "server"]);
    let id = info.lines().find_map(|line| line.strip_prefix("process_id:")).expect("a process");
    let limited =
        Command::new("prlimit").args(["--pid", id.trim(), &format!("--fsize={bytes}:")]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit of util-linux is needed");
}

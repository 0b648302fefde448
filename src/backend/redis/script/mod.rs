//! The Lua scripts: one file each, the parts they include, and a digest.

pub(crate) mod argument;
pub(crate) mod reply;

use std::fmt::Write as _;
use std::time::Duration;

use super::record::{self, GENERATION, OVERDUE};
use crate::backend::BackendConfig;
use crate::session::{ClientId, SessionId};

/// A script as Redis is given it.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) text: String,
    pub(crate) digest: String,
}

macro_rules! part {
    ($name:ident) => {
        include_str!(concat!("lua/include/", stringify!($name), ".lua"))
    };
}

macro_rules! scripts {
    ($($name:ident($key:ident): $($part:ident)*;)*) => {
        /// All scripts.
        #[derive(Debug)]
        pub(crate) struct Scripts { $(pub(crate) $name: Script,)* }

        impl Scripts {
            /// The scripts for these options. What all nodes share is a part of the text, so that
            /// calls need not carry it.
            pub(crate) fn new(config: &BackendConfig, database: u8, clustered: bool) -> Self {
                Self { $($name: Script::new(
                    stringify!($name),
                    &constants(config, database, clustered, FirstKey::$key),
                    &[$(part!($part),)*],
                    include_str!(concat!("lua/", stringify!($name), ".lua")),
                ),)* }
            }

            #[cfg(test)]
            fn all(&self) -> Vec<&Script> {
                vec![$(&self.$name,)*]
            }
        }
    };
}

/// What a script is given as its first key.
#[derive(Clone, Copy)]
enum FirstKey {
    Record,
    Sweep,
    Tombstones,
    None,
}

scripts! {
    clock(None): time;
    create(Record): time record message mapping hints;
    write(None): time other;
    write_leased(Record): time other lease;
    commit(Record): time record other message hints lease;
    touch(Record): time record message mapping hints;
    destroy(Record): time record opens message mapping lease;
    probe(Record): time record message mapping;
    acquire(Record): time mapping message lease;
    renew(Record): mapping message;
    release(Record): time mapping message lease;
    notify(Record): time record message;
    schedule(Sweep): time hints;
    claim_due(Sweep): time leader;
    list_due(Sweep): time;
    expire_due(Sweep): time record hints leader;
    flush_tombstones(Tombstones): ;
    resign(None): ;
    heartbeat(None): time;
    nodes(None): time;
    health(None): ;
}

impl Script {
    fn new(name: &'static str, constants: &str, parts: &[&str], body: &str) -> Self {
        let text = without_comments(&[&[constants], parts, &[body]].concat().concat());
        let digest = fred::util::sha1_hash(&text);
        Self { name, text, digest }
    }
}

/// Redis keeps the text and compiles it: comments and indentation cost memory and time.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let code: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("--")).collect();
    code.join("\n")
}

/// How long the pointer of an earlier id leads to its client: a late request is told apart from one
/// with an unknown id although it lacks its client cookie.
pub(crate) fn retired(config: &BackendConfig) -> Duration {
    Duration::from_secs(5 * 60).max(2 * config.renew_overlap)
}

/// How long after its session's end a mapping can still name it, or says that it was announced.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// What scripts of the same options share. `P` is the prefix of all keys: scripts find it in their
/// first key, so that applications with different prefixes share the scripts of a server.
fn constants(config: &BackendConfig, database: u8, clustered: bool, first_key: FirstKey) -> String {
    let lifetime = &config.lifetime;
    let default = crate::session::MaxAge::Default;
    let mut text = String::new();
    let behind_prefix = match first_key {
        // `:{client}:s`
        FirstKey::Record => 2 + ClientId::LEN + 3,
        FirstKey::Sweep => ":{sweep}:due".len(),
        FirstKey::Tombstones => ":{sweep}:tombstones".len(),
        FirstKey::None => 0,
    };
    if behind_prefix > 0 {
        let _ = writeln!(text, "local P = string.sub(KEYS[1], 1, -{})", behind_prefix + 1);
    }
    let _ = writeln!(text, "local CLIENT, ENDS = ':c:{database}:', ':ends:{database}'");
    for (name, value) in [
        ("GRACE", GRACE),
        ("LEASE", config.lease_duration),
        ("IDLE_OPEN", lifetime.idle(default, false)),
        ("IDLE_SEALED", lifetime.idle(default, true)),
        ("CAP", lifetime.absolute_max_age.unwrap_or_default()),
        ("OVERLAP", config.renew_overlap),
        ("RETIRED", retired(config)),
        ("OVERDUE", OVERDUE),
    ] {
        let _ = writeln!(text, "local {name} = {}", record::millis(value));
    }
    let _ = writeln!(text, "local QUEUE_LIMIT = {}", config.lease_queue_limit);
    let _ = writeln!(text, "local CLUSTERED = {clustered}");
    // Bytes of a mapping: of generation and id, and with the end behind them.
    let named = GENERATION + SessionId::LEN;
    let _ = writeln!(text, "local NAMED, MAPPING = {named}, {}", named + 6);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_takes_and_returns() {
        let scripts = Scripts::new(&BackendConfig::default(), 0, false);
        for script in scripts.all() {
            let file = format!("src/backend/redis/script/lua/{}.lua", script.name);
            let file = std::fs::read_to_string(file).unwrap();
            let header: String = file.lines().filter(|line| line.starts_with("--")).collect();
            assert!(header.contains("KEYS: ") && header.contains("Returns {"), "{}", script.name);
            assert!(!script.text.contains("KEYS: "), "{}", script.name);
            assert_eq!(script.digest.len(), 40);
        }
    }

    #[test]
    fn nodes_with_the_same_options_share_scripts_and_others_do_not() {
        let scripts = |config: &BackendConfig| Scripts::new(config, 0, false).acquire.digest;
        let config = BackendConfig::default();
        let longer = BackendConfig { lease_duration: Duration::from_secs(20), ..config.clone() };
        assert_eq!(scripts(&config), scripts(&BackendConfig::default()));
        assert_ne!(scripts(&config), scripts(&longer));
    }
}

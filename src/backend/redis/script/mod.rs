//! The Lua scripts: one file each, the parts they include, and a digest.

pub(crate) mod reply;

use std::fmt::Write as _;
use std::time::Duration;

use super::keys::Keys;
use super::record::{self, OVERDUE};
use crate::backend::BackendConfig;

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
    ($($name:ident: $($part:ident)*;)*) => {
        /// All scripts.
        #[derive(Debug)]
        pub(crate) struct Scripts { $(pub(crate) $name: Script,)* }

        impl Scripts {
            /// The scripts for a prefix and options. What all nodes share is a part of the text,
            /// so that calls need not carry it.
            pub(crate) fn new(keys: &Keys, config: &BackendConfig, clustered: bool) -> Self {
                let constants = constants(keys, config, clustered);
                Self { $($name: Script::new(
                    stringify!($name),
                    &constants,
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

scripts! {
    clock: time;
    create: time record message mapping hints;
    commit: hints lease;
    new_id: time record message hints lease;
    touch: time record message mapping hints;
    destroy: time record opens message mapping lease;
    probe: time record message mapping;
    acquire: time mapping message lease;
    renew: mapping message;
    release: mapping message lease;
    notify: time record message;
    schedule: time hints;
    claim_due: time leader;
    list_due: time;
    expire_due: time record hints leader;
    flush_tombstones: ;
    heartbeat: time;
    nodes: time;
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

fn constants(keys: &Keys, config: &BackendConfig, clustered: bool) -> String {
    let lifetime = &config.lifetime;
    let default = crate::session::MaxAge::Default;
    let mut text = String::new();
    // A prefix has no characters that would have to be escaped.
    for (name, value) in [
        ("CHANNEL", keys.announcements()),
        ("CLIENT", keys.client_prefix()),
        ("POINTER", keys.pointer_prefix()),
        ("SCHEDULE", keys.schedule()),
        ("TOMBSTONES", keys.tombstones()),
        ("GRANTS", keys.grants_prefix()),
    ] {
        let _ = writeln!(text, "local {name} = '{value}'");
    }
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
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_what_it_takes_and_returns() {
        let scripts = Scripts::new(&Keys::new("app", 0), &BackendConfig::default(), false);
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
        let scripts = |prefix: &str, config: &BackendConfig| {
            Scripts::new(&Keys::new(prefix, 0), config, false).commit.digest
        };
        let config = BackendConfig::default();
        let longer = BackendConfig { lease_duration: Duration::from_secs(20), ..config.clone() };
        assert_eq!(scripts("a", &config), scripts("a", &BackendConfig::default()));
        assert_ne!(scripts("a", &config), scripts("b", &config));
        assert_ne!(scripts("a", &config), scripts("a", &longer));
    }
}

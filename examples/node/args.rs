//! Flags; each can also be set by an environment variable.

use std::path::PathBuf;
use std::time::Duration;

use axum_io_session::backend::redis::{NearCache, RedisConfig};
use axum_io_session::bridge::{OnDestroy, OnRotate, Seal, SocketPairing, WhenUnavailable};

/// The node's configuration.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) store: Store,
    pub(crate) key: String,
    pub(crate) keys: Vec<String>,
    pub(crate) max_age: Duration,
    pub(crate) lease: Duration,
    pub(crate) retry_after: Duration,
    pub(crate) drain: Duration,
    pub(crate) when_away: WhenUnavailable,
    pub(crate) node: Option<String>,
    pub(crate) trusted_proxies: usize,
    pub(crate) allow_weak_keys: bool,
    pub(crate) pairing: SocketPairing,
    pub(crate) on_destroy: OnDestroy,
    pub(crate) on_rotate: OnRotate,
    pub(crate) seal: Seal,
    pub(crate) origins: Vec<String>,
    pub(crate) admin: Option<String>,
    pub(crate) probes: bool,
}

#[derive(Debug)]
pub(crate) enum Store {
    Live,
    File(PathBuf),
    Redis(RedisConfig),
}

pub(crate) const HELP: &str = "\
One node: HTTP and Socket.IO share one session.

  --port 3000            PORT             0 picks a free one
  --host 127.0.0.1       HOST
  --store live|file:PATH SESSION_STORE    memory, or a file that survives restarts
  --redis URL            REDIS_URL        several nodes: redis://127.0.0.1:6379; rediss:// is over TLS,
                         SSL_CERT_FILE    which trusts this authority instead of the system's
  --prefix P             REDIS_PREFIX     prefix of all keys in Redis
  --replicas N           REDIS_REPLICAS   replicas that must confirm each change
  --replica-wait 500ms   REDIS_REPLICA_WAIT time limit for that; beyond it 503
  --audit 30s            REDIS_AUDIT      how often all sockets are compared with Redis
  --near-cache           NEAR_CACHE=1     reads of sessions that this node knows ask Redis for nothing
  --key app.sid          COOKIE_NAME      name of the session cookie
  --keys k1,k2           SESSION_KEYS     signing keys of 32 or more bytes: the first signs, all verify
  --allow-weak-keys      ALLOW_WEAK_KEYS=1 accepts shorter keys, for experiments
  --max-age 24h          SESSION_MAX_AGE  life of a session since its last write
  --lease 10s            SESSION_LEASE    how long a dead handler may block a session
  --retry-after 1s       RETRY_AFTER      `Retry-After` of a 503, in whole seconds
  --drain 10s            DRAIN_WINDOW     how long sockets have to move away before the node stops
  --when-away refuse|anonymous WHEN_AWAY  if sessions can't be loaded: 503, or an empty one to read
  --node NAME            NODE_NAME        name in events, default a random one
  --trust-proxy          TRUST_PROXY=1    trust the forwarding headers of one proxy; a number: of so many
  --pairing until-sealed PAIRING          which sessions a socket sees: strict, until-sealed or client
  --on-destroy disconnect ON_DESTROY      sockets of a session that ends: disconnect, notify or nothing
  --on-rotate disconnect ON_ROTATE        sockets of a session that is sealed: disconnect or follow
  --seal on-rotate       SEAL             when sessions are sealed: on-rotate or from-start
  --origins LIST         ORIGINS          other origins that may use sessions, separated by commas
  --admin ADDR           ADMIN            address for health, /metrics and /monitor; without it they are
                                          on the public port only while that one is a loopback address
  --probes               PROBES=1         adds routes and socket events for tests
  --help
";

impl Args {
    /// Reads the command line and, for what it lacks, the environment.
    pub(crate) fn parse() -> Result<Self, String> {
        let mut given = Given { args: std::env::args().skip(1).collect() };
        if given.flag("--help", "") {
            print!("{HELP}");
            std::process::exit(0);
        }
        if std::env::var_os("SESSION_KEY").is_some() {
            return Err(
                "SESSION_KEY is not used: signing keys go into SESSION_KEYS, the name of the session cookie into COOKIE_NAME".into(),
            );
        }
        // Sessions that are on this node are read from memory anyway.
        let near_cache = given.flag("--near-cache", "NEAR_CACHE");
        let prefix = given.value("--prefix", "REDIS_PREFIX")?;
        let audit = given.duration("--audit", "REDIS_AUDIT", "30s")?;
        let redis = given.value("--redis", "REDIS_URL")?;
        let replicas = given.value("--replicas", "REDIS_REPLICAS")?;
        let wait = given.duration("--replica-wait", "REDIS_REPLICA_WAIT", "500ms")?;
        let store = match (redis, given.value("--store", "SESSION_STORE")?.as_deref()) {
            (Some(_), Some(_)) => {
                return Err("--redis and --store exclude each other; leave one out".into());
            }
            (Some(url), None) => {
                let mut redis = RedisConfig::new(url).audit_interval(audit);
                if let Some(prefix) = prefix {
                    redis = redis.prefix(prefix);
                }
                if near_cache {
                    redis = redis.near_cache(NearCache::default());
                }
                if let Some(replicas) = replicas {
                    let count = replicas.parse();
                    let count = count
                        .map_err(|_| format!("--replicas is {replicas:?}; it must be 1 to 16"))?;
                    redis = redis.wait_for_replicas(count, wait);
                }
                Store::Redis(redis)
            }
            (None, None | Some("live")) => Store::Live,
            (None, Some(other)) => match other.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Store::File(path.into()),
                _ => return Err(format!("--store is {other:?}; it must be live or file:PATH")),
            },
        };
        let port = given.value("--port", "PORT")?.unwrap_or_else(|| "3000".into());
        let keys = given.value("--keys", "SESSION_KEYS")?;
        let args = Self {
            host: given.value("--host", "HOST")?.unwrap_or_else(|| "127.0.0.1".into()),
            port: port.parse().map_err(|_| format!("--port is {port:?}; it must be 0 to 65535"))?,
            store,
            key: given.value("--key", "COOKIE_NAME")?.unwrap_or_else(|| "app.sid".into()),
            keys: list(keys),
            max_age: given.duration("--max-age", "SESSION_MAX_AGE", "24h")?,
            lease: given.duration("--lease", "SESSION_LEASE", "10s")?,
            retry_after: given.duration("--retry-after", "RETRY_AFTER", "1s")?,
            drain: given.duration("--drain", "DRAIN_WINDOW", "10s")?,
            when_away: given.choice(
                "--when-away",
                "WHEN_AWAY",
                &[("refuse", WhenUnavailable::Refuse), ("anonymous", WhenUnavailable::Anonymous)],
            )?,
            node: given.value("--node", "NODE_NAME")?,
            trusted_proxies: given.count("--trust-proxy", "TRUST_PROXY")?,
            allow_weak_keys: given.flag("--allow-weak-keys", "ALLOW_WEAK_KEYS"),
            pairing: given.choice(
                "--pairing",
                "PAIRING",
                &[
                    ("until-sealed", SocketPairing::UntilSealed),
                    ("strict", SocketPairing::Strict),
                    ("client", SocketPairing::ClientOnly),
                ],
            )?,
            on_destroy: given.choice(
                "--on-destroy",
                "ON_DESTROY",
                &[
                    ("disconnect", OnDestroy::default()),
                    ("notify", OnDestroy::Notify),
                    ("nothing", OnDestroy::Nothing),
                ],
            )?,
            on_rotate: given.choice(
                "--on-rotate",
                "ON_ROTATE",
                &[("disconnect", OnRotate::Disconnect), ("follow", OnRotate::Follow)],
            )?,
            seal: given.choice(
                "--seal",
                "SEAL",
                &[("on-rotate", Seal::OnRotate), ("from-start", Seal::FromStart)],
            )?,
            origins: list(given.value("--origins", "ORIGINS")?),
            admin: given.value("--admin", "ADMIN")?,
            probes: given.flag("--probes", "PROBES"),
        };
        match given.args.first() {
            Some(unknown) => Err(format!("{unknown:?} is no flag; see --help")),
            None => Ok(args),
        }
    }
}

fn list(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

struct Given {
    args: Vec<String>,
}

impl Given {
    fn flag(&mut self, flag: &str, variable: &str) -> bool {
        if let Some(at) = self.args.iter().position(|arg| arg == flag) {
            self.args.remove(at);
            return true;
        }
        !variable.is_empty()
            && std::env::var(variable).is_ok_and(|value| !matches!(value.as_str(), "" | "0"))
    }

    /// One of these words; the first is the default.
    fn choice<T: Copy>(
        &mut self,
        flag: &str,
        variable: &str,
        words: &[(&str, T)],
    ) -> Result<T, String> {
        let given = self.value(flag, variable)?;
        let word = given.as_deref().unwrap_or(words[0].0);
        let found = words.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
            format!("{flag} is {word:?}; it must be one of {}", names.join(", "))
        })
    }

    /// `--flag` for one, or `--flag=N`.
    fn count(&mut self, flag: &str, variable: &str) -> Result<usize, String> {
        let joined = format!("{flag}=");
        let at = self.args.iter().position(|arg| arg == flag || arg.starts_with(&joined));
        let text = match at.map(|at| self.args.remove(at)) {
            Some(arg) if arg == flag => "1".into(),
            Some(arg) => arg[joined.len()..].to_owned(),
            None => std::env::var(variable).ok().filter(|v| !v.is_empty()).unwrap_or("0".into()),
        };
        text.parse().map_err(|_| format!("{flag} is {text:?}; it must be a number"))
    }

    /// `--flag value` or `--flag=value`.
    fn value(&mut self, flag: &str, variable: &str) -> Result<Option<String>, String> {
        let joined = format!("{flag}=");
        let Some(at) = self.args.iter().position(|arg| arg == flag || arg.starts_with(&joined))
        else {
            return Ok(std::env::var(variable).ok().filter(|value| !value.is_empty()));
        };
        let arg = self.args.remove(at);
        if let Some(value) = arg.strip_prefix(&joined) {
            return Ok(Some(value.to_owned()));
        }
        if at == self.args.len() {
            return Err(format!("{flag} needs a value; see --help"));
        }
        Ok(Some(self.args.remove(at)))
    }

    fn duration(&mut self, flag: &str, variable: &str, default: &str) -> Result<Duration, String> {
        let text = self.value(flag, variable)?.unwrap_or_else(|| default.into());
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => 0,
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)) {
            Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
            _ => Err(format!("{flag} is {text:?}; it must be a number with ms, s, m, h or d")),
        }
    }
}

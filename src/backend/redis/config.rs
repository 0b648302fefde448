//! How to reach Redis.

use std::fmt;
use std::time::Duration;

use fred::types::config::Config;

use crate::backend::redis::connection::{tls, url};
use crate::error::{Error, Result};

/// How to reach Redis, and under which names.
///
/// ```
/// use axum_io_session::backend::redis::RedisConfig;
///
/// let config = RedisConfig::new("redis://127.0.0.1:6379/0").prefix("shop");
/// ```
#[derive(Clone)]
pub struct RedisConfig {
    place: Place,
    pub(super) prefix: String,
    pub(super) pool: usize,
    pub(super) timeout: Duration,
    pub(super) startup: Duration,
    pub(super) keyspace: KeyspaceEvents,
    pub(super) sweep: Duration,
    pub(super) audit: Duration,
    pub(super) replicas: Option<Replicas>,
    pub(super) near_cache: Option<NearCache>,
}

/// Bounds of the [near cache](RedisConfig::near_cache).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearCache {
    /// Sessions, 1 to 10 million. Default 10,000. The node is subscribed to one channel for each.
    pub max_entries: usize,
    /// Bytes of all of them in memory, about. Default 64 MiB.
    pub max_bytes: u64,
    /// How long a session is served without being read again, 10 ms to 1 hour. Default 5 s. This bounds
    /// how old it may be if announcements get lost without a trace.
    pub max_age: Duration,
}

impl Default for NearCache {
    fn default() -> Self {
        Self { max_entries: 10_000, max_bytes: 64 << 20, max_age: Duration::from_secs(5) }
    }
}

/// How many replicas have to have a change, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replicas {
    pub(super) count: u32,
    pub(super) wait: Duration,
}

#[derive(Clone)]
enum Place {
    Url(String),
    Config(Box<Config>),
}

/// What to do about `notify-keyspace-events` of the server, without which deletions and evictions
/// by others are announced late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyspaceEvents {
    /// Adds the flags that are missing (`Kgxe`) to those that are on. If Redis refuses, one
    /// warning names them, and everything else goes on. This is the default.
    #[default]
    Apply,
    /// Changes nothing, and warns if flags are missing: somebody else configures the server.
    Check,
    /// Does without: announcements, sweep and audit only.
    Off,
}

impl RedisConfig {
    /// Redis at this URL.
    ///
    /// | URL | is |
    /// |---|---|
    /// | `redis://user:password@host:6379/0` | one server; all but the host can be left out |
    /// | `rediss://..`, `rediss-cluster://..`, `rediss-sentinel://..` | the same over TLS, with the feature `redis-tls` |
    /// | `redis-cluster://host:port?node=host:port` | a cluster |
    /// | `redis-sentinel://user:password@host:port/0?sentinelServiceName=name&node=host:port` | behind sentinels, whose addresses these are; user and password are those of Redis. `sentinelUsername` and `sentinelPassword` are for the sentinels' own |
    ///
    /// Anything else is refused by its name: other schemes, other parameters, a user without a
    /// password. Names and passwords are percent-encoded: `%20` is a space, `%23` is `#`, `%3F` is `?`,
    /// `%40` is `@`.
    ///
    /// Over TLS the server's certificate has to be of an authority that the system trusts. The
    /// variable `SSL_CERT_FILE` (a file in PEM format) or `SSL_CERT_DIR` names others instead, such
    /// as one of your own; what can be done in code is shown at [`from_fred`](Self::from_fred).
    pub fn new(url: impl Into<String>) -> Self {
        Self::at(Place::Url(url.into()))
    }

    /// Redis as the client library is configured: for what a URL can't say, such as certificates
    /// or credentials that change.
    ///
    /// The library is [`fred`](super::fred). This trusts one authority only, which the system need
    /// not know (feature `redis-tls`):
    ///
    /// ```no_run
    /// # #[cfg(feature = "redis-tls")]
    /// # fn config() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    ///
    /// use axum_io_session::backend::redis::{RedisConfig, fred};
    /// use fred::rustls::pki_types::{CertificateDer, pem::PemObject};
    /// use fred::rustls::{ClientConfig, RootCertStore, crypto::ring};
    /// use fred::types::config::{Config, TlsConnector};
    ///
    /// let mut trusted = RootCertStore::empty();
    /// for certificate in CertificateDer::pem_file_iter("/etc/redis/ca.pem")? {
    ///     trusted.add(certificate?)?;
    /// }
    /// let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
    ///     .with_safe_default_protocol_versions()?
    ///     .with_root_certificates(trusted)
    ///     .with_no_client_auth();
    ///
    /// let mut config = Config::from_url("redis://user:password@redis.example:6380/0")?;
    /// config.tls = Some(TlsConnector::from(tls).into());
    /// let config = RedisConfig::from_fred(config);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// For a client certificate take `with_client_auth_cert` instead. Nodes of a cluster tell each
    /// other's addresses, often as numbers: if the certificates hold names, see
    /// `TlsHostMapping` there. A `CredentialProvider` there may not give names or passwords with
    /// spaces or quotes.
    pub fn from_fred(config: Config) -> Self {
        Self::at(Place::Config(Box::new(config)))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            prefix: "io-session".into(),
            pool: 4,
            timeout: Duration::from_secs(2),
            startup: Duration::from_secs(60),
            keyspace: KeyspaceEvents::Apply,
            sweep: Duration::from_millis(100),
            audit: Duration::from_secs(30),
            replicas: None,
            near_cache: None,
        }
    }

    /// The beginning of all keys and channels: 1 to 64 characters of `A-Z a-z 0-9 . _ - :`.
    /// Default `io-session`. Applications that share a Redis need different ones.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Connections for commands, 1 to 64. Default 4. One more only listens.
    #[must_use]
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool = connections;
        self
    }

    /// How long a command may take, 50 ms to 60 s. Default 2 s. Beyond that the operation is
    /// [`Unavailable`](crate::ErrorKind::Unavailable), and what it did is not known. While a cluster
    /// moves a slot, its commands are asked again for as long, so that they may take twice that.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a start waits for a Redis that is there and loads its data, up to 1 hour. Default
    /// 60 s. What it waits for is logged.
    #[must_use]
    pub fn startup_timeout(mut self, timeout: Duration) -> Self {
        self.startup = timeout;
        self
    }

    /// What to do about the server's `notify-keyspace-events`. Default
    /// [`KeyspaceEvents::Apply`].
    #[must_use]
    pub fn keyspace_events(mut self, keyspace: KeyspaceEvents) -> Self {
        self.keyspace = keyspace;
        self
    }

    /// How often one of the nodes looks for sessions that are over, 10 ms to 60 s. Default 100 ms.
    /// Sessions that have a socket are looked at in time whatever this is.
    #[must_use]
    pub fn sweep_interval(mut self, every: Duration) -> Self {
        self.sweep = every;
        self
    }

    /// How often each node compares its sockets with Redis although nothing seems wrong, 1 s to
    /// 1 hour. Default 30 s. No socket stays on an ended session for longer, whatever was lost.
    #[must_use]
    pub fn audit_interval(mut self, every: Duration) -> Self {
        self.audit = every;
        self
    }

    /// A change of a session is done only when so many replicas (1 to 16) have it, for which they get
    /// this long (1 ms to [`timeout`](Self::timeout)). Default: none, a change is done when the
    /// primary has it.
    ///
    /// This is Redis' `WAIT`, sent with each creation, write, new id and end; renewals and leases don't
    /// wait. If too few replicas confirm in time, the operation is
    /// [`Unavailable`](crate::ErrorKind::Unavailable), over HTTP 503. The change stays made: others see it
    /// already, and a failover may or may not lose it. Take fewer replicas than there are, or
    /// the loss of one refuses every change.
    ///
    /// What it is good for: the server that takes over from a primary that died is one of the replicas. What
    /// it does not promise: that it is one of those that confirmed. Sentinel and Redis Cluster take
    /// the one that seems to have most, and in the words of
    /// [Redis' documentation](https://redis.io/docs/latest/commands/wait/) `WAIT` makes it no strongly
    /// consistent store. Nor is anything on a disk yet.
    ///
    /// As many connections as [`pool_size`](Self::pool_size) says are added, for changes only, and each
    /// carries one change at a time, so that reads wait for nobody: if changes wait for each other, give it
    /// more. A change takes at most twice `timeout`, and this wait. A user with few rights needs
    /// `+wait`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_io_session::backend::redis::RedisConfig;
    ///
    /// let sentinels = "redis-sentinel://127.0.0.1:26379?sentinelServiceName=main";
    /// let config = RedisConfig::new(sentinels).wait_for_replicas(1, Duration::from_millis(500));
    /// ```
    #[must_use]
    pub fn wait_for_replicas(mut self, count: u32, wait: Duration) -> Self {
        self.replicas = Some(Replicas { count, wait });
        self
    }

    /// Serves reads of a session that this node has read or written before from its memory. Default:
    /// each read asks Redis.
    ///
    /// A read that is served takes no command, and a plain write after it takes one. What is served was
    /// current some milliseconds ago: a change on another node is seen once its announcement is here.
    /// Not a moment longer if announcements may have been missed, and never longer than
    /// [`NearCache::max_age`]. This node's own writes are seen at once. `update` and `with_session`
    /// always read the session again.
    ///
    /// It is for sessions that are read often on the same node: sticky balancing, pages with many
    /// requests. A session that is not here yet costs its node a subscription.
    ///
    /// ```
    /// use axum_io_session::backend::redis::{NearCache, RedisConfig};
    ///
    /// let config = RedisConfig::new("redis://127.0.0.1:6379").near_cache(NearCache::default());
    /// ```
    #[must_use]
    pub fn near_cache(mut self, bounds: NearCache) -> Self {
        self.near_cache = Some(bounds);
        self
    }

    pub(super) fn fred(&self) -> Result<Config> {
        match &self.place {
            Place::Config(config) => Ok((**config).clone()),
            Place::Url(url) => {
                url::check(url)?;
                let (url, encrypted) = tls::without(url);
                let config = Config::from_url(&url).map_err(|error| {
                    // Without the value: it may hold a password.
                    Error::option(
                        "redis",
                        "no valid URL",
                        "such as redis://user:password@host:6379/0",
                    )
                    .with_source(error)
                })?;
                if encrypted { tls::over(config) } else { Ok(config) }
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-:".contains(&b);
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(plain) {
            return Err(Error::option(
                "redis.prefix",
                format_args!("{:?}", self.prefix),
                "1 to 64 characters of A-Z a-z 0-9 . _ - :",
            ));
        }
        if !(1..=64).contains(&self.pool) {
            return Err(Error::option("redis.pool_size", self.pool, "1 to 64"));
        }
        let (millis, seconds) = (Duration::from_millis, Duration::from_secs);
        for (name, value, range, words) in [
            (
                "redis.timeout",
                self.timeout,
                millis(50)..=seconds(60),
                "50 milliseconds to 60 seconds",
            ),
            (
                "redis.sweep_interval",
                self.sweep,
                millis(10)..=seconds(60),
                "10 milliseconds to 60 seconds",
            ),
            (
                "redis.startup_timeout",
                self.startup,
                Duration::ZERO..=seconds(3600),
                "at most 1 hour",
            ),
            ("redis.audit_interval", self.audit, seconds(1)..=seconds(3600), "1 second to 1 hour"),
        ] {
            if !range.contains(&value) {
                return Err(Error::option(name, format_args!("{value:?}"), words));
            }
        }
        self.check_near_cache()?;
        self.check_replicas()
    }

    fn check_near_cache(&self) -> Result<()> {
        let Some(NearCache { max_entries, max_bytes, max_age }) = self.near_cache else {
            return Ok(());
        };
        if !(1..=10_000_000).contains(&max_entries) {
            return Err(Error::option("near_cache.max_entries", max_entries, "1 to 10 million"));
        }
        if max_bytes == 0 {
            return Err(Error::option("near_cache.max_bytes", max_bytes, "at least 1"));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&max_age) {
            let words = "10 milliseconds to 1 hour";
            return Err(Error::option("near_cache.max_age", format_args!("{max_age:?}"), words));
        }
        Ok(())
    }

    fn check_replicas(&self) -> Result<()> {
        let Some(Replicas { count, wait }) = self.replicas else { return Ok(()) };
        let name = "redis.wait_for_replicas";
        if !(1..=16).contains(&count) {
            return Err(Error::option(name, format_args!("{count} replicas"), "1 to 16"));
        }
        if !(Duration::from_millis(1)..=self.timeout).contains(&wait) {
            let range = format!("1 millisecond to `redis.timeout`, which is {:?}", self.timeout);
            return Err(Error::option(name, format_args!("a wait of {wait:?}"), &range));
        }
        Ok(())
    }
}

impl From<&str> for RedisConfig {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<String> for RedisConfig {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

impl fmt::Debug for RedisConfig {
    // A URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("prefix", &self.prefix)
            .field("pool", &self.pool)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn bad_options_are_named_with_their_range() {
        let redis = || RedisConfig::new("redis://127.0.0.1");
        for (config, named) in [
            (redis().prefix(""), "redis.prefix"),
            (redis().prefix("a{b}"), "redis.prefix"),
            (redis().pool_size(0), "redis.pool_size"),
            (redis().timeout(Duration::ZERO), "redis.timeout"),
            (redis().sweep_interval(Duration::from_secs(61)), "redis.sweep_interval"),
            (redis().audit_interval(Duration::from_millis(999)), "redis.audit_interval"),
            (redis().startup_timeout(Duration::from_secs(3601)), "redis.startup_timeout"),
            (redis().wait_for_replicas(0, Duration::from_secs(1)), "redis.wait_for_replicas"),
            (redis().wait_for_replicas(17, Duration::from_secs(1)), "1 to 16"),
            (redis().wait_for_replicas(1, Duration::ZERO), "redis.wait_for_replicas"),
            (redis().wait_for_replicas(1, Duration::from_secs(3)), "redis.timeout"),
        ] {
            let error = config.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidOption);
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(redis().check().is_ok());
        assert!(redis().wait_for_replicas(1, Duration::from_secs(2)).check().is_ok());
    }

    #[test]
    fn a_password_does_not_show() {
        let config = RedisConfig::new("redis://me:secret@127.0.0.1:nonsense");
        assert!(!format!("{config:?} {}", config.fred().unwrap_err()).contains("secret"));
    }
}

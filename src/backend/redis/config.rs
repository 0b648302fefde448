//! How to reach Redis.

use std::fmt;
use std::time::Duration;

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
    pub(super) url: String,
    pub(super) prefix: String,
    pub(super) pool: usize,
    pub(super) timeout: Duration,
}

impl RedisConfig {
    /// Redis at this URL, such as `redis://user:password@host:6379/0`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "io-session".into(),
            pool: 4,
            timeout: Duration::from_secs(2),
        }
    }

    /// The beginning of all keys and channels: 1 to 64 characters of `A-Z a-z 0-9 . _ - :`.
    /// Default `io-session`. Applications that share a Redis need different ones.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Connections for commands, 1 to 64. Default 4.
    #[must_use]
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool = connections;
        self
    }

    /// How long a command may take, 50 ms to 60 s. Default 2 s. Beyond that the operation is
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
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
        if !(Duration::from_millis(50)..=Duration::from_secs(60)).contains(&self.timeout) {
            let timeout = format_args!("{:?}", self.timeout);
            return Err(Error::option("redis.timeout", timeout, "50 milliseconds to 60 seconds"));
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
        f.debug_struct("RedisConfig").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

//! Connecting, and what is checked before and after.

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;
use fred::types::config::UnresponsiveConfig;
use fred::types::{RespVersion, Version};

use super::config::{KeyspaceEvents, RedisConfig};
use super::scripts::failed;
use crate::error::{Error, ErrorKind, Result};

/// Messages that the listener may fall behind before it has to compare.
const MESSAGES: usize = 16 * 1024;
/// Commands that may wait on one connection while Redis is away; more fail at once.
const BUFFERED: usize = 10_000;
/// What is wanted of Redis's own notifications: of keys, for deletions and overwriting (`g`, `$`),
/// expiries and evictions.
const FLAGS: &str = "Kg$xe";

/// The connections, and what is known of the other side.
pub(super) struct Connected {
    pub(super) pool: Pool,
    pub(super) listener: Client,
    pub(super) database: u8,
    pub(super) clustered: bool,
}

pub(super) async fn connect(redis: &RedisConfig) -> Result<Connected> {
    redis.check()?;
    let mut config = redis.fred()?;
    // Subscribers of the older protocol can't be asked anything.
    config.version = RespVersion::RESP3;
    let database = config.database.unwrap_or(0);
    let clustered = config.server.is_clustered();
    let timeout = redis.timeout;
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|performance| {
            performance.default_command_timeout = timeout;
            performance.broadcast_channel_capacity = MESSAGES;
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = timeout;
            connection.internal_command_timeout = timeout;
            // A write that is sent again could be done twice.
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = BUFFERED;
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(2 * timeout), interval: timeout / 2 };
        })
        // For ever: a node heals by itself.
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 2000, 2));
    let pool = builder.build_pool(redis.pool).map_err(|e| failed("connect", e))?;
    let listener = builder.build().map_err(|e| failed("connect", e))?;
    let starting = async {
        pool.init().await.map_err(|e| failed("connect", e))?;
        listener.init().await.map_err(|e| failed("connect", e))?;
        Result::<()>::Ok(())
    };
    let started = tokio::time::timeout(5 * timeout, starting).await;
    let connected = Connected { pool, listener, database, clustered };
    match started {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            connected.close().await;
            return Err(error);
        }
        Err(_) => {
            connected.close().await;
            return Err(Error::new(
                ErrorKind::Unavailable,
                "Redis does not answer; check that it runs and that the URL is right",
            ));
        }
    }
    if let Err(error) = connected.check().await {
        connected.close().await;
        return Err(error);
    }
    Ok(connected)
}

impl Connected {
    /// Ends the connections: a client that is only dropped keeps its own.
    pub(super) async fn close(&self) {
        // Errors say that a connection was gone already.
        let _ = self.listener.quit().await;
        let _ = self.pool.quit().await;
    }

    async fn check(&self) -> Result<()> {
        let client = self.pool.next();
        is_supported(client.server_version().as_ref())?;
        let policy: std::result::Result<HashMap<String, String>, _> =
            client.config_get("maxmemory-policy").await;
        if let Ok(policy) = policy
            && policy.values().any(|policy| policy.starts_with("allkeys"))
        {
            tracing::warn!(
                ?policy,
                "under memory pressure Redis may drop any key, leases too: prefer `noeviction`, or `volatile-ttl` to let it end sessions early"
            );
        }
        Ok(())
    }
}

/// Refuses servers that lack what the scripts use. A version that is not told, as the user may not
/// ask for it, is taken to be new enough.
fn is_supported(version: Option<&Version>) -> Result<()> {
    match version {
        Some(version) if *version < Version::new(6, 2, 0) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("Redis is version {version}; it must be 6.2 or later, or any Valkey"),
        )),
        _ => Ok(()),
    }
}

/// Sees to it that Redis tells of deletions, expiries and evictions, on each server that has keys.
/// They are lost when a server restarts, so this is done at each reconnect.
pub(super) async fn keyspace_flags(pool: &Pool, wanted: KeyspaceEvents) {
    let client = pool.next();
    let servers: Vec<Option<Server>> = match client.is_clustered() {
        true => client.active_connections().into_iter().map(Some).collect(),
        false => vec![None],
    };
    for server in servers {
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!(
                %error,
                flags = FLAGS,
                "Redis can't be asked for keyspace notifications: set `notify-keyspace-events` to at least {FLAGS} in its configuration, or deletions and evictions by others are told late"
            );
        };
        let options = Options { cluster_node: server, ..Options::default() };
        let client = client.with_options(&options);
        let now: std::result::Result<HashMap<String, String>, _> =
            client.config_get("notify-keyspace-events").await;
        let flags = match now {
            Ok(now) => now.get("notify-keyspace-events").cloned().unwrap_or_default(),
            Err(error) => {
                refused(&error);
                continue;
            }
        };
        let Some(merged) = merged(&flags) else { continue };
        if wanted == KeyspaceEvents::Check {
            refused(&format_args!("it has {flags:?}"));
            continue;
        }
        let set: std::result::Result<(), _> =
            client.config_set("notify-keyspace-events", merged.as_str()).await;
        match set {
            Ok(()) => tracing::info!(flags = merged, "keyspace notifications switched on"),
            Err(error) => refused(&error),
        }
    }
}

/// The flags that are there and those that are missing; `None` if none is. `A` stands for all but
/// `K`, `E`, `m` and `n`.
fn merged(flags: &str) -> Option<String> {
    let has = |flag: char| flags.contains(flag) || (flag != 'K' && flags.contains('A'));
    let missing: String = FLAGS.chars().filter(|flag| !has(*flag)).collect();
    (!missing.is_empty()).then(|| format!("{flags}{missing}"))
}

/// Asks a connection now and then, and begins it anew if it answers no more: a connection on which
/// little is sent would not notice that the other side is gone.
pub(super) async fn watch_over(client: Client, every: Duration, timeout: Duration) {
    let options = Options { timeout: Some(timeout), ..Options::default() };
    let mut silent = 0;
    loop {
        tokio::time::sleep(every).await;
        if !client.is_connected() {
            silent = 0;
            continue;
        }
        match client.with_options(&options).ping::<Value>(None).await {
            Ok(_) => silent = 0,
            Err(_) => silent += 1,
        }
        if silent >= 2 {
            silent = 0;
            tracing::warn!("Redis answers no more on a connection; connecting again");
            // It reconnects by its policy; an error here says that it is about to.
            let _ = tokio::time::timeout(timeout, client.force_reconnection()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use fred::types::Version;

    use super::{is_supported, merged};
    use crate::error::ErrorKind;

    #[test]
    fn a_server_older_than_6_2_is_refused_and_told_why() {
        for old in [Version::new(5, 0, 14), Version::new(6, 0, 16)] {
            let error = is_supported(Some(&old)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains(&old.to_string()) && text.contains("6.2 or later"), "{text}");
        }
        for good in [Version::new(6, 2, 0), Version::new(7, 2, 4), Version::new(9, 1, 2)] {
            assert!(is_supported(Some(&good)).is_ok());
        }
        assert!(is_supported(None).is_ok());
    }

    #[test]
    fn flags_are_merged_into_what_is_there() {
        assert_eq!(merged("").as_deref(), Some("Kg$xe"));
        assert_eq!(merged("Elx").as_deref(), Some("ElxKg$e"));
        assert_eq!(merged("AE").as_deref(), Some("AEK"));
        assert_eq!(merged("AKE"), None);
        assert_eq!(merged("xeKg$"), None);
    }
}

//! Connecting, and what is checked before and after.

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;
use fred::types::{RespVersion, Version};
use futures_util::future::{join_all, try_join_all};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::redis::config::RedisConfig;
use crate::backend::redis::connection::options::builder;
use crate::backend::redis::connection::replication::ReplicatedPool;
use crate::backend::redis::connection::sentinel::{Named, Sentinels};
use crate::backend::redis::connection::url::in_a_line;
use crate::backend::redis::error::failed;
use crate::error::{Error, ErrorKind, Result};

/// Messages that the listener may fall behind before it has to compare.
const MESSAGES: usize = 16 * 1024;
/// How often a server that loads its data is asked whether it is done.
const LOADING: Duration = Duration::from_millis(200);
/// How often a client is sent to the primary that the sentinels name: the one that it asks may name
/// the old one for a while, and its name for it may be another one.
const MOVES: u32 = 5;

/// The connections, and what is known of the other side.
pub(crate) struct Connected {
    pub(crate) pool: Pool,
    pub(crate) replicated: Option<ReplicatedPool>,
    pub(crate) listener: Client,
    pub(crate) sentinels: Option<Sentinels>,
    pub(crate) database: u8,
    pub(crate) clustered: bool,
}

pub(crate) async fn connect(redis: &RedisConfig) -> Result<Connected> {
    redis.check()?;
    let mut config = redis.fred()?;
    // Subscribers of the older protocol can't be asked anything.
    config.version = RespVersion::RESP3;
    let in_a_line = |word: String| in_a_line(&word).into_owned();
    config.username = config.username.map(in_a_line);
    config.password = config.password.map(in_a_line);
    let database = config.database.unwrap_or(0);
    let clustered = config.server.is_clustered();
    let timeout = redis.timeout;
    let sentinels = Sentinels::new(&config, timeout)?;
    let mut builder = builder(config, timeout);
    let pool = builder.build_pool(redis.pool).map_err(|e| failed("connect", e))?;
    let replicated = match redis.replicas {
        Some(wanted) => {
            let pool = builder.build_pool(redis.pool).map_err(|e| failed("connect", e))?;
            Some(ReplicatedPool::new(pool, wanted, timeout))
        }
        None => None,
    };
    // Last, for the others have nothing to hear, and each has a dozen channels of this size.
    builder.with_performance_config(|performance| {
        performance.broadcast_channel_capacity = MESSAGES;
    });
    let listener = builder.build().map_err(|e| failed("connect", e))?;
    let starting = async {
        pool.init().await.map_err(|e| failed("connect", e))?;
        listener.init().await.map_err(|e| failed("connect", e))?;
        if let Some(replicated) = &replicated {
            replicated.pool.init().await.map_err(|e| failed("connect", e))?;
        }
        Result::<()>::Ok(())
    };
    let started = tokio::time::timeout(5 * timeout, starting).await;
    let connected = Connected { pool, replicated, listener, sentinels, database, clustered };
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
    if let Err(error) = connected.until_loaded(redis.startup).await {
        connected.close().await;
        return Err(error);
    }
    if let Err(error) = connected.check().await {
        connected.close().await;
        return Err(error);
    }
    Ok(connected)
}

/// Ends the connections: a client that is only dropped keeps its own.
pub(crate) async fn close(
    clients: impl IntoIterator<Item = Client>,
    pools: impl IntoIterator<Item = Pool>,
) {
    let alone = clients.into_iter().map(async |client| client.quit().await);
    let pooled = pools.into_iter().map(async |pool| pool.quit().await);
    // Errors say that a connection was gone already.
    let _ = tokio::join!(join_all(alone), join_all(pooled));
}

impl Connected {
    async fn close(&self) {
        let replicated = self.replicated.as_ref().map(|replicated| replicated.pool.clone());
        // Those to sentinels are not there yet.
        close([self.listener.clone()], [self.pool.clone()].into_iter().chain(replicated)).await;
    }

    /// Waits for a server that still loads its data: it takes connections, and refuses commands.
    async fn until_loaded(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut warned = false;
        loop {
            let pong = self.pool.next().ping::<Value>(None).await;
            let Err(error) = pong.map(drop) else { return Ok(()) };
            if !error.details().starts_with("LOADING") {
                return Err(failed("PING", error));
            }
            if Instant::now() >= deadline {
                let what = format!(
                    "Redis still loads its data after {limit:?}; raise `redis.startup_timeout`"
                );
                return Err(Error::new(ErrorKind::Unavailable, what).with_source(error));
            }
            if !warned {
                warned = true;
                tracing::warn!(?limit, "waiting for Redis, which loads its data");
            }
            tokio::time::sleep(LOADING).await;
        }
    }

    async fn check(&self) -> Result<()> {
        let client = self.pool.next();
        is_supported(client.server_version().as_ref())?;
        if let Some(replicated) = &self.replicated {
            replicated.check().await?;
        }
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

/// Refuses servers that lack what the scripts use. A version that is not known, as the user may not
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

/// Looks after a client's connections, and connects again if one answers no more, for a connection
/// on which little is sent would not notice that the other side is gone, or if it leads to a server that
/// is the primary no more.
pub(crate) async fn monitor_connection(
    client: Client,
    every: Duration,
    timeout: Duration,
    mut named: Option<watch::Receiver<Option<Named>>>,
) {
    let mut silent = 0;
    let mut moves = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = changed(&mut named) => moves = MOVES,
        }
        if !client.is_connected() {
            silent = 0;
            continue;
        }
        if moves > 0 && is_elsewhere(&client, named.as_ref()) {
            moves -= 1;
            tracing::warn!("the sentinels name another primary; going there");
            force_reconnect(&client, timeout).await;
            continue;
        }
        let servers = match client.is_clustered() {
            true => client.active_connections().into_iter().map(Some).collect(),
            false => vec![None],
        };
        let pings = servers.into_iter().map(async |cluster_node| {
            let options = Options { timeout: Some(timeout), cluster_node, ..Options::default() };
            client.with_options(&options).ping::<Value>(None).await
        });
        match try_join_all(pings).await {
            Ok(_) => silent = 0,
            Err(_) => silent += 1,
        }
        if silent >= 2 {
            silent = 0;
            tracing::warn!("Redis answers no more on a connection; connecting again");
            force_reconnect(&client, timeout).await;
        }
    }
}

async fn changed(named: &mut Option<watch::Receiver<Option<Named>>>) {
    if let Some(named) = named
        && named.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Whether the client has a connection, and to another server than the one that is named.
fn is_elsewhere(client: &Client, named: Option<&watch::Receiver<Option<Named>>>) -> bool {
    let Some(named) = named.and_then(|named| named.borrow().clone()) else { return false };
    let is_named = |to: &Server| to.host == named.server.host && to.port == named.server.port;
    let connected = client.active_connections();
    !connected.is_empty() && !connected.iter().any(is_named)
}

async fn force_reconnect(client: &Client, timeout: Duration) {
    // It reconnects by its policy; an error here says that it is about to.
    let _ = tokio::time::timeout(timeout, client.force_reconnection()).await;
}

#[cfg(test)]
mod tests {
    use fred::types::Version;

    use super::is_supported;
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
}

//! Subscribing, at first and after each reconnect.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::clients::WithOptions;
use fred::prelude::*;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::hear::Listener;
use super::scripts::failed;
use super::{KeyspaceEvents, flags};
use crate::error::{Error, ErrorKind, Result};

/// A message that has not come for this long is sent again.
const DELIVERY: Duration = Duration::from_millis(200);
/// How often, before a subscription counts as failed.
pub(super) const TRIES: u32 = 25;
/// Between tries after a reconnect.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// The client, with all it is asked going to this server of a cluster.
pub(super) fn at(client: &Client, server: Option<&Server>) -> WithOptions<Client> {
    let options = Options { cluster_node: server.cloned(), ..Options::default() };
    client.with_options(&options)
}

impl Listener {
    /// Subscribes to all that there is to hear.
    pub(super) async fn subscribe(&self) -> Result<()> {
        if self.shared.link.clustered {
            return self.follow(&mut *self.heard.lock().await).await.map(drop);
        }
        self.subscribe_at(None).await?;
        self.watch_keys(None).await;
        Ok(())
    }

    /// Subscribes anew after each reconnect, for ever.
    pub(super) async fn stay_subscribed(self: Arc<Self>, mut reconnects: Receiver<Server>) {
        if self.shared.link.clustered {
            return self.follow_for_ever(reconnects).await;
        }
        loop {
            match reconnects.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
            while let Err(error) = self.subscribe().await {
                tracing::warn!(%error, "subscribing again failed; trying on");
                tokio::time::sleep(PAUSE).await;
            }
            // Whatever was sent in between is lost.
            self.shared.gap();
        }
    }

    /// Subscribes to announcements and to this node's grants, and waits until a message really
    /// comes: an `Ok` of a subscription says only that it was written.
    pub(super) async fn subscribe_at(&self, server: Option<&Server>) -> Result<()> {
        let keys = &self.shared.keys;
        let channels = vec![keys.announcements(), keys.grants(&self.shared.instance)];
        let subscribed = at(&self.client, server).subscribe(channels).await;
        subscribed.map_err(|e| failed("SUBSCRIBE", e))?;
        if self.delivers(TRIES).await? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "Redis delivers no messages to its subscriber; the user needs `+subscribe`, `+publish` and the channels `PREFIX:*`",
        ))
    }

    /// Whether a message to this node comes. An error if none could be sent.
    pub(super) async fn delivers(&self, tries: u32) -> Result<bool> {
        let own = self.shared.keys.grants(&self.shared.instance);
        let mut messages = self.client.message_rx();
        let delivered = async {
            loop {
                match messages.recv().await {
                    Ok(message) if *message.channel == own => return true,
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return false,
                }
            }
        };
        let mut delivered = std::pin::pin!(delivered);
        for _ in 0..tries {
            let sent: std::result::Result<i64, _> = self
                .shared
                .link
                .ask(|client| {
                    let own = own.clone();
                    async move { client.publish(own, "").await }
                })
                .await;
            sent.map_err(|e| failed("PUBLISH", e))?;
            if let Ok(delivered) = tokio::time::timeout(DELIVERY, &mut delivered).await {
                return Ok(delivered);
            }
        }
        Ok(false)
    }

    /// Subscribes to what Redis says of records. Without it announcements, the sweep and the audit
    /// go on: foreign deletions and evictions are told later.
    pub(super) async fn watch_keys(&self, server: Option<&Server>) {
        if self.keyspace == KeyspaceEvents::Off {
            return;
        }
        let asked = self.shared.link.pool.next();
        if server.is_some_and(|server| !asked.active_connections().contains(server)) {
            // It goes there only once it has heard of it.
            let _ = tokio::time::timeout(self.timeout, asked.sync_cluster()).await;
        }
        if let Err(refused) = flags::switch_on(&at(asked, server), self.keyspace).await {
            // Each reconnect and each server of a cluster would say the same.
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    refused,
                    "Redis can't be asked for keyspace notifications: set `notify-keyspace-events` to at least {} in its configuration, or deletions and evictions by others are told late",
                    flags::WANTED
                );
            }
        }
        let pattern = self.shared.keys.witnesses();
        let ears = at(&self.client, server);
        let watched = async {
            ears.psubscribe(pattern.as_str()).await?;
            // The connection itself has to say so, see above.
            ears.client_info::<String>().await
        };
        match watched.await {
            Ok(info) if info.contains("psub=0") => {
                tracing::warn!(
                    pattern,
                    "Redis did not take the subscription to keyspace notifications"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                %error,
                "Redis refused the subscription to keyspace notifications: deletions and evictions by others are told late; the user needs `+psubscribe`, `+client|info` and, word for word, the channel `{pattern}`"
            ),
        }
    }
}

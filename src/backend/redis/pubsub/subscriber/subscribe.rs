//! Subscribing, at first and after each reconnect.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::clients::WithOptions;
use fred::prelude::*;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

use super::Subscriber;
use crate::backend::redis::KeyspaceEvents;
use crate::backend::redis::error::failed;
use crate::backend::redis::pubsub::keyspace_events;
use crate::error::{Error, ErrorKind, Result};

/// A message that has not come for this long is sent again.
const DELIVERY: Duration = Duration::from_millis(200);
/// How often, before a subscription counts as failed.
pub(crate) const TRIES: u32 = 25;
/// Between tries after a reconnect.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// The client, with all it is asked going to this server of a cluster.
pub(crate) fn at(client: &Client, server: Option<&Server>) -> WithOptions<Client> {
    let options = Options { cluster_node: server.cloned(), ..Options::default() };
    client.with_options(&options)
}

impl Subscriber {
    /// Subscribes for the first time. Returns whose turn it is to sweep from now on.
    pub(crate) async fn begin(&self) -> Result<watch::Receiver<bool>> {
        let mut turns = self.context.leader.subscribe();
        self.subscribe().await?;
        if !*turns.borrow_and_update() {
            // The operator of this node is to know, although another one listens now.
            self.switch_keys_on(None).await;
        } else if !self.context.commands.clustered {
            self.take_turn().await;
        }
        Ok(turns)
    }

    /// Subscribes to what nodes say, and in a cluster to all there is to hear.
    pub(crate) async fn subscribe(&self) -> Result<()> {
        if self.context.commands.clustered {
            return self.follow(&mut *self.topology.lock().await).await.map(drop);
        }
        self.subscribe_at(None).await
    }

    /// Subscribes again after each reconnect, and to what Redis says of records as long as this node
    /// sweeps.
    pub(crate) async fn stay_subscribed(
        self: Arc<Self>,
        mut reconnects: Receiver<Server>,
        mut turns: watch::Receiver<bool>,
    ) {
        if self.context.commands.clustered {
            return self.follow_for_ever(reconnects, turns).await;
        }
        loop {
            tokio::select! {
                reconnected = reconnects.recv() => {
                    if matches!(reconnected, Err(RecvError::Closed)) {
                        return;
                    }
                    while let Err(error) = self.subscribe().await {
                        tracing::warn!(%error, "subscribing again failed; trying on");
                        tokio::time::sleep(PAUSE).await;
                    }
                    // Whatever was sent in between is lost.
                    self.context.missed_messages();
                    if *turns.borrow_and_update() {
                        self.take_turn().await;
                    }
                }
                _ = turns.changed() => {
                    if *turns.borrow_and_update() {
                        self.update_or_retry().await;
                        self.take_turn().await;
                    } else {
                        self.leave_keys(None).await;
                        self.update_or_retry().await;
                    }
                }
                () = self.context.interest.changed() => self.update_or_retry().await,
            }
        }
    }

    async fn update_or_retry(&self) {
        if let Err(error) = self.update(None).await {
            tracing::debug!(%error, "subscribing to clients failed; trying on");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Listens to what Redis says of records, now that this node sweeps: one node is enough, for
    /// it announces what it finds.
    async fn take_turn(&self) {
        self.watch_keys(None).await;
        // Nobody listened for a moment.
        self.context.request_comparison().await;
    }

    /// Leaves it to another node to listen to what Redis says of records. `false` if it can't: no
    /// harm: the view drops what comes twice.
    pub(crate) async fn leave_keys(&self, server: Option<&Server>) -> bool {
        let ears = at(&self.client, server);
        let left = ears.punsubscribe(self.context.keys.witnesses()).await;
        left.is_ok() && self.patterns(server).await == Some(self.other_patterns(server))
    }

    /// Ends all subscriptions to announcements on this server of a cluster: they are received on
    /// another one, and would come twice. `false` if it can't.
    pub(crate) async fn leave_announcements(&self, server: &Server) -> bool {
        let redis = at(&self.client, Some(server));
        let left = async {
            redis.unsubscribe(()).await?;
            redis.punsubscribe(self.context.keys.all_announcements()).await
        };
        left.await.is_ok()
            && self.says_of_itself(Some(server), "sub").await == Some(0)
            && self.patterns(Some(server)).await.is_some_and(|patterns| patterns <= 1)
    }

    /// The patterns that a connection is subscribed to.
    async fn patterns(&self, server: Option<&Server>) -> Option<usize> {
        self.says_of_itself(server, "psub").await
    }

    /// How many of them are not for keyspace notifications.
    fn other_patterns(&self, server: Option<&Server>) -> usize {
        let wider = self.wider();
        usize::from(wider.all && (server.is_none() || wider.home.as_ref() == server))
    }

    /// What the connection says of itself: an `Ok` of a subscription, or of its end, says only that
    /// it was written.
    async fn says_of_itself(&self, server: Option<&Server>, what: &str) -> Option<usize> {
        let info = at(&self.client, server).client_info::<String>().await.ok()?;
        let mut fields = info.split_whitespace().filter_map(|field| field.split_once('='));
        fields.find(|(name, _)| *name == what)?.1.parse().ok()
    }

    /// Subscribes to what concerns all nodes and to this node's grants, and waits until a message
    /// really comes; then to clients.
    pub(crate) async fn subscribe_at(&self, server: Option<&Server>) -> Result<()> {
        let keys = &self.context.keys;
        let channels = vec![keys.all_nodes(), keys.grants(&self.context.instance)];
        let subscribed = at(&self.client, server).subscribe(channels).await;
        subscribed.map_err(|e| failed("SUBSCRIBE", e))?;
        if self.delivers(TRIES).await? {
            self.forget_subscriptions();
            return self.update(server).await;
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "Redis delivers no messages to its subscriber; the user needs `+subscribe`, `+publish` and the channels `PREFIX:*`",
        ))
    }

    /// Whether a message to this node comes. An error if none could be sent.
    pub(crate) async fn delivers(&self, tries: u32) -> Result<bool> {
        let own = self.context.keys.grants(&self.context.instance);
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
                .context
                .commands
                .with_retry(|client| {
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

    /// Has Redis say what happens to records, as far as it may be asked to.
    async fn switch_keys_on(&self, server: Option<&Server>) {
        if self.keyspace == KeyspaceEvents::Off {
            return;
        }
        let asked = self.context.commands.pool.next();
        if server.is_some_and(|server| !asked.active_connections().contains(server)) {
            // It goes there only once it has learnt of it.
            let _ = tokio::time::timeout(self.timeout, asked.sync_cluster()).await;
        }
        if let Err(refused) = keyspace_events::switch_on(&at(asked, server), self.keyspace).await {
            // Each reconnect and each server of a cluster would say the same.
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    refused,
                    "Redis can't be asked for keyspace notifications: set `notify-keyspace-events` to at least {} in its configuration, or deletions and evictions by others are told late",
                    keyspace_events::WANTED
                );
            }
        }
    }

    /// Subscribes to what Redis says of records. Without it announcements, the sweep and the audit
    /// go on: foreign deletions and evictions are announced later.
    pub(crate) async fn watch_keys(&self, server: Option<&Server>) {
        if self.keyspace == KeyspaceEvents::Off {
            return;
        }
        self.switch_keys_on(server).await;
        let pattern = self.context.keys.witnesses();
        let ears = at(&self.client, server);
        let watched = async {
            ears.psubscribe(pattern.as_str()).await?;
            // The connection itself has to say so, see above.
            Ok::<_, fred::error::Error>(self.patterns(server).await)
        };
        match watched.await {
            Ok(Some(patterns)) if patterns <= self.other_patterns(server) => {
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

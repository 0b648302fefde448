//! Hearing a cluster: announcements on one of its servers, for each server passes them on to all,
//! and what Redis says of keys on every primary, for that stays where the key is.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Subscriber;
use super::subscribe::PAUSE;
use super::topology::Topology;
use crate::error::{Error, ErrorKind, Result};
use Subscription::{Kept, Left};

/// How often it is looked whether the servers are the same.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two questions to the cluster: a connection that only listens never learns by
/// itself that a server has come or gone.
const ASK: u32 = 4;
/// How often a message is sent to see whether it comes; see [`Subscriber::delivers`].
const TRIES: u32 = 10;

/// What becomes of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscription {
    Kept,
    Left,
}

/// What is subscribed now and was not before.
#[derive(Debug, Default)]
pub(crate) struct SubscriptionChanges {
    announcements: bool,
    /// What Redis says of records.
    keys: bool,
}

impl Subscriber {
    /// Subscribes to what has come since the last time.
    pub(crate) async fn follow(&self, topology: &mut Topology) -> Result<SubscriptionChanges> {
        let servers = self.client.active_connections();
        let mut news = SubscriptionChanges::default();
        let Some(home) = topology.settle(&servers) else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "no server of the cluster can be reached",
            ));
        };
        if !topology.works {
            if let Err(error) = self.subscribe_at(Some(&home)).await {
                self.give_up(topology).await;
                return Err(error);
            }
            topology.works = true;
            topology.unresponsive = None;
            news.announcements = true;
        } else {
            self.update(Some(&home)).await?;
        }
        topology.watched.retain(|server| servers.contains(server));
        let sweeps = self.context.is_leader();
        if topology.stale_subscriptions || !(sweeps || topology.watched.is_empty()) {
            topology.stale_subscriptions = false;
            for server in &servers {
                let announcements = if *server == home { Kept } else { Left };
                let left = self.leave(server, announcements, if sweeps { Kept } else { Left });
                if !left.await {
                    topology.stale_subscriptions = true;
                } else if !sweeps {
                    topology.watched.remove(server);
                }
            }
        }
        for server in servers.into_iter().filter(|_| sweeps) {
            if !topology.watched.contains(&server) {
                self.watch_keys(Some(&server)).await;
                topology.watched.insert(server);
                news.keys = true;
            }
        }
        Ok(news)
    }

    /// Ends subscriptions that a connection to this server may have. `false` if it can't.
    async fn leave(
        &self,
        server: &Server,
        announcements: Subscription,
        keys: Subscription,
    ) -> bool {
        let mut left = true;
        if announcements == Left {
            left &= self.leave_announcements(server).await;
        }
        if keys == Left {
            left &= self.leave_keys(Some(server)).await;
        }
        left
    }

    /// [`follow`](Self::follow), at each reconnect and regularly.
    pub(crate) async fn follow_for_ever(
        self: Arc<Self>,
        mut reconnects: Receiver<Server>,
        mut turns: watch::Receiver<bool>,
    ) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = 0;
        loop {
            let mut topology = self.topology.lock().await;
            tokio::select! {
                server = reconnects.recv() => match server {
                    Ok(server) => topology.is_new(&server),
                    Err(RecvError::Lagged(_)) => topology.all_new(),
                    Err(RecvError::Closed) => return,
                },
                // Whose turn it is to listen to what Redis says of records.
                _ = turns.changed() => {}
                () = self.context.interest.changed() => {}
                _ = looks.tick() => {
                    tick += 1;
                    if tick % ASK == 0 {
                        // It tries on by itself; an answer that does not come is asked for again.
                        let _ = tokio::time::timeout(self.timeout, self.client.sync_cluster()).await;
                        // A server that the others have lost passes nothing on, and keeps its
                        // connections.
                        if topology.works && matches!(self.delivers(TRIES).await, Ok(false)) {
                            tracing::warn!("no announcements come any more; connecting again");
                            self.give_up(&mut topology).await;
                        }
                    }
                }
            }
            match self.follow(&mut topology).await {
                Ok(news) => {
                    // Whatever was sent in between is lost.
                    if news.announcements {
                        self.context.missed_messages();
                    }
                    if news.keys {
                        self.context.request_comparison().await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "subscribing again failed; trying on");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Connects again. Connections that work may survive this.
    async fn give_up(&self, topology: &mut Topology) {
        topology.gave_up();
        // It connects by its policy; an error here says that it is about to.
        let _ = tokio::time::timeout(self.timeout, self.client.force_reconnection()).await;
    }
}

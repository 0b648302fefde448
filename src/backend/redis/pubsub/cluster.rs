//! Hearing a cluster: announcements on one of its servers, for each server passes them on to all,
//! and what Redis says of keys on every primary, for that stays where the key is.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::backend::redis::pubsub::subscribe::PAUSE;
use crate::backend::redis::pubsub::subscriber::Subscriber;
use crate::backend::redis::view::Input;
use crate::error::{Error, ErrorKind, Result};
use Subscription::{Kept, Left};

/// How often it is looked whether the servers are the same.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two questions to the cluster: a connection that only listens never learns by
/// itself that a server has come or gone.
const ASK: u32 = 4;
/// How often a message is sent to see whether it comes; see [`Subscriber::delivers`].
const TRIES: u32 = 10;

/// What is heard of a cluster by now.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Where announcements are heard. Only ever one server: on two, each would come twice.
    home: Option<Server>,
    /// The subscription there is known to work.
    works: bool,
    /// Where none came although it was subscribed.
    deaf: Option<Server>,
    /// Primaries whose keys are watched, while this node sweeps.
    watched: HashSet<Server>,
    /// Connections that survived may have subscriptions that they should not have any more.
    lingers: bool,
}

/// What becomes of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscription {
    Kept,
    Left,
}

/// What is subscribed now and was not before.
#[derive(Debug, Default)]
pub(crate) struct News {
    announcements: bool,
    /// What Redis says of records.
    keys: bool,
}

impl Heard {
    /// A connection is new: nothing is subscribed on it.
    fn is_new(&mut self, server: &Server) {
        self.watched.remove(server);
        if self.home.as_ref() == Some(server) {
            self.works = false;
        }
    }

    /// Any connection may be new.
    fn all_new(&mut self) {
        self.watched.clear();
        self.works = false;
    }

    /// Where to hear announcements from now on: where it was, as long as that is there, for the
    /// subscription may have survived.
    fn settle(&mut self, servers: &[Server]) -> Option<Server> {
        let before = self.home.take();
        let moves = before.as_ref().is_some_and(|home| !servers.contains(home));
        // Its connection may come back as it was.
        self.lingers |= moves;
        let stays = before.filter(|_| !moves);
        self.works &= stays.is_some();
        let others = || servers.iter().find(|server| self.deaf.as_ref() != Some(server));
        self.home = stays.or_else(|| others().or(servers.first()).cloned());
        self.home.clone()
    }

    /// Nothing comes from there. It has to be left before another takes its place.
    fn gave_up(&mut self) {
        *self = Self { deaf: self.home.take(), lingers: true, ..Self::default() };
    }
}

impl Subscriber {
    /// Subscribes to what has come since the last time.
    pub(crate) async fn follow(&self, heard: &mut Heard) -> Result<News> {
        let servers = self.client.active_connections();
        let mut news = News::default();
        let Some(home) = heard.settle(&servers) else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "no server of the cluster can be reached",
            ));
        };
        if !heard.works {
            if let Err(error) = self.subscribe_at(Some(&home)).await {
                self.give_up(heard).await;
                return Err(error);
            }
            heard.works = true;
            heard.deaf = None;
            news.announcements = true;
        }
        heard.watched.retain(|server| servers.contains(server));
        let sweeps = self.context.is_leader();
        if heard.lingers || !(sweeps || heard.watched.is_empty()) {
            heard.lingers = false;
            for server in &servers {
                let announcements = if *server == home { Kept } else { Left };
                let left = self.leave(server, announcements, if sweeps { Kept } else { Left });
                if !left.await {
                    heard.lingers = true;
                } else if !sweeps {
                    heard.watched.remove(server);
                }
            }
        }
        for server in servers.into_iter().filter(|_| sweeps) {
            if !heard.watched.contains(&server) {
                self.watch_keys(Some(&server)).await;
                heard.watched.insert(server);
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

    /// [`follow`](Self::follow), at each reconnect and now and then, for ever.
    pub(crate) async fn follow_for_ever(
        self: Arc<Self>,
        mut reconnects: Receiver<Server>,
        mut turns: watch::Receiver<bool>,
    ) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = 0;
        loop {
            let mut heard = self.heard.lock().await;
            tokio::select! {
                server = reconnects.recv() => match server {
                    Ok(server) => heard.is_new(&server),
                    Err(RecvError::Lagged(_)) => heard.all_new(),
                    Err(RecvError::Closed) => return,
                },
                // Whose turn it is to listen to what Redis says of records.
                _ = turns.changed() => {}
                _ = looks.tick() => {
                    tick += 1;
                    if tick % ASK == 0 {
                        // It tries on by itself; an answer that does not come is asked for again.
                        let _ = tokio::time::timeout(self.timeout, self.client.sync_cluster()).await;
                        // A server that the others have lost passes nothing on, and keeps its
                        // connections.
                        if heard.works && matches!(self.delivers(TRIES).await, Ok(false)) {
                            tracing::warn!("no announcements come any more; connecting again");
                            self.give_up(&mut heard).await;
                        }
                    }
                }
            }
            match self.follow(&mut heard).await {
                Ok(news) => {
                    // Whatever was sent in between is lost.
                    if news.announcements {
                        self.context.view.apply(Input::Gap);
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

    /// Begins anew. Connections that work may survive this.
    async fn give_up(&self, heard: &mut Heard) {
        heard.gave_up();
        // It connects by its policy; an error here says that it is about to.
        let _ = tokio::time::timeout(self.timeout, self.client.force_reconnection()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(ports: &[u16]) -> Vec<Server> {
        ports.iter().map(|port| Server::new("127.0.0.1", *port)).collect()
    }

    #[test]
    fn announcements_are_heard_where_they_were_as_long_as_that_is_there() {
        let mut heard = Heard { works: true, ..Heard::default() };
        heard.home = servers(&[2]).pop();
        let home = heard.settle(&servers(&[1, 2, 3]));
        assert_eq!((home, heard.works), (servers(&[2]).pop(), true));
        heard.is_new(&servers(&[2])[0]);
        assert!(!heard.works, "a new connection has no subscription");
        heard.works = true;
        let home = heard.settle(&servers(&[3, 4]));
        assert_eq!((home, heard.works), (servers(&[3]).pop(), false));
        assert_eq!(heard.settle(&[]), None);
    }

    #[test]
    fn a_server_from_which_nothing_comes_is_taken_only_if_there_is_no_other() {
        let mut heard = Heard::default();
        heard.settle(&servers(&[1, 2]));
        heard.gave_up();
        assert_eq!(heard.settle(&servers(&[1, 2])), servers(&[2]).pop());
        heard.gave_up();
        assert_eq!(heard.settle(&servers(&[2])), servers(&[2]).pop());
    }
}

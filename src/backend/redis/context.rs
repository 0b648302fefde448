//! What all parts of the backend share.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::task::TaskTracker;

use super::hints::Hint;
use super::keys::Keys;
use crate::backend::redis::connection::commands::Link;
use crate::backend::redis::expiry::probe::Looks;
use crate::backend::redis::lease::Leases;
use crate::backend::redis::pubsub::message;
use crate::backend::redis::view::suspects::Doubt;
use crate::backend::redis::view::tombstones::Ended;
use crate::backend::redis::view::tracker::{Change, WatchedClients};
use crate::backend::{BackendConfig, BackendEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Gap, Record, SessionEvent};

pub(super) struct Shared {
    pub(super) config: BackendConfig,
    /// This process among all others, whatever its node is called.
    pub(super) instance: String,
    pub(super) keys: Keys,
    pub(super) link: Link,
    pub(super) events: broadcast::Sender<BackendEvent>,
    pub(super) watched: WatchedClients,
    pub(super) ended: Ended,
    pub(super) leases: Leases,
    pub(super) looks: Looks,
    /// This node sweeps, and listens to what Redis says of records.
    pub(super) sweeping: watch::Sender<bool>,
    pub(super) doubt: Doubt,
    /// Hints that could not be set and are tried again.
    pub(super) hints: mpsc::Sender<Hint>,
    pub(super) tasks: TaskTracker,
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// An argument or message that is no text.
pub(super) fn bytes(bytes: Vec<u8>) -> Value {
    bytes.into_boxed_slice().into()
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the bridge was shut down")
}

impl Shared {
    /// The client concerned and this node, which most scripts are given first.
    pub(super) fn who(&self, client: &ClientId) -> Value {
        bytes(message::who(client, &self.config.node))
    }

    /// Takes over a record that was read or written, unless its end was told meanwhile.
    pub(super) fn learn(&self, record: &Record) {
        if !self.ended.contains(&record.client_id, record.generation) {
            self.watched.learn(&Change::of(record));
        }
    }

    /// Tells this node.
    pub(super) fn tell(&self, event: BackendEvent) {
        // An error says that nobody listens.
        let _ = self.events.send(event);
    }

    /// Tells this node's listeners that they may have missed something, and has its sockets'
    /// sessions compared with Redis.
    pub(super) fn gap(&self) {
        let gap = SessionEvent::Gap(Gap::new(self.config.node.clone()));
        self.tell(BackendEvent::plain(gap));
        self.doubt.all();
    }

    /// Has all nodes compare their sockets' sessions with Redis: what others did to records may
    /// not have been noticed.
    pub(super) async fn have_all_compare(&self) {
        if let Err(error) = self.announce(message::compare()).await {
            tracing::debug!(%error, "nodes could not be asked to compare; their audits will find out");
            self.doubt.all();
        }
    }

    pub(super) async fn announce(&self, message: Vec<u8>) -> Result<()> {
        let message = bytes(message);
        let told = self.link.ask(|redis| {
            let (channel, message) = (self.keys.announcements(), message.clone());
            async move { redis.publish(channel, message).await }
        });
        told.await.map_err(|e| crate::backend::redis::error::failed("PUBLISH", e))
    }

    pub(super) fn sweeps(&self) -> bool {
        *self.sweeping.borrow()
    }

    /// Takes or loses the turn to sweep.
    pub(super) fn sweep_is_ours(&self, ours: bool) {
        self.sweeping.send_if_modified(|before| std::mem::replace(before, ours) != ours);
    }

    /// Runs a change to its end even if the caller goes away: what follows its script has to be
    /// done as well.
    pub(super) async fn whole<T, F>(
        self: &Arc<Self>,
        change: impl FnOnce(Arc<Shared>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.tasks.spawn(change(self.clone()));
        task.await.unwrap_or_else(|error| Err(Error::store("an operation panicked", error)))
    }
}

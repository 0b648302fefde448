//! What all components of the backend share.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::error::failed;
use super::hints::Hint;
use super::keys::Keys;
use crate::backend::BackendConfig;
use crate::backend::redis::connection::commands::Link;
use crate::backend::redis::lease::Leases;
use crate::backend::redis::pubsub::message;
use crate::backend::redis::view::Input;
use crate::backend::redis::view::shared::SharedView;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Record};

/// The parts that all components of the backend use.
pub(super) struct Context {
    pub(super) config: BackendConfig,
    /// This process among all others, whatever its node is called.
    pub(super) instance: String,
    pub(super) keys: Keys,
    pub(super) link: Link,
    /// What this node believes about sessions, and the events that follow from it.
    pub(super) view: SharedView,
    pub(super) leases: Leases,
    /// Whether this node sweeps, and listens to keyspace events.
    pub(super) leader: watch::Sender<bool>,
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

pub(crate) type Shared = Context;

impl Context {
    /// The client concerned and this node, which most scripts are given first.
    pub(super) fn who(&self, client: &ClientId) -> Value {
        bytes(message::who(client, &self.config.node))
    }

    /// Has the view take over a record that was read or written.
    pub(super) fn learn(&self, record: &Record) {
        self.view.apply(Input::Read(record));
    }

    /// Has all nodes compare their sockets' sessions with Redis: what others did to records may
    /// not have been noticed.
    pub(super) async fn request_comparison(&self) {
        if let Err(error) = self.announce(message::compare()).await {
            tracing::debug!(%error, "nodes could not be asked to compare; their audits will find out");
            self.view.apply(Input::CompareAll);
        }
    }

    pub(super) async fn announce(&self, message: Vec<u8>) -> Result<()> {
        let message = bytes(message);
        let published = self.link.ask(|redis| {
            let (channel, message) = (self.keys.announcements(), message.clone());
            async move { redis.publish(channel, message).await }
        });
        published.await.map_err(|e| failed("PUBLISH", e))
    }

    /// Whether this node sweeps.
    pub(super) fn is_leader(&self) -> bool {
        *self.leader.borrow()
    }

    /// Begins or ends this node's turn to sweep.
    pub(super) fn set_leader(&self, leads: bool) {
        self.leader.send_if_modified(|before| std::mem::replace(before, leads) != leads);
    }

    /// Runs a change to its end even if the caller goes away: what follows its script has to be
    /// done as well.
    pub(super) async fn whole<T, F>(
        self: &Arc<Self>,
        change: impl FnOnce(Arc<Context>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.tasks.spawn(change(self.clone()));
        task.await.unwrap_or_else(|error| Err(Error::store("an operation panicked", error)))
    }
}

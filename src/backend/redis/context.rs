//! What all components of the backend share.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::hints::Hint;
use super::keys::Keys;
use crate::backend::BackendConfig;
use crate::backend::redis::connection::commands::Link;
use crate::backend::redis::lease::Leases;
use crate::backend::redis::pubsub::message;
use crate::backend::redis::view::Input;
use crate::backend::redis::view::shared::SharedView;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, MaxAge, Record};

/// How long after its session's end a mapping can still name it, or says that it was announced.
pub(super) const GRACE: Duration = Duration::from_secs(60);

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

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the bridge was shut down")
}

/// The name that some components still use.
pub(crate) type Shared = Context;

impl Context {
    /// What most scripts are given first.
    pub(super) fn head(&self, client: &ClientId) -> Vec<Value> {
        vec![
            self.keys.announcements().into(),
            self.config.node.as_str().into(),
            client.as_str().into(),
            millis(GRACE).into(),
        ]
    }

    /// The keys of a session: the record and the mapping; and of ends that were announced, if they can
    /// be had in the same step.
    pub(super) fn session_keys(&self, client: &ClientId) -> Vec<String> {
        self.with_told(vec![self.keys.record(client), self.keys.mapping(client)])
    }

    /// The same, with those of the lease.
    pub(super) fn all_keys(&self, client: &ClientId) -> Vec<String> {
        let keys = &self.keys;
        let of_session = [keys.record(client), keys.mapping(client)];
        self.with_told([&of_session[..], &[keys.lease(client), keys.queue(client)]].concat())
    }

    fn with_told(&self, mut keys: Vec<String>) -> Vec<String> {
        if !self.link.clustered {
            keys.push(self.keys.told());
        }
        keys
    }

    /// Whether a `PUBLISH` can count all listeners.
    pub(super) fn alone(&self) -> Value {
        if self.link.clustered { "0" } else { "1" }.into()
    }

    /// What a script needs to hand a lease over.
    pub(super) fn hand_over(&self) -> [Value; 3] {
        [millis(self.config.lease_duration).into(), self.keys.grants_prefix().into(), self.alone()]
    }

    /// The time to live that the session's own max age, or the option, gives.
    pub(super) fn idle(&self, mode: MaxAge, sealed: bool) -> Value {
        millis(self.config.lifetime.idle(mode, sealed)).into()
    }

    /// The absolute cap; 0 for none.
    pub(super) fn cap(&self) -> Value {
        self.config.lifetime.absolute_max_age.map_or(0, millis).into()
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

    pub(super) async fn announce(&self, text: String) -> Result<()> {
        let sent = self.link.ask(|redis| {
            let (channel, text) = (self.keys.announcements(), text.clone());
            async move { redis.publish(channel, text).await }
        });
        sent.await.map_err(|e| crate::backend::redis::script::failed("PUBLISH", e))
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

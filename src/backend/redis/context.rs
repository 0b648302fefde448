//! What all components of the backend share.

use std::sync::Arc;

use fred::prelude::*;
use fred::types::Key;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::TaskTracker;

use super::error::failed;
use super::hints::hint::Hint;
use super::keys::Keys;
use super::near_cache::NearCache;
use super::script::argument::bytes;
use crate::backend::BackendConfig;
use crate::backend::redis::connection::commands::Commands;
use crate::backend::redis::lease::waiters::Leases;
use crate::backend::redis::pubsub::interest::Interest;
use crate::backend::redis::pubsub::message;
use crate::backend::redis::view::Input;
use crate::backend::redis::view::shared::SharedView;
use crate::error::Result;
use crate::session::{ClientId, Record};

/// The parts that all components of the backend use.
pub(super) struct Context {
    pub(super) config: BackendConfig,
    /// This process among all others, whatever its node is called.
    pub(super) instance: String,
    pub(super) keys: Keys,
    pub(super) commands: Commands,
    /// What this node believes about sessions, and the events that follow from it.
    pub(super) view: SharedView,
    /// Whose announcements this node receives.
    pub(super) interest: Arc<Interest>,
    /// Sessions that need not be read again.
    pub(super) near_cache: Option<NearCache>,
    pub(super) leases: Leases,
    /// Whether this node sweeps, and listens to keyspace events.
    pub(super) leader: watch::Sender<bool>,
    /// Nobody sweeps.
    pub(super) resigned: Notify,
    /// Hints that could not be set and are tried again.
    pub(super) hints: mpsc::Sender<Hint>,
    pub(super) tasks: TaskTracker,
}

impl Context {
    /// The client concerned and this node, which most scripts are given first.
    pub(super) fn who(&self, client: &ClientId) -> Value {
        bytes(message::who(client, &self.config.node))
    }

    /// The keys of a client that a script uses, by their last letters. The first is the record's:
    /// scripts derive the others from it. A cluster has to know of all, or it refuses those that are
    /// not there while their slot is moved.
    pub(super) fn keys_of(&self, client: &ClientId, others: &str) -> Vec<Key> {
        let mut keys = vec![self.keys.record(client)];
        if self.commands.clustered {
            keys.extend(others.chars().map(|part| self.keys.part(client, part)));
        }
        keys
    }

    /// Has the view take over a record that was read or written, if it followed the client when that
    /// was sent.
    pub(super) fn learn(&self, record: &Record, followed: bool) {
        if followed {
            self.view.apply(Input::Read(record));
        }
    }

    /// [`learn`](Self::learn) of a record that this node wrote.
    pub(super) fn wrote(&self, record: &Record, followed: bool) {
        if let Some(near) = &self.near_cache {
            near.wrote(record);
        }
        self.learn(record, followed);
    }

    /// The client's session has ended, or may have.
    pub(super) fn forget(&self, client: &ClientId) {
        if let Some(near) = &self.near_cache {
            near.forget(client);
        }
    }

    /// Leaves the clients of sessions that nobody reads here any more.
    pub(super) fn purge_near_cache(&self) {
        if let Some(near) = &self.near_cache {
            near.purge();
        }
    }

    /// Announcements may have been missed.
    pub(super) fn missed_announcements(&self) {
        if let Some(near) = &self.near_cache {
            near.suspend();
        }
    }

    /// Messages may have been lost: sockets are compared, and waiters ask again.
    pub(super) fn missed_messages(&self) {
        self.missed_announcements();
        self.view.apply(Input::Gap);
        self.leases.ask_again();
    }

    /// Has all nodes compare their sockets' sessions with Redis: what others did to records may
    /// not have been noticed.
    pub(super) async fn request_comparison(&self) {
        if let Err(error) = self.announce(self.keys.all_nodes(), message::compare()).await {
            tracing::debug!(%error, "nodes could not be asked to compare; their audits will find out");
            self.view.apply(Input::CompareAll);
        }
    }

    /// Publishes what may be received twice.
    pub(super) async fn announce(&self, channel: String, message: Vec<u8>) -> Result<()> {
        let message = bytes(message);
        let published = self.commands.with_retry(|redis| {
            let (channel, message) = (channel.clone(), message.clone());
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
}

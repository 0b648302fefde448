//! One connection that only listens: announcements, granted leases, and what Redis itself says of
//! keys.

mod clients;
mod cluster;
mod subscribe;
mod topology;
mod wider;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fred::prelude::*;
use fred::types::{KeyspaceEvent, Message as PubSubMessage, MessageKind};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::backend::redis::KeyspaceEvents;
use crate::backend::redis::context::Context;
use crate::backend::redis::lease;
use crate::backend::redis::pubsub::message::{self, Message};
use crate::backend::redis::view::Input;
use crate::session::DestroyReason;
use topology::Topology;
use wider::Wider;

/// How often listeners of this node may run first when they fall behind.
const YIELDS: u32 = 256;

/// The listening connection. Nothing else is asked on it: a refused subscription answers the next
/// command in the queue, and would be taken for data.
pub(crate) struct Subscriber {
    pub(crate) client: Client,
    /// How the names of channels begin on which leases are granted.
    grants: String,
    pub(crate) context: Arc<Context>,
    pub(crate) keyspace: KeyspaceEvents,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// What is subscribed in a cluster by now.
    pub(crate) topology: tokio::sync::Mutex<Topology>,
    /// What is subscribed beside clients with sockets here.
    pub(crate) wider: Mutex<Wider>,
    /// Whether it was logged that Redis can't be asked for keyspace notifications.
    pub(crate) warned: AtomicBool,
}

/// What arrives. Taken before the first subscription, so that nothing is missed.
pub(crate) struct Receivers {
    messages: Receiver<PubSubMessage>,
    keyspace: Receiver<KeyspaceEvent>,
}

impl Subscriber {
    pub(crate) fn new(
        client: Client,
        context: Arc<Context>,
        keyspace: KeyspaceEvents,
        timeout: Duration,
    ) -> Self {
        let topology = tokio::sync::Mutex::default();
        let (wider, warned) = (Mutex::default(), AtomicBool::new(false));
        let grants = context.keys.grants_prefix();
        Self { client, grants, context, keyspace, timeout, topology, wider, warned }
    }

    pub(crate) fn receivers(&self) -> Receivers {
        Receivers { messages: self.client.message_rx(), keyspace: self.client.keyspace_event_rx() }
    }

    /// Takes what arrives, until the client is closed.
    pub(crate) async fn listen(self: Arc<Self>, receivers: Receivers) {
        let Receivers { mut messages, mut keyspace } = receivers;
        let mut last = None;
        loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Ok(message) => self.on_message(message, &mut last).await,
                    Err(RecvError::Lagged(count)) => self.on_lag(count),
                    Err(RecvError::Closed) => return,
                },
                event = keyspace.recv() => match event {
                    Ok(event) => {
                        // Scripts announce an end before the write that Redis notifies of: all
                        // that is here comes first.
                        loop {
                            match messages.try_recv() {
                                Ok(message) => self.on_message(message, &mut last).await,
                                Err(TryRecvError::Lagged(count)) => self.on_lag(count),
                                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                            }
                        }
                        self.on_keyspace_event(&event);
                    }
                    Err(RecvError::Lagged(count)) => self.on_lag(count),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    fn on_lag(&self, count: u64) {
        tracing::warn!(count, "this node fell behind Redis; comparing");
        self.context.missed_messages();
    }

    /// `last` is the message before, if it came by a channel's own subscription.
    async fn on_message(&self, message: PubSubMessage, last: &mut Option<PubSubMessage>) {
        if message.channel.starts_with(&self.grants) {
            lease::granted(&self.context, &message.value.as_bytes_str().unwrap_or_default());
            return;
        }
        // A connection that is subscribed to a channel and to a pattern gets a message by both, one
        // right after the other.
        let before = last.take();
        if message.kind == MessageKind::PMessage
            && before.is_some_and(|before| {
                before.channel == message.channel && before.value == message.value
            })
        {
            return;
        }
        self.on_announcement(message.value.as_bytes().unwrap_or_default()).await;
        if message.kind == MessageKind::Message {
            *last = Some(message);
        }
    }

    async fn on_announcement(&self, bytes: &[u8]) {
        let view = &self.context.view;
        match message::read(bytes) {
            Some(Message::Happened(announcements)) => {
                if let Some(near) = &self.context.near_cache {
                    announcements.iter().for_each(|announcement| near.announced(announcement));
                }
                view.apply_all(announcements.into_iter().map(Input::Announced));
            }
            Some(Message::Reconcile) => {
                self.context.missed_announcements();
                view.apply(Input::CompareAll);
            }
            Some(Message::Resigned) => self.context.resigned.notify_one(),
            Some(Message::ProbeRequest(client, reason)) => {
                self.context.forget(&client);
                view.apply(Input::ProbeRequested(client, reason));
            }
            None => tracing::warn!(
                "an announcement that can't be read; do all nodes run the same version?"
            ),
        }
        // A burst: this node's own listeners come first, or they would miss what is here.
        let mut yields = 0;
        while view.backlog() > self.context.config.event_capacity / 2 && yields < YIELDS {
            tokio::task::yield_now().await;
            yields += 1;
        }
    }

    /// Something happened to a record. The node that sweeps probes for all nodes.
    fn on_keyspace_event(&self, event: &KeyspaceEvent) {
        let reason = match event.operation.as_str() {
            "expired" => DestroyReason::Expired,
            "evicted" => DestroyReason::Evicted,
            // The last four are never ours: another program overwrote the record.
            "del" | "rename_from" | "rename_to" | "restore" | "copy_to" | "move_from" => {
                DestroyReason::External
            }
            _ => return,
        };
        let key = event.key.as_str_lossy();
        if let Some(client) = self.context.keys.client_of_record(&key) {
            self.context.view.apply(Input::KeyspaceEvent(client, reason));
        }
    }
}

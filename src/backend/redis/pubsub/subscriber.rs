//! One connection that only listens: announcements, granted leases, and what Redis itself says of
//! our keys.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fred::prelude::*;
use fred::types::{KeyspaceEvent, Message};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use crate::backend::BackendEvent;
use crate::backend::redis::context::Shared;
use crate::backend::redis::pubsub::cluster::Heard;
use crate::backend::redis::pubsub::message::{self, Announcement, Said};
use crate::backend::redis::view::old::tracker::{Belief, Change};
use crate::session::{DestroyReason, SessionEvent};

/// Turns given to the listeners of this node when they fall behind.
const YIELDS: u32 = 256;

/// The listening connection. Nothing else is asked on it: a refused subscription answers the next
/// command in line, and would be taken for data.
pub(crate) struct Listener {
    pub(crate) client: Client,
    pub(crate) shared: Arc<Shared>,
    pub(crate) keyspace: crate::backend::redis::KeyspaceEvents,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// What is heard of a cluster by now.
    pub(crate) heard: tokio::sync::Mutex<Heard>,
    /// Whether it was said that Redis can't be asked for keyspace notifications.
    pub(crate) warned: AtomicBool,
}

/// What the listener hears by. Taken before the first subscription, so that nothing is missed.
pub(crate) struct Ears {
    messages: Receiver<Message>,
    witnesses: Receiver<KeyspaceEvent>,
}

impl Listener {
    pub(crate) fn ears(&self) -> Ears {
        Ears { messages: self.client.message_rx(), witnesses: self.client.keyspace_event_rx() }
    }

    /// Hears, until the client is closed.
    pub(crate) async fn listen(self: Arc<Self>, ears: Ears) {
        let Ears { mut messages, mut witnesses } = ears;
        loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Ok(message) => self.message(&message).await,
                    Err(RecvError::Lagged(count)) => self.missed(count),
                    Err(RecvError::Closed) => return,
                },
                witness = witnesses.recv() => match witness {
                    Ok(witness) => {
                        // What a script announces before it writes was sent before Redis told of
                        // the write: all that is here is heard first.
                        loop {
                            match messages.try_recv() {
                                Ok(message) => self.message(&message).await,
                                Err(TryRecvError::Lagged(count)) => self.missed(count),
                                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                            }
                        }
                        self.witness(&witness);
                    }
                    Err(RecvError::Lagged(count)) => self.missed(count),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    fn missed(&self, count: u64) {
        tracing::warn!(count, "this node fell behind Redis; comparing");
        self.shared.gap();
    }

    async fn message(&self, message: &Message) {
        let text = message.value.as_bytes_str().unwrap_or_default();
        if *message.channel != self.shared.keys.announcements() {
            self.shared.granted(&text);
            return;
        }
        let announcements = match message::read(&text) {
            Some(Said::Happened(announcements)) => announcements,
            Some(Said::Compare) => {
                self.shared.doubt.all();
                return;
            }
            Some(Said::Look(client, reason)) => {
                if self.shared.watched.belief(&client).is_some() {
                    self.shared.looks.add(&client, reason);
                }
                return;
            }
            None => {
                tracing::warn!(
                    "an announcement that can't be read; do all nodes run the same version?"
                );
                return;
            }
        };
        for announcement in announcements {
            self.shared.hear(announcement);
        }
        // A burst: this node's own listeners come first, or they would miss what is here.
        let mut yields = 0;
        while self.shared.events.len() > self.shared.config.event_capacity / 2 && yields < YIELDS {
            tokio::task::yield_now().await;
            yields += 1;
        }
    }

    /// Something happened to a record, whoever did it. The node that sweeps looks for all.
    fn witness(&self, event: &KeyspaceEvent) {
        let reason = match event.operation.as_str() {
            "expired" => DestroyReason::Expired,
            "evicted" => DestroyReason::Evicted,
            // The last five are never ours: somebody wrote over the record.
            "del" | "rename_from" | "set" | "rename_to" | "restore" | "copy_to" | "move_from" => {
                DestroyReason::External
            }
            _ => return,
        };
        let key = event.key.as_str_lossy();
        let shared = &self.shared;
        let Some(client) = shared.keys.client_of_record(&key) else { return };
        // Told already: by the script that did it.
        if shared.ended.is_over(&client) {
            return;
        }
        match reason {
            DestroyReason::Expired => {
                shared.looks.expired(&client, |client| shared.ended.is_over(client));
            }
            reason => shared.looks.add(&client, reason),
        }
    }
}

impl Shared {
    /// Takes over an announcement and tells this node, unless it was told in another way.
    pub(crate) fn hear(&self, announcement: Announcement) {
        let BackendEvent { event, generation, sealed, .. } = &announcement.event;
        match (event, generation) {
            (SessionEvent::Set(set), Some(generation)) => {
                if self.ended.contains(&set.client_id, *generation) {
                    // A comparison found the end before this was heard.
                    return;
                }
                self.ended.revived(&set.client_id);
                self.watched.learn(&Change {
                    client: set.client_id,
                    generation: *generation,
                    session: set.session_id,
                    version: announcement.version,
                    sealed: *sealed,
                    created: Instant::now(),
                    left: announcement.left,
                });
                let change = Belief {
                    generation: *generation,
                    session: set.session_id,
                    version: announcement.version,
                };
                if !self.watched.announced(&set.client_id, change) {
                    return;
                }
            }
            (SessionEvent::Destroy(end), Some(generation)) => {
                self.watched.end(&end.client_id, Some(*generation));
                if !self.ended.note(&end.client_id, *generation) {
                    return;
                }
            }
            _ => {}
        }
        self.tell(announcement.event);
    }
}

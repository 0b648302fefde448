//! One connection that only listens, and the tasks around it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::broadcast::error::RecvError;

use super::scripts::failed;
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::session::DestroyReason;

/// Entries that one turn of the sweep takes.
const PAGE: i64 = 256;
/// How often due sessions are looked at.
const SWEEP: Duration = Duration::from_millis(100);
/// How often sockets are compared with Redis although nothing seems wrong.
const AUDIT: Duration = Duration::from_secs(30);
/// How often a subscription is tried before the start fails.
const TRIES: u32 = 50;

pub(super) struct Listener {
    pub(super) client: Client,
    pub(super) shared: Arc<Shared>,
    pub(super) database: u8,
}

impl Listener {
    /// Subscribes. Safe to repeat.
    async fn subscribe(&self) -> Result<()> {
        let keys = &self.shared.keys;
        let channels = vec![keys.announcements(), keys.node(&self.shared.config.node)];
        self.client.subscribe(channels).await.map_err(|e| failed("SUBSCRIBE", e))?;
        let pattern = keys.witnesses(self.database);
        self.client.psubscribe(pattern).await.map_err(|e| failed("PSUBSCRIBE", e))
    }

    /// Subscribes, and waits until a message really comes: an `Ok` of a subscription says only
    /// that it was written.
    pub(super) async fn start(&self) -> Result<()> {
        let mut messages = self.client.message_rx();
        self.subscribe().await?;
        let channel = self.shared.keys.node(&self.shared.config.node);
        for _ in 0..TRIES {
            let sent = self.shared.pool.next().publish::<i64, _, _>(&channel, "hello").await;
            sent.map_err(|e| failed("PUBLISH", e))?;
            let wait = tokio::time::timeout(SWEEP, messages.recv()).await;
            if matches!(wait, Ok(Ok(message)) if *message.channel == channel) {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "Redis delivers no messages to its subscriber; the user may need `+@pubsub` and access to the channels",
        ))
    }

    /// Hears announcements, grants and witnesses until the client is closed.
    pub(super) async fn listen(self) {
        let mut messages = self.client.message_rx();
        let mut witnesses = self.client.keyspace_event_rx();
        let mut reconnects = self.client.reconnect_rx();
        let announcements = self.shared.keys.announcements();
        loop {
            tokio::select! {
                // Announcements first: a witness of what was announced says nothing new.
                biased;
                message = messages.recv() => match message {
                    Ok(message) => {
                        let text = message.value.as_str().unwrap_or_default();
                        if *message.channel == announcements {
                            self.shared.hear(&text);
                        } else {
                            self.shared.granted(&text);
                        }
                    }
                    Err(RecvError::Lagged(missed)) => self.missed(missed).await,
                    Err(RecvError::Closed) => return,
                },
                reconnected = reconnects.recv() => match reconnected {
                    Ok(_) => {
                        if let Err(error) = self.subscribe().await {
                            tracing::warn!(%error, "subscribing again failed; the next reconnect tries it again");
                        }
                        self.reconcile().await;
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                witness = witnesses.recv() => match witness {
                    Ok(event) => self.witness(&event).await,
                    Err(RecvError::Lagged(missed)) => self.missed(missed).await,
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    async fn missed(&self, count: u64) {
        tracing::warn!(count, "messages of Redis were missed; comparing");
        self.reconcile().await;
    }

    async fn reconcile(&self) {
        if let Err(error) = self.shared.reconcile().await {
            tracing::warn!(%error, "comparing with Redis failed; the next audit tries it again");
        }
    }

    /// Something happened to a record, whoever did it. Nodes with a socket of the client look,
    /// and the one that sweeps looks for the rest.
    async fn witness(&self, event: &fred::types::KeyspaceEvent) {
        let reason = match event.operation.as_str() {
            "del" => DestroyReason::External,
            "expired" => DestroyReason::Expired,
            "evicted" => DestroyReason::Evicted,
            _ => return,
        };
        let key = event.key.as_str_lossy();
        let Some(client) = self.shared.keys.client_of_record(&key) else { return };
        let ours = self.shared.watched.contains(&client);
        if !ours && !self.shared.sweeping.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.shared.resolve(&client, reason).await {
            tracing::warn!(%error, "a session's end could not be looked into; the sweep will");
        }
    }
}

/// Looks at sessions that are due, for ever.
pub(super) async fn sweep(shared: Arc<Shared>) {
    loop {
        match shared.sweep(PAGE, SWEEP).await {
            Ok(Some(pause)) => tokio::time::sleep(pause).await,
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "the sweep failed and will be tried again");
                tokio::time::sleep(10 * SWEEP).await;
            }
        }
    }
}

/// Compares sockets with Redis now and then, for ever.
pub(super) async fn audit(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(AUDIT).await;
        if let Err(error) = shared.reconcile().await {
            tracing::warn!(%error, "comparing with Redis failed; the next audit tries it again");
        }
    }
}

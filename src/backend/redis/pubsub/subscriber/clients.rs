//! Subscribing to clients with sockets on this node, and to all as long as somebody listens to all.

use std::sync::{MutexGuard, PoisonError};

use fred::prelude::*;

use super::Subscriber;
use super::subscribe::at;
use super::wider::Wider;
use crate::backend::redis::error::failed;
use crate::backend::redis::pubsub::interest::Batch;
use crate::backend::redis::view::Input;
use crate::error::{Error, Result};
use crate::session::ClientId;

/// Channels that one command names.
const CHANNELS: usize = 1000;

impl Subscriber {
    pub(crate) fn wider(&self) -> MutexGuard<'_, Wider> {
        self.wider.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection for announcements is a new one.
    pub(crate) fn forget_subscriptions(&self) {
        *self.wider() = Wider::default();
        self.context.interest.lost();
        self.context.missed_announcements();
    }

    /// Subscribes to what is wanted by now, and leaves what is not.
    pub(crate) async fn update(&self, server: Option<&Server>) -> Result<()> {
        let interest = &self.context.interest;
        let batch = interest.take();
        match self.subscribe_batch(server, &batch).await {
            Ok(()) => {
                interest.finish(&batch);
                if batch.late {
                    self.context.view.apply(Input::CompareAll);
                }
            }
            Err(error) => {
                interest.failed(batch);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn subscribe_batch(&self, server: Option<&Server>, batch: &Batch) -> Result<()> {
        let redis = at(&self.client, server);
        let keys = &self.context.keys;
        let had = self.wider().clone();
        let ends = batch.all || self.context.is_leader();
        let wanted = Wider { all: batch.all, ends, home: server.cloned() };
        if wanted == had && batch.join.is_empty() && batch.leave.is_empty() {
            return Ok(());
        }
        let done = async {
            match (had.ends, wanted.ends) {
                (false, true) => redis.subscribe(keys.ends()).await?,
                (true, false) => redis.unsubscribe(keys.ends()).await?,
                _ => {}
            }
            match (had.all, wanted.all) {
                (false, true) => redis.psubscribe(keys.all_announcements()).await?,
                (true, false) => redis.punsubscribe(keys.all_announcements()).await?,
                _ => {}
            }
            for clients in batch.join.chunks(CHANNELS) {
                redis.subscribe(self.channels_of(clients)).await?;
            }
            for clients in batch.leave.chunks(CHANNELS) {
                redis.unsubscribe(self.channels_of(clients)).await?;
            }
            // An `Ok` of a subscription says only that it was written. This is answered after it.
            redis.ping::<Value>(None).await
        };
        done.await.map_err(|error| match error.details().starts_with("NOPERM") {
            true => Error::store(
                format!(
                    "Redis refuses to subscribe to sessions; the user needs `+subscribe`, `+psubscribe` and, word for word, the channel `{}`",
                    keys.all_announcements()
                ),
                error,
            ),
            false => failed("SUBSCRIBE", error),
        })?;
        *self.wider() = wanted;
        Ok(())
    }

    fn channels_of(&self, clients: &[ClientId]) -> Vec<String> {
        clients.iter().map(|client| self.context.keys.announcements(client)).collect()
    }
}

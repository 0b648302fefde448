//! Ends: on time, by a cleanup, and by notices from outside.

use std::time::Duration;

use tokio::time::Instant;

use super::clients::Due;
use super::sessions::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, DestroyReason, SessionId};
use crate::store::{SessionStore, now_ms};

/// Ends told side by side: the store may write them in one go.
const ENDS_AT_ONCE: usize = 64;
/// When to look again at a session whose end the store failed to do.
const END_RETRY: Duration = Duration::from_secs(1);
/// Records per page of a listing.
const PAGE: usize = 256;

impl<S: SessionStore> Shared<S> {
    pub(super) async fn notify_set(&self, id: SessionId, is_new: bool) -> Result<()> {
        let Some(client) = self.slots.client_of(&id) else { return Ok(()) };
        let slot = self.slots.slot(&client);
        let _turn = slot.op.lock().await;
        // Reading also learns a new expiry, and ends what the change has ended.
        if let Some(record) = self.current(&slot).await?
            && record.session_id == id
        {
            self.tell_seen(&record, is_new, false);
        }
        Ok(())
    }

    pub(super) async fn notify_destroy(&self, id: SessionId) -> Result<()> {
        let Some(client) = self.slots.client_of(&id) else { return Ok(()) };
        let slot = self.slots.slot(&client);
        let _turn = slot.op.lock().await;
        if self.slots.current(&client).is_some_and(|current| current.session_id == id) {
            self.end(&slot, DestroyReason::External);
        }
        Ok(())
    }

    /// Tells the end of each attached session when its time is over. Runs for ever.
    pub(super) async fn tell_ends(&self) {
        loop {
            let due = self.deadlines.due(ENDS_AT_ONCE).await;
            let now = Instant::now();
            let ends =
                due.into_iter().filter_map(|(at, client)| match self.slots.due(&client, at, now) {
                    Due::Stale => None,
                    Due::Later(later) => {
                        self.deadlines.push(later, client);
                        None
                    }
                    Due::Now => Some(self.end_due(client)),
                });
            futures_util::future::join_all(ends).await;
        }
    }

    async fn end_due(&self, client: ClientId) {
        let slot = self.slots.slot(&client);
        let _turn = slot.op.lock().await;
        // Reading ends it if it is over, and queues it again if it was renewed.
        if let Err(error) = self.current(&slot).await {
            tracing::warn!(%error, "a session's end could not be done yet");
            let again = Instant::now() + END_RETRY;
            if self.slots.requeue(&client, again) {
                self.deadlines.push(again, client);
            }
        }
    }

    pub(super) async fn can_list(&self) -> Result<bool> {
        let page = self.store.list(None, 1).await;
        page.map(|page| page.is_some()).map_err(|e| Error::store("listing sessions failed", e))
    }

    pub(super) async fn cleanup(&self) -> Result<u64> {
        let mut cleared = 0;
        let mut after = None;
        loop {
            let page = self.store.list(after.as_ref(), PAGE).await;
            let page = page.map_err(|e| Error::store("listing sessions failed", e))?;
            let Some(page) = page else {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "cleanup needs a store that implements `list`",
                ));
            };
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for entry in &page {
                if entry.expires_at <= now_ms() && self.clear_expired(&entry.id).await? {
                    cleared += 1;
                }
            }
        }
        let optimized = self.store.optimize(cleared).await;
        optimized.map_err(|e| Error::store("optimizing the store failed", e))?;
        self.tell_cleanup(cleared);
        Ok(cleared)
    }

    /// Removes a record if it still is expired: it may have been renewed since it was listed.
    async fn clear_expired(&self, id: &SessionId) -> Result<bool> {
        let attached = self.slots.client_of(id);
        let Some(stored) = self.read(id).await? else {
            // A store need not serve what is expired, but it has it until it is destroyed.
            return match attached {
                None => self
                    .store
                    .destroy(id)
                    .await
                    .map_err(|e| Error::store("removing an expired session failed", e)),
                Some(client) => self.clear_attached(client, id).await,
            };
        };
        match attached.or(stored.client_id) {
            Some(client) => self.clear_attached(client, id).await,
            None if stored.expires_at <= now_ms() => {
                self.remove(id).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn clear_attached(&self, client: ClientId, id: &SessionId) -> Result<bool> {
        let slot = self.slots.slot(&client);
        let _turn = slot.op.lock().await;
        let current = self.slots.current(&client);
        if let Some(stored) = self.read(id).await?
            && stored.expires_at > now_ms()
        {
            return Ok(false);
        }
        let removed = self.store.destroy(id).await;
        let removed = removed.map_err(|e| Error::store("removing an expired session failed", e))?;
        if !removed {
            return Ok(false);
        }
        if current.is_some_and(|current| current.session_id == *id) {
            self.end(&slot, DestroyReason::Expired);
        } else {
            self.tell_end(client, *id, None, DestroyReason::Expired);
        }
        Ok(true)
    }
}

//! Ends of sessions: on time, by a cleanup, and by notices from outside.

use std::time::Duration;

use tokio::time::Instant;

use super::clients::Due;
use super::sessions::Sessions;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, DestroyReason, SessionId};
use crate::store::{SessionStore, now_ms};

/// Ends done side by side: the store may write them in one go.
const ENDS_AT_ONCE: usize = 64;
/// When to try again to end a session after the store has failed.
const END_RETRY: Duration = Duration::from_secs(1);
/// Records per page of a listing.
const PAGE: usize = 256;

pub(super) async fn notify_set<S: SessionStore>(
    sessions: &Sessions<S>,
    id: SessionId,
    is_new: bool,
) -> Result<()> {
    let Some(client) = sessions.slots.client_of(&id) else { return Ok(()) };
    let slot = sessions.slots.slot(&client);
    let _op = slot.op.lock().await;
    // Reading also learns a new expiry, and ends what the change has ended.
    if let Some(record) = sessions.current(&slot).await?
        && record.session_id == id
    {
        sessions.publisher.seen(&record, is_new, false);
    }
    Ok(())
}

pub(super) async fn notify_destroy<S: SessionStore>(
    sessions: &Sessions<S>,
    id: SessionId,
) -> Result<()> {
    let Some(client) = sessions.slots.client_of(&id) else { return Ok(()) };
    let slot = sessions.slots.slot(&client);
    let _op = slot.op.lock().await;
    if slot.current().is_some_and(|current| current.session_id == id) {
        sessions.end(&slot, DestroyReason::External);
    }
    Ok(())
}

/// Ends each attached session when its time is over. Never returns.
pub(super) async fn expiry_loop<S: SessionStore>(sessions: &Sessions<S>) {
    loop {
        let due = sessions.deadlines.due(ENDS_AT_ONCE).await;
        let now = Instant::now();
        let ends =
            due.into_iter().filter_map(|(at, client)| match sessions.slots.due(&client, at, now) {
                Due::Stale => None,
                Due::Later(later) => {
                    sessions.deadlines.push(later, client);
                    // It may have ended in between, and found nothing to take out.
                    if !sessions.slots.is_queued(&client, later) {
                        sessions.deadlines.remove(later, client);
                    }
                    None
                }
                Due::Now => Some(end_due(sessions, client)),
            });
        futures_util::future::join_all(ends).await;
    }
}

async fn end_due<S: SessionStore>(sessions: &Sessions<S>, client: ClientId) {
    let slot = sessions.slots.slot(&client);
    let _op = slot.op.lock().await;
    // Reading ends it if it is over, and queues it again if it was renewed.
    if let Err(error) = sessions.current(&slot).await {
        tracing::warn!(%error, "a session's end could not be done yet");
        let again = Instant::now() + END_RETRY;
        if sessions.slots.requeue(&slot, again) {
            sessions.deadlines.push(again, client);
        }
    }
}

pub(super) async fn can_list<S: SessionStore>(sessions: &Sessions<S>) -> Result<bool> {
    let page = sessions.store.list(None, 1).await;
    page.map(|page| page.is_some()).map_err(|e| Error::store("listing sessions failed", e))
}

pub(super) async fn cleanup<S: SessionStore>(sessions: &Sessions<S>) -> Result<u64> {
    let mut cleared = 0;
    let mut after = None;
    loop {
        let page = sessions.store.list(after.as_ref(), PAGE).await;
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
            if entry.expires_at <= now_ms() && clear_expired(sessions, &entry.id).await? {
                cleared += 1;
            }
        }
    }
    let optimized = sessions.store.optimize(cleared).await;
    optimized.map_err(|e| Error::store("optimizing the store failed", e))?;
    sessions.publisher.cleanup(cleared);
    Ok(cleared)
}

/// Removes a record if it still is expired: it may have been renewed since it was listed.
async fn clear_expired<S: SessionStore>(sessions: &Sessions<S>, id: &SessionId) -> Result<bool> {
    let attached = sessions.slots.client_of(id);
    let Some(stored) = sessions.read(id).await? else {
        // A store need not serve what is expired, but it has it until it is destroyed.
        return match attached {
            None => sessions
                .store
                .destroy(id)
                .await
                .map_err(|e| Error::store("removing an expired session failed", e)),
            Some(client) => clear_attached(sessions, client, id).await,
        };
    };
    match attached.or(stored.client_id) {
        Some(client) => clear_attached(sessions, client, id).await,
        None if stored.expires_at <= now_ms() => {
            sessions.remove(id).await?;
            Ok(true)
        }
        None => Ok(false),
    }
}

async fn clear_attached<S: SessionStore>(
    sessions: &Sessions<S>,
    client: ClientId,
    id: &SessionId,
) -> Result<bool> {
    let slot = sessions.slots.slot(&client);
    let _op = slot.op.lock().await;
    let current = slot.current();
    if let Some(stored) = sessions.read(id).await?
        && stored.expires_at > now_ms()
    {
        return Ok(false);
    }
    let removed = sessions.store.destroy(id).await;
    let removed = removed.map_err(|e| Error::store("removing an expired session failed", e))?;
    if !removed {
        return Ok(false);
    }
    if current.is_some_and(|current| current.session_id == *id) {
        sessions.end(&slot, DestroyReason::Expired);
    } else {
        sessions.publisher.end(client, *id, None, DestroyReason::Expired);
    }
    Ok(true)
}

//! From the backend's events to sockets and listeners.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::attachments::{Attachment, SinkError};
use super::core::{Inner, SessionBridge};
use super::options::OnDestroy;
use crate::backend::BackendEvent;
use crate::session::{ClientId, SessionDestroy, SessionEvent};

/// How often sockets are looked over for those that are gone.
const SWEEP: Duration = Duration::from_secs(30);
/// A full buffer keeps a socket from being disconnected; it is tried again this often, this long
/// apart.
const DISCONNECT_TRIES: u32 = 50;
const DISCONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Brings each event to sockets and listeners, in order, until the bridge closes.
pub(super) async fn pump(
    bridge: Weak<Inner>,
    mut source: broadcast::Receiver<BackendEvent>,
    closing: CancellationToken,
) {
    let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            item = source.recv() => {
                let Some(inner) = bridge.upgrade() else { return };
                let bridge = SessionBridge { inner };
                match item {
                    Ok(event) => bridge.fan_out(&event),
                    Err(RecvError::Lagged(missed)) => bridge.repair(missed),
                    Err(RecvError::Closed) => return,
                }
            }
            _ = sweep.tick() => {
                let Some(inner) = bridge.upgrade() else { return };
                SessionBridge { inner }.sweep_sockets();
            }
            () = closing.cancelled() => return,
        }
    }
}

impl SessionBridge {
    fn fan_out(&self, event: &BackendEvent) {
        let counters = self.counters();
        counters.events.add(1);
        match &event.event {
            SessionEvent::Set(set) => {
                let messages = &self.options().messages;
                let payload = messages.set.as_deref().map(|name| {
                    let mut payload = json!({
                        "isNew": set.is_new, "isInit": set.is_init, "node": set.node,
                    });
                    if messages.include_ids {
                        payload["sessionId"] = json!(set.session_id);
                    }
                    (name, payload)
                });
                self.tell_client(&set.client_id, event, payload.as_ref());
            }
            SessionEvent::Destroy(end) => {
                counters.ended.add(1);
                self.tell_end(end, event);
            }
            SessionEvent::Cleanup(cleanup) => {
                if let Some(name) = self.options().messages.cleanup.as_deref() {
                    let payload = json!({ "cleared": cleanup.cleared, "node": cleanup.node });
                    for attachment in self.inner.attachments.all() {
                        self.emit(&attachment, name, &payload);
                    }
                }
            }
            SessionEvent::Gap(_) => {}
        }
        // Listeners last: what they do about an event comes after the sockets were told of it.
        self.publish(event.event.clone());
    }

    fn tell_end(&self, end: &SessionDestroy, event: &BackendEvent) {
        let messages = &self.options().messages;
        let silent = self.options().on_destroy == OnDestroy::Nothing;
        let payload = messages.destroy.as_deref().filter(|_| !silent).map(|name| {
            let mut payload = json!({ "reason": end.reason, "node": end.node });
            if messages.include_ids {
                payload["sessionId"] = json!(end.session_id);
            }
            (name, payload)
        });
        let told = self.tell_client(&end.client_id, event, payload.as_ref());
        if let OnDestroy::Disconnect { grace } = self.options().on_destroy
            && !told.is_empty()
        {
            let (bridge, client, closing) =
                (Arc::downgrade(&self.inner), end.client_id, self.inner.closing.clone());
            self.inner.tasks.spawn(async move {
                tokio::select! {
                    () = disconnect(bridge, client, told, grace) => {}
                    () = closing.cancelled() => {}
                }
            });
        }
    }

    /// Tells those sockets of a client that may see the event's session, and returns them.
    fn tell_client(
        &self,
        client: &ClientId,
        event: &BackendEvent,
        message: Option<&(&str, Value)>,
    ) -> Vec<Arc<Attachment>> {
        let mut sockets = self.inner.attachments.of(client);
        let created = self
            .backend()
            .known_session(client)
            .filter(|known| Some(known.generation) == event.generation)
            .map(|known| known.created);
        sockets.retain(|attachment| {
            event.generation.is_none_or(|generation| attachment.admits(generation, created))
        });
        for attachment in &sockets {
            if let Some((name, payload)) = message {
                self.emit(attachment, name, payload);
            }
            let missed = attachment.hand(&event.event);
            if missed > 0 {
                self.counters().events_missed.add(missed);
                tracing::warn!(missed, "a socket's session event handler is too slow");
            }
        }
        sockets
    }

    fn emit(&self, attachment: &Attachment, name: &str, payload: &Value) {
        match attachment.sink().emit(name, payload) {
            Ok(()) => self.counters().messages_sent.add(1),
            Err(SinkError::Full) => {
                self.counters().messages_failed.add(1);
                tracing::warn!(
                    message = name,
                    "a socket's buffer is full; a session message is lost"
                );
            }
            // Its guard detaches it in a moment.
            Err(SinkError::Closed) => {}
        }
    }

    /// Events were lost on the way here. Ends that sockets missed show in what their client has
    /// now; listeners are told that there is a gap by their own lag.
    fn repair(&self, missed: u64) {
        self.counters().events_missed.add(missed);
        tracing::warn!(missed, "the bridge fell behind its backend; comparing sockets");
        let messages = &self.options().messages;
        for client in self.inner.attachments.clients() {
            let known = self.backend().known_session(&client);
            for attachment in self.inner.attachments.of(&client) {
                let sees = known.is_some_and(|known| attachment.admits_known(&known));
                let node = self.node();
                let (name, payload) = if sees {
                    (&messages.set, json!({ "isNew": false, "isInit": false, "node": node }))
                } else {
                    (&messages.destroy, json!({ "reason": "reconciled", "node": node }))
                };
                if let Some(name) = name.as_deref() {
                    self.emit(&attachment, name, &payload);
                }
            }
        }
    }
}

/// Disconnects sockets after a grace, unless their client has a new session by then.
async fn disconnect(
    bridge: Weak<Inner>,
    client: ClientId,
    mut sockets: Vec<Arc<Attachment>>,
    grace: Duration,
) {
    tokio::time::sleep(grace).await;
    for _ in 0..DISCONNECT_TRIES {
        let Some(inner) = bridge.upgrade() else { return };
        let known = inner.backend.known_session(&client);
        drop(inner);
        sockets.retain(|attachment| {
            let stays = known.is_some_and(|known| attachment.admits_known(&known));
            !stays && attachment.sink().is_open() && !attachment.sink().disconnect()
        });
        if sockets.is_empty() {
            return;
        }
        tokio::time::sleep(DISCONNECT_PAUSE).await;
    }
    tracing::warn!(
        sockets = sockets.len(),
        "sockets of an ended session could not be disconnected"
    );
}

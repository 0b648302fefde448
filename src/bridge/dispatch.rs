//! From the backend's events to sockets and listeners.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::events::Lagged;
use super::handle::{Inner, SessionBridge};
use super::options::{GOODBYE, OnDestroy, OnRotate};
use super::sockets::{Attachment, SinkError};
use crate::backend::BackendEvent;
use crate::session::{
    ClientId, DestroyReason, Generation, SessionDestroy, SessionEvent, SessionId, SessionSet,
};

/// How often sockets are looked over for those that are gone.
const SWEEP: Duration = Duration::from_secs(30);
/// A full buffer keeps a socket from being disconnected; it is tried again this often, this long
/// apart.
const DISCONNECT_TRIES: u32 = 50;
const DISCONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at a socket that is about to be connected.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// Brings each event to sockets and listeners, in order, until the bridge closes.
pub(super) async fn pump(
    bridge: Weak<Inner>,
    mut source: broadcast::Receiver<BackendEvent>,
    closing: CancellationToken,
) {
    let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut gap = Gap::default();
    loop {
        tokio::select! {
            biased;
            item = source.recv() => {
                let Some(inner) = bridge.upgrade() else { return };
                let bridge = SessionBridge { inner };
                match item {
                    Ok(event) => {
                        if !gap.has_told(&event) {
                            bridge.fan_out(&event);
                        }
                    }
                    Err(RecvError::Lagged(missed)) => {
                        bridge.missed(missed);
                        gap.left = Some(source.len());
                        continue;
                    }
                    Err(RecvError::Closed) => return,
                }
                if gap.is_passed() {
                    gap.found = bridge.repair();
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

/// Events that were lost on the way here. What is still in the buffer is told first: comparing
/// before that would find ends that are about to be told.
#[derive(Default)]
struct Gap {
    /// How many events come before the comparison.
    left: Option<usize>,
    /// Ends that the comparison found and told. The events of some may come all the same: the
    /// backend is ahead of what it has told.
    found: HashSet<Generation>,
}

impl Gap {
    fn has_told(&mut self, event: &BackendEvent) -> bool {
        event.destroy_reason().is_some()
            && event.generation.is_some_and(|generation| self.found.remove(&generation))
    }

    /// Counts an event; whether it was the last before the comparison. A buffer that overflowed
    /// is never empty, so there is one.
    fn is_passed(&mut self) -> bool {
        match self.left {
            Some(left) if left > 1 => {
                self.left = Some(left - 1);
                false
            }
            Some(_) => {
                self.left = None;
                true
            }
            None => false,
        }
    }
}

/// A message to a socket's client.
type Message<'a> = (&'a str, Value);

impl SessionBridge {
    fn fan_out(&self, event: &BackendEvent) {
        let counters = self.counters();
        counters.events.add(1);
        match &event.event {
            SessionEvent::Set(set) => {
                let sockets = self.admitted(&set.client_id, event);
                self.tell(&sockets, event, self.set_message(set).as_ref());
            }
            SessionEvent::Destroy(end) => {
                counters.ended.add(1);
                let mut sockets = self.inner.attachments.of(&end.client_id);
                sockets.retain(|socket| socket.is_of(event.generation, &end.session_id));
                self.end_for(&sockets, event, end);
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
        self.publish(Ok(event.event.clone()));
    }

    fn set_message(&self, set: &SessionSet) -> Option<Message<'_>> {
        let messages = &self.options().messages;
        let name = messages.set.as_deref()?;
        let mut payload = json!({ "isNew": set.is_new, "isInit": set.is_init, "node": set.node });
        if messages.include_ids {
            payload["sessionId"] = json!(set.session_id);
        }
        Some((name, payload))
    }

    fn end_message(&self, end: &SessionDestroy) -> Option<Message<'_>> {
        let messages = &self.options().messages;
        // Whoever is disconnected for sealing is told why in any case.
        let silent =
            self.options().on_destroy == OnDestroy::Nothing && end.reason != DestroyReason::Sealed;
        let name = messages.destroy.as_deref().filter(|_| !silent)?;
        let mut payload = json!({ "reason": end.reason, "node": end.node });
        if messages.include_ids {
            payload["sessionId"] = json!(end.session_id);
        }
        Some((name, payload))
    }

    /// Those sockets of a client that may see the event's session, and have not seen the change.
    fn admitted(&self, client: &ClientId, event: &BackendEvent) -> Vec<Arc<Attachment>> {
        let mut sockets = self.inner.attachments.of(client);
        let created = self
            .backend()
            .cached_session(client)
            .filter(|known| Some(known.generation) == event.generation)
            .map(|known| known.created);
        sockets.retain(|attachment| {
            event.generation.is_none_or(|generation| {
                attachment.admits(generation, event.sealed, created)
                    && !event.version.is_some_and(|version| attachment.saw(generation, version))
            })
        });
        sockets
    }

    /// Sends the message to the sockets, and hands the event to their own handlers.
    fn tell(
        &self,
        sockets: &[Arc<Attachment>],
        event: &BackendEvent,
        message: Option<&Message<'_>>,
    ) {
        for attachment in sockets {
            attachment.hear(&event.event, event.generation);
            if let Some((name, payload)) = message {
                self.emit(attachment, name, payload);
            }
            let missed = attachment.hand(&event.event);
            if missed > 0 {
                self.counters().events_missed.add(missed);
                tracing::warn!(missed, "a socket's session event handler is too slow");
            }
        }
    }

    fn emit(&self, attachment: &Arc<Attachment>, name: &str, payload: &Value) {
        self.sent(attachment, name, payload, attachment.sink().emit(name, payload));
    }

    /// What came of a message.
    fn sent(
        &self,
        attachment: &Arc<Attachment>,
        name: &str,
        payload: &Value,
        sent: Result<(), SinkError>,
    ) {
        match sent {
            Ok(()) => self.counters().messages_sent.add(1),
            Err(SinkError::NotYet) => {
                let (bridge, attachment) = (Arc::downgrade(&self.inner), attachment.clone());
                let (name, payload) = (name.to_owned(), payload.clone());
                let closing = self.inner.closing.clone();
                self.inner.tasks.spawn(async move {
                    let sent = tokio::select! {
                        sent = emit_once_connected(&attachment, &name, &payload) => sent,
                        () = closing.cancelled() => return,
                    };
                    if let Some(inner) = bridge.upgrade() {
                        SessionBridge { inner }.sent(&attachment, &name, &payload, sent);
                    }
                });
            }
            Err(SinkError::Full) => {
                self.counters().messages_failed.add(1);
                tracing::debug!(
                    message = name,
                    "a socket's buffer is full; a session message is lost"
                );
            }
            // Its guard detaches it in a moment.
            Err(SinkError::Closed) => {}
        }
    }

    /// Tells sockets the end of their session, and does what the policy says about them.
    fn end_for(&self, sockets: &[Arc<Attachment>], event: &BackendEvent, end: &SessionDestroy) {
        let options = self.options();
        if options.on_rotate == OnRotate::Follow
            && let (Some(from), Some(into)) = (event.generation, event.successor)
        {
            // What they see next is the sealed session, which is told in a moment.
            for socket in sockets {
                socket.follow(from, into);
            }
            return;
        }
        self.tell(sockets, event, self.end_message(end).as_ref());
        let grace = match (end.reason, options.on_destroy) {
            (DestroyReason::Sealed, _) => GOODBYE,
            (_, OnDestroy::Disconnect { grace }) => grace,
            (_, OnDestroy::Notify | OnDestroy::Nothing) => return,
        };
        for socket in sockets {
            socket.leave();
        }
        let mut sockets = sockets.to_vec();
        if grace.is_zero() {
            sockets.retain(still_there);
        }
        if sockets.is_empty() {
            return;
        }
        let closing = self.inner.closing.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = disconnect(sockets, grace) => {}
                () = closing.cancelled() => {}
            }
        });
    }

    /// Listeners are told that there is a gap.
    fn missed(&self, missed: u64) {
        self.counters().events_missed.add(missed);
        tracing::warn!(missed, "the bridge fell behind its backend; comparing sockets");
        self.publish(Err(Lagged(missed)));
    }

    /// Tells sockets what they may have missed, by comparing what each was told last with what its
    /// client has now. Returns the ends that were found.
    fn repair(&self) -> HashSet<Generation> {
        let mut found = HashSet::new();
        for client in self.inner.attachments.clients() {
            let known = self.backend().cached_session(&client);
            let mut ended: HashMap<Generation, (SessionId, Vec<Arc<Attachment>>)> = HashMap::new();
            let mut current = Vec::new();
            for attachment in self.inner.attachments.of(&client) {
                if let Some((generation, id)) = attachment.session()
                    && known.is_none_or(|known| known.generation != generation)
                {
                    let (_, sockets) = ended.entry(generation).or_insert((id, Vec::new()));
                    sockets.push(attachment.clone());
                }
                if known.is_some_and(|known| attachment.admits_known(&known)) {
                    current.push(attachment);
                }
            }
            for (generation, (id, sockets)) in ended {
                let end =
                    SessionDestroy::new(client, id, DestroyReason::Reconciled, self.node().clone());
                let event = BackendEvent::end(end.clone(), Some(generation));
                self.counters().events.add(1);
                self.counters().ended.add(1);
                self.end_for(&sockets, &event, &end);
                self.publish(Ok(event.event));
                found.insert(generation);
            }
            if let Some(known) = known {
                // Whether it changed is not known; that it can be read is.
                let node = self.node().clone();
                let set = SessionSet::new(client, known.session_id, false, false, node);
                let message = self.set_message(&set);
                let event = BackendEvent {
                    generation: Some(known.generation),
                    sealed: known.sealed,
                    ..BackendEvent::plain(SessionEvent::Set(set))
                };
                self.tell(&current, &event, message.as_ref());
            }
        }
        found
    }
}

/// Sends a message to a socket that is about to be connected, as soon as it is. The sink says when that
/// takes too long.
async fn emit_once_connected(
    attachment: &Attachment,
    name: &str,
    payload: &Value,
) -> Result<(), SinkError> {
    loop {
        tokio::time::sleep(CONNECT_PAUSE).await;
        match attachment.sink().emit(name, payload) {
            Err(SinkError::NotYet) => {}
            sent => return sent,
        }
    }
}

/// Disconnects sockets after a grace.
async fn disconnect(mut sockets: Vec<Arc<Attachment>>, grace: Duration) {
    tokio::time::sleep(grace).await;
    for _ in 0..DISCONNECT_TRIES {
        sockets.retain(still_there);
        if sockets.is_empty() {
            return;
        }
        tokio::time::sleep(DISCONNECT_PAUSE).await;
    }
    tracing::debug!(
        sockets = sockets.len(),
        "sockets of an ended session could not be disconnected"
    );
}

/// Disconnects a socket; whether that has to be tried again, for its buffer is full.
fn still_there(socket: &Arc<Attachment>) -> bool {
    socket.sink().is_open() && !socket.sink().disconnect()
}

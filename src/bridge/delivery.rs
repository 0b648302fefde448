//! Events and messages, from the bridge to sockets and listeners.

use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;

use super::attachment::{Attachment, Message, SinkError};
use super::core::Core;
use super::options::{GOODBYE, OnDestroy, OnRotate};
use crate::backend::BackendEvent;
use crate::session::{ClientId, DestroyReason, SessionDestroy, SessionEvent, SessionSet};

/// A full buffer keeps a socket from being disconnected, and so does one that is about to be connected;
/// it is tried again this often, this long apart.
const DISCONNECT_TRIES: u32 = 200;
const DISCONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Between two checks of a socket that is about to be connected.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// Brings an event of the backend to the sockets that may see it, and then to all listeners.
pub(super) fn fan_out(core: &Arc<Core>, event: BackendEvent) {
    core.counters.events.add(1);
    if let SessionEvent::Destroy(_) = &event.event {
        core.counters.ended.add(1);
    }
    if !core.sockets.is_empty() {
        notify_sockets(core, &event);
    }
    // Listeners last: what they do about an event comes after the sockets' notification.
    core.events.publish(Ok(event.event));
}

fn notify_sockets(core: &Arc<Core>, event: &BackendEvent) {
    match &event.event {
        SessionEvent::Set(set) => {
            let sockets = viewers(core, &set.client_id, event);
            if !sockets.is_empty() {
                notify(core, &sockets, event, set_message(core, set).as_ref());
            }
        }
        SessionEvent::Destroy(end) => {
            let mut sockets = core.sockets.of(&end.client_id);
            sockets.retain(|socket| socket.is_of(event.generation, &end.session_id));
            if !sockets.is_empty() {
                end_session(core, &sockets, event, end);
            }
        }
        SessionEvent::Cleanup(cleanup) => {
            if let Some(name) = &core.options.messages.cleanup {
                let payload = json!({ "cleared": cleanup.cleared, "node": cleanup.node });
                let message = Arc::new(Message { name: name.clone(), payload });
                for socket in core.sockets.all() {
                    emit(core, &socket, &message);
                }
            }
        }
        SessionEvent::Gap(_) => {}
    }
}

/// The message of a session that was created, attached or changed.
pub(super) fn set_message(core: &Core, set: &SessionSet) -> Option<Arc<Message>> {
    let messages = &core.options.messages;
    let name = messages.set.clone()?;
    let mut payload = json!({ "isNew": set.is_new, "isInit": set.is_init, "node": set.node });
    if messages.include_ids {
        payload["sessionId"] = json!(set.session_id);
    }
    Some(Arc::new(Message { name, payload }))
}

fn end_message(core: &Core, end: &SessionDestroy) -> Option<Arc<Message>> {
    let messages = &core.options.messages;
    // A socket that is disconnected for sealing is notified in any case.
    let silent =
        core.options.on_destroy == OnDestroy::Nothing && end.reason != DestroyReason::Sealed;
    let name = messages.destroy.clone().filter(|_| !silent)?;
    let mut payload = json!({ "reason": end.reason, "node": end.node });
    if messages.include_ids {
        payload["sessionId"] = json!(end.session_id);
    }
    Some(Arc::new(Message { name, payload }))
}

/// Those sockets of a client that may see the event's session, and have not read the change.
fn viewers(core: &Core, client: &ClientId, event: &BackendEvent) -> Vec<Arc<Attachment>> {
    let mut sockets = core.sockets.of(client);
    if sockets.is_empty() {
        return sockets;
    }
    let created = core
        .backend
        .cached_session(client)
        .filter(|known| Some(known.generation) == event.generation)
        .map(|known| known.created);
    sockets.retain(|socket| {
        event.generation.is_none_or(|generation| {
            socket.can_see(generation, event.sealed, created)
                && !event.version.is_some_and(|version| socket.already_read(generation, version))
        })
    });
    sockets
}

/// Sends the message to the sockets, and delivers the event to their own handlers.
pub(super) fn notify(
    core: &Arc<Core>,
    sockets: &[Arc<Attachment>],
    event: &BackendEvent,
    message: Option<&Arc<Message>>,
) {
    for socket in sockets {
        socket.note(&event.event, event.generation);
        if let Some(message) = message {
            emit(core, socket, message);
        }
        let missed = socket.deliver(&event.event);
        if missed > 0 {
            core.counters.events_missed.add(missed);
            tracing::warn!(missed, "a socket's session event handler is too slow");
        }
    }
}

fn emit(core: &Arc<Core>, socket: &Arc<Attachment>, message: &Arc<Message>) {
    match socket.sink().emit(message) {
        Err(SinkError::NotYet) => {
            let (weak, socket, message) = (Arc::downgrade(core), socket.clone(), message.clone());
            core.spawn(emit_once_connected(weak, socket, message));
        }
        sent => count_sent(core, message, sent),
    }
}

/// Sends a message to a socket that is about to be connected, as soon as it is. The sink reports
/// when that takes too long.
async fn emit_once_connected(core: Weak<Core>, socket: Arc<Attachment>, message: Arc<Message>) {
    loop {
        tokio::time::sleep(CONNECT_PAUSE).await;
        match socket.sink().emit(&message) {
            Err(SinkError::NotYet) => {}
            sent => {
                if let Some(core) = core.upgrade() {
                    count_sent(&core, &message, sent);
                }
                return;
            }
        }
    }
}

fn count_sent(core: &Core, message: &Message, sent: Result<(), SinkError>) {
    match sent {
        Ok(()) => core.counters.messages_sent.add(1),
        Err(SinkError::Full) => {
            core.counters.messages_failed.add(1);
            let message = message.name.as_str();
            tracing::debug!(message, "a socket's buffer is full; a session message is lost");
        }
        // Its guard detaches it in a moment.
        Err(SinkError::Closed | SinkError::NotYet | SinkError::Mute) => {}
    }
}

/// Notifies sockets of the end of their session, and does what the policy says about them.
pub(super) fn end_session(
    core: &Arc<Core>,
    sockets: &[Arc<Attachment>],
    event: &BackendEvent,
    end: &SessionDestroy,
) {
    if core.options.on_rotate == OnRotate::Follow
        && let (Some(from), Some(into)) = (event.generation, event.successor)
    {
        // What they see next is the sealed session, whose event follows at once.
        for socket in sockets {
            socket.follow(from, into);
        }
        return;
    }
    notify(core, sockets, event, end_message(core, end).as_ref());
    for socket in sockets {
        socket.sink().end(end);
    }
    apply_on_destroy(core, sockets, end.reason);
}

/// Disconnects the sockets of an ended session, if the policy wants that.
fn apply_on_destroy(core: &Core, sockets: &[Arc<Attachment>], reason: DestroyReason) {
    let grace = match (reason, core.options.on_destroy) {
        (DestroyReason::Sealed, _) => GOODBYE,
        (_, OnDestroy::Disconnect { grace }) => grace,
        (_, OnDestroy::Notify | OnDestroy::Nothing) => return,
    };
    for socket in sockets {
        socket.set_leaving();
    }
    let mut sockets = sockets.to_vec();
    if grace.is_zero() {
        sockets.retain(stays_connected);
    }
    if !sockets.is_empty() {
        core.spawn(disconnect(sockets, grace));
    }
}

/// Disconnects sockets after a grace.
async fn disconnect(mut sockets: Vec<Arc<Attachment>>, grace: Duration) {
    tokio::time::sleep(grace).await;
    for _ in 0..DISCONNECT_TRIES {
        sockets.retain(stays_connected);
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
fn stays_connected(socket: &Arc<Attachment>) -> bool {
    socket.sink().is_open() && !socket.sink().disconnect()
}

//! Sockets that may have missed events, compared with what their clients have now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::attachment::Attachment;
use super::core::Core;
use super::delivery;
use crate::backend::{BackendEvent, SessionSnapshot};
use crate::session::{
    ClientId, DestroyReason, Generation, SessionDestroy, SessionEvent, SessionId, SessionSet,
};

/// Notifies sockets of what they may have missed, by comparing what each was notified of last with
/// what its client has now. Returns the ends that were found.
pub(super) fn reconcile_sockets(core: &Arc<Core>) -> HashSet<Generation> {
    let mut found = HashSet::new();
    for client in core.sockets.clients() {
        let known = core.backend.cached_session(&client);
        let mut ended: HashMap<Generation, (SessionId, Vec<Arc<Attachment>>)> = HashMap::new();
        let mut current = Vec::new();
        for socket in core.sockets.of(&client) {
            if let Some((generation, id)) = socket.session()
                && known.is_none_or(|known| known.generation != generation)
            {
                let (_, sockets) = ended.entry(generation).or_insert((id, Vec::new()));
                sockets.push(socket.clone());
            }
            if known.is_some_and(|known| socket.can_see_snapshot(&known)) {
                current.push(socket);
            }
        }
        for (generation, (id, sockets)) in ended {
            publish_end(core, client, id, generation, &sockets);
            found.insert(generation);
        }
        if let Some(known) = known {
            notify_current(core, client, &known, &current);
        }
    }
    found
}

fn publish_end(
    core: &Arc<Core>,
    client: ClientId,
    id: SessionId,
    generation: Generation,
    sockets: &[Arc<Attachment>],
) {
    let node = core.backend.node().clone();
    let end = SessionDestroy::new(client, id, DestroyReason::Reconciled, node);
    let event = BackendEvent::end(end.clone(), Some(generation));
    core.counters.events.add(1);
    core.counters.ended.add(1);
    delivery::end_session(core, sockets, &event, &end);
    core.events.publish(Ok(event.event));
}

/// Whether the session changed is not known; that it can be read is.
fn notify_current(
    core: &Arc<Core>,
    client: ClientId,
    known: &SessionSnapshot,
    sockets: &[Arc<Attachment>],
) {
    let node = core.backend.node().clone();
    let set = SessionSet::new(client, known.session_id, false, false, node);
    let message = delivery::set_message(core, &set);
    let event = BackendEvent {
        generation: Some(known.generation),
        sealed: known.sealed,
        ..BackendEvent::plain(SessionEvent::Set(set))
    };
    delivery::notify(core, sockets, &event, message.as_ref());
}

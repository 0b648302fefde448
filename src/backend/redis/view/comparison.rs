//! What a comparison with Redis found missing.

use crate::backend::BackendEvent;
use crate::session::{
    ClientId, DestroyReason, Generation, NodeId, Record, SessionDestroy, SessionEvent, SessionId,
    SessionSet,
};

/// The end of a session that Redis does not have any more. `record` is what it has of the client.
pub(super) fn missed_end(
    node: &NodeId,
    client: &ClientId,
    (generation, id): (Generation, SessionId),
    record: Option<&Record>,
) -> BackendEvent {
    // Sockets that follow a sealed session still can.
    let heir = record.filter(|new| new.sealed && new.had(&id));
    let reason = match heir {
        Some(_) => DestroyReason::Sealed,
        None => DestroyReason::Reconciled,
    };
    let end = SessionDestroy::new(*client, id, reason, node.clone());
    BackendEvent {
        successor: heir.map(|heir| heir.generation),
        ..BackendEvent::end(end, Some(generation))
    }
}

/// A change, or with `begins` a session, that sockets were not notified of.
pub(super) fn missed_set(node: &NodeId, record: &Record, begins: bool) -> BackendEvent {
    let set = SessionSet::new(record.client_id, record.session_id, false, begins, node.clone());
    BackendEvent {
        generation: Some(record.generation),
        version: Some(record.version),
        sealed: record.sealed,
        ..BackendEvent::plain(SessionEvent::Set(set))
    }
}

//! The events of this node.

use tokio::sync::broadcast;

use crate::backend::BackendEvent;
use crate::session::{
    Cleanup, ClientId, DestroyReason, Generation, NodeId, Record, SessionDestroy, SessionEvent,
    SessionId, SessionSet,
};

/// Publishes what happens to sessions, under this node's name.
#[derive(Debug)]
pub(super) struct Publisher {
    node: NodeId,
    sender: broadcast::Sender<BackendEvent>,
}

impl Publisher {
    /// A slow subscriber may fall this many events behind.
    pub(super) fn new(node: NodeId, capacity: usize) -> Self {
        Self { node, sender: broadcast::channel(capacity).0 }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.sender.subscribe()
    }

    fn publish(&self, event: BackendEvent) {
        // An error says that there is no subscriber.
        let _ = self.sender.send(event);
    }

    fn state(&self, event: SessionSet, record: &Record, version: Option<u64>) {
        self.publish(BackendEvent {
            generation: Some(record.generation),
            version,
            sealed: record.sealed,
            ..BackendEvent::plain(SessionEvent::Set(event))
        });
    }

    /// Publishes what is no new version: a first use, or a notice.
    pub(super) fn seen(&self, record: &Record, is_new: bool, is_init: bool) {
        let node = self.node.clone();
        let event = SessionSet::new(record.client_id, record.session_id, is_new, is_init, node);
        self.state(event, record, None);
    }

    /// Publishes a change.
    pub(super) fn set(&self, record: &Record, is_new: bool, previous: Option<SessionId>) {
        let node = self.node.clone();
        let begins = is_new || previous.is_some();
        let mut event = SessionSet::new(record.client_id, record.session_id, is_new, begins, node);
        event.previous_id = previous;
        self.state(event, record, Some(record.version));
    }

    /// Publishes the end of what this sealed session was before.
    pub(super) fn sealed(&self, record: &Record, id: SessionId, generation: Generation) {
        let node = self.node.clone();
        let end = SessionDestroy::new(record.client_id, id, DestroyReason::Sealed, node);
        let event = BackendEvent::end(end, Some(generation));
        self.publish(BackendEvent { successor: Some(record.generation), ..event });
    }

    pub(super) fn end(
        &self,
        client: ClientId,
        id: SessionId,
        generation: Option<Generation>,
        reason: DestroyReason,
    ) {
        let event = SessionDestroy::new(client, id, reason, self.node.clone());
        self.publish(BackendEvent::end(event, generation));
    }

    pub(super) fn cleanup(&self, cleared: u64) {
        let event = Cleanup::new(cleared, self.node.clone());
        self.publish(BackendEvent::plain(SessionEvent::Cleanup(event)));
    }
}

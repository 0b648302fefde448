//! What a backend publishes.

use crate::session::{
    DestroyReason, Generation, NodeId, Record, SessionDestroy, SessionEvent, SessionSet,
};

/// An event with what the bridge needs to route it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackendEvent {
    /// What happened.
    pub event: SessionEvent,
    /// The generation of the session concerned.
    pub generation: Option<Generation>,
    /// The version that the session has by this change. `None` for what is no change of it: an end,
    /// a notice of a change made elsewhere, the first use after a restart.
    pub version: Option<u64>,
    /// Whether the session that was created or changed is sealed. `false` for an end.
    pub sealed: bool,
    /// For an end by sealing: the generation of the sealed session that took its place.
    pub successor: Option<Generation>,
}

impl BackendEvent {
    /// What concerns no session's state: a cleanup, a gap.
    pub fn plain(event: SessionEvent) -> Self {
        Self { event, generation: None, version: None, sealed: false, successor: None }
    }

    /// The end of a session.
    pub fn end(event: SessionDestroy, generation: Option<Generation>) -> Self {
        Self { generation, ..Self::plain(SessionEvent::Destroy(event)) }
    }

    /// A session that was created or changed, and is this record now.
    pub fn change(event: SessionSet, record: &Record) -> Self {
        Self {
            generation: Some(record.generation),
            version: Some(record.version),
            sealed: record.sealed,
            ..Self::plain(SessionEvent::Set(event))
        }
    }

    /// What is published of a new session.
    pub fn created(record: &Record, node: &NodeId) -> Self {
        let set = SessionSet::new(record.client_id, record.session_id, true, true, node.clone());
        Self::change(set, record)
    }

    /// What is published of a commit that made `new` of `old`, in this order: for a sealed session
    /// the end of what it was before, and the change.
    pub fn committed(old: &Record, new: &Record, node: &NodeId) -> Vec<Self> {
        let mut events = Vec::with_capacity(2);
        if new.generation != old.generation {
            let reason = DestroyReason::Sealed;
            let end = SessionDestroy::new(old.client_id, old.session_id, reason, node.clone());
            let end = Self::end(end, Some(old.generation));
            events.push(Self { successor: Some(new.generation), ..end });
        }
        let moved = new.session_id != old.session_id;
        let mut set = SessionSet::new(new.client_id, new.session_id, false, moved, node.clone());
        set.previous_id = moved.then_some(old.session_id);
        events.push(Self::change(set, new));
        events
    }

    /// What is published of a session's end.
    pub fn ended(record: &Record, reason: DestroyReason, node: &NodeId) -> Self {
        let end = SessionDestroy::new(record.client_id, record.session_id, reason, node.clone());
        Self::end(end, Some(record.generation))
    }

    /// Why a session ended, if this is an end.
    pub fn destroy_reason(&self) -> Option<DestroyReason> {
        match &self.event {
            SessionEvent::Destroy(event) => Some(event.reason),
            _ => None,
        }
    }
}

//! Sessions that a request ends by id: ending its own is a logout, not a conflict.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::session::{ClientId, Record, SessionId};

tokio::task_local! {
    static OWN_ENDS: OwnEnds;
}

/// What a request has ended by a method of the bridge.
#[derive(Debug, Clone)]
pub(crate) struct OwnEnds {
    /// The ids in the request's session cookies.
    presented: Arc<[SessionId]>,
    ended: Arc<Mutex<Vec<Ended>>>,
}

/// A session that was ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Session {
        id: SessionId,
        sealed: bool,
    },
    /// The session of a client, whichever it was.
    Client(ClientId),
}

impl Ended {
    fn is(&self, record: &Record) -> bool {
        match self {
            Self::Session { id, .. } => record.session_id == *id || record.had(id),
            Self::Client(client) => record.client_id == *client,
        }
    }
}

impl OwnEnds {
    pub(crate) fn new(presented: Arc<[SessionId]>) -> Self {
        Self { presented, ended: Arc::default() }
    }

    /// Runs a request's handler: what it ends is noted here.
    pub(crate) fn scope<F: Future>(&self, handler: F) -> impl Future<Output = F::Output> {
        OWN_ENDS.scope(self.clone(), handler)
    }

    /// Whether the request's own session was ended, and whether it was sealed.
    pub(crate) fn own(&self) -> Option<bool> {
        self.ended().iter().find_map(|ended| match ended {
            Ended::Session { id, sealed } => self.presented.contains(id).then_some(*sealed),
            Ended::Client(_) => None,
        })
    }

    fn ended(&self) -> MutexGuard<'_, Vec<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ids that the request came with that runs here; none outside a request, and in a task that its
/// handler started.
pub(super) fn presented() -> Arc<[SessionId]> {
    OWN_ENDS.try_with(|ends| ends.presented.clone()).unwrap_or_default()
}

/// Notes that the request that runs here, if one does, has ended a session.
pub(super) fn note(ended: Ended) {
    // An error says that there is no request.
    let _ = OWN_ENDS.try_with(|ends| ends.ended().push(ended));
}

/// Whether the request that runs here has ended this session.
pub(super) fn has_ended(record: &Record) -> bool {
    OWN_ENDS.try_with(|ends| ends.ended().iter().any(|ended| ended.is(record))).unwrap_or(false)
}

/// [`has_ended`], once: what the request begins afterwards is not ended.
pub(super) fn take(record: &Record) -> bool {
    OWN_ENDS
        .try_with(|ends| {
            let mut list = ends.ended();
            let before = list.len();
            list.retain(|ended| !ended.is(record));
            list.len() < before
        })
        .unwrap_or(false)
}

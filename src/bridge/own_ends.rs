//! Sessions that a request ends by id: its own among them is a logout, not a conflict.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use crate::session::{ClientId, Record, SessionId};

tokio::task_local! {
    static OWN_ENDS: OwnEnds;
}

/// What a request has ended by a method of the bridge.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnEnds(Arc<Mutex<Vec<Ended>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Session(SessionId),
    Client(ClientId),
}

impl Ended {
    fn is(&self, record: &Record) -> bool {
        match self {
            Self::Session(id) => record.session_id == *id || record.had(id),
            Self::Client(client) => record.client_id == *client,
        }
    }
}

impl OwnEnds {
    /// Runs a request's handler: what it ends is noted here.
    pub(crate) fn scope<F: Future>(&self, handler: F) -> impl Future<Output = F::Output> {
        OWN_ENDS.scope(self.clone(), handler)
    }

    /// Whether one of these sessions of the client was ended.
    pub(crate) fn any_of(&self, ids: &[SessionId], client: ClientId) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let by_client = !ids.is_empty() && ended.contains(&Ended::Client(client));
        by_client || ids.iter().any(|id| ended.contains(&Ended::Session(*id)))
    }
}

/// Notes that the request that runs here has ended a session. Nothing outside a request, or in a
/// task that its handler started.
pub(super) fn note(ended: Ended) {
    // An error says that there is no request.
    let _ = OWN_ENDS.try_with(|OwnEnds(list)| {
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        if !list.contains(&ended) {
            list.push(ended);
        }
    });
}

/// Whether the request that runs here has ended this session. Says so once: what the request
/// begins afterwards is not ended.
pub(super) fn take(record: &Record) -> bool {
    OWN_ENDS
        .try_with(|OwnEnds(list)| {
            let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
            let before = list.len();
            list.retain(|ended| !ended.is(record));
            list.len() < before
        })
        .unwrap_or(false)
}

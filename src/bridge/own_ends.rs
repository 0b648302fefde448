//! Sessions that a request ends by id: ending its own is a logout, not a conflict.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;

use crate::session::{ClientId, Record, SessionId};

tokio::task_local! {
    static OWN_ENDS: RefCell<OwnEnds>;
}

/// What a request has ended by a method of the bridge.
#[derive(Debug, Default)]
pub(crate) struct OwnEnds {
    /// The ids in the request's session cookies.
    presented: Arc<[SessionId]>,
    ended: Vec<Ended>,
}

/// A future of a request: what it ends is noted.
pub(crate) type Scoped<F> = TaskLocalFuture<RefCell<OwnEnds>, F>;

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
        Self { presented, ended: Vec::new() }
    }

    /// Runs a part of a request: what it ends is noted, and found by [`of`](Self::of) then.
    pub(crate) fn scope<F: Future>(self, part: F) -> Scoped<F> {
        OWN_ENDS.scope(RefCell::new(self), part)
    }

    /// What is noted of a part that was run.
    pub(crate) fn of<F>(part: Pin<&mut Scoped<F>>) -> Self {
        part.take_value().map(RefCell::into_inner).unwrap_or_default()
    }

    /// Whether the request has ended nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.ended.is_empty()
    }

    /// Whether the request's own session was ended, and whether it was sealed.
    pub(crate) fn own(&self) -> Option<bool> {
        self.ended.iter().find_map(|ended| match ended {
            Ended::Session { id, sealed } => self.presented.contains(id).then_some(*sealed),
            Ended::Client(_) => None,
        })
    }
}

/// The ids that the request came with that runs here; none outside a request, and in a task that its
/// handler started.
pub(super) fn presented() -> Arc<[SessionId]> {
    OWN_ENDS.try_with(|ends| ends.borrow().presented.clone()).unwrap_or_default()
}

/// Notes that the request that runs here, if one does, has ended a session.
pub(super) fn note(ended: Ended) {
    // An error says that there is no request.
    let _ = OWN_ENDS.try_with(|ends| ends.borrow_mut().ended.push(ended));
}

/// Whether the request that runs here has ended this session.
pub(super) fn has_ended(record: &Record) -> bool {
    let is = |ends: &RefCell<OwnEnds>| ends.borrow().ended.iter().any(|ended| ended.is(record));
    OWN_ENDS.try_with(is).unwrap_or(false)
}

/// [`has_ended`], once: what the request begins afterwards is not ended.
pub(super) fn take(record: &Record) -> bool {
    OWN_ENDS
        .try_with(|ends| {
            let list = &mut ends.borrow_mut().ended;
            let before = list.len();
            list.retain(|ended| !ended.is(record));
            list.len() < before
        })
        .unwrap_or(false)
}

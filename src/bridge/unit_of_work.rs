//! A request's view of its session, and what the request wants of it.

use std::sync::Arc;
use std::time::Duration;

use crate::session::{Changes, ClientId, MaxAge, Record, SessionData, SessionId};

/// A session as one request sees it: what was loaded, and what the request made of it.
///
/// A cheap clone: the loaded record and the data are shared until one of them changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnitOfWork {
    /// What is stored as far as the request knows.
    pub(crate) base: Option<Arc<Record>>,
    /// The id that the request came with or was given: the one its cookie has.
    pub(crate) holds: Option<SessionId>,
    /// The request's cookie has an earlier id of a session that lives on under another one.
    pub(crate) superseded: bool,
    /// How old the session was that this one takes over from.
    pub(crate) age: Duration,
    /// The data with the request's changes.
    pub(crate) data: SessionData,
    /// The max age that the request sets.
    pub(crate) max_age: Option<MaxAge>,
    /// The request wants a new id.
    pub(crate) new_id: Option<WantsId>,
    /// The request ends what was loaded; `data` is then a new session's.
    pub(crate) destroy: bool,
    /// The request wants a write whether or not something changed.
    pub(crate) save: bool,
}

/// Why a request wants a new id. The greater one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WantsId {
    /// The same session under another id.
    Renew,
    /// A sealed session with its data.
    Seal,
}

/// What a commit did.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Nothing, for nothing changed.
    Unchanged,
    /// The session is stored; its cookie is to be sent if `own`. A session that another request
    /// gave a new id keeps that id to the request that asked for it.
    Stored { record: Arc<Record>, own: bool },
    /// There is no session any more.
    Gone {
        /// The client from now on.
        client: ClientId,
        /// This request ended it, so its cookie is to be cleared.
        ended: bool,
    },
}

impl UnitOfWork {
    /// The view of a request that opened this session with the id `holds`.
    pub(crate) fn new(base: Arc<Record>, holds: SessionId) -> Self {
        let data = base.data.clone();
        Self { base: Some(base), holds: Some(holds), data, ..Self::default() }
    }

    /// The view of a late request: its cookie opens nothing any more.
    pub(crate) fn superseded() -> Self {
        Self { superseded: true, ..Self::default() }
    }

    /// The data of the session that begins where the loaded one ends: what was set after it was
    /// destroyed; or, if it was ended by its id, what the request set before or after. The old
    /// one's data is never part of it.
    pub(super) fn next_data(&self) -> SessionData {
        if self.destroy {
            return self.data.clone();
        }
        let mut data = SessionData::new();
        data.apply(&self.changes());
        data
    }

    /// What the request changed.
    pub(super) fn changes(&self) -> Changes {
        match &self.base {
            Some(base) if !self.destroy => base.data.changes_to(&self.data),
            _ => SessionData::new().changes_to(&self.data),
        }
    }

    /// The session's own max age, once this is written.
    pub(super) fn max_age(&self) -> MaxAge {
        let loaded = self.base.as_ref().filter(|_| !self.destroy).map(|base| base.max_age);
        self.max_age.or(loaded).unwrap_or_default()
    }

    /// Whether the request wants anything of the session but to read it.
    pub(super) fn asks(&self) -> bool {
        self.destroy
            || self.save
            || self.new_id.is_some()
            || self.max_age.is_some()
            || !self.data.is_empty()
    }

    /// Whether the request wants a sealed session.
    pub(super) fn seals(&self) -> bool {
        self.new_id == Some(WantsId::Seal)
    }

    /// Whether the loaded session stays as it is. Costs nothing if the request changed nothing: the
    /// data is shared then.
    pub(super) fn leaves(&self, base: &Record) -> bool {
        self.new_id.is_none() && self.max_age() == base.max_age && self.data == base.data
    }

    /// Whether the request may be given the cookie of what was stored: it asked for a new id, or
    /// it holds this very one, or the session is new.
    pub(super) fn owns(&self, record: &Record) -> bool {
        self.new_id.is_some() || self.holds.is_none_or(|id| id == record.session_id)
    }
}

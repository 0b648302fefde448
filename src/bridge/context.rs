//! What a `with_session` handler works with.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, MaxAge, Record, SessionData, SessionId};

/// The session of a `with_session` handler, which is its only leased writer.
///
/// Changes are kept here and written when the handler is done, in one step; if it fails, panics,
/// is dropped or loses its lease nothing is written. A cheap clone; a clone that outlives the
/// handler can read what was there, and its changes are refused.
#[derive(Clone)]
pub struct SessionContext {
    inner: Arc<Inner>,
}

struct Inner {
    session_id: SessionId,
    client_id: ClientId,
    lost: CancellationToken,
    state: Mutex<State>,
}

struct State {
    data: SessionData,
    max_age: MaxAge,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Destroyed,
    Closed,
}

/// What a handler left behind.
pub(super) struct HandlerOutcome {
    pub(super) data: SessionData,
    pub(super) max_age: MaxAge,
    pub(super) destroyed: bool,
}

impl SessionContext {
    pub(super) fn new(record: &Record, lost: CancellationToken) -> Self {
        let state =
            State { data: record.data.clone(), max_age: record.max_age, phase: Phase::Open };
        Self {
            inner: Arc::new(Inner {
                session_id: record.session_id,
                client_id: record.client_id,
                lost,
                state: Mutex::new(state),
            }),
        }
    }

    /// Takes what the handler left, and refuses changes from now on.
    pub(super) fn close(&self) -> HandlerOutcome {
        let mut state = self.lock();
        let destroyed = state.phase == Phase::Destroyed;
        state.phase = Phase::Closed;
        HandlerOutcome { data: state.data.clone(), max_age: state.max_age, destroyed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match state.phase {
            Phase::Open => Ok(state),
            Phase::Destroyed => {
                Err(Error::new(ErrorKind::SessionEnded, "this handler has destroyed it"))
            }
            Phase::Closed => {
                Err(Error::new(ErrorKind::Committed, "the handler of this context is done"))
            }
        }
    }

    /// The session's id. It stays the same while the handler runs.
    pub fn session_id(&self) -> SessionId {
        self.inner.session_id
    }

    /// The client that the session belongs to.
    pub fn client_id(&self) -> ClientId {
        self.inner.client_id
    }

    /// The data with the handler's changes so far. Empty after [`destroy`](Self::destroy).
    #[doc(alias = "session")]
    pub fn data(&self) -> SessionData {
        self.lock().data.clone()
    }

    /// The data, to change it in place.
    ///
    /// Don't hold the result over an `.await`: the compiler refuses it in a handler.
    ///
    /// # Errors
    /// [`SessionEnded`](ErrorKind::SessionEnded) after [`destroy`](Self::destroy),
    /// [`Committed`](ErrorKind::Committed) once the handler is done.
    #[doc(alias = "session_mut")]
    pub fn data_mut(&self) -> Result<SessionMut<'_>> {
        Ok(SessionMut(self.open()?))
    }

    /// The value under `key` as a `T`; `None` if there is none.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if the value is no `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.lock().data.get(key)
    }

    /// Sets `key`; returns what was there.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if `value` can't be serialized; those of
    /// [`data_mut`](Self::data_mut).
    pub fn insert<T: Serialize>(&self, key: impl Into<String>, value: T) -> Result<Option<Value>> {
        self.open()?.data.insert(key, value)
    }

    /// Removes `key`; returns what was there.
    ///
    /// # Errors
    /// Those of [`data_mut`](Self::data_mut).
    pub fn remove(&self, key: &str) -> Result<Option<Value>> {
        Ok(self.open()?.data.remove(key))
    }

    /// Replaces all data by a struct or map; the session keeps its id.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) for anything that is no JSON object; nothing
    /// changes then. Those of [`data_mut`](Self::data_mut).
    pub fn replace<T: Serialize>(&self, session: T) -> Result<()> {
        let data = SessionData::from_serialize(&session)?;
        self.open()?.data = data;
        Ok(())
    }

    /// Ends the session when the handler is done.
    #[doc(alias = "session = null")]
    pub fn destroy(&self) {
        if let Ok(mut state) = self.open() {
            state.phase = Phase::Destroyed;
            state.data.clear();
        }
    }

    /// The session's own max age.
    pub fn max_age(&self) -> MaxAge {
        self.lock().max_age
    }

    /// Sets the session's own max age, from the end of the handler on.
    ///
    /// # Errors
    /// [`InvalidMaxAge`](ErrorKind::InvalidMaxAge) out of range; those of
    /// [`data_mut`](Self::data_mut).
    pub fn set_max_age(&self, max_age: impl Into<MaxAge>) -> Result<()> {
        let max_age = max_age.into().validate()?;
        self.open()?.max_age = max_age;
        Ok(())
    }

    /// Cancelled when the lease is lost: the handler may go on, and its changes will
    /// be refused. For `select!` in handlers that take long.
    pub fn cancellation(&self) -> CancellationToken {
        self.inner.lost.clone()
    }
}

impl fmt::Debug for SessionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionContext")
            .field("session_id", &self.inner.session_id)
            .field("client_id", &self.inner.client_id)
            .finish_non_exhaustive()
    }
}

/// A session's data, to change it in place. See [`SessionContext::data_mut`].
pub struct SessionMut<'a>(MutexGuard<'a, State>);

impl Deref for SessionMut<'_> {
    type Target = SessionData;
    fn deref(&self) -> &SessionData {
        &self.0.data
    }
}

impl DerefMut for SessionMut<'_> {
    fn deref_mut(&mut self) -> &mut SessionData {
        &mut self.0.data
    }
}

impl fmt::Debug for SessionMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.data.fmt(f)
    }
}

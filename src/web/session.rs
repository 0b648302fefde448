//! A request's session.

mod cancellation;
mod commit;
mod cookie_action;
mod until_end;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::cookies::SessionCookie;
use crate::bridge::{SessionBridge, UnitOfWork, WantsId};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, MaxAge, SessionData, SessionId};

pub use cancellation::Cancellation;
pub(super) use cookie_action::CookieAction;

/// A request's session: an extractor.
///
/// Reading and changing work on the request's own copy; what changed is committed after the
/// handler, before the response leaves, also if that is an error. Another request that changed other
/// keys meanwhile loses nothing; of two that set the same key the last one wins
/// ([`OnConflict`](crate::bridge::OnConflict)). For a value that depends on its old one, such as a
/// counter, use [`update`](Self::update).
///
/// A timeout inside the session layer, which cuts a handler off, does not take back what the handler
/// had set: that is committed. One outside the layer writes nothing.
///
/// An empty new session is not stored and sets no cookie; the first change creates it.
///
/// A cheap clone; all clones are the same session. After the response a clone can be read, and
/// changes are refused with [`Committed`](ErrorKind::Committed).
///
/// While the store is away the extractor fails, or, with
/// [`WhenUnavailable::Anonymous`](crate::bridge::WhenUnavailable::Anonymous), gives an empty session
/// whose changes all fail with [`Unavailable`](ErrorKind::Unavailable).
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    bridge: SessionBridge,
    /// The request's cookie that opened the session.
    cookie: Option<SessionCookie>,
    /// It stands for one that could not be loaded.
    unavailable: bool,
    state: Mutex<State>,
    /// One write at a time; changes go on meanwhile.
    writing: tokio::sync::Mutex<()>,
}

struct State {
    client: ClientId,
    unit: UnitOfWork,
    cookie: CookieAction,
    /// When the record was written whose cookie is to be sent.
    written: Option<Instant>,
    /// A write came after the session had ended elsewhere: other answers have newer cookies.
    late: bool,
    committed: bool,
}

impl Session {
    /// `cookie` is the one that opened the session, if there is one.
    pub(super) fn new(
        bridge: SessionBridge,
        client: ClientId,
        unit: UnitOfWork,
        cookie: Option<SessionCookie>,
    ) -> Self {
        Self::make(bridge, client, unit, cookie, false)
    }

    /// Stands for a session that could not be loaded: empty, and for reading only.
    pub(super) fn unavailable(bridge: SessionBridge, client: ClientId) -> Self {
        Self::make(bridge, client, UnitOfWork::default(), None, true)
    }

    fn make(
        bridge: SessionBridge,
        client: ClientId,
        unit: UnitOfWork,
        cookie: Option<SessionCookie>,
        unavailable: bool,
    ) -> Self {
        let cookie_action = CookieAction::Keep;
        let state = State {
            client,
            unit,
            cookie: cookie_action,
            written: None,
            late: false,
            committed: false,
        };
        Self {
            inner: Arc::new(Inner {
                bridge,
                cookie,
                unavailable,
                state: Mutex::new(state),
                writing: tokio::sync::Mutex::new(()),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>> {
        if self.inner.unavailable {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "this request's could not be loaded, and an empty one for reading takes its place; try again later",
            ));
        }
        let state = self.lock();
        if state.committed {
            return Err(Error::new(
                ErrorKind::Committed,
                "the response is on its way; change sessions in the handler, or by id through the bridge",
            ));
        }
        Ok(state)
    }

    // ---- reading -------------------------------------------------------------------------

    /// The session's id; `None` for a new one until it is stored, and after
    /// [`destroy`](Self::destroy).
    pub fn id(&self) -> Option<SessionId> {
        let state = self.lock();
        state.unit.base.as_ref().filter(|_| !state.unit.destroy).map(|base| base.session_id)
    }

    /// The client that the session belongs to. A commit may change it: after the logout of a
    /// sealed session, and for a request that may not join the session that its client has.
    pub fn client_id(&self) -> ClientId {
        self.lock().client
    }

    /// Whether the session is sealed, as it is stored: see [`rotate`](Self::rotate).
    pub fn is_sealed(&self) -> bool {
        let state = self.lock();
        state.unit.base.as_ref().filter(|_| !state.unit.destroy).is_some_and(|base| base.sealed)
    }

    /// Whether the session is not stored yet.
    #[doc(alias = "isNew")]
    pub fn is_new(&self) -> bool {
        self.id().is_none()
    }

    /// Whether the session could not be loaded, so that this is an empty one for reading only: what
    /// an anonymous visitor would get. Never true unless
    /// [`WhenUnavailable::Anonymous`](crate::bridge::WhenUnavailable::Anonymous) is set, and never
    /// for a request without a session cookie, which has nothing to load.
    pub fn is_unavailable(&self) -> bool {
        self.inner.unavailable
    }

    /// The data with this request's changes.
    pub fn data(&self) -> SessionData {
        self.lock().unit.data.clone()
    }

    /// The value under `key` as a `T`; `None` if there is none.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if the value is no `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.lock().unit.data.get(key)
    }

    /// The whole session as a `T`.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if the data is no `T`; a struct with
    /// `#[serde(default)]` is fit for new sessions.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T> {
        self.lock().unit.data.deserialize()
    }

    /// The session's max age with this request's change.
    #[doc(alias = "maxAge")]
    pub fn max_age(&self) -> MaxAge {
        let state = self.lock();
        let stored = state.unit.base.as_ref().filter(|_| !state.unit.destroy);
        state.unit.max_age.or(stored.map(|base| base.max_age)).unwrap_or_default()
    }

    // ---- changing ------------------------------------------------------------------------

    /// Sets `key`; returns what was there.
    ///
    /// For a value that depends on its old one use [`update`](Self::update): another request may
    /// have set the key since this one read it, and the last one wins.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) if `value` can't be serialized,
    /// [`Committed`](ErrorKind::Committed) after the response.
    pub fn insert<T: Serialize>(&self, key: impl Into<String>, value: T) -> Result<Option<Value>> {
        self.open()?.unit.data.insert(key, value)
    }

    /// Removes `key`; returns what was there.
    ///
    /// # Errors
    /// [`Committed`](ErrorKind::Committed) after the response.
    pub fn remove(&self, key: &str) -> Result<Option<Value>> {
        Ok(self.open()?.unit.data.remove(key))
    }

    /// Replaces all data by a struct or map. The session keeps its id, also if it is empty then.
    ///
    /// # Errors
    /// [`InvalidData`](ErrorKind::InvalidData) for anything that is no JSON object; nothing
    /// changes then. [`Committed`](ErrorKind::Committed) after the response.
    pub fn replace<T: Serialize>(&self, session: T) -> Result<()> {
        let data = SessionData::from_serialize(&session)?;
        self.open()?.unit.data = data;
        Ok(())
    }

    /// Ends the session at the end of the request. Data set afterwards makes a new session with
    /// a new id. The logout of a sealed session also gives the browser a new client id.
    ///
    /// # Errors
    /// [`Committed`](ErrorKind::Committed) after the response.
    #[doc(alias = "ctx.session = null")]
    pub fn destroy(&self) -> Result<()> {
        let mut state = self.open()?;
        let unit = &mut state.unit;
        unit.destroy = unit.base.is_some() || unit.superseded;
        unit.data.clear();
        unit.max_age = None;
        unit.new_id = None;
        unit.save = false;
        Ok(())
    }

    /// Seals the session at the end of the request: a new id, with the data kept, that only this
    /// request's answer gets. Do it when a person logs in or gains rights.
    ///
    /// Until then a session is *open*: requests that come beside its first one may join it, and
    /// every holder of the client cookie can see it by a socket. A sealed session is seen, joined and
    /// changed only with its own cookie:
    ///
    /// - The old id is dead at once. Requests that loaded the session before and write after it
    ///   get [`SessionEnded`](ErrorKind::SessionEnded) (409) and change nothing.
    /// - Its sockets are notified (`sessionDestroy`, reason `sealed`) and disconnected; the page
    ///   connects them again with the new cookie, once it has this answer
    ///   ([`OnRotate`](crate::bridge::OnRotate)).
    /// - Of two requests that rotate at once each gets a sealed session that lives: the second one
    ///   one of its own, under a new client id, made of what it saw.
    /// - In the request that creates the session the session is created sealed.
    ///
    /// A session without data is not stored, and rotating it does nothing.
    ///
    /// # Errors
    /// [`Committed`](ErrorKind::Committed) after the response.
    #[doc(alias = "regenerate")]
    #[doc(alias = "cycle_id")]
    pub fn rotate(&self) -> Result<()> {
        self.open()?.unit.new_id = Some(WantsId::Seal);
        Ok(())
    }

    /// [`rotate`](Self::rotate), but only if the session is not sealed yet.
    ///
    /// # Errors
    /// [`Committed`](ErrorKind::Committed) after the response.
    pub fn seal(&self) -> Result<()> {
        let mut state = self.open()?;
        let stored = state.unit.base.as_ref().filter(|_| !state.unit.destroy);
        if !stored.is_some_and(|base| base.sealed) {
            state.unit.new_id = Some(WantsId::Seal);
        }
        Ok(())
    }

    /// Gives the session a new id at the end of the request, without a change of rights: so that
    /// an id that leaked is of use for a limited time. At a login use [`rotate`](Self::rotate).
    ///
    /// It stays the same session: sockets follow, parallel requests land, and the previous id
    /// opens it for
    /// [`renew_overlap`](crate::bridge::SessionBridgeBuilder::renew_overlap) more. Only requests
    /// that ask for it get the new cookie; of several at once all get the same.
    ///
    /// # Errors
    /// [`Committed`](ErrorKind::Committed) after the response.
    pub fn renew_id(&self) -> Result<()> {
        let mut state = self.open()?;
        state.unit.new_id = state.unit.new_id.max(Some(WantsId::Renew));
        Ok(())
    }

    /// Sets the session's own max age, from the end of the request on.
    ///
    /// # Errors
    /// [`InvalidMaxAge`](ErrorKind::InvalidMaxAge) out of range,
    /// [`Committed`](ErrorKind::Committed) after the response.
    pub fn set_max_age(&self, max_age: impl Into<MaxAge>) -> Result<()> {
        let max_age = max_age.into().validate()?;
        self.open()?.unit.max_age = Some(max_age);
        Ok(())
    }

    // ---- writing -------------------------------------------------------------------------

    /// Writes now instead of at the end of the request, and renews the session even if nothing
    /// changed. Later changes are committed as usual.
    ///
    /// Cancel safe: a write that has begun is finished.
    ///
    /// # Errors
    /// Those of the commit: of the store, [`SessionEnded`](ErrorKind::SessionEnded),
    /// [`Conflict`](ErrorKind::Conflict), [`PayloadTooLarge`](ErrorKind::PayloadTooLarge).
    pub async fn save(&self) -> Result<()> {
        self.open()?.unit.save = true;
        self.write(true).await
    }

    /// Reads the newest data, changes it and writes it, while no other `update` or
    /// `with_session` of this session runs on any node: for values that depend on their old
    /// ones.
    ///
    /// Changes that the request made before are applied first and written with it. An error of
    /// the closure means that nothing is written; it is returned, and what the request changed
    /// before is still committed at its end. For errors of your own: [`try_update`](Self::try_update).
    ///
    /// Cancel safe: if the future is dropped the change is written whole or not at all.
    ///
    /// ```
    /// # async fn handler(session: axum_io_session::Session) -> axum_io_session::Result<()> {
    /// let count = session.update(|data| {
    ///     let count = data.get::<u64>("count")?.unwrap_or(0) + 1;
    ///     data.insert("count", count)?;
    ///     Ok(count)
    /// }).await?;
    /// # let _ = count;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The closure's own, [`WaitTimeout`](ErrorKind::WaitTimeout) or [`Busy`](ErrorKind::Busy) if
    /// the turn did not come, [`Reentrant`](ErrorKind::Reentrant) inside a `with_session` of this
    /// session, and those of [`save`](Self::save).
    pub async fn update<R>(&self, change: impl FnOnce(&mut SessionData) -> Result<R>) -> Result<R> {
        self.try_update(change).await
    }

    /// [`update`](Self::update) for a closure with an error type of its own.
    ///
    /// ```
    /// #[derive(Debug)]
    /// enum Refusal {
    ///     SoldOut,
    ///     Session(axum_io_session::Error),
    /// }
    ///
    /// impl From<axum_io_session::Error> for Refusal {
    ///     fn from(error: axum_io_session::Error) -> Self {
    ///         Self::Session(error)
    ///     }
    /// }
    ///
    /// # async fn handler(session: axum_io_session::Session) -> Result<(), Refusal> {
    /// session.try_update(|data| match data.get::<u64>("left")? {
    ///     Some(left) if left > 0 => Ok(data.insert("left", left - 1)?),
    ///     _ => Err(Refusal::SoldOut),
    /// }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The closure's own, and those of [`update`](Self::update) by `From`.
    pub async fn try_update<R, E: From<Error>>(
        &self,
        change: impl FnOnce(&mut SessionData) -> Result<R, E>,
    ) -> Result<R, E> {
        let _writing = self.inner.writing.lock().await;
        let (client, snapshot) = {
            let state = self.open()?;
            (state.client, state.unit.clone())
        };
        // The closure's own error must not be taken for one of the write.
        let mut refusal = None;
        let change = |data: &mut SessionData| {
            change(data).map_err(|error| {
                refusal = Some(error);
                Error::new(ErrorKind::Handler, "the closure of an update failed")
            })
        };
        let updated = self.inner.bridge.update_unit(client, &snapshot, change).await;
        if let Some(error) = refusal {
            return Err(error);
        }
        let (result, unit, outcome) = self.judged(updated)?;
        self.settle(&snapshot, &unit, outcome);
        Ok(result)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("client", &self.client_id())
            .field("data", &self.data())
            .finish_non_exhaustive()
    }
}

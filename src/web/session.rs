//! A request's session.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::bridge::{Outcome, SessionBridge, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, MaxAge, Record, SessionData, SessionId};

/// A request's session: an extractor.
///
/// Reading and changing work on the request's own copy; what changed is committed after the
/// handler, before the response leaves. Another request that changed other keys meanwhile loses
/// nothing ([`OnConflict`](crate::bridge::OnConflict)); for a value that depends on its old one,
/// such as a counter, use [`update`](Self::update).
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
    client: ClientId,
    started: Instant,
    /// It stands for one that could not be loaded.
    unavailable: bool,
    state: Mutex<State>,
    /// One write at a time; changes go on meanwhile.
    writing: tokio::sync::Mutex<()>,
}

struct State {
    unit: Unit,
    cookie: CookieAction,
    committed: bool,
}

/// What the response does about the session cookie.
#[derive(Debug, Clone)]
pub(super) enum CookieAction {
    Keep,
    Set(Box<Record>),
    Clear,
}

impl Session {
    pub(super) fn new(
        bridge: SessionBridge,
        client: ClientId,
        started: Instant,
        unit: Unit,
    ) -> Self {
        Self::make(bridge, client, started, unit, false)
    }

    /// Stands for a session that could not be loaded: empty, and for reading only.
    pub(super) fn unavailable(bridge: SessionBridge, client: ClientId, started: Instant) -> Self {
        Self::make(bridge, client, started, Unit::default(), true)
    }

    fn make(
        bridge: SessionBridge,
        client: ClientId,
        started: Instant,
        unit: Unit,
        unavailable: bool,
    ) -> Self {
        let state = State { unit, cookie: CookieAction::Keep, committed: false };
        Self {
            inner: Arc::new(Inner {
                bridge,
                client,
                started,
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

    /// The client that the session belongs to.
    pub fn client_id(&self) -> ClientId {
        self.inner.client
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
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T> {
        self.lock().unit.data.to()
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
    /// a new id.
    ///
    /// # Errors
    /// [`Committed`](ErrorKind::Committed) after the response.
    #[doc(alias = "ctx.session = null")]
    pub fn destroy(&self) -> Result<()> {
        let mut state = self.open()?;
        let unit = &mut state.unit;
        unit.destroy = unit.base.is_some();
        unit.data.clear();
        unit.max_age = None;
        unit.rotate = false;
        unit.save = false;
        Ok(())
    }

    /// Gives the session a new id at the end of the request, with its data kept: do it when a
    /// person logs in or gains rights. The old id is dead at once, and open sockets follow.
    ///
    /// # Errors
    /// [`Committed`](ErrorKind::Committed) after the response.
    #[doc(alias = "regenerate")]
    pub fn rotate(&self) -> Result<()> {
        self.open()?.unit.rotate = true;
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
        self.write().await
    }

    /// Reads the newest data, changes it and writes it, while no other `update` or
    /// `with_session` of this session runs on any node: for values that depend on their old
    /// ones.
    ///
    /// Changes that the request made before are applied first and written with it. What the
    /// closure changed is written whatever it returns: look before you change.
    ///
    /// Cancel safe: if the future is dropped the change is written whole or not at all.
    ///
    /// ```
    /// # async fn handler(session: axum_io_session::Session) -> axum_io_session::Result<()> {
    /// let count = session.update(|data| {
    ///     let count = data.get::<u64>("count")?.unwrap_or(0) + 1;
    ///     data.insert("count", count)?;
    ///     axum_io_session::Result::Ok(count)
    /// }).await??;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WaitTimeout`](ErrorKind::WaitTimeout) or [`Busy`](ErrorKind::Busy) if the turn did not
    /// come, [`Reentrant`](ErrorKind::Reentrant) inside a `with_session` of this session, and
    /// those of [`save`](Self::save).
    pub async fn update<R>(&self, change: impl FnOnce(&mut SessionData) -> R) -> Result<R> {
        let _writing = self.inner.writing.lock().await;
        let snapshot = self.open()?.unit.clone();
        let since = self.since();
        let bridge = &self.inner.bridge;
        let (result, unit, outcome) =
            bridge.update_unit(self.inner.client, &snapshot, since, change).await?;
        self.settle(&snapshot, unit, outcome);
        Ok(result)
    }

    /// The commit at the end of the request.
    pub(super) async fn commit(&self) -> Result<()> {
        if self.inner.unavailable {
            // What nobody could read is not renewed, and every change was refused.
            return Ok(());
        }
        self.lock().committed = true;
        self.write().await
    }

    async fn write(&self) -> Result<()> {
        let _writing = self.inner.writing.lock().await;
        let snapshot = self.lock().unit.clone();
        let bridge = &self.inner.bridge;
        let written = bridge.commit_unit(self.inner.client, &snapshot, self.since()).await;
        match written {
            Ok(outcome) => {
                self.settle(&snapshot, snapshot.clone(), outcome);
                Ok(())
            }
            Err(error) => {
                if error.kind() == ErrorKind::SessionEnded {
                    self.plan_cookie(CookieAction::Clear);
                }
                Err(error)
            }
        }
    }

    fn since(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Takes over what was written, below the changes made since the write began.
    fn settle(&self, snapshot: &Unit, written: Unit, outcome: Outcome) {
        let mut state = self.lock();
        let since = snapshot.data.changes_to(&state.unit.data);
        let mut next = match outcome {
            Outcome::Unchanged => written,
            Outcome::Stored { record, own } => {
                if own {
                    state.cookie = CookieAction::Set(Box::new(record.clone()));
                }
                Unit::new(Some(record))
            }
            Outcome::Gone => {
                state.cookie = CookieAction::Clear;
                Unit::default()
            }
        };
        next.save = false;
        next.data.apply(&since);
        // What was asked for while the write was under way is still to be done.
        if !snapshot.destroy && state.unit.destroy {
            next.destroy = next.base.is_some();
        }
        if !snapshot.rotate && state.unit.rotate {
            next.rotate = true;
        }
        if snapshot.max_age != state.unit.max_age {
            next.max_age = state.unit.max_age;
        }
        state.unit = next;
    }

    pub(super) fn plan_cookie(&self, action: CookieAction) {
        self.lock().cookie = action;
    }

    pub(super) fn cookie_action(&self) -> CookieAction {
        self.lock().cookie.clone()
    }

    pub(super) fn base(&self) -> Option<Box<Record>> {
        self.lock().unit.base.clone().map(Box::new)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("client", &self.inner.client)
            .field("data", &self.data())
            .finish_non_exhaustive()
    }
}

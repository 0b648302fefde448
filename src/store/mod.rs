//! The contract of a single-node session store, and two stores that keep it.
//!
//! A store holds sessions by id and knows nothing of cookies, clients, locks or events: the
//! bridge adds those, for any store. Use [`LiveStore`] (memory) or [`FileStore`] (one file), or
//! implement [`SessionStore`].

#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
#[cfg(feature = "file-store")]
mod file;
mod live;
mod text;

use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::BoxError;
use crate::session::{ClientId, Generation, MaxAge, SessionId};

#[cfg(feature = "file-store")]
#[cfg_attr(docsrs, doc(cfg(feature = "file-store")))]
pub use file::FileStore;
pub use live::LiveStore;
pub use text::SessionText;

/// Milliseconds since the Unix epoch, as records count them.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A session as a store keeps it. It serializes to one JSON object.
///
/// A store that keeps records of its own making needs only the first three fields; the others
/// have defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredSession {
    /// The data as JSON text. A text that is no JSON object ends the session when it is read.
    pub session: SessionText,
    /// When it expires: milliseconds since the Unix epoch. Missing counts as expired.
    #[serde(default)]
    pub expires_at: u64,
    /// Time to live that the last write gave, in milliseconds.
    #[serde(default)]
    pub ttl: u64,
    /// When it was created: milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_at: u64,
    /// Number of writes.
    #[serde(default)]
    pub version: u64,
    /// Tells the session from its client's other ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The client it belongs to. A record without one goes to the first client that presents
    /// its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// The session's own max age.
    #[serde(default)]
    pub max_age: MaxAge,
    /// Whether the session is sealed: see [`Record::sealed`](crate::session::Record::sealed).
    #[serde(default)]
    pub sealed: bool,
    /// The ids that the session had before, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<StoredPreviousId>,
}

/// An id that a stored session had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredPreviousId {
    /// The id.
    pub id: SessionId,
    /// Until when it opens the session: milliseconds since the Unix epoch.
    pub until: u64,
}

impl StoredPreviousId {
    /// An id that opens the session until then.
    pub fn new(id: SessionId, until: u64) -> Self {
        Self { id, until }
    }
}

impl StoreEntry {
    /// An entry.
    pub fn new(id: SessionId, expires_at: u64) -> Self {
        Self { id, expires_at }
    }
}

impl StoredSession {
    /// A record with data, expiry and time to live; the rest has its defaults.
    pub fn new(session: impl Into<SessionText>, expires_at: u64, ttl: u64) -> Self {
        Self {
            session: session.into(),
            expires_at,
            ttl,
            created_at: expires_at.saturating_sub(ttl),
            version: 1,
            generation: None,
            client_id: None,
            max_age: MaxAge::Default,
            sealed: false,
            previous: Vec::new(),
        }
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetOutcome {
    /// There was no live record under this id.
    Created,
    /// A live record was overwritten.
    Updated,
}

/// One entry of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreEntry {
    /// The session.
    pub id: SessionId,
    /// When it expires: milliseconds since the Unix epoch.
    pub expires_at: u64,
}

/// The result of a store's operation: its own error, boxed, reaches the caller as
/// [`source`](std::error::Error::source).
pub type StoreResult<T> = Result<T, BoxError>;

/// A place that keeps sessions of one node.
///
/// Implement it with `async fn`s. A blocking store wraps its work in
/// [`tokio::task::spawn_blocking`]. Each call is atomic by itself; the bridge never calls two
/// writes of one session at once, so a store needs no locks across calls.
///
/// The suite in `store::conformance` (feature `conformance`) checks an implementation.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use axum_io_session::SessionId;
/// use axum_io_session::store::{SessionStore, SetOutcome, StoreResult, StoredSession};
///
/// #[derive(Default)]
/// struct Memory(Mutex<HashMap<SessionId, StoredSession>>);
///
/// impl SessionStore for Memory {
///     async fn get(&self, id: &SessionId) -> StoreResult<Option<StoredSession>> {
///         Ok(self.0.lock().unwrap().get(id).cloned())
///     }
///     async fn set(&self, id: &SessionId, session: StoredSession) -> StoreResult<SetOutcome> {
///         Ok(match self.0.lock().unwrap().insert(*id, session) {
///             None => SetOutcome::Created,
///             Some(_) => SetOutcome::Updated,
///         })
///     }
///     async fn destroy(&self, id: &SessionId) -> StoreResult<bool> {
///         Ok(self.0.lock().unwrap().remove(id).is_some())
///     }
/// }
/// ```
pub trait SessionStore: Send + Sync + 'static {
    /// Reads a record. An expired one may be returned or not: the bridge never serves it.
    fn get(
        &self,
        id: &SessionId,
    ) -> impl Future<Output = StoreResult<Option<StoredSession>>> + Send;

    /// Writes a record, whole. Once this returns `Ok` the record is kept as durably as the store
    /// promises.
    fn set(
        &self,
        id: &SessionId,
        session: StoredSession,
    ) -> impl Future<Output = StoreResult<SetOutcome>> + Send;

    /// Removes a record. `false` if there was none.
    fn destroy(&self, id: &SessionId) -> impl Future<Output = StoreResult<bool>> + Send;

    /// Moves the expiry without rewriting the data. `false` if there is no record.
    ///
    /// Default: reads the record and writes it back.
    fn touch(
        &self,
        id: &SessionId,
        expires_at: u64,
        ttl: u64,
    ) -> impl Future<Output = StoreResult<bool>> + Send {
        async move {
            let Some(mut session) = self.get(id).await? else {
                return Ok(false);
            };
            session.expires_at = expires_at;
            session.ttl = ttl;
            self.set(id, session).await?;
            Ok(true)
        }
    }

    /// Up to `limit` records in the order of their ids, beginning after `after`. Expired records
    /// are included. An empty list is the end.
    ///
    /// Default: `None`, "this store can't list", and then
    /// [`cleanup`](crate::SessionBridge::cleanup) is an error.
    fn list(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> impl Future<Output = StoreResult<Option<Vec<StoreEntry>>>> + Send {
        let _ = (after, limit);
        async { Ok(None) }
    }

    /// The newest record of a client. It finds a client's session that this process has not yet
    /// seen, for instance after a restart.
    ///
    /// Default: `None`; then such a session is found once its cookie comes.
    fn find_by_client(
        &self,
        client: &ClientId,
    ) -> impl Future<Output = StoreResult<Option<SessionId>>> + Send {
        let _ = client;
        async { Ok(None) }
    }

    /// Called once after a cleanup with the number of records it removed: a chance to compact.
    fn optimize(&self, cleared: u64) -> impl Future<Output = StoreResult<()>> + Send {
        let _ = cleared;
        async { Ok(()) }
    }

    /// Called at shutdown, after the last operation.
    fn close(&self) -> impl Future<Output = StoreResult<()>> + Send {
        async { Ok(()) }
    }
}

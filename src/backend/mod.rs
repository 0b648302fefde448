//! What the bridge asks of the place where sessions live.
//!
//! A [`Backend`] keeps records, the mapping between clients and sessions, leases, and tells of
//! every change and end. Each operation that has to be atomic is one method, so that a backend
//! can do it in one step wherever its data is. [`local`] makes a backend of any
//! [`SessionStore`](crate::store::SessionStore).
//!
//! Everything is keyed by *client*: a client has at most one session, its lease outlives a
//! change of the session's id, and it can be taken before there is a session.

#[cfg(feature = "conformance")]
pub mod conformance;
mod lease_queue;
pub mod local;
mod on_drop;
#[cfg(feature = "redis")]
pub mod redis;
mod types;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::error::Result;
use crate::session::{ClientId, Generation, NodeId, SessionId};

pub use types::{
    Acquired, BackendConfig, BackendEvent, Commit, Committed, Create, Created, DestroyTarget,
    LeaseToken, Loaded, NewId, NodeInfo, NodeStats, SessionSnapshot,
};

/// The place where sessions live.
///
/// Shared by all parts of a bridge. Methods may be called from any task at once. Unless a method
/// says otherwise its future can be dropped at any time: the operation then either happens whole
/// or not at all, and whatever it did is told as usual.
///
/// # Errors
/// [`Store`](crate::ErrorKind::Store) with the cause if the store fails, and
/// [`Unavailable`](crate::ErrorKind::Unavailable) if it can't be reached in time or
/// [`shutdown`](Self::shutdown) has begun.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The node that events of this backend name.
    fn node(&self) -> &NodeId;

    /// Reads the first live session that one of these ids opens, in their order. Takes no lock.
    ///
    /// `hint` is the client that presented the ids. A record that names no client goes to it; a
    /// record of another client stays with that client. The first load of a stored session that
    /// no client is attached to attaches it and tells
    /// `SessionSet { is_new: false, is_init: true }`.
    async fn load(&self, sessions: &[SessionId], hint: Option<&ClientId>) -> Result<Loaded>;

    /// Creates a client's session, unless it has one: it never ends or replaces a live one.
    ///
    /// A session that the client already has is returned as [`Created::Exists`] if it may be
    /// joined (see [`Create::join`]): the creators of one client, all at the same moment, end in
    /// one session. Else the answer is [`Created::Occupied`].
    async fn create(&self, create: Create) -> Result<Created>;

    /// Writes data, max age or a new id to a session that is still what the caller read.
    ///
    /// In one step: checks that the session has neither ended nor been sealed, that the lease (if
    /// any) is still the caller's, and that the version is the one given; writes; renews the time
    /// to live; tells one `SessionSet`, and for [`NewId::Seal`] the end of the old one before.
    async fn commit(&self, commit: Commit) -> Result<Committed>;

    /// Renews the time to live without rewriting the data. Tells nothing. `None` if the session
    /// has ended.
    async fn touch(
        &self,
        client: &ClientId,
        generation: Generation,
    ) -> Result<Option<crate::session::Record>>;

    /// Ends a session and tells why. `false` if there was none. Does not wait for a lease: the
    /// holder's commit is refused.
    async fn destroy(&self, target: DestroyTarget) -> Result<bool>;

    /// Waits for the client's lease, at most `wait`, and reads its session with it.
    ///
    /// Leases are granted in the order of the calls. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// [`WaitTimeout`](crate::ErrorKind::WaitTimeout) after `wait`,
    /// [`Busy`](crate::ErrorKind::Busy) if too many wait.
    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired>;

    /// Extends a lease to its full length from now. `false` if it is no longer the caller's.
    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool>;

    /// Gives a lease back, and so to the next in line. Never blocks; a lease that can't be given
    /// back runs out by itself. Does nothing if it is no longer the caller's.
    fn release(&self, client: &ClientId, lease: LeaseToken);

    /// The client's live session.
    async fn session_of(&self, client: &ClientId) -> Result<Option<SessionId>>;

    /// The client that a live session belongs to.
    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>>;

    /// The client's session as far as this node knows without asking: exact on a single node,
    /// and for clients that are [watched](Self::watch).
    fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot>;

    /// Whether all sessions are in this process, so that [`cached_session`](Self::cached_session)
    /// is exact for all clients. Default: `false`.
    fn is_local(&self) -> bool {
        false
    }

    /// Begins to follow a client, as it has a socket here, and reads its live session, if there is
    /// one: no change falls in between. Balanced by [`unwatch`](Self::unwatch), unless it fails or
    /// the future is dropped.
    async fn watch(&self, client: &ClientId) -> Result<Option<crate::session::Record>>;

    /// Ends one [`watch`](Self::watch).
    fn unwatch(&self, client: &ClientId);

    /// All that happens from now on, on any node, in the same order per session everywhere.
    fn subscribe(&self) -> broadcast::Receiver<BackendEvent>;

    /// Removes the expired records that are still there, tells their ends and a `Cleanup`, and
    /// returns their number.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the store can't list.
    async fn cleanup(&self) -> Result<u64>;

    /// Whether [`cleanup`](Self::cleanup) can work.
    async fn can_clean_up(&self) -> Result<bool>;

    /// Tells of a direct change of the store as if this bridge had made it. Unattached ids are
    /// ignored.
    async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()>;

    /// Tells of a direct removal from the store as if this bridge had made it. Unattached ids
    /// are ignored.
    async fn notify_destroy(&self, session: &SessionId) -> Result<()>;

    /// Tells of a cleanup that the store did itself.
    fn notify_cleanup(&self, cleared: u64);

    /// Says to the other nodes that this one is there, and how it is. A node that has not for a
    /// while (15 seconds in Redis) counts as gone.
    async fn heartbeat(&self, figures: &NodeStats) -> Result<()>;

    /// The nodes that are there, this one included once it has [said so](Self::beat), by name.
    async fn nodes(&self) -> Result<Vec<NodeInfo>>;

    /// Whether operations would work now.
    async fn health(&self) -> Result<()>;

    /// Entries that this backend holds in memory, by name: for figures and leak tests.
    fn table_sizes(&self) -> Vec<(&'static str, usize)>;

    /// Refuses new operations, finishes those that run, and ends all tasks. Further calls do
    /// nothing.
    async fn shutdown(&self);
}

//! The storage and coordination backend.
//!
//! A [`Backend`] keeps records, the mapping between clients and sessions, and leases, and publishes
//! every change and end. Each operation that has to be atomic is one method, so that a backend
//! can do it in one step wherever its data is. [`local`] makes a backend of any
//! [`SessionStore`](crate::store::SessionStore).
//!
//! A backend of your own implements the required methods of the trait. What a create and a commit
//! make of a session is the same everywhere: [`Create::record`], [`Commit::revise`] and
//! [`BackendEvent::committed`] say it, [`Record::later`](crate::session::Record::later) ages what was
//! read, and a [`LeaseQueue`] is a client's lease within one process. The suite in
//! `backend::conformance` (feature `conformance`) checks it; `examples/custom_backend` passes it.
//!
//! Everything is keyed by *client*: a client has at most one session, its lease outlives a
//! change of the session's id, and it can be taken before there is a session.

#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
mod deadlines;
mod event;
pub(crate) mod lease_queue;
pub mod local;
mod node;
mod on_drop;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis;
mod token;
mod types;

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::error::{Error, ErrorKind, Result};
use crate::session::{Cleanup, ClientId, Generation, NodeId, SessionEvent, SessionId, SessionSet};

pub use event::BackendEvent;
pub use lease_queue::LeaseQueue;
pub use node::{NodeInfo, NodeStats};
pub use token::{InvalidToken, LeaseToken};
pub use types::{
    Acquired, BackendConfig, Commit, Committed, Create, Created, DestroyTarget, Loaded, NewId,
    Revision, SessionSnapshot,
};

/// The storage and coordination backend of a bridge.
///
/// Implement it with [`async_trait`](https://docs.rs/async-trait). Shared by all parts of a bridge. Methods may be called from any task at once. Unless a method
/// says otherwise its future can be dropped at any time: the operation then either happens whole
/// or not at all, and what it did is published as usual.
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
    /// no client is attached to attaches it and publishes
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
    /// to live; publishes one `SessionSet`, and for [`NewId::Seal`] the end of the old one before.
    async fn commit(&self, commit: Commit) -> Result<Committed>;

    /// Renews the time to live without rewriting the data. Publishes nothing. `None` if the
    /// session has ended.
    async fn touch(
        &self,
        client: &ClientId,
        generation: Generation,
    ) -> Result<Option<crate::session::Record>>;

    /// Ends a session and publishes why. `false` if there was none. Does not wait for a lease: the
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

    /// The client's live session, in one step: a client whose session gets a new id has one at every
    /// moment. Default: by [`watch`](Self::watch).
    async fn record_of(&self, client: &ClientId) -> Result<Option<crate::session::Record>> {
        let record = self.watch(client).await?;
        self.unwatch(client);
        Ok(record)
    }

    /// The id of the client's live session. Default: by [`record_of`](Self::record_of).
    async fn session_of(&self, client: &ClientId) -> Result<Option<SessionId>> {
        Ok(self.record_of(client).await?.map(|record| record.session_id))
    }

    /// The client that a live session belongs to. Default: by [`load`](Self::load).
    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        Ok(match self.load(std::slice::from_ref(session), None).await? {
            Loaded::Found(record) => Some(record.client_id),
            Loaded::Missing { .. } => None,
        })
    }

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

    /// All that happens from now on, on any node, in the same order per session everywhere. As far
    /// as [`listen_to_all`](Self::listen_to_all) says.
    fn subscribe(&self) -> broadcast::Receiver<BackendEvent>;

    /// Sets whether [`subscribe`](Self::subscribe) brings the events of all clients, or only those of
    /// [watched](Self::watch) ones and those that concern no client. A new backend brings all. Returns
    /// once it does; `false` only saves work, so a backend may ignore it. Default: all events in any
    /// case.
    async fn listen_to_all(&self, _all: bool) -> Result<()> {
        Ok(())
    }

    /// Sends an event to the subscribers of all nodes, without a change. Never blocks. The provided
    /// `notify_*` methods need it: a backend implements this one or overrides those. Default: the
    /// event is lost.
    fn publish(&self, _event: BackendEvent) {}

    /// Removes the expired records that are still there, publishes their ends and a `Cleanup`, and
    /// returns their number. Default: not supported.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the store can't list.
    async fn cleanup(&self) -> Result<u64> {
        Err(Error::new(ErrorKind::Unsupported, "this backend removes expired sessions by itself"))
    }

    /// Whether [`cleanup`](Self::cleanup) can work. Default: `false`.
    async fn can_clean_up(&self) -> Result<bool> {
        Ok(false)
    }

    /// Publishes a direct change of the store as if this bridge had made it. Unattached ids are
    /// ignored. Default: by [`load`](Self::load) and [`publish`](Self::publish).
    async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        let Loaded::Found(record) = self.load(std::slice::from_ref(session), None).await? else {
            return Ok(());
        };
        let (client, node) = (record.client_id, self.node().clone());
        let set = SessionSet::new(client, record.session_id, is_new, is_new, node);
        self.publish(BackendEvent { version: None, ..BackendEvent::change(set, &record) });
        Ok(())
    }

    /// Publishes a direct removal from the store as if this bridge had made it. Unattached ids
    /// are ignored. Default: by [`destroy`](Self::destroy).
    async fn notify_destroy(&self, session: &SessionId) -> Result<()> {
        self.destroy(DestroyTarget::Session(*session)).await.map(drop)
    }

    /// Publishes a cleanup that the store did itself. Default: by [`publish`](Self::publish).
    fn notify_cleanup(&self, cleared: u64) {
        let event = SessionEvent::Cleanup(Cleanup::new(cleared, self.node().clone()));
        self.publish(BackendEvent::plain(event));
    }

    /// Announces that this node is alive, with its figures. A node that has not done so for a
    /// while (15 seconds in Redis) counts as gone. Default: nothing.
    async fn heartbeat(&self, _figures: &NodeStats) -> Result<()> {
        Ok(())
    }

    /// The live nodes by name, this one included after its first [`heartbeat`](Self::heartbeat).
    /// Default: not supported.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if this backend has no list of nodes.
    async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        Err(Error::new(ErrorKind::Unsupported, "this backend has no list of nodes"))
    }

    /// Whether operations would work now, writes included. Default: whether a [`load`](Self::load)
    /// does.
    async fn health(&self) -> Result<()> {
        self.load(&[SessionId::generate()], None).await.map(drop)
    }

    /// Entries that this backend holds in memory, by name: for figures and leak tests. Default:
    /// none.
    fn table_sizes(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }

    /// Refuses new operations, finishes those that run, and ends all tasks. Further calls do
    /// nothing.
    async fn shutdown(&self);
}

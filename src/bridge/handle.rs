//! The handle.

mod by_id;
mod cleanup;
mod leased;
mod lifecycle;
mod listeners;

use std::fmt;
#[cfg(feature = "ws")]
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::commit;
use super::connection::{self, Connection, Seen};
use super::core::Core;
use super::engines::EngineConnection;
use super::options::Options;
use super::stats::{Anomaly, Counters};
use super::unit_of_work::{Outcome, UnitOfWork};
use super::watch::Watch;
use crate::backend::Backend;
use crate::error::Result;
use crate::session::{ClientId, NodeId, SessionData};

/// One session for HTTP and sockets: the handle to everything.
///
/// A cheap clone, without type parameters, for every part of an application. Make one with
/// [`builder`](Self::builder) and end it with [`shutdown`](Self::shutdown); when the last clone
/// is dropped its tasks end too, without waiting for what runs.
///
/// The session layer comes from [`layer`](Self::layer), sockets are attached by
/// [`attach`](crate::socket::attach), and the rest of the methods work with sessions by id.
#[derive(Clone)]
pub struct SessionBridge {
    core: Arc<Core>,
}

impl SessionBridge {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The name of this node in events.
    pub fn node(&self) -> &NodeId {
        self.core.backend.node()
    }

    /// Whether both are handles of one bridge.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    pub(crate) fn options(&self) -> &Options {
        &self.core.options
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.core.backend
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Whether a [`drain`](Self::drain) has begun.
    pub fn is_draining(&self) -> bool {
        self.core.draining.is_cancelled()
    }

    /// Whether a shutdown has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.core.stopping.is_cancelled()
    }

    /// Counts an anomaly and traces it, without the id.
    pub(crate) fn anomaly(&self, anomaly: Anomaly) {
        self.core.counters.anomaly(anomaly);
        tracing::debug!(anomaly = anomaly.as_str(), "unusual session cookie");
    }

    /// Commits a unit of work. `cookie` is how long the request's cookie still lives, if that is
    /// known, and `may_renew` whether an unchanged session may be renewed.
    pub(crate) async fn commit_unit(
        &self,
        client: ClientId,
        unit: &UnitOfWork,
        cookie: Option<Duration>,
        may_renew: bool,
    ) -> Result<Outcome> {
        commit::commit(&self.core, client, unit, cookie, may_renew).await
    }

    /// Reads, changes and writes a unit's session under the lease. Returns the unit as it was
    /// written, too. An error of `change` means that nothing is written.
    pub(crate) async fn update_unit<R>(
        &self,
        client: ClientId,
        unit: &UnitOfWork,
        change: impl FnOnce(&mut SessionData) -> Result<R>,
    ) -> Result<(R, UnitOfWork, Outcome)> {
        commit::update(&self.core, client, unit, change).await
    }

    /// Begins to follow a client, for a socket that is about to be attached.
    pub(crate) async fn watch(&self, client: ClientId) -> Result<Watch<'_>> {
        Watch::begin(&self.core, client).await
    }

    /// Attaches a connection to what its request sees.
    pub(crate) async fn connect(&self, seen: Seen) -> Result<Connection> {
        connection::connect(&self.core, seen).await
    }

    /// Runs the handler of a connection until it is done or the bridge closes, and what closes the
    /// connection to its end, for which a shutdown waits.
    #[cfg(feature = "ws")]
    pub(crate) async fn run_connection(
        &self,
        handler: impl Future<Output = ()>,
        closer: impl Future<Output = ()>,
    ) {
        let handler = async {
            tokio::select! {
                biased;
                () = handler => {}
                () = self.core.closing.cancelled() => {}
            }
        };
        self.core.tasks.track_future(async { tokio::join!(handler, closer) }).await;
    }

    /// Begins an Engine.IO connection, unless too many wait for their socket.
    pub(crate) fn begin_engine(
        &self,
        client: ClientId,
        cookieless: bool,
    ) -> Option<Arc<EngineConnection>> {
        self.core.engines.begin(client, cookieless)
    }

    /// Whether this is an Engine.IO connection that the layer admitted.
    pub(crate) fn knows_engine(&self, id: &str) -> bool {
        self.core.engines.knows(id)
    }

    /// Whether a request with this client cookie may name this Engine.IO connection.
    pub(crate) fn admits_engine(&self, id: &str, client: Option<ClientId>) -> bool {
        self.core.engines.admits(id, client)
    }
}

impl fmt::Debug for SessionBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBridge")
            .field("node", self.node())
            .field("options", &self.core.options)
            .finish_non_exhaustive()
    }
}

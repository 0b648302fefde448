//! The life of a bridge: start, state and shutdown.

use super::SessionBridge;
use crate::backend::NodeInfo;
use crate::bridge::builder::SessionBridgeBuilder;
use crate::bridge::connection;
use crate::bridge::stats::Stats;
use crate::bridge::{drain, start};
use crate::error::Result;

impl SessionBridge {
    /// Begins a new bridge.
    pub fn builder() -> SessionBridgeBuilder {
        SessionBridgeBuilder::new()
    }

    /// Figures since the start, and what is held now.
    pub fn stats(&self) -> Stats {
        let mut tables = self.core.backend.table_sizes();
        tables.push(("engines", self.core.engines.len()));
        tables.push(("turn_lines", self.core.turns.len()));
        tables.push(("write_groups", self.core.combiner.len()));
        self.core.counters.stats(self.core.sockets.len(), tables)
    }

    /// The live nodes, this one included, by name, each with figures that are at most a few
    /// seconds old. A node that has stopped is gone at once, one that died after at most 15
    /// seconds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> axum_io_session::Result<()> {
    /// let bridge = axum_io_session::SessionBridge::builder().node_id("a").build().await?;
    /// let nodes = bridge.nodes().await?;
    /// assert_eq!(nodes[0].node.as_str(), "a");
    /// # bridge.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the others can't be asked for now.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        self.core.backend.nodes().await
    }

    /// Whether sessions can be read and written now. Redis is asked to write a key of no meaning, for
    /// it may answer reads and refuse writes: when it is full, or a replica. A store of one node is
    /// asked for a read.
    ///
    /// # Errors
    /// Why not.
    pub async fn health(&self) -> Result<()> {
        self.core.backend.health().await
    }

    /// Sends this node's sockets to others, before a [`shutdown`](Self::shutdown).
    ///
    /// From now on `/readyz` is 503, and so is the answer to Engine.IO requests that begin a connection,
    /// or belong to one of another node, with `Retry-After`. Attached sockets get the message
    /// [`moving`](crate::bridge::SocketMessages::moving()), one after the other over four fifths of
    /// [`drain_window`](crate::bridge::SessionBridgeBuilder::drain_window). The connections of those that are
    /// still here at its end are closed, so that clients come back by themselves, to another node. Streams and
    /// plain WebSockets end in their turn. All else works as before.
    ///
    /// It is over when no socket is left, which is at once on a node that has none. Calls after the
    /// first wait for the same end. `serve(..).with_bridge(&bridge)` does it all at the signal.
    pub async fn drain(&self) {
        drain::drain(&self.core).await;
    }

    /// Ends what [`Session::until_end`](crate::Session::until_end) and
    /// [`Session::cancellation`](crate::Session::cancellation) watch, and plain WebSockets, now and from
    /// now on, with [`SessionEnd::Shutdown`](crate::SessionEnd::Shutdown). All else goes on.
    ///
    /// A server that ends gracefully waits for its streams: call this where it learns that it is to end.
    /// [`shutdown`](Self::shutdown) does it, too.
    ///
    /// ```
    /// # async fn serve(bridge: axum_io_session::SessionBridge, app: axum::Router,
    /// #     listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// let leaving = bridge.clone();
    /// let signal = async move {
    ///     let _ = tokio::signal::ctrl_c().await;
    ///     leaving.close_connections();
    /// };
    /// axum::serve(listener, app.into_make_service()).with_graceful_shutdown(signal).await?;
    /// bridge.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn close_connections(&self) {
        connection::close_all(&self.core);
    }

    /// Stops: no new leases are given, handlers that run may finish and write, then all new
    /// operations are refused as [`Unavailable`](crate::ErrorKind::Unavailable), tasks end, and
    /// event streams end. Calling it again does nothing. Handlers get 10 seconds, what is
    /// written then another 40.
    pub async fn shutdown(&self) {
        start::shut_down(&self.core).await;
    }
}

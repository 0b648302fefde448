//! Which nodes are there.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::{Inner, SessionBridge};
use crate::backend::{NodeInfo, NodeStats};
use crate::error::Result;

/// How often a node says that it is there.
const BEAT: Duration = Duration::from_secs(5);

impl SessionBridge {
    /// The nodes that are there now, this one included, by name, each with the figures it gave at
    /// most a few seconds ago. A node that has stopped is gone at once, one that died after at
    /// most 15 seconds.
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
        self.inner.backend.nodes().await
    }

    /// Says that this node is there.
    pub(super) async fn heartbeat(&self) -> Result<()> {
        self.inner.backend.heartbeat(&self.inner.figures()).await
    }
}

impl Inner {
    fn figures(&self) -> NodeStats {
        let stats = self.counters.stats(self.attachments.len(), Vec::new());
        NodeStats {
            uptime_seconds: self.started.elapsed().as_secs(),
            sockets: u64::try_from(stats.sockets).unwrap_or(u64::MAX),
            requests: stats.requests,
            created: stats.created,
            commits: stats.commits,
            leases: stats.leases,
            events: stats.events,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Says now and then that this node is there, until the bridge closes.
pub(super) async fn beats(bridge: Weak<Inner>, closing: CancellationToken) {
    let mut next = Instant::now() + BEAT;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = closing.cancelled() => return,
        }
        next = Instant::now() + BEAT;
        let Some(inner) = bridge.upgrade() else { return };
        if let Err(error) = (SessionBridge { inner }).heartbeat().await {
            tracing::debug!(%error, "this node could not say that it is there");
        }
    }
}

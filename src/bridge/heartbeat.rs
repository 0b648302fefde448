//! The node's heartbeat, by which the others know that it is alive.

use std::sync::Weak;
use std::time::Duration;

use super::core::Core;
use crate::backend::NodeStats;
use crate::error::Result;

/// Between two heartbeats.
const INTERVAL: Duration = Duration::from_secs(5);

/// Publishes this node's heartbeat with its figures.
pub(super) async fn heartbeat(core: &Core) -> Result<()> {
    core.backend.heartbeat(&node_stats(core)).await
}

fn node_stats(core: &Core) -> NodeStats {
    let stats = core.counters.stats(core.sockets.len(), Vec::new());
    NodeStats {
        uptime_seconds: core.started.elapsed().as_secs(),
        sockets: u64::try_from(stats.sockets).unwrap_or(u64::MAX),
        requests: stats.requests,
        created: stats.created,
        commits: stats.commits,
        leases: stats.leases,
        events: stats.events,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Publishes a heartbeat at each interval, until the bridge is gone.
pub(super) async fn heartbeat_loop(core: Weak<Core>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(core) = core.upgrade() else { return };
        if let Err(error) = heartbeat(&core).await {
            tracing::debug!(%error, "this node's heartbeat failed");
        }
    }
}

//! Nodes that are alive.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::session::NodeId;

/// The figures that a node publishes with its heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeStats {
    /// Seconds since its bridge was built.
    pub uptime_seconds: u64,
    /// Sockets that are attached now.
    pub sockets: u64,
    /// HTTP requests that passed its layer.
    pub requests: u64,
    /// Sessions that it created.
    pub created: u64,
    /// Writes that it made.
    pub commits: u64,
    /// Leases that it was granted.
    pub leases: u64,
    /// Events that it delivered to its listeners.
    pub events: u64,
    /// The version of this crate that it runs.
    pub version: String,
}

/// A live node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its name.
    pub node: NodeId,
    /// The figures of its last heartbeat.
    pub figures: NodeStats,
    /// Time since that heartbeat.
    #[serde(rename = "seenMs", serialize_with = "as_millis")]
    pub seen: Duration,
}

impl NodeInfo {
    /// A node whose last heartbeat had these figures and came this long ago.
    pub fn new(node: NodeId, figures: NodeStats, seen: Duration) -> Self {
        Self { node, figures, seen }
    }
}

fn as_millis<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

//! Node registry, maintained by heartbeats.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::Value;
use serde::{Deserialize, Serialize};

use crate::backend::redis::context::Context;
use crate::backend::redis::script::argument::millis;
use crate::backend::{NodeInfo, NodeStats};
use crate::error::Result;
use crate::session::NodeId;

/// What the registry holds of a node.
#[derive(Serialize, Deserialize)]
struct Entry {
    node: String,
    stats: NodeStats,
}

/// The nodes that share a prefix, each by its instance.
pub(super) struct Registry {
    context: Arc<Context>,
}

impl Registry {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Enters this node for `life`; zero removes it.
    pub(super) async fn heartbeat(&self, stats: &NodeStats, life: Duration) -> Result<()> {
        let Context { config, instance, keys, commands, .. } = &*self.context;
        let entry = Entry { node: config.node.as_str().to_owned(), stats: stats.clone() };
        let entry = serde_json::to_string(&entry).unwrap_or_default();
        let arguments: Vec<Value> =
            vec![instance.as_str().into(), millis(life).into(), entry.into()];
        let reply = commands.run(&commands.scripts.heartbeat, keys.registry(), arguments).await?;
        commands.observe(&reply);
        Ok(())
    }

    /// The nodes that live, by name. `life` is what their heartbeats ask for.
    pub(super) async fn nodes(&self, life: Duration) -> Result<Vec<NodeInfo>> {
        let Context { keys, commands, .. } = &*self.context;
        let reply = commands.run(&commands.scripts.nodes, keys.registry(), Vec::new()).await?;
        let mut nodes: Vec<NodeInfo> = reply
            .items()
            .chunks_exact(2)
            .filter_map(|pair| {
                let left = Duration::from_millis(pair[0].as_u64()?);
                let entry: Entry = serde_json::from_str(&pair[1].as_bytes_str()?).ok()?;
                let node = NodeId::new(&entry.node).ok()?;
                Some(NodeInfo::new(node, entry.stats, life.saturating_sub(left)))
            })
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(nodes)
    }
}

//! Who is there: each node says so now and then.

use std::time::Duration;

use fred::prelude::Value;
use serde::{Deserialize, Serialize};

use crate::backend::redis::context::{Shared, millis};
use crate::backend::{NodeInfo, NodeStats};
use crate::error::Result;
use crate::session::NodeId;

#[derive(Serialize, Deserialize)]
struct Said {
    node: String,
    figures: NodeStats,
}

impl Shared {
    fn registry(&self) -> Vec<fred::types::Key> {
        self.keys.registry().into_iter().map(Into::into).collect()
    }

    /// Says that this node is there, for `life`; zero says goodbye.
    pub(super) async fn heartbeat(&self, figures: &NodeStats, life: Duration) -> Result<()> {
        let said = Said { node: self.config.node.as_str().to_owned(), figures: figures.clone() };
        let text = serde_json::to_string(&said).unwrap_or_default();
        let arguments: Vec<Value> =
            vec![self.instance.as_str().into(), millis(life).into(), text.into()];
        let reply = self.link.run(&self.link.scripts.heartbeat, self.registry(), arguments).await?;
        self.link.observe(&reply);
        Ok(())
    }

    pub(super) async fn nodes(&self, life: Duration) -> Result<Vec<NodeInfo>> {
        let reply = self.link.run(&self.link.scripts.nodes, self.registry(), Vec::new()).await?;
        let mut nodes: Vec<NodeInfo> = reply
            .items()
            .chunks_exact(2)
            .filter_map(|pair| {
                let left = Duration::from_millis(pair[0].as_u64()?);
                let said: Said = serde_json::from_str(&pair[1].as_bytes_str()?).ok()?;
                let node = NodeId::new(&said.node).ok()?;
                Some(NodeInfo::new(node, said.figures, life.saturating_sub(left)))
            })
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(nodes)
    }
}

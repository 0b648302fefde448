//! Nodes that share one Redis.

use std::ops::{Index, IndexMut};

use crate::browser::Browser;
use crate::node::Node;
use crate::redis::Redis;

/// The prefix of a cluster's keys.
pub const PREFIX: &str = "t";

/// The signing key of a cluster's nodes.
pub const KEY: &str = "a-key-of-tests-that-is-long-enough";

/// Flags with which sockets stay connected when their session is sealed or ends.
pub const STAY: [&str; 4] = ["--on-destroy", "notify", "--on-rotate", "follow"];

/// Nodes with one signing key over one Redis, named `n0`, `n1` and so on, with probes.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts `count` nodes with these flags.
    ///
    /// # Panics
    /// As [`Node::start`].
    pub fn start(redis: &Redis, count: usize, flags: &[&str]) -> Self {
        Self::start_at(&vec![redis.url(); count], flags)
    }

    /// Starts a node for each URL, by which it reaches the one Redis.
    ///
    /// # Panics
    /// As [`Node::start`].
    pub fn start_at(redis_urls: &[String], flags: &[&str]) -> Self {
        Self::start_with(redis_urls, flags, &[])
    }

    /// [`start_at`](Self::start_at) with variables in the nodes' environment.
    ///
    /// # Panics
    /// As [`Node::start`].
    pub fn start_with(redis_urls: &[String], flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let start = |(at, url): (usize, &String)| {
            let name = format!("n{at}");
            let fixed =
                ["--redis", url, "--node", &name, "--prefix", PREFIX, "--probes", "--keys", KEY];
            Node::start_with(&[&fixed, flags].concat(), variables)
        };
        Self { nodes: redis_urls.iter().enumerate().map(start).collect() }
    }

    /// Where the nodes listen.
    pub fn urls(&self) -> Vec<&str> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// A new browser profile, whose requests go to the nodes in turn.
    pub fn browser(&self) -> Browser {
        Browser::new(&self.urls())
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Stops all nodes in order.
    ///
    /// # Panics
    /// As [`Node::stop`].
    pub fn stop(self) {
        for node in self.nodes {
            node.stop();
        }
    }
}

impl Index<usize> for Cluster {
    type Output = Node;
    fn index(&self, at: usize) -> &Node {
        &self.nodes[at]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }
}

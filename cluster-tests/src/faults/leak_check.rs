//! What nodes and Redis must not keep of a load that is over.

use std::time::{Duration, Instant};

use super::testbed::Testbed;
use crate::browser::Browser;
use crate::cluster::PREFIX;
use crate::wait::until;

/// Nodes notice by then that sockets are gone.
const NOTICED: Duration = Duration::from_secs(60);
/// How long a session's end can still be named, and half of that for a slow machine.
const GRACE: Duration = Duration::from_secs(90);
/// A request that asks for figures is a task or two itself.
const ASKING: usize = 4;
const MEGABYTE: u64 = 1024 * 1024;
/// Memory may be in pieces, and each thread keeps some.
const SLACK: u64 = 6 * MEGABYTE;
/// Keys that are there as long as a node is.
const STANDING: [&str; 3] = ["{nodes}:h", "{nodes}:z", "{sweep}:leader"];

/// Figures of nodes from before, to compare with.
#[derive(Debug)]
pub struct LeakCheck {
    tasks: usize,
    memory: Option<u64>,
}

impl LeakCheck {
    /// Looks at nodes without any load.
    ///
    /// # Panics
    /// If one does not answer.
    pub fn idle(testbed: &Testbed) -> Self {
        let memory: Vec<_> = testbed.cluster.nodes().iter().map(crate::Node::memory).collect();
        println!("idle: {memory:?}");
        let tasks = testbed.cluster.urls().into_iter().map(tasks).max();
        Self { tasks: tasks.expect("nodes"), memory: None }
    }

    /// Looks at the memory of nodes that are under load: what they need for it is needed.
    ///
    /// # Panics
    /// If one is gone.
    pub fn warm(&mut self, testbed: &Testbed) {
        let memory: Vec<_> = testbed.cluster.nodes().iter().map(crate::Node::memory).collect();
        println!("under load: {memory:?}");
        self.memory = memory.into_iter().max();
    }

    /// The load is over, and all sockets and sessions with it: nothing of them is left, a while
    /// after the life of sessions that nobody knows of, for their beginning was not acknowledged.
    ///
    /// # Panics
    /// If anything is.
    pub fn is_none(&self, testbed: &Testbed, life: Duration) {
        let most = self.memory.expect("looked at under load") * 9 / 8 + SLACK;
        for node in testbed.cluster.nodes() {
            let url = node.url();
            let tables = || {
                let stats = Browser::new(&[url]).get("/monitor/stats").ok().json["stats"].take();
                let tables = stats["tables"].as_object().expect("tables").clone();
                let sizes = tables.values().map(|size| size.as_u64().expect("a number"));
                let all = sizes.sum::<u64>() + stats["sockets"].as_u64().expect("a number");
                (all == 0).then_some(())
            };
            until("the tables are empty", NOTICED, tables);
            let few = || (tasks(url) <= self.tasks + ASKING).then_some(());
            until(&format!("no more than {} tasks", self.tasks + ASKING), NOTICED, few);
            let memory = node.memory();
            println!("{url}: {} tasks, {memory} bytes of {most}", tasks(url));
            assert!(memory <= most, "{url} has {memory} bytes, and {most} would do");
        }
        let redis = testbed.redis();
        let all = format!("{PREFIX}:*");
        let others = || {
            let mut keys = redis.scan(&all);
            keys.retain(|key| !STANDING.iter().any(|name| key.ends_with(name)));
            keys
        };
        let deadline = Instant::now() + 2 * life + GRACE;
        while Instant::now() < deadline && !others().is_empty() {
            std::thread::sleep(Duration::from_millis(500));
        }
        let left = others();
        assert!(left.is_empty(), "{} keys are left of the load: {left:#?}", left.len());
    }
}

fn tasks(url: &str) -> usize {
    let answer = Browser::new(&[url]).get("/probe/tasks").ok();
    answer.json.as_u64().and_then(|count| usize::try_from(count).ok()).expect("a number")
}

//! What a node needs that does nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use cluster_tests::{Cluster, Redis};

#[test]
fn an_idle_node_keeps_no_room_for_messages_on_connections_that_hear_none() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 1, &[]);
    let memory = cluster[0].memory() / (1024 * 1024);
    // One connection hears; the room of each further one would be 10 MB.
    println!("{memory} MB");
    assert!(memory < 40, "{memory} MB");
}

//! What a node needs that does nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend as _, BackendConfig};
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

/// The memory of this process, in bytes.
fn own_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_waits_for_replicas_takes_less_than_a_megabyte() {
    const CONNECTIONS: usize = 16;
    let redis = Redis::start();
    let place = || RedisConfig::new(redis.url()).pool_size(CONNECTIONS);
    let (mut before, mut needs) = (own_memory(), Vec::new());
    let waits = place().wait_for_replicas(1, Duration::from_millis(100));
    let mut backends = Vec::new();
    for place in [place(), waits] {
        backends.push(RedisBackend::connect(place, BackendConfig::default()).await.unwrap());
        let now = own_memory();
        needs.push(now.saturating_sub(before));
        before = now;
    }
    // The second has as many connections once more.
    let each = needs[1].saturating_sub(needs[0]) / CONNECTIONS;
    println!("{needs:?} bytes: {each} for each connection");
    assert!(each < 1024 * 1024, "{needs:?} bytes: {each} for each connection");
    for backend in backends {
        backend.shutdown().await;
    }
}

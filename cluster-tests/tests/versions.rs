//! The oldest and the newest servers do what the machine's own does.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use cluster_tests::{Cluster, LOCAL_SERVER, Redis, RedisOptions, STAY, fetched_server, run_js};

/// The contract of the backend, then three nodes with the real client.
fn works_with(program: &str, version: &str) {
    let redis = RedisOptions::new().program(program).start();
    assert!(is_version(&redis, version), "{}", redis.cli(&["INFO", "server"]));
    support::keeps_the_contract(&redis.url());
    let cluster = Cluster::start(&redis, 3, &STAY);
    run_js("http.mjs", &cluster.urls());
    run_js("events.mjs", &cluster.urls());
    cluster.stop();
}

/// Valkey tells of a Redis version too, that it is compatible with.
fn is_version(redis: &Redis, version: &str) -> bool {
    let info = redis.cli(&["INFO", "server"]);
    info.lines().any(|line| line.starts_with(version))
}

#[test]
fn redis_6_2_the_oldest_works() {
    works_with(&fetched_server("redis-6.2"), "redis_version:6.2.");
}

#[test]
fn the_local_redis_works() {
    works_with(LOCAL_SERVER, "redis_version:");
}

#[test]
fn redis_8_2_works() {
    works_with(&fetched_server("redis-8.2"), "redis_version:8.2.");
}

#[test]
fn valkey_9_1_works() {
    works_with(&fetched_server("valkey-9.1"), "valkey_version:9.1.");
}

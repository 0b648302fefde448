//! The commands of one lease keep their order.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::time::Duration;

use axum_io_session::ClientId;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig};
use cluster_tests::{Redis, until};

const WAIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn an_acquire_whose_caller_goes_away_leaves_no_lease_behind() {
    let redis = Redis::start();
    let mut config = BackendConfig::default();
    // One that stays would stay for longer than the test.
    config.lease_duration = Duration::from_secs(600);
    let place = RedisConfig::new(redis.url()).pool_size(8);
    let node = RedisBackend::connect(place, config).await.unwrap();
    let clients: Vec<ClientId> = (0..400).map(|_| ClientId::generate()).collect();
    let mut gone = 0;
    for client in &clients {
        // Long enough for the command to be on its way, and too short for its answer.
        let acquired = tokio::time::timeout(Duration::ZERO, node.acquire(client, WAIT)).await;
        match acquired {
            Ok(acquired) => node.release(client, acquired.unwrap().lease),
            Err(_) => gone += 1,
        }
    }
    let keys: Vec<String> =
        clients.iter().map(|client| format!("io-session:{{{}}}:l", client.as_str())).collect();
    let exist: Vec<&str> = ["EXISTS"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    until("no lease is held", Duration::from_secs(20), || (redis.cli(&exist) == "0").then_some(()));
    assert!(gone > 0, "every answer was faster");
    node.shutdown().await;
}

//! The Redis backend keeps the contract that every backend keeps.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, BackendConfig, conformance};
use cluster_tests::{Redis, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_backend_keeps_the_contract() {
    let redis = Redis::start();
    let count = AtomicUsize::new(0);
    conformance::check(async |config| {
        let prefix = format!("t{}", count.fetch_add(1, Ordering::Relaxed));
        let place = RedisConfig::new(redis.url()).prefix(prefix).pool_size(1);
        Arc::new(RedisBackend::connect(place, config).await.unwrap()) as Arc<dyn Backend>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_left_by_a_backend_that_was_shut_down_or_only_dropped() {
    let redis = Redis::start();
    // One is this very look.
    let connections = || redis.cli(&["CLIENT", "LIST"]).trim().lines().count() - 1;
    assert_eq!(connections(), 0);
    for shut_down in [true, false] {
        let place = RedisConfig::new(redis.url()).pool_size(3);
        let backend = RedisBackend::connect(place, BackendConfig::default()).await.unwrap();
        assert_eq!(connections(), 4);
        if shut_down {
            backend.shutdown().await;
        }
        drop(backend);
        until("all connections are closed", Duration::from_secs(20), || {
            (connections() == 0).then_some(())
        });
    }
}

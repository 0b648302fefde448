//! The Redis backend keeps the contract that every backend keeps.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, conformance};
use cluster_tests::Redis;

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

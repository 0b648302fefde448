//! What the tests of several kinds of Redis share.
#![allow(dead_code)] // each test file uses a part of it

pub(crate) mod races;
pub(crate) mod replicas;
pub(crate) mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum_io_session::backend::redis::{RedisBackend, RedisConfig};
use axum_io_session::backend::{Backend, conformance};

/// Checks the contract that every backend keeps, at the Redis of this URL.
pub(crate) fn keeps_the_contract(url: &str) {
    keeps_the_contract_with(|prefix| RedisConfig::new(url).prefix(prefix));
}

/// The same with more than a URL: `config` is given a prefix.
pub(crate) fn keeps_the_contract_with(config: impl Fn(String) -> RedisConfig) {
    let count = AtomicUsize::new(0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(conformance::check(async |options| {
        let place = config(format!("t{}", count.fetch_add(1, Ordering::Relaxed))).pool_size(1);
        Arc::new(RedisBackend::connect(place, options).await.unwrap()) as Arc<dyn Backend>
    }));
}

//! What every backend has to do: a suite for authors of a [`Backend`].
//!
//! It assumes neither one process nor exact times: where something takes its time, it waits
//! with a generous limit. Run it in a test of your own:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::sync::Arc;
//! use axum_io_session::backend::{Backend, conformance, local::LocalBackend};
//! use axum_io_session::store::LiveStore;
//!
//! conformance::check(async |config| {
//!     Arc::new(LocalBackend::new(LiveStore::new(), config)) as Arc<dyn Backend>
//! })
//! .await;
//! # }
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used)] // a suite fails by panicking

mod ends;
mod identity;
mod leases;
mod records;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::{Backend, BackendConfig};
use world::{LIMIT, World};

/// Runs all checks, each on a fresh, empty backend from `make` that follows the given
/// configuration. The checks run side by side, for many of them have to wait; the backends must
/// not disturb each other.
///
/// # Panics
/// With all rules that the backend breaks.
pub async fn check(make: impl AsyncFn(BackendConfig) -> Arc<dyn Backend>) {
    let failed = failures(make).await;
    let list = failed.join("\n  ");
    assert!(failed.is_empty(), "the backend breaks {} rules:\n  {list}", failed.len());
}

/// Runs all checks like [`check`], and returns the rules that the backend breaks.
pub async fn failures(make: impl AsyncFn(BackendConfig) -> Arc<dyn Backend>) -> Vec<String> {
    let all = [records::checks(), identity::checks(), leases::checks(), ends::checks()];
    let runs = all.into_iter().flatten().map(async |check| {
        let mut config = BackendConfig::default();
        (check.config)(&mut config);
        let backend = make(config.clone()).await;
        let world = World { published: backend.subscribe().into(), backend, config };
        let run = AssertUnwindSafe((check.run)(&world)).catch_unwind();
        let failure = match tokio::time::timeout(2 * LIMIT, run).await {
            Ok(Ok(())) => None,
            Ok(Err(panic)) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Some(format!("{}: {}", check.rule, text.unwrap_or("it panicked")))
            }
            Err(_) => Some(format!("{}: it hangs", check.rule)),
        };
        world.backend.shutdown().await;
        failure
    });
    futures_util::future::join_all(runs).await.into_iter().flatten().collect()
}

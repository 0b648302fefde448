//! Which sessions sockets see: open ones until they are sealed, sealed ones only with their cookie.
//! Each test runs over both embedded stores, with real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

/// Makes of each of these functions, which take an `Over`, one test in memory and one over a file.
macro_rules! over_both_stores {
    ($($name:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&crate::ground::Over::memory()).await;
            })*
        }
        mod in_a_file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&crate::ground::Over::file()).await;
            })*
        }
    };
}

#[path = "sealed_sockets/ends.rs"]
mod ends;
#[path = "sealed_sockets/follow.rs"]
mod follow;
#[path = "sealed_sockets/ground.rs"]
mod ground;
#[path = "sealed_sockets/handlers.rs"]
mod handlers;
#[path = "sealed_sockets/handshakes.rs"]
mod handshakes;
#[path = "sealed_sockets/login.rs"]
mod login;
#[path = "sealed_sockets/pairing.rs"]
mod pairing;
#[path = "sealed_sockets/told.rs"]
mod told;

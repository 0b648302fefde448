//! Who gets which session: open and sealed ones, first requests at once, late cookies, and races.
//! Each test runs over both embedded stores.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

/// Makes of each of these functions, which take a `Place`, one test in memory and one over a file.
macro_rules! over_both_stores {
    ($($name:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::place::Place::in_memory()).await;
            })*
        }
        mod in_a_file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::place::Place::in_a_file()).await;
            })*
        }
    };
}

#[path = "sealed/client_cookie.rs"]
mod client_cookie;
#[path = "sealed/ends.rs"]
mod ends;
#[path = "sealed/joins.rs"]
mod joins;
#[path = "sealed/late.rs"]
mod late;
#[path = "sealed/options.rs"]
mod options;
#[path = "sealed/place.rs"]
mod place;
#[path = "sealed/races.rs"]
mod races;
#[path = "sealed/renewed.rs"]
mod renewed;
#[path = "sealed/rotation.rs"]
mod rotation;

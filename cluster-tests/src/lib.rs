//! Runs real nodes (processes of `examples/node`) and what talks to them: the real
//! socket.io-client on Node.js, and Chromium.
//!
//! Everything here is for tests: it panics with a sentence instead of returning an error.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test fails by panicking

mod js;
mod node;
mod redis;
mod wait;

pub use js::{chromium, run_js, run_js_with};
pub use node::Node;
pub use redis::{Connection, Redis, RedisOptions, Reply};
pub use wait::until;

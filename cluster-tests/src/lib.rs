//! Runs real nodes (processes of `examples/node`) and what talks to them: the real
//! socket.io-client on Node.js, and Chromium.
//!
//! Everything here is for tests: it panics with a sentence instead of returning an error.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test fails by panicking

mod browser;
mod certificates;
mod checker;
mod cluster;
mod event_recorder;
pub mod faults;
mod history;
mod js;
mod model;
mod network;
mod node;
mod program;
mod proxy;
mod random;
mod redis;
mod servers;
mod sockets;
mod wait;

pub use browser::{Answer, Browser};
pub use certificates::Certificates;
pub use checker::{assert_same, assert_sound, by_session};
pub use cluster::{Cluster, KEY, PREFIX, STAY};
pub use event_recorder::{EventRecorder, RecordedEvent};
pub use history::{History, Totals, WriteOutcome};
pub use js::{chromium, run_js, run_js_with};
pub use model::{Act, Model, Outcome};
pub use network::Namespace;
pub use node::Node;
pub use program::Program;
pub use proxy::{Loss, Proxy};
pub use random::Random;
pub use redis::{
    Connection, Monitor, Redis, RedisCluster, RedisOptions, Refusal, Reply, Sentinels, free_port,
};
pub use servers::{LOCAL_SERVER, fetched_server};
pub use sockets::{Message, Socket, Sockets};
pub use wait::until;

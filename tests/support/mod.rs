//! What the tests share: an HTTP client with a cookie jar, a store with switches, a small
//! Socket.IO client.
#![allow(dead_code, unreachable_pub)] // each test program uses its part
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

pub mod app;
pub mod faulty;
pub mod http;
pub mod probe;
pub mod sio;
pub mod world;

use std::time::Duration;

use axum_io_session::bridge::SessionEvents;
use axum_io_session::{SessionBridge, SessionEvent};

/// Every wait of a test ends by then.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A key that is long enough.
pub const KEY: &str = "a test key of at least thirty-two bytes";
pub const OTHER_KEY: &str = "another test key, thirty-two bytes or so";

/// A bridge with defaults.
pub async fn bridge() -> SessionBridge {
    SessionBridge::builder().signing_keys([KEY]).node_id("test").build().await.unwrap()
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waiting).await.is_ok(), "never happened: {what}");
}

/// The next event.
pub async fn next(events: &mut SessionEvents) -> SessionEvent {
    let item = tokio::time::timeout(LIMIT, events.recv()).await.expect("an event in time");
    item.expect("an open stream").expect("no lag")
}

/// All events that are there by now: a cleanup notice marks the end.
pub async fn so_far(bridge: &SessionBridge, events: &mut SessionEvents) -> Vec<SessionEvent> {
    bridge.notify_store_cleanup(u64::MAX);
    let mut all = Vec::new();
    loop {
        match next(events).await {
            SessionEvent::Cleanup(event) if event.cleared == u64::MAX => return all,
            event => all.push(event),
        }
    }
}

//! A bridge that falls behind its backend tells sockets what they missed, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::net::SocketAddr;

use axum::Router;
use axum_io_session::bridge::{Lagged, OnDestroy};
use axum_io_session::socket::attach;
use axum_io_session::{DestroyReason, SessionBridge, SessionEvent, SessionId, bridge_session};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use std::time::Duration;
use support::app::app;
use support::http::Browser;
use support::sio::{Client, serve};
use support::{KEY, until};

/// The smallest buffer that a bridge takes.
const CAPACITY: usize = 16;

struct World {
    bridge: SessionBridge,
    app: Router,
    address: SocketAddr,
}

async fn world(on_destroy: OnDestroy) -> World {
    let builder =
        SessionBridge::builder().signing_keys([KEY]).node_id("n").event_capacity(CAPACITY);
    let bridge = builder.on_destroy(on_destroy).build().await.unwrap();
    let (layer, io) = SocketIo::new_layer();
    let connected = async |socket: SocketRef| {
        socket.on("sync", async |ack: AckSender| drop(ack.send(&Value::Null)));
    };
    io.ns("/", connected.with(attach));
    let app = bridge_session(app(&bridge), layer, &bridge);
    World { address: serve(app.clone()).await, bridge, app }
}

impl World {
    async fn seeded(&self) -> (Browser, SessionId) {
        let mut browser = Browser::new();
        let heard = self.bridge.stats().events;
        browser.post(&self.app, "/merge", r#"{"n":1}"#).await;
        // Its task has its turn when this one waits for something.
        until("the bridge hears of it", async || self.bridge.stats().events > heard).await;
        let id = browser.get(&self.app, "/id").await.body.parse().unwrap();
        (browser, id)
    }

    async fn open(&self, browser: &Browser) -> Client {
        let mut socket = Client::connect(self.address, &browser.cookie_header()).await;
        socket.call("sync", Value::Null).await;
        socket
    }

    /// Ends a session in such a crowd of others that the bridge misses it.
    async fn end_unheard(&self, id: &SessionId) {
        self.end_in_a_crowd(id, None).await;
    }

    /// Ends one session that the bridge misses, and one that it hears of.
    async fn end_in_a_crowd(&self, first: &SessionId, last: Option<&SessionId>) {
        let mut ids = vec![*first];
        for _ in 0..CAPACITY * 3 {
            ids.push(self.seeded().await.1);
        }
        ids.extend(last);
        let missed = self.bridge.stats().events_missed;
        // All at once, on one thread: the bridge's own task has its turn behind them.
        let ends = ids.iter().map(|id| self.bridge.destroy_by_id(id));
        for ended in futures_util::future::join_all(ends).await {
            assert!(ended.unwrap());
        }
        until("the bridge falls behind", async || self.bridge.stats().events_missed > missed).await;
    }
}

#[tokio::test]
async fn sockets_hear_of_an_end_that_the_bridge_missed_and_those_without_a_session_hear_nothing() {
    let world = world(OnDestroy::Notify).await;
    let (browser, id) = world.seeded().await;
    let (other, _) = world.seeded().await;
    let mut ends = world.open(&browser).await;
    let mut lives = world.open(&other).await;
    let mut nobody = world.open(&Browser::new()).await;
    let mut half = other.clone();
    half.jar.remove("sid");
    let mut half = world.open(&half).await;
    world.end_unheard(&id).await;
    let told = json!({"reason": "reconciled", "node": "n"});
    assert_eq!(ends.events_before("sync").await, [("sessionDestroy".into(), told)]);
    let told = json!({"isNew": false, "isInit": false, "node": "n"});
    assert_eq!(lives.events_before("sync").await, [("sessionSet".into(), told)]);
    assert!(nobody.events_before("sync").await.is_empty(), "it had no session that could end");
    assert!(half.events_before("sync").await.is_empty(), "it may not see the client's session");
    // Once is enough.
    let (_, unrelated) = world.seeded().await;
    world.end_unheard(&unrelated).await;
    assert!(ends.events_before("sync").await.is_empty());
}

#[tokio::test]
async fn a_missed_end_is_followed_by_what_the_policy_says() {
    let world_of_nothing = world(OnDestroy::Nothing).await;
    let (browser, id) = world_of_nothing.seeded().await;
    let mut socket = world_of_nothing.open(&browser).await;
    world_of_nothing.end_unheard(&id).await;
    assert!(socket.events_before("sync").await.is_empty());

    let grace = Duration::from_millis(50);
    let world = world(OnDestroy::Disconnect { grace }).await;
    let (browser, id) = world.seeded().await;
    let (other, _) = world.seeded().await;
    let mut lives = world.open(&other).await;
    let mut nobody = world.open(&Browser::new()).await;
    let mut goes = world.open(&browser).await;
    world.end_unheard(&id).await;
    assert_eq!(goes.event().await.0, "sessionDestroy", "it is told first");
    goes.until_disconnected().await;
    until("it is detached", async || world.bridge.stats().sockets == 2).await;
    for socket in [&mut lives, &mut nobody] {
        socket.call("sync", Value::Null).await;
    }
}

#[tokio::test]
async fn a_gap_is_an_item_of_the_stream_and_no_end_is_told_twice() {
    let world = world(OnDestroy::Notify).await;
    let (missed_browser, missed) = world.seeded().await;
    let (heard_browser, heard) = world.seeded().await;
    let mut missed_socket = world.open(&missed_browser).await;
    let mut heard_socket = world.open(&heard_browser).await;
    let mut events = world.bridge.events();
    world.end_in_a_crowd(&missed, Some(&heard)).await;
    for (socket, reason) in [(&mut missed_socket, "reconciled"), (&mut heard_socket, "destroyed")] {
        let told = json!({"reason": reason, "node": "n"});
        assert_eq!(socket.events_before("sync").await, [("sessionDestroy".into(), told)]);
    }
    world.bridge.notify_store_cleanup(77);
    let (mut gaps, mut ends) = (0, Vec::new());
    loop {
        match events.recv().await.unwrap() {
            Err(Lagged(_)) => gaps += 1,
            Ok(SessionEvent::Destroy(end)) => ends.push((end.session_id, end.reason)),
            Ok(SessionEvent::Cleanup(_)) => break,
            Ok(_) => {}
        }
    }
    assert!(gaps > 0, "never silent");
    ends.retain(|(id, _)| [missed, heard].contains(id));
    let expected = [(heard, DestroyReason::Destroyed), (missed, DestroyReason::Reconciled)];
    assert_eq!(ends, expected);
}

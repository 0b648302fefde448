//! What a handshake brings along, and what a socket sees of its client's sessions later.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum_io_session::bridge::{Handshake, OnDestroy};
use axum_io_session::socket::attach;
use axum_io_session::store::SessionStore as _;
use axum_io_session::{
    ClientId, Error, SessionBridge, SessionEvent, SessionId, SocketSessionExt as _, bridge_session,
};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use support::app::app;
use support::http::Browser;
use support::probe::ProbeStore;
use support::sio::{Client, serve};
use support::{KEY, so_far, until};
use tokio::sync::Semaphore;

struct World {
    bridge: SessionBridge,
    app: Router,
    address: SocketAddr,
    /// A permit lets one `held` handler go on.
    gate: Arc<Semaphore>,
}

async fn world(store: ProbeStore) -> World {
    // Sockets outlive their sessions here, to see what becomes of their calls.
    let builder = SessionBridge::builder().signing_keys([KEY]).on_destroy(OnDestroy::Notify);
    let bridge = builder.store(store).build().await.unwrap();
    let (layer, io) = SocketIo::new_layer();
    let gate = Arc::new(Semaphore::new(0));
    let events = {
        let gate = gate.clone();
        async move |socket: SocketRef| {
            add_events(&socket, &gate);
            Ok::<(), Infallible>(())
        }
    };
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));
    let app = bridge_session(app(&bridge), layer, &bridge);
    World { address: serve(app.clone()).await, bridge, app, gate }
}

fn add_events(socket: &SocketRef, gate: &Arc<Semaphore>) {
    let answer = |result: Result<Value, Error>| match result {
        Ok(data) => json!({ "ok": data }),
        Err(error) => json!({ "error": format!("{:?}", error.kind()) }),
    };
    socket.on("get", async move |socket: SocketRef, ack: AckSender| {
        let data = socket.with_session(|session| async move { session.data().to_value() });
        let _ = ack.send(&answer(data.await));
    });
    let gate = gate.clone();
    socket.on("held", move |socket: SocketRef, ack: AckSender| {
        let gate = gate.clone();
        async move {
            let held = socket.try_with_session(|session| async move {
                gate.acquire().await.unwrap().forget();
                session.insert("held", true)?;
                Ok(session.data().to_value())
            });
            let _ = ack.send(&answer(held.await));
        }
    });
    socket.on("too-much", async move |socket: SocketRef, ack: AckSender| {
        let much = socket.with_session(|session| async move {
            session.insert("much", "x".repeat(2 << 20)).unwrap();
            Value::Null
        });
        let _ = ack.send(&answer(much.await));
    });
}

impl World {
    async fn seeded(&self, body: &str) -> Browser {
        let mut browser = Browser::new();
        browser.post(&self.app, "/merge", body).await;
        browser
    }

    async fn open(&self, browser: &Browser) -> Client {
        Client::connect(self.address, &browser.cookie_header()).await
    }

    async fn told(&self, events: &mut axum_io_session::bridge::SessionEvents) -> Vec<SessionEvent> {
        so_far(&self.bridge, events).await
    }
}

// ---- the handshake -------------------------------------------------------------------------

#[tokio::test]
async fn a_handshake_by_polling_sets_and_rolls_the_client_cookie() {
    let world = world(ProbeStore::new()).await;
    let mut browser = Browser::new();
    let uri = "/socket.io/?EIO=4&transport=polling";
    let opened = browser.get(&world.app, uri).await;
    assert_eq!(opened.status, StatusCode::OK, "{}", opened.body);
    assert!(opened.body.starts_with('0'), "it is Socket.IO's answer: {}", opened.body);
    assert!(opened.set_cookie("sid.cid").is_some() && opened.set_cookie("sid").is_none());
    let id = browser.get(&world.app, "/client").await.body;
    let again = browser.get(&world.app, uri).await;
    assert!(again.set_cookie("sid.cid").is_some());
    assert_eq!(browser.get(&world.app, "/client").await.body, id);
}

#[tokio::test]
async fn a_handshake_whose_cookies_do_not_verify_is_a_new_client_without_a_session() {
    let world = world(ProbeStore::new()).await;
    let browser = world.seeded(r#"{"n":1}"#).await;
    let mut forged = browser.clone();
    for value in forged.jar.values_mut() {
        value.replace_range(..1, if value.starts_with('A') { "B" } else { "A" });
    }
    let mut socket = world.open(&forged).await;
    assert_eq!(socket.call("get", Value::Null).await, json!({"error": "SessionMissing"}));
    assert!(socket.set_cookies.iter().any(|line| line.starts_with("sid.cid=")));
    assert!(!socket.set_cookies.iter().any(|line| line.starts_with("sid=")), "it is left alone");
}

#[tokio::test]
async fn a_handshake_is_an_extractor_that_costs_no_store_trip() {
    async fn who(handshake: Handshake, client: ClientId) -> String {
        assert_eq!(handshake.client_id(), client);
        assert!(!handshake.bridge().node().as_str().is_empty());
        handshake.presented_sessions().iter().map(SessionId::as_str).collect()
    }
    let store = ProbeStore::new();
    let world = world(store.clone()).await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let id = browser.get(&world.app, "/id").await.body;
    let reads = store.reads();
    let router = Router::new().route("/", axum::routing::get(who)).layer(world.bridge.layer());
    assert_eq!(browser.get(&router, "/").await.body, id);
    assert_eq!(store.reads(), reads);
}

// ---- the sessions --------------------------------------------------------------------------

#[tokio::test]
async fn after_a_restart_a_socket_that_comes_first_attaches_its_session_and_tells_it_once() {
    let store = ProbeStore::new();
    let before = world(store.clone()).await;
    let mut browser = before.seeded(r#"{"n":1}"#).await;
    let id = browser.get(&before.app, "/id").await.body;
    let world = world(store).await;
    let mut events = world.bridge.events();
    let mut sockets = [world.open(&browser).await, world.open(&browser).await];
    for socket in &mut sockets {
        assert_eq!(socket.call("get", Value::Null).await, json!({"ok": {"n": 1}}));
    }
    assert_eq!(browser.get(&world.app, "/read").await.json()["id"], id);
    match &world.told(&mut events).await[..] {
        [SessionEvent::Set(set)] => {
            assert_eq!((set.is_new, set.is_init), (false, true));
            assert_eq!(set.session_id.as_str(), id);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_that_waited_works_on_the_session_that_its_client_has_by_then() {
    let world = world(ProbeStore::new()).await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let (mut holder, mut waiter) = (world.open(&browser).await, world.open(&browser).await);
    let leases = world.bridge.stats().leases;
    let held = tokio::spawn(async move { holder.call("held", Value::Null).await });
    until("the first holds the session", async || world.bridge.stats().leases > leases).await;
    let waited = tokio::spawn(async move { waiter.call("held", Value::Null).await });
    browser.post(&world.app, "/logout", "").await;
    browser.post(&world.app, "/merge", r#"{"next":1}"#).await;
    world.gate.add_permits(2);
    assert_eq!(held.await.unwrap(), json!({"error": "SessionEnded"}));
    assert_eq!(waited.await.unwrap(), json!({"ok": {"next": 1, "held": true}}));
    let seen = browser.get(&world.app, "/read").await.json();
    assert_eq!(seen["data"], json!({"next": 1, "held": true}));
}

#[tokio::test]
async fn a_call_that_waited_while_the_session_ended_is_missing() {
    let world = world(ProbeStore::new()).await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let (mut holder, mut waiter) = (world.open(&browser).await, world.open(&browser).await);
    let leases = world.bridge.stats().leases;
    let held = tokio::spawn(async move { holder.call("held", Value::Null).await });
    until("the first holds the session", async || world.bridge.stats().leases > leases).await;
    let waited = tokio::spawn(async move { waiter.call("held", Value::Null).await });
    browser.post(&world.app, "/logout", "").await;
    world.gate.add_permits(2);
    assert_eq!(held.await.unwrap(), json!({"error": "SessionEnded"}));
    assert_eq!(waited.await.unwrap(), json!({"error": "SessionMissing"}));
    assert_eq!(browser.get(&world.app, "/id").await.body, "");
}

#[tokio::test]
async fn a_session_that_gets_unreadable_is_missing_on_sockets_and_they_are_told() {
    let store = ProbeStore::new();
    let world = world(store.clone()).await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let mut socket = world.open(&browser).await;
    let id = browser.get(&world.app, "/id").await.body.parse().unwrap();
    let mut stored = store.live.get(&id).await.unwrap().unwrap();
    stored.session = "no json".into();
    store.live.set(&id, stored).await.unwrap();
    for _ in 0..2 {
        assert_eq!(socket.call("get", Value::Null).await, json!({"error": "SessionMissing"}));
    }
    let (name, payload) = socket.event().await;
    assert_eq!((name.as_str(), &payload["reason"]), ("sessionDestroy", &json!("corrupt")));
    browser.post(&world.app, "/merge", r#"{"fresh":1}"#).await;
    assert_eq!(socket.call("get", Value::Null).await, json!({"ok": {"fresh": 1}}));
}

#[tokio::test]
async fn a_handler_on_a_socket_that_leaves_too_much_changes_nothing() {
    let world = world(ProbeStore::new()).await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let mut socket = world.open(&browser).await;
    assert_eq!(socket.call("too-much", Value::Null).await, json!({"error": "PayloadTooLarge"}));
    assert_eq!(socket.call("get", Value::Null).await, json!({"ok": {"n": 1}}));
    assert!(socket.events_before("get").await.is_empty());
    assert_eq!(browser.get(&world.app, "/read").await.json()["data"], json!({"n": 1}));
}

//! Sessions on sockets, against a served application.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum_io_session::bridge::{OnDestroy, SocketMessages, SocketPairing};
use axum_io_session::socket::{ClientSession, attach};
use axum_io_session::{
    Error, ErrorKind, SessionBridge, SessionEvent, SocketSessionExt as _, bridge_session,
};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, Data, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use support::app::app;
use support::faulty::Faulty;
use support::http::Browser;
use support::probe::ProbeStore;
use support::sio::{Client, serve};
use support::{KEY, until};

struct World {
    bridge: SessionBridge,
    app: Router,
    io: SocketIo,
    address: SocketAddr,
}

async fn world(bridge: SessionBridge) -> World {
    let (layer, io) = SocketIo::builder().max_buffer_size(1024).build_layer();
    for namespace in ["/", "/admin"] {
        io.ns(namespace, (async |_: SocketRef| {}).with(events).with(attach));
    }
    io.ns("/forgotten", (async |_: SocketRef| {}).with(events));
    let app = bridge_session(app(&bridge), layer, &bridge);
    World { address: serve(app.clone()).await, bridge, app, io }
}

async fn default_world() -> World {
    world(support::bridge().await).await
}

/// A world whose sockets stay when their session ends.
async fn patient_world() -> World {
    let builder = SessionBridge::builder().signing_keys([KEY]).node_id("test");
    world(builder.on_destroy(OnDestroy::Notify).build().await.unwrap()).await
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
}

fn kind(error: &Error) -> Value {
    json!({ "error": format!("{:?}", error.kind()), "text": error.to_string() })
}

fn outcome<T: serde::Serialize>(result: Result<T, Error>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => kind(&error),
    }
}

/// An event for each way to use a session.
async fn events(socket: SocketRef) -> Result<(), Infallible> {
    socket.on("ids", |socket: SocketRef, seen: ClientSession, ack: AckSender| async move {
        assert_eq!(seen.client_id, socket.client_id());
        assert_eq!(seen.session_id, socket.session_id());
        let _ = ack.send(&json!({ "client": seen.client_id, "session": seen.session_id }));
    });
    socket.on("get", |socket: SocketRef, ack: AckSender| async move {
        let data = socket.with_session(|session| async move { session.data() }).await;
        let _ = ack.send(&outcome(data));
    });
    socket.on("inc", |socket: SocketRef, ack: AckSender| async move {
        let n = socket.try_with_session(|session| async move {
            let n = session.get::<i64>("n")?.unwrap_or(0) + 1;
            session.insert("n", n)?;
            Ok::<_, Error>(n)
        });
        let _ = ack.send(&outcome(n.await));
    });
    socket.on("destroy", |socket: SocketRef, ack: AckSender| async move {
        let done = socket.with_session(|session| async move { session.destroy() }).await;
        let _ = ack.send(&outcome(done));
    });
    socket.on("or", |socket: SocketRef, ack: AckSender| async move {
        let n = socket.with_session_or(-1, |session| async move {
            assert_eq!(session.socket().session_id(), Some(session.session_id()));
            session.get::<i64>("n").unwrap().unwrap()
        });
        let _ = ack.send(&outcome(n.await));
    });
    socket.on("or-else", |socket: SocketRef, ack: AckSender| async move {
        let missing = || async {
            tokio::task::yield_now().await;
            -2
        };
        let n = socket.with_session_or_else(missing, |session| async move {
            session.get::<i64>("n").unwrap().unwrap()
        });
        let _ = ack.send(&outcome(n.await));
    });
    socket.on("fail", |socket: SocketRef, ack: AckSender| async move {
        let failed: Result<(), Error> = socket
            .try_with_session(|session| async move {
                session.insert("n", -1)?;
                session.destroy();
                Err(Error::new(ErrorKind::Handler, "on purpose"))
            })
            .await;
        let _ = ack.send(&outcome(failed));
    });
    socket.on("panic", |socket: SocketRef| async move {
        let _ = socket
            .with_session(|session| async move {
                session.insert("n", -1).unwrap();
                panic!("on purpose");
            })
            .await;
    });
    socket.on("slow", |socket: SocketRef, Data(ms): Data<u64>, ack: AckSender| async move {
        let n = socket.try_with_session(|session| async move {
            let n = session.get::<i64>("n")?.unwrap_or(0) + 1;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            session.insert("n", n)?;
            Ok::<_, Error>(n)
        });
        let _ = ack.send(&outcome(n.await));
    });
    socket.on("nested", |socket: SocketRef, ack: AckSender| async move {
        let inner = socket.with_session(|session| async move {
            session.socket().with_session(|_| async {}).await
        });
        let _ = ack.send(&outcome(inner.await.unwrap()));
    });
    let listening = socket.on_session_event(|socket, event| async move {
        let name = match event {
            SessionEvent::Set(_) => "handler-set",
            _ => "handler-end",
        };
        let _ = socket.emit(name, &socket.session_id().is_some());
    });
    assert!(listening.is_ok() || listening.unwrap_err().kind() == ErrorKind::NotAttached);
    Ok(())
}

/// Compiles: sessions work on sockets of any adapter.
#[allow(dead_code)]
async fn on_any_adapter<A: Adapter>(io: SocketIo<A>, socket: SocketRef<A>) {
    let handler = async |socket: SocketRef<A>| {
        let seen = socket.with_session(|session| async move { session.socket().session_id() });
        assert_eq!(seen.await.unwrap(), socket.session_id());
    };
    io.dyn_ns("/{any}", handler.with(attach::<A>)).unwrap();
    socket.on_session_event(|socket, _| async move { drop(socket) }).unwrap();
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !name.starts_with("handler"))
        .collect()
}

// ---- which session a socket sees -----------------------------------------------------------

#[tokio::test]
async fn a_socket_follows_its_client_through_its_first_session_a_new_id_and_logout() {
    let world = patient_world().await;
    let mut browser = Browser::new();
    browser.get(&world.app, "/plain").await;
    let mut socket = world.open(&browser).await;
    assert_eq!(socket.call("ids", Value::Null).await["session"], Value::Null);
    assert_eq!(socket.call("get", Value::Null).await["error"], "SessionMissing");
    browser.post(&world.app, "/merge", r#"{"n":1}"#).await;
    let first = browser.get(&world.app, "/id").await.body;
    assert_eq!(socket.call("ids", Value::Null).await["session"], first);
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
    browser.post(&world.app, "/renew-id", "").await;
    let second = browser.get(&world.app, "/id").await.body;
    assert_ne!(first, second);
    assert_eq!(socket.call("ids", Value::Null).await["session"], second);
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 3}));
    browser.post(&world.app, "/logout", "").await;
    assert_eq!(socket.call("ids", Value::Null).await["session"], Value::Null);
    assert_eq!(socket.call("inc", Value::Null).await["error"], "SessionMissing");
    // The next open session is seen by the same socket.
    browser.post(&world.app, "/merge", r#"{"n":10}"#).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 11}));
}

#[tokio::test]
async fn a_socket_is_not_told_of_changes_that_it_could_read_when_it_came() {
    let builder = SessionBridge::builder().signing_keys([KEY]).node_id("n");
    let slow = builder.backend(async |config| Ok(Faulty::make("tells late", config)));
    let world = world(slow.build().await.unwrap()).await;
    let mut browser = Browser::new();
    browser.get(&world.app, "/plain").await;
    let mut early = world.open(&browser).await;
    browser.post(&world.app, "/merge", r#"{"n":1}"#).await;
    let mut late = world.open(&browser).await;
    assert_eq!(late.call("inc", Value::Null).await, json!({"ok": 2}));
    let id = browser.get(&world.app, "/id").await.body.parse().unwrap();
    world.bridge.notify_store_set(&id, false).await.unwrap();
    let told = |new: bool| ("sessionSet".into(), json!({"isNew": new, "isInit": new, "node": "n"}));
    let everything = [told(true), told(false), told(false)];
    // Its own change and the notice, but not the beginning.
    for (socket, expected) in [(&mut early, &everything[..]), (&mut late, &everything[1..])] {
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            let event = socket.event().await;
            heard.extend(Some(event).filter(|(name, _)| !name.starts_with("handler")));
        }
        assert_eq!(heard, expected);
        assert!(names(&socket.events_before("ids").await).is_empty());
    }
}

#[tokio::test]
async fn the_client_cookie_alone_opens_no_session_but_later_ones() {
    let world = default_world().await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let mut half = browser.clone();
    half.jar.remove("sid");
    let mut socket = world.open(&half).await;
    assert_eq!(socket.call("get", Value::Null).await["error"], "SessionMissing");
    assert_eq!(socket.call("ids", Value::Null).await["session"], Value::Null);
    browser.post(&world.app, "/merge", r#"{"n":2}"#).await;
    browser.post(&world.app, "/renew-id", "").await;
    browser.post(&world.app, "/logout", "").await;
    assert!(socket.events_before("ids").await.is_empty(), "it hears nothing of that session");
    browser.post(&world.app, "/merge", r#"{"n":5}"#).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 6}));
    assert_eq!(names(&socket.events_before("ids").await), ["sessionSet", "sessionSet"]);
}

#[tokio::test]
async fn the_client_cookie_alone_opens_no_session_of_before_a_restart() {
    for find in [true, false] {
        let store = if find { ProbeStore::new() } else { ProbeStore::new().without_find() };
        let build = async || {
            SessionBridge::builder().signing_keys([KEY]).store(store.clone()).build().await.unwrap()
        };
        let mut browser = Browser::new();
        let before = build().await;
        browser.post(&app(&before), "/merge", r#"{"n":1}"#).await;
        // Older than the slack between clocks.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let world = world(build().await).await;
        let mut half = browser.clone();
        half.jar.remove("sid");
        let mut socket = world.open(&half).await;
        // Another tab attaches the session; it still is one from before the handshake.
        assert_eq!(browser.get(&world.app, "/read").await.json()["data"]["n"], 1);
        assert_eq!(socket.call("ids", Value::Null).await["session"], Value::Null, "{find}");
        assert_eq!(socket.call("get", Value::Null).await["error"], "SessionMissing", "{find}");
        assert!(socket.events_before("ids").await.is_empty());
        let mut whole = world.open(&browser).await;
        assert_eq!(whole.call("get", Value::Null).await, json!({"ok": {"n": 1}}));
        // What it may not see it does not hear the end of.
        browser.post(&world.app, "/logout", "").await;
        assert_eq!(names(&whole.last_events().await), ["sessionDestroy"]);
        assert!(socket.events_before("ids").await.is_empty(), "{find}");
    }
}

#[tokio::test]
async fn pairing_by_client_opens_the_session_to_the_client_cookie() {
    let builder =
        SessionBridge::builder().signing_keys([KEY]).socket_pairing(SocketPairing::ClientOnly);
    let world = world(builder.build().await.unwrap()).await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    browser.jar.remove("sid");
    let mut socket = world.open(&browser).await;
    assert_eq!(socket.call("get", Value::Null).await, json!({"ok": {"n": 1}}));
}

#[tokio::test]
async fn a_session_cookie_without_its_client_cookie_opens_the_session() {
    let world = default_world().await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let client = browser.get(&world.app, "/client").await.body;
    browser.jar.remove("sid.cid");
    let mut socket = world.open(&browser).await;
    assert_eq!(socket.call("get", Value::Null).await, json!({"ok": {"n": 1}}));
    assert_eq!(socket.call("ids", Value::Null).await["client"], client);
}

#[tokio::test]
async fn a_handshake_without_cookies_gets_a_client_that_http_keeps() {
    let world = default_world().await;
    let mut socket = world.open(&Browser::new()).await;
    let client = socket.call("ids", Value::Null).await["client"].clone();
    let line = socket.set_cookies.iter().find(|line| line.starts_with("sid.cid=")).unwrap();
    let cookie = cookie::Cookie::parse(line.clone()).unwrap();
    let mut browser = Browser::new();
    browser.jar.insert("sid.cid".into(), cookie.value().to_owned());
    assert_eq!(browser.get(&world.app, "/client").await.body, client.as_str().unwrap());
    browser.post(&world.app, "/merge", r#"{"n":1}"#).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
}

#[tokio::test]
async fn a_namespace_joined_again_is_looked_at_anew() {
    let world = default_world().await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let mut socket = world.open(&browser).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
    world.io.disconnect().await.unwrap();
    socket.until_disconnected().await;
    until("it is detached", async || world.bridge.stats().sockets == 0).await;
    browser.post(&world.app, "/logout", "").await;
    socket.join().await.unwrap();
    assert_eq!(socket.call("get", Value::Null).await["error"], "SessionMissing");
    assert_eq!(world.bridge.stats().sockets, 1);
}

#[tokio::test]
async fn namespaces_share_the_session_and_each_is_attached() {
    let world = default_world().await;
    let browser = world.seeded(r#"{"n":1}"#).await;
    let cookies = browser.cookie_header();
    let mut root = Client::connect(world.address, &cookies).await;
    let mut admin = Client::connect_to(world.address, "/admin", &cookies).await.unwrap();
    assert_eq!(root.call("inc", Value::Null).await, json!({"ok": 2}));
    assert_eq!(admin.call("inc", Value::Null).await, json!({"ok": 3}));
    assert_eq!(admin.event().await.0, "sessionSet");
    assert_eq!(world.bridge.stats().sockets, 2);
}

#[tokio::test]
async fn what_was_forgotten_is_named() {
    let world = default_world().await;
    let browser = world.seeded(r#"{"n":1}"#).await;
    let cookies = browser.cookie_header();
    let mut socket = Client::connect_to(world.address, "/forgotten", &cookies).await.unwrap();
    let answer = socket.call("get", Value::Null).await;
    assert_eq!(answer["error"], "NotAttached");
    assert!(answer["text"].as_str().unwrap().contains("handler.with(attach)"), "{answer}");

    // The layers in the wrong order: handshakes do not pass the session layer.
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));
    let wrong = app(&world.bridge).layer(layer);
    let mut socket = Client::connect(serve(wrong).await, &cookies).await;
    let answer = socket.call("get", Value::Null).await;
    assert_eq!(answer["error"], "NotAttached");
    assert!(answer["text"].as_str().unwrap().contains("outside the Socket.IO layer"), "{answer}");
}

#[tokio::test]
async fn a_store_that_fails_rejects_the_connection_without_details() {
    let store = ProbeStore::new();
    let builder = SessionBridge::builder().signing_keys([KEY]).store(store.clone());
    let world = world(builder.build().await.unwrap()).await;
    let browser = world.seeded(r#"{"n":1}"#).await;
    store.set_broken(true);
    let refused = Client::connect_to(world.address, "/", &browser.cookie_header()).await;
    assert_eq!(refused.err().unwrap(), "session unavailable");
    store.set_broken(false);
    assert_eq!(world.bridge.stats().sockets, 0);
    let mut socket = world.open(&browser).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
}

// ---- with_session --------------------------------------------------------------------------

#[tokio::test]
async fn a_missing_session_is_an_error_a_value_or_a_functions_value() {
    let world = default_world().await;
    let mut browser = Browser::new();
    browser.get(&world.app, "/plain").await;
    let mut socket = world.open(&browser).await;
    let error = socket.call("get", Value::Null).await;
    assert!(error["text"].as_str().unwrap().contains("Session is missing for this socket"));
    assert_eq!(socket.call("or", Value::Null).await, json!({"ok": -1}));
    assert_eq!(socket.call("or-else", Value::Null).await, json!({"ok": -2}));
    browser.post(&world.app, "/merge", r#"{"n":7}"#).await;
    for call in ["or", "or-else"] {
        assert_eq!(socket.call(call, Value::Null).await, json!({"ok": 7}));
    }
}

#[tokio::test]
async fn a_handler_that_fails_or_panics_writes_nothing_and_frees_the_session() {
    let world = default_world().await;
    let browser = world.seeded(r#"{"n":1}"#).await;
    let mut socket = world.open(&browser).await;
    assert_eq!(socket.call("fail", Value::Null).await["error"], "Handler");
    socket.emit("panic", Value::Null).await;
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
    assert_eq!(names(&socket.events_before("ids").await), ["sessionSet"]);
}

#[tokio::test]
async fn nesting_is_an_error_and_the_session_stays_usable() {
    let world = default_world().await;
    let browser = world.seeded(r#"{"n":1}"#).await;
    let mut socket = world.open(&browser).await;
    assert_eq!(socket.call("nested", Value::Null).await["error"], "Reentrant");
    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": 2}));
}

#[tokio::test]
async fn a_socket_that_leaves_during_its_handler_writes_nothing_and_frees_the_session() {
    let world = default_world().await;
    let browser = world.seeded(r#"{"n":1}"#).await;
    let mut leaver = world.open(&browser).await;
    let mut stayer = world.open(&browser).await;
    let leases = world.bridge.stats().leases;
    leaver.emit("slow", json!(60_000)).await;
    until("the handler runs", async || world.bridge.stats().leases > leases).await;
    leaver.close().await;
    assert_eq!(stayer.call("inc", Value::Null).await, json!({"ok": 2}));
    until("one is left", async || world.bridge.stats().sockets == 1).await;
}

#[tokio::test]
async fn increments_from_sockets_and_requests_are_all_counted() {
    let world = default_world().await;
    let browser = world.seeded(r#"{"n":0}"#).await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let mut socket = world.open(&browser).await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                assert!(socket.call("inc", Value::Null).await["ok"].is_i64());
            }
        }));
    }
    let (app, mut poster) = (world.app.clone(), browser.clone());
    tasks.push(tokio::spawn(async move {
        for _ in 0..40 {
            assert!(poster.post(&app, "/inc", "").await.status.is_success());
        }
    }));
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(browser.clone().get(&world.app, "/read").await.json()["data"]["n"], 200);
}

// ---- messages ------------------------------------------------------------------------------

#[tokio::test]
async fn each_change_reaches_all_sockets_of_the_client_once_and_nobody_else() {
    let world = default_world().await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let stranger = world.seeded(r#"{"n":1}"#).await;
    let (mut a, mut b) = (world.open(&browser).await, world.open(&browser).await);
    let mut other = world.open(&stranger).await;
    a.call("inc", Value::Null).await;
    browser.post(&world.app, "/merge", r#"{"n":9}"#).await;
    browser.post(&world.app, "/merge", r#"{"n":9}"#).await;
    browser.post(&world.app, "/logout", "").await;
    for socket in [&mut a, &mut b] {
        let told = socket.last_events().await;
        assert_eq!(names(&told), ["sessionSet", "sessionSet", "sessionDestroy"]);
        let set = json!({"isNew": false, "isInit": false, "node": "test"});
        assert!(told.contains(&("sessionSet".into(), set)), "no id, for nobody asked: {told:?}");
        assert!(
            told.contains(&(
                "sessionDestroy".into(),
                json!({"reason": "destroyed", "node": "test"})
            ))
        );
    }
    assert!(other.events_before("ids").await.is_empty());
}

#[tokio::test]
async fn messages_can_be_renamed_switched_off_and_carry_ids() {
    let messages = SocketMessages::default()
        .set(None)
        .destroy(Some("bye"))
        .cleanup(Some("swept"))
        .include_ids(true);
    let bridge = SessionBridge::builder().signing_keys([KEY]).node_id("n").messages(messages);
    let world = world(bridge.build().await.unwrap()).await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let id = browser.get(&world.app, "/id").await.body;
    let mut socket = world.open(&browser).await;
    browser.post(&world.app, "/merge", r#"{"n":2}"#).await;
    assert_eq!(world.bridge.cleanup().await.unwrap(), 0);
    browser.post(&world.app, "/logout", "").await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let event = socket.event().await;
        if !event.0.starts_with("handler") {
            told.push(event);
        }
    }
    assert_eq!(told[0], ("swept".into(), json!({"cleared": 0, "node": "n"})));
    assert_eq!(
        told[1],
        ("bye".into(), json!({"reason": "destroyed", "node": "n", "sessionId": id}))
    );
}

#[tokio::test]
async fn sockets_are_disconnected_after_the_grace_also_if_there_is_a_new_session() {
    let grace = Duration::from_millis(500);
    let builder =
        SessionBridge::builder().signing_keys([KEY]).on_destroy(OnDestroy::Disconnect { grace });
    let world = world(builder.build().await.unwrap()).await;
    for again in [false, true] {
        let mut browser = world.seeded(r#"{"n":1}"#).await;
        let mut socket = world.open(&browser).await;
        let begun = std::time::Instant::now();
        browser.post(&world.app, "/logout", "").await;
        if again {
            browser.post(&world.app, "/merge", r#"{"n":5}"#).await;
        }
        assert_eq!(socket.event().await.0, "sessionDestroy", "it is told first");
        let ids = socket.call("ids", Value::Null).await;
        assert_eq!(ids["session"], Value::Null, "it is there, and sees no session any more");
        socket.until_disconnected().await;
        assert!(begun.elapsed() >= grace, "{again}");
        until("it is detached", async || world.bridge.stats().sockets == 0).await;
    }
}

#[tokio::test]
async fn expiry_tells_open_sockets_in_time() {
    let builder = SessionBridge::builder().signing_keys([KEY]).max_age(Duration::from_secs(1));
    let world = world(builder.build().await.unwrap()).await;
    let browser = world.seeded(r#"{"n":1}"#).await;
    let mut socket = world.open(&browser).await;
    let (name, payload) = socket.event().await;
    assert_eq!((name.as_str(), &payload["reason"]), ("sessionDestroy", &json!("expired")));
    socket.until_disconnected().await;
}

#[tokio::test]
async fn with_nothing_as_policy_sockets_are_not_told_of_the_end() {
    let builder = SessionBridge::builder().signing_keys([KEY]).on_destroy(OnDestroy::Nothing);
    let world = world(builder.build().await.unwrap()).await;
    let mut browser = world.seeded(r#"{"n":1}"#).await;
    let mut socket = world.open(&browser).await;
    browser.post(&world.app, "/logout", "").await;
    assert_eq!(socket.event().await.0, "handler-end", "its own handler is");
    assert!(names(&socket.events_before("ids").await).is_empty());
}

// ---- nothing is left behind ----------------------------------------------------------------

#[tokio::test]
async fn a_socket_kept_by_the_application_is_detached_all_the_same() {
    let bridge = support::bridge().await;
    let (layer, io) = SocketIo::new_layer();
    let keep = async |socket: SocketRef| {
        let kept = socket.clone();
        socket.on("kept", move |_: SocketRef| {
            let kept = kept.clone();
            async move { drop(kept) }
        });
    };
    io.ns("/", keep.with(events).with(attach));
    let address = serve(bridge_session(app(&bridge), layer, &bridge)).await;
    let mut socket = Client::connect(address, "").await;
    socket.call("ids", Value::Null).await;
    assert_eq!(bridge.stats().sockets, 1);
    socket.close().await;
    // Its guard never drops; the sweep finds it, within half a minute.
    let swept = async {
        while bridge.stats().sockets > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), swept).await.unwrap();
    let mut tables = bridge.stats().tables;
    // What keeps the socket keeps its handshake, and so its connection.
    assert_eq!(tables.remove("engines"), Some(1));
    assert!(tables.values().all(|size| *size == 0), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_sent_in_the_very_moment_of_the_connect_is_served() {
    let world = default_world().await;
    let clients = (0..64).map(|_| {
        let (address, app) = (world.address, world.app.clone());
        tokio::spawn(async move {
            let mut browser = Browser::new();
            browser.post(&app, "/merge", r#"{"n":0}"#).await;
            for n in 1..=40 {
                let mut socket = Client::connect(address, &browser.cookie_header()).await;
                assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": n}));
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}

#[test]
fn a_change_made_in_the_very_moment_of_the_connect_is_told_to_the_socket() {
    // More threads than processors, so that each is stopped anywhere now and then.
    let runs = (0..8).map(|_| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let world = default_world().await;
                let browser = world.seeded(r#"{"n":0}"#).await;
                for n in 1..=60 {
                    let mut socket = world.open(&browser).await;
                    assert_eq!(socket.call("inc", Value::Null).await, json!({"ok": n}));
                    while socket.event().await.0 != "sessionSet" {}
                }
            });
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connects_and_disconnects_leave_the_tables_empty() {
    const SOCKETS: usize = 10_000;
    let world = default_world().await;
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut workers = Vec::new();
    for worker in 0..32 {
        let (next, address, app) = (next.clone(), world.address, world.app.clone());
        workers.push(tokio::spawn(async move {
            let mut browser = Browser::new();
            browser.post(&app, "/merge", r#"{"n":1}"#).await;
            loop {
                let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if turn >= SOCKETS {
                    break;
                }
                // Known and new clients, closed and simply dropped.
                let cookies = if turn % 3 == 0 { String::new() } else { browser.cookie_header() };
                let mut socket = Client::connect(address, &cookies).await;
                if turn % 5 == 0 {
                    socket.call("inc", Value::Null).await;
                }
                if turn % 2 == 0 {
                    socket.close().await;
                }
            }
            let gone = browser.post(&app, "/logout", "").await;
            assert!(gone.status.is_success(), "worker {worker}");
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    until("all are detached", async || world.bridge.stats().sockets == 0).await;
    let stats = world.bridge.stats();
    assert_eq!(stats.sockets_attached, SOCKETS as u64);
    assert_eq!(stats.sockets_detached, SOCKETS as u64);
    until("the tables are empty", async || {
        world.bridge.stats().tables.iter().all(|(name, size)| *name == "deadlines" || *size == 0)
    })
    .await;
    assert!(world.io.sockets().is_empty());
}

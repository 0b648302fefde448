//! Plain WebSockets that belong to the session of their handshake.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::Message;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::any;
use axum_io_session::bridge::{OnDestroy, OnRotate, SessionBridgeBuilder, SocketPairing};
use axum_io_session::web::ws::{CloseCodes, SessionSocket, SessionUpgrade};
use axum_io_session::{Error, Result, SessionBridge, SessionId};
use futures_util::{SinkExt as _, StreamExt as _};
use support::app::{Gate, app};
use support::http::{Browser, send};
use support::probe::ProbeStore;
use support::sio::serve;
use support::{KEY, LIMIT, until};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message as Sent};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

struct Ground {
    bridge: SessionBridge,
    store: ProbeStore,
    app: Router,
    address: SocketAddr,
    gate: Gate,
}

impl Ground {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(options: impl FnOnce(SessionBridgeBuilder) -> SessionBridgeBuilder) -> Self {
        let store = ProbeStore::new();
        let builder = SessionBridge::builder().signing_keys([KEY]).node_id("n");
        let bridge = options(builder).store(store.clone()).build().await.unwrap();
        let gate = Gate::new();
        let (held, late) = (gate.clone(), gate.clone());
        let sockets = Router::new()
            .route("/ws", any(async |upgrade: SessionUpgrade| upgrade.on_upgrade(talk)))
            .route("/required", any(required))
            .route("/begin", any(begin))
            .route("/events", any(async |upgrade: SessionUpgrade| upgrade.on_upgrade(events)))
            .route("/flood", any(async |upgrade: SessionUpgrade| upgrade.on_upgrade(flood)))
            .route(
                "/deaf",
                any(async move |upgrade: SessionUpgrade| {
                    // Busy with something else, and never asks its socket.
                    upgrade.on_upgrade(async move |_socket: SessionSocket| held.stop().await)
                }),
            )
            .route(
                "/late",
                any(async move |upgrade: SessionUpgrade| {
                    late.stop().await;
                    upgrade.on_upgrade(talk)
                }),
            )
            .layer(bridge.layer());
        let app = app(&bridge).merge(sockets);
        Self { address: serve(app.clone()).await, bridge, store, app, gate }
    }

    async fn visitor(&self) -> Browser {
        let mut browser = Browser::new();
        assert!(browser.post(&self.app, "/merge", r#"{"n":1}"#).await.status.is_success());
        browser
    }

    async fn id(&self, browser: &Browser) -> String {
        browser.clone().get(&self.app, "/id").await.body
    }

    async fn open(&self, browser: &Browser, path: &str) -> Socket {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        if !browser.jar.is_empty() {
            request.headers_mut().insert("cookie", browser.cookie_header().parse().unwrap());
        }
        let opening = tokio_tungstenite::connect_async(request);
        let (stream, _) = tokio::time::timeout(LIMIT, opening).await.unwrap().unwrap();
        Socket(stream)
    }
}

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn next(&mut self) -> Option<tungstenite::Result<Sent>> {
        tokio::time::timeout(LIMIT, self.0.next()).await.expect("a message in time")
    }

    async fn call(&mut self, text: &str) -> String {
        self.0.send(Sent::text(text)).await.unwrap();
        self.next().await.unwrap().unwrap().into_text().unwrap().to_string()
    }

    /// Reads on until the close; its code and reason, and how many messages came before.
    async fn closed(&mut self) -> (u16, String, usize) {
        let mut before = 0;
        loop {
            match self.next().await.expect("a close frame").expect("a close frame") {
                Sent::Close(frame) => {
                    let frame = frame.expect("a reason");
                    assert!(!matches!(self.next().await, Some(Ok(_))), "sent after the close");
                    return (frame.code.into(), frame.reason.to_string(), before);
                }
                _ => before += 1,
            }
        }
    }

    async fn closes_with(&mut self, code: u16, reason: &str) {
        let closed = self.closed().await;
        assert_eq!((closed.0, closed.1.as_str()), (code, reason));
    }
}

fn outcome<T: ToString>(result: Result<T>) -> String {
    result.map_or_else(|error| format!("{:?}", error.kind()), |value| value.to_string())
}

/// Answers each message.
async fn talk(socket: SessionSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let answer = match message.to_text().unwrap_or_default() {
            "id" => socket.session_id().map_or_else(String::new, |id| id.as_str().to_owned()),
            "inc" => outcome(
                socket
                    .try_with_session(async |session| {
                        let n = session.get::<u64>("n")?.unwrap_or(0) + 1;
                        session.insert("n", n)?;
                        Ok::<_, Error>(n)
                    })
                    .await,
            ),
            "destroy" => outcome(
                socket.with_session(async |session| session.destroy()).await.map(|()| "done"),
            ),
            _ => return,
        };
        if socket.send(Message::text(answer)).await.is_err() {
            return;
        }
    }
}

async fn required(upgrade: SessionUpgrade) -> Response {
    let codes = CloseCodes::default().ended(4000);
    upgrade.require_session().close_codes(codes).on_upgrade(talk)
}

async fn begin(upgrade: SessionUpgrade) -> Result<Response> {
    upgrade.session().insert("n", 10)?;
    upgrade.session().rotate()?;
    Ok(upgrade.on_upgrade(talk))
}

async fn events(socket: SessionSocket) {
    let mut events = socket.events();
    let _ = socket.send(Message::text("ready")).await;
    while let Some(event) = events.recv().await {
        let event = serde_json::to_value(&event).unwrap();
        if socket.send(Message::text(event["event"].as_str().unwrap())).await.is_err() {
            return;
        }
    }
}

/// Sends as fast as it can, by several tasks.
async fn flood(socket: SessionSocket) {
    let socket = Arc::new(socket);
    let sending = (0..4).map(|_| {
        let socket = socket.clone();
        tokio::spawn(
            async move { while socket.send(Message::text("x".repeat(1000))).await.is_ok() {} },
        )
    });
    futures_util::future::join_all(sending.collect::<Vec<_>>()).await;
}

fn grace(grace: Duration) -> OnDestroy {
    OnDestroy::Disconnect { grace }
}

#[tokio::test]
async fn a_connection_reads_and_writes_its_session() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/ws").await;
    assert_eq!(socket.call("id").await, ground.id(&browser).await);
    assert_eq!(socket.call("inc").await, "2");
    let data = browser.clone().get(&ground.app, "/read").await.json();
    assert_eq!(data["data"]["n"], 2);
    let stats = ground.bridge.stats();
    assert_eq!((stats.sockets, stats.sockets_attached), (1, 1));
    // The handler returns.
    socket.0.send(Sent::text("bye")).await.unwrap();
    socket.closes_with(1000, "").await;
    until("detached", async || ground.bridge.stats().sockets == 0).await;
}

#[tokio::test]
async fn a_connection_is_closed_at_a_logout_an_expiry_a_sealing_and_an_end_by_id() {
    let ground = Ground::new().await;
    for (path, reason) in [("/logout", "destroyed"), ("/login", "sealed")] {
        let browser = ground.visitor().await;
        let mut socket = ground.open(&browser, "/ws").await;
        assert_eq!(socket.call("inc").await, "2");
        browser.clone().post(&ground.app, path, "{}").await;
        socket.closes_with(4401, reason).await;
    }
    let mut browser = ground.visitor().await;
    browser.post(&ground.app, "/age/1", "").await;
    ground.open(&browser, "/ws").await.closes_with(4401, "expired").await;

    let browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/ws").await;
    assert_eq!(socket.call("inc").await, "2");
    let id = SessionId::parse(&ground.id(&browser).await).unwrap();
    ground.bridge.destroy_by_id(&id).await.unwrap();
    socket.closes_with(4401, "destroyed").await;
    until("detached", async || ground.bridge.stats().sockets == 0).await;
    assert_eq!(ground.bridge.stats().sockets_attached, 4);
}

#[tokio::test]
async fn a_connection_with_the_sealed_cookie_stays_and_one_of_before_is_closed() {
    let ground = Ground::new().await;
    let mut browser = ground.visitor().await;
    let mut before = ground.open(&browser, "/ws").await;
    assert_eq!(before.call("inc").await, "2");
    browser.post(&ground.app, "/login", "{}").await;
    let mut after = ground.open(&browser, "/ws").await;
    before.closes_with(4401, "sealed").await;
    assert_eq!(after.call("inc").await, "3");
    assert_eq!(after.call("id").await, ground.id(&browser).await);
}

#[tokio::test]
async fn a_connection_that_ends_its_session_gets_its_answer_and_then_the_close() {
    let second = grace(Duration::from_secs(1));
    let ground = Ground::with(|builder| builder.on_destroy(second)).await;
    let browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/ws").await;
    assert_eq!(socket.call("destroy").await, "done");
    assert_eq!(socket.call("inc").await, "SessionMissing", "in the grace it sees no session");
    socket.closes_with(4401, "destroyed").await;
}

#[tokio::test]
async fn policies_are_those_of_sockets() {
    // Stays, and follows into the client's next session.
    let ground = Ground::with(|builder| builder.on_destroy(OnDestroy::Notify)).await;
    let mut browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/ws").await;
    assert_eq!(socket.call("inc").await, "2");
    browser.post(&ground.app, "/logout", "").await;
    assert_eq!(socket.call("inc").await, "SessionMissing");
    browser.post(&ground.app, "/merge", r#"{"n":5}"#).await;
    assert_eq!(socket.call("inc").await, "6");

    let ground = Ground::with(|builder| builder.on_rotate(OnRotate::Follow)).await;
    let mut browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/ws").await;
    assert_eq!(socket.call("inc").await, "2");
    browser.post(&ground.app, "/login", "{}").await;
    assert_eq!(socket.call("inc").await, "3");

    let ground = Ground::with(|builder| builder.socket_pairing(SocketPairing::Strict)).await;
    let mut browser = Browser::new();
    browser.get(&ground.app, "/plain").await;
    let mut socket = ground.open(&browser, "/ws").await;
    assert_eq!(socket.call("id").await, "");
    browser.post(&ground.app, "/merge", r#"{"n":1}"#).await;
    assert_eq!(socket.call("inc").await, "SessionMissing");
}

#[tokio::test]
async fn a_visitor_sees_the_open_session_that_comes_and_where_one_is_required_gets_1008() {
    let ground = Ground::new().await;
    let mut browser = Browser::new();
    browser.get(&ground.app, "/plain").await;
    ground.open(&browser, "/required").await.closes_with(1008, "session-missing").await;
    let mut socket = ground.open(&browser, "/ws").await;
    assert_eq!(socket.call("inc").await, "SessionMissing");
    browser.post(&ground.app, "/merge", r#"{"n":1}"#).await;
    assert_eq!(socket.call("inc").await, "2");
    let mut required = ground.open(&browser, "/required").await;
    assert_eq!(required.call("inc").await, "3");
    browser.post(&ground.app, "/logout", "").await;
    required.closes_with(4000, "destroyed").await;
}

#[tokio::test]
async fn a_session_that_the_handshake_makes_is_its_own() {
    let ground = Ground::new().await;
    let mut socket = ground.open(&Browser::new(), "/begin").await;
    assert_eq!(socket.call("inc").await, "11");
    let id = SessionId::parse(&socket.call("id").await).unwrap();
    ground.bridge.destroy_by_id(&id).await.unwrap();
    socket.closes_with(4401, "destroyed").await;
}

#[tokio::test]
async fn a_connection_is_closed_while_its_handler_is_busy_with_something_else() {
    let ground = Ground::with(|builder| builder.on_destroy(grace(Duration::ZERO))).await;
    let browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/deaf").await;
    ground.gate.reached().await;
    browser.clone().post(&ground.app, "/logout", "").await;
    let begun = Instant::now();
    socket.closes_with(4401, "destroyed").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    ground.gate.open();
}

#[tokio::test]
async fn queued_messages_are_dropped_at_the_close_even_if_nobody_reads() {
    let ground = Ground::with(|builder| builder.on_destroy(grace(Duration::ZERO))).await;
    let browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/flood").await;
    let first = socket.next().await.unwrap().unwrap();
    assert_eq!(first.into_text().unwrap().len(), 1000);
    browser.clone().post(&ground.app, "/logout", "").await;
    // What the network holds by now comes first, and the close is the last.
    socket.closes_with(4401, "destroyed").await;
    let deaf = ground.visitor().await;
    let silent = ground.open(&deaf, "/flood").await;
    until("attached", async || ground.bridge.stats().sockets == 1).await;
    deaf.clone().post(&ground.app, "/logout", "").await;
    until("given up", async || ground.bridge.stats().sockets == 0).await;
    drop(silent);
}

#[tokio::test]
async fn events_of_the_session_come_as_a_stream() {
    let ground = Ground::new().await;
    let mut browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/events").await;
    let text = async |socket: &mut Socket| socket.next().await.unwrap().unwrap().to_string();
    assert_eq!(text(&mut socket).await, "ready");
    browser.post(&ground.app, "/merge", r#"{"n":2}"#).await;
    assert_eq!(text(&mut socket).await, "sessionSet");
    ground.visitor().await;
    browser.post(&ground.app, "/logout", "").await;
    assert_eq!(text(&mut socket).await, "sessionDestroy");
    socket.closes_with(4401, "destroyed").await;
}

#[tokio::test]
async fn a_shutdown_closes_with_1001_and_ends_handlers_that_run_on() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut socket = ground.open(&browser, "/deaf").await;
    ground.gate.reached().await;
    let shutdown = ground.bridge.shutdown();
    let (_, closed) = tokio::join!(shutdown, socket.closed());
    assert_eq!((closed.0, closed.1.as_str()), (1001, "shutdown"));
}

#[tokio::test]
async fn a_session_that_ends_during_the_handshake_or_can_not_be_followed_is_told() {
    let ground = Ground::new().await;
    for broken in [false, true] {
        let browser = ground.visitor().await;
        let opening = ground.open(&browser, "/late");
        let meanwhile = async {
            ground.gate.reached().await;
            match broken {
                true => ground.store.set_broken(true),
                false => drop(browser.clone().post(&ground.app, "/logout", "").await),
            }
            ground.gate.open();
        };
        let (mut socket, ()) = tokio::join!(opening, meanwhile);
        match broken {
            true => socket.closes_with(1013, "unavailable").await,
            false => socket.closes_with(4401, "reconciled").await,
        }
        ground.store.set_broken(false);
    }
}

#[tokio::test]
async fn upgrades_of_other_origins_are_refused_over_both_versions_of_http() {
    let ground = Ground::with(|builder| builder.check_request_origins(false)).await;
    let request =
        || Request::builder().header("host", "a.example").header("origin", "https://b.example");
    let upgrade =
        request().uri("/ws").header("upgrade", "websocket").header("connection", "upgrade");
    let connect = request().method("CONNECT").uri("http://a.example/ws");
    for request in [upgrade, connect] {
        let answer = send(&ground.app, request.body(axum::body::Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(ground.bridge.stats().refused_origins, 2);
}

#[test]
#[should_panic(expected = "a close code is")]
fn a_code_that_may_not_be_sent_is_refused() {
    let _ = CloseCodes::default().ended(1005);
}

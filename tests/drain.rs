//! A node that is about to stop sends its sockets away, and loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum_io_session::bridge::SocketMessages;
use axum_io_session::socket::attach;
use axum_io_session::{Session, SessionBridge, SessionEvent, bridge_session, monitor};
use futures_util::stream;
use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use support::http::Browser;
use support::sio::{self, Client};
use support::{KEY, LIMIT, until};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(600);

async fn bridge(window: Duration) -> SessionBridge {
    let builder = SessionBridge::builder().signing_keys([KEY]).drain_window(window);
    builder.retry_after(Duration::from_secs(7)).build().await.unwrap()
}

fn app(bridge: &SessionBridge) -> Router {
    app_with(bridge, Router::new())
}

fn app_with(bridge: &SessionBridge, routes: Router) -> Router {
    let (layer, io) = SocketIo::new_layer();
    let events = async |socket: SocketRef| {
        socket.on("ping", async |ack: AckSender| _ = ack.send(&true));
        Ok::<(), Infallible>(())
    };
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));
    let router = support::app::app(bridge).merge(monitor::health_router(bridge)).merge(routes);
    bridge_session(router.route("/hello", get(|| async { "hello" })), layer, bridge)
}

/// A status, the seconds of `Retry-After`, and the body.
async fn ask(address: SocketAddr, path: &str) -> (u16, Option<String>, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let after = head.split("\r\n").find_map(|line| line.strip_prefix("retry-after: "));
    (head[9..12].parse().unwrap(), after.map(str::to_owned), body.to_owned())
}

#[tokio::test]
async fn a_draining_node_is_unready_and_takes_no_new_sockets() {
    let bridge = bridge(LONG).await;
    let address = sio::serve(app(&bridge)).await;
    let mut client = Client::connect(address, "").await;
    let polling = "/socket.io/?EIO=4&transport=polling";
    let (_, _, opened) = ask(address, polling).await;
    let known = opened.split('"').nth(3).unwrap().to_owned();
    assert_eq!(ask(address, "/readyz").await.0, 200);
    let drained = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.drain().await }
    });
    assert_eq!(client.event().await.0, "sessionMove");
    let (status, _, body) = ask(address, "/readyz").await;
    assert!(status == 503 && body.contains("draining"), "{status} {body}");
    assert_eq!(ask(address, "/livez").await.0, 200);
    let refused = ask(address, polling).await;
    assert_eq!((refused.0, refused.1.as_deref()), (503, Some("7")), "a handshake");
    let other = ask(address, &format!("{polling}&sid=AAAAAAAAAAAAAAAAAAAAAA")).await;
    assert_eq!((other.0, other.1.as_deref()), (503, Some("7")), "another node's connection");
    let own = format!("{polling}&sid={known}");
    let poll = ask(address, &own);
    let answered = tokio::time::timeout(Duration::from_millis(300), poll).await;
    assert!(answered.is_err() || answered.is_ok_and(|(status, ..)| status == 200), "its own");
    assert_eq!(ask(address, "/hello").await.0, 200, "all else works");
    assert_eq!(client.call("ping", Value::Null).await, true);
    client.close().await;
    tokio::time::timeout(LIMIT, drained).await.expect("no socket is left").unwrap();
    bridge.shutdown().await;
}

#[tokio::test]
async fn sockets_are_told_to_move_evenly_over_the_window() {
    const SOCKETS: usize = 60;
    let bridge = bridge(4 * Duration::from_secs(1)).await;
    let address = sio::serve(app(&bridge)).await;
    let mut clients = Vec::new();
    for _ in 0..SOCKETS {
        clients.push(Client::connect(address, "").await);
    }
    let begun = Instant::now();
    let moving = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let (name, payload) = client.event().await;
            assert_eq!(name, "sessionMove");
            assert!(payload["withinMs"].as_u64().is_some_and(|ms| (700..=4000).contains(&ms)));
            client.close().await;
            begun.elapsed()
        })
    });
    let moving: Vec<_> = moving.collect();
    tokio::time::timeout(LIMIT, bridge.drain()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(3900), "all had moved: {:?}", begun.elapsed());
    let mut parts = [0; 3];
    for told in moving {
        let second = usize::try_from(told.await.unwrap().as_secs()).unwrap();
        parts[second.min(2)] += 1;
    }
    assert!(parts.iter().all(|&told| told < SOCKETS / 3 * 3 / 2), "{parts:?}");
    bridge.shutdown().await;
}

#[tokio::test]
async fn the_connection_of_a_socket_that_stays_is_closed_and_the_socket_is_not_disconnected() {
    let window = Duration::from_millis(400);
    let bridge = bridge(window).await;
    let address = sio::serve(app(&bridge)).await;
    let mut client = Client::connect(address, "").await;
    let begun = Instant::now();
    tokio::time::timeout(LIMIT, bridge.drain()).await.unwrap();
    assert!(begun.elapsed() >= window);
    client.until_disconnected().await;
    // A client does not come back after a packet that disconnects its socket.
    assert!(!client.was_sent_away, "by a packet of the server");
    client.close().await;
    until("the socket is detached", async || bridge.stats().sockets == 0).await;
    bridge.shutdown().await;
}

#[tokio::test]
async fn a_drain_without_sockets_is_over_at_once_and_the_message_can_be_switched_off() {
    let empty = bridge(LONG).await;
    tokio::time::timeout(LIMIT, empty.drain()).await.unwrap();
    assert!(empty.is_draining());
    empty.shutdown().await;

    let quiet = SocketMessages::default().moving(None);
    let builder = SessionBridge::builder().messages(quiet);
    let bridge = builder.drain_window(Duration::from_millis(100)).build().await.unwrap();
    let address = sio::serve(app(&bridge)).await;
    let mut client = Client::connect(address, "").await;
    tokio::time::timeout(LIMIT, bridge.drain()).await.unwrap();
    assert_eq!(client.last_events().await, []);
    bridge.shutdown().await;
}

#[tokio::test]
async fn a_server_with_a_bridge_sends_sockets_away_lets_handlers_finish_and_stops() {
    let bridge = bridge(Duration::from_millis(200)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let signal = CancellationToken::new();
    let serve = axum_io_session::serve(listener, app(&bridge))
        .with_bridge(&bridge)
        .with_graceful_shutdown(signal.clone().cancelled_owned());
    let server = tokio::spawn(serve.into_future());
    let mut events = bridge.events();
    let mut browser = Browser::default();
    browser.post(&app(&bridge), "/merge", r#"{"n":1}"#).await;
    let SessionEvent::Set(created) = support::next(&mut events).await else { panic!("no session") };
    let mut client = Client::connect(address, &browser.cookie_header()).await;
    let (handler, id) = (bridge.clone(), created.session_id);
    let handler = tokio::spawn(async move {
        let slow = async |session: axum_io_session::SessionContext| {
            tokio::time::sleep(Duration::from_millis(900)).await;
            session.insert("slow", true)
        };
        handler.with_session(&id, slow).await
    });
    until("the handler runs", async || bridge.stats().leases > 0).await;
    signal.cancel();
    let begun = Instant::now();
    tokio::time::timeout(LIMIT, server).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let told = client.last_events().await;
    assert!(told.iter().any(|(name, _)| name == "sessionMove"), "{told:?}");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it still listens");
    handler.await.unwrap().expect("a turn").expect("a write");
    assert!(bridge.nodes().await.is_err(), "the bridge still works");
}

#[tokio::test]
async fn a_stream_ends_while_its_node_drains() {
    let bridge = bridge(LONG).await;
    let live = async |session: Session| {
        session.until_end(Sse::new(stream::pending::<Result<Event, Infallible>>()))
    };
    let address = sio::serve(app_with(&bridge, Router::new().route("/live", get(live)))).await;
    let drained = async {
        until("the stream is attached", async || bridge.stats().sockets == 1).await;
        tokio::time::timeout(LIMIT, bridge.drain()).await.unwrap();
    };
    let ((status, _, body), ()) = tokio::join!(ask(address, "/live"), drained);
    assert!(
        status == 200 && body.contains("sessionDestroy") && body.contains("shutdown"),
        "{body}"
    );
    assert_eq!(bridge.stats().sockets, 0);
}

//! The server stops in time.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::WebSocketUpgrade;
use axum::routing::{any, get, post};
use axum::{Router, extract::State};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::peer::{Server, until_in};

/// A server that waits for it has failed.
const LONG: Duration = Duration::from_secs(600);

/// Handlers say that they run, and go on when they are asked to.
#[derive(Clone)]
struct Gate {
    runs: mpsc::Sender<()>,
    open: tokio_util::sync::CancellationToken,
}

fn app() -> (Router, mpsc::Receiver<()>, Gate) {
    let (runs, running) = mpsc::channel(16);
    let gate = Gate { runs, open: tokio_util::sync::CancellationToken::new() };
    let held = async |State(gate): State<Gate>| {
        gate.runs.send(()).await.unwrap();
        gate.open.cancelled().await;
        "done"
    };
    let endless = async |State(gate): State<Gate>| {
        gate.runs.send(()).await.unwrap();
        Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
    };
    let upload = async |State(gate): State<Gate>, body: Body| {
        gate.runs.send(()).await.unwrap();
        axum::body::to_bytes(body, 1000).await.map_or(0, |bytes| bytes.len()).to_string()
    };
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/held", get(held))
        .route("/endless", get(endless))
        .route("/upload", post(upload))
        .with_state(gate.clone());
    (router, running, gate)
}

#[tokio::test]
async fn a_request_finishes_and_its_connection_with_it() {
    let (app, mut running, gate) = app();
    let server = Server::start(app, |serve| serve.shutdown_timeout(LONG)).await;
    let mut peer = server.peer().await;
    peer.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n").await;
    until_in(running.recv()).await;
    let mut idle = server.peer().await;
    assert!(idle.get("/").await.ends_with("here"));
    server.signal();
    assert_eq!(idle.until_closed().await, "", "an idle connection is closed at once");
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "it still listens");
    assert!(server.runs());
    gate.open.cancel();
    let answer = peer.until_closed().await;
    assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
    server.ended().await;
}

#[tokio::test]
async fn half_a_header_half_a_body_and_a_silent_client_do_not_keep_it() {
    let (app, mut running, _gate) = app();
    let server = Server::start(app, |serve| serve.shutdown_timeout(LONG)).await;
    let (mut header, mut body) = (server.peer().await, server.peer().await);
    let mut silent = server.peer().await;
    let mut second = server.peer().await;
    assert!(second.get("/").await.ends_with("here"));
    second.send("GET / HT").await;
    header.send("GET / HTTP/1.1\r\nHost:").await;
    body.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf").await;
    until_in(running.recv()).await;
    server.signal();
    let asked = Instant::now();
    server.ended().await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    for peer in [&mut header, &mut body, &mut silent, &mut second] {
        assert_eq!(peer.until_closed().await, "");
    }
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_waited_for() {
    let (app, mut running, _gate) = app();
    let server = Server::start(app, |serve| serve.shutdown_timeout(LONG)).await;
    let mut peer = server.peer().await;
    peer.send("POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n").await;
    until_in(running.recv()).await;
    server.signal();
    for _ in 0..10 {
        peer.send("x").await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let answer = peer.until_closed().await;
    assert!(answer.ends_with("\r\n\r\n10"), "{answer}");
    server.ended().await;
}

#[tokio::test]
async fn what_never_ends_is_aborted_after_the_limit() {
    let (app, mut running, _gate) = app();
    let limit = Duration::from_millis(500);
    let server = Server::start(app, |serve| serve.shutdown_timeout(limit)).await;
    let (mut held, mut endless) = (server.peer().await, server.peer().await);
    held.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n").await;
    endless.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n").await;
    for _ in 0..2 {
        until_in(running.recv()).await;
    }
    server.stop().await;
    assert_eq!(held.until_closed().await, "");
    endless.until_closed().await;
}

#[tokio::test]
async fn a_websocket_outlives_the_timeouts_and_ends_when_the_server_stops() {
    let echo = async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            while let Some(Ok(message)) = socket.next().await {
                if socket.send(message).await.is_err() {
                    break;
                }
            }
        })
    };
    let short = Duration::from_millis(200);
    let server = Server::start(Router::new().route("/", any(echo)), |serve| {
        serve.header_timeout(short).idle_timeout(short).shutdown_timeout(short)
    })
    .await;
    let url = format!("ws://{}/", server.address);
    let (mut socket, _) = until_in(tokio_tungstenite::connect_async(url)).await.unwrap();
    for _ in 0..4 {
        socket.send(Message::Text("hello".into())).await.unwrap();
        let echoed = until_in(socket.next()).await.unwrap().unwrap();
        assert_eq!(echoed.into_text().unwrap().as_str(), "hello");
        tokio::time::sleep(short).await;
    }
    server.stop().await;
    assert!(!matches!(until_in(socket.next()).await, Some(Ok(_))), "its connection is closed");
}

//! The server: what clients may do to it, and how it stops.
#![allow(unreachable_pub)] // its files are modules of one program
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

#[path = "serve/limits.rs"]
mod limits;
#[path = "serve/peer.rs"]
mod peer;
#[path = "serve/stop.rs"]
mod stop;

use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use peer::{Peer, Server, until_in};
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use tokio::net::{TcpListener, UnixListener, UnixStream};

#[tokio::test]
async fn accepted_connections_have_nodelay() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut accepted) = tokio::sync::mpsc::channel(1);
    let listener = listener.tap_io(move |stream| {
        let socket = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned().unwrap());
        assert!(!socket.nodelay().unwrap(), "that is the system's default");
        sender.try_send(socket).unwrap();
    });
    let app = Router::new().route("/", get(|| async { "here" }));
    let server = tokio::spawn(axum_io_session::serve(listener, app).into_future());
    let mut peer = Peer::connect(address).await;
    assert!(peer.get("/").await.ends_with("here"));
    let socket = until_in(accepted.recv()).await.unwrap();
    assert!(socket.nodelay().unwrap());
    server.abort();
}

#[tokio::test]
async fn long_polling_works_through_a_fallback_that_is_a_handler() {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", async |_: SocketRef| {});
    let app = Router::new().fallback(async || "fallback").layer(layer);
    let server = Server::start(app, |serve| serve).await;
    let path = "/socket.io/?EIO=4&transport=polling";
    let opened = server.peer().await.get(path).await;
    let (_, sid) = opened.split_once("\"sid\":\"").expect("a handshake");
    let (sid, _) = sid.split_once('"').unwrap();
    let path = format!("{path}&sid={sid}");
    let posted = server.peer().await.post(&path, "40").await;
    assert!(posted.starts_with("HTTP/1.1 200"), "{posted}");
    let polled = server.peer().await.get(&path).await;
    assert!(polled.contains("\r\n\r\n40{"), "{polled}");
    server.stop().await;
}

#[tokio::test]
async fn handlers_know_the_address_of_the_client() {
    let address = async |ConnectInfo(client): ConnectInfo<SocketAddr>| client.to_string();
    let server = Server::start(Router::new().route("/", get(address)), |serve| serve).await;
    let mut peer = server.peer().await;
    let own = peer.address().to_string();
    assert!(peer.get("/").await.ends_with(&own));
    server.stop().await;
}

#[tokio::test]
async fn any_listener_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let app = Router::new().route("/", get(|| async { "here" }));
    let server = tokio::spawn(axum_io_session::serve(listener, app).into_future());
    let mut peer = Peer::over(UnixStream::connect(&path).await.unwrap());
    assert!(peer.get("/").await.ends_with("here"));
    server.abort();
    let _ = server.await;
    peer.until_closed().await;
}

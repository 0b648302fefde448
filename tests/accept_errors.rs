//! A process without file descriptors. Alone in its program, for it takes all of them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

#[tokio::test]
async fn a_server_without_file_descriptors_goes_on_when_there_are_some() {
    let process = std::process::id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &process, "--nofile=200:"]).status();
    assert!(limited.expect("prlimit of util-linux").success());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/", get(|| async { "here" }));
    let server = tokio::spawn(axum_io_session::serve(listener, app).into_future());
    // The client's own, before none is left.
    let socket = TcpSocket::new_v4().unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
        assert!(taken.len() < 200, "the limit does not hold");
    }
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let early = tokio::time::timeout(Duration::from_millis(300), stream.read_to_string(&mut text));
    assert!(early.await.is_err(), "it was accepted without a descriptor: {text}");
    assert!(!server.is_finished());
    drop(taken);
    let answered = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut text));
    answered.await.expect("an answer in time").unwrap();
    assert!(text.ends_with("here"), "{text}");
    server.abort();
}

//! Clients that are slow, and a system that has no room.

use std::time::Duration;

use axum::Router;
use axum::routing::get;

use crate::peer::Server;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(600);

fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "here" }))
        .route("/slow", get(async || tokio::time::sleep(4 * SHORT).await))
}

#[tokio::test]
async fn half_a_header_is_given_up_and_a_slow_handler_is_not() {
    let server = Server::start(app(), |serve| serve.header_timeout(SHORT).idle_timeout(LONG)).await;
    let (mut half, mut silent) = (server.peer().await, server.peer().await);
    let mut later = server.peer().await;
    assert!(later.get("/").await.ends_with("here"));
    half.send("GET / HTTP/1.1\r\nHost:").await;
    later.send("GET / HT").await;
    let mut slow = server.peer().await;
    assert!(slow.get("/slow").await.starts_with("HTTP/1.1 200"));
    assert_eq!(half.until_closed().await, "");
    assert_eq!(silent.until_closed().await, "");
    assert_eq!(later.until_closed().await, "");
    assert!(slow.get("/").await.ends_with("here"), "an idle one is kept");
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::start(app(), |serve| serve.header_timeout(LONG).idle_timeout(SHORT)).await;
    let (mut idle, mut new) = (server.peer().await, server.peer().await);
    assert!(idle.get("/").await.ends_with("here"));
    assert_eq!(idle.until_closed().await, "");
    assert!(new.get("/").await.ends_with("here"), "one without a request has longer");
    server.stop().await;
}

//! Applications below a path of another router, or behind a fallback.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::convert::Infallible;

use axum::Router;
use axum::http::StatusCode;
use axum_io_session::socket::attach;
use axum_io_session::{SessionBridge, SocketSessionExt as _, bridge_session};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use support::app::app;
use support::http::Browser;
use support::until;

async fn events(socket: SocketRef) -> Result<(), Infallible> {
    socket.on("get", async |socket: SocketRef, ack: AckSender| {
        let data = socket.with_session(async |session| json!(session.data())).await;
        let _ = ack.send(&data.unwrap_or_else(|error| json!(error.to_string())));
    });
    Ok(())
}

/// An application with Socket.IO and sessions.
fn whole(bridge: &SessionBridge, fallback: bool) -> Router {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));
    let mut routes = app(bridge);
    if fallback {
        routes = routes.fallback(async || (StatusCode::IM_A_TEAPOT, "the fallback"));
    }
    bridge_session(routes, layer, bridge)
}

/// A socket by polling, which needs the same engine for all its requests, sees the session that
/// requests beside it made.
async fn works(router: &Router, path: &str) {
    let mut browser = Browser::new();
    let made = browser.post(router, &format!("{path}/merge"), r#"{"n":1}"#).await;
    assert_eq!(made.status, StatusCode::OK, "{path}");
    let polling = format!("{path}/socket.io/?EIO=4&transport=polling");
    let opened = browser.get(router, &polling).await;
    assert_eq!(opened.status, StatusCode::OK, "{path}: {}", opened.body);
    let packet: Value = serde_json::from_str(opened.body.strip_prefix('0').unwrap()).unwrap();
    let uri = format!("{polling}&sid={}", packet["sid"].as_str().unwrap());
    let send = async |packet: &str| {
        let sent = browser.clone().post(router, &uri, packet).await;
        assert_eq!((sent.status, sent.body.as_str()), (StatusCode::OK, "ok"), "{path}");
    };
    let receives = async |beginning: &str| {
        let mut found = String::new();
        until("a packet comes", async || {
            let polled = browser.clone().get(router, &uri).await;
            assert_eq!(polled.status, StatusCode::OK, "{path}: {}", polled.body);
            found = polled.body;
            found.starts_with(beginning)
        })
        .await;
        found
    };
    send("40").await;
    receives("40{").await;
    send(r#"421["get"]"#).await;
    assert_eq!(receives("431").await, r#"431[{"n":1}]"#, "{path}");
}

#[tokio::test]
async fn sockets_and_sessions_work_wherever_an_application_is_mounted() {
    for fallback in [false, true] {
        let bridge = support::bridge().await;
        works(&whole(&bridge, fallback), "").await;
        works(&Router::new().nest("/app", whole(&bridge, fallback)), "/app").await;
        works(&Router::new().nest_service("/app", whole(&bridge, fallback)), "/app").await;
        let inner = Router::new().nest("/b", whole(&bridge, fallback));
        works(&Router::new().nest_service("/a", inner), "/a/b").await;
        works(&Router::new().fallback_service(whole(&bridge, fallback)), "").await;
    }
}

#[tokio::test]
async fn fallbacks_get_what_is_neither_a_route_nor_a_socket() {
    let bridge = support::bridge().await;
    for (router, uri) in [
        (whole(&bridge, true), "/none"),
        (Router::new().nest("/app", whole(&bridge, true)), "/app/none"),
        (Router::new().nest_service("/app", whole(&bridge, true)), "/app/none"),
    ] {
        let answer = Browser::new().get(&router, uri).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (StatusCode::IM_A_TEAPOT, "the fallback")
        );
    }
    let outer =
        Router::new().nest("/app", whole(&bridge, false)).fallback(async || "the outer one");
    assert_eq!(Browser::new().get(&outer, "/app/none").await.body, "the outer one");
}

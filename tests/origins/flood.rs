//! Handshakes that are never followed by a socket.

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;

use crate::support::http::Browser;
use crate::support::sio::{Client, serve};
use crate::support::until;
use crate::{POLLING, World, builder, world, world_of};

/// Opens a connection; its polling address.
async fn opened(world: &World) -> Option<(Browser, String)> {
    let mut browser = Browser::new();
    let answer = browser.get(&world.app, POLLING).await;
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        assert_eq!(answer.headers[RETRY_AFTER], "7");
        assert!(answer.headers.get("set-cookie").is_none() && answer.body.is_empty());
        return None;
    }
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let sid = answer.body.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap();
    Some((browser, format!("{POLLING}&sid={sid}")))
}

async fn limited() -> World {
    let builder = builder().pending_sockets_limit(2).retry_after(Duration::from_secs(7));
    world(builder).await
}

#[tokio::test]
async fn beyond_the_limit_handshakes_are_refused_and_nothing_else_until_one_is_closed() {
    // Socket.IO keeps a closed connection without a socket until its time to connect one is over.
    let builder = builder().pending_sockets_limit(2).retry_after(Duration::from_secs(7));
    let world = world_of(builder, Duration::from_secs(2)).await;
    let (browser, first) = opened(&world).await.unwrap();
    let _second = opened(&world).await.unwrap();
    assert!(opened(&world).await.is_none());
    assert_eq!(world.bridge.stats().refused_handshakes, 1);
    // Nothing else is refused.
    assert_eq!(Browser::new().post(&world.app, "/", "").await.status, StatusCode::OK);
    // Engine.IO's packet that closes a connection.
    assert_eq!(world.say(&browser, "POST", &first, &[], "1").await.status, StatusCode::OK);
    until("a place is free", async || opened(&world).await.is_some()).await;
}

#[tokio::test]
async fn connections_that_never_connect_a_socket_give_their_places_back() {
    let builder = builder().pending_sockets_limit(2).retry_after(Duration::from_secs(7));
    let world = world_of(builder, Duration::from_secs(1)).await;
    for _ in 0..3 {
        until("a place is free", async || opened(&world).await.is_some()).await;
    }
    assert!(world.bridge.stats().refused_handshakes > 0);
    until("all are forgotten", async || world.bridge.stats().tables["engines"] == 0).await;
}

#[tokio::test]
async fn a_connection_with_a_socket_takes_no_place() {
    let world = limited().await;
    let (browser, first) = opened(&world).await.unwrap();
    let (other, second) = opened(&world).await.unwrap();
    for (browser, uri) in [(browser, first), (other, second)] {
        assert!(opened(&world).await.is_none());
        assert_eq!(world.say(&browser, "POST", &uri, &[], "40").await.status, StatusCode::OK);
        until("its place is free", async || opened(&world).await.is_some()).await;
    }
}

#[tokio::test]
async fn sockets_that_connect_are_not_limited() {
    let world = limited().await;
    let address = serve(world.app.clone()).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(Client::connect(address, "").await);
    }
    assert_eq!(world.bridge.stats().refused_handshakes, 0);
    assert_eq!(world.bridge.stats().sockets, 5);
}

#[tokio::test]
async fn handshakes_that_open_nothing_take_no_place() {
    let world = limited().await;
    for uri in ["/socket.io/?EIO=4&transport=carrier-pigeon", "/socket.io/?EIO=9", "/?EIO=4"] {
        for _ in 0..5 {
            let answer = Browser::new().get(&world.app, uri).await;
            assert_ne!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{uri}");
        }
    }
    assert!(opened(&world).await.is_some());
    assert_eq!(world.bridge.stats().refused_handshakes, 0);
}

//! The id of an Engine.IO connection opens nothing without the client cookie of its handshake.

use axum::http::StatusCode;
use axum_io_session::bridge::ClientCookie;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use crate::support::http::{Answer, Browser};
use crate::support::sio::serve;
use crate::support::{LIMIT, until};
use crate::{POLLING, World, builder, world};

/// Opens a connection by polling; the browser takes over the cookies.
async fn open(world: &World, browser: &mut Browser) -> String {
    let opened = browser.get(&world.app, POLLING).await;
    assert_eq!(opened.status, StatusCode::OK, "{}", opened.body);
    let packet: Value = serde_json::from_str(opened.body.strip_prefix('0').unwrap()).unwrap();
    format!("{POLLING}&sid={}", packet["sid"].as_str().unwrap())
}

async fn post(world: &World, browser: &Browser, uri: &str, packet: &str) -> Answer {
    world.say(browser, "POST", uri, &["content-type: text/plain"], packet).await
}

/// Whether all of these were refused, and counted.
async fn refused(world: &World, browser: &Browser, uri: &str) -> bool {
    let before = world.bridge.stats().refused_engine_ids;
    let mut count = 0;
    for (method, uri) in [
        ("GET", uri.to_owned()),
        ("POST", uri.to_owned()),
        ("GET", uri.replace("polling", "websocket")),
    ] {
        let answer = world.say(browser, method, &uri, &[], "40").await;
        if answer.status == StatusCode::FORBIDDEN {
            assert!(answer.headers.get("set-cookie").is_none());
            assert_eq!(answer.body, "");
            count += 1;
        }
    }
    assert_eq!(world.bridge.stats().refused_engine_ids - before, count);
    assert!(count == 0 || count == 3, "some were refused and others not");
    count == 3
}

/// Browsers that are not the one that opened the connection.
async fn others(world: &World, own: &Browser) -> Vec<(&'static str, Browser)> {
    let mut other = Browser::new();
    other.post(&world.app, "/", "").await;
    // Its own session's cookie alone makes nobody the client that a connection belongs to.
    let mut session_only = own.clone();
    session_only.jar.remove("sid.cid");
    let mut forged = own.clone();
    let value = forged.jar["sid.cid"].clone();
    let first = if value.starts_with('A') { "B" } else { "A" };
    forged.jar.insert("sid.cid".into(), format!("{first}{}", &value[1..]));
    vec![
        ("another client", other),
        ("no cookies", Browser::new()),
        ("the session cookie alone", session_only),
        ("a forged cookie", forged),
    ]
}

#[tokio::test]
async fn polls_posts_and_upgrades_need_the_client_cookie_of_their_handshake() {
    let world = world(builder()).await;
    for begun in [false, true] {
        let mut browser = Browser::new();
        let method = if begun { "POST" } else { "GET" };
        browser.jar = {
            let mut known = Browser::new();
            let request = known.request(method, "/").body(axum::body::Body::empty()).unwrap();
            known.send(&world.app, request).await;
            known.jar
        };
        let uri = open(&world, &mut browser).await;
        for (what, other) in others(&world, &browser).await {
            assert!(refused(&world, &other, &uri).await, "{what}");
        }
        // The connection lives on, for its own client.
        let connected = post(&world, &browser, &uri, "40").await;
        assert_eq!((connected.status, connected.body.as_str()), (StatusCode::OK, "ok"));
        let connected = async || {
            let polled = browser.clone().get(&world.app, &uri).await;
            assert_eq!(polled.status, StatusCode::OK, "{}", polled.body);
            polled.body.contains("40{")
        };
        until("it is said to be connected", connected).await;
        for (what, other) in others(&world, &browser).await {
            assert!(refused(&world, &other, &uri).await, "{what}, of a connected socket");
        }
    }
}

#[tokio::test]
async fn a_handshake_without_cookies_goes_on_without_them_until_the_issued_one_was_seen() {
    let world = world(builder()).await;
    let mut browser = Browser::new();
    let uri = open(&world, &mut browser).await;
    // A client that keeps no cookies, or has not got the answer yet.
    let connected = post(&world, &Browser::new(), &uri, "40").await;
    assert_eq!((connected.status, connected.body.as_str()), (StatusCode::OK, "ok"));
    let polled = Browser::new().get(&world.app, &uri).await;
    assert_eq!(polled.status, StatusCode::OK, "{}", polled.body);
    let mut other = Browser::new();
    other.get(&world.app, "/").await;
    assert!(refused(&world, &other, &uri).await, "another client's cookie is never right");
    // From the first request on that carries the cookie, all have to.
    assert_eq!(post(&world, &browser, &uri, "3").await.status, StatusCode::OK);
    assert!(refused(&world, &Browser::new(), &uri).await);
    assert_eq!(post(&world, &browser, &uri, "3").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upgrade_with_the_right_cookie_is_one_and_with_another_is_not() {
    let world = world(builder()).await;
    let address = serve(world.app.clone()).await;
    let mut browser = Browser::new();
    browser.get(&world.app, "/").await;
    let uri = open(&world, &mut browser).await.replace("polling", "websocket");
    let upgrade = async |cookies: &str| {
        let mut request = format!("ws://{address}{uri}").into_client_request().unwrap();
        if !cookies.is_empty() {
            request.headers_mut().insert("cookie", cookies.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((stream, _)) => Ok(stream),
            Err(WsError::Http(answer)) => Err(answer.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    };
    let mut other = Browser::new();
    other.get(&world.app, "/").await;
    for cookies in ["", &other.cookie_header()] {
        assert_eq!(upgrade(cookies).await.err(), Some(403));
    }
    let mut stream = upgrade(&browser.cookie_header()).await.unwrap();
    stream.send(Message::text("2probe")).await.unwrap();
    let answer = tokio::time::timeout(LIMIT, stream.next()).await.expect("an answer in time");
    assert_eq!(answer.unwrap().unwrap(), Message::text("3probe"));
    assert_eq!(world.bridge.stats().refused_engine_ids, 2);
}

#[tokio::test]
async fn a_handshake_sets_the_client_cookie_that_its_connection_needs() {
    for policy in [ClientCookie::Always, ClientCookie::WithSession, ClientCookie::WhenNew] {
        let world = world(builder().client_cookie(policy)).await;
        let mut browser = Browser::new();
        let uri = open(&world, &mut browser).await;
        assert!(browser.jar.contains_key("sid.cid"), "{policy:?}");
        assert_eq!(post(&world, &browser, &uri, "40").await.status, StatusCode::OK, "{policy:?}");
        // A known client's is rolled there.
        let again = browser.get(&world.app, POLLING).await;
        let rolled = again.set_cookie("sid.cid").is_some();
        assert_eq!(rolled, policy != ClientCookie::WhenNew, "{policy:?}");
    }
}

#[tokio::test]
async fn an_id_that_names_no_connection_is_left_to_socket_io() {
    let world = world(builder()).await;
    let answer = Browser::new().get(&world.app, &format!("{POLLING}&sid=AAAAAAAAAAAAAAAA")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(world.bridge.stats().refused_engine_ids, 0);
}

#[tokio::test]
async fn connections_are_forgotten_when_they_end() {
    let world = world(builder()).await;
    let mut browser = Browser::new();
    let uri = open(&world, &mut browser).await;
    let held = || world.bridge.stats().tables["engines"];
    assert_eq!(held(), 2, "its id, and that it has no socket yet");
    assert_eq!(post(&world, &browser, &uri, "40").await.status, StatusCode::OK);
    until("it has a socket", async || held() == 1).await;
    assert_eq!(post(&world, &browser, &uri, "1").await.status, StatusCode::OK);
    until("it is forgotten", async || held() == 0).await;
}

//! The store is away: what requests and sockets get meanwhile, and that nobody is logged out by it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum_io_session::bridge::{SessionBridgeBuilder, WhenUnavailable};
use axum_io_session::socket::attach;
use axum_io_session::{
    ClientId, Error, ErrorKind, MaxAge, Renewal, Session, SessionBridge, SessionId,
    SocketSessionExt as _, bridge_session,
};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use support::app::app;
use support::http::Browser;
use support::probe::ProbeStore;
use support::sio::{Client, serve};
use support::{KEY, OTHER_KEY};

fn builder(store: &ProbeStore) -> SessionBridgeBuilder {
    SessionBridge::builder().signing_keys([KEY]).store(store.clone())
}

fn anonymous(store: &ProbeStore) -> SessionBridgeBuilder {
    builder(store).when_unavailable(WhenUnavailable::Anonymous)
}

/// All that a handler can find out and try, as one JSON object.
async fn everything(session: Session, client: ClientId, id: Option<SessionId>) -> String {
    let kind = |tried: Result<(), Error>| match tried {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    let tried = [
        kind(session.insert("a", 2).map(drop)),
        kind(session.remove("a").map(drop)),
        kind(session.replace(json!({ "b": 1 }))),
        kind(session.destroy()),
        kind(session.rotate()),
        kind(session.set_max_age(MaxAge::Browser)),
        kind(session.update(|data| data.insert("a", 2)).await.map(drop)),
        kind(session.save().await),
    ];
    json!({
        "unavailable": session.is_unavailable(), "id": session.id(), "extracted": id,
        "client": session.client_id(), "extracted_client": client, "new": session.is_new(),
        "data": session.data(), "a": session.get::<Value>("a").unwrap(), "tried": tried,
    })
    .to_string()
}

fn with_everything(bridge: &SessionBridge) -> Router {
    Router::new()
        .route("/everything", get(everything))
        .route("/peek", get(async |session: Session| session.is_unavailable().to_string()))
        .layer(bridge.layer())
        .merge(app(bridge))
}

// ---- Retry-After ---------------------------------------------------------------------------

#[tokio::test]
async fn retry_after_is_as_configured_wherever_the_503_comes_from() {
    let store = ProbeStore::new();
    let builder = builder(&store).retry_after(Duration::from_millis(6_001));
    let bridge = builder.build().await.unwrap();
    let breaker = store.clone();
    let failed_commit = async move |session: Session| {
        session.insert("a", 1)?;
        breaker.set_broken(true);
        Ok::<_, Error>(())
    };
    let routes = Router::new().route("/commit", post(failed_commit)).layer(bridge.layer());
    let app = app(&bridge).merge(routes);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let commit = Browser::new().post(&app, "/commit", "").await;
    let extractor = browser.get(&app, "/read").await;
    let handler = Browser::new().post(&app, "/inc", "").await;
    for answer in [commit, extractor, handler] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.body);
        // Whole seconds, rounded up.
        assert_eq!(answer.headers[RETRY_AFTER], "7", "{}", answer.body);
        assert_eq!(answer.headers.get_all(RETRY_AFTER).iter().count(), 1);
    }
    assert_eq!(bridge.stats().errors, 3 - 1, "a handler's own `?` is not counted by the layer");
}

#[tokio::test]
async fn answers_of_handlers_keep_their_own_retry_after() {
    fn error() -> Error {
        Error::new(ErrorKind::Unavailable, "made by a handler")
    }
    async fn changed() -> Response {
        let mut answer = error().into_response();
        answer.headers_mut().insert(RETRY_AFTER, "300".parse().unwrap());
        answer
    }
    let bridge = SessionBridge::builder().signing_keys([KEY]).retry_after(Duration::from_secs(9));
    let bridge = bridge.build().await.unwrap();
    let busy = StatusCode::SERVICE_UNAVAILABLE;
    let app = Router::new()
        .route("/one", get(async move || (busy, [(RETRY_AFTER, "1")])))
        .route("/date", get(async move || (busy, [(RETRY_AFTER, "Fri, 31 Dec 2100 23:59:59 GMT")])))
        .route("/none", get(async move || busy))
        .route("/changed", get(changed))
        .route("/status", get(async || (StatusCode::BAD_GATEWAY, error())))
        .layer(bridge.layer())
        .route("/outside", get(async || error()));
    for (uri, expected) in [
        ("/one", Some("1")),
        ("/date", Some("Fri, 31 Dec 2100 23:59:59 GMT")),
        ("/none", None),
        ("/changed", Some("300")),
        ("/status", Some("1")),
        // No layer, no option.
        ("/outside", Some("1")),
    ] {
        let answer = Browser::new().get(&app, uri).await;
        let found = answer.headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap());
        assert_eq!(found, expected, "{uri}");
    }
}

// ---- anonymous -----------------------------------------------------------------------------

#[tokio::test]
async fn an_anonymous_session_shows_nothing_refuses_every_change_and_touches_no_session_cookie() {
    let store = ProbeStore::new();
    let bridge = anonymous(&store).build().await.unwrap();
    let app = with_everything(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let (jar, client) = (browser.jar.clone(), browser.get(&app, "/client").await.body);
    store.set_broken(true);
    let answer = browser.get(&app, "/everything").await;
    assert_eq!(answer.status, StatusCode::OK);
    let seen = answer.json();
    assert_eq!(seen["unavailable"], true);
    assert_eq!(seen["tried"], json!(vec!["Unavailable"; 8]), "{seen}");
    assert_eq!((&seen["id"], &seen["extracted"]), (&Value::Null, &Value::Null));
    assert_eq!((&seen["data"], &seen["a"], &seen["new"]), (&json!({}), &Value::Null, &json!(true)));
    assert_eq!((&seen["client"], &seen["extracted_client"]), (&json!(client), &json!(client)));
    assert!(answer.set_cookie("sid").is_none());
    for (uri, body) in [("/merge", r#"{"b":1}"#), ("/inc", ""), ("/logout", ""), ("/rotate", "")] {
        let refused = browser.post(&app, uri, body).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{uri}");
        assert_eq!(refused.headers[RETRY_AFTER], "1", "{uri}");
        assert!(refused.body.contains("try again later"), "{}", refused.body);
        assert!(refused.set_cookie("sid").is_none(), "{uri}");
    }
    // Rolled, as always: it was verified without the store.
    assert_eq!(browser.jar, jar);
    assert_eq!(bridge.stats().served_anonymously, 5);
    store.set_broken(false);
    let back = browser.get(&app, "/everything").await.json();
    assert_eq!((&back["unavailable"], &back["client"]), (&json!(false), &json!(client)));
    assert_ne!(back["extracted"], Value::Null);
    let metrics = axum_io_session::monitor::prometheus(&bridge);
    assert!(metrics.contains("axum_io_session_served_anonymously_total{node="), "{metrics}");
}

#[tokio::test]
async fn who_reads_anonymously_is_not_renewed_and_not_logged_out() {
    let store = ProbeStore::new();
    for renewal in [Renewal::EveryResponse, Renewal::PastHalf] {
        let bridge = anonymous(&store).renewal(renewal).build().await.unwrap();
        let app = with_everything(&bridge);
        let mut browser = Browser::new();
        browser.post(&app, "/merge", r#"{"a":1}"#).await;
        let jar = browser.jar.clone();
        store.set_broken(true);
        let before = (store.reads(), store.touches(), store.writes());
        let peeked = browser.get(&app, "/peek").await;
        assert_eq!((peeked.status, peeked.body.as_str()), (StatusCode::OK, "true"));
        assert!(peeked.set_cookie("sid").is_none());
        let (reads, touches, writes) = (store.reads(), store.touches(), store.writes());
        assert_eq!((reads, touches, writes), (before.0 + 1, before.1, before.2), "asked once");
        // A request that has no use for it is no anonymous one.
        assert!(browser.get(&app, "/plain").await.set_cookie("sid").is_none());
        assert_eq!(bridge.stats().served_anonymously, 1);
        store.set_broken(false);
        assert_eq!(browser.jar, jar);
        assert_eq!(browser.get(&app, "/read").await.json()["data"]["a"], 1);
    }
}

#[tokio::test]
async fn a_session_cookie_alone_is_served_anonymously_and_gets_no_new_client() {
    let store = ProbeStore::new();
    let bridge = anonymous(&store).build().await.unwrap();
    let app = with_everything(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    let client = browser.get(&app, "/client").await.body;
    browser.jar.remove("sid.cid");
    store.set_broken(true);
    let reads = store.reads();
    let answer = browser.get(&app, "/peek").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "true"));
    assert_eq!(store.reads(), reads + 1, "asked once, not again for the session");
    assert!(answer.headers.get("set-cookie").is_none(), "{:?}", answer.headers);
    store.set_broken(false);
    assert_eq!(browser.get(&app, "/client").await.body, client);
}

#[tokio::test]
async fn cookies_that_an_older_key_signed_wait_until_the_store_is_back() {
    let store = ProbeStore::new();
    let old = anonymous(&store).signing_keys([OTHER_KEY]).build().await.unwrap();
    let mut browser = Browser::new();
    browser.post(&app(&old), "/merge", r#"{"a":1}"#).await;
    let new = anonymous(&store).signing_keys([KEY, OTHER_KEY]).build().await.unwrap();
    let app = with_everything(&new);
    store.set_broken(true);
    let answer = browser.get(&app, "/peek").await;
    assert_eq!(answer.body, "true");
    assert!(answer.set_cookie("sid").is_none());
    // The same client by the newer key.
    assert!(answer.set_cookie("sid.cid").is_some());
    store.set_broken(false);
    let back = browser.get(&app, "/read").await;
    assert_eq!(back.json()["data"]["a"], 1);
    assert!(back.set_cookie("sid").is_some());
}

#[tokio::test]
async fn without_a_session_cookie_nothing_is_unavailable_until_something_is_written() {
    let store = ProbeStore::new();
    let bridge = anonymous(&store).build().await.unwrap();
    let app = with_everything(&bridge);
    store.set_broken(true);
    let mut browser = Browser::new();
    assert_eq!(browser.get(&app, "/peek").await.body, "false");
    assert_eq!(browser.get(&app, "/plain").await.status, StatusCode::OK);
    let refused = browser.post(&app, "/merge", r#"{"a":1}"#).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.set_cookie("sid").is_none());
    assert_eq!((store.reads(), bridge.stats().served_anonymously), (0, 0));
}

#[tokio::test]
async fn a_cookie_that_is_no_good_is_left_alone_and_is_not_looked_up() {
    let store = ProbeStore::new();
    let app = with_everything(&anonymous(&store).build().await.unwrap());
    store.set_broken(true);
    let mut browser = Browser::new();
    browser.jar.insert("sid".into(), "forged".into());
    let answer = browser.get(&app, "/peek").await;
    assert_eq!(answer.body, "false");
    assert!(answer.set_cookie("sid").is_none());
    assert_eq!(store.reads(), 0);
}

#[tokio::test]
async fn a_node_that_stops_refuses_rather_than_serving_as_anonymous() {
    let store = ProbeStore::new();
    let bridge = anonymous(&store).build().await.unwrap();
    let app = with_everything(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    bridge.shutdown().await;
    assert_eq!(browser.get(&app, "/peek").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_refused_request_asks_the_store_once_even_if_it_would_be_renewed() {
    let store = ProbeStore::new();
    let bridge = builder(&store).renewal(Renewal::EveryResponse).build().await.unwrap();
    let app = app(&bridge);
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"a":1}"#).await;
    store.set_broken(true);
    let reads = store.reads();
    assert_eq!(browser.get(&app, "/read").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(store.reads(), reads + 1);
}

// ---- sockets -------------------------------------------------------------------------------

#[tokio::test]
async fn no_socket_connects_without_its_session_and_open_ones_are_told_the_store_is_away() {
    let store = ProbeStore::new();
    let bridge = anonymous(&store).build().await.unwrap();
    let (layer, io) = SocketIo::new_layer();
    let events = async |socket: SocketRef| {
        socket.on("inc", async |socket: SocketRef, ack: AckSender| {
            let counted = socket.try_with_session(|session| async move {
                let n = session.get::<i64>("n")?.unwrap_or(0) + 1;
                session.insert("n", n)?;
                Ok::<_, Error>(n)
            });
            let answer = match counted.await {
                Ok(n) => json!(n),
                Err(error) => json!(format!("{:?}", error.kind())),
            };
            let _ = ack.send(&answer);
        });
        Ok::<(), std::convert::Infallible>(())
    };
    io.ns("/", (async |_: SocketRef| {}).with(events).with(attach));
    let app = bridge_session(app(&bridge), layer, &bridge);
    let address = serve(app.clone()).await;
    let mut browser = Browser::new();
    browser.post(&app, "/merge", r#"{"n":0}"#).await;
    let mut open = Client::connect(address, &browser.cookie_header()).await;
    assert_eq!(open.call("inc", Value::Null).await, 1);
    store.set_broken(true);
    let mut early = Client::connect_to(address, "/", &browser.cookie_header()).await;
    assert_eq!(early.as_ref().err().map(String::as_str), Some("session unavailable"));
    assert_eq!(open.call("inc", Value::Null).await, "Store");
    store.set_broken(false);
    assert_eq!(open.call("inc", Value::Null).await, 2);
    early = Client::connect_to(address, "/", &browser.cookie_header()).await;
    assert_eq!(early.unwrap().call("inc", Value::Null).await, 3);
    assert_eq!(bridge.stats().served_anonymously, 0);
}

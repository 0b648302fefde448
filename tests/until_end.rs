//! Streams, downloads and handlers that end with their session.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_io_session::bridge::{OnDestroy, SessionBridgeBuilder, SocketMessages};
use axum_io_session::web::Cancellation;
use axum_io_session::{ErrorKind, Result, Session, SessionBridge, SessionEnd, SessionId};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use support::app::app;
use support::http::Browser;
use support::probe::ProbeStore;
use support::{KEY, LIMIT, until};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

/// What handlers hand to the test.
type Handed = mpsc::Sender<Cancellation>;

struct Ground {
    bridge: SessionBridge,
    store: ProbeStore,
    app: Router,
    handed: mpsc::Receiver<Cancellation>,
}

impl Ground {
    async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    async fn with(options: impl FnOnce(SessionBridgeBuilder) -> SessionBridgeBuilder) -> Self {
        let store = ProbeStore::new();
        let builder = SessionBridge::builder().signing_keys([KEY]).node_id("n");
        let bridge = options(builder).store(store.clone()).build().await.unwrap();
        let (hand, handed) = mpsc::channel(4);
        let streams = Router::new()
            .route("/silent", get(silent))
            .route("/busy", get(busy))
            .route("/half", get(half))
            .route("/download", get(download))
            .route("/new", get(new))
            .route("/follow", get(follow))
            .route("/rotate", get(rotate))
            .with_state(hand)
            .layer(bridge.layer());
        let app = app(&bridge).merge(streams);
        Self { bridge, store, app, handed }
    }

    async fn visitor(&self) -> Browser {
        let mut browser = Browser::new();
        assert!(browser.post(&self.app, "/merge", r#"{"a":1}"#).await.status.is_success());
        browser
    }

    /// Opens a stream of this browser.
    async fn open(&self, browser: &Browser, path: &str) -> Stream {
        let request = browser.request("GET", path).body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Stream(response.into_body())
    }

    /// Opens a stream that follows its session.
    async fn follows(&self, browser: &Browser, path: &str) -> Stream {
        let mut stream = self.open(browser, path).await;
        assert!(stream.is_silent().await);
        assert_eq!(self.bridge.stats().sockets, 1);
        stream
    }

    async fn cancellation(&mut self, browser: &mut Browser, path: &str) -> Cancellation {
        assert!(browser.get(&self.app, path).await.status.is_success());
        tokio::time::timeout(LIMIT, self.handed.recv()).await.unwrap().unwrap()
    }

    async fn id(&self, browser: &Browser) -> SessionId {
        SessionId::parse(&browser.clone().get(&self.app, "/id").await.body).unwrap()
    }
}

struct Stream(Body);

impl Stream {
    /// The next part; `Err` holds the error that broke it off.
    async fn next(&mut self) -> Option<std::result::Result<String, String>> {
        let frame = tokio::time::timeout(LIMIT, self.0.frame()).await.expect("a part in time")?;
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        Some(frame.map(|frame| text(frame.into_data().unwrap())).map_err(|e| e.to_string()))
    }

    async fn part(&mut self) -> String {
        self.next().await.expect("a part").expect("no error")
    }

    /// Whether nothing comes, after it has been asked for often enough to attach.
    async fn is_silent(&mut self) -> bool {
        let next = tokio::time::timeout(Duration::from_millis(50), self.0.frame());
        next.await.is_err()
    }

    /// The last event is the end, with this reason, and nothing follows.
    async fn ends_with(&mut self, reason: &str) {
        let last =
            format!("event: sessionDestroy\ndata: {{\"node\":\"n\",\"reason\":\"{reason}\"}}\n\n");
        assert_eq!(self.part().await, last);
        assert_eq!(self.next().await, None);
    }
}

async fn silent(session: Session) -> Response {
    session.until_end(Sse::new(stream::pending::<Result<Event, Infallible>>()))
}

/// Always has something to send.
async fn busy(session: Session) -> Response {
    session.until_end(Sse::new(stream::repeat_with(|| {
        Ok::<_, Infallible>(Event::default().data("x"))
    })))
}

/// Stands in the middle of an event.
async fn half(session: Session) -> Response {
    let parts = stream::iter(["data: h"]).chain(stream::pending()).map(Ok::<_, Infallible>);
    session.until_end(([("content-type", "text/event-stream")], Body::from_stream(parts)))
}

async fn download(session: Session) -> Response {
    let parts = stream::iter(["one"]).chain(stream::pending()).map(Ok::<_, Infallible>);
    session.until_end(Body::from_stream(parts))
}

/// Begins a session in the request that opens the stream, sealed.
async fn new(session: Session) -> Result<Response> {
    session.insert("a", 1)?;
    session.rotate()?;
    Ok(silent(session).await)
}

async fn follow(session: Session, State(hand): State<Handed>) -> Result<()> {
    hand.send(session.cancellation().await?).await.unwrap();
    Ok(())
}

/// Follows, and then seals the session itself.
async fn rotate(session: Session, State(hand): State<Handed>) -> Result<()> {
    hand.send(session.cancellation().await?).await.unwrap();
    session.rotate()
}

async fn reason(cancellation: &mut Cancellation) -> String {
    let end = tokio::time::timeout(LIMIT, cancellation.cancelled()).await.expect("an end in time");
    end.as_str().to_owned()
}

#[tokio::test]
async fn a_silent_stream_ends_at_a_logout_with_an_event_that_says_so() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut stream = ground.follows(&browser, "/silent").await;
    browser.clone().post(&ground.app, "/logout", "").await;
    stream.ends_with("destroyed").await;
    let stats = ground.bridge.stats();
    assert_eq!((stats.sockets, stats.sockets_attached, stats.sockets_detached), (0, 1, 1));
}

#[tokio::test]
async fn a_stream_ends_at_the_end_by_id_at_an_expiry_and_at_a_sealing() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut stream = ground.follows(&browser, "/silent").await;
    ground.bridge.destroy_by_id(&ground.id(&browser).await).await.unwrap();
    stream.ends_with("destroyed").await;

    let mut browser = ground.visitor().await;
    browser.post(&ground.app, "/age/1", "").await;
    ground.follows(&browser, "/silent").await.ends_with("expired").await;

    let browser = ground.visitor().await;
    let mut stream = ground.follows(&browser, "/silent").await;
    browser.clone().post(&ground.app, "/login", "{}").await;
    stream.ends_with("sealed").await;
}

#[tokio::test]
async fn a_busy_stream_sends_nothing_after_the_end() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut stream = ground.open(&browser, "/busy").await;
    assert_eq!(stream.part().await, "data: x\n\n");
    let mut events = ground.bridge.events();
    browser.clone().post(&ground.app, "/logout", "").await;
    // Listeners are told after the streams.
    while !matches!(support::next(&mut events).await, axum_io_session::SessionEvent::Destroy(_)) {}
    stream.ends_with("destroyed").await;
}

#[tokio::test]
async fn a_stream_in_the_middle_of_an_event_ends_without_another_one() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut stream = ground.open(&browser, "/half").await;
    assert_eq!(stream.part().await, "data: h");
    browser.clone().post(&ground.app, "/logout", "").await;
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_download_is_broken_off() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut stream = ground.open(&browser, "/download").await;
    assert_eq!(stream.part().await, "one");
    browser.clone().post(&ground.app, "/logout", "").await;
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(error.contains("session has ended"), "{error}");
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn streams_end_whatever_happens_to_sockets() {
    let ground = Ground::with(|builder| builder.on_destroy(OnDestroy::Nothing)).await;
    let browser = ground.visitor().await;
    let mut stream = ground.follows(&browser, "/silent").await;
    browser.clone().post(&ground.app, "/logout", "").await;
    stream.ends_with("destroyed").await;
}

#[tokio::test]
async fn the_last_event_has_the_name_of_the_message_to_sockets_or_is_left_out() {
    for (name, last) in [(Some("bye"), Some("event: bye\ndata: {\"node\":\"n\"")), (None, None)] {
        let messages = SocketMessages::default().destroy(name).include_ids(true);
        let ground = Ground::with(|builder| builder.messages(messages)).await;
        let browser = ground.visitor().await;
        let id = ground.id(&browser).await;
        let mut stream = ground.follows(&browser, "/silent").await;
        browser.clone().post(&ground.app, "/logout", "").await;
        let sent = stream.next().await.map(std::result::Result::unwrap);
        assert_eq!(sent.is_some(), last.is_some());
        if let (Some(sent), Some(last)) = (sent, last) {
            assert!(sent.starts_with(last) && sent.contains(id.as_str()), "{sent}");
        }
    }
}

#[tokio::test]
async fn a_stream_of_the_session_that_its_request_makes_follows_that_one() {
    let ground = Ground::new().await;
    let mut browser = Browser::new();
    let request = browser.request("GET", "/new").body(Body::empty()).unwrap();
    let response = ground.app.clone().oneshot(request).await.unwrap();
    for line in response.headers().get_all("set-cookie") {
        let cookie = cookie::Cookie::parse(line.to_str().unwrap().to_owned()).unwrap();
        browser.jar.insert(cookie.name().to_owned(), cookie.value().to_owned());
    }
    let mut stream = Stream(response.into_body());
    assert!(stream.is_silent().await);
    browser.post(&ground.app, "/logout", "").await;
    stream.ends_with("destroyed").await;
}

#[tokio::test]
async fn a_stream_whose_session_ends_before_it_begins_sends_nothing_but_the_end() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut stream = ground.open(&browser, "/busy").await;
    browser.clone().post(&ground.app, "/logout", "").await;
    stream.ends_with("reconciled").await;
    until("not watched", async || ground.bridge.stats().tables["clients"] == 0).await;
}

#[tokio::test]
async fn a_stream_that_can_not_be_followed_is_broken_off() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut stream = ground.open(&browser, "/busy").await;
    ground.store.set_broken(true);
    assert!(stream.next().await.unwrap().is_err());
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_new_id_without_new_rights_and_keep_alive_leave_a_stream_alone() {
    let ground = Ground::new().await;
    let mut browser = ground.visitor().await;
    let keep_alive = async |session: Session| {
        let keep = KeepAlive::new().interval(Duration::from_millis(20));
        session.until_end(Sse::new(stream::pending::<Result<Event, Infallible>>()).keep_alive(keep))
    };
    let kept = Router::new().route("/kept", get(keep_alive)).layer(ground.bridge.layer());
    let request = browser.request("GET", "/kept").body(Body::empty()).unwrap();
    let mut stream = Stream(kept.oneshot(request).await.unwrap().into_body());
    assert_eq!(stream.part().await, ":\n\n");
    browser.post(&ground.app, "/renew-id", "").await;
    assert_eq!(stream.part().await, ":\n\n");
    browser.post(&ground.app, "/logout", "").await;
    let end = async {
        loop {
            let part = stream.part().await;
            if part != ":\n\n" {
                return part;
            }
        }
    };
    assert!(end.await.contains("destroyed"));
}

#[tokio::test]
async fn connections_end_when_the_node_leaves_and_later_ones_at_once() {
    let mut ground = Ground::new().await;
    let mut browser = ground.visitor().await;
    let mut stream = ground.follows(&browser, "/silent").await;
    let mut cancellation = ground.cancellation(&mut browser, "/follow").await;
    ground.bridge.close_connections();
    stream.ends_with("shutdown").await;
    assert_eq!(cancellation.cancelled().await, SessionEnd::Shutdown);
    ground.open(&browser, "/busy").await.ends_with("shutdown").await;
    assert!(browser.get(&ground.app, "/read").await.status.is_success());

    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    let mut stream = ground.follows(&browser, "/silent").await;
    ground.bridge.shutdown().await;
    stream.ends_with("shutdown").await;
}

#[tokio::test]
async fn a_dropped_stream_leaves_nothing_behind() {
    let ground = Ground::new().await;
    let browser = ground.visitor().await;
    drop(ground.follows(&browser, "/silent").await);
    assert_eq!(ground.bridge.stats().sockets, 0);
    browser.clone().post(&ground.app, "/logout", "").await;
    until("not watched", async || ground.bridge.stats().tables["clients"] == 0).await;
}

#[tokio::test]
async fn a_handler_learns_of_a_logout_a_sealing_and_an_end_by_client() {
    let mut ground = Ground::new().await;
    for (path, expected) in [("/logout", "destroyed"), ("/login", "sealed")] {
        let mut browser = ground.visitor().await;
        let mut cancellation = ground.cancellation(&mut browser, "/follow").await;
        assert_eq!(cancellation.session_id(), Some(ground.id(&browser).await));
        assert_eq!(cancellation.run(async { 1 }).await, Ok(1));
        browser.post(&ground.app, path, "{}").await;
        assert_eq!(reason(&mut cancellation).await, expected);
        assert_eq!(reason(&mut cancellation).await, expected, "again");
        let stopped = cancellation.run(std::future::pending::<()>()).await;
        assert_eq!(stopped.unwrap_err().as_str(), expected);
    }
    let mut browser = ground.visitor().await;
    let client = ground.bridge.client_id_of(&ground.id(&browser).await).await.unwrap().unwrap();
    let mut cancellation = ground.cancellation(&mut browser, "/follow").await;
    ground.bridge.destroy_by_client_id(&client).await.unwrap();
    assert_eq!(reason(&mut cancellation).await, "destroyed");
}

#[tokio::test]
async fn a_sealing_by_the_request_itself_is_followed() {
    let mut ground = Ground::new().await;
    let mut browser = ground.visitor().await;
    let mut cancellation = ground.cancellation(&mut browser, "/rotate").await;
    let first = tokio::time::timeout(Duration::from_millis(100), cancellation.cancelled()).await;
    assert!(first.is_err(), "{first:?}");
    assert_eq!(cancellation.session_id(), Some(ground.id(&browser).await));
    browser.post(&ground.app, "/logout", "").await;
    assert_eq!(reason(&mut cancellation).await, "destroyed");
}

#[tokio::test]
async fn a_visitor_without_a_session_follows_the_open_one_that_comes() {
    let mut ground = Ground::new().await;
    let mut browser = Browser::new();
    browser.get(&ground.app, "/plain").await;
    let mut cancellation = ground.cancellation(&mut browser, "/follow").await;
    assert_eq!(cancellation.session_id(), None);
    browser.post(&ground.app, "/merge", r#"{"a":1}"#).await;
    let id = ground.id(&browser).await;
    until("it sees the session", async || cancellation.session_id() == Some(id)).await;
    browser.post(&ground.app, "/logout", "").await;
    assert_eq!(reason(&mut cancellation).await, "destroyed");
}

#[tokio::test]
async fn a_handler_that_can_not_follow_its_session_learns_so() {
    let ground = Ground::new().await;
    let mut browser = ground.visitor().await;
    let store = ground.store.clone();
    let handler = async move |session: Session| {
        store.set_broken(true);
        let failed = session.cancelled().await.unwrap_err().kind();
        store.set_broken(false);
        assert!(matches!(failed, ErrorKind::Store | ErrorKind::Unavailable), "{failed:?}");
        "failed".into_response()
    };
    let route = Router::new().route("/", get(handler)).layer(ground.bridge.layer());
    assert_eq!(browser.get(&route, "/").await.body, "failed");
}

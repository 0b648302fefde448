//! Streams and plain WebSockets on one node, whose sessions end on another one or in Redis.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use axum::response::sse::{Event, Sse};
use axum::routing::{any, get, post};
use axum_io_session::backend::redis::RedisConfig;
use axum_io_session::bridge::OnDestroy;
use axum_io_session::web::ws::{SessionSocket, SessionUpgrade};
use axum_io_session::{Result, Session, SessionBridge, SessionId};
use cluster_tests::{PREFIX, Redis};
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tower::ServiceExt as _;

const LIMIT: Duration = Duration::from_secs(30);

struct Node {
    bridge: SessionBridge,
    app: Router,
    address: SocketAddr,
}

async fn node(url: &str, name: &str) -> Node {
    let bridge = SessionBridge::builder()
        .signing_keys(["a test key of at least thirty-two bytes"])
        .node_id(name)
        .on_destroy(OnDestroy::Disconnect { grace: Duration::ZERO })
        .redis(RedisConfig::new(url).prefix(PREFIX))
        .build()
        .await
        .unwrap();
    let app = Router::new()
        .route("/begin", post(async |session: Session| session.insert("a", 1).map(drop)))
        .route("/short", post(short))
        .route("/login", post(async |session: Session| session.rotate()))
        .route("/logout", post(async |session: Session| session.destroy()))
        .route("/id", get(async |id: Option<SessionId>| id.unwrap().as_str().to_owned()))
        .route("/live", get(live))
        .route("/ws", any(async |upgrade: SessionUpgrade| upgrade.on_upgrade(wait)))
        .layer(bridge.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = app.clone();
    tokio::spawn(async move { axum::serve(listener, served.into_make_service()).await });
    Node { bridge, app, address }
}

async fn short(session: Session) -> Result<()> {
    session.set_max_age(Duration::from_secs(2))
}

async fn live(session: Session) -> Response {
    session.until_end(Sse::new(stream::pending::<Result<Event, Infallible>>()))
}

async fn wait(socket: SessionSocket) {
    while let Some(Ok(_)) = socket.recv().await {}
}

impl Node {
    async fn send(&self, method: &str, path: &str, cookies: &str) -> Response {
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookies);
        let request = request.body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response
    }

    /// The cookies of a new session.
    async fn begin(&self) -> String {
        let response = self.send("POST", "/begin", "").await;
        let lines = response.headers().get_all(header::SET_COOKIE);
        let pairs = lines.iter().map(|line| line.to_str().unwrap().split(';').next().unwrap());
        pairs.collect::<Vec<_>>().join("; ")
    }

    async fn id(&self, cookies: &str) -> SessionId {
        let body = self.send("GET", "/id", cookies).await.into_body().collect().await.unwrap();
        SessionId::parse(std::str::from_utf8(&body.to_bytes()).unwrap()).unwrap()
    }
}

/// What ends sessions.
#[derive(Debug, Clone, Copy)]
enum Cause {
    Logout,
    ById,
    Expiry,
    DeletedByHand,
    Sealing,
}

impl Cause {
    fn reason(self) -> &'static str {
        match self {
            Self::Logout | Self::ById => "destroyed",
            Self::Expiry => "expired",
            Self::DeletedByHand => "external",
            Self::Sealing => "sealed",
        }
    }

    async fn happens(self, other: &Node, redis: &Redis, cookies: &str) {
        let id = other.id(cookies).await;
        let client = other.bridge.client_id_of(&id).await.unwrap().unwrap();
        match self {
            Self::Logout => drop(other.send("POST", "/logout", cookies).await),
            Self::ById => assert!(other.bridge.destroy_by_id(&id).await.unwrap()),
            Self::Expiry => drop(other.send("POST", "/short", cookies).await),
            Self::DeletedByHand => {
                let key = format!("{PREFIX}:{{{}}}:s", client.as_str());
                assert_eq!(redis.cli(&["DEL", &key]).trim(), "1");
            }
            Self::Sealing => drop(other.send("POST", "/login", cookies).await),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_whatever_ends_their_session_wherever() {
    let redis = Redis::start();
    let (here, other) = (node(&redis.url(), "here").await, node(&redis.url(), "other").await);
    for cause in [Cause::Logout, Cause::ById, Cause::Expiry, Cause::DeletedByHand, Cause::Sealing] {
        let cookies = here.begin().await;
        let mut stream = here.send("GET", "/live", &cookies).await.into_body();
        let silent = tokio::time::timeout(Duration::from_millis(100), stream.frame()).await;
        assert!(silent.is_err(), "{cause:?}: {silent:?}");
        let mut request = format!("ws://{}/ws", here.address).into_client_request().unwrap();
        request.headers_mut().insert("cookie", cookies.parse().unwrap());
        let (mut socket, _) = connect_async(request).await.unwrap();
        let begun = Instant::now();
        while here.bridge.stats().sockets < 2 {
            assert!(begun.elapsed() < LIMIT, "{cause:?}: not attached");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        let begun = Instant::now();
        cause.happens(&other, &redis, &cookies).await;
        let frame = tokio::time::timeout(LIMIT, stream.frame()).await.unwrap().unwrap().unwrap();
        let last = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        let reason = cause.reason();
        assert!(last.contains(&format!("\"reason\":\"{reason}\"")), "{cause:?}: {last}");
        assert!(stream.frame().await.is_none(), "{cause:?}");
        let closed = tokio::time::timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Close(Some(frame)) = closed else { panic!("{cause:?}: {closed:?}") };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4401, reason), "{cause:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{cause:?}: {:?}", begun.elapsed());
        drop(socket);
        let begun = Instant::now();
        while here.bridge.stats().sockets > 0 {
            assert!(begun.elapsed() < LIMIT, "{cause:?}: not detached");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let stats = here.bridge.stats();
    assert_eq!((stats.sockets_attached, stats.sockets_detached), (10, 10));
    here.bridge.shutdown().await;
    other.bridge.shutdown().await;
}

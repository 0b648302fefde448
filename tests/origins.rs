//! Which requests are refused before a handler sees them: those of other origins, those with
//! somebody else's Engine.IO connection, and floods of handshakes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

#[path = "origins/engines.rs"]
mod engines;
#[path = "origins/flood.rs"]
mod flood;
#[path = "origins/proxies.rs"]
mod proxies;
#[path = "origins/requests.rs"]
mod requests;
#[path = "origins/sockets.rs"]
mod sockets;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum_io_session::bridge::SessionBridgeBuilder;
use axum_io_session::socket::attach;
use axum_io_session::{Error, Session, SessionBridge, bridge_session};
use socketioxide::SocketIo;
use socketioxide::extract::SocketRef;
use socketioxide::handler::ConnectHandler as _;
use support::http::{Answer, Browser, send};

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

fn builder() -> SessionBridgeBuilder {
    SessionBridge::builder().signing_keys([support::KEY])
}

/// An application with Socket.IO whose routes count their calls.
struct World {
    bridge: SessionBridge,
    app: Router,
    calls: Arc<AtomicUsize>,
}

async fn world(builder: SessionBridgeBuilder) -> World {
    world_of(builder, Duration::from_secs(10)).await
}

/// A world whose Engine.IO connections have this long to connect a socket.
async fn world_of(builder: SessionBridgeBuilder, connect_timeout: Duration) -> World {
    let bridge = builder.build().await.unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let handler = async move |session: Session| {
        counted.fetch_add(1, Ordering::SeqCst);
        session.insert("called", true)?;
        Ok::<_, Error>("called")
    };
    let routes = Router::new()
        .route("/", axum::routing::any(handler.clone()))
        .route("/{*path}", axum::routing::any(handler));
    let (layer, io) = SocketIo::builder().connect_timeout(connect_timeout).build_layer();
    io.ns("/", (async |_: SocketRef| {}).with(attach));
    // All requests have to come to one Socket.IO engine, as when the router is served.
    let app = bridge_session(routes, layer, &bridge).with_state(());
    World { app, bridge, calls }
}

impl World {
    /// Sends a request with these headers, `name: value`, and the browser's cookies.
    async fn ask(&self, browser: &Browser, method: &str, uri: &str, headers: &[&str]) -> Answer {
        self.say(browser, method, uri, headers, "").await
    }

    async fn say(
        &self,
        browser: &Browser,
        method: &str,
        uri: &str,
        headers: &[&str],
        body: &str,
    ) -> Answer {
        let mut request = browser.request(method, uri);
        for line in headers {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let request: Request<Body> = request.body(Body::from(body.to_owned())).unwrap();
        send(&self.app, request).await
    }

    /// Whether a request was refused for where it comes from. If so nothing else has happened.
    async fn refuses(&self, browser: &Browser, method: &str, uri: &str, headers: &[&str]) -> bool {
        let before = (self.bridge.stats().refused_origins, self.calls.load(Ordering::SeqCst));
        let created = self.bridge.stats().created;
        let answer = self.ask(browser, method, uri, headers).await;
        let after = (self.bridge.stats().refused_origins, self.calls.load(Ordering::SeqCst));
        if answer.status != StatusCode::FORBIDDEN {
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{method} {uri} {headers:?}: {}",
                answer.body
            );
            assert_eq!(after.0, before.0, "{method} {uri} {headers:?}");
            return false;
        }
        assert_eq!(after, (before.0 + 1, before.1), "{method} {uri} {headers:?}");
        assert_eq!(self.bridge.stats().created, created);
        assert!(answer.headers.get("set-cookie").is_none(), "{:?}", answer.headers);
        assert_eq!(answer.body, "");
        true
    }
}

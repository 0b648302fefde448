//! A served application with sockets, over one of the embedded stores.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum_io_session::bridge::SessionBridgeBuilder;
use axum_io_session::socket::attach;
use axum_io_session::store::{FileStore, LiveStore};
use axum_io_session::{Error, SessionBridge, SocketSessionExt as _, bridge_session};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef, State};
use socketioxide::handler::ConnectHandler as _;

use crate::support::KEY;
use crate::support::app::{Gate, app};
use crate::support::http::Browser;
use crate::support::sio::{Client, serve};

/// Where the sessions of a test are.
pub(crate) enum Over {
    Memory,
    File(tempfile::TempDir),
}

impl Over {
    pub(crate) fn memory() -> Self {
        Self::Memory
    }

    pub(crate) fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    /// With defaults.
    pub(crate) async fn ground(&self) -> Ground {
        self.ground_with(|builder| builder).await
    }

    pub(crate) async fn ground_with(
        &self,
        options: impl FnOnce(SessionBridgeBuilder) -> SessionBridgeBuilder,
    ) -> Ground {
        let builder = options(SessionBridge::builder().signing_keys([KEY]).node_id("n"));
        let builder = match self {
            Self::Memory => builder.store(LiveStore::new()),
            Self::File(folder) => {
                // One file for each ground of a test.
                let count = std::fs::read_dir(folder.path()).unwrap().count();
                let path = folder.path().join(count.to_string());
                builder.store(FileStore::open(path).await.unwrap())
            }
        };
        Ground::new(builder.build().await.unwrap()).await
    }
}

/// What became of the handlers of sockets, which may be gone before they could be told.
#[derive(Clone)]
pub(crate) struct Outcomes {
    pub(crate) gate: Gate,
    list: Arc<Mutex<Vec<(String, String)>>>,
}

impl Outcomes {
    fn note<T>(&self, call: &str, result: Result<T, Error>) {
        let outcome = result.map_or_else(|error| format!("{:?}", error.kind()), |_| "ok".into());
        self.list.lock().unwrap().push((call.into(), outcome));
    }

    /// What became of this call, if it has ended.
    pub(crate) fn of(&self, call: &str) -> Option<String> {
        let list = self.list.lock().unwrap();
        list.iter().find(|(name, _)| name == call).map(|(_, outcome)| outcome.clone())
    }
}

pub(crate) struct Ground {
    pub(crate) bridge: SessionBridge,
    pub(crate) app: Router,
    pub(crate) address: SocketAddr,
    pub(crate) outcomes: Outcomes,
}

impl Ground {
    async fn new(bridge: SessionBridge) -> Self {
        let outcomes = Outcomes { gate: Gate::new(), list: Arc::default() };
        let (layer, io) = SocketIo::builder().with_state(outcomes.clone()).build_layer();
        let ready = async |socket: SocketRef| socket.emit("ready", &()).unwrap();
        io.ns("/", ready.with(events).with(attach));
        let app = bridge_session(app(&bridge), layer, &bridge);
        Self { address: serve(app.clone()).await, bridge, app, outcomes }
    }

    /// A browser with its client cookie and nothing else.
    pub(crate) async fn visitor(&self) -> Browser {
        let mut browser = Browser::new();
        browser.get(&self.app, "/plain").await;
        assert_eq!(browser.jar.keys().collect::<Vec<_>>(), ["sid.cid"]);
        browser
    }

    /// A browser with an open session.
    pub(crate) async fn seeded(&self, body: &str) -> Browser {
        let mut browser = Browser::new();
        self.merge(&mut browser, body).await;
        browser
    }

    pub(crate) async fn merge(&self, browser: &mut Browser, body: &str) {
        assert!(browser.post(&self.app, "/merge", body).await.status.is_success());
    }

    /// Logs in: sets what the body says and seals the session.
    pub(crate) async fn login(&self, browser: &mut Browser, body: &str) {
        assert!(browser.post(&self.app, "/login", body).await.status.is_success());
    }

    pub(crate) async fn post(&self, browser: &mut Browser, path: &str) {
        assert!(browser.post(&self.app, path, "").await.status.is_success(), "{path}");
    }

    pub(crate) async fn id(&self, browser: &Browser) -> String {
        browser.clone().get(&self.app, "/id").await.body
    }

    pub(crate) async fn data(&self, browser: &Browser) -> Value {
        browser.clone().get(&self.app, "/read").await.json()["data"].clone()
    }

    pub(crate) async fn open(&self, browser: &Browser) -> Client {
        self.connect(&browser.cookie_header()).await
    }

    pub(crate) async fn connect(&self, cookies: &str) -> Client {
        let mut socket = Client::connect(self.address, cookies).await;
        ready(&mut socket).await;
        socket
    }
}

/// Waits until the server counts the socket as connected, a moment after its client does.
pub(crate) async fn ready(socket: &mut Client) {
    assert_eq!(socket.event().await.0, "ready");
}

/// A browser's cookies without its session cookie.
pub(crate) fn without_session(browser: &Browser) -> Browser {
    let mut half = browser.clone();
    half.jar.remove("sid");
    half
}

fn outcome<T: serde::Serialize>(result: Result<T, Error>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "error": format!("{:?}", error.kind()) }),
    }
}

async fn events(socket: SocketRef) -> Result<(), Infallible> {
    socket.on("ids", |socket: SocketRef, ack: AckSender| async move {
        let ids = json!({ "client": socket.client_id(), "session": socket.session_id() });
        let _ = ack.send(&ids);
    });
    socket.on("get", |socket: SocketRef, ack: AckSender| async move {
        let data = socket.with_session(|session| async move { session.data() }).await;
        let _ = ack.send(&outcome(data));
    });
    socket.on("inc", |socket: SocketRef, ack: AckSender| async move {
        let n = socket.try_with_session(|session| async move {
            let n = session.get::<i64>("n")?.unwrap_or(0) + 1;
            session.insert("n", n)?;
            Ok::<_, Error>(n)
        });
        let _ = ack.send(&outcome(n.await));
    });
    socket.on("destroy", |socket: SocketRef| async move {
        let _ = socket.with_session(|session| async move { session.destroy() }).await;
    });
    // Holds the session until the gate opens, and writes.
    socket.on("hold", |socket: SocketRef, State(outcomes): State<Outcomes>| async move {
        let gate = outcomes.gate.clone();
        let held = socket.with_session(|session| async move {
            session.insert("held", true).unwrap();
            gate.stop().await;
        });
        outcomes.note("hold", held.await);
    });
    // Waits for its turn, and writes.
    socket.on("wait", |socket: SocketRef, State(outcomes): State<Outcomes>| async move {
        outcomes.note("asked", Ok(()));
        let waited = socket.with_session(|session| async move {
            session.insert("waited", true).unwrap();
        });
        outcomes.note("wait", waited.await);
    });
    Ok(())
}

/// The messages' names, with the reasons of ends.
pub(crate) fn shown(events: &[(String, Value)]) -> Vec<String> {
    let name = |(name, payload): &(String, Value)| match payload["reason"].as_str() {
        Some(reason) => format!("{name} {reason}"),
        None => name.clone(),
    };
    events.iter().map(name).collect()
}

/// Waits for these messages; nothing else is there then.
pub(crate) async fn hears(socket: &mut Client, expected: &[&str]) -> Vec<(String, Value)> {
    let mut told = Vec::new();
    while told.len() < expected.len() {
        told.push(socket.event().await);
    }
    told.extend(socket.events_before("ids").await);
    assert_eq!(shown(&told), expected);
    told
}

/// What a socket sees that has no session: nothing, whatever it tries, and it was told nothing.
pub(crate) async fn sees_nothing(socket: &mut Client) {
    assert_eq!(shown(&socket.events_before("ids").await), [""; 0]);
    assert_eq!(socket.call("ids", Value::Null).await["session"], Value::Null);
    for call in ["get", "inc"] {
        assert_eq!(socket.call(call, Value::Null).await, json!({"error": "SessionMissing"}));
    }
}

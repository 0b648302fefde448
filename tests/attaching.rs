//! Sockets that come while their session ends.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum_io_session::backend::local::LocalBackend;
use axum_io_session::backend::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created,
    DestroyTarget, LeaseToken, Loaded, SessionSnapshot,
};
use axum_io_session::session::{Generation, Record};
use axum_io_session::socket::attach;
use axum_io_session::store::LiveStore;
use axum_io_session::{
    ClientId, NodeId, Result, SessionBridge, SessionId, SocketSessionExt as _, bridge_session,
};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, SocketRef};
use socketioxide::handler::ConnectHandler as _;
use support::app::app;
use support::http::Browser;
use support::sio::{Client, serve};
use support::{KEY, until};
use tokio::sync::broadcast;

/// Longer than a socket may take once it is attached, were its read counted.
const SLOW: Duration = Duration::from_secs(6);

/// Where a socket is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its session is about to be read.
    BeforeTheRead,
    /// Its session was read, and it is not in the table of sockets.
    AfterTheRead,
    /// It is in the table, and whether its session is still there is about to be looked at.
    BeforeTheLook,
    /// That it was has been seen.
    AfterTheLook,
    /// The application's own middleware runs.
    InAMiddleware,
    /// The application's connect handler runs.
    InTheHandler,
}

const STEPS: [Step; 6] = [
    Step::BeforeTheRead,
    Step::AfterTheRead,
    Step::BeforeTheLook,
    Step::AfterTheLook,
    Step::InAMiddleware,
    Step::InTheHandler,
];

/// A backend that ends a client's session when its socket gets to a step, once.
struct Ending {
    inner: LocalBackend<LiveStore>,
    step: Step,
    armed: AtomicBool,
    /// Reads for sockets take longer than sockets may take.
    slow: bool,
}

impl Ending {
    async fn at(&self, step: Step, client: &ClientId) {
        if step == self.step && self.armed.swap(false, Ordering::SeqCst) {
            assert!(self.inner.destroy(DestroyTarget::Client(*client)).await.unwrap());
        }
    }

    fn at_once(&self, step: Step, client: &ClientId) {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(self.at(step, client));
        });
    }
}

#[async_trait]
impl Backend for Ending {
    fn node(&self) -> &NodeId {
        self.inner.node()
    }
    async fn load(&self, sessions: &[SessionId], hint: Option<&ClientId>) -> Result<Loaded> {
        self.inner.load(sessions, hint).await
    }
    async fn create(&self, create: Create) -> Result<Created> {
        self.inner.create(create).await
    }
    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.inner.commit(commit).await
    }
    async fn touch(&self, client: &ClientId, generation: Generation) -> Result<Option<Record>> {
        self.inner.touch(client, generation).await
    }
    async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        self.inner.destroy(target).await
    }
    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        self.inner.acquire(client, wait).await
    }
    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        self.inner.renew(client, lease).await
    }
    fn release(&self, client: &ClientId, lease: LeaseToken) {
        self.inner.release(client, lease);
    }
    fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.at_once(Step::BeforeTheLook, client);
        let known = self.inner.cached_session(client);
        self.at_once(Step::AfterTheLook, client);
        known
    }
    async fn watch(&self, client: &ClientId) -> Result<Option<Record>> {
        self.at(Step::BeforeTheRead, client).await;
        let record = self.inner.watch(client).await?;
        if self.slow {
            tokio::time::sleep(SLOW).await;
        }
        self.at(Step::AfterTheRead, client).await;
        Ok(record)
    }
    fn unwatch(&self, client: &ClientId) {
        self.inner.unwatch(client);
    }
    fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.inner.subscribe()
    }
    async fn shutdown(&self) {
        self.inner.shutdown().await;
    }
}

struct World {
    bridge: SessionBridge,
    backend: Arc<Ending>,
    app: Router,
    address: SocketAddr,
}

impl World {
    async fn new(step: Step, slow: bool) -> Self {
        let inner = LocalBackend::new(LiveStore::new(), BackendConfig::default());
        let backend = Arc::new(Ending { inner, step, armed: AtomicBool::new(false), slow });
        let shared = backend.clone();
        let builder = SessionBridge::builder().signing_keys([KEY]);
        let builder = builder.backend(async move |_| Ok(shared as Arc<dyn Backend>));
        let bridge = builder.build().await.unwrap();
        let (layer, io) = SocketIo::builder().build_layer();
        let (first, then) = (backend.clone(), backend.clone());
        // Events are added here: a connect handler is a task, which the first event may overtake.
        let middleware = async move |socket: SocketRef| {
            socket.on("get", |socket: SocketRef, ack: AckSender| async move {
                let data = socket.with_session(|session| async move { session.data() }).await;
                let _ = ack.send(&json!(data.is_ok()));
            });
            if let Some(client) = socket.client_id() {
                first.at(Step::InAMiddleware, &client).await;
            }
            Ok::<_, Infallible>(())
        };
        let handler = async move |socket: SocketRef| {
            if let Some(client) = socket.client_id() {
                then.at(Step::InTheHandler, &client).await;
            }
        };
        io.ns("/", handler.with(middleware).with(attach));
        let app = bridge_session(app(&bridge), layer, &bridge);
        Self { address: serve(app.clone()).await, bridge, backend, app }
    }

    /// A socket whose session ends while it comes sees none, or is notified and disconnected.
    async fn check(self) {
        let step = self.backend.step;
        let mut browser = Browser::new();
        browser.post(&self.app, "/merge", r#"{"n":0}"#).await;
        self.backend.armed.store(true, Ordering::SeqCst);
        let mut socket = Client::connect(self.address, &browser.cookie_header()).await;
        until("the session ends", async || !self.backend.armed.load(Ordering::SeqCst)).await;
        match socket.try_call("get", Value::Null).await {
            // It began without a session, or is about to be disconnected.
            Some(seen) => assert_eq!(seen, json!(false), "{step:?}: an ended session is seen"),
            None => assert!(socket.disconnected, "{step:?}"),
        }
        // Those that were read before the end was known had a session.
        if !matches!(step, Step::BeforeTheRead | Step::AfterTheRead | Step::BeforeTheLook) {
            let events = socket.last_events().await;
            let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["sessionDestroy"], "{step:?}");
            until("it is detached", async || self.bridge.stats().sockets == 0).await;
        }
        self.bridge.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_whose_session_ends_at_any_step_of_its_connect_sees_none_or_is_notified() {
    for step in STEPS {
        World::new(step, false).await.check().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_is_notified_and_disconnected_however_long_its_session_took_to_be_read() {
    World::new(Step::InAMiddleware, true).await.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sockets_that_come_beside_a_logout_are_never_left_on_the_ended_session() {
    let world = World::new(Step::InTheHandler, false).await;
    for round in 0..200_u32 {
        let mut browser = Browser::new();
        browser.post(&world.app, "/merge", r#"{"n":0}"#).await;
        let cookies = browser.cookie_header();
        let connecting = tokio::spawn(Client::connect_to_owned(world.address, cookies));
        for _ in 0..round % 40 {
            tokio::task::yield_now().await;
        }
        browser.post(&world.app, "/logout", "").await;
        // Rejected if its session ended each time that it looked.
        let Ok(mut socket) = connecting.await.unwrap() else { continue };
        if let Some(seen) = socket.try_call("get", Value::Null).await
            && seen == json!(true)
        {
            // It saw the session just before its end, and is told of that.
            socket.until_disconnected().await;
        }
    }
    world.bridge.shutdown().await;
}

//! Backends keep their contract, and the suite that says so finds what breaks it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum_io_session::backend::single::SingleBackend;
use axum_io_session::backend::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created, Known,
    LeaseToken, Loaded, NodeFigures, NodeInfo, Target, conformance,
};
use axum_io_session::session::{Generation, Record};
use axum_io_session::store::{
    FileStore, LiveStore, SessionStore, SetOutcome, StoreResult, StoredSession,
};
use axum_io_session::{ClientId, ErrorKind, NodeId, Result, SessionBridge, SessionId};
use support::probe::ProbeStore;
use tokio::sync::broadcast;

fn single(store: impl SessionStore, config: BackendConfig) -> Arc<dyn Backend> {
    Arc::new(SingleBackend::new(store, config))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_single_backend_keeps_the_contract_over_live_store() {
    conformance::check(async |config| single(LiveStore::new(), config)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_single_backend_keeps_the_contract_over_file_store() {
    let folder = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    conformance::check(async |config| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = folder.path().join(n.to_string());
        single(FileStore::open(path).await.unwrap(), config)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_single_backend_keeps_the_contract_over_a_store_with_the_least_abilities() {
    conformance::check(async |config| {
        single(ProbeStore::new().without_list().without_find(), config)
    })
    .await;
}

/// A backend with one fault.
struct Faulty {
    inner: Arc<dyn Backend>,
    fault: &'static str,
    echo: broadcast::Sender<BackendEvent>,
}

impl Faulty {
    fn make(fault: &'static str, config: BackendConfig) -> Arc<dyn Backend> {
        let capacity = config.event_capacity;
        let inner = single(LiveStore::new(), config);
        let (echo, _) = broadcast::channel(capacity);
        let (mut source, target) = (inner.subscribe(), echo.clone());
        tokio::spawn(async move {
            while let Ok(event) = source.recv().await {
                let ends = event.destroy_reason().is_some();
                let times = match fault {
                    "tells twice" => 2,
                    "forgets ends" if ends => 0,
                    _ => 1,
                };
                for _ in 0..times {
                    let _ = target.send(event.clone());
                }
            }
        });
        Arc::new(Self { inner, fault, echo })
    }
}

#[async_trait]
impl Backend for Faulty {
    fn node(&self) -> &NodeId {
        self.inner.node()
    }
    async fn load(&self, session: &SessionId, hint: Option<&ClientId>) -> Result<Loaded> {
        self.inner.load(session, hint).await
    }
    async fn create(&self, mut create: Create) -> Result<Created> {
        if self.fault == "joins anything" {
            create.since = Duration::from_secs(3600);
        }
        self.inner.create(create).await
    }
    async fn commit(&self, mut commit: Commit) -> Result<Committed> {
        match self.fault {
            "ignores versions" => commit.version = None,
            "ignores leases" => commit.lease = None,
            "keeps leases" => commit.release = false,
            "never rotates" => commit.rotate = false,
            "forgets max ages" => commit.max_age = Default::default(),
            "revives" => {
                let done = self.inner.commit(commit.clone()).await?;
                if done == Committed::Ended {
                    let create = Create {
                        client: commit.client,
                        data: commit.data,
                        max_age: commit.max_age,
                        since: Duration::ZERO,
                    };
                    if let Created::New(record) = self.inner.create(create).await? {
                        return Ok(Committed::Done(record));
                    }
                }
                return Ok(done);
            }
            _ => {}
        }
        self.inner.commit(commit).await
    }
    async fn touch(&self, client: &ClientId, generation: Generation) -> Result<Option<Record>> {
        let touched = self.inner.touch(client, generation).await?;
        if self.fault == "tells touches"
            && let Some(record) = &touched
        {
            self.inner.notify_set(&record.session_id, false).await?;
        }
        Ok(touched)
    }
    async fn destroy(&self, target: Target) -> Result<bool> {
        self.inner.destroy(target).await.map(|ended| ended || self.fault == "always ends")
    }
    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        match self.fault {
            "one line for all" => {
                let all = ClientId::parse(&"A".repeat(24)).unwrap();
                let held = self.inner.acquire(&all, wait).await?;
                let record = self.inner.acquire(client, wait).await?;
                self.inner.release(client, record.lease);
                Ok(Acquired { record: record.record, ..held })
            }
            "waits for ever" => self.inner.acquire(client, Duration::from_secs(3600)).await,
            _ => self.inner.acquire(client, wait).await,
        }
    }
    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        if self.fault == "never renews" {
            return Ok(true);
        }
        self.inner.renew(client, lease).await
    }
    fn release(&self, client: &ClientId, lease: LeaseToken) {
        if self.fault != "never releases" {
            self.inner.release(client, lease);
        }
    }
    async fn session_of(&self, client: &ClientId) -> Result<Option<SessionId>> {
        self.inner.session_of(client).await
    }
    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        self.inner.client_of(session).await
    }
    fn known_session(&self, client: &ClientId) -> Option<Known> {
        self.inner.known_session(client).filter(|_| self.fault != "knows nothing")
    }
    async fn watch(&self, client: &ClientId) -> Result<()> {
        self.inner.watch(client).await
    }
    fn unwatch(&self, client: &ClientId) {
        if self.fault != "watches for ever" {
            self.inner.unwatch(client);
        }
    }
    fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.echo.subscribe()
    }
    async fn cleanup(&self) -> Result<u64> {
        self.inner.cleanup().await
    }
    async fn can_clean_up(&self) -> Result<bool> {
        self.inner.can_clean_up().await
    }
    async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        self.inner.notify_set(session, is_new).await
    }
    async fn notify_destroy(&self, session: &SessionId) -> Result<()> {
        self.inner.notify_destroy(session).await
    }
    fn notify_cleanup(&self, cleared: u64) {
        self.inner.notify_cleanup(cleared);
    }
    async fn beat(&self, figures: &NodeFigures) -> Result<()> {
        self.inner.beat(figures).await
    }
    async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        match self.fault {
            "forgets nodes" => Ok(Vec::new()),
            _ => self.inner.nodes().await,
        }
    }
    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }
    fn table_sizes(&self) -> Vec<(&'static str, usize)> {
        self.inner.table_sizes()
    }
    async fn shutdown(&self) {
        if self.fault != "never stops" {
            self.inner.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_finds_each_fault() {
    let faults = [
        ("ignores versions", "an older version is a conflict"),
        ("ignores leases", "its owner can do no harm"),
        ("keeps leases", "gives the lease back with it"),
        ("forgets nodes", "a node that says so is there"),
        ("never rotates", "kills the old one"),
        ("forgets max ages", "own max age stays"),
        ("revives", "revives nothing"),
        ("joins anything", "from before the request is replaced"),
        ("tells twice", "is told once"),
        ("tells touches", "tells nothing"),
        ("forgets ends", "by whatever name"),
        ("always ends", "true once and false after that"),
        ("one line for all", "do not wait for each other"),
        ("waits for ever", "a wait ends at its limit"),
        ("never renews", "its owner can do no harm"),
        ("never releases", "lose nothing"),
        ("knows nothing", "known without asking"),
        ("watches for ever", "nothing stays in memory"),
        ("never stops", "after a shutdown"),
    ];
    let runs = faults.map(async |(fault, rule)| {
        let failures = conformance::failures(async |config| Faulty::make(fault, config)).await;
        assert!(failures.iter().any(|failure| failure.contains(rule)), "{fault}: {failures:#?}");
    });
    futures_util::future::join_all(runs).await;
    let none = conformance::failures(async |config| Faulty::make("none", config)).await;
    assert_eq!(none, Vec::<String>::new());
}

// ---- a store that misbehaves ---------------------------------------------------------------

/// Panics when it is to write.
struct Panicking;

impl SessionStore for Panicking {
    async fn get(&self, _: &SessionId) -> StoreResult<Option<StoredSession>> {
        Ok(None)
    }
    async fn set(&self, _: &SessionId, _: StoredSession) -> StoreResult<SetOutcome> {
        panic!("a store that panics on purpose");
    }
    async fn destroy(&self, _: &SessionId) -> StoreResult<bool> {
        Ok(false)
    }
}

#[tokio::test]
async fn a_store_that_panics_is_an_error_and_blocks_nobody() {
    let bridge = SessionBridge::builder().keys([support::KEY]).store(Panicking);
    let bridge = bridge.build().await.unwrap();
    let app = support::app::app(&bridge);
    let mut browser = support::http::Browser::new();
    for _ in 0..3 {
        let answer = browser.post(&app, "/merge", r#"{"a":1}"#).await;
        assert_eq!(answer.status.as_u16(), 503);
        assert!(browser.get(&app, "/read").await.status.is_success());
    }
    assert_eq!(bridge.stats().tables["clients"], 0);
}

#[tokio::test]
async fn a_store_that_fails_changes_nothing_and_tells_nothing() {
    let store = ProbeStore::new();
    let backend = single(store.clone(), BackendConfig::default());
    let mut told = backend.subscribe();
    let client = ClientId::generate();
    let create = Create {
        client,
        data: Default::default(),
        max_age: Default::default(),
        since: Duration::ZERO,
    };
    store.set_broken(true);
    let error = backend.create(create.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(std::error::Error::source(&error).unwrap().is::<support::probe::Broken>());
    store.set_broken(false);
    assert_eq!(backend.session_of(&client).await.unwrap(), None);
    assert!(told.try_recv().is_err());
    assert!(matches!(backend.create(create).await.unwrap(), Created::New(_)));
    backend.shutdown().await;
}

#[tokio::test]
async fn a_record_without_a_client_goes_to_the_first_that_presents_it() {
    let store = LiveStore::new();
    let backend = single(store.clone(), BackendConfig::default());
    let (id, client) = (SessionId::generate(), ClientId::generate());
    let foreign = StoredSession::new(r#"{"made":"elsewhere"}"#, u64::MAX / 2, 1000);
    store.set(&id, foreign).await.unwrap();
    let nobody = backend.load(&id, None).await.unwrap();
    assert_eq!(nobody, Loaded::Missing { superseded: false });
    let Loaded::Found(record) = backend.load(&id, Some(&client)).await.unwrap() else {
        panic!("it is found");
    };
    assert_eq!(record.client_id, client);
    let other = ClientId::generate();
    let Loaded::Found(again) = backend.load(&id, Some(&other)).await.unwrap() else {
        panic!("it is found");
    };
    assert_eq!((again.client_id, again.generation), (client, record.generation));
    backend.shutdown().await;
}

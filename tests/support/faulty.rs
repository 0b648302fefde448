//! A backend with one fault.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum_io_session::backend::single::SingleBackend;
use axum_io_session::backend::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created, Known,
    LeaseToken, Loaded, NodeFigures, NodeInfo, Target,
};
use axum_io_session::session::{Generation, Record};
use axum_io_session::store::{LiveStore, SessionStore};
use axum_io_session::{ClientId, NodeId, Result, SessionId};
use tokio::sync::broadcast;

/// How late "tells late" is.
const LATE: Duration = Duration::from_millis(500);

pub fn single(store: impl SessionStore, config: BackendConfig) -> Arc<dyn Backend> {
    Arc::new(SingleBackend::new(store, config))
}

/// A backend with one fault.
pub struct Faulty {
    inner: Arc<dyn Backend>,
    fault: &'static str,
    echo: broadcast::Sender<BackendEvent>,
}

impl Faulty {
    pub fn make(fault: &'static str, config: BackendConfig) -> Arc<dyn Backend> {
        let capacity = config.event_capacity;
        let inner = single(LiveStore::new(), config);
        let (echo, _) = broadcast::channel(capacity);
        let (mut source, target) = (inner.subscribe(), echo.clone());
        tokio::spawn(async move {
            while let Ok(event) = source.recv().await {
                let ends = event.destroy_reason().is_some();
                if fault == "tells late" {
                    tokio::time::sleep(LATE).await;
                }
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
    async fn watch(&self, client: &ClientId) -> Result<Option<Record>> {
        let record = self.inner.watch(client).await?;
        Ok(record.filter(|_| self.fault != "watches without a look"))
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

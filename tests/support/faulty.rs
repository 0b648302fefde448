//! A backend with one fault.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum_io_session::backend::local::LocalBackend;
use axum_io_session::backend::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created,
    DestroyTarget, LeaseToken, Loaded, NewId, NodeInfo, NodeStats, SessionSnapshot,
};
use axum_io_session::session::{Generation, Record};
use axum_io_session::store::{LiveStore, SessionStore};
use axum_io_session::{ClientId, NodeId, Result, SessionId};
use tokio::sync::broadcast;

/// How late "tells late" is.
const LATE: Duration = Duration::from_millis(500);

pub fn single(store: impl SessionStore, config: BackendConfig) -> Arc<dyn Backend> {
    Arc::new(LocalBackend::new(store, config))
}

/// A backend with one fault.
pub struct Faulty {
    inner: Arc<dyn Backend>,
    fault: &'static str,
    echo: broadcast::Sender<BackendEvent>,
    /// For faults of two steps.
    turn: tokio::sync::Mutex<()>,
}

impl Faulty {
    pub fn make(fault: &'static str, mut config: BackendConfig) -> Arc<dyn Backend> {
        match fault {
            "has no overlap" => config.renew_overlap = Duration::ZERO,
            "has one life for all" => config.lifetime.open_max_age = None,
            _ => {}
        }
        let capacity = config.event_capacity;
        let inner = single(LiveStore::new(), config);
        let (echo, _) = broadcast::channel(capacity);
        let (mut source, target) = (inner.subscribe(), echo.clone());
        tokio::spawn(async move {
            while let Ok(mut event) = source.recv().await {
                match fault {
                    "tells no seal" => event.sealed = false,
                    "tells no successor" => event.successor = None,
                    _ => {}
                }
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
        Arc::new(Self { inner, fault, echo, turn: tokio::sync::Mutex::new(()) })
    }

    /// The client's session, as it is.
    async fn current(&self, client: &ClientId) -> Result<Option<Record>> {
        let Some(id) = self.inner.session_of(client).await? else { return Ok(None) };
        Ok(match self.inner.load(&[id], Some(client)).await? {
            Loaded::Found(record) => Some(record),
            _ => None,
        })
    }
}

#[async_trait]
impl Backend for Faulty {
    fn node(&self) -> &NodeId {
        self.inner.node()
    }
    async fn load(&self, sessions: &[SessionId], hint: Option<&ClientId>) -> Result<Loaded> {
        let sessions = match self.fault {
            "loads only the first id" => &sessions[..sessions.len().min(1)],
            _ => sessions,
        };
        Ok(match self.inner.load(sessions, hint).await? {
            Loaded::Missing { .. } if self.fault == "forgets earlier ids" => {
                Loaded::Missing { superseded: false }
            }
            Loaded::Missing { .. } if self.fault == "remembers all ids" => {
                Loaded::Missing { superseded: true }
            }
            loaded => loaded,
        })
    }
    async fn create(&self, mut create: Create) -> Result<Created> {
        match self.fault {
            "joins anything" => create.join = Duration::from_secs(3600),
            "joins nothing" => create.join = Duration::ZERO,
            "creates open sessions only" => create.sealed = false,
            "begins with no age" => create.age = Duration::ZERO,
            _ => {}
        }
        let client = create.client;
        match (self.inner.create(create.clone()).await?, self.fault) {
            (Created::Occupied, "replaces live sessions") => {
                self.inner.destroy(DestroyTarget::Client(client)).await?;
                self.inner.create(create).await
            }
            (Created::Occupied, "joins sealed sessions") if !create.join.is_zero() => {
                let existing = self.current(&client).await?;
                Ok(existing
                    .filter(|existing| existing.sealed && !create.sealed)
                    .map_or(Created::Occupied, Created::Exists))
            }
            (created, _) => Ok(created),
        }
    }
    async fn commit(&self, mut commit: Commit) -> Result<Committed> {
        match self.fault {
            "ignores versions" => commit.version = None,
            "panics as it writes" if commit.data.value("panic").is_some() => {
                let now = self.current(&commit.client).await?;
                let fits = now.is_some_and(|now| commit.version.is_none_or(|v| v == now.version));
                assert!(!fits, "a panic on purpose");
            }
            "ignores leases" => commit.lease = None,
            "keeps leases" => commit.release = false,
            "gives no new ids" => commit.new_id = None,
            "never seals" if commit.new_id == Some(NewId::Seal) => {
                let now = self.inner.session_of(&commit.client).await?;
                commit.new_id = now.map(|from| NewId::Renew { from });
            }
            "renews for a late renewal" if matches!(commit.new_id, Some(NewId::Renew { .. })) => {
                let _turn = self.turn.lock().await;
                let now = self.inner.session_of(&commit.client).await?;
                commit.new_id = now.map(|from| NewId::Renew { from });
                return self.inner.commit(commit).await;
            }
            "keeps the generation" if commit.new_id == Some(NewId::Seal) => {
                let generation = commit.generation;
                return Ok(match self.inner.commit(commit).await? {
                    Committed::Written(mut record) => {
                        record.generation = generation;
                        Committed::Written(record)
                    }
                    other => other,
                });
            }
            "forgets max ages" => commit.max_age = Default::default(),
            "revives" => {
                let done = self.inner.commit(commit.clone()).await?;
                if done == Committed::Ended {
                    let mut create = Create::new(commit.client, commit.data);
                    create.max_age = commit.max_age;
                    if let Created::New(record) = self.inner.create(create).await? {
                        return Ok(Committed::Written(record));
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
    async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        self.inner.destroy(target).await.map(|ended| ended || self.fault == "always ends")
    }
    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        match self.fault {
            "one line for all" => {
                let all = ClientId::parse(&"A".repeat(24)).unwrap();
                let held = self.inner.acquire(&all, wait).await?;
                let record = self.inner.acquire(client, wait).await?;
                self.inner.release(client, record.lease);
                Ok(Acquired::new(held.lease, held.length, record.record))
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
    async fn record_of(&self, client: &ClientId) -> Result<Option<Record>> {
        let record = self.inner.record_of(client).await?;
        if self.fault == "seals behind a read"
            && let Some(record) = &record
        {
            let mut seal = Commit::new(record, record.data.clone());
            seal.new_id = Some(NewId::Seal);
            self.inner.commit(seal).await?;
        }
        Ok(record)
    }
    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        self.inner.client_of(session).await
    }
    fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.inner.cached_session(client).filter(|_| self.fault != "knows nothing")
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
    async fn heartbeat(&self, figures: &NodeStats) -> Result<()> {
        self.inner.heartbeat(figures).await
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

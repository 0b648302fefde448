//! Many nodes: sessions, mapping, leases and events in Redis.
//!
//! A session is one hash, keyed by its client, with its life as the time to live. Each change is
//! one script, which also announces it; every node hears every announcement, its own included. All
//! keys of a client share a hash tag, so that a script stays in one slot of a cluster.

mod config;
mod connection;
mod context;
mod expiry;
mod hints;
mod keys;
mod lease;
mod pubsub;
mod reconcile;
mod registry;
mod script;
mod sessions;
mod view;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use fred::prelude::*;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created,
    DestroyTarget, LeaseToken, Loaded, NodeInfo, NodeStats, SessionSnapshot,
};
use crate::backend::on_drop::Undo;
use crate::error::Result;
use crate::session::{ClientId, Generation, NodeId, Record, SessionId};
use connection::clock::RedisClock;
use connection::commands::Link;
use connection::connect::Connected;
use connection::sentinel::Sentinels;
use context::{Shared, closed};
use expiry::probe::Looks;
use keys::Keys;
use lease::Leases;
use pubsub::subscriber::Listener;
use script::failed;
use view::old::suspects::Doubt;
use view::old::tombstones::Ended;
use view::old::tracker::WatchedClients;

pub use config::{KeyspaceEvents, RedisConfig};
/// The client library, for [`RedisConfig::from_fred`].
pub use fred;

/// How long a shutdown waits for operations that run.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);
/// Notices that wait to be published.
const NOTICES: usize = 1024;
/// A node that has said nothing for this long counts as gone.
const NODE_LIFE: Duration = Duration::from_secs(15);
/// How often a connection is asked whether it works.
const WATCH: Duration = Duration::from_secs(1);

/// Sessions in Redis, shared by all nodes that use the same Redis and prefix.
pub struct RedisBackend {
    shared: Arc<Shared>,
    listener: Client,
    /// Connections to sentinels, if Redis is behind some.
    sentinels: Vec<Client>,
    notices: mpsc::Sender<u64>,
    closing: CancellationToken,
}

impl RedisBackend {
    /// Connects, checks the server, and listens. Needs Redis 6.2 or later, or Valkey.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for a bad configuration,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if Redis can't be reached,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if it is too old,
    /// [`Store`](crate::ErrorKind::Store) if it refuses what is needed.
    pub async fn connect(redis: RedisConfig, config: BackendConfig) -> Result<Self> {
        let connected = connection::connect::connect(&redis).await?;
        let Connected { pool, replicated, listener, sentinels, database, clustered } = connected;
        let (events, _) = broadcast::channel(config.event_capacity);
        let (hints, waiting) = mpsc::channel(hints::WAITING);
        let shared = Arc::new(Shared {
            config,
            instance: uuid::Uuid::new_v4().simple().to_string(),
            keys: Keys::new(&redis.prefix, database),
            link: Link {
                pool,
                replicated,
                clock: RedisClock::new(),
                clustered,
                timeout: redis.timeout,
            },
            events,
            watched: WatchedClients::default(),
            ended: Ended::default(),
            leases: Leases::default(),
            looks: Looks::default(),
            sweeping: watch::Sender::new(false),
            doubt: Doubt::default(),
            hints,
            tasks: TaskTracker::new(),
        });
        let (notices, queue) = mpsc::channel(NOTICES);
        let closing = CancellationToken::new();
        let clients = sentinels.as_ref().map(|all| all.clients.clone()).unwrap_or_default();
        let backend = Self { shared, listener, sentinels: clients, notices, closing };
        backend.until_closed(hints::retry(backend.shared.clone(), waiting));
        if let Err(error) = backend.start(&redis, sentinels, queue).await {
            backend.shutdown().await;
            return Err(error);
        }
        Ok(backend)
    }

    async fn start(
        &self,
        redis: &RedisConfig,
        sentinels: Option<Sentinels>,
        queue: mpsc::Receiver<u64>,
    ) -> Result<()> {
        let shared = &self.shared;
        shared.link.look_at_the_clock().await?;
        let listener = Arc::new(Listener {
            client: self.listener.clone(),
            shared: shared.clone(),
            keyspace: redis.keyspace,
            timeout: redis.timeout,
            heard: tokio::sync::Mutex::default(),
            warned: AtomicBool::new(false),
        });
        let (ears, reconnects) = (listener.ears(), self.listener.reconnect_rx());
        // The first node sweeps, and listens to what others do to records, from the start.
        shared.sweep(redis.sweep).await?;
        let turns = listener.begin().await?;
        self.until_closed(listener.clone().listen(ears));
        self.until_closed(listener.stay_subscribed(reconnects, turns));
        self.until_closed(expiry::sweeper::sweep(shared.clone(), redis.sweep));
        self.until_closed(expiry::timer::end_own(shared.clone()));
        self.until_closed(expiry::probe::look_around(shared.clone()));
        self.until_closed(reconcile::audit(shared.clone(), redis.audit));
        self.until_closed(publish(shared.clone(), queue));
        // An answer may stand behind one that waits for replicas.
        let patience = redis.timeout + redis.replicas.map_or(Duration::ZERO, |wanted| wanted.wait);
        let named = sentinels.as_ref().map(Sentinels::named);
        let watch = |client: &Client, patience| {
            self.until_closed(connection::connect::watch_over(
                client.clone(),
                WATCH,
                patience,
                named.clone(),
            ));
        };
        shared.link.pools().iter().flat_map(Pool::clients).for_each(|one| watch(one, patience));
        watch(&self.listener, redis.timeout);
        if let Some(sentinels) = sentinels {
            self.until_closed(sentinels.listen());
        }
        Ok(())
    }

    fn until_closed(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = closing.cancelled() => {}
            }
        });
    }

    /// The clients that belong to no pool.
    fn alone(&self) -> Vec<Client> {
        self.sentinels.iter().chain([&self.listener]).cloned().collect()
    }

    fn open(&self) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        Ok(())
    }

    /// A change that has begun is finished, whatever becomes of the caller.
    async fn whole<T, F>(&self, change: impl FnOnce(Arc<Shared>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.open()?;
        self.shared.whole(change).await
    }
}

/// Publishes notices in the order they came.
async fn publish(shared: Arc<Shared>, mut queue: mpsc::Receiver<u64>) {
    while let Some(cleared) = queue.recv().await {
        let text = pubsub::message::cleanup(cleared, &shared.config.node);
        if let Err(error) = shared.announce(text).await {
            tracing::warn!(%error, "a cleanup could not be told");
        }
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend").field("node", self.node()).finish_non_exhaustive()
    }
}

impl Drop for RedisBackend {
    fn drop(&mut self) {
        if self.closing.is_cancelled() {
            return;
        }
        self.closing.cancel();
        // Without a shutdown the connections would outlive their owner: the client library keeps
        // those of a client that is only dropped.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(connection::connect::close(self.alone(), self.shared.link.pools()));
        }
    }
}

#[async_trait]
impl Backend for RedisBackend {
    fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    async fn load(&self, sessions: &[SessionId], hint: Option<&ClientId>) -> Result<Loaded> {
        self.open()?;
        self.shared.load(sessions, hint).await
    }

    async fn create(&self, create: Create) -> Result<Created> {
        self.whole(move |shared| async move { Box::pin(shared.create(&create)).await }).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.whole(move |shared| async move { Box::pin(shared.commit(commit)).await }).await
    }

    async fn touch(&self, client: &ClientId, generation: Generation) -> Result<Option<Record>> {
        let client = *client;
        self.whole(move |shared| async move { shared.touch(&client, generation).await }).await
    }

    async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        self.whole(move |shared| async move { shared.destroy(target).await }).await
    }

    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        self.open()?;
        tokio::select! {
            acquired = self.shared.acquire(client, wait) => acquired,
            () = self.closing.cancelled() => Err(closed()),
        }
    }

    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        self.shared.renew(client, lease).await
    }

    fn release(&self, client: &ClientId, lease: LeaseToken) {
        self.shared.release(client, lease);
    }

    async fn session_of(&self, client: &ClientId) -> Result<Option<SessionId>> {
        self.open()?;
        Ok(self.shared.client_record(client).await?.map(|record| record.session_id))
    }

    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        Ok(match self.load(std::slice::from_ref(session), None).await? {
            Loaded::Found(record) => Some(record.client_id),
            Loaded::Missing { .. } => None,
        })
    }

    fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.shared.watched.known(client)
    }

    async fn watch(&self, client: &ClientId) -> Result<Option<Record>> {
        self.open()?;
        let watched = &self.shared.watched;
        watched.add(client);
        let undo = Undo::new(|| watched.remove(client));
        let record = self.shared.client_record(client).await?;
        if let Some(record) = &record {
            watched.begin(record);
        }
        undo.finished();
        Ok(record)
    }

    fn unwatch(&self, client: &ClientId) {
        self.shared.watched.remove(client);
    }

    fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.shared.events.subscribe()
    }

    async fn cleanup(&self) -> Result<u64> {
        self.whole(|shared| async move { shared.cleanup().await }).await
    }

    async fn can_clean_up(&self) -> Result<bool> {
        self.open()?;
        Ok(true)
    }

    async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        self.open()?;
        self.shared.notify_set(session, is_new).await
    }

    async fn notify_destroy(&self, session: &SessionId) -> Result<()> {
        self.open()?;
        self.shared.notify_destroy(session).await
    }

    fn notify_cleanup(&self, cleared: u64) {
        if self.notices.try_send(cleared).is_err() {
            tracing::warn!("too many notices at once; one is lost");
        }
    }

    async fn heartbeat(&self, figures: &NodeStats) -> Result<()> {
        self.open()?;
        self.shared.heartbeat(figures, NODE_LIFE).await
    }

    async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        self.open()?;
        self.shared.nodes(NODE_LIFE).await
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        let pong: std::result::Result<Value, _> = self.shared.link.pool.next().ping(None).await;
        pong.map(drop).map_err(|e| failed("PING", e))
    }

    fn table_sizes(&self) -> Vec<(&'static str, usize)> {
        let shared = &self.shared;
        let mut sizes = vec![("watched", shared.watched.len()), ("looks", shared.looks.len())];
        sizes.extend(shared.leases.sizes());
        sizes
    }

    async fn shutdown(&self) {
        let first = !self.closing.is_cancelled();
        self.closing.cancel();
        if first {
            // Best done while there are connections. It lapses by itself otherwise.
            let _ = self.shared.heartbeat(&NodeStats::default(), Duration::ZERO).await;
        }
        self.shared.tasks.close();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("operations on Redis still run after {SHUTDOWN_LIMIT:?}");
        }
        if first {
            connection::connect::close(self.alone(), self.shared.link.pools()).await;
        }
    }
}

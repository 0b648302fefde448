//! Many nodes: sessions, mapping, leases and events in Redis.

mod announce;
mod config;
mod keys;
mod listen;
mod scripts;
mod shared;
mod watched;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fred::prelude::*;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created, Known,
    LeaseToken, Loaded, Target,
};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, DestroyReason, Generation, NodeId, Record, SessionId};
use keys::Keys;
use listen::Listener;
use scripts::{Scripts, failed};
use shared::Shared;
use watched::WatchedClients;

pub use config::RedisConfig;

/// How long a shutdown waits for operations that run.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);
/// Notices that wait to be published.
const NOTICES: usize = 1024;
/// Messages that the listener may fall behind before it has to compare.
const MESSAGES: usize = 16 * 1024;

/// Sessions in Redis, shared by all nodes that use the same Redis and prefix.
pub struct RedisBackend {
    shared: Arc<Shared>,
    listener: Client,
    notices: mpsc::Sender<u64>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl RedisBackend {
    /// Connects, loads the scripts, and listens.
    ///
    /// # Errors
    /// [`InvalidOption`](ErrorKind::InvalidOption) for a bad configuration,
    /// [`Unavailable`](ErrorKind::Unavailable) if Redis can't be reached,
    /// [`Store`](ErrorKind::Store) if it refuses what is needed.
    pub async fn connect(redis: RedisConfig, config: BackendConfig) -> Result<Self> {
        redis.check()?;
        let parsed = Config::from_url(&redis.url).map_err(|error| {
            Error::option("redis", "no valid URL", "such as redis://user:password@host:6379/0")
                .with_source(error)
        })?;
        let database = parsed.database.unwrap_or(0);
        let mut builder = Builder::from_config(parsed);
        builder
            .with_performance_config(|performance| {
                performance.default_command_timeout = redis.timeout;
                performance.broadcast_channel_capacity = MESSAGES;
            })
            .with_connection_config(|connection| {
                connection.connection_timeout = redis.timeout;
                connection.internal_command_timeout = redis.timeout;
                // A write that is sent again could be done twice.
                connection.max_command_attempts = 1;
                connection.unresponsive.max_timeout = Some(2 * redis.timeout);
                connection.unresponsive.interval = redis.timeout / 2;
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 50, 2000, 2));
        let pool = builder.build_pool(redis.pool).map_err(|e| failed("connect", e))?;
        // A client of its own: one that subscribes must never read data.
        let listener = builder.build().map_err(|e| failed("connect", e))?;
        let starting = async {
            pool.init().await.map_err(|e| failed("connect", e))?;
            listener.init().await.map_err(|e| failed("connect", e))?;
            Result::<()>::Ok(())
        };
        match tokio::time::timeout(3 * redis.timeout, starting).await {
            Ok(started) => started?,
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "Redis does not answer; check that it runs and that the URL is right",
                ));
            }
        }
        notify_keyspace_events(&pool).await;
        let scripts = Scripts::load(&pool).await?;
        let (events, _) = broadcast::channel(config.event_capacity);
        let shared = Arc::new(Shared {
            config,
            keys: Keys::new(&redis.prefix),
            pool,
            scripts,
            events,
            watched: WatchedClients::default(),
            lines: Mutex::new(HashMap::new()),
            waiters: Mutex::new(HashMap::new()),
            sweeping: AtomicBool::new(false),
        });
        let hears = Listener { client: listener.clone(), shared: shared.clone(), database };
        hears.start().await?;
        let (notices, queue) = mpsc::channel(NOTICES);
        let backend = Self {
            shared: shared.clone(),
            listener,
            notices,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        backend.until_closed(hears.listen());
        backend.until_closed(listen::sweep(shared.clone()));
        backend.until_closed(listen::audit(shared.clone()));
        backend.until_closed(publish(shared, queue));
        Ok(backend)
    }

    fn until_closed(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = closing.cancelled() => {}
            }
        });
    }

    fn open(&self) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        Ok(())
    }

    /// Runs a change to its end even if the caller goes away: what follows its script has to be
    /// done as well.
    async fn whole<T, F>(&self, change: impl FnOnce(Arc<Shared>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.open()?;
        let task = self.tasks.spawn(change(self.shared.clone()));
        task.await.unwrap_or_else(|error| Err(Error::store("an operation panicked", error)))
    }

    async fn try_acquire(
        &self,
        client: &ClientId,
        lease: LeaseToken,
        wait: Duration,
    ) -> Result<Turn> {
        let shared = &self.shared;
        let keys =
            vec![shared.keys.record(client), shared.keys.lease(client), shared.keys.queue(client)];
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let limit = i64::try_from(shared.config.lease_queue_limit).unwrap_or(i64::MAX);
        let arguments: Vec<Value> = vec![
            lease.text().into(),
            shared.config.node.as_str().into(),
            millis(shared.config.lease).into(),
            millis(wait).into(),
            limit.into(),
            shared.keys.nodes().into(),
        ];
        let reply = shared.scripts.acquire.run(&shared.pool, keys, arguments).await?;
        Ok(match reply.status {
            1 => Turn::Granted(match reply.record(client)? {
                Ok(record) => Some(record),
                // Reading it again ends it.
                Err(_) => shared.client_record(client).await?,
            }),
            2 => Turn::Granted(None),
            3 => {
                let left = u64::try_from(reply.number(0).unwrap_or(0)).unwrap_or(0);
                Turn::Queued(Duration::from_millis(left))
            }
            4 => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    format!("{limit} callers wait already; shed load or raise `lease_queue_limit`"),
                ));
            }
            _ => return Err(reply.unexpected()),
        })
    }
}

enum Turn {
    Granted(Option<Record>),
    Queued(Duration),
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the bridge was shut down")
}

/// Publishes notices in the order they came.
async fn publish(shared: Arc<Shared>, mut queue: mpsc::Receiver<u64>) {
    while let Some(cleared) = queue.recv().await {
        let text = announce::cleanup(cleared, &shared.config.node);
        if let Err(error) = shared.announce(text).await {
            tracing::warn!(%error, "a cleanup could not be told");
        }
    }
}

/// Adds the notifications that tell of deletions, expiries and evictions to those that are on.
async fn notify_keyspace_events(pool: &Pool) {
    let merged = async {
        let now: HashMap<String, String> = pool.next().config_get("notify-keyspace-events").await?;
        let mut flags = now.get("notify-keyspace-events").cloned().unwrap_or_default();
        let missing: Vec<char> = "Kgxe"
            .chars()
            .filter(|flag| !flags.contains(*flag) && (*flag == 'K' || !flags.contains('A')))
            .collect();
        if !missing.is_empty() {
            flags.extend(missing);
            pool.next().config_set("notify-keyspace-events", flags).await?;
        }
        std::result::Result::<(), fred::error::Error>::Ok(())
    };
    if let Err(error) = merged.await {
        tracing::warn!(%error, "Redis refused CONFIG: set `notify-keyspace-events` to at least Kgxe, or foreign deletions and evictions are told late");
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend").field("node", self.node()).finish_non_exhaustive()
    }
}

impl Drop for RedisBackend {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Gives back what a waiter has, when it goes away.
struct Leave<'a> {
    backend: &'a RedisBackend,
    client: ClientId,
    lease: Option<LeaseToken>,
    /// Whether Redis was asked: then it has an entry or a lease of ours.
    asked: bool,
}

impl Leave<'_> {
    /// The lease was granted and is the caller's business now.
    fn keep(&mut self) {
        self.forget_waiter();
        self.lease = None;
    }

    fn forget_waiter(&self) {
        if let Some(lease) = self.lease {
            let waiters = &self.backend.shared.waiters;
            waiters.lock().unwrap_or_else(PoisonError::into_inner).remove(&lease.text());
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.forget_waiter();
        match self.lease {
            Some(lease) if self.asked => self.backend.release(&self.client, lease),
            // A token of nobody: the line is only tidied up.
            other => {
                let lease = other.unwrap_or_else(LeaseToken::random);
                self.backend.shared.leave_line(&self.client, lease);
            }
        }
    }
}

#[async_trait]
impl Backend for RedisBackend {
    fn node(&self) -> &NodeId {
        &self.shared.config.node
    }

    async fn load(&self, session: &SessionId, hint: Option<&ClientId>) -> Result<Loaded> {
        self.open()?;
        self.shared.load(session, hint).await
    }

    async fn create(&self, create: Create) -> Result<Created> {
        self.whole(move |shared| async move { shared.create(&create).await }).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.whole(move |shared| async move { shared.commit(&commit).await }).await
    }

    async fn touch(&self, client: &ClientId, generation: Generation) -> Result<Option<Record>> {
        let client = *client;
        self.whole(move |shared| async move { shared.touch(&client, generation).await }).await
    }

    async fn destroy(&self, target: Target) -> Result<bool> {
        self.whole(move |shared| async move { shared.destroy(target).await }).await
    }

    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        self.open()?;
        let shared = &self.shared;
        let deadline = Instant::now() + wait;
        let length = shared.config.lease;
        // First the line of this node, then the one of all nodes: each node has one entry there.
        // Dropped in the other order: whoever leaves last finds the line in no other hands.
        let mut leave = Leave { backend: self, client: *client, lease: None, asked: false };
        let line = shared.line(client);
        let lease = tokio::select! {
            lease = line.acquire(length, wait, shared.config.lease_queue_limit) => lease?,
            () = self.closing.cancelled() => return Err(closed()),
        };
        leave.lease = Some(lease);
        // This node's line stands still as long as we wait in the other one.
        line.renew(lease, wait + length);
        let (sender, mut granted) = oneshot::channel();
        let waiters = || shared.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters().insert(lease.text(), sender);
        leave.asked = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let check = match self.try_acquire(client, lease, left).await? {
                Turn::Granted(record) => {
                    line.renew(lease, length);
                    leave.keep();
                    return Ok(Acquired { lease, length, record });
                }
                // A moment later than the owner's end: then the line has to be moved on.
                Turn::Queued(left) => Instant::now() + left + Duration::from_millis(5),
            };
            tokio::select! {
                biased;
                grant = &mut granted => {
                    if grant.is_ok() {
                        let record = shared.client_record(client).await?;
                        line.renew(lease, length);
                        leave.keep();
                        return Ok(Acquired { lease, length, record });
                    }
                }
                () = self.closing.cancelled() => return Err(closed()),
                () = tokio::time::sleep_until(check.min(deadline)) => {
                    if Instant::now() >= deadline {
                        return Err(Error::new(
                            ErrorKind::WaitTimeout,
                            format!("waited {wait:?} for other handlers of this session"),
                        ));
                    }
                }
            }
        }
    }

    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        let shared = &self.shared;
        let length = i64::try_from(shared.config.lease.as_millis()).unwrap_or(i64::MAX);
        let arguments = vec![lease.text().into(), length.into()];
        let keys = vec![shared.keys.lease(client)];
        let reply = shared.scripts.renew.run(&shared.pool, keys, arguments).await?;
        if reply.status == 1 {
            shared.renew_line(client, lease);
        }
        Ok(reply.status == 1)
    }

    fn release(&self, client: &ClientId, lease: LeaseToken) {
        self.shared.leave_line(client, lease);
        if self.closing.is_cancelled() && self.tasks.is_closed() {
            // It runs out by itself: there is no connection any more.
            return;
        }
        let (shared, client) = (self.shared.clone(), *client);
        self.tasks.spawn(async move {
            let keys = vec![shared.keys.lease(&client), shared.keys.queue(&client)];
            let length = i64::try_from(shared.config.lease.as_millis()).unwrap_or(i64::MAX);
            let arguments: Vec<Value> = vec![
                lease.text().into(),
                shared.config.node.as_str().into(),
                length.into(),
                shared.keys.nodes().into(),
            ];
            if let Err(error) = shared.scripts.release.run(&shared.pool, keys, arguments).await {
                tracing::debug!(%error, "a lease was not given back and runs out by itself");
            }
        });
    }

    async fn session_of(&self, client: &ClientId) -> Result<Option<SessionId>> {
        self.open()?;
        Ok(self.shared.client_record(client).await?.map(|record| record.session_id))
    }

    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        Ok(match self.load(session, None).await? {
            Loaded::Found(record) => Some(record.client_id),
            Loaded::Missing { .. } => None,
        })
    }

    fn known_session(&self, client: &ClientId) -> Option<Known> {
        self.shared.watched.known(client)
    }

    async fn watch(&self, client: &ClientId) -> Result<()> {
        self.open()?;
        self.shared.watched.add(client);
        if let Err(error) = self.shared.client_record(client).await {
            self.shared.watched.remove(client);
            return Err(error);
        }
        Ok(())
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
        if let Some(client) = self.shared.hinted(session).await? {
            self.shared.resolve(&client, DestroyReason::External).await?;
        }
        Ok(())
    }

    fn notify_cleanup(&self, cleared: u64) {
        if self.notices.try_send(cleared).is_err() {
            tracing::warn!("too many notices at once; one is lost");
        }
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        self.shared.pool.next().ping::<()>(None).await.map_err(|e| failed("PING", e))
    }

    fn table_sizes(&self) -> Vec<(&'static str, usize)> {
        let waiters = self.shared.waiters.lock().unwrap_or_else(PoisonError::into_inner).len();
        let lines = self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner).len();
        vec![("watched", self.shared.watched.len()), ("waiters", waiters), ("lines", lines)]
    }

    async fn shutdown(&self) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("operations on Redis still run after {SHUTDOWN_LIMIT:?}");
        }
        // Errors say that a connection was gone already.
        let _ = self.listener.quit().await;
        let _ = self.shared.pool.quit().await;
    }
}

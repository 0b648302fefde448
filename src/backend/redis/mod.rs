//! Many nodes: sessions, mapping, leases and events in Redis.
//!
//! **Keys** (`keys`). All keys of a client share a hash tag, so that one script can change them
//! together, also in a cluster. The record `s` is one string with its life as the time to live
//! (`record`); the mapping `m` names a session beyond its end; `l` and `q` are the lease and its
//! queue. Pointers from session ids and the schedule of ends are hints: they say where and when to
//! look (`hints`).
//!
//! **Changes** (`sessions`, `lease`). A read is one `GET`. Each change is one script
//! (`script`), which checks, writes, announces, and may give the lease back.
//!
//! ```text
//! sessions, lease -> script -> Redis -> PUBLISH -> pubsub::subscriber -> view -> events
//!                                    -> keyspace event (one node) ->|     |
//! expiry::{timer, sweeper, probe} <---------- what to probe -------------|
//! reconcile <-------------------------------- what to compare -----------|
//! ```
//!
//! **Events** (`pubsub`, `view`). A change is announced on a channel of its client. A node is subscribed
//! to it while it has a socket of the client, and to the channels of all clients while somebody listens
//! to all (`pubsub::interest`). It receives its own announcements too, and no event comes from elsewhere.
//! The `view` is what this node believes: it drops duplicates and stale news, and says what has to be
//! probed or compared.
//!
//! **Ends that no script causes** (`expiry`). The node that has a socket of a session probes it at
//! its end; one node sweeps all others and listens to keyspace events. A probe is one script that
//! announces an end once, whichever node runs it.
//!
//! **Order.** A script announces after its first write, which is the one that Redis may refuse, and
//! before the write that Redis notifies of. So nothing is announced that was refused, and an
//! announcement precedes the keyspace event of the same change.
//!
//! **Failure** (`connection`, `lost`, `reconcile`). Every command has a limit. A change whose answer is
//! lost runs once more within it, and recognises what its first run did. After a reconnect or a lag, when another node takes over the keyspace events, and
//! regularly, each node compares the clients of its sockets with Redis.

mod config;
mod connection;
mod context;
mod end;
mod error;
mod expiry;
mod hints;
mod keys;
mod lease;
mod lost;
mod near_cache;
mod prepare;
mod pubsub;
mod reconcile;
mod record;
mod registry;
mod script;
mod sessions;
mod view;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::prelude::*;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Acquired, Backend, BackendConfig, BackendEvent, Commit, Committed, Create, Created,
    DestroyTarget, LeaseToken, Loaded, NodeInfo, NodeStats, SessionSnapshot,
};
use crate::backend::on_drop::Undo;
use crate::error::{Error, Result};
use crate::session::{ClientId, Generation, NodeId, Record, SessionId};
use connection::clock::RedisClock;
use connection::commands::Commands;
use connection::connect::Connected;
use connection::sentinel::Sentinels;
use context::Context;
use error::closed;
use expiry::probe::Prober;
use expiry::sweeper::Sweeper;
use expiry::timer::Timer;
use keys::Keys;
use lease::waiters::Leases;
use pubsub::interest::Interest;
use pubsub::subscriber::Subscriber;
use reconcile::Reconciler;
use registry::Registry;
use script::Scripts;
use view::Input;
use view::shared::SharedView;

pub use config::{KeyspaceEvents, NearCache, RedisConfig};
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
    context: Arc<Context>,
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
        let scripts = Scripts::new(&config, database, clustered);
        let view = SharedView::new(config.node.clone(), config.event_capacity);
        let (hints, waiting) = mpsc::channel(hints::WAITING);
        let interest = Arc::new(Interest::new(true));
        let near_cache =
            redis.near_cache.map(|bounds| near_cache::NearCache::new(bounds, interest.clone()));
        let context = Arc::new(Context {
            config,
            instance: uuid::Uuid::new_v4().simple().to_string(),
            keys: Keys::new(&redis.prefix, database),
            commands: Commands {
                pool,
                replicated,
                clock: RedisClock::new(),
                scripts,
                clustered,
                timeout: redis.timeout,
            },
            view,
            interest,
            near_cache,
            leases: Leases::default(),
            leader: watch::Sender::new(false),
            resigned: Notify::new(),
            hints,
            tasks: TaskTracker::new(),
        });
        let (notices, queue) = mpsc::channel(NOTICES);
        let closing = CancellationToken::new();
        let clients = sentinels.as_ref().map(|all| all.clients.clone()).unwrap_or_default();
        let backend = Self { context, listener, sentinels: clients, notices, closing };
        backend.until_closed(hints::retry(backend.context.clone(), waiting));
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
        let context = &self.context;
        context.commands.look_at_the_clock().await?;
        let subscriber = Arc::new(Subscriber::new(
            self.listener.clone(),
            context.clone(),
            redis.keyspace,
            redis.timeout,
        ));
        let (receivers, reconnects) = (subscriber.receivers(), self.listener.reconnect_rx());
        // The first node sweeps, and listens to what others do to records, from the start.
        let sweeper = Sweeper::new(context.clone());
        sweeper.sweep(redis.sweep).await?;
        let turns = subscriber.begin().await?;
        self.until_closed(subscriber.clone().listen(receivers));
        self.until_closed(subscriber.stay_subscribed(reconnects, turns));
        self.until_closed(sweeper.run(redis.sweep));
        self.until_closed(Timer::new(context.clone()).run());
        self.until_closed(Prober::new(context.clone()).probe_loop());
        self.until_closed(Reconciler::new(context.clone(), redis.audit).run());
        self.until_closed(publish(context.clone(), queue));
        // An answer may stand behind one that waits for replicas.
        let patience = redis.timeout + redis.replicas.map_or(Duration::ZERO, |wanted| wanted.wait);
        let named = sentinels.as_ref().map(Sentinels::named);
        let watch = |client: &Client, patience| {
            self.until_closed(connection::connect::monitor_connection(
                client.clone(),
                WATCH,
                patience,
                named.clone(),
            ));
        };
        context
            .commands
            .pools()
            .iter()
            .flat_map(Pool::clients)
            .for_each(|one| watch(one, patience));
        watch(&self.listener, redis.timeout);
        if let Some(sentinels) = sentinels {
            self.until_closed(sentinels.listen());
        }
        Ok(())
    }

    fn until_closed(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.context.tasks.spawn(async move {
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

    /// A change that has begun is finished, also if the caller goes away: a script that was sent
    /// runs. Where more has to follow it, in another slot or on replicas, a task does that.
    async fn change<T, F>(&self, change: impl FnOnce(Arc<Context>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        if !self.context.commands.is_one_step() {
            return self.run_to_completion(change).await;
        }
        self.open()?;
        // A shutdown waits for it.
        let _running = self.context.tasks.token();
        change(self.context.clone()).await
    }

    async fn run_to_completion<T, F>(&self, work: impl FnOnce(Arc<Context>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.open()?;
        let task = self.context.tasks.spawn(work(self.context.clone()));
        task.await.unwrap_or_else(|error| Err(Error::store("an operation panicked", error)))
    }
}

/// Publishes notices in the order they came.
async fn publish(context: Arc<Context>, mut queue: mpsc::Receiver<u64>) {
    while let Some(cleared) = queue.recv().await {
        let text = pubsub::message::cleanup(cleared, &context.config.node);
        // Once: each would be another event.
        let redis = context.commands.pool.next_connected();
        let text = script::argument::bytes(text);
        if let Err(error) = redis.publish::<(), _, _>(context.keys.all_nodes(), text).await {
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
            runtime.spawn(connection::connect::close(self.alone(), self.context.commands.pools()));
        }
    }
}

#[async_trait]
impl Backend for RedisBackend {
    fn node(&self) -> &NodeId {
        &self.context.config.node
    }

    async fn load(&self, ids: &[SessionId], hint: Option<&ClientId>) -> Result<Loaded> {
        self.open()?;
        sessions::load(&self.context, ids, hint).await
    }

    async fn create(&self, create: Create) -> Result<Created> {
        self.change(
            move |context| async move { Box::pin(sessions::create(&context, &create)).await },
        )
        .await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.change(
            move |context| async move { Box::pin(sessions::commit(&context, commit)).await },
        )
        .await
    }

    async fn touch(&self, client: &ClientId, generation: Generation) -> Result<Option<Record>> {
        let client = *client;
        self.change(
            move |context| async move { sessions::touch(&context, &client, generation).await },
        )
        .await
    }

    async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        self.change(move |context| async move { sessions::destroy(&context, target).await }).await
    }

    async fn acquire(&self, client: &ClientId, wait: Duration) -> Result<Acquired> {
        self.open()?;
        tokio::select! {
            acquired = lease::acquire(&self.context, client, wait) => acquired,
            () = self.closing.cancelled() => Err(closed()),
        }
    }

    async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        lease::renew(&self.context, client, lease).await
    }

    fn release(&self, client: &ClientId, lease: LeaseToken) {
        lease::release(&self.context, client, lease);
    }

    async fn record_of(&self, client: &ClientId) -> Result<Option<Record>> {
        self.open()?;
        sessions::client_record(&self.context, client).await
    }

    async fn client_of(&self, session: &SessionId) -> Result<Option<ClientId>> {
        Ok(match self.load(std::slice::from_ref(session), None).await? {
            Loaded::Found(record) => Some(record.client_id),
            Loaded::Missing { .. } => None,
        })
    }

    fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.context.view.cached_session(client)
    }

    async fn watch(&self, client: &ClientId) -> Result<Option<Record>> {
        self.open()?;
        let Context { view, interest, commands, .. } = &*self.context;
        let batch = interest.join(client);
        view.apply(Input::Watched(*client));
        let undo = Undo::new(|| self.unwatch(client));
        // A new connection is subscribed to all clients, and they are compared.
        if self.listener.is_connected() {
            interest.done_within(batch, commands.timeout).await;
        }
        let since = view.step();
        let record = sessions::client_record(&self.context, client).await?;
        view.apply(Input::FirstRead(*client, record.as_ref(), since));
        undo.finished();
        Ok(record)
    }

    fn unwatch(&self, client: &ClientId) {
        self.context.view.apply(Input::Unwatched(*client));
        self.context.interest.leave(client);
    }

    async fn listen_to_all(&self, all: bool) -> Result<()> {
        self.open()?;
        let batch = self.context.interest.set_all(all);
        tokio::select! {
            () = self.context.interest.done(batch) => Ok(()),
            () = self.closing.cancelled() => Err(closed()),
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.context.view.subscribe()
    }

    async fn cleanup(&self) -> Result<u64> {
        self.run_to_completion(|context| async move { Sweeper::new(context).cleanup().await }).await
    }

    async fn can_clean_up(&self) -> Result<bool> {
        self.open()?;
        Ok(true)
    }

    async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        self.open()?;
        sessions::notify_set(&self.context, session, is_new).await
    }

    async fn notify_destroy(&self, session: &SessionId) -> Result<()> {
        self.open()?;
        sessions::notify_destroy(&self.context, session).await
    }

    fn notify_cleanup(&self, cleared: u64) {
        if self.notices.try_send(cleared).is_err() {
            tracing::warn!("too many notices at once; one is lost");
        }
    }

    async fn heartbeat(&self, stats: &NodeStats) -> Result<()> {
        self.open()?;
        Registry::new(self.context.clone()).heartbeat(stats, NODE_LIFE).await
    }

    async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        self.open()?;
        Registry::new(self.context.clone()).nodes(NODE_LIFE).await
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        let Context { commands, keys, instance, .. } = &*self.context;
        commands.run(&commands.scripts.health, vec![keys.health(instance)], Vec::new()).await?;
        Ok(())
    }

    fn table_sizes(&self) -> Vec<(&'static str, usize)> {
        let context = &self.context;
        let near_cache = context.near_cache.as_ref().map(|near| ("near_cache", near.len()));
        let subscribed = [("subscribed", context.interest.len())];
        let tables = context.view.sizes().into_iter().chain(context.leases.sizes());
        tables.chain(subscribed).chain(near_cache).collect()
    }

    async fn shutdown(&self) {
        let first = !self.closing.is_cancelled();
        self.closing.cancel();
        if first {
            // Best done while there are connections. Both lapse by themselves otherwise.
            let _ = expiry::sweeper::resign(&self.context).await;
            let registry = Registry::new(self.context.clone());
            let _ = registry.heartbeat(&NodeStats::default(), Duration::ZERO).await;
        }
        self.context.tasks.close();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.context.tasks.wait()).await.is_err() {
            tracing::warn!("operations on Redis still run after {SHUTDOWN_LIMIT:?}");
        }
        if first {
            connection::connect::close(self.alone(), self.context.commands.pools()).await;
        }
    }
}

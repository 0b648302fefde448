//! Makes a bridge.

mod cookies;
mod security;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::cleanup;
use super::handle::SessionBridge;
use super::heartbeat;
use super::options::{OnConflict, Options, SocketMessages};
use super::outage::WhenUnavailable;
use super::start;
use crate::backend::local::LocalBackend;
#[cfg(feature = "redis")]
use crate::backend::redis::{RedisBackend, RedisConfig};
use crate::backend::{Backend, BackendConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{NodeId, Renewal};
use crate::store::{LiveStore, SessionStore};

type Connect =
    Box<dyn FnOnce(BackendConfig) -> BoxFuture<'static, Result<Arc<dyn Backend>>> + Send>;

/// Collects the options of a [`SessionBridge`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> axum_io_session::Result<()> {
/// use std::time::Duration;
/// use axum_io_session::{SessionBridge, store::LiveStore};
///
/// let bridge = SessionBridge::builder()
///     .cookie_name("app.sid")
///     .signing_keys(["a signing key of at least 32 bytes, kept secret"])
///     .max_age(Duration::from_secs(24 * 60 * 60))
///     .store(LiveStore::new())
///     .build()
///     .await?;
/// # bridge.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "call `build` to get a bridge"]
pub struct SessionBridgeBuilder {
    options: Options,
    connect: Option<Connect>,
    node: Option<String>,
    /// Which of `store`, `redis` and `backend` was called, in order.
    places: Vec<&'static str>,
    /// Other nodes have to verify our cookies.
    shared: bool,
}

impl SessionBridgeBuilder {
    pub(super) fn new() -> Self {
        Self {
            options: Options::default(),
            connect: None,
            node: None,
            places: Vec::new(),
            shared: false,
        }
    }

    /// Time to live of a session since its last write, 1 second to 1 year. Default 30 days.
    #[doc(alias = "maxAge")]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.options.lifetime.max_age = age;
        self
    }

    /// Time to live of an open session since its last write, 1 second to 1 year: visitors who
    /// never log in need not be remembered for as long as others. Default: as
    /// [`max_age`](Self::max_age). A session's own max age overrides it.
    pub fn open_max_age(mut self, age: Duration) -> Self {
        self.options.lifetime.open_max_age = Some(age);
        self
    }

    /// Cap on the whole life of a session, whatever renews it; a session that is sealed keeps
    /// the age that it had before. Default: none.
    pub fn absolute_max_age(mut self, age: Duration) -> Self {
        self.options.lifetime.absolute_max_age = Some(age);
        self
    }

    /// What renews a session besides a write. Default [`Renewal::OnWrite`]: nothing.
    #[doc(alias = "rolling")]
    #[doc(alias = "renew")]
    pub fn renewal(mut self, renewal: Renewal) -> Self {
        self.options.lifetime.renewal = renewal;
        self
    }

    /// Removes expired sessions periodically. Default false. Needs a store that can list.
    #[doc(alias = "autoCleanup")]
    pub fn auto_cleanup(mut self, on: bool) -> Self {
        self.options.auto_cleanup = on;
        self
    }

    /// Time between two cleanups, 1 minute to 1 day. Default: a quarter of `max_age`, within
    /// that range.
    #[doc(alias = "autoCleanupMs")]
    pub fn auto_cleanup_interval(mut self, interval: Duration) -> Self {
        self.options.auto_cleanup_interval = Some(interval);
        self
    }

    /// Limit on a session's JSON text in bytes, 2 to 1 GiB. Default 64 KiB.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.options.max_payload = bytes;
        self
    }

    /// Length of the lease that `with_session` and `update` hold, 100 ms to 10 minutes. It is
    /// renewed at a third while a handler runs: it limits how long a dead node blocks others,
    /// not how long a handler may take. Default 10 seconds.
    pub fn lease_duration(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self
    }

    /// How long `with_session` and `update` wait for their turn, 1 ms to 10 minutes.
    /// Default 10 seconds.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.options.acquire_timeout = limit;
        self
    }

    /// How long one handler may hold a session, 100 ms to 1 day. After that its lease is not
    /// renewed any more, its token is cancelled, and its write is refused. Default 10 minutes.
    pub fn max_hold(mut self, limit: Duration) -> Self {
        self.options.max_hold = limit;
        self
    }

    /// How many callers may wait for one session; the next gets
    /// [`Busy`](crate::ErrorKind::Busy). Default 1024.
    pub fn lease_queue_limit(mut self, limit: usize) -> Self {
        self.options.lease_queue_limit = limit;
        self
    }

    /// What a commit does about another writer. Default [`OnConflict::Merge`].
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.options.on_conflict = on_conflict;
        self
    }

    /// Names and content of the messages to a session's own sockets.
    pub fn messages(mut self, messages: SocketMessages) -> Self {
        self.options.messages = messages;
        self
    }

    /// How long a [`drain`](SessionBridge::drain) gives sockets to move to other nodes, 0 to 10 minutes.
    /// Default 10 seconds. The process has to be given more than that to stop: handlers, 10 seconds, and
    /// requests, 10 seconds, come after it.
    pub fn drain_window(mut self, window: Duration) -> Self {
        self.options.drain_window = window;
        self
    }

    /// How many events a slow listener may fall behind before it is notified that it missed some,
    /// 16 to 1,048,576. Default 4096.
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.options.event_capacity = events;
        self
    }

    /// How long clients are asked to wait before they try again after a 503 of this crate's,
    /// 1 second to 1 day. Default 1 second. `Retry-After` has whole seconds: parts are rounded up.
    ///
    /// It goes into the answers that the layer makes, and into those that handlers and extractors
    /// make of an [`Error`] below the layer. A `Retry-After` that a handler sets itself is kept.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.options.retry_after = wait;
        self
    }

    /// What a request gets whose session can't be loaded now. Default
    /// [`WhenUnavailable::Refuse`]: 503 with [`Retry-After`](Self::retry_after).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> axum_io_session::Result<()> {
    /// use axum_io_session::bridge::WhenUnavailable;
    /// use axum_io_session::{Session, SessionBridge};
    ///
    /// let bridge = SessionBridge::builder()
    ///     .when_unavailable(WhenUnavailable::Anonymous)
    ///     .build()
    ///     .await?;
    ///
    /// async fn home(session: Session) -> axum_io_session::Result<String> {
    ///     if session.is_unavailable() {
    ///         return Ok("Hello! You can read on, and log in again in a moment.".into());
    ///     }
    ///     Ok(format!("Hello {}!", session.get::<String>("name")?.unwrap_or_default()))
    /// }
    /// # bridge.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn when_unavailable(mut self, policy: WhenUnavailable) -> Self {
        self.options.when_unavailable = policy;
        self
    }

    /// The name of this node in events. Default: a random UUID.
    pub fn node_id(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }

    /// Where sessions are kept. Default: a [`LiveStore`].
    ///
    /// A bridge has one of `store`, `redis` and [`backend`](Self::backend): the build fails if two
    /// are given, or one twice.
    pub fn store(self, store: impl SessionStore) -> Self {
        self.place("store", |config| async move {
            Ok(Arc::new(LocalBackend::new(store, config)) as Arc<dyn Backend>)
        })
    }

    /// Sessions in Redis, shared by all nodes with the same Redis and prefix. Signing
    /// [`signing_keys`](Self::signing_keys) are required then, the same on each node.
    ///
    /// ```no_run
    /// # async fn start() -> axum_io_session::Result<()> {
    /// let bridge = axum_io_session::SessionBridge::builder()
    ///     .signing_keys([std::env::var("SESSION_KEY").unwrap_or_default()])
    ///     .redis("redis://127.0.0.1:6379")
    ///     .build()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn redis(mut self, redis: impl Into<RedisConfig>) -> Self {
        let redis = redis.into();
        self.shared = true;
        self.place("redis", |config| async move {
            Ok(Arc::new(RedisBackend::connect(redis, config).await?) as Arc<dyn Backend>)
        })
    }

    /// A backend of your own, made from what the options say.
    pub fn backend<F, Fut>(self, connect: F) -> Self
    where
        F: FnOnce(BackendConfig) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Arc<dyn Backend>>> + Send + 'static,
    {
        self.place("backend", connect)
    }

    fn place<F, Fut>(mut self, option: &'static str, connect: F) -> Self
    where
        F: FnOnce(BackendConfig) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Arc<dyn Backend>>> + Send + 'static,
    {
        self.places.push(option);
        self.connect = Some(Box::new(|config| Box::pin(connect(config))));
        self
    }

    /// Checks the options and starts the bridge.
    ///
    /// Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`InvalidOption`](ErrorKind::InvalidOption) with the option's name, its value and the
    /// range, or the backend's own error.
    pub async fn build(mut self) -> Result<SessionBridge> {
        if let [first, second, ..] = self.places.as_slice() {
            return Err(Error::option(
                second,
                format_args!("given after `{first}`"),
                "the only one of `store`, `redis` and `backend`, given once",
            ));
        }
        if let Some(name) = &self.node {
            self.options.node = NodeId::new(name)?;
        }
        let mut options = self.options.settle()?;
        if !options.signed {
            tracing::warn!(
                "cookies are not signed: a guessed or leaked id can be used from anywhere"
            );
        } else if options.keys.is_empty() && self.shared {
            return Err(Error::option(
                "signing_keys",
                "not set",
                "the same secret keys on all nodes: a cookie of one has to verify on the others",
            ));
        } else if options.keys.is_empty() {
            tracing::warn!(
                "no signing keys are given: a random one is used, and all sessions are lost at a restart"
            );
            options.keys.push(cookie::Key::generate().master().to_vec());
        } else if options.keys.iter().any(|key| key.len() < 32) {
            tracing::warn!("a signing key is shorter than 32 bytes: do not use it in production");
        }
        let config = BackendConfig {
            node: options.node.clone(),
            lifetime: options.lifetime,
            lease_duration: options.lease,
            lease_queue_limit: options.lease_queue_limit,
            max_payload: options.max_payload,
            event_capacity: options.event_capacity,
            renew_overlap: options.renew_overlap,
        };
        let backend = match self.connect {
            Some(connect) => connect(config).await?,
            None => Arc::new(LocalBackend::new(LiveStore::new(), config)),
        };
        let auto_cleanup = options.auto_cleanup;
        if auto_cleanup && !backend.can_clean_up().await? {
            backend.shutdown().await;
            return Err(Error::new(
                ErrorKind::InvalidOption,
                "`auto_cleanup` is on; it must be off, or the store has to implement `list`",
            ));
        }
        let core = start::start(backend, options);
        if let Err(error) = heartbeat::heartbeat(&core).await {
            tracing::debug!(%error, "this node's first heartbeat failed");
        }
        if auto_cleanup {
            cleanup::start(&core, None).await?;
        }
        Ok(SessionBridge::new(core))
    }
}

impl fmt::Debug for SessionBridgeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

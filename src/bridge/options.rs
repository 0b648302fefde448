//! Options of a bridge.

mod check;

use std::fmt;
use std::time::Duration;

use super::origin::OriginPolicy;
use super::outage::WhenUnavailable;
use crate::session::{Lifetime, NodeId};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// From the message of an end to the disconnect: answers that are under way still arrive, among
/// them the one with the new cookie, as a rule.
pub(super) const GOODBYE: Duration = Duration::from_millis(250);

/// The `SameSite` attribute of the cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SameSite {
    /// Sent with requests from the same site only.
    Strict,
    /// Also sent when a person follows a link from another site. This is the default.
    #[default]
    Lax,
    /// Sent with every request. Needs [`Secure::Yes`].
    None,
}

/// The `Secure` attribute of the cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Secure {
    /// Set if the request came by https: by the scheme of its URI, or, with `trusted_proxies`, by
    /// `X-Forwarded-Proto` or `Forwarded`. This is the default.
    #[default]
    Auto,
    /// Always set.
    Yes,
    /// Never set.
    No,
}

/// What a commit does if another writer changed the session since it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// Applies the request's own changes (top-level keys set and removed) to the newest data.
    /// This is the default. Of two writers of one key the last one wins, and
    /// [`Stats::overwrites`](crate::bridge::Stats::overwrites) counts it.
    #[default]
    Merge,
    /// As `Merge`, but fails with [`Conflict`](crate::ErrorKind::Conflict), over HTTP with 409, if
    /// another writer changed one of the same keys: nothing is written then. Also for
    /// `with_session` handlers, beside a plain request that changed one of their keys.
    Detect,
    /// Overwrites the other's changes.
    Overwrite,
    /// Fails with [`Conflict`](crate::ErrorKind::Conflict), over HTTP with 409.
    Error,
}

/// When sessions are sealed: from then on a session is seen and changed only with its own cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Seal {
    /// By [`Session::rotate`](crate::Session::rotate) or [`seal`](crate::Session::seal), at login.
    /// This is the default. Until then the session is open: first requests of its client may join
    /// it, and sockets of its client may see it.
    #[default]
    OnRotate,
    /// From the start: no session is ever open.
    FromStart,
}

/// Which sessions a socket may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SocketPairing {
    /// The session whose cookie its handshake carried, and no other.
    Strict,
    /// That one, and open sessions that its client begins later: a page's first session needs no
    /// reconnect. A sealed session is seen only by sockets whose handshake carried its cookie.
    /// This is the default.
    #[default]
    UntilSealed,
    /// Whatever session its client has, sealed or not. The client cookie, which lives for a year,
    /// is then a full credential for sockets.
    ClientOnly,
}

/// What happens to the sockets of a session when it is sealed (`rotate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnRotate {
    /// They get the `sessionDestroy` message with the reason `sealed`, see no session from then
    /// on, and are disconnected 250 milliseconds later: they did not show the new cookie. The
    /// page connects again with it. This is the default.
    #[default]
    Disconnect,
    /// They follow into the sealed session and get a `sessionSet` message. A socket that was
    /// opened with stolen cookies before the login then sees the session after it.
    Follow,
}

/// What happens to the sockets of a session when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDestroy {
    /// They get the `sessionDestroy` message and are disconnected after `grace`, also if their
    /// client has a new session by then. From the message on they see no session. This is the
    /// default, with a grace of 250 milliseconds: enough for the answer to the call that ended
    /// the session.
    Disconnect {
        /// Time to say goodbye, up to 1 hour.
        grace: Duration,
    },
    /// They get the message and stay connected.
    Notify,
    /// Nothing, not even a message. (Sockets of a session that is sealed are still notified, as
    /// `on_rotate` says.)
    Nothing,
}

impl Default for OnDestroy {
    fn default() -> Self {
        Self::Disconnect { grace: GOODBYE }
    }
}

/// On which answers the client cookie is sent. Never on one that a shared cache may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ClientCookie {
    /// On each one, so that it never runs out for a visitor who comes back. This is the default.
    #[default]
    Always,
    /// On answers to requests that asked for the session or the client id, and to Socket.IO
    /// handshakes.
    WithSession,
    /// Only if it is new, belongs to another client than before, or was signed by an older key.
    WhenNew,
}

/// The messages that a session's own sockets get.
///
/// ```
/// use axum_io_session::bridge::SocketMessages;
///
/// let messages = SocketMessages::default().set(Some("changed")).destroy(None);
/// assert_eq!(messages.set.as_deref(), Some("changed"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketMessages {
    /// Name of the message for a created, attached or changed session; `None` switches it off.
    /// Default: `sessionSet`.
    pub set: Option<String>,
    /// Name of the message for the end of a session; `None` switches it off.
    /// Default: `sessionDestroy`.
    pub destroy: Option<String>,
    /// Name of the message that every attached socket gets after a cleanup. Default: `None`.
    pub cleanup: Option<String>,
    /// Name of the message that asks a socket to connect to another node; `None` switches it off.
    /// Default: `sessionMove`. Its `withinMs` is the time until the connection is closed.
    pub moving: Option<String>,
    /// Whether messages carry `sessionId`. Default: no, for injected scripts can
    /// steal all that page scripts can read.
    pub include_ids: bool,
}

impl Default for SocketMessages {
    fn default() -> Self {
        Self {
            set: Some("sessionSet".into()),
            destroy: Some("sessionDestroy".into()),
            cleanup: None,
            moving: Some("sessionMove".into()),
            include_ids: false,
        }
    }
}

impl SocketMessages {
    /// Names the message for a created, attached or changed session; `None` switches it off.
    #[must_use]
    pub fn set(mut self, name: Option<&str>) -> Self {
        self.set = name.map(str::to_owned);
        self
    }

    /// Names the message for the end of a session; `None` switches it off.
    #[must_use]
    pub fn destroy(mut self, name: Option<&str>) -> Self {
        self.destroy = name.map(str::to_owned);
        self
    }

    /// Names the message for a cleanup; `None` switches it off.
    #[must_use]
    pub fn cleanup(mut self, name: Option<&str>) -> Self {
        self.cleanup = name.map(str::to_owned);
        self
    }

    /// Names the message that asks a socket to connect to another node; `None` switches it off.
    #[must_use]
    pub fn moving(mut self, name: Option<&str>) -> Self {
        self.moving = name.map(str::to_owned);
        self
    }

    /// Whether messages carry `sessionId`.
    #[must_use]
    pub fn include_ids(mut self, include: bool) -> Self {
        self.include_ids = include;
        self
    }
}

/// Everything the builder collects.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) key: String,
    pub(crate) client_key: String,
    /// An empty name that was asked for is an error, not the default.
    pub(crate) client_key_given: bool,
    pub(crate) client_max_age: Duration,
    pub(crate) client_cookie: ClientCookie,
    pub(crate) lifetime: Lifetime,
    pub(crate) signed: bool,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) allow_weak_keys: bool,
    pub(crate) same_site: SameSite,
    pub(crate) http_only: bool,
    pub(crate) secure: Secure,
    pub(crate) trusted_proxies: usize,
    pub(crate) domain: Option<String>,
    pub(crate) path: String,
    pub(crate) auto_cleanup: bool,
    pub(crate) auto_cleanup_interval: Option<Duration>,
    pub(crate) max_payload: usize,
    pub(crate) lease: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) max_hold: Duration,
    pub(crate) lease_queue_limit: usize,
    pub(crate) on_conflict: OnConflict,
    pub(crate) seal: Seal,
    pub(crate) join_window: Duration,
    pub(crate) renew_overlap: Duration,
    pub(crate) socket_pairing: SocketPairing,
    pub(crate) on_destroy: OnDestroy,
    pub(crate) on_rotate: OnRotate,
    pub(crate) origins: OriginPolicy,
    pub(crate) pending_sockets_limit: usize,
    pub(crate) messages: SocketMessages,
    pub(crate) drain_window: Duration,
    pub(crate) event_capacity: usize,
    pub(crate) retry_after: Duration,
    pub(crate) when_unavailable: WhenUnavailable,
    pub(crate) node: NodeId,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            key: "sid".into(),
            client_key: String::new(),
            client_key_given: false,
            client_max_age: 365 * DAY,
            client_cookie: ClientCookie::default(),
            lifetime: Lifetime::new(30 * DAY),
            signed: true,
            keys: Vec::new(),
            allow_weak_keys: false,
            same_site: SameSite::default(),
            http_only: true,
            secure: Secure::default(),
            trusted_proxies: 0,
            domain: None,
            path: "/".into(),
            auto_cleanup: false,
            auto_cleanup_interval: None,
            max_payload: 64 * 1024,
            lease: 10 * SECOND,
            acquire_timeout: 10 * SECOND,
            max_hold: 10 * MINUTE,
            lease_queue_limit: 1024,
            on_conflict: OnConflict::default(),
            seal: Seal::default(),
            join_window: 5 * SECOND,
            renew_overlap: 10 * SECOND,
            socket_pairing: SocketPairing::default(),
            on_destroy: OnDestroy::default(),
            on_rotate: OnRotate::default(),
            origins: OriginPolicy::default(),
            pending_sockets_limit: 4096,
            messages: SocketMessages::default(),
            drain_window: 10 * SECOND,
            event_capacity: 4096,
            retry_after: SECOND,
            when_unavailable: WhenUnavailable::default(),
            node: NodeId::random(),
        }
    }
}

impl Options {
    /// The interval of automatic cleanup: what was asked, else a quarter of the max age.
    pub(crate) fn cleanup_interval(&self) -> Duration {
        self.auto_cleanup_interval.unwrap_or_else(|| (self.lifetime.max_age / 4).clamp(MINUTE, DAY))
    }
}

impl fmt::Debug for Options {
    // Keys stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("cookie_name", &self.key)
            .field("client_key", &self.client_key)
            .field("lifetime", &self.lifetime)
            .field("signing_keys", &self.keys.len())
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

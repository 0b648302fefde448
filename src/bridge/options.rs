//! Options of a bridge, and what they may be.

use std::fmt;
use std::time::Duration;

use super::origin::OriginPolicy;
use super::outage::WhenUnavailable;
use crate::error::{Error, Result};
use crate::session::{Lifetime, MAX_AGE_RANGE, NodeId};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// From the message of an end to the disconnect: answers that are under way still arrive, among
/// them the one with the new cookie, as a rule.
pub(super) const GOODBYE: Duration = Duration::from_millis(250);

/// The `SameSite` attribute of the cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
pub enum OnConflict {
    /// Applies the request's own changes (top-level keys set and removed) to the newest data.
    /// This is the default.
    #[default]
    Merge,
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
    /// Nothing, not even a message. (A session that is sealed is told all the same, as `on_rotate`
    /// says.)
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketMessages {
    /// Name of the message for a created, attached or changed session; `None` switches it off.
    /// Default: `sessionSet`.
    pub set: Option<String>,
    /// Name of the message for the end of a session; `None` switches it off.
    /// Default: `sessionDestroy`.
    pub destroy: Option<String>,
    /// Name of the message that every attached socket gets after a cleanup. Default: `None`.
    pub cleanup: Option<String>,
    /// Whether messages carry `sessionId`. Default: no, for whatever page scripts can read,
    /// injected scripts can steal.
    pub include_ids: bool,
}

impl Default for SocketMessages {
    fn default() -> Self {
        Self {
            set: Some("sessionSet".into()),
            destroy: Some("sessionDestroy".into()),
            cleanup: None,
            include_ids: false,
        }
    }
}

/// Everything the builder collects.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) key: String,
    pub(crate) client_key: String,
    /// An empty name is the default only if nobody asked for it.
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
            event_capacity: 4096,
            retry_after: SECOND,
            when_unavailable: WhenUnavailable::default(),
            node: NodeId::random(),
        }
    }
}

impl Options {
    /// Checks every option, and settles those that follow from others.
    pub(crate) fn settle(mut self) -> Result<Self> {
        if !self.client_key_given {
            self.client_key = format!("{}.cid", self.key);
        }
        self.check_names()?;
        self.check_cookies()?;
        self.check_keys()?;
        self.check_times()?;
        self.check_sizes()?;
        self.check_messages()?;
        self.origins.settle()?;
        Ok(self)
    }

    /// The interval of automatic cleanup: what was asked, else a quarter of the max age.
    pub(crate) fn cleanup_interval(&self) -> Duration {
        self.auto_cleanup_interval.unwrap_or_else(|| (self.lifetime.max_age / 4).clamp(MINUTE, DAY))
    }

    pub(crate) fn check_cleanup_interval(interval: Duration) -> Result<()> {
        in_range("auto_cleanup_interval", interval, MINUTE, DAY, "1 minute to 1 day")
    }

    fn check_names(&self) -> Result<()> {
        for (option, name) in [("cookie_name", &self.key), ("client_key", &self.client_key)] {
            if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token) {
                return Err(Error::option(
                    option,
                    format_args!("{name:?}"),
                    "a cookie name: 1 to 128 characters, visible ASCII without separators such as ; , = \" ( ) /",
                ));
            }
        }
        if self.key.eq_ignore_ascii_case(&self.client_key) {
            return Err(Error::option(
                "client_key",
                format_args!("{:?}", self.client_key),
                "different from `key`",
            ));
        }
        // An application of Koa's on the same host signs `key` by a cookie of this name, and
        // browsers would mix them up.
        let signs = |a: &str, b: &str| a.eq_ignore_ascii_case(&format!("{b}.sig"));
        if signs(&self.client_key, &self.key) || signs(&self.key, &self.client_key) {
            return Err(Error::option(
                "client_key",
                format_args!("{:?}", self.client_key),
                "neither `key` with `.sig` nor `key` without it: Koa keeps signatures in such cookies",
            ));
        }
        Ok(())
    }

    fn check_cookies(&mut self) -> Result<()> {
        if !self.path.starts_with('/') || !is_attribute(&self.path) {
            return Err(Error::option(
                "path",
                format_args!("{:?}", self.path),
                "a path that begins with / and has neither ; nor control characters",
            ));
        }
        if let Some(domain) = &self.domain
            && (domain.is_empty()
                || domain.len() > 253
                || !domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')))
        {
            return Err(Error::option(
                "domain",
                format_args!("{domain:?}"),
                "a host name, or not set for this host only",
            ));
        }
        for name in [&self.key, &self.client_key] {
            let host = has_prefix(name, "__Host-");
            if !host && !has_prefix(name, "__Secure-") {
                continue;
            }
            if self.secure == Secure::No {
                return Err(Error::option(
                    "secure",
                    "No",
                    &format!("Yes or Auto, because browsers refuse the cookie {name:?} otherwise"),
                ));
            }
            self.secure = Secure::Yes;
            if host && (self.path != "/" || self.domain.is_some()) {
                return Err(Error::option(
                    if self.domain.is_some() { "domain" } else { "path" },
                    self.domain.as_deref().unwrap_or(&self.path),
                    &format!("the default, because browsers refuse the cookie {name:?} otherwise"),
                ));
            }
        }
        if self.same_site == SameSite::None && self.secure != Secure::Yes {
            return Err(Error::option(
                "same_site",
                "None",
                "Lax or Strict, or joined by `secure(Secure::Yes)`: browsers refuse it otherwise",
            ));
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<()> {
        for (index, key) in self.keys.iter().enumerate() {
            let name = format!("keys[{index}]");
            if key.is_empty() {
                return Err(Error::option(&name, "empty", "at least 32 random bytes"));
            }
            if key.len() < 32 && !self.allow_weak_keys {
                return Err(Error::option(
                    &name,
                    format_args!("{} bytes long", key.len()),
                    "at least 32 random bytes, or allowed by `allow_weak_keys(true)` for trying things out",
                ));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<()> {
        let (min, max) = (*MAX_AGE_RANGE.start(), *MAX_AGE_RANGE.end());
        in_range("max_age", self.lifetime.max_age, min, max, "1 second to 1 year")?;
        if let Some(open) = self.lifetime.open_max_age {
            in_range("open_max_age", open, min, max, "1 second to 1 year")?;
        }
        in_range("join_window", self.join_window, Duration::ZERO, MINUTE, "at most 1 minute")?;
        let overlap = self.renew_overlap;
        in_range("renew_overlap", overlap, Duration::ZERO, 5 * MINUTE, "at most 5 minutes")?;
        if let Some(cap) = self.lifetime.absolute_max_age {
            in_range("absolute_max_age", cap, min, 10 * max, "1 second to 10 years")?;
        }
        in_range("client_max_age", self.client_max_age, SECOND, 400 * DAY, "1 second to 400 days")?;
        let tenth = Duration::from_millis(100);
        in_range(
            "lease_duration",
            self.lease,
            tenth,
            10 * MINUTE,
            "100 milliseconds to 10 minutes",
        )?;
        let wait = self.acquire_timeout;
        in_range(
            "acquire_timeout",
            wait,
            SECOND / 1000,
            10 * MINUTE,
            "1 millisecond to 10 minutes",
        )?;
        in_range("max_hold", self.max_hold, tenth, DAY, "100 milliseconds to 1 day")?;
        in_range("retry_after", self.retry_after, SECOND, DAY, "1 second to 1 day")?;
        if let Some(interval) = self.auto_cleanup_interval {
            Self::check_cleanup_interval(interval)?;
        }
        if let OnDestroy::Disconnect { grace } = self.on_destroy {
            let hour = 60 * MINUTE;
            in_range("on_destroy.grace", grace, Duration::ZERO, hour, "at most 1 hour")?;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        let size = |name, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::option(name, value, &format!("{min} to {max}")))
        };
        size("max_payload", self.max_payload, 2, 1 << 30)?;
        size("lease_queue_limit", self.lease_queue_limit, 1, 1_000_000)?;
        size("pending_sockets_limit", self.pending_sockets_limit, 1, 1_000_000)?;
        size("trusted_proxies", self.trusted_proxies, 0, 16)?;
        size("event_capacity", self.event_capacity, 16, 1 << 20)
    }

    fn check_messages(&self) -> Result<()> {
        let messages = &self.messages;
        let names = [
            ("messages.set", &messages.set),
            ("messages.destroy", &messages.destroy),
            ("messages.cleanup", &messages.cleanup),
        ];
        // Names that Socket.IO clients keep for themselves.
        let reserved = [
            "connect",
            "connect_error",
            "disconnect",
            "disconnecting",
            "newListener",
            "removeListener",
        ];
        for (option, name) in names {
            if let Some(name) = name
                && (name.is_empty() || reserved.contains(&name.as_str()))
            {
                return Err(Error::option(
                    option,
                    format_args!("{name:?}"),
                    "an event name that Socket.IO does not reserve, or None",
                ));
            }
        }
        Ok(())
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

fn in_range(name: &str, value: Duration, min: Duration, max: Duration, range: &str) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::option(name, format_args!("{value:?}"), range))
}

/// RFC 6265 cookie names are RFC 9110 tokens.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_attribute(text: &str) -> bool {
    text.bytes().all(|b| b != b';' && (0x20..0x7f).contains(&b))
}

/// Browsers compare these prefixes without case.
fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

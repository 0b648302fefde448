//! The crate's error: a kind to match on, a sentence with advice, and the cause.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Any error, boxed: what stores return and what [`Error::source`](StdError::source) leads to.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// Shorthand for a result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for `match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option given to the builder is out of range or contradicts another one.
    InvalidOption,
    /// There is no session: the socket's client has none, or the id names none.
    SessionMissing,
    /// The session was destroyed, expired or was replaced while it was being changed.
    /// The change was not written.
    SessionEnded,
    /// Another writer changed the session first and
    /// [`OnConflict::Error`](crate::bridge::OnConflict::Error) is set, or it changed the same key
    /// and [`OnConflict::Detect`](crate::bridge::OnConflict::Detect) is set, or merging did not
    /// succeed within the wait limit.
    Conflict,
    /// `with_session` (or `update`) was called for a session whose handler is running in this
    /// very task. Waiting would never end.
    Reentrant,
    /// The lease ran out before the handler was done; its change was refused.
    LeaseLost,
    /// The lease was not granted within the wait limit.
    WaitTimeout,
    /// Too many callers already wait for this session's lease.
    Busy,
    /// The place where sessions live can't be reached, or the bridge is shutting down.
    Unavailable,
    /// The store failed; see [`source`](StdError::source).
    Store,
    /// Session data is not a JSON object, is nested too deeply, or can't be (de)serialized.
    InvalidData,
    /// The session's JSON is longer than `max_payload`.
    PayloadTooLarge,
    /// A session's max age is zero, negative or beyond the limit.
    InvalidMaxAge,
    /// The socket passed no [`attach`](crate::socket::attach) middleware, or its handshake did
    /// not pass the session layer.
    NotAttached,
    /// The socket disconnected while its handler ran; nothing was written.
    Disconnected,
    /// The request's session was already committed and can't be changed any more.
    Committed,
    /// The store does not offer what was asked for (for example listing).
    Unsupported,
    /// An error that a `try_with_session` handler made itself.
    Handler,
}

impl ErrorKind {
    const fn summary(self) -> &'static str {
        match self {
            Self::InvalidOption => "invalid option",
            Self::SessionMissing => "session is missing",
            Self::SessionEnded => "session has ended",
            Self::Conflict => "session was changed by another writer",
            Self::Reentrant => "session is already held by this task",
            Self::LeaseLost => "session lease was lost",
            Self::WaitTimeout => "session lease was not granted in time",
            Self::Busy => "too many callers wait for this session",
            Self::Unavailable => "sessions are unavailable",
            Self::Store => "session store failed",
            Self::InvalidData => "invalid session data",
            Self::PayloadTooLarge => "session is too large",
            Self::InvalidMaxAge => "invalid max age",
            Self::NotAttached => "socket has no session attachment",
            Self::Disconnected => "socket disconnected",
            Self::Committed => "session is already committed",
            Self::Unsupported => "operation is not supported by the store",
            Self::Handler => "session handler failed",
        }
    }
}

/// An error of this crate.
///
/// [`kind`](Self::kind) is for code, `Display` for people, and
/// [`source`](StdError::source) keeps the cause (a store's own error, a serde error).
///
/// ```
/// use axum_io_session::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::SessionMissing, "log in first");
/// assert_eq!(error.kind(), ErrorKind::SessionMissing);
/// assert_eq!(error.to_string(), "session is missing: log in first");
/// ```
pub struct Error {
    kind: ErrorKind,
    context: Cow<'static, str>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of this kind; `context` says what happened or what to do.
    pub fn new(kind: ErrorKind, context: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// A store's failure with its cause.
    pub fn store(context: impl Into<Cow<'static, str>>, source: impl Into<BoxError>) -> Self {
        Self::new(ErrorKind::Store, context).with_source(source)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same kind and text, without the cause: for several waiters of one failure.
    #[must_use]
    pub fn without_source(&self) -> Self {
        Self { kind: self.kind, context: self.context.clone(), source: None }
    }

    pub(crate) fn option(name: &str, value: impl fmt::Display, range: &str) -> Self {
        Self::new(ErrorKind::InvalidOption, format!("`{name}` is {value}; it must be {range}"))
    }

    pub(crate) fn missing() -> Self {
        Self::new(ErrorKind::SessionMissing, "")
    }

    pub(crate) fn ended() -> Self {
        Self::new(
            ErrorKind::SessionEnded,
            "it was destroyed, expired or replaced meanwhile; nothing was written",
        )
    }

    pub(crate) fn always_slower() -> Self {
        Self::new(
            ErrorKind::Conflict,
            "other writers were always faster; use `update` for busy sessions",
        )
    }

    pub(crate) fn lease_lost() -> Self {
        Self::new(
            ErrorKind::LeaseLost,
            "the handler outlived its lease and nothing was written; raise `lease_duration` or do slow work outside",
        )
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.kind);
        if !self.context.is_empty() {
            debug.field("context", &self.context);
        }
        if let Some(source) = &self.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.summary())?;
        if self.context.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.context)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}

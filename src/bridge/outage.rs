//! What happens to requests while the place where sessions live is away.

use std::time::Duration;

/// What a request gets whose session can't be loaded, because Redis or the store can't be reached
/// or fails.
///
/// Requests that present no session cookie have nothing to load, and those that extract no
/// session don't ask: neither is touched by this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenUnavailable {
    /// The extractor fails, over HTTP with 503 and `Retry-After`. This is the default.
    #[default]
    Refuse,
    /// The extractor gives an empty session that can only be read, as if no user were logged in:
    /// for pages that are worth something to anonymous visitors too.
    ///
    /// Every change of it fails with [`Unavailable`](crate::ErrorKind::Unavailable), and
    /// [`Session::is_unavailable`](crate::Session::is_unavailable) tells it from a real one. The
    /// session cookie is neither set nor cleared, so that who was logged in still is afterwards.
    /// Sockets are not served so: a handshake that can't be looked up is rejected.
    ///
    /// An application that takes "no session" for "may do this" must not choose it.
    Anonymous,
}

/// `Retry-After` takes whole seconds: more is better than too little.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

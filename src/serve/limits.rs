//! How long clients may take.

use std::time::Duration;

/// How long a client may take while the server runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte of a header, or from the begin of the connection, to the header's end.
    pub(super) header: Duration,
    /// Between an answer and the next request.
    pub(super) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Balancers keep connections for 60 seconds (nginx, AWS): they have to be the ones that close, or
        // a request meets a connection that was closed a moment ago.
        Self { header: Duration::from_secs(30), idle: Duration::from_secs(75) }
    }
}

/// How long a stopping server waits for what runs.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(10);

/// A client that a stopping server waits for is given up if nothing comes for this long; it is seen
/// after twice that at most.
pub(super) const STALLED: Duration = Duration::from_secs(1);

//! Knowing in a handler, and after it, that the request's session has ended.

use std::fmt;
use std::future::Future;

use super::Session;
use crate::bridge::{Connection, Seen, SessionBridge};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{DestroyReason, SessionEnd, SessionId};

impl Session {
    /// Waits until this request's session ends on any node, for `select!` in long polls, uploads and
    /// background work. [`cancellation`](Self::cancellation) and a wait in one; take that one for
    /// a loop, because each call costs a read.
    ///
    /// ```
    /// # async fn next_message() -> String { String::new() }
    /// use axum_io_session::{Result, Session};
    ///
    /// async fn poll(session: Session) -> Result<String> {
    ///     tokio::select! {
    ///         message = next_message() => Ok(message),
    ///         end = session.cancelled() => Ok(format!("session is over: {}", end?.as_str())),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`cancellation`](Self::cancellation), at once.
    pub async fn cancelled(&self) -> Result<SessionEnd> {
        Ok(self.cancellation().await?.cancelled().await)
    }

    /// Begins to follow this request's session: what it returns says when the session ends, on any
    /// node and for any reason, or is sealed by another request, or the node shuts down.
    ///
    /// It may be kept for longer than the request. Meanwhile this node receives the session's
    /// events, and the session counts in [`Stats::sockets`](crate::bridge::Stats::sockets). It costs
    /// one read. Requests that don't call it pay nothing.
    ///
    /// A request without a session follows its client, as a socket does: to the open session that
    /// it gets, as [`SocketPairing`](crate::bridge::SocketPairing) says. A session that
    /// this very request creates or ends is followed at its commit; call [`save`](Self::save) first to
    /// be exact. A `rotate` of this very request is followed into the sealed session.
    ///
    /// # Errors
    /// Those of the store; [`Unavailable`](ErrorKind::Unavailable) also for a session that could not
    /// be loaded.
    pub async fn cancellation(&self) -> Result<Cancellation> {
        Ok(Cancellation { session: self.clone(), connection: self.follow().await? })
    }

    /// Attaches to what this request sees. The connection keeps neither the request nor its data.
    pub(in crate::web) async fn follow(&self) -> Result<Connection> {
        if self.inner.unavailable {
            return Err(Error::new(ErrorKind::Unavailable, "this request's could not be loaded"));
        }
        self.inner.bridge.connect(self.seen().await).await
    }

    pub(in crate::web) fn bridge(&self) -> &SessionBridge {
        &self.inner.bridge
    }

    /// What this request sees, not in the middle of a write of its own.
    async fn seen(&self) -> Seen {
        let _writing = self.inner.writing.lock().await;
        let state = self.lock();
        let base = state.unit.base.as_ref();
        Seen { client: state.client, session: base.map(|base| (base.generation, base.session_id)) }
    }
}

/// Says when a request's session ends. Made by [`Session::cancellation`].
#[must_use = "dropping it ends the wait"]
pub struct Cancellation {
    session: Session,
    connection: Connection,
}

impl Cancellation {
    /// Waits for the end, and says what it was; again and again the same. Cancel safe.
    pub async fn cancelled(&mut self) -> SessionEnd {
        loop {
            let end = self.connection.signal().ended().await;
            if !matches!(&end, SessionEnd::Ended(end) if end.reason == DestroyReason::Sealed) {
                return end;
            }
            // The event may have come before this request's own write returned.
            let seen = self.session.seen().await;
            if seen.session.is_none() || seen == self.connection.seen() {
                return end;
            }
            match self.session.inner.bridge.connect(seen).await {
                Ok(connection) => self.connection = connection,
                Err(_) => return end,
            }
        }
    }

    /// Runs `work` until it is done, or drops it at the session's end.
    ///
    /// # Errors
    /// The end.
    pub async fn run<T>(&mut self, work: impl Future<Output = T>) -> Result<T, SessionEnd> {
        tokio::select! {
            biased;
            end = self.cancelled() => Err(end),
            done = work => Ok(done),
        }
    }

    /// The session that is followed now, if there is one. No store trip.
    pub fn session_id(&self) -> Option<SessionId> {
        self.connection.session_id()
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation").finish_non_exhaustive()
    }
}

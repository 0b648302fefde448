//! Handlers with a session.

use std::future::Future;

use super::SessionBridge;
use crate::bridge::context::SessionContext;
use crate::bridge::with_session::run_by_id;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::session::SessionId;

impl SessionBridge {
    /// Runs `handler` with a session, as its only leased writer.
    ///
    /// Calls for one session take turns in the order they came, with those of all sockets and
    /// `update`s; reads and other sessions are not held up. What the handler changed is written
    /// once, when it is done. See [`SessionContext`].
    ///
    /// Cancel safe: if the future is dropped nothing is written and the turn passes on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> axum_io_session::Result<()> {
    /// # use axum_io_session::{ErrorKind, Result, SessionBridge, SessionId};
    /// # let bridge = SessionBridge::builder().build().await?;
    /// # let id = SessionId::generate();
    /// let visits: Result<Result<u64>> = bridge
    ///     .with_session(&id, |session| async move {
    ///         let visits = session.get::<u64>("visits")?.unwrap_or(0) + 1;
    ///         session.insert("visits", visits)?;
    ///         Ok(visits)
    ///     })
    ///     .await;
    /// assert_eq!(visits.err().map(|error| error.kind()), Some(ErrorKind::SessionMissing));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SessionMissing`](ErrorKind::SessionMissing) if there is no such session,
    /// [`Reentrant`](ErrorKind::Reentrant) inside a handler of the same session,
    /// [`WaitTimeout`](ErrorKind::WaitTimeout) or [`Busy`](ErrorKind::Busy) if the turn did not
    /// come, [`SessionEnded`](ErrorKind::SessionEnded) or [`LeaseLost`](ErrorKind::LeaseLost) if
    /// the changes came too late, and those of the store.
    pub async fn with_session<F, Fut, R>(&self, session: &SessionId, handler: F) -> Result<R>
    where
        F: FnOnce(SessionContext) -> Fut,
        Fut: Future<Output = R>,
    {
        run_by_id(&self.core, session, handler, |_| true).await
    }

    /// [`with_session`](Self::with_session) for a handler that can fail: its error means that
    /// nothing is written.
    ///
    /// # Errors
    /// The handler's own, and those of [`with_session`](Self::with_session) by `From`.
    pub async fn try_with_session<F, Fut, R, E>(
        &self,
        session: &SessionId,
        handler: F,
    ) -> Result<R, E>
    where
        F: FnOnce(SessionContext) -> Fut,
        Fut: Future<Output = Result<R, E>>,
        E: From<Error>,
    {
        run_by_id(&self.core, session, handler, Result::is_ok).await.map_err(E::from)?
    }
}

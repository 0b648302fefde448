//! Cleanups, and notices of what a store did by itself.

use std::time::Duration;

use super::SessionBridge;
use crate::bridge::cleanup;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::session::SessionId;

impl SessionBridge {
    /// Removes the expired sessions that are still in the store and returns their number. Sessions
    /// whose end was announced in time are not among them: those records are gone already.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if the store can't list, and those of the store.
    pub async fn cleanup(&self) -> Result<u64> {
        self.core.backend.cleanup().await
    }

    /// Runs [`cleanup`](Self::cleanup) each `interval` (1 minute to 1 day; `None`: the builder's
    /// `auto_cleanup_interval`). Replaces a timer that runs. `true`: the timer runs.
    ///
    /// # Errors
    /// [`InvalidOption`](ErrorKind::InvalidOption) out of range,
    /// [`Unsupported`](ErrorKind::Unsupported) if the store can't list,
    /// [`Unavailable`](ErrorKind::Unavailable) after shutdown.
    #[doc(alias = "startAutoCleanup")]
    pub async fn start_auto_cleanup(&self, interval: Option<Duration>) -> Result<bool> {
        cleanup::start(&self.core, interval).await?;
        Ok(true)
    }

    /// Stops the timer. `false` if none ran.
    #[doc(alias = "stopAutoCleanup")]
    pub fn stop_auto_cleanup(&self) -> bool {
        cleanup::stop(&self.core)
    }

    /// Announces a session that was written into the store directly, as if this bridge had done
    /// it. Ids that no client is attached to are ignored.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "notifyStoreSet")]
    pub async fn notify_store_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        self.core.backend.notify_set(session, is_new).await
    }

    /// Announces a session that was removed from the store directly. Ids that no client is
    /// attached to are ignored.
    ///
    /// # Errors
    /// Those of the store.
    #[doc(alias = "notifyStoreDestroy")]
    pub async fn notify_store_destroy(&self, session: &SessionId) -> Result<()> {
        self.core.backend.notify_destroy(session).await
    }

    /// Announces a cleanup that the store did by itself.
    #[doc(alias = "notifyStoreCleanup")]
    pub fn notify_store_cleanup(&self, cleared: u64) {
        self.core.backend.notify_cleanup(cleared);
    }
}

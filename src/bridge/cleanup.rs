//! Cleanup now and then.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::handle::SessionBridge;
use super::options::Options;
use crate::error::{Error, ErrorKind, Result};

impl SessionBridge {
    /// Runs [`cleanup`](Self::cleanup) each `interval` (1 minute to 1 day; `None`: the builder's
    /// `auto_cleanup_interval`). Replaces a timer that runs. `true`: the timer runs.
    ///
    /// # Errors
    /// [`InvalidOption`](ErrorKind::InvalidOption) out of range,
    /// [`Unsupported`](ErrorKind::Unsupported) if the store can't list,
    /// [`Unavailable`](ErrorKind::Unavailable) after shutdown.
    #[doc(alias = "startAutoCleanup")]
    pub async fn start_auto_cleanup(&self, interval: Option<Duration>) -> Result<bool> {
        let interval = interval.unwrap_or_else(|| self.options().cleanup_interval());
        Options::check_cleanup_interval(interval)?;
        if !self.backend().can_clean_up().await? {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "cleanup needs a store that implements `list`",
            ));
        }
        let stop = self.inner.closing.child_token();
        let (weak, stopped) = (Arc::downgrade(&self.inner), stop.clone());
        self.swap_cleaner(Some(stop));
        self.inner.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = stopped.cancelled() => return,
                }
                let Some(inner) = weak.upgrade() else { return };
                if let Err(error) = inner.backend.cleanup().await {
                    tracing::warn!(%error, "session cleanup failed; it is tried again in {interval:?}");
                }
            }
        });
        Ok(true)
    }

    /// Stops the timer. `false` if none ran.
    #[doc(alias = "stopAutoCleanup")]
    pub fn stop_auto_cleanup(&self) -> bool {
        self.swap_cleaner(None)
    }

    fn swap_cleaner(&self, new: Option<tokio_util::sync::CancellationToken>) -> bool {
        let mut cleaner = self.inner.cleaner.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *cleaner, new) {
            Some(old) => {
                old.cancel();
                true
            }
            None => false,
        }
    }
}

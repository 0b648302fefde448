//! Periodic cleanup.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::core::Core;
use super::options::Options;
use crate::error::{Error, ErrorKind, Result};

/// Begins to clean up at each interval, in place of a timer that runs.
pub(super) async fn start(core: &Arc<Core>, interval: Option<Duration>) -> Result<()> {
    let interval = interval.unwrap_or_else(|| core.options.cleanup_interval());
    Options::check_cleanup_interval(interval)?;
    if !core.backend.can_clean_up().await? {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "cleanup needs a store that implements `list`",
        ));
    }
    let stop = core.closing.child_token();
    let (weak, stopped) = (Arc::downgrade(core), stop.clone());
    replace_timer(core, Some(stop));
    core.tasks.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stopped.cancelled() => return,
            }
            let Some(core) = weak.upgrade() else { return };
            if let Err(error) = core.backend.cleanup().await {
                tracing::warn!(%error, "session cleanup failed; it is tried again in {interval:?}");
            }
        }
    });
    Ok(())
}

/// Ends the timer. `false` if none ran.
pub(super) fn stop(core: &Core) -> bool {
    replace_timer(core, None)
}

fn replace_timer(core: &Core, new: Option<CancellationToken>) -> bool {
    let mut cleaner = core.cleaner.lock().unwrap_or_else(PoisonError::into_inner);
    match std::mem::replace(&mut *cleaner, new) {
        Some(old) => {
            old.cancel();
            true
        }
        None => false,
    }
}

//! The start of a bridge, and its end.

use std::sync::Arc;
use std::time::Duration;

use super::audience;
use super::connection;
use super::core::Core;
use super::dispatch;
use super::heartbeat;
use super::options::Options;
use crate::backend::Backend;

/// How long a shutdown waits for handlers that hold a session.
const HANDLER_LIMIT: Duration = Duration::from_secs(10);
/// How long a shutdown waits for the bridge's own tasks.
const TASK_LIMIT: Duration = Duration::from_secs(10);

/// Starts the bridge's tasks.
pub(super) fn start(backend: Arc<dyn Backend>, options: Options) -> Arc<Core> {
    // Before anything can happen, so that nothing is missed.
    let source = backend.subscribe();
    let core = Arc::new(Core::new(backend, options));
    // Weak: the tasks must not keep alive what ends them.
    core.spawn(dispatch::dispatch_loop(Arc::downgrade(&core), source));
    core.spawn(audience::follow_audience(Arc::downgrade(&core)));
    core.spawn(heartbeat::heartbeat_loop(Arc::downgrade(&core)));
    core
}

/// Lets handlers finish, and ends everything else.
pub(super) async fn shut_down(core: &Core) {
    core.stopping.cancel();
    connection::close_all(core);
    core.handlers.close();
    if tokio::time::timeout(HANDLER_LIMIT, core.handlers.wait()).await.is_err() {
        tracing::warn!(
            "handlers still hold sessions after {HANDLER_LIMIT:?}; their changes are refused"
        );
    }
    core.backend.shutdown().await;
    core.closing.cancel();
    core.tasks.close();
    if tokio::time::timeout(TASK_LIMIT, core.tasks.wait()).await.is_err() {
        tracing::warn!("tasks of the session bridge still run after {TASK_LIMIT:?}");
    }
    core.sockets.clear();
    core.events.close();
}

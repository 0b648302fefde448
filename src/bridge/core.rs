//! What all parts of a bridge share.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::combine::Combiner;
use super::engines::EngineConnections;
use super::events::Publisher;
use super::group::Writers;
use super::options::Options;
use super::sockets::Sockets;
use super::stats::Counters;
use super::turn::Turns;
use crate::backend::Backend;

/// The state of a bridge. Handles own it together; the bridge's own tasks hold it weakly, so that
/// the last handle ends them.
pub(crate) struct Core {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) options: Options,
    pub(crate) counters: Arc<Counters>,
    pub(super) sockets: Sockets,
    pub(super) engines: Arc<EngineConnections>,
    pub(super) turns: Turns,
    pub(super) combiner: Arc<Combiner>,
    pub(super) events: Publisher,
    pub(super) started: Instant,
    pub(super) tasks: TaskTracker,
    /// Callers that hold a lease or wait for one.
    pub(super) handlers: TaskTracker,
    /// No new sockets from now on: they belong on other nodes.
    pub(super) draining: CancellationToken,
    /// The drain is over.
    pub(super) drained: OnceCell<()>,
    /// Streams and plain WebSockets end from now on.
    pub(super) leaving: CancellationToken,
    /// No new leases from now on.
    pub(super) stopping: CancellationToken,
    /// All tasks end now.
    pub(super) closing: CancellationToken,
    /// Stops the automatic cleanup that runs.
    pub(super) cleaner: Mutex<Option<CancellationToken>>,
}

impl Core {
    pub(super) fn new(backend: Arc<dyn Backend>, options: Options) -> Self {
        let (tasks, handlers) = (TaskTracker::new(), TaskTracker::new());
        let counters = Arc::new(Counters::default());
        let writers = Arc::new(Writers::new(
            backend.clone(),
            counters.clone(),
            &options,
            tasks.clone(),
            handlers.clone(),
        ));
        Self {
            backend,
            counters,
            turns: Turns::new(writers.clone()),
            combiner: Arc::new(Combiner::new(writers)),
            sockets: Sockets::default(),
            engines: Arc::new(EngineConnections::new(options.pending_sockets_limit)),
            events: Publisher::new(options.event_capacity),
            started: Instant::now(),
            tasks,
            handlers,
            draining: CancellationToken::new(),
            drained: OnceCell::new(),
            leaving: CancellationToken::new(),
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            cleaner: Mutex::new(None),
            options,
        }
    }

    /// Runs work beside, until it is done or the bridge closes.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                // What is ready is still done, such as events that are there.
                biased;
                () = work => {}
                () = closing.cancelled() => {}
            }
        });
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

//! What the tasks need that write for several callers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::options::{OnConflict, Options};
use super::stats::Counters;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};

/// A caller that waits for what came of a write.
pub(super) type Answer<T> = oneshot::Sender<Result<T>>;

pub(super) struct Writers {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) counters: Arc<Counters>,
    /// Whatever others wrote meanwhile is overwritten.
    pub(super) overwrite: bool,
    /// How long a caller waits for its turn, and a write may meet those of others.
    pub(super) limit: Duration,
    /// How many may wait for one session.
    pub(super) queue_limit: usize,
    pub(super) max_payload: usize,
    /// All of the bridge's tasks.
    tasks: TaskTracker,
    /// Those that a shutdown lets finish.
    handlers: TaskTracker,
}

impl Writers {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        counters: Arc<Counters>,
        options: &Options,
        tasks: TaskTracker,
        handlers: TaskTracker,
    ) -> Self {
        Self {
            backend,
            counters,
            overwrite: options.on_conflict == OnConflict::Overwrite,
            limit: options.acquire_timeout,
            queue_limit: options.lease_queue_limit,
            max_payload: options.max_payload,
            tasks,
            handlers,
        }
    }

    /// Runs a writer, which a shutdown waits for. It ends by itself: each of its writes does, and no
    /// caller comes any more.
    pub(super) fn spawn(&self, writer: impl Future<Output = ()> + Send + 'static) {
        let running = self.handlers.token();
        self.tasks.spawn(async move {
            writer.await;
            drop(running);
        });
    }
}

/// Says to all who wait for one write why it was not made; the first one learns the cause.
pub(super) fn fail_all<T>(callers: impl IntoIterator<Item = Answer<T>>, error: Error) {
    let mut callers = callers.into_iter();
    let first = callers.next();
    for caller in callers {
        let _ = caller.send(Err(error.without_source()));
    }
    if let Some(first) = first {
        let _ = first.send(Err(error));
    }
}

/// The task that wrote is gone: it panicked, or the runtime ends.
pub(super) fn interrupted() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the write was interrupted; whether it was made is not known",
    )
}

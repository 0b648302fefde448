//! A held lease: it is renewed while its holder works, and given back when that is done.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::attachment::Attachment;
use super::core::Core;
use crate::backend::LeaseToken;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Record};

/// How often the socket of a long handler is checked.
const SOCKET_CHECK: Duration = Duration::from_millis(100);

tokio::task_local! {
    /// The clients whose lease this task holds, innermost first.
    static HELD: Arc<Holds>;
}

struct Holds {
    client: ClientId,
    outer: Option<Arc<Holds>>,
}

fn holds(client: &ClientId) -> bool {
    HELD.try_with(|innermost| {
        std::iter::successors(Some(innermost), |held| held.outer.as_ref())
            .any(|held| held.client == *client)
    })
    .unwrap_or(false)
}

/// A held lease; dropping it gives it back.
pub(super) struct LeaseGuard<'a> {
    core: &'a Core,
    client: ClientId,
    lease: LeaseToken,
    length: Duration,
    record: Option<Arc<Record>>,
    /// A write gave the lease back in its own step.
    released: AtomicBool,
    /// A shutdown waits for it. Dropped after the lease was given back.
    _running: TaskTrackerToken,
}

impl<'a> LeaseGuard<'a> {
    /// Waits for the client's lease and reads its session.
    pub(super) async fn acquire(core: &'a Core, client: ClientId) -> Result<Self> {
        if holds(&client) {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "use the context that the running handler has",
            ));
        }
        // Before `stopping` is read: a shutdown that begins in between waits for this one.
        let running = core.handlers.token();
        let stopping = || Error::new(ErrorKind::Unavailable, "the bridge is shutting down");
        if core.stopping.is_cancelled() {
            return Err(stopping());
        }
        let acquired = tokio::select! {
            biased;
            acquired = core.backend.acquire(&client, core.options.acquire_timeout) => acquired,
            () = core.stopping.cancelled() => Err(stopping()),
        };
        let acquired = acquired.inspect_err(|error| {
            if error.kind() == ErrorKind::WaitTimeout {
                core.counters.lease_timeouts.add(1);
            }
        })?;
        core.counters.leases.add(1);
        Ok(Self {
            core,
            client,
            lease: acquired.lease,
            length: acquired.length,
            record: acquired.record.map(Arc::new),
            released: AtomicBool::new(false),
            _running: running,
        })
    }

    /// The client's session as it was when the lease was granted.
    pub(super) fn record(&self) -> Option<&Arc<Record>> {
        self.record.as_ref()
    }

    pub(super) fn lease(&self) -> LeaseToken {
        self.lease
    }

    /// The lease was given back in the same step as the last write.
    pub(super) fn released(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// Runs `work`, renewing the lease at each third, until it is done or its socket is gone.
    /// When the lease is lost `lost` is cancelled, and the work may end in its own way.
    ///
    /// Another call for the same client from inside the work is refused.
    pub(super) async fn run<T>(
        &self,
        lost: &CancellationToken,
        socket: Option<&Attachment>,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let outer = HELD.try_with(Arc::clone).ok();
        let work = HELD.scope(Arc::new(Holds { client: self.client, outer }), work);
        let gone = async {
            match socket {
                Some(socket) => {
                    while socket.sink().is_open() {
                        tokio::time::sleep(SOCKET_CHECK).await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        // Beside each other: a renewal that hangs does not hold up the work.
        tokio::select! {
            biased;
            result = work => Ok(result),
            never = self.keep(lost) => match never {},
            () = gone => Err(disconnected()),
        }
    }

    /// Renews the lease until it is lost, and cancels `lost` then.
    async fn keep(&self, lost: &CancellationToken) -> Infallible {
        let begun = Instant::now();
        let mut renewed = begun;
        let mut next = begun + self.length / 3;
        let ends = begun + self.core.options.max_hold;
        loop {
            tokio::time::sleep_until(next.min(ends)).await;
            if Instant::now() >= ends {
                break;
            }
            next = Instant::now() + self.length / 3;
            match self.core.backend.renew(&self.client, self.lease).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => break,
                // Perhaps the next try comes in time.
                Err(error) if renewed.elapsed() < self.length => {
                    tracing::debug!(%error, "a session's lease was not renewed yet");
                }
                Err(_) => break,
            }
        }
        lost.cancel();
        std::future::pending().await
    }
}

impl Drop for LeaseGuard<'_> {
    fn drop(&mut self) {
        if !*self.released.get_mut() {
            self.core.backend.release(&self.client, self.lease);
        }
    }
}

/// The handler's socket is gone.
pub(super) fn disconnected() -> Error {
    Error::new(ErrorKind::Disconnected, "its handler was stopped and nothing was written")
}

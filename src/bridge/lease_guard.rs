//! A caller's turn with a client's session: the lease is renewed while it works, and no other call for
//! the client is made from inside.

use std::convert::Infallible;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::attachment::Attachment;
use super::core::Core;
use super::turn::Turn;
use crate::error::{Error, ErrorKind, Result};
use crate::session::ClientId;

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

/// A turn with a client's session under its lease; dropping it ends the turn.
pub(super) struct LeaseGuard<'a> {
    core: &'a Core,
    client: ClientId,
    turn: Turn,
    /// A shutdown waits for it. Dropped after the turn.
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
        let turn = tokio::select! {
            biased;
            turn = core.turns.turn(&client) => turn,
            () = core.stopping.cancelled() => Err(stopping()),
        };
        let turn = turn.inspect_err(|error| {
            if error.kind() == ErrorKind::WaitTimeout {
                core.counters.lease_timeouts.add(1);
            }
        })?;
        core.counters.leases.add(1);
        Ok(Self { core, client, turn, _running: running })
    }

    /// Something that only its caller writes begins: all that was left before is stored by then, and
    /// the next caller reads it again.
    ///
    /// # Errors
    /// Why what was left before, and this caller built on, is not stored.
    pub(super) async fn begin_own_write(&self) -> Result<()> {
        self.turn.settled().await?;
        self.turn.outdates();
        Ok(())
    }

    /// Runs `work`, renewing the lease at each third, until it is done or its socket is gone.
    /// When the lease is lost [`Turn::lost`] is cancelled, and the work may end in its own way.
    ///
    /// Another call for the same client from inside the work is refused.
    pub(super) async fn run<T>(
        &self,
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
            never = self.keep() => match never {},
            () = gone => Err(disconnected()),
        }
    }

    /// Renews the lease until it is lost, and says so then.
    async fn keep(&self) -> Infallible {
        let (begun, length) = (Instant::now(), self.turn.length());
        let mut next = begun + (length / 3).saturating_sub(self.turn.since_renewal());
        let ends = begun + self.core.options.max_hold;
        loop {
            tokio::time::sleep_until(next.min(ends)).await;
            if Instant::now() >= ends {
                break;
            }
            next = Instant::now() + length / 3;
            match self.core.backend.renew(&self.client, self.turn.lease()).await {
                Ok(true) => self.turn.renewed(),
                Ok(false) => break,
                // Perhaps the next try comes in time.
                Err(error) if self.turn.since_renewal() < length => {
                    tracing::debug!(%error, "a session's lease was not renewed yet");
                }
                Err(_) => break,
            }
        }
        self.turn.lose();
        std::future::pending().await
    }
}

impl Deref for LeaseGuard<'_> {
    type Target = Turn;
    fn deref(&self) -> &Turn {
        &self.turn
    }
}

/// The handler's socket is gone.
pub(super) fn disconnected() -> Error {
    Error::new(ErrorKind::Disconnected, "its handler was stopped and nothing was written")
}

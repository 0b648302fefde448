//! `with_session`: one writer at a time, over all sockets, updates and nodes.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::context::SessionContext;
use super::handle::SessionBridge;
use super::own_ends::{self, Ended};
use super::unit_of_work::Unit;
use crate::backend::{DestroyTarget, LeaseToken, Loaded};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Record, SessionId};

/// How often a long handler's socket is looked at.
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
pub(super) struct Held<'a> {
    bridge: &'a SessionBridge,
    client: ClientId,
    lease: LeaseToken,
    length: Duration,
    record: Option<Record>,
    /// A write gave the lease back in its own step.
    released: AtomicBool,
    /// A shutdown waits for it. Dropped after the lease was given back.
    _running: TaskTrackerToken,
}

impl<'a> Held<'a> {
    /// Waits for the client's lease and reads its session.
    pub(super) async fn acquire(bridge: &'a SessionBridge, client: ClientId) -> Result<Self> {
        if holds(&client) {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "use the context that the running handler has",
            ));
        }
        // Before the look at `stopping`: a shutdown that begins in between waits for this one.
        let running = bridge.inner.handlers.token();
        let stopping = || Error::new(ErrorKind::Unavailable, "the bridge is shutting down");
        if bridge.inner.stopping.is_cancelled() {
            return Err(stopping());
        }
        let wait = bridge.options().acquire_timeout;
        let acquired = tokio::select! {
            biased;
            acquired = bridge.backend().acquire(&client, wait) => acquired,
            () = bridge.inner.stopping.cancelled() => Err(stopping()),
        };
        let acquired = acquired.inspect_err(|error| {
            if error.kind() == ErrorKind::WaitTimeout {
                bridge.counters().lease_timeouts.add(1);
            }
        })?;
        bridge.counters().leases.add(1);
        Ok(Self {
            bridge,
            client,
            lease: acquired.lease,
            length: acquired.length,
            record: acquired.record,
            released: AtomicBool::new(false),
            _running: running,
        })
    }

    pub(super) fn record(&self) -> Option<&Record> {
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
    async fn run<T>(
        &self,
        lost: &CancellationToken,
        connected: Option<&(dyn Fn() -> bool + Send + Sync)>,
        work: impl Future<Output = T>,
    ) -> Result<T> {
        let gone = async {
            match connected {
                Some(connected) => {
                    while connected() {
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

    /// Renews the lease until it is lost, and then says so.
    async fn keep(&self, lost: &CancellationToken) -> Infallible {
        let begun = Instant::now();
        let mut renewed = begun;
        let mut next = begun + self.length / 3;
        let ends = begun + self.bridge.options().max_hold;
        loop {
            tokio::time::sleep_until(next.min(ends)).await;
            if Instant::now() >= ends {
                break;
            }
            next = Instant::now() + self.length / 3;
            match self.bridge.backend().renew(&self.client, self.lease).await {
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

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !*self.released.get_mut() {
            self.bridge.backend().release(&self.client, self.lease);
        }
    }
}

fn disconnected() -> Error {
    Error::new(ErrorKind::Disconnected, "its handler was stopped and nothing was written")
}

/// Whose session a handler wants, and on which conditions.
pub(crate) struct Call<'a> {
    pub(crate) client: ClientId,
    /// Whether this session of the client may be used.
    pub(crate) admits: &'a (dyn Fn(&Record) -> bool + Send + Sync),
    /// Whether the socket that called still is there.
    pub(crate) connected: Option<&'a (dyn Fn() -> bool + Send + Sync)>,
}

/// What came of a call: the handler's own result is kept apart from ours.
pub(crate) enum Ran<T> {
    Done(T),
    Missing,
}

impl SessionBridge {
    /// Runs a handler under the lease and writes what it left, if `keep` says so.
    pub(crate) async fn run_leased<F, Fut>(
        &self,
        call: Call<'_>,
        handler: F,
        keep: impl FnOnce(&Fut::Output) -> bool,
    ) -> Result<Ran<Fut::Output>>
    where
        F: FnOnce(SessionContext) -> Fut,
        Fut: Future,
    {
        let held = Held::acquire(self, call.client).await?;
        let Some(record) = held.record.as_ref().filter(|record| (call.admits)(record)) else {
            return Ok(Ran::Missing);
        };
        let lost = CancellationToken::new();
        let context = SessionContext::new(record, lost.clone());
        // Also if the handler panics or is dropped: what it kept is worth nothing then.
        let seal = Seal(&context, self);
        let outer = HELD.try_with(Arc::clone).ok();
        let holds = Arc::new(Holds { client: call.client, outer });
        let work = HELD.scope(holds, async { handler(context.clone()).await });
        let result = held.run(&lost, call.connected, work).await?;
        if call.connected.is_some_and(|connected| !connected()) {
            return Err(disconnected());
        }
        std::mem::forget(seal);
        let left = context.seal();
        if !keep(&result) {
            self.counters().handlers_discarded.add(1);
            return Ok(Ran::Done(result));
        }
        // Some time of the lease may be left after its holder was told that it is over.
        let in_time = || if lost.is_cancelled() { Err(Error::lease_lost()) } else { Ok(()) };
        if left.destroyed {
            self.counted(in_time())?;
            let target = DestroyTarget::Leased(call.client, record.generation, held.lease());
            return match self.counted(self.backend().destroy(target).await)? {
                true => {
                    own_ends::note(Ended::Session { id: record.session_id, sealed: record.sealed });
                    Ok(Ran::Done(result))
                }
                false => Err(Error::ended()),
            };
        }
        let unit = Unit {
            data: left.data,
            max_age: (left.max_age != record.max_age).then_some(left.max_age),
            ..Unit::new(record.clone(), record.session_id)
        };
        let changes = record.data.changes_to(&unit.data);
        if !changes.is_empty() || unit.max_age.is_some() {
            self.counted(in_time())?;
            self.counted(self.write(record, &unit, &changes, Some(&held)).await)?;
        }
        Ok(Ran::Done(result))
    }

    /// Counts a lease that was lost before its holder wrote.
    fn counted<T>(&self, written: Result<T>) -> Result<T> {
        written.inspect_err(|error| {
            if error.kind() == ErrorKind::LeaseLost {
                self.counters().leases_lost.add(1);
            }
        })
    }

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
        let record = match self.backend().load(std::slice::from_ref(session), None).await? {
            Loaded::Found(record) => record,
            Loaded::Missing { .. } => return Err(Error::missing()),
        };
        let same = |now: &Record| now.generation == record.generation;
        let call = Call { client: record.client_id, admits: &same, connected: None };
        match self.run_leased(call, handler, |_| true).await? {
            Ran::Done(result) => Ok(result),
            Ran::Missing => Err(Error::missing()),
        }
    }
}

/// Seals a context whose handler did not come to its end.
struct Seal<'a>(&'a SessionContext, &'a SessionBridge);

impl Drop for Seal<'_> {
    fn drop(&mut self) {
        self.0.seal();
        self.1.counters().handlers_discarded.add(1);
    }
}

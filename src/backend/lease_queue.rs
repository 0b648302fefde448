//! A client's node-local lease: a queue, first come first served, with hand-over.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backend::LeaseToken;
use crate::backend::on_drop::Undo;
use crate::error::{Error, ErrorKind, Result};

/// The node-local lease of one client: a building block for backends.
///
/// First come, first served. A lease is handed on by [`release`](Self::release), or, if its owner
/// never comes back, when it runs out: nothing polls. The backend keeps one queue for each client,
/// and may drop one that [is idle](Self::is_idle). All calls for a client have to use the same queue
/// as long as it is not.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> axum_io_session::Result<()> {
/// use std::time::Duration;
/// use axum_io_session::backend::LeaseQueue;
///
/// let (queue, length) = (LeaseQueue::default(), Duration::from_secs(10));
/// let lease = queue.acquire(length, Duration::from_secs(1), 100).await?;
/// assert!(queue.owns(lease) && queue.renew(lease, length));
/// queue.release(lease, length);
/// assert!(queue.is_idle());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct LeaseQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    owner: Option<Owner>,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Owner {
    token: LeaseToken,
    until: Instant,
}

#[derive(Debug)]
struct Waiter {
    token: LeaseToken,
    granted: oneshot::Sender<()>,
}

impl LeaseQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for at most `wait` for a lease of this `length`. At most `limit` callers wait.
    ///
    /// Cancel safe: dropping the future leaves the queue, or gives back a lease that was granted and
    /// not yet seen.
    ///
    /// # Errors
    /// [`WaitTimeout`](ErrorKind::WaitTimeout) after `wait`, [`Busy`](ErrorKind::Busy) beyond
    /// `limit`.
    pub async fn acquire(
        &self,
        length: Duration,
        wait: Duration,
        limit: usize,
    ) -> Result<LeaseToken> {
        let token = LeaseToken::random();
        let mut granted = {
            let mut state = self.lock();
            state.expire_owner(length);
            if state.owner.is_none() {
                // An empty queue: `expire_owner` and `hand_over` leave no waiter beside a free lease.
                state.owner = Some(Owner { token, until: Instant::now() + length });
                return Ok(token);
            }
            if state.waiters.len() >= limit {
                return Err(busy(limit));
            }
            let (sender, receiver) = oneshot::channel();
            state.waiters.push_back(Waiter { token, granted: sender });
            receiver
        };
        let leave = Undo::new(|| self.release(token, length));
        let deadline = Instant::now() + wait;
        loop {
            // The owner's lease may run out without any call: then the queue moves by the clocks of
            // its waiters.
            let owner_ends = self.lock().owner.as_ref().map_or(deadline, |owner| owner.until);
            tokio::select! {
                biased;
                granted = &mut granted => {
                    leave.finished();
                    return granted.map(|()| token).map_err(|_| {
                        let message = "the store did not answer the first in the queue; try again later";
                        Error::new(ErrorKind::Unavailable, message)
                    });
                }
                () = tokio::time::sleep_until(owner_ends.min(deadline)) => {
                    if Instant::now() >= deadline {
                        // Leaving gives back a grant that came in this very moment.
                        return Err(timed_out(wait));
                    }
                    self.lock().expire_owner(length);
                }
            }
        }
    }

    /// Extends the owner's lease. `false` if the token is not the owner's.
    pub fn renew(&self, token: LeaseToken, length: Duration) -> bool {
        let mut state = self.lock();
        state.expire_owner(length);
        match &mut state.owner {
            Some(owner) if owner.token == token => {
                owner.until = Instant::now() + length;
                true
            }
            _ => false,
        }
    }

    /// Whether this token owns the lease now.
    pub fn owns(&self, token: LeaseToken) -> bool {
        self.lock()
            .owner
            .as_ref()
            .is_some_and(|owner| owner.token == token && owner.until > Instant::now())
    }

    /// How long this token's lease lasts yet.
    #[cfg(feature = "redis")]
    pub(in crate::backend) fn time_left(&self, token: LeaseToken) -> Duration {
        let state = self.lock();
        let owner = state.owner.as_ref().filter(|owner| owner.token == token);
        owner.map_or(Duration::ZERO, |owner| owner.until.saturating_duration_since(Instant::now()))
    }

    /// Gives the lease back, or leaves the queue. The next owner's has this `length`.
    pub fn release(&self, token: LeaseToken, length: Duration) {
        let mut state = self.lock();
        if state.owner.as_ref().is_some_and(|owner| owner.token == token) {
            state.owner = None;
            state.hand_over(length);
        } else {
            state.waiters.retain(|waiter| waiter.token != token);
        }
    }

    /// Fails all waiters, as [`Unavailable`](ErrorKind::Unavailable).
    #[cfg(feature = "redis")]
    pub(in crate::backend) fn reject_all(&self) {
        self.lock().waiters.clear();
    }

    /// Whether there is neither an owner nor a waiter.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.waiters.is_empty()
            && state.owner.as_ref().is_none_or(|owner| owner.until <= Instant::now())
    }
}

impl State {
    /// Ends an owner whose time is over.
    fn expire_owner(&mut self, length: Duration) {
        if self.owner.as_ref().is_some_and(|owner| owner.until <= Instant::now()) {
            self.owner = None;
            self.hand_over(length);
        }
    }

    /// Grants the free lease to the next that still waits.
    fn hand_over(&mut self, length: Duration) {
        while let Some(waiter) = self.waiters.pop_front() {
            if waiter.granted.send(()).is_ok() {
                self.owner = Some(Owner { token: waiter.token, until: Instant::now() + length });
                return;
            }
        }
    }
}

/// Too many wait.
pub(crate) fn busy(limit: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("{limit} callers wait already; shed load or raise `lease_queue_limit`"),
    )
}

/// The turn did not come.
pub(crate) fn timed_out(wait: Duration) -> Error {
    Error::new(
        ErrorKind::WaitTimeout,
        format!("waited {wait:?} for other handlers of this session"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const LEASE: Duration = Duration::from_secs(10);
    const WAIT: Duration = Duration::from_secs(60);

    async fn acquire(queue: &LeaseQueue) -> Result<LeaseToken> {
        queue.acquire(LEASE, WAIT, 100).await
    }

    async fn queued(queue: &LeaseQueue, count: usize) {
        while queue.lock().waiters.len() < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_served_in_the_order_they_came() {
        let queue = Arc::new(LeaseQueue::default());
        let first = acquire(&queue).await.unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..5 {
            let (other, log) = (queue.clone(), served.clone());
            tasks.push(tokio::spawn(async move {
                let token = acquire(&other).await.unwrap();
                log.lock().unwrap().push(n);
                other.release(token, LEASE);
            }));
            queued(&queue, n + 1).await;
        }
        queue.release(first, LEASE);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4]);
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_never_returns_costs_one_lease() {
        let queue = LeaseQueue::default();
        let lost = acquire(&queue).await.unwrap();
        let begun = Instant::now();
        let next = acquire(&queue).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), LEASE.as_secs());
        assert!(!queue.owns(lost));
        assert!(!queue.renew(lost, LEASE));
        assert!(queue.owns(next));
    }

    #[tokio::test(start_paused = true)]
    async fn renewal_keeps_the_lease_and_the_wait_limit_ends_the_wait() {
        let queue = Arc::new(LeaseQueue::default());
        let owner = acquire(&queue).await.unwrap();
        let renewer = queue.clone();
        let renewing = tokio::spawn(async move {
            for _ in 0..30 {
                tokio::time::sleep(LEASE / 3).await;
                assert!(renewer.renew(owner, LEASE));
            }
        });
        let error = acquire(&queue).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WaitTimeout);
        assert!(queue.lock().waiters.is_empty());
        renewing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_waiter_leaves_the_queue() {
        let queue = LeaseQueue::default();
        let owner = acquire(&queue).await.unwrap();
        {
            let mut waiting = std::pin::pin!(acquire(&queue));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            assert_eq!(queue.lock().waiters.len(), 1);
        }
        assert!(queue.lock().waiters.is_empty());
        queue.release(owner, LEASE);
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_dropped_after_its_grant_passes_the_lease_on() {
        let queue = LeaseQueue::default();
        let owner = acquire(&queue).await.unwrap();
        {
            let mut waiting = std::pin::pin!(acquire(&queue));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            queue.release(owner, LEASE);
            assert!(!queue.is_idle());
        }
        assert!(queue.is_idle());
    }

    #[cfg(feature = "redis")]
    #[tokio::test(start_paused = true)]
    async fn rejected_waiters_leave_the_owner_its_lease_and_the_queue_to_others() {
        let queue = LeaseQueue::default();
        let owner = acquire(&queue).await.unwrap();
        {
            let mut waiting = std::pin::pin!(acquire(&queue));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            queue.reject_all();
            assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        assert!(queue.owns(owner));
        let mut later = std::pin::pin!(acquire(&queue));
        assert!(futures_util::poll!(&mut later).is_pending());
        queue.release(owner, LEASE);
        assert!(queue.owns(later.await.unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_a_limit() {
        let queue = LeaseQueue::default();
        let _owner = acquire(&queue).await.unwrap();
        let mut waiting = std::pin::pin!(queue.acquire(LEASE, WAIT, 1));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let error = queue.acquire(LEASE, WAIT, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
    }
}

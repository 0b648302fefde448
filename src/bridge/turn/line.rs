//! A client's line on this node, and the turn of the one at its head.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::places::{self, Places};
use super::round::{Caller, Content, Round, fail_all};
use crate::backend::{LeaseToken, lease_queue};
use crate::bridge::group::{Writers, interrupted};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, Record};

type Place = places::Place<Line>;

/// Time beyond its own limit that the head of a line has to notice it.
const SLACK: Duration = Duration::from_millis(100);

/// Those who want one client's session.
#[derive(Default)]
struct Line(Mutex<State>);

#[derive(Default)]
struct State {
    /// Who gets the lease or has it, and until when the others put up with that.
    head: Option<(Head, Instant)>,
    /// Grows with each head that gets a lease.
    heads: u64,
    waiters: VecDeque<Waiter>,
    round: Option<Round>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    Leads(u64),
    Holds(LeaseToken),
}

struct Waiter {
    deadline: Instant,
    next: oneshot::Sender<Passed>,
}

/// What the next in line is given. Dropped unseen it goes to the one after it.
enum Passed {
    /// It is to get the lease.
    Lead(Lead),
    /// It may run at once.
    Turn(Turn),
    /// The store did not answer the one before.
    Failed(Error),
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes a caller the head that gets the lease by then.
    fn lead(&mut self, deadline: Instant) -> u64 {
        self.heads += 1;
        self.head = Some((Head::Leads(self.heads), deadline + SLACK));
        self.heads
    }

    /// Lets the next in line get a lease of its own.
    fn lead_next(&mut self, place: &Place, writers: &Arc<Writers>) {
        self.head = None;
        while let Some(Waiter { deadline, next }) = self.waiters.pop_front() {
            let number = self.lead(deadline);
            let lead = Lead { place: place.clone(), writers: writers.clone(), number, done: false };
            match next.send(Passed::Lead(lead)) {
                Ok(()) => return,
                Err(Passed::Lead(mut unseen)) => unseen.done = true,
                Err(_) => {}
            }
            self.head = None;
        }
    }

    /// Lets the next in line run in this round. `false` if there is none, or the round is over.
    fn pass_on(&mut self, place: &Place, writers: &Arc<Writers>) -> bool {
        let Some(round) = &mut self.round else { return false };
        // Its client may have another session by now, as far as this node knows.
        let current = writers.backend.cached_session(place.client());
        let ended = match (&current, &round.stored) {
            (Some(current), Some(stored)) => current.generation != stored.generation,
            (None, Some(_)) => writers.backend.is_local(),
            (_, None) => false,
        };
        while !ended && round.admits(self.waiters.len()) {
            let waiting = self.waiters.len();
            let Some(waiter) = self.waiters.pop_front() else { break };
            let turn = Turn::new(place.clone(), writers.clone(), round);
            match waiter.next.send(Passed::Turn(turn)) {
                Ok(()) => {
                    round.admitted(waiting);
                    return true;
                }
                Err(Passed::Turn(unseen)) => unseen.over.store(true, Ordering::Relaxed),
                Err(_) => {}
            }
        }
        false
    }

    fn round(&mut self, lease: LeaseToken) -> Option<&mut Round> {
        self.round.as_mut().filter(|round| round.lease == lease)
    }
}

/// The right to get the lease for a line.
struct Lead {
    place: Place,
    writers: Arc<Writers>,
    number: u64,
    done: bool,
}

impl Lead {
    async fn acquire(mut self, wait: Duration) -> Result<Turn> {
        match self.writers.backend.acquire(self.place.client(), wait).await {
            Ok(acquired) => {
                self.done = true;
                let (lease, until) = (acquired.lease, Instant::now() + acquired.length);
                let mut state = self.place.lock();
                if !state.head.is_some_and(|(head, _)| head == Head::Leads(self.number)) {
                    // Nobody polled it for too long, and another one leads.
                    drop(state);
                    self.writers.backend.release(self.place.client(), lease);
                    return Err(lease_queue::timed_out(wait));
                }
                state.head = Some((Head::Holds(lease), until));
                let round = state.round.insert(Round::new(acquired));
                Ok(Turn::new(self.place.clone(), self.writers.clone(), round))
            }
            Err(error) => {
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Store) {
                    // Each would wait as long for the same silence, one after the other.
                    for waiter in std::mem::take(&mut self.place.lock().waiters) {
                        let _ = waiter.next.send(Passed::Failed(error.without_source()));
                    }
                }
                Err(error)
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.place.lock();
        if state.head.is_some_and(|(head, _)| head == Head::Leads(self.number)) {
            state.lead_next(&self.place, &self.writers);
        }
    }
}

/// The round that a caller runs in, as the task that writes for it knows it.
#[derive(Clone)]
pub(super) struct Shared {
    place: Place,
    pub(super) writers: Arc<Writers>,
    lease: LeaseToken,
}

impl Shared {
    /// `None` if the round is over, and perhaps another one here.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Round) -> T) -> Option<T> {
        self.place.lock().round(self.lease).map(work)
    }

    /// The end of the round, whose lease is given back, unless it was.
    pub(super) fn finish(&self, given_back: bool) {
        let mut state = self.place.lock();
        if state.round(self.lease).is_none() {
            return;
        }
        // Those who come now wait for a lease of their own.
        let round = state.round.take();
        drop(state);
        if let Some(mut round) = round {
            if !given_back {
                self.writers.backend.release(self.place.client(), self.lease);
            }
            let error = Error::lease_lost();
            fail_all(round.fail(&error), error);
        }
        self.place.lock().lead_next(&self.place, &self.writers);
    }
}

/// A caller's turn with a client's session; dropping it ends it, without a change.
pub(in crate::bridge) struct Turn {
    shared: Shared,
    length: Duration,
    lost: CancellationToken,
    record: Option<Arc<Record>>,
    rebases: u64,
    /// Passed on, or given back.
    over: AtomicBool,
}

/// The lines of all clients that have one here.
pub(in crate::bridge) struct Turns {
    writers: Arc<Writers>,
    lines: Arc<Places<Line>>,
}

impl Turns {
    pub(in crate::bridge) fn new(writers: Arc<Writers>) -> Self {
        Self { writers, lines: Arc::default() }
    }

    /// Clients that have a line here.
    pub(in crate::bridge) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Waits for a turn with the client's session.
    ///
    /// Cancel safe: dropping the future leaves the line.
    pub(in crate::bridge) async fn turn(&self, client: &ClientId) -> Result<Turn> {
        let (place, writers) = (self.lines.place(client), self.writers.clone());
        let deadline = Instant::now() + writers.limit;
        let waiting = {
            let mut state = place.lock();
            if state.head.is_none() {
                Err(state.lead(deadline))
            } else {
                let limit = writers.queue_limit;
                if state.waiters.len() >= limit {
                    state.waiters.retain(|waiter| !waiter.next.is_closed());
                    if state.waiters.len() >= limit {
                        return Err(lease_queue::busy(limit));
                    }
                }
                let (next, waiting) = oneshot::channel();
                state.waiters.push_back(Waiter { deadline, next });
                Ok(waiting)
            }
        };
        let mut waiting = match waiting {
            Ok(waiting) => waiting,
            Err(number) => {
                let wait = writers.limit;
                return Lead { place, writers, number, done: false }.acquire(wait).await;
            }
        };
        loop {
            // The head may do nothing any more: then the line moves by the clocks of those in it.
            let head = place.lock().head.map_or(deadline, |(_, until)| until);
            tokio::select! {
                biased;
                passed = &mut waiting => return match passed {
                    Ok(Passed::Turn(turn)) => Ok(turn),
                    Ok(Passed::Lead(lead)) => {
                        lead.acquire(deadline.saturating_duration_since(Instant::now())).await
                    }
                    Ok(Passed::Failed(error)) => Err(error),
                    Err(_) => Err(interrupted()),
                },
                () = tokio::time::sleep_until(head.min(deadline)) => {
                    if Instant::now() >= deadline {
                        return Err(lease_queue::timed_out(writers.limit));
                    }
                    pass_over(&place, &writers);
                }
            }
        }
    }
}

/// Goes on without a head whose time is over.
fn pass_over(place: &Place, writers: &Arc<Writers>) {
    let mut state = place.lock();
    match state.head {
        Some((Head::Holds(lease), until)) if until <= Instant::now() => {
            drop(state);
            Shared { place: place.clone(), writers: writers.clone(), lease }.finish(false);
        }
        Some((Head::Leads(_), until)) if until <= Instant::now() => {
            state.lead_next(place, writers);
        }
        _ => {}
    }
}

impl Turn {
    fn new(place: Place, writers: Arc<Writers>, round: &Round) -> Self {
        Self {
            shared: Shared { place, writers, lease: round.lease },
            length: round.length,
            lost: round.lost.clone(),
            record: round.record(),
            rebases: round.rebases,
            over: AtomicBool::new(false),
        }
    }

    /// The client's session, with what the callers before this one left.
    pub(in crate::bridge) fn record(&self) -> Option<&Arc<Record>> {
        self.record.as_ref()
    }

    pub(in crate::bridge) fn lease(&self) -> LeaseToken {
        self.shared.lease
    }

    pub(in crate::bridge) fn length(&self) -> Duration {
        self.length
    }

    /// Cancelled when the lease is lost, or a write of those before failed.
    pub(in crate::bridge) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Some time of the lease may be left after its holder was notified that it is over.
    ///
    /// # Errors
    /// That it is, or why what this caller was given is not stored.
    pub(in crate::bridge) fn in_time(&self) -> Result<()> {
        if !self.lost.is_cancelled() {
            return Ok(());
        }
        self.shared.with(|round| round.check()).transpose()?;
        Err(Error::lease_lost())
    }

    /// The lease was extended to its full length just now.
    pub(in crate::bridge) fn renewed(&self) {
        let mut state = self.shared.place.lock();
        if let Some(until) = state.round(self.shared.lease).map(Round::renewed) {
            state.head = Some((Head::Holds(self.shared.lease), until));
        }
    }

    /// How long ago it was.
    pub(in crate::bridge) fn since_renewal(&self) -> Duration {
        self.shared.with(|round| round.since_renewal()).unwrap_or(self.length)
    }

    /// The time of this caller is over: what it makes of the session is refused, and the next one
    /// has its turn.
    pub(in crate::bridge) fn lose(&self) {
        self.lost.cancel();
        if !self.over.swap(true, Ordering::Relaxed) {
            self.shared.finish(false);
        }
    }

    /// A write of this caller's own begins, after which nobody may build on what the round knows.
    pub(in crate::bridge) fn outdates(&self) {
        self.shared.with(|round| round.outdated = true);
    }

    /// The lease was given back in the same step as a write of this caller's own.
    pub(in crate::bridge) fn released(&self) {
        if !self.over.swap(true, Ordering::Relaxed) {
            self.shared.finish(true);
        }
    }

    /// Waits until all that this caller was given is stored.
    ///
    /// # Errors
    /// Why it never will be.
    pub(in crate::bridge) async fn settled(&self) -> Result<()> {
        let stored = self.shared.with(|round| {
            round.check()?;
            Ok(round.is_unsettled().then(|| {
                let (caller, stored) = Caller::new(None);
                round.batch.push(caller);
                stored
            }))
        });
        match stored.transpose()?.flatten() {
            Some(stored) => outcome(stored).await.map(drop),
            None => Ok(()),
        }
    }

    /// Whether others wait here for what this caller leaves, or it was left something itself that
    /// is not stored yet: then its write is shared with theirs.
    pub(in crate::bridge) fn is_shared(&self) -> bool {
        let mut state = self.shared.place.lock();
        let waiting = state.waiters.len();
        state
            .round(self.shared.lease)
            .is_some_and(|round| round.is_unsettled() || round.admits(waiting))
    }

    /// Leaves what this caller made of the session to be written with what others leave, and lets
    /// the next one run. Returns what to wait for with [`outcome`], and whether somebody has to begin
    /// to write.
    pub(super) fn leave(
        &self,
        left: Content,
    ) -> Result<(oneshot::Receiver<Result<Arc<Record>>>, bool)> {
        let Shared { place, writers, lease } = &self.shared;
        let mut state = place.lock();
        let round = state.round(*lease).ok_or_else(Error::lease_lost)?;
        round.check()?;
        let given = self.record.as_deref().ok_or_else(Error::ended)?;
        let (caller, stored) = Caller::new(Some(left.clone()));
        round.change(&Content::from(given), left, self.rebases);
        round.batch.push(caller);
        let begins = !std::mem::replace(&mut round.writing, true);
        self.over.store(true, Ordering::Relaxed);
        if !state.pass_on(place, writers)
            && let Some(round) = &mut state.round
        {
            round.closing = true;
        }
        Ok((stored, begins))
    }
}

/// Waits for what came of a shared write.
pub(super) async fn outcome(stored: oneshot::Receiver<Result<Arc<Record>>>) -> Result<Arc<Record>> {
    stored.await.unwrap_or_else(|_| Err(interrupted()))
}

impl Drop for Turn {
    fn drop(&mut self) {
        if *self.over.get_mut() {
            return;
        }
        {
            let Shared { place, writers, lease } = &self.shared;
            let mut state = place.lock();
            let Some(round) = state.round(*lease) else { return };
            let unsettled = round.is_unsettled();
            if state.pass_on(place, writers) {
                return;
            }
            if unsettled && let Some(round) = state.round(*lease) {
                // The task that writes ends the round.
                round.closing = true;
                return;
            }
        }
        self.shared.finish(false);
    }
}

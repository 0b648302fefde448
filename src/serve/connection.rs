//! One connection: what it waits for, and since when.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::limits::Limits;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// A request: not one byte of it is here.
    Idle = 0,
    /// The rest of a request's header.
    Header = 1,
    /// The application, the rest of a request's body, or the client that reads the answer.
    Request = 2,
}

/// The number of bits of `Connection::state` that hold the phase.
const PHASE_BITS: u32 = 2;

/// The state of a connection, shared by its task, its socket and the bodies that are under way.
#[derive(Debug)]
pub(super) struct Connection {
    accepted: Instant,
    /// The phase in the lowest bits, above them its begin in milliseconds since `accepted`: one word, so
    /// that both are read together.
    state: AtomicU64,
    /// How often bytes came in.
    reads: AtomicU64,
    /// The application waits for bytes of a request's body.
    wants_body: AtomicBool,
    aborted: AtomicBool,
    /// The task that reads. After an upgrade it is one that the server does not know.
    reader: AtomicWaker,
}

impl Connection {
    /// A connection that was accepted now. Its first header has to come as soon as any other.
    pub(super) fn new() -> Self {
        Self {
            accepted: Instant::now(),
            state: AtomicU64::new(Phase::Header as u64),
            reads: AtomicU64::new(0),
            wants_body: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }

    pub(super) fn enter(&self, phase: Phase) {
        let since = u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.state.store(since << PHASE_BITS | phase as u64, Ordering::Relaxed);
    }

    fn phase(&self) -> (Phase, Duration) {
        let state = self.state.load(Ordering::Relaxed);
        let phase = match state & ((1 << PHASE_BITS) - 1) {
            0 => Phase::Idle,
            1 => Phase::Header,
            _ => Phase::Request,
        };
        let since = Duration::from_millis(state >> PHASE_BITS);
        (phase, self.accepted.elapsed().saturating_sub(since))
    }

    /// Bytes came in.
    pub(super) fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Header);
        }
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    pub(super) fn set_wants_body(&self, wants: bool) {
        self.wants_body.store(wants, Ordering::Relaxed);
    }

    /// When to look at the client again while the server runs; zero if its time is over.
    ///
    /// No later than the shorter limit from now: whatever the connection begins to wait for meanwhile is then
    /// looked at in time, and nothing has to set a timer for it.
    pub(super) fn time_left(&self, limits: &Limits) -> Duration {
        let left = match self.phase() {
            (Phase::Idle, since) => limits.idle.saturating_sub(since),
            (Phase::Header, since) => limits.header.saturating_sub(since),
            (Phase::Request, _) => Duration::MAX,
        };
        left.min(limits.header).min(limits.idle)
    }

    /// Whether it is the client that a stopping server waits for.
    pub(super) fn waits_for_client(&self) -> bool {
        self.phase().0 != Phase::Request || self.wants_body.load(Ordering::Relaxed)
    }

    /// Ends the connection, also after an upgrade.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::SeqCst);
        self.reader.wake();
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    /// Notes who waits for bytes; returns whether they need not.
    pub(super) fn is_aborted_else_wake(&self, reader: &Waker) -> bool {
        self.reader.register(reader);
        self.is_aborted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_longer_than_half_a_header() {
        let limits = Limits { header: Duration::from_secs(3), idle: Duration::from_secs(9) };
        let left = |connection: &Connection| connection.time_left(&limits).as_secs();
        let connection = Connection::new();
        assert_eq!(left(&connection), 3);
        tokio::time::advance(Duration::from_secs(2)).await;
        connection.read();
        assert_eq!(left(&connection), 1, "more of a header gives no more time");
        connection.enter(Phase::Request);
        tokio::time::advance(Duration::from_secs(60)).await;
        connection.read();
        assert_eq!(left(&connection), 3, "an application takes the time it needs");
        connection.enter(Phase::Idle);
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(left(&connection), 1);
        connection.read();
        assert_eq!(left(&connection), 3);
        connection.enter(Phase::Idle);
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(left(&connection), 0);
    }

    #[tokio::test]
    async fn a_stopping_server_waits_for_the_application_and_not_for_the_client() {
        let connection = Connection::new();
        assert!(connection.waits_for_client());
        connection.enter(Phase::Request);
        assert!(!connection.waits_for_client());
        connection.set_wants_body(true);
        assert!(connection.waits_for_client());
    }
}

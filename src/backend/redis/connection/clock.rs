//! The clock of Redis, as this node knows it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// Redis stamps all times; nodes' own clocks are never asked for the time of day, so they need not
/// agree. Between answers that carry its time, this node counts on with its monotonic clock.
#[derive(Debug)]
pub(crate) struct RedisClock {
    base: Instant,
    /// Milliseconds of Redis at `base`.
    offset: AtomicI64,
}

impl RedisClock {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), offset: AtomicI64::new(0) }
    }

    /// An answer of this moment carried this time, in milliseconds.
    pub(crate) fn observe(&self, now: i64) {
        self.offset.store(now - self.elapsed(), Ordering::Relaxed);
    }

    /// The time of Redis in milliseconds, late by at most the way of the last answer.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.offset.load(Ordering::Relaxed) + self.elapsed()).unwrap_or(0)
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.base.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_was_observed_and_follows_a_step() {
        let clock = RedisClock::new();
        for observed in [5_000_000, 1_000] {
            clock.observe(observed);
            let begin = u64::try_from(observed).unwrap();
            assert!((begin..begin + 5_000).contains(&clock.now()));
        }
    }
}

//! How long sessions live.

use std::time::Duration;

use super::max_age::MaxAge;
use super::record::Record;

/// The rules of a bridge for the life of its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetime {
    /// Time to live since the last write, for sessions without an own one.
    pub max_age: Duration,
    /// Time to live since the last write of an open session without an own one. `None`: as
    /// `max_age`.
    pub open_max_age: Option<Duration>,
    /// Cap on a session's whole life, whatever renews it. `None`: no cap.
    pub absolute_max_age: Option<Duration>,
    /// Whether reads renew a session too.
    pub renewal: Renewal,
}

/// What renews a session besides a write. Renewing gives it its full time to live again, in the
/// store and in its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Renewal {
    /// Nothing else. This is the default.
    #[default]
    OnWrite,
    /// A response of a session that has less than half of its time left: `renew` in koa-session.
    /// Each request that carries a session cookie then reads the session.
    #[doc(alias = "renew")]
    PastHalf,
    /// Each response of an existing session: `rolling` in koa-session. Each request that carries a
    /// session cookie then reads and renews the session.
    #[doc(alias = "rolling")]
    EveryResponse,
}

impl Lifetime {
    /// Rules with this max age and no cap. Only writes renew a session.
    pub const fn new(max_age: Duration) -> Self {
        Self { max_age, open_max_age: None, absolute_max_age: None, renewal: Renewal::OnWrite }
    }

    /// The time to live since the last write, without the cap.
    pub fn idle(&self, mode: MaxAge, sealed: bool) -> Duration {
        match mode {
            MaxAge::After(own) => own,
            MaxAge::Default | MaxAge::Browser if sealed => self.max_age,
            MaxAge::Default | MaxAge::Browser => self.open_max_age.unwrap_or(self.max_age),
        }
    }

    /// The time to live that a write at `age` gives; zero if the cap is reached.
    pub fn ttl(&self, mode: MaxAge, sealed: bool, age: Duration) -> Duration {
        let idle = self.idle(mode, sealed);
        match self.absolute_max_age {
            Some(cap) => idle.min(cap.saturating_sub(age)),
            None => idle,
        }
    }

    /// Whether an unchanged session is to be renewed at the end of a request. `cookie` is how
    /// long the request's cookie still lives, if that is known: it may end before the session.
    pub fn renews(&self, record: &Record, cookie: Option<Duration>) -> bool {
        let left = cookie.map_or(record.remaining, |cookie| cookie.min(record.remaining));
        match self.renewal {
            Renewal::OnWrite => false,
            Renewal::PastHalf => left < record.ttl / 2,
            Renewal::EveryResponse => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{ClientId, Generation, SessionData, SessionId};
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn record(ttl: Duration, remaining: Duration) -> Record {
        Record {
            session_id: SessionId::generate(),
            client_id: ClientId::generate(),
            generation: Generation::random(),
            sealed: false,
            previous: Vec::new(),
            version: 1,
            data: SessionData::new(),
            max_age: MaxAge::Default,
            age: ttl.saturating_sub(remaining),
            ttl,
            remaining,
            stamp: crate::session::Stamp::default(),
        }
    }

    #[test]
    fn renew_waits_until_less_than_half_is_left() {
        let mut rules = Lifetime::new(HOUR);
        rules.renewal = Renewal::PastHalf;
        assert!(!rules.renews(&record(HOUR, HOUR * 7 / 10), None));
        assert!(!rules.renews(&record(HOUR, HOUR / 2), None));
        assert!(rules.renews(&record(HOUR, HOUR * 4 / 10), None));
    }

    #[test]
    fn renew_counts_the_cookie_that_ends_before_its_session() {
        let mut rules = Lifetime::new(HOUR);
        rules.renewal = Renewal::PastHalf;
        assert!(rules.renews(&record(HOUR, HOUR), Some(HOUR * 4 / 10)));
        assert!(!rules.renews(&record(HOUR, HOUR), Some(HOUR * 7 / 10)));
    }

    #[test]
    fn open_sessions_may_have_a_shorter_life() {
        let mut rules = Lifetime::new(HOUR);
        rules.open_max_age = Some(HOUR / 4);
        for mode in [MaxAge::Default, MaxAge::Browser] {
            assert_eq!(rules.ttl(mode, false, Duration::ZERO), HOUR / 4);
            assert_eq!(rules.ttl(mode, true, Duration::ZERO), HOUR);
        }
        assert_eq!(rules.ttl(MaxAge::After(HOUR * 2), false, Duration::ZERO), HOUR * 2);
    }

    #[test]
    fn rolling_always_renews_and_the_default_never() {
        let mut rules = Lifetime::new(HOUR);
        assert!(!rules.renews(&record(HOUR, Duration::from_secs(1)), None));
        rules.renewal = Renewal::EveryResponse;
        assert!(rules.renews(&record(HOUR, HOUR), None));
    }

    proptest! {
        #[test]
        fn no_write_carries_a_session_past_its_cap(
            idle in 1u64..10_000, cap in 1u64..10_000, age in 0u64..20_000, own in proptest::option::of(1u64..10_000),
        ) {
            let mut rules = Lifetime::new(Duration::from_secs(idle));
            rules.absolute_max_age = Some(Duration::from_secs(cap));
            let mode = own.map_or(MaxAge::Default, |s| MaxAge::After(Duration::from_secs(s)));
            let ttl = rules.ttl(mode, true, Duration::from_secs(age));
            prop_assert!(age >= cap || ttl + Duration::from_secs(age) <= Duration::from_secs(cap));
            prop_assert!(age < cap || ttl.is_zero());
            prop_assert!(ttl <= Duration::from_secs(own.unwrap_or(idle)));
        }
    }
}

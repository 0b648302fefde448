//! Clients whose session may have ended by itself, until they are probed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::step::Step;
use crate::session::{ClientId, DestroyReason, SessionId};

/// Probes wait this long, for most ends turn out to be announced by then.
const SETTLE: Duration = Duration::from_millis(10);
/// Probes of each kind that wait. More than that at once is left to comparisons.
const LIMIT: usize = 16 * 1024;
/// How long the sweep has to announce sessions that expired.
const EXPIRED_AFTER: Duration = Duration::from_secs(1);

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeOutcome {
    /// The session lives, this much longer.
    Alive(Duration),
    /// It had ended, and the probe announced that. `None`: its id can't be read.
    Expired(Option<SessionId>),
    /// It is gone, and that was announced before.
    AlreadyAnnounced,
    /// It is gone, and only a node that knows it from its sockets could name it.
    Unknown,
}

/// Probes to be made now.
#[derive(Debug, Default)]
pub(crate) struct DueProbes {
    pub(crate) probes: Vec<(ClientId, DestroyReason)>,
    /// Some were left out, as there were too many at once: all nodes have to compare.
    pub(crate) overflown: bool,
}

/// Probes that wait.
#[derive(Debug, Default)]
pub(super) struct Probes {
    soon: HashMap<ClientId, (DestroyReason, Step)>,
    soon_at: Option<Instant>,
    /// Sessions of which Redis said that they expired, or that a read did not find, and when to probe
    /// them.
    expired: VecDeque<(Instant, ClientId, Step)>,
    /// Those that a read did not find: once each, however often they are read.
    missing: HashSet<ClientId>,
    overflown: bool,
}

impl Probes {
    /// Has a client probed soon.
    pub(super) fn add(
        &mut self,
        (now, step): (Instant, Step),
        client: &ClientId,
        reason: DestroyReason,
    ) {
        self.soon_at.get_or_insert(now + SETTLE);
        if self.soon.len() >= LIMIT && !self.soon.contains_key(client) {
            self.overflown = true;
        } else {
            let entry = self.soon.entry(*client).or_insert((reason, step));
            // Who says how it ended knows more than who finds it gone.
            if entry.0 == DestroyReason::Expired {
                entry.0 = reason;
            }
        }
    }

    /// A session expired. The sweep and the timers of sockets announce that, unless they knew of a
    /// later end only.
    pub(super) fn add_expired(
        &mut self,
        (now, step): (Instant, Step),
        client: &ClientId,
        is_over: impl Fn(&ClientId, Step) -> bool,
    ) {
        while let Some((_, over, _)) =
            self.expired.pop_front_if(|(_, first, since)| is_over(first, *since))
        {
            self.missing.remove(&over);
        }
        if self.expired.len() < LIMIT {
            self.expired.push_back((now + EXPIRED_AFTER, *client, step));
        } else {
            self.overflown = true;
        }
    }

    /// A read did not find the session. The node that Redis notifies knows why, and comes first.
    pub(super) fn add_missing(
        &mut self,
        at: (Instant, Step),
        client: &ClientId,
        is_over: impl Fn(&ClientId, Step) -> bool,
    ) {
        if self.expired.len() < LIMIT && self.missing.insert(*client) {
            self.add_expired(at, client, is_over);
        }
    }

    /// Whether a client is to be probed soon.
    pub(super) fn has(&self, client: &ClientId) -> bool {
        self.soon.contains_key(client)
    }

    pub(super) fn len(&self) -> usize {
        self.soon.len() + self.expired.len()
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let expired = self.expired.front().map(|(at, ..)| *at);
        self.soon_at.into_iter().chain(expired).min()
    }

    /// Takes what is due, unless its end was announced since.
    pub(super) fn take(
        &mut self,
        now: Instant,
        is_over: impl Fn(&ClientId, Step) -> bool,
    ) -> DueProbes {
        let mut due = HashMap::new();
        if self.soon_at.is_some_and(|at| at <= now) {
            self.soon_at = None;
            due = std::mem::take(&mut self.soon);
        }
        while let Some((_, client, step)) = self.expired.pop_front_if(|(at, ..)| *at <= now) {
            self.missing.remove(&client);
            due.entry(client).or_insert((DestroyReason::Expired, step));
        }
        let due = due.into_iter().filter(|(client, (_, step))| !is_over(client, *step));
        let probes = due.map(|(client, (reason, _))| (client, reason)).collect();
        DueProbes { probes, overflown: std::mem::take(&mut self.overflown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(probes: &mut Probes, now: Instant, over: &[ClientId]) -> Vec<ClientId> {
        let due = probes.take(now, |client, _| over.contains(client));
        due.probes.into_iter().map(|(client, _)| client).collect()
    }

    #[test]
    fn a_client_is_probed_once_and_not_if_its_end_is_announced_meanwhile() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        let (one, two) = (ClientId::generate(), ClientId::generate());
        for client in [&one, &two, &one] {
            probes.add((now, Step(1)), client, DestroyReason::External);
        }
        assert!(ready(&mut probes, now, &[]).is_empty());
        assert_eq!(probes.next(), Some(now + SETTLE));
        assert_eq!(ready(&mut probes, now + SETTLE, &[one]), [two]);
        assert_eq!((probes.next(), probes.len()), (None, 0));
    }

    #[test]
    fn the_sweep_has_a_second_to_announce_what_expired() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        let (one, two) = (ClientId::generate(), ClientId::generate());
        probes.add_expired((now, Step(1)), &one, |_, _| false);
        probes.add_expired((now, Step(2)), &two, |client, _| *client == one);
        assert_eq!(probes.len(), 1);
        assert!(ready(&mut probes, now + SETTLE, &[]).is_empty());
        assert_eq!(ready(&mut probes, now + EXPIRED_AFTER, &[]), [two]);
    }

    #[test]
    fn a_session_that_a_read_does_not_find_is_probed_once_and_as_redis_says_if_it_says_anything() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        let (one, two) = (ClientId::generate(), ClientId::generate());
        for _ in 0..3 {
            for client in [&one, &two] {
                probes.add_missing((now, Step(1)), client, |_, _| false);
            }
        }
        assert_eq!(probes.len(), 2);
        probes.add((now, Step(2)), &one, DestroyReason::Expired);
        probes.add((now, Step(3)), &one, DestroyReason::Evicted);
        probes.add((now, Step(4)), &one, DestroyReason::External);
        let first = probes.take(now + SETTLE, |_, _| false);
        assert_eq!(first.probes, [(one, DestroyReason::Evicted)]);
        assert_eq!(ready(&mut probes, now + EXPIRED_AFTER, &[one]), [two]);
        assert!(probes.missing.is_empty());
    }

    #[test]
    fn too_many_expiries_ask_for_a_comparison() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        let add = |probes: &mut Probes| {
            probes.add_expired((now, Step(1)), &ClientId::generate(), |_, _| false);
        };
        (0..LIMIT).for_each(|_| add(&mut probes));
        assert!(!probes.take(now, |_, _| false).overflown);
        add(&mut probes);
        assert!(probes.take(now, |_, _| false).overflown);
    }

    #[test]
    fn too_many_probes_ask_for_a_comparison() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        let at = (now, Step(1));
        (0..=LIMIT).for_each(|_| probes.add(at, &ClientId::generate(), DestroyReason::Evicted));
        assert_eq!(probes.len(), LIMIT);
        assert!(probes.take(now + SETTLE, |_, _| false).overflown);
        assert!(!probes.take(now + SETTLE, |_, _| false).overflown);
    }
}

//! Ends that this node has emitted.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::step::Step;
use crate::session::{ClientId, Generation};

/// Ends to remember: the last so many at least. What is older has long arrived by every way there
/// is: no command takes longer than its timeout.
const CAPACITY: usize = 16 * 1024;
/// How long after an end a keyspace event can be one of it. Longer than probes of expired sessions wait.
const EVENTS: Duration = Duration::from_secs(2);

/// The last ends, so that each is emitted once although several ways lead here: an announcement, a
/// comparison, and answers that were read before the end and arrive after it.
///
/// Two halves, of which the older one is dropped when the younger one is full: cheaper than to drop
/// the oldest each time.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    young: Half,
    old: Half,
}

#[derive(Debug, Default)]
struct Half {
    ends: HashSet<(ClientId, Generation)>,
    /// Clients that have had no other session since, as far as this node has been notified.
    over: HashMap<ClientId, Over>,
}

/// The last end of a client.
#[derive(Debug)]
struct Over {
    step: Step,
    at: Instant,
    /// The script that announced it deleted the record afterwards, and the event of that is to come.
    awaits_event: bool,
}

impl Tombstones {
    /// Adds an end. `false` if it is known already.
    pub(super) fn add(
        &mut self,
        (now, step): (Instant, Step),
        client: &ClientId,
        generation: Generation,
        awaits_event: bool,
    ) -> bool {
        if self.contains(client, generation) {
            return false;
        }
        if self.young.ends.len() >= CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.ends.insert((*client, generation));
        self.young.over.insert(*client, Over { step, at: now, awaits_event });
        true
    }

    /// Whether this session has ended.
    pub(super) fn contains(&self, client: &ClientId, generation: Generation) -> bool {
        let end = (*client, generation);
        self.young.ends.contains(&end) || self.old.ends.contains(&end)
    }

    /// Whether an end of the client was announced since, and no session of it.
    pub(super) fn is_over_since(&self, client: &ClientId, step: Step) -> bool {
        let over = self.young.over.get(client).or_else(|| self.old.over.get(client));
        over.is_some_and(|over| over.step > step)
    }

    /// Whether an end of the client was announced a moment ago, and no session of it since.
    pub(super) fn is_just_over(&self, now: Instant, client: &ClientId) -> bool {
        let over = self.young.over.get(client).or_else(|| self.old.over.get(client));
        over.is_some_and(|over| now.duration_since(over.at) <= EVENTS)
    }

    /// Whether the deletion of a record is that of an end announced a moment ago. Each end has one: a
    /// later one is of another session, whose begin this node may not have received.
    pub(super) fn take_event(&mut self, now: Instant, client: &ClientId) -> bool {
        let Self { young, old } = self;
        let over = young.over.get_mut(client).or_else(|| old.over.get_mut(client));
        over.is_some_and(|over| {
            std::mem::take(&mut over.awaits_event) && now.duration_since(over.at) <= EVENTS
        })
    }

    /// The client has a session again, or still.
    pub(super) fn on_session(&mut self, client: &ClientId) {
        self.young.over.remove(client);
        self.old.over.remove(client);
    }

    /// A session lives although its end was emitted: a failover lost the end.
    pub(super) fn remove(&mut self, client: &ClientId, generation: Generation) {
        for half in [&mut self.young, &mut self.old] {
            half.ends.remove(&(*client, generation));
        }
        self.on_session(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(ends: &mut Tombstones, client: &ClientId, generation: Generation) -> bool {
        ends.add((Instant::now(), Step(1)), client, generation, true)
    }

    #[test]
    fn an_end_is_added_once_and_ends_of_one_client_are_told_apart() {
        let mut ends = Tombstones::default();
        let (client, first, second) =
            (ClientId::generate(), Generation::random(), Generation::random());
        assert!(add(&mut ends, &client, first) && !add(&mut ends, &client, first));
        assert!(ends.is_over_since(&client, Step(0)) && !ends.is_over_since(&client, Step(1)));
        ends.on_session(&client);
        assert!(!ends.is_over_since(&client, Step(0)) && ends.contains(&client, first));
        assert!(add(&mut ends, &client, second));
        assert!(ends.contains(&client, first), "the end before is remembered as well");
        ends.remove(&client, second);
        assert!(ends.contains(&client, first) && !ends.contains(&client, second));
        assert!(!ends.is_over_since(&client, Step(0)));
    }

    #[test]
    fn one_deletion_goes_with_an_end_and_the_next_is_of_another_session() {
        let (mut ends, client) = (Tombstones::default(), ClientId::generate());
        let now = Instant::now();
        ends.add((now, Step(1)), &client, Generation::random(), true);
        assert!(ends.take_event(now, &client) && !ends.take_event(now, &client));
        ends.add((now, Step(2)), &client, Generation::random(), false);
        assert!(!ends.take_event(now, &client));
        ends.add((now, Step(3)), &client, Generation::random(), true);
        assert!(!ends.take_event(now + EVENTS + EVENTS, &client));
    }

    #[test]
    fn the_last_ends_are_known_and_the_oldest_are_dropped() {
        let mut tombstones = Tombstones::default();
        let ends: Vec<_> =
            (0..3 * CAPACITY).map(|_| (ClientId::generate(), Generation::random())).collect();
        for (client, generation) in &ends {
            assert!(add(&mut tombstones, client, *generation));
        }
        let knows = |(client, generation): &(ClientId, Generation)| {
            tombstones.contains(client, *generation) && tombstones.is_over_since(client, Step(0))
        };
        assert!(ends[ends.len() - CAPACITY..].iter().all(knows));
        assert!(!knows(&ends[0]));
        assert!(tombstones.young.ends.len() + tombstones.old.ends.len() <= 2 * CAPACITY);
    }
}

//! Ends that this node has emitted.

use std::collections::HashSet;

use crate::session::{ClientId, Generation};

/// Ends to remember: the last so many at least. What is older has long arrived by every way there
/// is: no command takes longer than its timeout.
const CAPACITY: usize = 16 * 1024;

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
    /// Clients that have had no other session since their last end.
    over: HashSet<ClientId>,
}

impl Tombstones {
    /// Adds an end. `false` if it is known already.
    pub(super) fn add(&mut self, client: &ClientId, generation: Generation) -> bool {
        if self.contains(client, generation) {
            return false;
        }
        if self.young.ends.len() >= CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.ends.insert((*client, generation));
        self.young.over.insert(*client);
        true
    }

    /// Whether this session has ended.
    pub(super) fn contains(&self, client: &ClientId, generation: Generation) -> bool {
        let end = (*client, generation);
        self.young.ends.contains(&end) || self.old.ends.contains(&end)
    }

    /// Whether the client's session has ended, and none has begun since.
    pub(super) fn is_over(&self, client: &ClientId) -> bool {
        self.young.over.contains(client) || self.old.over.contains(client)
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

    #[test]
    fn an_end_is_added_once_and_ends_of_one_client_are_told_apart() {
        let mut ends = Tombstones::default();
        let (client, first, second) =
            (ClientId::generate(), Generation::random(), Generation::random());
        assert!(ends.add(&client, first) && !ends.add(&client, first));
        assert!(ends.is_over(&client));
        ends.on_session(&client);
        assert!(!ends.is_over(&client) && ends.contains(&client, first));
        assert!(ends.add(&client, second));
        assert!(ends.contains(&client, first), "the end before is remembered as well");
        ends.remove(&client, second);
        assert!(ends.contains(&client, first) && !ends.contains(&client, second));
        assert!(!ends.is_over(&client));
    }

    #[test]
    fn the_last_ends_are_known_and_the_oldest_are_dropped() {
        let mut tombstones = Tombstones::default();
        let ends: Vec<_> =
            (0..3 * CAPACITY).map(|_| (ClientId::generate(), Generation::random())).collect();
        for (client, generation) in &ends {
            assert!(tombstones.add(client, *generation));
        }
        let knows = |(client, generation): &(ClientId, Generation)| {
            tombstones.contains(client, *generation) && tombstones.is_over(client)
        };
        assert!(ends[ends.len() - CAPACITY..].iter().all(knows));
        assert!(!knows(&ends[0]));
        assert!(tombstones.young.ends.len() + tombstones.old.ends.len() <= 2 * CAPACITY);
    }
}

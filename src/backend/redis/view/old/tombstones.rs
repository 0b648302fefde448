//! Ends that were told on this node a moment ago.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::session::{ClientId, Generation};

/// Ends to remember: the last so many at least. What is older has long been heard of by every way
/// there is.
const CAPACITY: usize = 16 * 1024;

/// The last ends, so that each is told once although several ways lead here: an announcement, a
/// notification of Redis, a comparison, and answers that were read before the end and come after.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    ends: Mutex<Ends>,
}

/// Two halves, of which the older one is dropped when the younger one is full: cheaper than to drop
/// the oldest each time.
#[derive(Debug, Default)]
struct Ends {
    young: HashMap<ClientId, Last>,
    old: HashMap<ClientId, Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    generation: Generation,
    /// The client has had no other session since.
    current: bool,
}

impl Ends {
    fn last(&self, client: &ClientId) -> Option<Last> {
        self.young.get(client).or_else(|| self.old.get(client)).copied()
    }
}

impl Ended {
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an end. `false` if it is known already.
    pub(crate) fn note(&self, client: &ClientId, generation: Generation) -> bool {
        let ends = &mut *self.lock();
        if ends.last(client).is_some_and(|last| last.generation == generation) {
            return false;
        }
        if ends.young.len() >= CAPACITY {
            std::mem::swap(&mut ends.young, &mut ends.old);
            ends.young.clear();
        }
        ends.young.insert(*client, Last { generation, current: true });
        true
    }

    /// The client has a session again.
    pub(crate) fn revived(&self, client: &ClientId) {
        let ends = &mut *self.lock();
        for half in [&mut ends.young, &mut ends.old] {
            if let Some(last) = half.get_mut(client) {
                last.current = false;
            }
        }
    }

    /// A session is there although its end was told: a failover lost the end.
    pub(crate) fn forget(&self, client: &ClientId) {
        let ends = &mut *self.lock();
        ends.young.remove(client);
        ends.old.remove(client);
    }

    /// Whether this session has ended.
    pub(crate) fn contains(&self, client: &ClientId, generation: Generation) -> bool {
        self.lock().last(client).is_some_and(|last| last.generation == generation)
    }

    /// Whether the client's session was told to have ended, and none has begun since.
    pub(crate) fn is_over(&self, client: &ClientId) -> bool {
        self.lock().last(client).is_some_and(|last| last.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_noted_once_and_the_next_session_is_told_apart() {
        let ended = Ended::default();
        let (client, first, second) =
            (ClientId::generate(), Generation::random(), Generation::random());
        assert!(ended.note(&client, first));
        assert!(!ended.note(&client, first));
        assert!(ended.is_over(&client));
        ended.revived(&client);
        assert!(!ended.is_over(&client) && ended.contains(&client, first));
        assert!(ended.note(&client, second));
        assert!(!ended.contains(&client, first));
        ended.forget(&client);
        assert!(!ended.contains(&client, second) && !ended.is_over(&client));
    }

    #[test]
    fn it_knows_the_last_ones_and_forgets_the_oldest() {
        let ended = Ended::default();
        let ends: Vec<_> =
            (0..3 * CAPACITY).map(|_| (ClientId::generate(), Generation::random())).collect();
        for (client, generation) in &ends {
            assert!(ended.note(client, *generation));
        }
        let knows = |(client, generation): &(ClientId, Generation)| {
            ended.contains(client, *generation) && ended.is_over(client)
        };
        assert!(ends[ends.len() - CAPACITY..].iter().all(knows));
        assert!(!knows(&ends[0]));
        let Ends { young, old } = &*ended.lock();
        assert!(young.len() + old.len() <= 2 * CAPACITY);
    }
}

//! Ends that were told on this node a moment ago.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::session::{ClientId, Generation};

/// Ends to remember. What is older has long been heard of by every way there is.
const CAPACITY: usize = 16 * 1024;

/// The last ends, so that each is told once although several ways lead here: an announcement, a
/// notification of Redis, a comparison, and answers that were read before the end and come after.
#[derive(Debug, Default)]
pub(super) struct Ended {
    ends: Mutex<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    last: HashMap<ClientId, Last>,
    order: VecDeque<(ClientId, Generation)>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    generation: Generation,
    /// The client has had no other session since.
    current: bool,
}

impl Ended {
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an end. `false` if it is known already.
    pub(super) fn note(&self, client: &ClientId, generation: Generation) -> bool {
        let mut ends = self.lock();
        let before = ends.last.get(client).map(|last| last.generation);
        if before == Some(generation) {
            return false;
        }
        ends.last.insert(*client, Last { generation, current: true });
        ends.order.push_back((*client, generation));
        while ends.order.len() > CAPACITY {
            if let Some((client, generation)) = ends.order.pop_front()
                && ends.last.get(&client).is_some_and(|last| last.generation == generation)
            {
                ends.last.remove(&client);
            }
        }
        true
    }

    /// The client has a session again.
    pub(super) fn revived(&self, client: &ClientId) {
        if let Some(last) = self.lock().last.get_mut(client) {
            last.current = false;
        }
    }

    /// A session is there although its end was told: a failover lost the end.
    pub(super) fn forget(&self, client: &ClientId) {
        self.lock().last.remove(client);
    }

    /// Whether this session has ended.
    pub(super) fn contains(&self, client: &ClientId, generation: Generation) -> bool {
        self.lock().last.get(client).is_some_and(|last| last.generation == generation)
    }

    /// Whether the client's session was told to have ended, and none has begun since.
    pub(super) fn is_over(&self, client: &ClientId) -> bool {
        self.lock().last.get(client).is_some_and(|last| last.current)
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
    fn it_forgets_the_oldest() {
        let ended = Ended::default();
        let (client, generation) = (ClientId::generate(), Generation::random());
        ended.note(&client, generation);
        for _ in 0..CAPACITY {
            ended.note(&ClientId::generate(), Generation::random());
        }
        assert!(!ended.contains(&client, generation));
        assert_eq!(ended.lock().last.len(), CAPACITY);
    }
}

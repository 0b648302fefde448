//! Deadlines of clients, in a queue that wakes its task.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::session::ClientId;

/// Clients in the order of their deadlines. Without a task or a clock of its own.
#[derive(Debug, Default)]
pub(in crate::backend) struct DeadlineSet(BTreeSet<(Instant, ClientId)>);

impl DeadlineSet {
    /// Whether the new deadline is the first.
    pub(in crate::backend) fn push(&mut self, at: Instant, client: ClientId) -> bool {
        let first = self.first().is_none_or(|next| at < next);
        self.0.insert((at, client));
        first
    }

    /// Takes out an entry that has become stale.
    pub(in crate::backend) fn remove(&mut self, at: Instant, client: ClientId) {
        self.0.remove(&(at, client));
    }

    /// The next deadline.
    pub(in crate::backend) fn first(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes up to `limit` entries whose time has come.
    pub(in crate::backend) fn due(
        &mut self,
        now: Instant,
        limit: usize,
    ) -> Vec<(Instant, ClientId)> {
        let mut due = Vec::new();
        while due.len() < limit && self.first().is_some_and(|at| at <= now) {
            due.extend(self.0.pop_first());
        }
        due
    }

    pub(in crate::backend) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A queue of deadlines for one task that waits for them.
///
/// Lazy: its user leaves the entry of a session that was renewed where it is, and queues it again
/// when it comes up, so a busy session costs nothing here.
#[derive(Debug, Default)]
pub(in crate::backend) struct Deadlines {
    heap: Mutex<DeadlineSet>,
    changed: Notify,
}

impl Deadlines {
    fn heap(&self) -> MutexGuard<'_, DeadlineSet> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::backend) fn push(&self, at: Instant, client: ClientId) {
        let first = self.heap().push(at, client);
        if first {
            self.changed.notify_one();
        }
    }

    /// Takes out an entry whose session has ended. Nobody is woken for it.
    pub(in crate::backend) fn remove(&self, at: Instant, client: ClientId) {
        self.heap().remove(at, client);
    }

    /// Waits until entries are due and takes up to `limit` of them.
    pub(in crate::backend) async fn due(&self, limit: usize) -> Vec<(Instant, ClientId)> {
        loop {
            let next = {
                let mut heap = self.heap();
                let due = heap.due(Instant::now(), limit);
                if !due.is_empty() {
                    return due;
                }
                heap.first()
            };
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    pub(in crate::backend) fn len(&self) -> usize {
        self.heap().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn entries_come_up_in_the_order_of_their_time() {
        let queue = Deadlines::default();
        let clients: Vec<ClientId> = (0..3).map(|_| ClientId::generate()).collect();
        let start = Instant::now();
        for (n, client) in clients.iter().enumerate().rev() {
            queue.push(start + Duration::from_secs(n as u64 + 1), *client);
        }
        for client in &clients {
            assert_eq!(queue.due(10).await[0].1, *client);
        }
        assert_eq!(start.elapsed().as_secs(), 3);
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_is_taken_out_does_not_come_up() {
        let queue = Deadlines::default();
        let (gone, stays) = (ClientId::generate(), ClientId::generate());
        let (soon, late) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        queue.push(soon, gone);
        queue.push(late, stays);
        queue.remove(soon, gone);
        queue.remove(soon, stays);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.due(10).await, [(late, stays)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_entry_wakes_the_waiter() {
        let queue = std::sync::Arc::new(Deadlines::default());
        let (late, soon) = (ClientId::generate(), ClientId::generate());
        queue.push(Instant::now() + Duration::from_secs(100), late);
        let other = queue.clone();
        let waiting = tokio::spawn(async move { other.due(10).await });
        tokio::task::yield_now().await;
        queue.push(Instant::now() + Duration::from_secs(1), soon);
        assert_eq!(waiting.await.unwrap()[0].1, soon);
    }
}

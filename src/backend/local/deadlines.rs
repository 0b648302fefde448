//! Tells the end of each attached session when its time is over.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::session::ClientId;

/// Clients ordered by when to look at their session next. Lazy: a renewal does not move an
/// entry, the entry moves when it comes up, so a busy session costs nothing here.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: Mutex<BinaryHeap<Reverse<(Instant, ClientId)>>>,
    changed: Notify,
}

impl Deadlines {
    pub(super) fn push(&self, at: Instant, client: ClientId) {
        let first = {
            let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
            let first = heap.peek().is_none_or(|Reverse((next, _))| at < *next);
            heap.push(Reverse((at, client)));
            first
        };
        if first {
            self.changed.notify_one();
        }
    }

    /// Waits until entries are due and takes up to `limit` of them.
    pub(super) async fn due(&self, limit: usize) -> Vec<(Instant, ClientId)> {
        loop {
            let next = {
                let now = Instant::now();
                let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
                let mut due = Vec::new();
                while due.len() < limit
                    && let Some(Reverse((at, _))) = heap.peek()
                    && *at <= now
                {
                    due.extend(heap.pop().map(|Reverse(entry)| entry));
                }
                if !due.is_empty() {
                    return due;
                }
                heap.peek().map(|Reverse((at, _))| *at)
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

    pub(super) fn len(&self) -> usize {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner).len()
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

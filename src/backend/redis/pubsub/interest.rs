//! Which announcements this node is to receive: those of clients with sockets here or a session in the
//! near cache, and of all clients while somebody listens to all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::session::ClientId;

/// A client whose last socket has left stays subscribed this long: most come back, as a page is
/// loaded again.
const LINGER: Duration = Duration::from_secs(2);

/// What is wanted. [`Subscriber`](super::subscriber::Subscriber) does it, a batch at a time.
#[derive(Debug)]
pub(crate) struct Interest {
    state: Mutex<State>,
    changed: Notify,
    /// The last batch that is subscribed.
    done: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<ClientId, Entry>,
    /// Clients of the next batch.
    joining: Vec<ClientId>,
    /// Clients without a socket, and when to leave them.
    leaving: VecDeque<(Instant, ClientId)>,
    all: bool,
    /// The batch that does as `all` says.
    all_batch: u64,
    /// The number of the next batch.
    batch: u64,
    /// Sockets began before their client was subscribed.
    late: bool,
}

#[derive(Debug)]
struct Entry {
    watchers: usize,
    /// The batch that subscribes to it.
    batch: u64,
    /// It is in `leaving`.
    leaves: bool,
}

/// What to subscribe to, and what to leave.
#[derive(Debug)]
pub(crate) struct Batch {
    number: u64,
    pub(crate) join: Vec<ClientId>,
    pub(crate) leave: Vec<ClientId>,
    /// Whether all clients are listened to.
    pub(crate) all: bool,
    /// Sockets began before their client was subscribed: what they missed is to be compared.
    pub(crate) late: bool,
}

impl Interest {
    /// Without clients; listens to all of them, or not yet.
    pub(crate) fn new(all: bool) -> Self {
        // Batches are counted from 1: nothing is done yet.
        let state = State { all, all_batch: 1, batch: 1, ..State::default() };
        Self { state: Mutex::new(state), changed: Notify::new(), done: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket of this client comes. Returns the batch to [wait](Self::done) for.
    pub(crate) fn join(&self, client: &ClientId) -> u64 {
        let mut state = self.lock();
        let State { clients, joining, batch, .. } = &mut *state;
        let entry = clients.entry(*client).or_insert_with(|| {
            joining.push(*client);
            self.changed.notify_one();
            Entry { watchers: 0, batch: *batch, leaves: false }
        });
        entry.watchers += 1;
        entry.batch
    }

    /// A socket of this client has left.
    pub(crate) fn leave(&self, client: &ClientId) {
        let mut state = self.lock();
        let State { clients, leaving, .. } = &mut *state;
        let Some(entry) = clients.get_mut(client) else { return };
        entry.watchers = entry.watchers.saturating_sub(1);
        if entry.watchers == 0 && !entry.leaves {
            entry.leaves = true;
            leaving.push_back((Instant::now() + LINGER, *client));
            if leaving.len() == 1 {
                self.changed.notify_one();
            }
        }
    }

    /// Whether all that is announced of this client arrives.
    pub(crate) fn is_subscribed(&self, client: &ClientId) -> bool {
        let done = *self.done.borrow();
        self.lock().clients.get(client).is_some_and(|entry| entry.batch <= done)
    }

    /// Listens to all clients, or to those with sockets here only. Returns the batch to
    /// [wait](Self::done) for.
    pub(crate) fn set_all(&self, all: bool) -> u64 {
        let mut state = self.lock();
        if std::mem::replace(&mut state.all, all) != all {
            state.all_batch = state.batch;
            self.changed.notify_one();
        }
        state.all_batch
    }

    /// Waits until a batch is subscribed. Cancel safe.
    pub(crate) async fn done(&self, batch: u64) {
        // An error says that this is being dropped.
        let _ = self.done.subscribe().wait_for(|done| *done >= batch).await;
    }

    /// [`done`](Self::done), for so long at most: a socket can begin nevertheless, and what it
    /// misses is compared later. Cancel safe.
    pub(crate) async fn done_within(&self, batch: u64, limit: Duration) {
        if *self.done.borrow() < batch
            && tokio::time::timeout(limit, self.done(batch)).await.is_err()
        {
            self.lock().late = true;
        }
    }

    /// Waits until there may be a batch. Cancel safe.
    pub(crate) async fn changed(&self) {
        let leaves = self.lock().leaving.front().map(|(at, _)| *at);
        let leaves = async {
            match leaves {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.changed.notified() => {}
            () = leaves => {}
        }
    }

    /// Takes what has changed. [`finish`](Self::finish) or [`failed`](Self::failed) follows.
    pub(crate) fn take(&self) -> Batch {
        let mut state = self.lock();
        let now = Instant::now();
        let mut leave = Vec::new();
        let State { clients, leaving, joining, batch, all, late, .. } = &mut *state;
        while let Some((_, client)) = leaving.pop_front_if(|(at, _)| *at <= now) {
            let Some(entry) = clients.get_mut(&client) else { continue };
            entry.leaves = false;
            if entry.watchers == 0 {
                clients.remove(&client);
                leave.push(client);
            }
        }
        *batch += 1;
        let join = std::mem::take(joining);
        Batch { number: *batch - 1, join, leave, all: *all, late: std::mem::take(late) }
    }

    /// All of a batch is subscribed.
    pub(crate) fn finish(&self, batch: &Batch) {
        self.done.send_if_modified(|done| {
            let newer = batch.number > *done;
            *done = batch.number.max(*done);
            newer
        });
    }

    /// A batch could not be subscribed, and comes up again.
    pub(crate) fn failed(&self, batch: Batch) {
        let mut state = self.lock();
        let State { clients, joining, late, .. } = &mut *state;
        *late |= batch.late;
        joining.extend(batch.join.into_iter().filter(|client| clients.contains_key(client)));
        self.changed.notify_one();
    }

    /// The connection is a new one, on which nothing is subscribed.
    pub(crate) fn lost(&self) {
        let mut state = self.lock();
        let State { clients, joining, leaving, batch, .. } = &mut *state;
        leaving.clear();
        clients.retain(|_, entry| {
            entry.leaves = false;
            entry.batch = *batch;
            entry.watchers > 0
        });
        *joining = clients.keys().copied().collect();
    }

    /// Clients that are subscribed, or are about to be.
    pub(crate) fn len(&self) -> usize {
        self.lock().clients.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(interest: &Interest) -> Batch {
        let batch = interest.take();
        interest.finish(&batch);
        batch
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_joins_with_its_first_socket_and_leaves_a_while_after_the_last() {
        let (interest, client) = (Interest::new(false), ClientId::generate());
        interest.join(&client);
        let second = interest.join(&client);
        assert_eq!(taken(&interest).join, [client]);
        interest.done(second).await;
        interest.leave(&client);
        interest.leave(&client);
        assert!(interest.take().leave.is_empty());
        tokio::time::sleep(LINGER).await;
        interest.changed().await;
        assert_eq!(interest.take().leave, [client]);
        assert_eq!(interest.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_comes_back_in_time_is_not_left() {
        let (interest, client) = (Interest::new(false), ClientId::generate());
        interest.join(&client);
        taken(&interest);
        interest.leave(&client);
        interest.join(&client);
        tokio::time::sleep(LINGER).await;
        let batch = taken(&interest);
        assert!(batch.leave.is_empty() && batch.join.is_empty());
        interest.leave(&client);
        tokio::time::sleep(LINGER).await;
        assert_eq!(taken(&interest).leave, [client]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_while_a_batch_is_under_way_waits_for_the_next() {
        let interest = Interest::new(false);
        let first = interest.join(&ClientId::generate());
        let under_way = interest.take();
        let second = interest.join(&ClientId::generate());
        assert!(second > first);
        interest.finish(&under_way);
        interest.done(first).await;
        let waits = tokio::time::timeout(Duration::from_secs(1), interest.done(second));
        assert!(waits.await.is_err());
        taken(&interest);
        interest.done(second).await;
    }

    #[test]
    fn what_failed_or_got_lost_comes_up_again_unless_its_sockets_have_left() {
        let interest = Interest::new(true);
        let (stays, leaves) = (ClientId::generate(), ClientId::generate());
        for client in [&stays, &leaves] {
            interest.join(client);
        }
        let failed = interest.take();
        assert!(failed.all);
        interest.failed(failed);
        assert_eq!(interest.take().join.len(), 2);
        interest.leave(&leaves);
        interest.lost();
        assert_eq!(interest.take().join, [stays]);
        assert_eq!(interest.len(), 1);
    }
}

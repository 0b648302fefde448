//! The view as the tasks of this node share it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use super::{Actions, DueProbes, Input, SessionVersion, Step, Suspects, View};
use crate::backend::{BackendEvent, SessionSnapshot};
use crate::session::{ClientId, Generation, NodeId};

/// A [`View`] under a lock. Events go out while the lock is held, so that their order is that of
/// the inputs.
#[derive(Debug)]
pub(crate) struct SharedView {
    view: Mutex<View>,
    followed: Followed,
    events: broadcast::Sender<BackendEvent>,
    timer: Notify,
    probes: Notify,
    suspects: Notify,
}

impl SharedView {
    pub(crate) fn new(node: NodeId, event_capacity: usize) -> Self {
        let (events, _) = broadcast::channel(event_capacity);
        Self {
            view: Mutex::new(View::new(node)),
            followed: Followed::default(),
            events,
            timer: Notify::new(),
            probes: Notify::new(),
            suspects: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an input, emits its events, and wakes the tasks that have something to do.
    pub(crate) fn apply(&self, input: Input<'_>) {
        self.apply_all([input]);
    }

    /// Applies inputs that belong together: nobody sees the view between two of them.
    pub(crate) fn apply_all<'a>(&self, inputs: impl IntoIterator<Item = Input<'a>>) {
        let mut view = self.lock();
        let now = Instant::now();
        for input in inputs {
            let concerned = match &input {
                Input::FirstRead(client, ..) | Input::Unwatched(client) => Some(*client),
                _ => None,
            };
            let Actions { emit, probe, reconcile, timer } = view.apply(now, input);
            if let Some(client) = concerned {
                self.followed.set(&client, view.follows(&client));
            }
            for event in emit {
                // An error says that nobody listens.
                let _ = self.events.send(event);
            }
            for (wanted, task) in
                [(probe, &self.probes), (reconcile, &self.suspects), (timer, &self.timer)]
            {
                if wanted {
                    task.notify_one();
                }
            }
        }
    }

    /// Whether a record of this client that is read from now on is to be applied. Most clients have no
    /// socket here: their reads and writes take no lock that others take.
    pub(crate) fn follows(&self, client: &ClientId) -> bool {
        self.followed.contains(client)
    }

    /// All events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<BackendEvent> {
        self.events.subscribe()
    }

    /// Events that the slowest subscriber has yet to take.
    pub(crate) fn backlog(&self) -> usize {
        self.events.len()
    }

    /// Waits until sessions of clients may be over, and takes up to `limit` clients.
    /// Cancel safe.
    pub(crate) async fn due(&self, limit: usize) -> Vec<ClientId> {
        loop {
            let next = {
                let mut view = self.lock();
                let due = view.take_due(Instant::now(), limit);
                if !due.is_empty() {
                    return due;
                }
                view.next_deadline()
            };
            wait(next, &self.timer).await;
        }
    }

    /// Waits until probes are due, and takes them. Cancel safe.
    pub(crate) async fn due_probes(&self) -> DueProbes {
        loop {
            let next = {
                let mut view = self.lock();
                let now = Instant::now();
                let next = view.next_probe();
                if next.is_some_and(|at| at <= now) {
                    return view.take_probes(now);
                }
                next
            };
            wait(next, &self.probes).await;
        }
    }

    /// Waits until there are suspects. Cancel safe.
    pub(crate) async fn suspected(&self) {
        self.suspects.notified().await;
    }

    pub(crate) fn take_suspects(&self) -> Suspects {
        self.lock().take_suspects()
    }

    pub(crate) fn step(&self) -> Step {
        self.lock().step()
    }

    pub(crate) fn cached_session(&self, client: &ClientId) -> Option<SessionSnapshot> {
        self.lock().cached_session(client)
    }

    pub(crate) fn last_session(&self, client: &ClientId) -> Option<SessionVersion> {
        self.lock().last_session(client)
    }

    pub(crate) fn differs(
        &self,
        client: &ClientId,
        since: Step,
        record: Option<(Generation, u64)>,
    ) -> bool {
        self.lock().differs(client, since, record)
    }

    pub(crate) fn clients(&self) -> Vec<ClientId> {
        self.lock().clients()
    }

    pub(crate) fn sizes(&self) -> [(&'static str, usize); 2] {
        self.lock().sizes()
    }
}

/// The clients that the view [follows](View::follows), by the last character of their id.
#[derive(Debug, Default)]
struct Followed([RwLock<HashSet<ClientId>>; 16]);

impl Followed {
    fn shard(&self, client: &ClientId) -> &RwLock<HashSet<ClientId>> {
        let last = client.as_str().bytes().last().unwrap_or_default();
        &self.0[usize::from(last % 16)]
    }

    fn contains(&self, client: &ClientId) -> bool {
        self.shard(client).read().unwrap_or_else(PoisonError::into_inner).contains(client)
    }

    fn set(&self, client: &ClientId, follows: bool) {
        let mut clients = self.shard(client).write().unwrap_or_else(PoisonError::into_inner);
        match follows {
            true => clients.insert(*client),
            false => clients.remove(client),
        };
    }
}

/// Waits for a time, or until it changes.
async fn wait(until: Option<Instant>, changed: &Notify) {
    let reached = async {
        match until {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = reached => {}
        () = changed.notified() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{record, session};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_due_when_its_session_may_be_over() {
        let view = SharedView::new(NodeId::random(), 16);
        let (soon, later) = (ClientId::generate(), ClientId::generate());
        for (client, left) in [(later, 100), (soon, 1)] {
            let mut record = record(client, session(1), 1);
            record.remaining = Duration::from_secs(left);
            view.apply(Input::Watched(client));
            view.apply(Input::FirstRead(client, Some(&record), view.step()));
        }
        let begun = Instant::now();
        assert_eq!(view.due(10).await, [soon]);
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert_eq!(view.due(10).await, [later]);
    }
}

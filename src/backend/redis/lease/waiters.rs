//! This node's part in the leases: a queue per client, and the tokens that Redis may know of.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::backend::LeaseToken;
use crate::backend::lease_queue::LeaseQueue;
use crate::session::ClientId;

/// This node's part in the leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    lines: Mutex<HashMap<ClientId, Arc<LeaseQueue>>>,
    /// Tokens of this node that Redis may know of.
    tokens: Mutex<HashMap<String, Turn>>,
    /// Tokens whose acquire was sent twice: one of the two may come late.
    sent_twice: Mutex<HashSet<String>>,
    /// Changes when grants may have been missed.
    gaps: watch::Sender<()>,
}

#[derive(Debug)]
pub(crate) enum Turn {
    Waiting(oneshot::Sender<()>),
    Held,
}

impl Leases {
    pub(crate) fn lines(&self) -> MutexGuard<'_, HashMap<ClientId, Arc<LeaseQueue>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tokens(&self) -> MutexGuard<'_, HashMap<String, Turn>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent_twice(&self) -> MutexGuard<'_, HashSet<String>> {
        self.sent_twice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An acquire of this token was sent twice, or got no answer.
    pub(crate) fn note_sent_twice(&self, lease: LeaseToken) {
        self.sent_twice().insert(lease.text());
    }

    /// Grants may have been missed: all who wait ask again.
    pub(crate) fn ask_again(&self) {
        self.gaps.send_replace(());
    }

    pub(crate) fn gaps(&self) -> watch::Receiver<()> {
        self.gaps.subscribe()
    }

    /// Resolves once this token is granted the lease.
    pub(crate) fn grant_of(&self, lease: LeaseToken) -> oneshot::Receiver<()> {
        let (sender, granted) = oneshot::channel();
        self.tokens().insert(lease.text(), Turn::Waiting(sender));
        granted
    }

    pub(crate) fn sizes(&self) -> [(&'static str, usize); 3] {
        [
            ("lease_lines", self.lines().len()),
            ("lease_tokens", self.tokens().len()),
            ("leases_sent_twice", self.sent_twice().len()),
        ]
    }

    pub(crate) fn line(&self, client: &ClientId) -> Arc<LeaseQueue> {
        self.lines().entry(*client).or_default().clone()
    }

    /// How long a lease lasts yet, as far as this node knows.
    pub(crate) fn time_left(&self, client: &ClientId, lease: LeaseToken) -> Duration {
        self.lines().get(client).map_or(Duration::ZERO, |line| line.time_left(lease))
    }

    pub(crate) fn renew_line(&self, client: &ClientId, lease: LeaseToken, length: Duration) {
        if let Some(line) = self.lines().get(client) {
            line.renew(lease, length);
        }
    }

    /// Leaves the client's line, and drops it with the last.
    pub(crate) fn leave_line(
        &self,
        client: &ClientId,
        lease: Option<LeaseToken>,
        length: Duration,
    ) {
        let mut lines = self.lines();
        let Some(line) = lines.get(client) else { return };
        if let Some(lease) = lease {
            line.release(lease, length);
        }
        // Nobody else has it: those who are about to stand in it hold it.
        if line.is_idle() && Arc::strong_count(line) == 1 {
            lines.remove(client);
        }
    }

    /// A lease is over on this node: the next in its line may go. Whether its acquire was sent twice.
    pub(crate) fn done(&self, client: &ClientId, lease: LeaseToken, length: Duration) -> bool {
        let token = lease.text();
        self.tokens().remove(&token);
        self.leave_line(client, Some(lease), length);
        self.sent_twice().remove(&token)
    }
}

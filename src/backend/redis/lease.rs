//! Leases: first the line of this node, then the one of all nodes, where each node has one entry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::prelude::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backend::lease_queue::{self, LeaseQueue};
use crate::backend::redis::context::{Shared, closed, millis};
use crate::backend::redis::record::Stored;
use crate::backend::{Acquired, LeaseToken};
use crate::error::Result;
use crate::session::{ClientId, Record};

/// A waiter looks again this much after the owner's lease has run out.
const AFTER: Duration = Duration::from_millis(5);

/// This node's part in the leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    lines: Mutex<HashMap<ClientId, Arc<LeaseQueue>>>,
    /// Tokens of this node that Redis may know of.
    tokens: Mutex<HashMap<String, Turn>>,
}

#[derive(Debug)]
enum Turn {
    Waiting(oneshot::Sender<()>),
    Held,
}

impl Leases {
    fn lines(&self) -> MutexGuard<'_, HashMap<ClientId, Arc<LeaseQueue>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, Turn>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        [("lease_lines", self.lines().len()), ("lease_tokens", self.tokens().len())]
    }

    fn line(&self, client: &ClientId) -> Arc<LeaseQueue> {
        self.lines().entry(*client).or_default().clone()
    }

    fn renew_line(&self, client: &ClientId, lease: LeaseToken, length: Duration) {
        if let Some(line) = self.lines().get(client) {
            line.renew(lease, length);
        }
    }

    /// Leaves the client's line, and drops it with the last.
    fn leave_line(&self, client: &ClientId, lease: Option<LeaseToken>, length: Duration) {
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

    /// A lease is over on this node: the next in its line may go.
    pub(super) fn done(&self, client: &ClientId, lease: LeaseToken, length: Duration) {
        self.tokens().remove(&lease.text());
        self.leave_line(client, Some(lease), length);
    }
}

/// Leaves what a waiter stands in when it goes away.
struct Leave<'a> {
    shared: &'a Arc<Shared>,
    client: ClientId,
    lease: Option<LeaseToken>,
    /// Whether Redis was asked: then it may have an entry or a lease of ours.
    asked: bool,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        match self.lease {
            Some(lease) if self.asked => self.shared.release(&self.client, lease),
            lease => self.shared.leases.leave_line(
                &self.client,
                lease,
                self.shared.config.lease_duration,
            ),
        }
    }
}

enum Answer {
    Granted(Option<Record>),
    Queued(Duration),
}

impl Shared {
    /// Waits for the client's lease, at most `wait`.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        client: &ClientId,
        wait: Duration,
    ) -> Result<Acquired> {
        let deadline = Instant::now() + wait;
        let length = self.config.lease_duration;
        // Made before the line is taken, so dropped after it: whoever leaves last finds the line
        // in no other hands.
        let mut leave = Leave { shared: self, client: *client, lease: None, asked: false };
        let line = self.leases.line(client);
        let lease = line.acquire(length, wait, self.config.lease_queue_limit).await?;
        leave.lease = Some(lease);
        // This node's line stands still as long as we wait in the other one.
        line.renew(lease, wait + length);
        let (sender, mut granted) = oneshot::channel();
        self.leases.tokens().insert(lease.text(), Turn::Waiting(sender));
        leave.asked = true;
        let record = loop {
            let begun = Instant::now();
            let left = deadline.saturating_duration_since(begun);
            let check = match self.try_acquire(client, lease, left).await {
                Ok(Answer::Granted(record)) => break record,
                // A moment later than the owner's end: then the line has to be moved on.
                Ok(Answer::Queued(left)) => Instant::now() + left + AFTER,
                Err(error) => {
                    // Each would wait as long for the same silence, one after the other.
                    if begun.elapsed() >= self.link.timeout {
                        line.reject_all();
                    }
                    return Err(error);
                }
            };
            tokio::select! {
                biased;
                grant = &mut granted => match grant {
                    Ok(()) => break self.client_record(client).await?,
                    Err(_) => return Err(closed()),
                },
                () = tokio::time::sleep_until(check.min(deadline)) => {
                    if Instant::now() >= deadline {
                        return Err(lease_queue::timed_out(wait));
                    }
                }
            }
        };
        self.leases.tokens().insert(lease.text(), Turn::Held);
        line.renew(lease, length);
        // From here on it is the caller's business.
        leave.lease = None;
        Ok(Acquired { lease, length, record })
    }

    async fn try_acquire(
        &self,
        client: &ClientId,
        lease: LeaseToken,
        wait: Duration,
    ) -> Result<Answer> {
        let arguments: Vec<Value> = vec![
            lease.text().into(),
            self.instance.as_str().into(),
            millis(wait).into(),
            client.as_str().into(),
        ];
        let keys = vec![self.keys.record(client)];
        let reply = self.link.run(&self.link.scripts.acquire, keys, arguments).await?;
        Ok(match reply.status {
            1 => Answer::Granted(match reply.record(client)? {
                Stored::Live(record) => {
                    self.link.observe(&reply);
                    self.learn(&record);
                    Some(record)
                }
                // Reading it again ends it.
                Stored::Corrupt(_) | Stored::Overdue => self.client_record(client).await?,
                Stored::Newer(error) => return Err(error),
            }),
            2 => Answer::Granted(None),
            3 => {
                let left = u64::try_from(reply.number(0).unwrap_or(0)).unwrap_or(0);
                Answer::Queued(Duration::from_millis(left))
            }
            4 => {
                return Err(lease_queue::busy(self.config.lease_queue_limit));
            }
            _ => return Err(reply.unexpected()),
        })
    }

    pub(super) async fn renew(&self, client: &ClientId, lease: LeaseToken) -> Result<bool> {
        let keys = vec![self.keys.record(client)];
        let reply =
            self.link.run(&self.link.scripts.renew, keys, vec![lease.text().into()]).await?;
        if reply.status == 1 {
            self.leases.renew_line(client, lease, self.config.lease_duration);
        }
        Ok(reply.status == 1)
    }

    /// Gives a lease back, or leaves the line, beside whatever the caller does next.
    pub(super) fn release(self: &Arc<Self>, client: &ClientId, lease: LeaseToken) {
        self.leases.done(client, lease, self.config.lease_duration);
        self.give_back(client, lease.text());
    }

    fn give_back(self: &Arc<Self>, client: &ClientId, token: String) {
        if self.tasks.is_closed() && self.tasks.is_empty() {
            // It runs out by itself: there is no connection any more.
            return;
        }
        let (shared, client) = (self.clone(), *client);
        self.tasks.spawn(async move {
            let keys = vec![shared.keys.record(&client)];
            let arguments: Vec<Value> =
                vec![token.into(), shared.instance.as_str().into(), client.as_str().into()];
            if let Err(error) = shared.link.run(&shared.link.scripts.release, keys, arguments).await
            {
                tracing::debug!(%error, "a lease was not given back and runs out by itself");
            }
        });
    }

    /// Redis granted a lease to one who waits here.
    pub(super) fn granted(self: &Arc<Self>, message: &str) {
        let Some((token, client)) = message.split_once('|') else { return };
        let mut tokens = self.leases.tokens();
        match tokens.get_mut(token) {
            Some(turn @ Turn::Waiting(_)) => {
                if let Turn::Waiting(waiter) = std::mem::replace(turn, Turn::Held) {
                    // It may have gone in this moment; its guard gives the lease back.
                    let _ = waiter.send(());
                }
            }
            // It asked by itself and was faster.
            Some(Turn::Held) => {}
            // Its waiter is gone, and its leaving was overtaken.
            None => {
                drop(tokens);
                if let Ok(client) = ClientId::parse(client) {
                    self.give_back(&client, token.to_owned());
                }
            }
        }
    }
}

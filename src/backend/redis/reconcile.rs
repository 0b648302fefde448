//! Comparing this node's sockets with Redis: messages can get lost, sessions can not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::BackendEvent;
use crate::backend::redis::context::Shared;
use crate::backend::redis::expiry::probe::Found;
use crate::backend::redis::script::reply::{Fields, Stored};
use crate::backend::redis::view::old::suspects::Doubtful;
use crate::backend::redis::view::old::tracker::Belief;
use crate::error::Result;
use crate::session::{ClientId, DestroyReason, Record, SessionDestroy, SessionEvent, SessionSet};

/// Clients that are compared at once.
const BATCH: usize = 128;
/// What looks missed may be on its way: it is given this long.
const SETTLE: Duration = Duration::from_millis(250);
/// Between tries while Redis is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Compares all clients each `audit`, and those in doubt at once, for ever.
pub(super) async fn audit(shared: Arc<Shared>, audit: Duration) {
    let mut next = Instant::now() + audit;
    loop {
        // Doubts about a few must not put off the look at all.
        tokio::select! {
            () = shared.doubt.raised() => {}
            () = tokio::time::sleep_until(next) => shared.doubt.all(),
        }
        let clients = match shared.doubt.take() {
            Doubtful::All => {
                next = Instant::now() + audit;
                shared.watched.all()
            }
            Doubtful::Some(clients) => clients.into_iter().collect(),
        };
        while let Err(error) = shared.reconcile(&clients).await {
            tracing::warn!(%error, "comparing with Redis failed; trying on");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Shared {
    /// Compares clients that have a socket here with Redis, and tells what was missed.
    async fn reconcile(&self, clients: &[ClientId]) -> Result<()> {
        let mut odd = self.differing(clients).await?;
        if odd.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(SETTLE).await;
        odd = self.differing(&odd).await?;
        for client in odd {
            self.repair(&client).await?;
        }
        Ok(())
    }

    /// Those whose session is not what the sockets here go by.
    async fn differing(&self, clients: &[ClientId]) -> Result<Vec<ClientId>> {
        let mut odd = Vec::new();
        for batch in clients.chunks(BATCH) {
            let reads = batch.iter().map(async |client| {
                let record = self.peek(client).await?;
                let belief = self.watched.belief(client);
                // Its sockets may have left in between: nobody is to be told then.
                let differs = is_behind(belief, record.as_ref());
                Result::Ok((*client, differs && self.watched.contains(client)))
            });
            for read in futures_util::future::join_all(reads).await {
                let (client, differs) = read?;
                if differs {
                    odd.push(client);
                }
            }
        }
        Ok(odd)
    }

    /// The client's record, without taking it over.
    async fn peek(&self, client: &ClientId) -> Result<Option<Record>> {
        let values = self.link.fields(self.keys.record(client)).await?.unwrap_or_default();
        Ok(match Fields(&values).record(client, self.link.clock.now()) {
            Stored::Live(record) => Some(record),
            Stored::Corrupt(_) | Stored::Over => None,
        })
    }

    async fn repair(&self, client: &ClientId) -> Result<()> {
        // A record that can't be read ends by this.
        let record = self.client_record(client).await?;
        let belief = self.watched.belief(client);
        let node = self.config.node.clone();
        if let Some(old) = belief
            && record.as_ref().is_none_or(|record| record.generation != old.generation)
        {
            let found = self.look(client, DestroyReason::Reconciled).await?;
            // Else everybody is told by an announcement, this node too.
            if !matches!(found, Found::Told(_)) {
                self.watched.end(client, Some(old.generation));
                if self.ended.note(client, old.generation) {
                    // What sealed it is there to be seen: those who follow it still can.
                    let heir = record.as_ref().filter(|new| new.sealed && new.had(&old.session));
                    let reason = match heir {
                        Some(_) => DestroyReason::Sealed,
                        None => DestroyReason::Reconciled,
                    };
                    let end = SessionDestroy::new(*client, old.session, reason, node.clone());
                    self.tell(BackendEvent {
                        successor: heir.map(|heir| heir.generation),
                        ..BackendEvent::end(end, Some(old.generation))
                    });
                }
            }
        }
        let belief = self.watched.belief(client);
        if let Some(record) = record.filter(|record| is_behind(belief, Some(record))) {
            let begun = belief.is_none_or(|belief| belief.generation != record.generation);
            self.ended.forget(client);
            self.learn(&record);
            self.watched.forestall(client, Belief::of(&record));
            let set = SessionSet::new(*client, record.session_id, false, begun, node);
            self.tell(BackendEvent {
                generation: Some(record.generation),
                version: Some(record.version),
                sealed: record.sealed,
                ..BackendEvent::plain(SessionEvent::Set(set))
            });
        }
        Ok(())
    }
}

/// Whether what sockets go by is not what there is now.
fn is_behind(belief: Option<Belief>, record: Option<&Record>) -> bool {
    match (belief, record) {
        (None, None) => false,
        (Some(belief), Some(record)) => {
            belief.generation != record.generation || belief.version < record.version
        }
        _ => true,
    }
}

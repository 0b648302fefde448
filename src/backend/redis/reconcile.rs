//! Comparing this node's sockets with Redis: messages can get lost, sessions can not.
//!
//! A comparison reads the headers of records, many side by side, and looks closer only where something
//! differs. Their data is never read. What can't be compared comes up again and holds up nothing else.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use crate::backend::redis::context::Context;
use crate::backend::redis::expiry::probe::{ProbeOutcome, probe};
use crate::backend::redis::record::{self, HEAD_LIMIT, Header, Stored};
use crate::backend::redis::sessions;
use crate::backend::redis::view::{Comparison, Input, Suspects};
use crate::error::Result;
use crate::session::{ClientId, DestroyReason, Record};

/// Clients that are compared at once: enough to keep Redis busy, and few enough that no other command
/// waits long behind them.
const SIDE_BY_SIDE: usize = 256;
/// What seems missed may be on its way: it is given this long.
const SETTLE: Duration = Duration::from_millis(250);
/// Between tries while Redis is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Compares all clients regularly, and suspects at once.
pub(super) struct Reconciler {
    context: Arc<Context>,
    audit: Duration,
}

impl Reconciler {
    /// `audit` is how often all clients are compared.
    pub(super) fn new(context: Arc<Context>, audit: Duration) -> Self {
        Self { context, audit }
    }

    /// Compares until the task is dropped.
    pub(super) async fn run(self) {
        let view = &self.context.view;
        let mut next = Instant::now() + self.audit;
        let mut again = Vec::new();
        loop {
            // A few suspects must not put off the audit.
            tokio::select! {
                () = view.suspected() => {}
                () = tokio::time::sleep_until(next) => {
                    self.context.purge_near_cache();
                    view.apply(Input::CompareAll);
                }
                () = std::future::ready(()), if !again.is_empty() => {}
            }
            let clients = match view.take_suspects() {
                Suspects::All => {
                    next = Instant::now() + self.audit;
                    view.clients()
                }
                Suspects::Some(mut clients) => {
                    clients.extend(again);
                    clients.into_iter().collect()
                }
            };
            again = self.reconcile(clients).await;
            if !again.is_empty() {
                tracing::warn!(clients = again.len(), "comparing with Redis failed; trying on");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Compares clients with Redis, and has the view emit what was missed. Returns those that could
    /// not be compared.
    async fn reconcile(&self, clients: Vec<ClientId>) -> Vec<ClientId> {
        let (differing, mut failed) = side_by_side(clients, |client| self.differs(client)).await;
        if !differing.is_empty() {
            tokio::time::sleep(SETTLE).await;
            let (_, more) = side_by_side(differing, |client| self.compare(client)).await;
            failed.extend(more);
        }
        failed
    }

    /// Whether a client's session is not what the view knows.
    async fn differs(&self, client: ClientId) -> Result<bool> {
        let Context { view, commands, keys, .. } = &*self.context;
        let since = view.step();
        let stored = commands.beginning(keys.record(&client), Header::LEN).await?;
        let stored = stored.as_bytes().unwrap_or_default();
        Ok(view.differs(&client, since, record::read_state(stored, commands.clock.now())))
    }

    /// Gives the view what there is of a client, if it is still not what the view knows.
    async fn compare(&self, client: ClientId) -> Result<bool> {
        let Self { context, .. } = self;
        let mut since = context.view.step();
        let mut found = self.peek(&client).await?;
        if matches!(found, Found::Unreadable) {
            // This ends it.
            sessions::client_record(context, &client).await?;
            since = context.view.step();
            found = self.peek(&client).await?;
        }
        let record = match &found {
            Found::Record(record) => Some(record),
            Found::Nothing | Found::Unreadable => None,
            // Not for this version to judge.
            Found::Newer => return Ok(false),
        };
        let state = record.map(|record| (record.generation, record.version));
        if !context.view.differs(&client, since, state) {
            return Ok(false);
        }
        let mut announced = None;
        if record.is_none()
            && let ProbeOutcome::Expired(id) =
                probe(context, &client, DestroyReason::Reconciled).await?
        {
            // All nodes get the announcement, this one too.
            announced = id;
        }
        context.view.apply(Input::Compared(Comparison { client, since, record, announced }));
        Ok(true)
    }

    /// The client's record without its data, and without taking it over.
    async fn peek(&self, client: &ClientId) -> Result<Found> {
        let Context { commands, keys, .. } = &*self.context;
        let stored = commands.beginning(keys.record(client), HEAD_LIMIT).await?;
        if stored.as_bytes().is_some_and(<[u8]>::is_empty) {
            return Ok(Found::Nothing);
        }
        let stored = stored.as_bytes().unwrap_or_default();
        Ok(match record::read_head(client, stored, commands.clock.now()) {
            Stored::Live(record) => Found::Record(record),
            Stored::Corrupt(_) | Stored::Overdue => Found::Unreadable,
            Stored::Newer(_) => Found::Newer,
        })
    }
}

/// What is stored of a client.
enum Found {
    Record(Record),
    Nothing,
    /// Something that is no record of a living session.
    Unreadable,
    Newer,
}

/// Asks for all clients, a bounded number at a time. Returns those of which the answer is yes, and those
/// that could not be asked for.
async fn side_by_side<F>(
    clients: Vec<ClientId>,
    ask: impl Fn(ClientId) -> F,
) -> (Vec<ClientId>, Vec<ClientId>)
where
    F: Future<Output = Result<bool>>,
{
    let asked = clients.into_iter().map(|client| {
        let answer = ask(client);
        async move { (client, answer.await) }
    });
    let mut answers = stream::iter(asked).buffer_unordered(SIDE_BY_SIDE);
    let (mut yes, mut failed) = (Vec::new(), Vec::new());
    while let Some((client, answer)) = answers.next().await {
        match answer {
            Ok(true) => yes.push(client),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "a client could not be compared");
                failed.push(client);
            }
        }
    }
    (yes, failed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn one_clients_error_stops_no_other_and_no_more_than_the_bound_are_asked_for_at_once() {
        let clients: Vec<_> = (0..3 * SIDE_BY_SIDE).map(|_| ClientId::generate()).collect();
        let (bad, odd) = (clients[5], clients[700]);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (yes, failed) = side_by_side(clients, async |client| {
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::Relaxed);
            if client == bad { Err(Error::missing()) } else { Ok(client == odd) }
        })
        .await;
        assert_eq!((yes, failed), (vec![odd], vec![bad]));
        assert_eq!(most.into_inner(), SIDE_BY_SIDE);
    }
}

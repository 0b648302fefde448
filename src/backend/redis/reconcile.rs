//! Comparing this node's sockets with Redis: messages can get lost, sessions can not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::redis::context::Context;
use crate::backend::redis::expiry::probe::{ProbeOutcome, probe};
use crate::backend::redis::record::{self, Stored};
use crate::backend::redis::sessions;
use crate::backend::redis::view::{Comparison, Input, Suspects};
use crate::error::Result;
use crate::session::{ClientId, DestroyReason, Record};

/// Clients that are compared at once.
const BATCH: usize = 128;
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
        loop {
            // A few suspects must not put off the audit.
            tokio::select! {
                () = view.suspected() => {}
                () = tokio::time::sleep_until(next) => view.apply(Input::CompareAll),
            }
            let clients = match view.take_suspects() {
                Suspects::All => {
                    next = Instant::now() + self.audit;
                    view.clients()
                }
                Suspects::Some(clients) => clients.into_iter().collect(),
            };
            while let Err(error) = self.reconcile(&clients).await {
                tracing::warn!(%error, "comparing with Redis failed; trying on");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Compares clients with Redis, and has the view emit what was missed.
    async fn reconcile(&self, clients: &[ClientId]) -> Result<()> {
        let mut differing = self.differing(clients).await?;
        if differing.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(SETTLE).await;
        differing = self.differing(&differing).await?;
        for client in differing {
            self.compare(&client).await?;
        }
        Ok(())
    }

    /// Those whose session is not what the view knows.
    async fn differing(&self, clients: &[ClientId]) -> Result<Vec<ClientId>> {
        let view = &self.context.view;
        let mut differing = Vec::new();
        for batch in clients.chunks(BATCH) {
            let reads = batch.iter().map(async |client| {
                let since = view.step();
                let record = self.peek(client).await?.ok();
                Result::Ok((*client, view.differs(client, since, record.as_ref())))
            });
            for read in futures_util::future::join_all(reads).await {
                let (client, differs) = read?;
                if differs {
                    differing.push(client);
                }
            }
        }
        Ok(differing)
    }

    /// Gives the view what there is of a client.
    async fn compare(&self, client: &ClientId) -> Result<()> {
        let Self { context, .. } = self;
        let mut since = context.view.step();
        let mut record = self.peek(client).await?;
        if matches!(record, Err(Absent::Unreadable)) {
            // This ends it.
            sessions::client_record(context, client).await?;
            since = context.view.step();
            record = self.peek(client).await?;
        }
        let record = record.ok();
        let mut announced = None;
        if record.is_none()
            && let ProbeOutcome::Expired(id) =
                probe(context, client, DestroyReason::Reconciled).await?
        {
            // All nodes get the announcement, this one too.
            announced = id;
        }
        let client = *client;
        let record = record.as_ref();
        context.view.apply(Input::Compared(Comparison { client, since, record, announced }));
        Ok(())
    }

    /// The client's record, without taking it over.
    async fn peek(&self, client: &ClientId) -> Result<std::result::Result<Record, Absent>> {
        let commands = &self.context.commands;
        let stored = commands.stored(self.context.keys.record(client)).await?;
        if stored.is_null() {
            return Ok(Err(Absent::Missing));
        }
        match record::read(client, stored.as_bytes().unwrap_or_default(), commands.clock.now()) {
            Stored::Live(record) => Ok(Ok(record)),
            Stored::Corrupt(_) | Stored::Overdue => Ok(Err(Absent::Unreadable)),
            Stored::Newer(error) => Err(error),
        }
    }
}

/// Why there is no record.
enum Absent {
    Missing,
    /// Something is there that is no record of a living session.
    Unreadable,
}

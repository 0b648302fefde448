//! Probing sessions that may have ended by themselves.
//!
//! A probe makes Redis drop a record whose time is over, and announces the end unless it was
//! announced before: one script, so that each end is announced once.

use std::sync::Arc;

use crate::backend::redis::context::Context;
use crate::backend::redis::hints::{self, hint::Only};
use crate::backend::redis::pubsub::message;
use crate::backend::redis::record::put_generation;
use crate::backend::redis::script::argument::bytes;
use crate::backend::redis::view::DueProbes;
use crate::error::Result;
use crate::session::{ClientId, DestroyReason};

pub(crate) use crate::backend::redis::view::ProbeOutcome;

/// Sessions that are probed together.
pub(crate) const BATCH: usize = 256;

/// Probes a client's session. `reason` is what its end is announced with, if it has ended by itself.
pub(crate) async fn probe(
    context: &Context,
    client: &ClientId,
    reason: DestroyReason,
) -> Result<ProbeOutcome> {
    // Used if nothing is left in Redis that could name it.
    let last = context.view.last_session(client);
    let mut generation = Vec::new();
    if let Some(last) = &last {
        put_generation(&mut generation, last.generation);
    }
    let arguments = vec![
        context.who(client),
        i64::from(message::code(reason)).into(),
        bytes(generation),
        last.map(|last| last.session.as_str().to_owned()).unwrap_or_default().into(),
    ];
    let keys = context.keys_of(client, "m");
    let reply = context.commands.run(&context.commands.scripts.probe, keys, arguments).await?;
    match reply.status {
        1 => {
            context.commands.observe(&reply);
            let left = u64::try_from(reply.number(1).unwrap_or(0)).unwrap_or(0);
            Ok(ProbeOutcome::Alive(std::time::Duration::from_millis(left)))
        }
        2 => Ok(ProbeOutcome::Expired(reply.session(0))),
        0 => Ok(ProbeOutcome::AlreadyAnnounced),
        3 => Ok(ProbeOutcome::Unknown),
        _ => Err(reply.unexpected()),
    }
}

/// [`probe`] of several clients at once.
pub(crate) async fn probe_all(
    context: &Context,
    clients: impl IntoIterator<Item = ClientId>,
    reason: DestroyReason,
) -> Result<Vec<(ClientId, ProbeOutcome)>> {
    let probes = clients
        .into_iter()
        .map(async |client| probe(context, &client, reason).await.map(|outcome| (client, outcome)));
    futures_util::future::try_join_all(probes).await
}

/// [`probe`], and takes an ended session off the list of ends, and its pointer away.
pub(crate) async fn probe_and_clean(
    context: &Context,
    client: &ClientId,
    reason: DestroyReason,
) -> Result<ProbeOutcome> {
    let outcome = probe(context, client, reason).await?;
    if !matches!(outcome, ProbeOutcome::Alive(_)) {
        clean(context, &[(*client, outcome)]).await?;
    }
    Ok(outcome)
}

/// Takes ended sessions off the list of ends, and moves the entries of the others to their ends.
pub(crate) async fn clean(context: &Context, probed: &[(ClientId, ProbeOutcome)]) -> Result<()> {
    let mut later = Vec::new();
    let mut over = Vec::new();
    let mut pointers = Vec::new();
    for (client, outcome) in probed {
        match outcome {
            ProbeOutcome::Alive(left) => later.push((*client, *left, Only::Always)),
            ProbeOutcome::Expired(id) => {
                over.push(*client);
                pointers.push(*id);
            }
            ProbeOutcome::AlreadyAnnounced | ProbeOutcome::Unknown => over.push(*client),
        }
    }
    let pointers = pointers.into_iter().map(|id| hints::remove_pointer(context, id));
    futures_util::try_join!(
        hints::schedule(context, later),
        hints::unschedule(context, &over),
        futures_util::future::try_join_all(pointers),
    )?;
    Ok(())
}

/// Makes the probes that keyspace events and other nodes ask for.
pub(crate) struct Prober {
    context: Arc<Context>,
}

impl Prober {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Probes until the task is dropped.
    pub(crate) async fn probe_loop(self) {
        loop {
            let DueProbes { probes, overflown } = self.context.view.due_probes().await;
            if overflown {
                self.context.request_comparison().await;
            }
            for batch in probes.chunks(BATCH) {
                let probes = batch.iter().map(async |(client, reason)| {
                    if let Err(error) = self.probe_and_announce(client, *reason).await {
                        tracing::debug!(%error, "a probe failed; the audit will find the end");
                    }
                });
                futures_util::future::join_all(probes).await;
            }
        }
    }

    /// [`probe_and_clean`]; if nothing is left that names the session, nodes that have sockets of it
    /// are asked to probe as well.
    async fn probe_and_announce(&self, client: &ClientId, reason: DestroyReason) -> Result<()> {
        let outcome = probe_and_clean(&self.context, client, reason).await?;
        if outcome == ProbeOutcome::Unknown {
            let channel = self.context.keys.announcements(client);
            self.context.announce(channel, message::look(client, reason)).await?;
        }
        Ok(())
    }
}

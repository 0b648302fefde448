//! One of all nodes sweeps: it ends the sessions that are due, and announces that to all.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::Value;
use fred::types::Key;
use futures_util::stream::{FuturesUnordered, TryStreamExt as _};
use tokio::time::Instant;

use super::probe::{ProbeOutcome, clean, probe_all};
use crate::backend::redis::context::Context;
use crate::backend::redis::pubsub::message;
use crate::backend::redis::script::argument::{bytes, millis};
use crate::backend::redis::script::reply::Reply;
use crate::error::Result;
use crate::session::{ClientId, DestroyReason};

/// Entries that one step of the sweep takes.
const PAGE: i64 = 256;
/// Pages that are asked for at once while there are more: Redis works on the next while the answer
/// to one is on its way, or its node is busy with announcements.
const PAGES: usize = 4;
/// Ends that are tidied up together, when nothing is due. Nobody waits for it.
const TIDY: i64 = 128;
/// How long that waits, and how long it waits at most while many end at once.
const TIDY_AFTER: Duration = Duration::from_secs(1);
const TIDY_AT_LAST: Duration = Duration::from_secs(5);
/// A node that sweeps has the next turn too, for this long; if it dies another one goes on then.
const TURN: Duration = Duration::from_secs(1);
/// What a node has claimed comes up again after this.
const CLAIM: Duration = Duration::from_secs(2);

/// The result of one turn.
pub(crate) struct Swept {
    /// How long to wait for the next.
    pause: Duration,
    /// There may be ends to tidy up.
    untidy: bool,
    /// There were many.
    crowded: bool,
}

/// See the module.
pub(crate) struct Sweeper {
    context: Arc<Context>,
}

impl Sweeper {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Probes what is due at this moment, as the sweep or for a cleanup. The number that ended and
    /// was announced by this.
    async fn probe_due(&self, clients: &[Value]) -> Result<u64> {
        let clients = clients.iter().filter_map(|client| ClientId::parse(&client.as_str()?).ok());
        let probed = probe_all(&self.context, clients, DestroyReason::Expired).await?;
        clean(&self.context, &probed).await?;
        let ended = |outcome: &ProbeOutcome| matches!(outcome, ProbeOutcome::Expired(_));
        let ended = probed.iter().filter(|(_, outcome)| ended(outcome)).count();
        Ok(u64::try_from(ended).unwrap_or(u64::MAX))
    }

    /// Ends a page of what is due in one step, on a server that has all keys; as the sweep if
    /// `turn` is given.
    async fn end_page(&self, turn: Option<Duration>) -> Result<Reply> {
        let Context { config, instance, keys, commands, .. } = &*self.context;
        let mut all: Vec<Key> = vec![keys.schedule().into(), keys.tombstones().into()];
        all.extend(turn.iter().flat_map(|_| keys.leader().map(Key::from)));
        let mut node = Vec::new();
        message::put_node(&mut node, &config.node);
        let arguments: Vec<Value> = vec![
            bytes(node),
            PAGE.into(),
            instance.as_str().into(),
            millis(turn.unwrap_or_default()).into(),
        ];
        commands.run(&commands.scripts.expire_due, all, arguments).await
    }

    /// One turn of the sweep: all that is due now.
    pub(crate) async fn sweep(&self, every: Duration) -> Result<Swept> {
        let turn = TURN.max(4 * every);
        let mut swept = Swept { pause: turn, untidy: false, crowded: false };
        let mut pages = FuturesUnordered::from_iter([self.page(turn)]);
        while let Some((reply, count)) = pages.try_next().await? {
            let ours = reply.status == 1;
            self.context.set_leader(ours);
            let until = u64::try_from(reply.number(0).unwrap_or(-1)).ok();
            let until = until.map(Duration::from_millis);
            if !ours {
                // Another node sweeps.
                let pause = until.unwrap_or(turn).max(Duration::from_millis(20));
                return Ok(Swept { pause, untidy: !self.context.commands.clustered, ..swept });
            }
            let next = until.map_or(every, |next| next.min(every));
            swept.pause = next.max(Duration::from_millis(1));
            swept.untidy |= !self.context.commands.clustered && reply.number(2).unwrap_or(0) > 0;
            if count >= PAGE {
                swept.crowded = true;
                let more = PAGES.saturating_sub(pages.len());
                pages.extend((0..more).map(|_| self.page(turn)));
            }
        }
        Ok(swept)
    }

    /// A page of the sweep, and how many clients it had.
    async fn page(&self, turn: Duration) -> Result<(Reply, i64)> {
        if self.context.commands.clustered {
            return self.claim(turn).await;
        }
        let reply = self.end_page(Some(turn)).await?;
        let count = reply.number(1).unwrap_or(0);
        Ok((reply, count))
    }

    /// Marks the mappings of a page of ends that were announced together; `true` if there are more.
    async fn tidy_page(&self) -> Result<bool> {
        let Context { keys, commands, .. } = &*self.context;
        let keys = vec![keys.tombstones().into()];
        let reply =
            commands.run(&commands.scripts.flush_tombstones, keys, vec![TIDY.into()]).await?;
        Ok(reply.number(0).unwrap_or(0) >= TIDY)
    }

    /// A page of the sweep in a cluster: claims it, and ends it session by session.
    async fn claim(&self, turn: Duration) -> Result<(Reply, i64)> {
        let [leader, candidates] = self.context.keys.leader();
        let keys = vec![self.context.keys.schedule().into(), leader.into(), candidates.into()];
        let arguments: Vec<Value> = vec![
            self.context.instance.as_str().into(),
            PAGE.into(),
            millis(CLAIM).into(),
            millis(turn).into(),
        ];
        let reply = self
            .context
            .commands
            .run(&self.context.commands.scripts.claim_due, keys, arguments)
            .await?;
        let clients = reply.items().get(1..).unwrap_or_default();
        if reply.status == 1 {
            self.probe_due(clients).await?;
        }
        let count = i64::try_from(clients.len()).unwrap_or(PAGE);
        Ok((reply, count))
    }

    /// Ends all that is due, on all nodes, and announces the cleanup. The number of sessions that
    /// ended by this.
    pub(crate) async fn cleanup(&self) -> Result<u64> {
        let mut cleared = 0;
        loop {
            // Each that is probed is taken off the list, or moved to its end.
            let (probed, ended) = if self.context.commands.clustered {
                let Context { keys, commands, .. } = &*self.context;
                let keys = vec![keys.schedule().into()];
                let reply =
                    commands.run(&commands.scripts.list_due, keys, vec![PAGE.into()]).await?;
                (reply.items().len(), self.probe_due(reply.items()).await?)
            } else {
                let reply = self.end_page(None).await?;
                let count = |at| u64::try_from(reply.number(at).unwrap_or(0)).unwrap_or(0);
                (usize::try_from(count(1)).unwrap_or(0), count(2))
            };
            cleared += ended;
            if probed == 0 {
                break;
            }
        }
        while !self.context.commands.clustered && self.tidy_page().await? {}
        let Context { keys, config, .. } = &*self.context;
        self.context.announce(keys.all_nodes(), message::cleanup(cleared, &config.node)).await?;
        Ok(cleared)
    }

    /// Sweeps until the task is dropped.
    pub(crate) async fn run(self, every: Duration) {
        // The node that swept before may have left some.
        let since = (!self.context.commands.clustered).then(Instant::now);
        let mut tidying = Tidying { since, crowded: None };
        loop {
            let swept = match self.sweep(every).await {
                Ok(swept) => swept,
                Err(error) => {
                    tracing::debug!(%error, "the sweep failed and will be tried again");
                    tokio::time::sleep(TURN).await;
                    continue;
                }
            };
            tidying.note(&swept);
            if tidying.is_due() && self.context.is_leader() {
                match self.tidy_page().await {
                    // The next page, and sessions that ended meanwhile before it.
                    Ok(true) => continue,
                    Ok(false) => tidying.since = None,
                    Err(error) => tracing::debug!(%error, "ends were not tidied up and will be"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(swept.pause) => {}
                () = self.context.resigned.notified() => {}
            }
        }
    }
}

/// Gives up the right to sweep, if this node has it: ends that are due would wait for the end of its
/// term.
pub(crate) async fn resign(context: &Context) -> Result<()> {
    if !context.is_leader() {
        return Ok(());
    }
    let [leader, _] = context.keys.leader();
    let arguments: Vec<Value> = vec![
        context.instance.as_str().into(),
        context.keys.all_nodes().into(),
        bytes(message::resigned()),
    ];
    context.commands.run(&context.commands.scripts.resign, vec![leader.into()], arguments).await?;
    context.set_leader(false);
    Ok(())
}

/// When to tidy up.
#[derive(Debug, Default)]
struct Tidying {
    /// There is something to do since then.
    since: Option<Instant>,
    /// When many ended at once last: nodes are busy with announcements then.
    crowded: Option<Instant>,
}

impl Tidying {
    fn note(&mut self, swept: &Swept) {
        if swept.untidy {
            self.since.get_or_insert_with(Instant::now);
        }
        if swept.crowded {
            self.crowded = Some(Instant::now());
        }
    }

    fn is_due(&self) -> bool {
        let Some(since) = self.since else { return false };
        let quiet = self.crowded.is_none_or(|crowded| crowded.elapsed() >= TIDY_AFTER);
        since.elapsed() >= if quiet { TIDY_AFTER } else { TIDY_AT_LAST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWEPT: Swept = Swept { pause: Duration::ZERO, untidy: true, crowded: false };

    #[tokio::test(start_paused = true)]
    async fn ends_are_tidied_up_when_it_is_quiet_and_after_a_while_in_any_case() {
        let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let mut tidying = Tidying::default();
        assert!(!tidying.is_due());
        tidying.note(&SWEPT);
        assert!(!tidying.is_due());
        after(1).await;
        tidying.note(&SWEPT);
        assert!(tidying.is_due());
        for _ in 1..5 {
            tidying.note(&Swept { crowded: true, ..SWEPT });
            assert!(!tidying.is_due());
            after(1).await;
            assert!(tidying.is_due());
        }
        tidying.note(&Swept { crowded: true, ..SWEPT });
        assert!(tidying.is_due());
    }
}

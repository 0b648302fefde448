//! One of all nodes sweeps: it ends what is due, and tells all.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::Value;
use fred::types::Key;
use futures_util::stream::{FuturesUnordered, TryStreamExt as _};
use tokio::time::Instant;

use crate::backend::redis::context::{Shared, bytes, millis};
use crate::backend::redis::expiry::probe::Found;
use crate::backend::redis::pubsub::message;
use crate::backend::redis::script::reply::Reply;
use crate::error::Result;
use crate::session::{ClientId, DestroyReason};

/// Entries that one step of the sweep takes.
const PAGE: i64 = 256;
/// Pages that are asked for at once while there are more: Redis has the next in hand while the
/// answer to one is on its way, or its node is busy with what it hears.
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

/// What a turn of the sweep came to.
pub(crate) struct Swept {
    /// How long to wait for the next.
    pause: Duration,
    /// There may be ends to tidy up.
    untidy: bool,
    /// There were many.
    crowded: bool,
}

impl Shared {
    /// Looks at what is due at this moment, as the sweep or for a cleanup. The number that ended
    /// and was told by this.
    async fn end_due(&self, clients: &[Value]) -> Result<u64> {
        let clients = clients.iter().filter_map(|client| ClientId::parse(&client.as_str()?).ok());
        let looked = self.look_at(clients.map(|client| (client, DestroyReason::Expired))).await?;
        self.tidy(&looked).await?;
        let told = looked.iter().filter(|(_, found)| matches!(found, Found::Told(_))).count();
        Ok(u64::try_from(told).unwrap_or(u64::MAX))
    }

    /// Ends a page of what is due in one step, on a server that has all keys; as the sweep if
    /// `turn` is given.
    async fn end_page(&self, turn: Option<Duration>) -> Result<Reply> {
        let mut keys = vec![self.keys.schedule().into(), self.keys.tombstones().into()];
        keys.extend(turn.iter().flat_map(|_| self.keys.leader().map(Key::from)));
        let mut node = Vec::new();
        message::put_node(&mut node, &self.config.node);
        let arguments: Vec<Value> = vec![
            bytes(node),
            PAGE.into(),
            self.instance.as_str().into(),
            millis(turn.unwrap_or_default()).into(),
        ];
        self.link.run(&self.link.scripts.expire_due, keys, arguments).await
    }

    /// One turn of the sweep: all that is due now.
    pub(crate) async fn sweep(&self, every: Duration) -> Result<Swept> {
        let turn = TURN.max(4 * every);
        let mut swept = Swept { pause: turn, untidy: false, crowded: false };
        let mut pages = FuturesUnordered::from_iter([self.page(turn)]);
        while let Some((reply, looked)) = pages.try_next().await? {
            let ours = reply.status == 1;
            self.sweep_is_ours(ours);
            let until = u64::try_from(reply.number(0).unwrap_or(-1)).ok();
            let until = until.map(Duration::from_millis);
            if !ours {
                // Another node sweeps.
                let pause = until.unwrap_or(turn).max(Duration::from_millis(20));
                return Ok(Swept { pause, untidy: !self.link.clustered, ..swept });
            }
            let next = until.map_or(every, |next| next.min(every));
            swept.pause = next.max(Duration::from_millis(1));
            swept.untidy |= !self.link.clustered && reply.number(2).unwrap_or(0) > 0;
            if looked >= PAGE {
                swept.crowded = true;
                let more = PAGES.saturating_sub(pages.len());
                pages.extend((0..more).map(|_| self.page(turn)));
            }
        }
        Ok(swept)
    }

    /// A page of the sweep, and how many clients it had.
    async fn page(&self, turn: Duration) -> Result<(Reply, i64)> {
        if self.link.clustered {
            return self.claim(turn).await;
        }
        let reply = self.end_page(Some(turn)).await?;
        let looked = reply.number(1).unwrap_or(0);
        Ok((reply, looked))
    }

    /// Marks a page of ends that were told together; `true` if there are more.
    async fn tidy_page(&self) -> Result<bool> {
        let keys = vec![self.keys.tombstones().into()];
        let reply =
            self.link.run(&self.link.scripts.flush_tombstones, keys, vec![TIDY.into()]).await?;
        Ok(reply.number(0).unwrap_or(0) >= TIDY)
    }

    /// A page of the sweep in a cluster: claims it, and ends it session by session.
    async fn claim(&self, turn: Duration) -> Result<(Reply, i64)> {
        let [leader, candidates] = self.keys.leader();
        let keys = vec![self.keys.schedule().into(), leader.into(), candidates.into()];
        let arguments: Vec<Value> = vec![
            self.instance.as_str().into(),
            PAGE.into(),
            millis(CLAIM).into(),
            millis(turn).into(),
        ];
        let reply = self.link.run(&self.link.scripts.claim_due, keys, arguments).await?;
        let clients = reply.items().get(1..).unwrap_or_default();
        if reply.status == 1 {
            self.end_due(clients).await?;
        }
        let looked = i64::try_from(clients.len()).unwrap_or(PAGE);
        Ok((reply, looked))
    }

    pub(crate) async fn cleanup(&self) -> Result<u64> {
        let mut cleared = 0;
        loop {
            // Each that is looked at is taken off the list, or put off.
            let (looked, ended) = if self.link.clustered {
                let keys = vec![self.keys.schedule().into()];
                let reply =
                    self.link.run(&self.link.scripts.list_due, keys, vec![PAGE.into()]).await?;
                (reply.items().len(), self.end_due(reply.items()).await?)
            } else {
                let reply = self.end_page(None).await?;
                let count = |at| u64::try_from(reply.number(at).unwrap_or(0)).unwrap_or(0);
                (usize::try_from(count(1)).unwrap_or(0), count(2))
            };
            cleared += ended;
            if looked == 0 {
                break;
            }
        }
        while !self.link.clustered && self.tidy_page().await? {}
        self.announce(message::cleanup(cleared, &self.config.node)).await?;
        Ok(cleared)
    }
}

/// When to tidy up.
#[derive(Debug, Default)]
struct Tidying {
    /// There is something to do since then.
    since: Option<Instant>,
    /// When many ended at once last: nodes have enough to hear then.
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

/// Sweeps, for ever.
pub(crate) async fn sweep(shared: Arc<Shared>, every: Duration) {
    // Who swept before may have left some.
    let since = (!shared.link.clustered).then(Instant::now);
    let mut tidying = Tidying { since, crowded: None };
    loop {
        let swept = match shared.sweep(every).await {
            Ok(swept) => swept,
            Err(error) => {
                tracing::debug!(%error, "the sweep failed and will be tried again");
                tokio::time::sleep(TURN).await;
                continue;
            }
        };
        tidying.note(&swept);
        if tidying.is_due() && shared.sweeps() {
            match shared.tidy_page().await {
                // The next page, and whatever has ended meanwhile before it.
                Ok(true) => continue,
                Ok(false) => tidying.since = None,
                Err(error) => tracing::debug!(%error, "ends were not tidied up and will be"),
            }
        }
        tokio::time::sleep(swept.pause).await;
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

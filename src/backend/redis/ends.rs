//! Ends that no writer tells: expiry, eviction, and whatever others do to our keys.
//!
//! Redis drops a record whose time is over when somebody looks, or much later. So this node looks
//! at the sessions of its own sockets at their very end, and one of all nodes sweeps the rest.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::prelude::Value;
use futures_util::stream::{FuturesUnordered, TryStreamExt as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::announce;
use super::records::Only;
use super::reply::Reply;
use super::scripts;
use super::shared::{GRACE, Shared, millis};
use crate::error::Result;
use crate::session::{ClientId, DestroyReason, SessionId};

/// Entries that one turn of the sweep takes, and sessions that are looked at together.
const PAGE: i64 = 256;
/// Pages that are asked for at once while there are more: Redis has the next in hand while the
/// answer to one is on its way, or its node is busy with what it hears.
const PAGES: usize = 4;
/// Ends that are tidied up together, when nothing is due. Nobody waits for it.
const TIDY: i64 = 128;
const TIDY_PAUSE: Duration = Duration::from_secs(1);
/// A node that sweeps has the next turn too, for this long; if it dies another one goes on then.
const TURN: Duration = Duration::from_secs(1);
/// What a node has claimed comes up again after this.
const CLAIM: Duration = Duration::from_secs(2);
/// Looks wait this long, for most turn out to be announced by then.
const SETTLE: Duration = Duration::from_millis(10);
/// Looks that wait. More than that at once is left to the sweep, and to comparing.
const LOOKS: usize = 16 * 1024;
/// How long the sweep has to tell of sessions that expired, and how many of them it is watched for.
const EXPIRED_LATER: Duration = Duration::from_secs(1);
const EXPIRED: usize = 1024;

/// Clients whose session may have ended.
#[derive(Debug, Default)]
pub(super) struct Looks {
    waiting: Mutex<Waiting>,
    some: Notify,
    /// There were too many at once.
    overflown: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    soon: HashMap<ClientId, DestroyReason>,
    /// Sessions that expired, and when to look whether that was told.
    expired: VecDeque<(Instant, ClientId)>,
}

impl Looks {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, client: &ClientId, reason: DestroyReason) {
        let soon = &mut self.lock().soon;
        if soon.len() >= LOOKS && !soon.contains_key(client) {
            self.overflown.store(true, Ordering::Relaxed);
        } else {
            soon.entry(*client).or_insert(reason);
        }
        self.some.notify_one();
    }

    /// A session expired. The sweep and the timers of sockets tell that by themselves, unless they
    /// knew of a later end only.
    pub(super) fn expired(&self, client: &ClientId, is_told: impl Fn(&ClientId) -> bool) {
        let expired = &mut self.lock().expired;
        while expired.pop_front_if(|(_, first)| is_told(first)).is_some() {}
        if expired.is_empty() {
            self.some.notify_one();
        }
        if expired.len() < EXPIRED {
            expired.push_back((Instant::now() + EXPIRED_LATER, *client));
        }
    }

    pub(super) fn len(&self) -> usize {
        let waiting = self.lock();
        waiting.soon.len() + waiting.expired.len()
    }

    /// Waits until there is something to look at, and takes it.
    async fn take(&self) -> HashMap<ClientId, DestroyReason> {
        let next = self.lock().expired.front().map(|(at, _)| *at);
        let next = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.some.notified() => tokio::time::sleep(SETTLE).await,
            () = next => {}
        }
        let (mut waiting, now) = (self.lock(), Instant::now());
        let mut taken = std::mem::take(&mut waiting.soon);
        while let Some((_, client)) = waiting.expired.pop_front_if(|(at, _)| *at <= now) {
            taken.entry(client).or_insert(DestroyReason::Expired);
        }
        taken
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// It lives, this much longer.
    Alive(Duration),
    /// It had ended, and this told everybody.
    Told(Option<SessionId>),
    /// It is gone, and that was told before.
    Gone,
    /// It is gone, and only a node that knows it from its sockets could name it.
    Nameless,
}

/// What a turn of the sweep came to.
pub(super) struct Swept {
    /// How long to wait for the next.
    pause: Duration,
    /// There may be ends to tidy up.
    untidy: bool,
    /// There were many.
    crowded: bool,
}

impl Shared {
    /// Looks at a session that may have ended by itself, and tells its end if nobody has.
    pub(super) async fn look(&self, client: &ClientId, reason: DestroyReason) -> Result<Found> {
        // Of use if nothing is left in Redis that could name it.
        let known = self.watched.belief(client);
        let mut arguments = self.head(client);
        arguments.extend([
            reason.as_str().into(),
            known.map(|k| k.generation.number().to_string()).unwrap_or_default().into(),
            known.map(|k| k.session.as_str().to_owned()).unwrap_or_default().into(),
        ]);
        let reply = self.link.run(&scripts::RESOLVE, self.session_keys(client), arguments).await?;
        match reply.status {
            1 => {
                self.link.observe(&reply);
                let left = u64::try_from(reply.number(1).unwrap_or(0)).unwrap_or(0);
                Ok(Found::Alive(Duration::from_millis(left)))
            }
            2 => Ok(Found::Told(reply.text(0).and_then(|id| SessionId::parse(&id).ok()))),
            0 => Ok(Found::Gone),
            3 => Ok(Found::Nameless),
            _ => Err(reply.unexpected()),
        }
    }

    /// [`look`](Self::look), and tidies up.
    pub(super) async fn resolve(&self, client: &ClientId, reason: DestroyReason) -> Result<Found> {
        let found = self.look(client, reason).await?;
        if !matches!(found, Found::Alive(_)) {
            let id = if let Found::Told(id) = found { id } else { None };
            let client = [*client];
            futures_util::try_join!(self.unpoint(id), self.unindex(&client))?;
        }
        Ok(found)
    }

    /// [`resolve`](Self::resolve), for what Redis said of a record; if nothing is left that names
    /// the session, the nodes that have sockets of it are asked to look as well.
    async fn look_into(&self, client: &ClientId, reason: DestroyReason) -> Result<()> {
        if matches!(self.resolve(client, reason).await?, Found::Nameless) {
            self.announce(announce::look(client, reason)).await?;
        }
        Ok(())
    }

    /// Looks at several sessions at once. Returns what each is.
    async fn look_at(
        &self,
        clients: impl Iterator<Item = (ClientId, DestroyReason)>,
    ) -> Result<Vec<(ClientId, Found)>> {
        let looks = clients.map(async |(client, reason)| {
            self.look(&client, reason).await.map(|found| (client, found))
        });
        futures_util::future::try_join_all(looks).await
    }

    /// Takes the ended ones off the list and puts the others off.
    async fn tidy(&self, looked: &[(ClientId, Found)]) -> Result<()> {
        let mut later = Vec::new();
        let mut over = Vec::new();
        let mut pointers = Vec::new();
        for (client, found) in looked {
            match found {
                Found::Alive(left) => later.push((*client, *left, Only::Always)),
                Found::Told(id) => {
                    over.push(*client);
                    pointers.push(*id);
                }
                Found::Gone | Found::Nameless => over.push(*client),
            }
        }
        let pointers = pointers.into_iter().map(|id| self.unpoint(id));
        futures_util::try_join!(
            self.index(later),
            self.unindex(&over),
            futures_util::future::try_join_all(pointers),
        )?;
        Ok(())
    }

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
        let mut keys = vec![self.keys.due(), self.keys.told()];
        keys.extend(turn.iter().flat_map(|_| self.keys.turn()));
        let arguments: Vec<Value> = vec![
            self.keys.prefix().into(),
            self.keys.announcements().into(),
            self.config.node.as_str().into(),
            millis(GRACE).into(),
            PAGE.into(),
            self.instance.as_str().into(),
            millis(turn.unwrap_or_default()).into(),
        ];
        self.link.run(&scripts::END_DUE, keys, arguments).await
    }

    /// One turn of the sweep: all that is due now.
    pub(super) async fn sweep(&self, every: Duration) -> Result<Swept> {
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
        let arguments: Vec<Value> = vec![self.keys.prefix().into(), TIDY.into()];
        let reply = self.link.run(&scripts::TIDY, vec![self.keys.told()], arguments).await?;
        Ok(reply.number(0).unwrap_or(0) >= TIDY)
    }

    /// A page of the sweep in a cluster: claims it, and ends it session by session.
    async fn claim(&self, turn: Duration) -> Result<(Reply, i64)> {
        let [by, asked] = self.keys.turn();
        let keys = vec![self.keys.due(), by, asked];
        let arguments: Vec<Value> = vec![
            self.instance.as_str().into(),
            PAGE.into(),
            millis(CLAIM).into(),
            millis(turn).into(),
        ];
        let reply = self.link.run(&scripts::SWEEP, keys, arguments).await?;
        let clients = reply.items().get(1..).unwrap_or_default();
        if reply.status == 1 {
            self.end_due(clients).await?;
        }
        let looked = i64::try_from(clients.len()).unwrap_or(PAGE);
        Ok((reply, looked))
    }

    pub(super) async fn cleanup(&self) -> Result<u64> {
        let mut cleared = 0;
        loop {
            // Each that is looked at is taken off the list, or put off.
            let (looked, ended) = if self.link.clustered {
                let keys = vec![self.keys.due()];
                let reply = self.link.run(&scripts::DUE, keys, vec![PAGE.into()]).await?;
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
        self.announce(announce::cleanup(cleared, &self.config.node)).await?;
        Ok(cleared)
    }
}

/// Sweeps, for ever.
pub(super) async fn sweep(shared: Arc<Shared>, every: Duration) {
    // Who swept before may have left some.
    let (mut untidy, mut tidied) = (!shared.link.clustered, Instant::now());
    loop {
        let swept = match shared.sweep(every).await {
            Ok(swept) => swept,
            Err(error) => {
                tracing::debug!(%error, "the sweep failed and will be tried again");
                tokio::time::sleep(TURN).await;
                continue;
            }
        };
        untidy |= swept.untidy;
        if swept.crowded {
            // Nodes have enough to hear now.
            tidied = Instant::now();
        }
        if untidy && shared.sweeps() && tidied.elapsed() >= TIDY_PAUSE {
            match shared.tidy_page().await {
                // The next page, and whatever has ended meanwhile before it.
                Ok(true) => continue,
                Ok(false) => untidy = false,
                Err(error) => tracing::debug!(%error, "ends were not tidied up and will be"),
            }
            tidied = Instant::now();
        }
        tokio::time::sleep(swept.pause).await;
    }
}

/// Looks at the sessions of this node's own sockets when their time is over, for ever.
pub(super) async fn end_own(shared: Arc<Shared>) {
    loop {
        let due = shared.watched.due(usize::try_from(PAGE).unwrap_or(256)).await;
        let asked: Vec<_> = due
            .into_iter()
            .filter(|client| shared.watched.known(client).is_some())
            .map(|client| (client, DestroyReason::Expired))
            .collect();
        let looked = match shared.look_at(asked.iter().copied()).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::debug!(%error, "sessions could not be looked at and will be again");
                for (client, _) in &asked {
                    shared.watched.look_in(client, TURN);
                }
                continue;
            }
        };
        for (client, found) in &looked {
            match found {
                Found::Alive(left) => shared.watched.look_in(client, *left),
                // The announcement is on its way; if it gets lost the audit finds out.
                Found::Told(_) => {}
                // It was, and may be lost.
                Found::Gone | Found::Nameless => shared.doubt.about(client),
            }
        }
        let over: Vec<_> =
            looked.into_iter().filter(|(_, f)| matches!(f, Found::Told(_))).collect();
        if let Err(error) = shared.tidy(&over).await {
            tracing::debug!(%error, "ended sessions were not tidied up; the sweep will do it");
        }
    }
}

/// Looks at what was said to have ended, for ever.
pub(super) async fn look_around(shared: Arc<Shared>) {
    loop {
        let taken = shared.looks.take().await;
        if shared.looks.overflown.swap(false, Ordering::Relaxed) {
            shared.have_all_compare().await;
        }
        let mut waiting: Vec<_> =
            taken.into_iter().filter(|(client, _)| !shared.ended.is_over(client)).collect();
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(usize::try_from(PAGE).unwrap_or(256)));
            let looks = waiting.iter().map(async |(client, reason)| {
                if let Err(error) = shared.look_into(client, *reason).await {
                    tracing::debug!(%error, "an end could not be looked into; the audit will");
                }
            });
            futures_util::future::join_all(looks).await;
            waiting = rest;
        }
    }
}

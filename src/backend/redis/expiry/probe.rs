//! Looking at sessions that may have ended by themselves.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::redis::context::{Shared, bytes};
use crate::backend::redis::pubsub::message;
use crate::backend::redis::record::put_generation;
use crate::error::Result;
use crate::session::{ClientId, DestroyReason, SessionId};

/// Sessions that are looked at together.
pub(crate) const TOGETHER: usize = 256;
/// Looks wait this long, for most turn out to be announced by then.
const SETTLE: Duration = Duration::from_millis(10);
/// Looks that wait. More than that at once is left to the sweep, and to comparing.
const LOOKS: usize = 16 * 1024;
/// How long the sweep has to tell of sessions that expired, and how many of them it is watched for.
const EXPIRED_LATER: Duration = Duration::from_secs(1);
const EXPIRED: usize = 1024;

/// Clients whose session may have ended.
#[derive(Debug, Default)]
pub(crate) struct Looks {
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

    pub(crate) fn add(&self, client: &ClientId, reason: DestroyReason) {
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
    pub(crate) fn expired(&self, client: &ClientId, is_told: impl Fn(&ClientId) -> bool) {
        let expired = &mut self.lock().expired;
        while expired.pop_front_if(|(_, first)| is_told(first)).is_some() {}
        if expired.is_empty() {
            self.some.notify_one();
        }
        if expired.len() < EXPIRED {
            expired.push_back((Instant::now() + EXPIRED_LATER, *client));
        }
    }

    pub(crate) fn len(&self) -> usize {
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
pub(crate) enum Found {
    /// It lives, this much longer.
    Alive(Duration),
    /// It had ended, and this told everybody.
    Told(Option<SessionId>),
    /// It is gone, and that was told before.
    Gone,
    /// It is gone, and only a node that knows it from its sockets could name it.
    Nameless,
}

impl Shared {
    /// Looks at a session that may have ended by itself, and tells its end if nobody has.
    pub(crate) async fn look(&self, client: &ClientId, reason: DestroyReason) -> Result<Found> {
        // Of use if nothing is left in Redis that could name it.
        let known = self.watched.belief(client);
        let mut generation = Vec::new();
        if let Some(known) = &known {
            put_generation(&mut generation, known.generation);
        }
        let arguments = vec![
            self.who(client),
            i64::from(message::code(reason)).into(),
            bytes(generation),
            known.map(|known| known.session.as_str().to_owned()).unwrap_or_default().into(),
        ];
        let keys = vec![self.keys.record(client)];
        let reply = self.link.run(&self.link.scripts.probe, keys, arguments).await?;
        match reply.status {
            1 => {
                self.link.observe(&reply);
                let left = u64::try_from(reply.number(1).unwrap_or(0)).unwrap_or(0);
                Ok(Found::Alive(Duration::from_millis(left)))
            }
            2 => Ok(Found::Told(reply.session(0))),
            0 => Ok(Found::Gone),
            3 => Ok(Found::Nameless),
            _ => Err(reply.unexpected()),
        }
    }

    /// [`look`](Self::look), and tidies up.
    pub(crate) async fn resolve(&self, client: &ClientId, reason: DestroyReason) -> Result<Found> {
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
            self.announce(message::look(client, reason)).await?;
        }
        Ok(())
    }
}

/// Looks at what was said to have ended, for ever.
pub(crate) async fn look_around(shared: Arc<Shared>) {
    loop {
        let taken = shared.looks.take().await;
        if shared.looks.overflown.swap(false, Ordering::Relaxed) {
            shared.have_all_compare().await;
        }
        let mut waiting: Vec<_> =
            taken.into_iter().filter(|(client, _)| !shared.ended.is_over(client)).collect();
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(TOGETHER));
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

//! What leads to a session: the pointer from its id to its client, and the list of ends.
//!
//! Both are hints. A pointer counts only if the record agrees, an entry of the list only says when to
//! look. They are changed in the step that changes the session, but in a cluster: there they have
//! other slots, and the node changes them afterwards. A hint that can't be set then makes no error of
//! a change that is done; it is tried again until it is set.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::mpsc;

use crate::backend::redis::context::{Shared, millis};
use crate::backend::redis::error::failed;
use crate::backend::redis::script;
use crate::backend::redis::script::reply::Reply;
use crate::error::Result;
use crate::session::{ClientId, Record, SessionId};

/// Hints that wait to be tried again.
pub(super) const WAITING: usize = 1024;
/// Between two tries, and how many there are: longer than Redis is away as a rule.
const PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 300;

/// What goes with a change of a session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hint {
    /// A pointer to a client, for so long.
    Point(SessionId, ClientId, Duration),
    /// A pointer lives on for a while only: its id is an earlier one.
    Retire(SessionId),
    /// A pointer goes.
    Drop(SessionId),
    /// When to look at a client's session.
    Look(ClientId, Duration, Only),
    /// A client needs no look any more.
    Forget(ClientId),
}

/// When an entry in the list of ends is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    Always,
    Earlier,
}

/// The pointer to a record, if the script asks for it: for twice the session's time to live, so that
/// most writes need not.
pub(super) fn pointer(record: &Record, reply: &Reply) -> impl Iterator<Item = Hint> + use<> {
    let hint = Hint::Point(record.session_id, record.client_id, 2 * record.ttl);
    reply.renewed_hints().then_some(hint).into_iter()
}

/// Tries hints again that could not be set, one after the other.
pub(super) async fn retry(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Hint>) {
    while let Some(hint) = waiting.recv().await {
        for _ in 0..TRIES {
            if shared.apply(hint, false).await.is_ok() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Shared {
    /// Sets what goes with a change that is done. A session that replicas have (`copied`) is worth
    /// little to them without its pointer.
    pub(super) async fn hint(&self, hints: impl IntoIterator<Item = Hint>, copied: bool) {
        if !self.link.clustered {
            return;
        }
        let set = hints.into_iter().map(async |hint| {
            let Err(error) = self.apply(hint, copied).await else { return };
            tracing::debug!(%error, "a hint to a session was not set and will be tried again");
            if self.hints.try_send(hint).is_err() {
                tracing::warn!("too many hints to sessions could not be set; one is lost");
            }
        });
        futures_util::future::join_all(set).await;
    }

    async fn apply(&self, hint: Hint, copied: bool) -> Result<()> {
        match hint {
            Hint::Point(session, client, life) => {
                let key = self.keys.pointer(&session);
                self.link.set(&key, client.as_str(), life, copied).await
            }
            Hint::Retire(session) => {
                let (key, life) =
                    (self.keys.pointer(&session), millis(script::retired(&self.config)));
                let kept = self.link.ask(|redis| {
                    let key = key.clone();
                    async move { redis.pexpire(key, life, None).await }
                });
                kept.await.map_err(|e| failed("PEXPIRE", e))
            }
            Hint::Drop(session) => self.unpoint(Some(session)).await,
            Hint::Look(client, left, only) => self.index(vec![(client, left, only)]).await,
            Hint::Forget(client) => self.unindex(&[client]).await,
        }
    }

    /// The client that a pointer leads to.
    pub(super) async fn hinted(&self, session: &SessionId) -> Result<Option<ClientId>> {
        let key = self.keys.pointer(session);
        let pointed = self.link.ask(|redis| {
            let key = key.clone();
            async move { redis.get(key).await }
        });
        let client: Option<String> = pointed.await.map_err(|e| failed("GET", e))?;
        Ok(client.and_then(|client| ClientId::parse(&client).ok()))
    }

    /// Removes the pointer of a session's id that is dead.
    pub(super) async fn unpoint(&self, session: Option<SessionId>) -> Result<()> {
        let Some(id) = session else { return Ok(()) };
        let key = self.keys.pointer(&id);
        let gone = self.link.ask(|redis| {
            let key = key.clone();
            async move { redis.unlink(key).await }
        });
        gone.await.map_err(|e| failed("UNLINK", e))
    }

    /// Says when to look at clients' sessions.
    pub(super) async fn index(&self, entries: Vec<(ClientId, Duration, Only)>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut arguments: Vec<Value> = Vec::new();
        for (client, left, only) in entries {
            let only = if only == Only::Earlier { "LT" } else { "" };
            // A moment after the end, so that one look is enough.
            arguments.extend([
                only.into(),
                client.as_str().into(),
                (millis(left).saturating_add(1)).into(),
            ]);
        }
        self.link
            .run(&self.link.scripts.schedule, vec![self.keys.schedule().into()], arguments)
            .await
            .map(drop)
    }

    pub(super) async fn unindex(&self, clients: &[ClientId]) -> Result<()> {
        if clients.is_empty() {
            return Ok(());
        }
        let members: Vec<&str> = clients.iter().map(ClientId::as_str).collect();
        let removed = self.link.ask(|redis| {
            let (key, members) = (self.keys.schedule(), members.clone());
            async move { redis.zrem(key, members).await }
        });
        removed.await.map_err(|e| failed("ZREM", e))
    }
}

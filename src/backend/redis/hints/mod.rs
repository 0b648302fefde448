//! What leads to a session: the pointer from its id to its client, and the list of ends.
//!
//! Both are hints. A pointer counts only if the record agrees, an entry of the list only says when to
//! look. They are changed in the step that changes the session, but in a cluster: there they have
//! other slots, and the node changes them afterwards. A hint that can't be set then makes no error of
//! a change that is done; it is tried again until it is set.

pub(super) mod hint;

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::mpsc;

use crate::backend::redis::context::Context;
use crate::backend::redis::error::failed;
use crate::backend::redis::script;
use crate::backend::redis::script::argument::millis;
use crate::backend::redis::script::reply::Reply;
use crate::error::Result;
use crate::session::{ClientId, Record, SessionId};
use hint::{Hint, Only};

/// Hints that wait to be tried again.
pub(super) const WAITING: usize = 1024;
/// Between two tries, and how many there are: longer than Redis is away as a rule.
const PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 300;

/// The pointer to a record, if the script asks for it: for twice the session's time to live, so that
/// most writes need not.
pub(super) fn pointer(record: &Record, reply: &Reply) -> impl Iterator<Item = Hint> + use<> {
    let hint = Hint::Point(record.session_id, record.client_id, 2 * record.ttl);
    reply.renewed_hints().then_some(hint).into_iter()
}

/// Tries hints again that could not be set, one after the other.
pub(super) async fn retry(context: Arc<Context>, mut waiting: mpsc::Receiver<Hint>) {
    while let Some(hint) = waiting.recv().await {
        for _ in 0..TRIES {
            if apply(&context, hint, false).await.is_ok() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Sets what goes with a change that is done. A session that replicas have (`copied`) is worth
/// little to them without its pointer.
pub(super) async fn set(context: &Context, hints: impl IntoIterator<Item = Hint>, copied: bool) {
    if !context.commands.clustered {
        return;
    }
    let set = hints.into_iter().map(async |hint| {
        let Err(error) = apply(context, hint, copied).await else { return };
        tracing::debug!(%error, "a hint to a session was not set and will be tried again");
        if context.hints.try_send(hint).is_err() {
            tracing::warn!("too many hints to sessions could not be set; one is lost");
        }
    });
    futures_util::future::join_all(set).await;
}

async fn apply(context: &Context, hint: Hint, copied: bool) -> Result<()> {
    match hint {
        Hint::Point(session, client, life) => {
            let key = context.keys.pointer(&session);
            context.commands.set(&key, client.as_str(), life, copied).await
        }
        Hint::Retire(session) => {
            let (key, life) =
                (context.keys.pointer(&session), millis(script::retired(&context.config)));
            let kept = context.commands.with_retry(|redis| {
                let key = key.clone();
                async move { redis.pexpire(key, life, None).await }
            });
            kept.await.map_err(|e| failed("PEXPIRE", e))
        }
        Hint::Drop(session) => remove_pointer(context, Some(session)).await,
        Hint::Look(client, left, only) => schedule(context, vec![(client, left, only)]).await,
        Hint::Forget(client) => unschedule(context, &[client]).await,
    }
}

/// The client that a pointer leads to.
pub(super) async fn client_of(context: &Context, session: &SessionId) -> Result<Option<ClientId>> {
    let key = context.keys.pointer(session);
    let pointed = context.commands.with_retry(|redis| {
        let key = key.clone();
        async move { redis.get(key).await }
    });
    let client: Option<String> = pointed.await.map_err(|e| failed("GET", e))?;
    Ok(client.and_then(|client| ClientId::parse(&client).ok()))
}

/// Removes the pointer of a session's id that is dead.
pub(super) async fn remove_pointer(context: &Context, session: Option<SessionId>) -> Result<()> {
    let Some(id) = session else { return Ok(()) };
    let key = context.keys.pointer(&id);
    let gone = context.commands.with_retry(|redis| {
        let key = key.clone();
        async move { redis.unlink(key).await }
    });
    gone.await.map_err(|e| failed("UNLINK", e))
}

/// Says when to look at clients' sessions.
pub(super) async fn schedule(
    context: &Context,
    entries: Vec<(ClientId, Duration, Only)>,
) -> Result<()> {
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
    context
        .commands
        .run(&context.commands.scripts.schedule, vec![context.keys.schedule().into()], arguments)
        .await
        .map(drop)
}

pub(super) async fn unschedule(context: &Context, clients: &[ClientId]) -> Result<()> {
    if clients.is_empty() {
        return Ok(());
    }
    let members: Vec<&str> = clients.iter().map(ClientId::as_str).collect();
    let removed = context.commands.with_retry(|redis| {
        let (key, members) = (context.keys.schedule(), members.clone());
        async move { redis.zrem(key, members).await }
    });
    removed.await.map_err(|e| failed("ZREM", e))
}

//! Changes whose answer was lost.
//!
//! The script of such a change runs a second time (`connection::again`). A write only happens to the version
//! that its writer read, so of two runs at most one writes, in whichever order they come. If the second
//! one finds another version, this says whether that is the work of the first.

use super::context::Context;
use super::hints::hint::{Hint, Only};
use super::record::{self, Stored};
use crate::backend::redis::connection::commands::Commands;
use crate::backend::redis::script::reply::Reply;
use crate::backend::{Commit, NewId};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Record, SessionId};

/// A write found another version, generation or end.
pub(super) const OTHER: i64 = 2;
/// A write found that its lease is over.
pub(super) const LEASE_LOST: i64 = 4;

/// What became of a write that ran twice, from the answer to its second run: the record, if the first one
/// wrote it, nothing if none did.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) if later writes cover what the first run did, or did not.
pub(super) async fn ran(
    context: &Context,
    commit: &Commit,
    reply: &Reply,
    new_session: Option<&SessionId>,
) -> Result<Option<Record>> {
    let client = &commit.client;
    let stored = match reply.status {
        OTHER => reply.record(client)?,
        // The first run may have given it back.
        LEASE_LOST => {
            let stored = context.commands.stored_elsewhere(context.keys.record(client)).await?;
            let now = context.commands.clock.now();
            record::read(client, stored.as_bytes().unwrap_or_default(), now)
        }
        _ => return Ok(None),
    };
    let (Stored::Live(found), Some(read)) = (stored, commit.version) else { return Ok(None) };
    // Nobody else can have made this id.
    if new_session.is_some_and(|id| found.session_id == *id || found.had(id)) {
        return Ok(Some(found));
    }
    if found.generation != commit.generation || found.version <= read {
        return Ok(None);
    }
    if found.version == read + 1 {
        // One that others wrote, equal in all this, leaves nothing to do either.
        let ours = found.data == commit.data && found.max_age == commit.max_age;
        return Ok((ours && keeps_id(commit, &found)).then_some(found));
    }
    let gave_back = reply.status == LEASE_LOST && commit.release && is_early(context, commit);
    if gave_back {
        return Ok(Some(found));
    }
    let what =
        "an answer was lost, and others wrote since: the change may or may not have been made";
    Err(Error::new(ErrorKind::Unavailable, what))
}

/// Whether the session may have the id that it has after this write.
fn keeps_id(commit: &Commit, found: &Record) -> bool {
    match commit.new_id {
        None => true,
        Some(NewId::Renew { from }) => found.session_id != from,
        Some(NewId::Seal) => false,
    }
}

/// Whether a lease has so much time left that it can't have run out: who lost it has given it back. Its
/// time began at most one answer before this node heard of it.
fn is_early(context: &Context, commit: &Commit) -> bool {
    let left = commit.lease.map(|lease| context.leases.time_left(&commit.client, lease));
    left.is_some_and(|left| left > context.commands.timeout)
}

/// What goes with a change in a cluster, from the record alone.
pub(super) fn hints(record: &Record) -> impl Iterator<Item = Hint> + use<'_> {
    let client = record.client_id;
    let point = Hint::Point(record.session_id, client, 2 * record.ttl);
    let retired = record.previous.iter().map(|previous| Hint::Retire(previous.session_id));
    [point, Hint::Look(client, record.remaining, Only::Earlier)].into_iter().chain(retired)
}

/// Nobody can say whether replicas have what the first run wrote: its connection is gone.
pub(super) fn copied(commands: &Commands) -> Result<()> {
    if commands.replicated.is_none() {
        return Ok(());
    }
    let what = "the change was made, and the answer lost that says whether replicas have it";
    Err(Error::new(ErrorKind::Unavailable, what))
}
